//! `millstream dev [DIR]`: builds a plugin at each save and shows what comes of it.
//!
//! ```text
//! a file is saved ─▶ cargo build ─┬─ it does not compile: cargo's words; the last build goes on
//!        ▲                        └─▶ its cases ─▶ what differs
//!        └──────── watch ◀──────────────┘  └─▶ with --config: the file that the runtime watches,
//!                                              which deploys it; what it writes is printed
//! ```

mod tail;
mod watch;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use sha2::{Digest as _, Sha256};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use self::watch::Watch;
use super::cargo::{Project, Voice};
use super::test::suite::{self, Suite};
use super::test::{self, Cache, report, settings};
use super::{Context, OutputFormat, connect, exit, terminal};
use crate::app::{self, RunOptions, RunSummary};
use crate::config::{Broker, Config, TopicPattern};
use crate::plugin::Host;

/// How long a runtime is waited for: to come up, and beyond its own `shutdown_timeout` to end.
const GRACE: Duration = Duration::from_secs(10);

#[derive(Debug, clap::Args)]
pub struct Args {
    /// The plugin's folder
    #[arg(value_name = "DIR", default_value = ".")]
    folder: PathBuf,

    /// The folder of cases [default: `cases` in the plugin's folder]
    #[arg(long, value_name = "DIR", env = "MILLSTREAM_DEV_CASES")]
    cases: Option<PathBuf>,

    /// The consumer of the plugin, where the configuration has several for it
    #[arg(long, value_name = "NAME", env = "MILLSTREAM_DEV_CONSUMER")]
    consumer: Option<String>,
}

/// Builds and shows until interrupted. Where a configuration is named, it is run with the plugin.
///
/// # Errors
/// There is no plugin, the configuration is wrong, or the runtime cannot start or go on.
pub async fn run(args: Args, context: &Context) -> anyhow::Result<ExitCode> {
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot listen for signals")?;
    let mut terminate = signal(SignalKind::terminate()).context("cannot listen for signals")?;
    let mut runtime = None;
    // Dropped with what it is about when a signal comes: cargo ends with it.
    let ended = tokio::select! {
        ended = session(&args, context, &mut runtime) => ended.map(|()| ExitCode::SUCCESS),
        _ = interrupt.recv() => Ok(ExitCode::from(exit::INTERRUPTED)),
        _ = terminate.recv() => Ok(ExitCode::SUCCESS),
    };
    match runtime {
        // The signal was for it too: it drains.
        Some(runtime) if ended.is_ok() => runtime.ended().await?,
        _ => {}
    }
    ended
}

/// Goes on until something fails for good.
async fn session(
    args: &Args,
    context: &Context,
    runtime: &mut Option<Runtime>,
) -> anyhow::Result<()> {
    let project = Project::find(&args.folder).await?;
    let cases = args.cases.clone();
    let bench = Bench {
        args,
        context,
        cases: cases.unwrap_or_else(|| test::beside(&args.folder)),
        host: suite::host(Cache::of(&project).path())?,
    };
    let mut watch = Watch::start(&args.folder, ignored(args, context, &project)?).await?;
    let mut last: Option<String> = None;
    for number in 1_u64.. {
        watch.mark().await?;
        // The first one builds what it depends on, which takes a while.
        let voice = match last {
            None => Voice::Full,
            Some(_) => Voice::Quiet,
        };
        let begun = Instant::now();
        match project.build(voice).await? {
            Some(component) => {
                let digest = digest(&component).await?;
                let seconds = begun.elapsed().as_secs_f64();
                let what = match last.as_deref() == Some(digest.as_str()) {
                    true => "the same component",
                    false => &digest[..12],
                };
                bench.say("1", &format!("build {number}: {what}, in {seconds:.1} s"));
                bench.run_cases(&component).await?;
                if context.config_given {
                    bench.deploy(&component, runtime).await?;
                }
                last = Some(digest);
            }
            None => bench.say(
                "31",
                match last {
                    Some(_) => "it does not compile; the last build that did goes on",
                    None => "it does not compile",
                },
            ),
        }
        bench.say(
            "2",
            &format!("watching {}; Ctrl-C ends", folder_name(&args.folder)),
        );
        tokio::select! {
            changed = watch.changed() => changed?,
            ended = failure(runtime) => return Err(ended),
        }
    }
    Ok(())
}

