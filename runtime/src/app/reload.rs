//! From a changed configuration to changed consumers, while events flow.
//!
//! ```text
//! file changed ─┐                       any error: nothing changes
//! SIGHUP ───────┼─▶ request ─▶ read ─▶ digests ─▶ plan ─▶ load, try ─▶ topics ─▶ apply, one by one
//! POST /-/reload┘                └──────────── off the data path ─────────────┘
//! ```
//! One reload runs at a time; those asked for meanwhile wait.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use super::deploy::{self, Loaded, Running, Surroundings};
use super::fetched::fetched;
use super::topics;
use crate::admin::{ReloadReport, ReloadStep};
use crate::clock;
use crate::config::{self, Config, Environment};
use crate::decide::deploy_plan::{self, Change, Step, Version};
use crate::plugin::inspect;

/// Reloads that may wait; each reads the newest files, so more would be for nothing.
const WAITING: usize = 8;
/// How long topics may take to be made.
const TOPICS_WITHIN: Duration = Duration::from_secs(20);

/// Somebody wants the newest configuration to apply.
pub struct Request {
    /// Who, for the log.
    pub cause: &'static str,
    pub reply: Option<oneshot::Sender<Result<ReloadReport, String>>>,
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
}

/// What is ready to be applied.
pub struct Prepared {
    config: Config,
    steps: Vec<Step>,
    /// For the steps that need one, in their order.
    loaded: Vec<Option<Loaded>>,
}

impl Reloader {
    /// Reads the file of `current` anew at each reload.
    pub fn new(current: Arc<Current>, surroundings: Surroundings) -> Self {
        let config = current.get();
        Self {
            file: config.file.clone(),
            current,
            surroundings,
            shutdown_timeout: config.runtime.shutdown_timeout,
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
        prepared: anyhow::Result<Prepared>,
        running: &mut Running,
    ) -> anyhow::Result<()> {
        let cause = request.cause;
        let outcome = match prepared {
            Ok(prepared) => Ok(self.apply(prepared, running).await?),
            Err(reason) => Err(format!("{reason:#}")),
        };
        let metrics = &self.surroundings.metrics;
        match &outcome {
            Ok(report) if report.steps.is_empty() && report.needs_restart.is_empty() => {
                metrics.reloaded(true, clock::now_ms());
                tracing::info!(cause, "the configuration was read again; nothing is new");
            }
            Ok(report) => {
                metrics.reloaded(true, clock::now_ms());
                for step in &report.steps {
                    let (consumer, change) = (&step.consumer, &step.change);
                    tracing::info!(cause, %consumer, %change, keys = %step.keys.join(", "), "deployed");
                }
                for key in &report.needs_restart {
                    tracing::warn!(cause, %key, "changed, and takes effect at the next start");
                }
            }
            Err(reason) => {
                metrics.reloaded(false, clock::now_ms());
                tracing::error!(
                    cause,
                    "the new configuration is refused, all goes on as before:\n{reason}"
                );
            }
        }
        if let Some(reply) = request.reply {
            // Whoever asked may have gone.
            let _ = reply.send(outcome);
        }
        Ok(())
    }

    /// Everything that can fail, away from what runs. Dropping the future changes nothing.
    ///
    /// # Errors
    /// All that is wrong with the plugins of the new configuration.
    pub async fn prepare(&self, config: Config, running: &Running) -> anyhow::Result<Prepared> {
        let wanted = digests(&config).await?;
        let steps = deploy_plan::plan(&running.versions(), &wanted);
        let mut loaded = Vec::new();
        let mut errors = Vec::new();
        for step in &steps {
            let settings = config
                .consumers
                .iter()
                .find(|consumer| consumer.name == step.consumer);
            let needed = matches!(
                step.change,
                Change::Add | Change::Swap(_) | Change::StartAnew(_)
            );
            let Some(settings) = settings.filter(|_| needed) else {
                loaded.push(None);
                continue;
            };
            let number = running.next_generation(&step.consumer);
            let Surroundings { host, metrics, .. } = &self.surroundings;
            match deploy::load(host, settings, number, metrics).await {
                Ok(one) => loaded.push(Some(one)),
                Err(error) => errors.push(format!("{error:#}")),
            }
        }
        anyhow::ensure!(errors.is_empty(), "{}", errors.join("\n"));
        if steps.iter().any(|step| step.change != Change::Keep) {
            let preparing = topics::prepare(&config, &self.surroundings.broker);
            tokio::time::timeout(TOPICS_WITHIN, preparing)
                .await
                .context("the broker did not answer in time; reload again when it is back")??;
        }
        Ok(Prepared {
            config,
            steps,
            loaded,
        })
    }

    /// The newest configuration, its plugins fetched. Dropping the future changes nothing.
    ///
    /// # Errors
    /// All that is wrong with it, or every plugin that cannot be had.
    pub async fn read(&self) -> anyhow::Result<Config> {
        let file = self.file.clone();
        let reading = tokio::task::spawn_blocking(move || {
            config::load(&file, ENVIRONMENT).map_err(|problems| problems.render(false))
        });
        let read = reading
            .await
            .context("reading the configuration panicked")?;
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
            steps,
            loaded,
        } = prepared;
        let mut report = ReloadReport {
            needs_restart: needs_restart(&self.current.get(), &config),
            ..ReloadReport::default()
        };
        for (step, loaded) in steps.into_iter().zip(loaded) {
            let deadline = Instant::now() + self.shutdown_timeout;
            match (&step.change, loaded) {
                (Change::Remove, _) => running.stop(&step.consumer, deadline).await?,
                (Change::Add, Some(loaded)) => running.start(loaded)?,
                (Change::Swap(_), Some(loaded)) => running.swap(loaded).await?,
                (Change::StartAnew(_), Some(loaded)) => {
                    running.stop(&step.consumer, deadline).await?;
                    running.start(loaded)?;
                }
                _ => continue,
            }
            report.steps.push(ReloadStep {
                generation: running.next_generation(&step.consumer) - 1,
                consumer: step.consumer.to_string(),
                change: step.change.name().to_owned(),
                keys: step
                    .change
                    .keys()
                    .iter()
                    .map(|key| (*key).to_owned())
                    .collect(),
            });
        }
        let names = config
            .consumers
            .iter()
            .map(|consumer| consumer.name.clone());
        self.surroundings.health.arrange(&names.collect::<Vec<_>>());
        *self.current.0.lock() = Arc::new(config);
        Ok(report)
    }
}

/// The environment of this process.
pub const ENVIRONMENT: &Environment<'static> = &|name| std::env::var(name).ok();

/// The enabled consumers, each with the digest that its plugin's file has now.
async fn digests(config: &Config) -> anyhow::Result<Vec<Version>> {
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
                Err(error) => errors.push(format!(
                    "consumer {}: {error}\n  what to do: {}",
                    settings.name,
                    error.remedy()
                )),
            }
        }
        match errors.is_empty() {
            true => Ok(versions),
            false => Err(anyhow::anyhow!(errors.join("\n"))),
        }
    });
    reading.await.context("reading the plugins panicked")?
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
