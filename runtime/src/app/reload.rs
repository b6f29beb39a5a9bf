//! From a changed configuration to changed consumers, while events flow.
//!
//! ```text
//! file changed ─┐                           any error: nothing changes
//! SIGHUP ───────┼─▶ request ─▶ read ─▶ digests ─▶ overrides ─▶ plan ─▶ load, try ─▶ shadow ─▶ apply
//! POST /-/reload┤                └────────────────── off the data path ─────────────────┘
//! deploy by hand┘
//! ```
//! One reload runs at a time; those asked for meanwhile wait.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::Context as _;
use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use super::deploy::{self, Judged, Loaded, Running, Surroundings};
use super::deploy_book::{self, DeployBook};
use super::fetched::fetched;
use super::{topics, wish};
use crate::admin::{NotDone, ReloadReport, ReloadStep, ShadowSummary, Wish};
use crate::clock;
use crate::config::{self, Config, Environment};
use crate::consumer::shadow::ShadowReport;
use crate::decide::deploy_plan::{self, Change, Step, Version};
use crate::plugin::inspect;

/// Reloads that may wait; each reads the newest files, so more would be for nothing.
const WAITING: usize = 8;
/// How long a file of the configuration may be empty or change while it is read, and how often all are
/// read again until then.
const WRITTEN_WITHIN: Duration = Duration::from_secs(1);
const LOOK_AGAIN: Duration = Duration::from_millis(50);
/// How long topics may take to be made.
const TOPICS_WITHIN: Duration = Duration::from_secs(20);

/// Somebody wants the newest configuration to apply.
pub struct Request {
    /// Who, for the log.
    pub cause: &'static str,
    /// What for.
    pub wish: Wish,
    pub reply: Option<oneshot::Sender<Result<ReloadReport, NotDone>>>,
}

impl Request {
    /// For the newest configuration; nobody waits for an answer.
    pub fn reload(cause: &'static str) -> Self {
        Self {
            cause,
            wish: Wish::Reload,
            reply: None,
        }
    }
}

/// Requests, and where they are heard.
pub fn requests() -> (mpsc::Sender<Request>, mpsc::Receiver<Request>) {
    mpsc::channel(WAITING)
}

/// The configuration that applies.
pub struct Current(Mutex<Arc<Config>>);

impl Current {
    /// The one that the runtime starts with.
    pub fn new(config: Config) -> Self {
        Self(Mutex::new(Arc::new(config)))
    }

    /// As it is now.
    pub fn get(&self) -> Arc<Config> {
        self.0.lock().clone()
    }
}

/// See the module.
pub struct Reloader {
    file: PathBuf,
    current: Arc<Current>,
    surroundings: Surroundings,
    shutdown_timeout: Duration,
    book: Mutex<DeployBook>,
}

/// What is ready to be applied.
pub struct Prepared {
    config: Config,
    /// With what the wish changes.
    book: DeployBook,
    steps: Vec<Ready>,
    dry_run: bool,
}

/// A step, and what it needs.
struct Ready {
    step: Step,
    loaded: Option<Loaded>,
    shadow: Option<ShadowReport>,
}

impl Reloader {
    /// Reads the file of `current` anew at each reload; `book` is what was done by hand before.
    pub fn new(current: Arc<Current>, surroundings: Surroundings, book: DeployBook) -> Self {
        let config = current.get();
        Self {
            file: config.file.clone(),
            current,
            surroundings,
            shutdown_timeout: config.runtime.shutdown_timeout,
            book: Mutex::new(book),
        }
    }

    /// What consumers work with.
    pub fn surroundings(&self) -> &Surroundings {
        &self.surroundings
    }

    /// Makes what was prepared apply, and answers who asked.
    ///
    /// # Errors
    /// A consumer failed while it was drained: the runtime cannot go on. That a configuration is
    /// refused is no error here.
    pub async fn deploy(
        &self,
        request: Request,
        prepared: Result<Prepared, NotDone>,
        running: &mut Running,
    ) -> anyhow::Result<()> {
        let cause = request.cause;
        let outcome = match prepared {
            Ok(prepared) => Ok(self.apply(prepared, running).await?),
            Err(reason) => Err(reason),
        };
        if request.wish == Wish::Reload {
            let metrics = &self.surroundings.metrics;
            metrics.reloaded(outcome.is_ok(), clock::now_ms());
        }
        match &outcome {
            Ok(report) if report.dry_run => {}
            Ok(report) if report.steps.is_empty() && report.needs_restart.is_empty() => {
                tracing::info!(cause, "the configuration was read again; nothing is new");
            }
            Ok(report) => {
                for step in &report.steps {
                    let (consumer, change) = (&step.consumer, &step.change);
                    tracing::info!(cause, %consumer, %change, keys = %step.keys.join(", "), "deployed");
                }
                for key in &report.needs_restart {
                    tracing::warn!(cause, %key, "changed, and takes effect at the next start");
                }
            }
            Err(NotDone::UnknownConsumer) => {}
            Err(NotDone::Refused(reason)) => tracing::error!(
                cause,
                "what is new is refused, all goes on as before:\n{reason}"
            ),
        }
        if let Some(reply) = request.reply {
            // Whoever asked may have gone.
            let _ = reply.send(outcome);
        }
        Ok(())
    }