/// What a session needs for each build.
struct Bench<'a> {
    args: &'a Args,
    context: &'a Context,
    cases: PathBuf,
    host: Arc<Host>,
}

impl Bench<'_> {
    /// A line to standard error, among cargo's.
    fn say(&self, code: &str, text: &str) {
        match super::colors_wanted_on_stderr() {
            true => eprintln!("\x1b[{code}m{text}\x1b[0m"),
            false => eprintln!("{text}"),
        }
    }

    /// Runs the cases and prints what came of them. What is wrong with them, or with their settings,
    /// is said: it may be mended with the next save.
    async fn run_cases(&self, component: &Path) -> anyhow::Result<()> {
        let result = self.report(component).await;
        match result {
            Ok((suite, report)) if report.cases.is_empty() => {
                eprintln!("note: {}", test::no_cases(&suite));
                Ok(())
            }
            Ok((suite, report)) => match self.context.output {
                OutputFormat::Text => {
                    let text = report::text(&report, &suite.folder, self.context.color);
                    terminal::print(&text).await
                }
                OutputFormat::Json => {
                    let json = report::json(&report, &suite.component, &suite.folder);
                    terminal::print(&format!("{json}\n")).await
                }
            },
            Err(error) => {
                exit::report(&error);
                Ok(())
            }
        }
    }

    async fn report(&self, component: &Path) -> anyhow::Result<(Suite, suite::Report)> {
        let name = self.args.consumer.as_deref();
        let consumer = test::consumer(&self.args.folder, name, component, self.context)?;
        let suite = Suite {
            folder: self.cases.clone(),
            component: component.to_owned(),
            consumer,
            only: None,
            update: false,
        };
        let report = suite::run(&suite, &self.host).await?;
        Ok((suite, report))
    }

    /// Puts the component where the configuration names it, and starts the runtime with the first.
    async fn deploy(&self, component: &Path, runtime: &mut Option<Runtime>) -> anyhow::Result<()> {
        match self.place(component).await {
            // The runtime goes on as it was; the next save may mend the configuration.
            Err(error) if runtime.is_some() => {
                exit::report(&error);
            }
            placed => placed?,
        }
        if runtime.is_none() {
            let config = connect::load(self.context)?;
            self.say("2", &hint(&config, self.context));
            let started = Runtime::start(config, self.context);
            let looked = started.looked.clone();
            *runtime = Some(started);
            // What is produced from now on is new.
            tokio::select! {
                () = looked.notified() => {}
                ended = failure(runtime) => return Err(ended),
                () = tokio::time::sleep(GRACE) => {}
            }
        }
        Ok(())
    }

    async fn place(&self, component: &Path) -> anyhow::Result<()> {
        let config = settings::load(&self.context.config, self.context)?;
        let name = self.args.consumer.as_deref();
        let consumer = settings::consumer(&config, name, component)?;
        let (from, to) = (component.to_owned(), consumer.plugin.path.clone());
        let placing = tokio::task::spawn_blocking(move || place(&from, &to));
        placing.await.context("copying the component panicked")?
    }
}

/// A runtime in this process.
struct Runtime {
    running: JoinHandle<anyhow::Result<RunSummary>>,
    tail: JoinHandle<anyhow::Result<()>>,
    /// Told once it is known which events were there before.
    looked: Arc<Notify>,
    patience: Duration,
}

impl Runtime {
    fn start(config: Config, context: &Context) -> Self {
        let options = RunOptions {
            watch_plugins: true,
            ..RunOptions::default()
        };
        let patience = config.runtime.shutdown_timeout + GRACE;
        let (tailed, context) = (config.clone(), context.clone());
        let looked = Arc::new(Notify::new());
        let told = looked.clone();
        Self {
            running: tokio::spawn(app::run(config, options)),
            tail: tokio::spawn(async move { tail::run(&tailed, &context, &told).await }),
            looked,
            patience,
        }
    }

    /// Waits for its end, which a signal began.
    async fn ended(self) -> anyhow::Result<()> {
        self.tail.abort();
        let ended = tokio::time::timeout(self.patience, self.running).await;
        ended.context("the runtime did not end in time")???;
        Ok(())
    }
}

