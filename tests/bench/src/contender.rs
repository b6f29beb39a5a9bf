//! The programs that are compared, each a process of its own so that its processor time is its own.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use clap::ValueEnum;
use millstream_test_support::guard::{Guarded, Plan};
use millstream_test_support::ports::free_port;
use millstream_test_support::process::BINARY;
use millstream_test_support::workspace;

use crate::profile;
use crate::query::Query;

/// A program that does the work.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Contender {
    /// The bare librdkafka loop.
    Bound,
    /// The release build of the runtime (or what `MILLSTREAM_BIN` names), with the query as a plugin.
    Millstream,
    /// The same without a circuit breaker: what a closed one costs.
    NoBreaker,
    /// The same with `delivery = "exactly-once"`.
    ExactlyOnce,
    /// The same with a larger budget of events in flight: a transaction holds what it settles.
    ExactlyOnceWide,
}

/// What a contender works on.
#[derive(Clone, Debug)]
pub struct Job<'a> {
    pub query: Query,
    pub bootstrap: &'a str,
    pub group: &'a str,
    pub input: &'a str,
    pub output: &'a str,
    pub partitions: i32,
    pub events: u64,
    /// Configuration, caches and logs; kept from run to run.
    pub folder: &'a Path,
    /// What is set of librdkafka in the runtime, as `NAME=VALUE`.
    pub properties: &'a [String],
}

impl Contender {
    /// Its name in results.
    pub fn name(self) -> &'static str {
        match self {
            Self::Bound => "bound",
            Self::Millstream => "millstream",
            Self::NoBreaker => "no-breaker",
            Self::ExactlyOnce => "exactly-once",
            Self::ExactlyOnceWide => "exactly-once-wide",
        }
    }

    /// Fails early, with what to do, where it cannot run.
    ///
    /// # Errors
    /// What it needs was not built.
    pub fn check(self, queries: &[Query]) -> Result<()> {
        if self != Self::Bound {
            let mut needed = vec![binary()];
            needed.extend(queries.iter().map(|query| plugin(*query)));
            for file in needed {
                ensure!(
                    file.is_file(),
                    "there is no {}; `make bench` builds it (or leave this contender out: \
                     --contenders bound)",
                    file.display()
                );
            }
        }
        Ok(())
    }

    /// Starts it. It ends by itself when all events are processed.
    ///
    /// # Errors
    /// Its configuration cannot be written, or it cannot be started.
    pub fn start(self, job: &Job<'_>) -> Result<Guarded> {
        self.launch(job, &["--until-idle"], None)
    }

    /// The same, with samples of where it is taken into a file.
    ///
    /// # Errors
    /// As of [`Self::start`].
    pub fn start_sampled(self, job: &Job<'_>, samples: &Path) -> Result<Guarded> {
        self.launch(job, &["--until-idle"], Some(samples))
    }

    /// Starts it to work until it is ended; the bound cannot.
    ///
    /// # Errors
    /// As of [`Self::start`].
    pub fn serve(self, job: &Job<'_>) -> Result<Guarded> {
        self.launch(job, &[], None)
    }

    fn launch(self, job: &Job<'_>, options: &[&str], samples: Option<&Path>) -> Result<Guarded> {
        let (mut program, mut arguments) = match self {
            Self::Bound => (std::env::current_exe()?, bound(job)),
            _ => (binary(), millstream(job, self.settings())?),
        };
        if self != Self::Bound {
            arguments.extend(options.iter().map(OsString::from));
        }
        if let Some(samples) = samples {
            let (recorder, recording) = profile::recorder(samples);
            let all = recording.into_iter().map(OsString::from);
            arguments = all
                .chain([program.into_os_string()])
                .chain(arguments)
                .collect();
            program = recorder;
        }
        let log = self.log(job.folder);
        Guarded::start(&Plan {
            program: program.as_os_str(),
            arguments,
            environment: Vec::new(),
            folder: job.folder,
            stdout: Some(&log),
            stderr: Some(&log),
            remove: None,
        })
    }

    /// What it sets beyond names: what a user gets is what is measured.
    fn settings(self) -> &'static str {
        match self {
            Self::Bound | Self::Millstream => "",
            Self::NoBreaker => "circuit_breaker = false",
            Self::ExactlyOnce => "delivery = \"exactly-once\"",
            Self::ExactlyOnceWide => {
                "delivery = \"exactly-once\"\nin_flight = { max_events = 50000 }"
            }
        }
    }

    /// Where its words go.
    pub fn log(self, folder: &Path) -> PathBuf {
        folder.join(format!("{}.log", self.name()))
    }
}

/// The release build, or what `MILLSTREAM_BIN` names.
pub fn binary() -> PathBuf {
    std::env::var_os(BINARY).map_or_else(
        || workspace::target_dir().join("release/millstream"),
        PathBuf::from,
    )
}

fn plugin(query: Query) -> PathBuf {
    component(&format!("millstream_bench_{}", query.name()))
}

/// Where `make plugins` puts a component.
pub fn component(name: &str) -> PathBuf {
    let folder = workspace::target_dir().join("wasm32-wasip2/plugin");
    folder.join(format!("{name}.wasm"))
}

fn bound(job: &Job<'_>) -> Vec<OsString> {
    [
        "bound",
        "--bootstrap",
        job.bootstrap,
        "--group",
        job.group,
        "--input",
        job.input,
        "--output",
        job.output,
        "--partitions",
        &job.partitions.to_string(),
        "--events",
        &job.events.to_string(),
        "--query",
        job.query.name(),
    ]
    .map(OsString::from)
    .to_vec()
}

fn millstream(job: &Job<'_>, settings: &str) -> Result<Vec<OsString>> {
    let config = configuration(job, settings, free_port()?, &plugin(job.query));
    let file = job.folder.join(format!("{}.toml", job.query.name()));
    std::fs::write(&file, config).with_context(|| format!("cannot write {}", file.display()))?;
    Ok(vec!["run".into(), file.into()])
}

fn configuration(job: &Job<'_>, settings: &str, admin: u16, plugin: &Path) -> String {
    let text = |text: &str| serde_json::Value::from(text).to_string();
    let properties: String = (job.properties.iter())
        .filter_map(|property| property.split_once('='))
        .map(|(name, value)| format!("{} = {}\n", text(name), text(value)))
        .collect();
    format!(
        r#"[runtime]
cache_dir = "cache"

[broker]
kind = "kafka"
data_dir = "data"

[broker.properties]
"bootstrap.servers" = {bootstrap}
{properties}
[admin]
listen = "127.0.0.1:{admin}"

[[consumer]]
name = "{query}"
group = {group}
plugin = {plugin}
topics = [{input}]
start = "beginning"
{settings}
outputs = {{ default = {output} }}
"#,
        bootstrap = text(job.bootstrap),
        query = job.query.name(),
        group = text(job.group),
        plugin = text(&plugin.to_string_lossy()),
        input = text(job.input),
        output = text(job.output),
    )
}