    /// Lets a consumer stand or go on, now and after a restart, and answers who asked.
    pub async fn pause(&self, request: Request, consumer: &str, paused: bool, running: &Running) {
        let outcome = self.try_pause(consumer, paused, running).await;
        if let Some(reply) = request.reply {
            // Whoever asked may have gone.
            let _ = reply.send(outcome);
        }
    }

    async fn try_pause(
        &self,
        consumer: &str,
        paused: bool,
        running: &Running,
    ) -> Result<ReloadReport, NotDone> {
        let version = running.version(consumer).ok_or(NotDone::UnknownConsumer)?;
        let name = version.settings.name.clone();
        let done = running.pause(&name, paused).await;
        done.map_err(NotDone::Refused)?;
        let mut book = self.book.lock().clone();
        book.of(&name).paused = paused;
        self.keep(book).await;
        Ok(ReloadReport::default())
    }

    /// Writes down whether a generation has proved itself.
    pub async fn judged(&self, judged: &Judged, running: &mut Running) {
        let mut book = self.book.lock().clone();
        let overrides = book.of(&judged.name);
        if let Some(proven) = running.proven(judged) {
            if overrides.proven(&deploy_book::build(proven)) {
                self.keep(book).await;
            }
            return;
        }
        let Some((failed, now)) = running.rolled_back(judged) else {
            return;
        };
        let (from, to) = (deploy_book::build(&failed), deploy_book::build(&now));
        if from != to {
            overrides.rolled_back(from, to.clone());
            overrides.runs(to);
        }
        self.keep(book).await;
    }

    /// Everything that can fail, away from what runs. Dropping the future changes nothing.
    ///
    /// # Errors
    /// All that is wrong with the plugins of the new configuration, or with the wish.
    pub async fn prepare(
        &self,
        config: Config,
        wish: &Wish,
        running: &Running,
    ) -> Result<Prepared, NotDone> {
        let refused = |error: anyhow::Error| NotDone::Refused(format!("{error:#}"));
        if let Wish::Deploy { consumer, .. } | Wish::Rollback { consumer, .. } = wish
            && running.version(consumer).is_none()
        {
            return Err(NotDone::UnknownConsumer);
        }
        self.try_prepare(config, wish, running)
            .await
            .map_err(refused)
    }

    async fn try_prepare(
        &self,
        config: Config,
        wish: &Wish,
        running: &Running,
    ) -> anyhow::Result<Prepared> {
        let mut book = self.book.lock().clone();
        let (mut named, wrong) = digests(&config).await?;
        anyhow::ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
        for version in &named {
            book.follow(version.clone());
        }
        let dry_run = wish::express(wish, &named, &mut book).await?;
        let wanted: Vec<Version> = named
            .drain(..)
            .map(|version| match running.version(&version.settings.name) {
                Some(now) if !wish::is_for(wish, &version) && running.refuses(&version) => {
                    now.clone()
                }
                _ => book.follow(version),
            })
            .collect();
        let steps = self.load(&wanted, &book, running).await?;
        if steps.iter().any(|ready| ready.step.change != Change::Keep) {
            let before = self.current.get();
            let preparing = topics::prepare(&config, Some(&before), &self.surroundings.broker);
            tokio::time::timeout(TOPICS_WITHIN, preparing)
                .await
                .context("the broker did not answer in time; reload again when it is back")??;
        }
        Ok(Prepared {
            config,
            book,
            steps,
            dry_run,
        })
    }

    /// Plans, loads what is new, keeps its component, and lets it run in shadow.
    async fn load(
        &self,
        wanted: &[Version],
        book: &DeployBook,
        running: &Running,
    ) -> anyhow::Result<Vec<Ready>> {
        let mut all = Vec::new();
        let mut errors = Vec::new();
        for step in deploy_plan::plan(&running.versions(), wanted) {
            let version = wanted
                .iter()
                .find(|version| version.settings.name == step.consumer);
            let needed = matches!(
                step.change,
                Change::Add | Change::Swap(_) | Change::StartAnew(_)
            );
            let Some(version) = version.filter(|_| needed) else {
                all.push(Ready {
                    step,
                    loaded: None,
                    shadow: None,
                });
                continue;
            };
            match self.load_one(&step, version, book, running).await {
                Ok((loaded, shadow)) => all.push(Ready {
                    step,
                    loaded: Some(loaded),
                    shadow,
                }),
                Err(error) => errors.push(format!("{error:#}")),
            }
        }
        anyhow::ensure!(errors.is_empty(), "{}", errors.join("\n"));
        Ok(all)
    }