/// Why the runtime, or what shows its events, ended by itself; waits for ever where there is none.
async fn failure(runtime: &mut Option<Runtime>) -> anyhow::Error {
    let Some(running) = runtime else {
        return std::future::pending().await;
    };
    let why = tokio::select! {
        ended = &mut running.running => match ended {
            Ok(Ok(_)) => anyhow::anyhow!("the runtime has ended"),
            Ok(Err(error)) => error,
            Err(error) => error.into(),
        },
        ended = &mut running.tail => match ended {
            Ok(Ok(())) => anyhow::anyhow!("what the runtime writes cannot be read any more"),
            Ok(Err(error)) => error,
            Err(error) => error.into(),
        },
    };
    why
}

/// What is written beside the sources, and does not belong to them.
fn ignored(args: &Args, context: &Context, project: &Project) -> anyhow::Result<Vec<PathBuf>> {
    let mut ignored = vec![project.target_dir.clone()];
    ignored.extend(["data", "target"].map(|name| args.folder.join(name)));
    if let Some(file) = settings::file(&args.folder, context) {
        let config = settings::load(&file, context)?;
        ignored.push(config.runtime.cache_dir.clone());
        if let Broker::Embedded(embedded) = &config.broker {
            ignored.push(embedded.data_dir.clone());
        }
        ignored.extend(config.consumers.iter().map(|one| one.plugin.path.clone()));
    }
    Ok(ignored)
}

/// Copies the component, unless it is there already: a new time of the file would look like a new
/// plugin. A reader sees the old one or the new one.
fn place(component: &Path, wanted: &Path) -> anyhow::Result<()> {
    let same = |bytes: Vec<u8>| std::fs::read(component).is_ok_and(|built| built == bytes);
    if std::fs::read(wanted).is_ok_and(same) {
        return Ok(());
    }
    let copy = || {
        if let Some(parent) = wanted.parent() {
            std::fs::create_dir_all(parent)?;
        }
        let draft = wanted.with_extension("wasm.new");
        std::fs::copy(component, &draft)?;
        std::fs::rename(&draft, wanted)
    };
    copy().with_context(|| {
        let (from, to) = (component.display(), wanted.display());
        format!("cannot copy {from} to {to}, where the configuration names the plugin")
    })
}

/// How events get to the plugin.
fn hint(config: &Config, context: &Context) -> String {
    let mut topics = config
        .consumers
        .iter()
        .flat_map(|consumer| &consumer.topics);
    let topic = topics.find_map(|topic| match topic {
        TopicPattern::Name(name) => Some(&**name),
        TopicPattern::Pattern(_) => None,
    });
    let topic = topic.unwrap_or("TOPIC");
    let outputs: Vec<_> = tail::outputs(config)
        .iter()
        .map(ToString::to_string)
        .collect();
    format!(
        "running {}; what comes to {} is shown. In another terminal: millstream produce {topic} \
         --config {}",
        config.file.display(),
        outputs.join(", "),
        context.config.display()
    )
}

async fn digest(component: &Path) -> anyhow::Result<String> {
    let path = component.to_owned();
    let read = tokio::task::spawn_blocking(move || std::fs::read(path)).await?;
    let bytes = read.with_context(|| format!("cannot read {}", component.display()))?;
    Ok(hex::encode(Sha256::digest(bytes)))
}

fn folder_name(folder: &Path) -> String {
    match folder == Path::new(".") {
        true => "this folder".to_owned(),
        false => folder.display().to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A runtime that reads half a component would refuse it.
    #[test]
    fn a_component_is_put_where_the_configuration_names_it() {
        let folder = tempfile::tempdir().expect("a folder");
        let built = folder.path().join("built.wasm");
        let wanted = folder.path().join("plugins/p.wasm");
        for content in ["one", "two"] {
            std::fs::write(&built, content).expect("written");
            place(&built, &wanted).expect("copied");
            assert_eq!(std::fs::read_to_string(&wanted).expect("a file"), content);
        }
        assert!(!folder.path().join("plugins/p.wasm.new").exists());
        place(&built, &built).expect("it is there");
        assert_eq!(std::fs::read_to_string(&built).expect("a file"), "two");
    }
}
