//! Millstream as a contender: its binary, its plugins, its configuration.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use millstream_test_support::ports::free_port;
use millstream_test_support::process::{BINARY, get, post};
use millstream_test_support::wait::eventually;
use millstream_test_support::workspace;

use crate::contender::{Job, Launch};
use crate::input::CLASS;
use crate::workload::{Step, WANTED, Workload};

/// How long a start may take.
const PATIENCE: Duration = Duration::from_secs(300);

/// The release build, or what `MILLSTREAM_BIN` names.
pub fn binary() -> PathBuf {
    std::env::var_os(BINARY).map_or_else(
        || workspace::target_dir().join("release/millstream"),
        PathBuf::from,
    )
}

/// What a consumer is besides its names.
#[derive(Clone, Copy, Debug, Default)]
pub struct Kind<'a> {
    /// The component, where it is not the workload's own.
    pub component: Option<&'static str>,
    /// More of its configuration.
    pub settings: &'a str,
}

impl<'a> Kind<'a> {
    /// The workload's own component, with this configuration.
    pub fn with(settings: &'a str) -> Self {
        Self {
            component: None,
            settings,
        }
    }

    fn plugin(self, workload: Workload) -> PathBuf {
        component(self.component.unwrap_or_else(|| own(workload)))
    }
}

/// Fails early where something was not built.
///
/// # Errors
/// Binary or plugin are missing.
pub fn check(workloads: &[Workload], kind: Kind<'_>) -> Result<()> {
    let plugins = workloads.iter().map(|workload| kind.plugin(*workload));
    for file in std::iter::once(binary()).chain(plugins) {
        ensure!(
            file.is_file(),
            "there is no {}; `make bench` builds it (or leave this contender out: \
             --contenders bound)",
            file.display()
        );
    }
    Ok(())
}

/// What the binary says of itself.
pub fn version() -> String {
    let output = Command::new(binary()).arg("--version").output();
    let text = output.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned());
    text.unwrap_or_default()
}

/// The component that does a workload.
fn own(workload: Workload) -> &'static str {
    match workload.step() {
        // The header is looked at outside of the sandbox.
        Step::Pass | Step::ByHeader => "millstream_bench_q0",
        Step::Split => "millstream_bench_q22",
        Step::ByValue => "millstream_bench_filter",
        Step::Enrich => "enrich",
    }
}

/// Where `make plugins` puts a component.
pub fn component(name: &str) -> PathBuf {
    let folder = workspace::target_dir().join("wasm32-wasip2/plugin");
    folder.join(format!("{name}.wasm"))
}

/// How it is started on Kafka.
///
/// # Errors
/// No port is free, or the configuration cannot be written.
pub fn launch(job: &Job<'_>, kind: Kind<'_>) -> Result<Launch> {
    let broker = format!(
        "kind = \"kafka\"\ndata_dir = \"data\"\n\n\
         [broker.properties]\n\"bootstrap.servers\" = {}",
        text(job.bootstrap)
    );
    run(&broker, &consumers(job, kind), job)
}

/// `millstream run` with a broker and consumers.
///
/// # Errors
/// No port is free, or the configuration cannot be written.
pub fn run(broker: &str, consumers: &str, job: &Job<'_>) -> Result<Launch> {
    let admin = format!("127.0.0.1:{}", free_port()?);
    let config = format!(
        "[runtime]\ncache_dir = \"cache\"\n\n[broker]\n{broker}\n\n\
         [admin]\nlisten = \"{admin}\"\n\n{consumers}"
    );
    let file = job.folder.join("millstream.toml");
    std::fs::write(&file, config).with_context(|| format!("cannot write {}", file.display()))?;
    Ok(Launch {
        program: binary(),
        arguments: vec!["run".to_owned(), file.to_string_lossy().into_owned()],
        environment: Vec::new(),
        admin: Some(admin),
    })
}

/// The names of the consumers, in the order of their groups.
pub fn names(job: &Job<'_>) -> Vec<String> {
    let workload = job.workload.name();
    let name = |number| format!("{workload}-{number}");
    (0..job.groups.len()).map(name).collect()
}

/// A consumer for each group.
pub fn consumers(job: &Job<'_>, kind: Kind<'_>) -> String {
    let output = text(job.output);
    let mut outputs = format!("default = {output}");
    let special = match job.workload.step() {
        Step::ByHeader => format!("filter = {{ header.{CLASS} = [\"{WANTED}\"] }}\n"),
        Step::Enrich => {
            outputs.push_str(", alerts = false");
            let letters = text(&format!("{}-dlq", job.output));
            format!(
                "config = {{ currency = \"GBP\", alert_above = 10000 }}\n\
                 dead_letter = {{ topic = {letters} }}\n"
            )
        }
        _ => String::new(),
    };
    let consumer = |(name, group): (String, &String)| {
        format!(
            "[[consumer]]\nname = \"{name}\"\ngroup = {group}\nplugin = {plugin}\n\
             topics = [{input}]\nstart = \"beginning\"\noutputs = {{ {outputs} }}\n\
             {special}{settings}\n\n",
            group = text(group),
            plugin = text(&kind.plugin(job.workload).to_string_lossy()),
            settings = kind.settings,
            input = text(job.input),
        )
    };
    let named = names(job).into_iter().zip(&job.groups);
    named.map(consumer).collect()
}

/// Waits until the runtime that listens there is ready.
///
/// # Errors
/// It is not in time.
pub fn until_ready(admin: &str) -> Result<()> {
    eventually("the runtime is ready", PATIENCE, || {
        get(admin, "/readyz").is_ok_and(|(status, _)| status == 200)
    })
}

/// Lets a consumer stand, or go on.
///
/// # Errors
/// The runtime refuses.
pub fn pause(admin: &str, consumer: &str, paused: bool) -> Result<()> {
    let verb = if paused { "pause" } else { "resume" };
    let path = format!("/api/v1/consumers/{consumer}/{verb}");
    let json = ("content-type", "application/json");
    let answer = post(admin, &path, &[json], "")?;
    ensure!(answer.status == 200, "{verb}: {answer:?}");
    Ok(())
}

/// Text as TOML writes it.
pub fn text(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}