    async fn load_one(
        &self,
        step: &Step,
        version: &Version,
        book: &DeployBook,
        running: &Running,
    ) -> anyhow::Result<(Loaded, Option<ShadowReport>)> {
        let number = running.next_generation(&step.consumer);
        let Surroundings { host, metrics, .. } = &self.surroundings;
        let loaded = deploy::load(host, &version.settings, number, metrics).await?;
        deploy::keep(book, loaded.version()).await;
        let shadow = match step.change {
            Change::Swap(_) => running.shadow(loaded.generation()).await,
            _ => Ok(None),
        };
        let shadow =
            shadow.inspect_err(|_| metrics.ledger(&step.consumer).lock().deploys_failed += 1)?;
        Ok((loaded, shadow))
    }

    /// The newest configuration, its plugins fetched. Dropping the future changes nothing.
    ///
    /// # Errors
    /// All that is wrong with it, or every plugin that cannot be had.
    pub async fn read(&self) -> anyhow::Result<Config> {
        let begun = Instant::now();
        let read = loop {
            let before = stamps(&self.file).await;
            let file = self.file.clone();
            let reading = tokio::task::spawn_blocking(move || {
                config::load(&file, ENVIRONMENT).map_err(|problems| problems.render(false))
            });
            let read = reading
                .await
                .context("reading the configuration panicked")?;
            // Somebody who writes one in place empties it first: what was named there a moment ago
            // would be removed.
            let written = |(_, stamp): &Stamp| stamp.is_some_and(|(bytes, _)| bytes > 0);
            let whole = before.iter().all(written);
            if whole && stamps(&self.file).await == before || begun.elapsed() > WRITTEN_WITHIN {
                break read;
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        };
        fetched(read.map_err(anyhow::Error::msg)?).await
    }

    /// What is left to go wrong is a consumer that fails by itself.
    async fn apply(
        &self,
        prepared: Prepared,
        running: &mut Running,
    ) -> anyhow::Result<ReloadReport> {
        let Prepared {
            config,
            mut book,
            steps,
            dry_run,
        } = prepared;
        let mut report = ReloadReport {
            needs_restart: needs_restart(&self.current.get(), &config),
            dry_run,
            ..ReloadReport::default()
        };
        // Written down before one of them takes over: a process that dies right behind would trust it at
        // its next start.
        if !dry_run && announce(&steps, &mut book) {
            save(book.clone()).await;
        }
        for Ready {
            step,
            loaded,
            shadow,
        } in steps
        {
            let deadline = Instant::now() + self.shutdown_timeout;
            let version = loaded.as_ref().map(Loaded::version);
            let generation = match step.change {
                Change::Remove => 0,
                _ => running.next_generation(&step.consumer),
            };
            let paused = step.change != Change::Remove && book.of(&step.consumer).paused;
            match (&step.change, loaded) {
                (Change::Keep, _) => continue,
                _ if dry_run => {}
                (Change::Remove, _) => running.remove(&step.consumer, deadline).await?,
                (Change::Add, Some(loaded)) => running.start(loaded, paused)?,
                (Change::Swap(_), Some(loaded)) => running.swap(loaded).await?,
                (Change::StartAnew(_), Some(loaded)) => {
                    running.stop(&step.consumer, deadline).await?;
                    running.start(loaded, paused)?;
                }
                (Change::Add | Change::Swap(_) | Change::StartAnew(_), None) => continue,
            }
            let trusted = |version: &&Version| probation(&step, version).is_zero();
            if let Some(version) = version.as_ref().filter(trusted) {
                book.of(&step.consumer).runs(deploy_book::build(version));
            }
            report
                .steps
                .push(describe(&step, generation, version, shadow));
        }
        if dry_run {
            return Ok(report);
        }
        let names = config
            .consumers
            .iter()
            .map(|consumer| consumer.name.clone());
        self.surroundings.health.arrange(&names.collect::<Vec<_>>());
        *self.current.0.lock() = Arc::new(config);
        self.keep(book).await;
        Ok(report)
    }

    /// Makes these overrides apply, and writes them down.
    async fn keep(&self, book: DeployBook) {
        deploy::show_overrides(&book, &self.current.get(), &self.surroundings);
        *self.book.lock() = book.clone();
        save(book).await;
    }
}

/// Notes which versions will have to prove themselves; whether there are any.
fn announce(steps: &[Ready], book: &mut DeployBook) -> bool {
    let mut any = false;
    for ready in steps {
        let version = ready.loaded.as_ref().map(Loaded::version);
        if let Some(version) = version.filter(|one| !probation(&ready.step, one).is_zero()) {
            let build = deploy_book::build(&version);
            book.of(&ready.step.consumer).on_probation(build);
            any = true;
        }
    }
    any
}

async fn save(book: DeployBook) {
    let saving = tokio::task::spawn_blocking(move || book.save());
    let saved = saving
        .await
        .context("saving panicked")
        .and_then(|saved| saved);
    if let Err(error) = saved {
        tracing::error!("what was done by hand will be forgotten at the next start: {error:#}");
    }
}

/// How long a version has to prove itself: one that takes over from another alone.
fn probation(step: &Step, version: &Version) -> Duration {
    match step.change {
        Change::Swap(_) => version.settings.deploy.probation,
        _ => Duration::ZERO,
    }
}

fn describe(
    step: &Step,
    generation: u64,
    version: Option<Version>,
    shadow: Option<ShadowReport>,
) -> ReloadStep {
    let (digest, probation) = match &version {
        Some(version) => (version.digest.to_string(), probation(step, version)),
        None => (String::new(), Duration::ZERO),
    };
    let keys = step.change.keys().iter().map(|key| (*key).to_owned());
    ReloadStep {
        generation,
        consumer: step.consumer.to_string(),
        change: step.change.name().to_owned(),
        keys: keys.collect(),
        digest,
        shadow: shadow.map(summary),
        probation_seconds: probation.as_secs_f64(),
    }
}

fn summary(report: ShadowReport) -> ShadowSummary {
    let events = report.events();
    let each = |took: Duration| took.as_secs_f64() * 1e6 / events.max(1) as f64;
    ShadowSummary {
        events,
        equal: report.equal,
        different: report.different,
        failed: report.failed,
        microseconds_before: each(report.took_before),
        microseconds: each(report.took),
        examples: report.examples,
    }
}

/// A file with its length and time, which change while somebody writes it; `None` where it is not
/// there.
type Stamp = (PathBuf, Option<(u64, SystemTime)>);

/// The file of a configuration, and those that it includes.
async fn stamps(file: &Path) -> Vec<Stamp> {
    let file = file.to_owned();
    let looking = tokio::task::spawn_blocking(move || {
        let included = config::file_names(&file, ENVIRONMENT).into_iter();
        let mut files: Vec<PathBuf> = included.filter(|name| *name != file).collect();
        files.push(file);
        let stamp = |file: PathBuf| {
            let metadata = std::fs::metadata(&file).ok();
            let seen = metadata.and_then(|seen| Some((seen.len(), seen.modified().ok()?)));
            (file, seen)
        };
        files.into_iter().map(stamp).collect()
    });
    // While the runtime ends nothing is read any more.
    looking.await.unwrap_or_default()
}

/// The environment of this process.
pub const ENVIRONMENT: &Environment<'static> = &|name| std::env::var(name).ok();

/// The enabled consumers, each with the digest that its plugin's file has now, and what is wrong with
/// the other files.
pub async fn digests(config: &Config) -> anyhow::Result<(Vec<Version>, Vec<String>)> {
    let consumers: Vec<_> = config
        .consumers
        .iter()
        .filter(|consumer| consumer.enabled)
        .cloned()
        .collect();
    let reading = tokio::task::spawn_blocking(move || {
        let (mut versions, mut errors) = (Vec::new(), Vec::new());
        for settings in consumers {
            match inspect::inspect(&settings.plugin.path) {
                Ok(inspection) => versions.push(Version {
                    settings,
                    digest: inspection.digest.into(),
                }),
                Err(error) => {
                    let error = error.of(&settings.plugin);
                    errors.push(format!(
                        "consumer {}: {error}\n  what to do: {}",
                        settings.name,
                        error.remedy()
                    ));
                }
            }
        }
        (versions, errors)
    });
    reading.await.context("reading the plugins panicked")
}

/// The tables that differ and are read at the start alone.
fn needs_restart(old: &Config, new: &Config) -> Vec<String> {
    let differs = [
        ("[runtime]", old.runtime != new.runtime),
        ("[broker]", old.broker != new.broker),
        ("[admin]", old.admin != new.admin),
    ];
    let of = |(key, differs): &(&str, bool)| differs.then(|| (*key).to_owned());
    differs.iter().filter_map(of).collect()
}
