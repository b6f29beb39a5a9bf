//! From a consumer's configuration to a consumer at work.
//!
//! ```text
//! component ─▶ compiled (or from the cache) ─▶ an instance tried ─▶ membership ─▶ runner's task
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::StartFailure;
use super::deploy_book::DeployBook;
use super::health::{RuntimeHealth, Shown};
use crate::broker::{Broker, Subscription};
use crate::config::{self, Delivery, TopicPattern};
use crate::consumer::commands::Commander;
use crate::consumer::generation::Generation;
use crate::consumer::probation::Ended;
use crate::consumer::runner::{Parts, Runner};
use crate::consumer::shadow::ShadowReport;
use crate::consumer::status;
use crate::consumer::trial_room::TrialRoom;
use crate::decide::admission::Budget;
use crate::decide::deploy_plan::Version;
use crate::metrics::Metrics;
use crate::plugin::{Host, Instance, PluginHooks, StartError};

/// How long a shadow run may wait for its events.
const SHADOW_WITHIN: Duration = Duration::from_secs(45);

/// Versions of a consumer that are remembered while it works.
const VERSIONS: usize = 64;

/// How a generation proved itself.
#[derive(Debug)]
pub struct Judged {
    pub name: Arc<str>,
    generation: u64,
    pub ended: Ended,
}

/// A consumer whose plugin is ready.
pub struct Loaded {
    generation: Arc<Generation>,
    first_instance: Option<Box<dyn Instance>>,
}

/// Where the plugin host counts.
pub fn hooks(metrics: &Arc<Metrics>) -> PluginHooks {
    let (cache, entries, requests) = (metrics.clone(), metrics.clone(), metrics.clone());
    PluginHooks {
        compile_cache: Arc::new(move |result| cache.cache_answered(result.as_str())),
        log_entries_dropped: Arc::new(move |consumer, dropped| {
            entries.ledger(&consumer.into()).lock().log_entries_dropped += dropped;
        }),
        http_request: Arc::new(move |consumer, result| {
            requests.ledger(&consumer.into()).lock().requested(result);
        }),
        custom_metrics: Arc::default(),
    }
}

/// Loads a consumer's plugin as its `number`th generation and starts an instance of it, so that a
/// plugin that cannot start is refused before anything is consumed.
///
/// # Errors
/// The component or its configuration is at fault.
pub async fn load(
    host: &Arc<Host>,
    consumer: &Arc<config::Consumer>,
    number: u64,
    metrics: &Metrics,
) -> anyhow::Result<Loaded> {
    let result = try_load(host, consumer, number).await;
    if result.is_err() {
        metrics.ledger(&consumer.name).lock().deploys_failed += 1;
    }
    result
}

async fn try_load(
    host: &Arc<Host>,
    consumer: &Arc<config::Consumer>,
    number: u64,
) -> anyhow::Result<Loaded> {
    let plugin = host.load(consumer, number).await.map_err(|error| {
        let error = error.of(&consumer.plugin);
        StartFailure::Configuration(format!(
            "consumer {}: {error}\n  what to do: {}",
            consumer.name,
            error.remedy()
        ))
    })?;
    let first_instance = match plugin.instantiate().await {
        Ok(instance) => Some(instance),
        // It may come up later; calls wait until then.
        Err(StartError::Unavailable(reason)) => {
            tracing::warn!(consumer = %consumer.name, %reason, "the plugin cannot start yet");
            None
        }
        Err(error) => {
            return Err(StartFailure::Configuration(format!(
                "consumer {}: plugin {}: {error}",
                consumer.name,
                consumer.plugin.identified()
            ))
            .into());
        }
    };
    Ok(Loaded {
        generation: Arc::new(Generation::new(number, plugin, consumer.clone())),
        first_instance,
    })
}

/// Keeps the component of a version that was loaded, to go back to. Where that fails, no way leads back.
pub async fn keep(book: &DeployBook, version: Version) {
    let book = book.clone();
    let name = version.settings.name.clone();
    let keeping = tokio::task::spawn_blocking(move || {
        book.keep(&version.settings.plugin.path, &version.digest)
    });
    let kept = keeping.await.context("keeping a component panicked");
    if let Err(error) = kept.and_then(|kept| kept) {
        tracing::warn!(consumer = %name, "a later rollback to this build is not possible: {error:#}");
    }
}

/// Shows what was done by hand to the consumers of a configuration, in the metrics and to who asks over
/// HTTP. The book remembers more: those that were removed.
pub fn show_overrides(book: &DeployBook, config: &config::Config, surroundings: &Surroundings) {
    let consumers = config.consumers.iter().filter(|one| one.enabled);
    let names: BTreeSet<&str> = consumers.map(|one| &*one.name).collect();
    for (name, overrides) in book.all().filter(|(name, _)| names.contains(name.as_str())) {
        let mut kinds: Vec<String> = Vec::new();
        kinds.extend(overrides.pinned().map(|(_, cause)| cause.to_string()));
        kinds.extend(overrides.paused.then(|| "pause".to_owned()));
        let drift = overrides.drifts();
        // One that was removed has no series.
        if let Some(ledger) = surroundings.metrics.known(name) {
            let mut ledger = ledger.lock();
            ledger.overrides.clone_from(&kinds);
            ledger.drift = drift;
        }
        let shown = Shown {
            overrides: kinds,
            drift,
        };
        surroundings.health.overridden(&name.as_str().into(), shown);
    }
}

impl Loaded {
    /// The generation that was loaded.
    pub fn generation(&self) -> Arc<Generation> {
        self.generation.clone()
    }

    /// What was loaded.
    pub fn version(&self) -> Version {
        Version {
            settings: self.generation.settings.clone(),
            digest: self.generation.digest().clone(),
        }
    }
}

/// What consumers work with, and who is told of them.
#[derive(Clone)]
pub struct Surroundings {
    pub broker: Arc<dyn Broker>,
    pub host: Arc<Host>,
    pub metrics: Arc<Metrics>,
    pub health: Arc<RuntimeHealth>,
    pub data_plane: tokio::runtime::Handle,
}

/// The consumers at work.
pub struct Running {
    surroundings: Surroundings,
    tasks: JoinSet<(Arc<str>, anyhow::Result<()>)>,
    /// How generations prove themselves.
    probations: JoinSet<Judged>,
    trial_room: Arc<TrialRoom>,
    consumers: BTreeMap<Arc<str>, AtWork>,
}

struct AtWork {
    version: Version,
    /// The version that did not prove itself, so that it is not tried again and again.
    refused: Option<Version>,
    /// By the number of their generation: what one that does not prove itself may go back to.
    versions: BTreeMap<u64, Version>,
    generation: u64,
    commander: Commander,
    drain: oneshot::Sender<Instant>,
}

impl Running {
    /// None yet; they will share this room.
    pub fn new(surroundings: Surroundings, trial_room: Arc<TrialRoom>) -> Self {
        Self {
            surroundings,
            tasks: JoinSet::new(),
            probations: JoinSet::new(),
            trial_room,
            consumers: BTreeMap::new(),
        }
    }

    /// How many consumers there are.
    pub fn len(&self) -> usize {
        self.consumers.len()
    }

    /// What each of them works with.
    pub fn versions(&self) -> Vec<Version> {
        let versions = self.consumers.values().map(|one| one.version.clone());
        versions.collect()
    }

    /// The number of a consumer's next generation.
    pub fn next_generation(&self, name: &str) -> u64 {
        self.consumers.get(name).map_or(1, |one| one.generation + 1)
    }

    /// Joins a consumer's group and lets it work on the data plane; one that is `paused` stands there
    /// until it is resumed.
    ///
    /// # Errors
    /// The broker refuses the subscription for good.
    pub fn start(&mut self, loaded: Loaded, paused: bool) -> anyhow::Result<()> {
        let version = loaded.version();
        let Loaded {
            generation,
            first_instance,
        } = loaded;
        let Surroundings {
            broker,
            metrics,
            health,
            data_plane,
            ..
        } = &self.surroundings;
        let settings = version.settings.clone();
        let name = settings.name.clone();
        let number = generation.number;
        let status = status::starting(number, generation.digest().clone());
        health.set(settings.clone(), status.clone());
        // Some adapters start tasks of their own: they belong to the data plane too.
        let _entered = data_plane.enter();
        let session = broker
            .subscribe(subscription(&settings))
            .with_context(|| format!("consumer {name} cannot subscribe"))?;
        let runner = Runner::new(Parts {
            generation,
            session,
            ledger: metrics.ledger(&name),
            status,
            first_instance,
        })
        .sharing(self.trial_room.clone())
        .standing(paused);
        let commander = runner.commander();
        health.commanded_by(&name, commander.clone());
        let (drain, drained) = oneshot::channel();
        let version_at_start = version.clone();
        let at_work = AtWork {
            version,
            refused: None,
            versions: BTreeMap::from([(number, version_at_start)]),
            generation: number,
            commander,
            drain,
        };
        self.consumers.insert(name.clone(), at_work);
        metrics.ledger(&name).lock().deploys_ok += 1;
        let task = async move {
            let ended = runner.run(drained).await;
            let ended = ended.with_context(|| format!("consumer {name} ended"));
            (name, ended)
        };
        self.tasks.spawn_on(task, data_plane);
        Ok(())
    }

    /// Whether a consumer gave this version up already.
    pub fn refuses(&self, version: &Version) -> bool {
        let at_work = self.consumers.get(&version.settings.name);
        at_work.is_some_and(|one| one.refused.as_ref() == Some(version))
    }

    /// What a consumer works with.
    pub fn version(&self, name: &str) -> Option<&Version> {
        self.consumers.get(name).map(|one| &one.version)
    }

    /// Lets a generation handle live events beside the version at work, as its settings say;
    /// `None` where they ask for nothing, or nothing of it is at work.
    ///
    /// # Errors
    /// Why it must not take over: it does not start, or fails more than its settings allow.
    pub async fn shadow(
        &self,
        generation: Arc<Generation>,
    ) -> anyhow::Result<Option<ShadowReport>> {
        let settings = &generation.settings;
        let at_work = self.consumers.get(&settings.name);
        let plugin = generation.plugin.in_shadow();
        let (events, Some(at_work), Some(plugin)) =
            (u64::from(settings.deploy.shadow), at_work, plugin)
        else {
            return Ok(None);
        };
        if events == 0 {
            return Ok(None);
        }
        let name = &settings.name;
        let shadow = Generation::new(generation.number, plugin, settings.clone());
        let told = at_work
            .commander
            .shadow(Arc::new(shadow), events, SHADOW_WITHIN)
            .await
            .map_err(|reason| anyhow::anyhow!("consumer {name}: {reason}"))?;
        let report = told
            .await
            .with_context(|| format!("consumer {name} ended the shadow run"))?
            .map_err(|reason| anyhow::anyhow!("consumer {name}: in shadow, {reason}"))?;
        let allowed = settings.deploy.max_failure_ratio * report.events() as f64;
        anyhow::ensure!(
            report.failed as f64 <= allowed,
            "consumer {name}: in shadow the new version failed {} of {} events that the version at \
             work handles, and deploy.max_failure_ratio is {}; {}",
            report.failed,
            report.events(),
            settings.deploy.max_failure_ratio,
            report.examples.join("; ")
        );
        Ok(Some(report))
    }

    /// Lets a consumer stand, or go on.
    ///
    /// # Errors
    /// The consumer is shutting down, or not at work.
    pub async fn pause(&self, name: &str, paused: bool) -> Result<(), String> {
        let Some(at_work) = self.consumers.get(name) else {
            return Err(format!("consumer {name} is not at work"));
        };
        match paused {
            true => at_work.commander.pause().await,
            false => at_work.commander.resume().await,
        }
    }

    /// What a consumer works with, where that has proved itself just now.
    pub fn proven(&self, judged: &Judged) -> Option<&Version> {
        let at_work = self.consumers.get(&judged.name)?;
        let proven = judged.ended == Ended::Passed && at_work.generation == judged.generation;
        proven.then_some(&at_work.version)
    }

    /// A generation did not prove itself, and the one before took over again; what ran, and what
    /// runs.
    pub fn rolled_back(&mut self, judged: &Judged) -> Option<(Version, Version)> {
        let at_work = self.consumers.get_mut(&judged.name)?;
        let Ended::RolledBack { to, .. } = judged.ended else {
            return None;
        };
        if at_work.generation != judged.generation {
            return None;
        }
        let before = at_work.versions.get(&to)?.clone();
        let failed = std::mem::replace(&mut at_work.version, before.clone());
        at_work.refused = Some(failed.clone());
        self.surroundings.health.changed(before.settings.clone());
        let ledger = self.surroundings.metrics.ledger(&judged.name);
        ledger.lock().deploys_rolled_back += 1;
        Some((failed, before))
    }

    /// Lets a consumer make its calls with another generation from now on.
    ///
    /// # Errors
    /// The consumer is not at work any more.
    pub async fn swap(&mut self, loaded: Loaded) -> anyhow::Result<()> {
        let version = loaded.version();
        let name = version.settings.name.clone();
        let at_work = self
            .consumers
            .get_mut(&name)
            .with_context(|| format!("consumer {name} is not at work"))?;
        let number = loaded.generation.number;
        let told = at_work
            .commander
            .swap(loaded.generation, loaded.first_instance)
            .await
            .map_err(|reason| anyhow::anyhow!("consumer {name}: {reason}"))?;
        self.surroundings.health.changed(version.settings.clone());
        let ledger = self.surroundings.metrics.ledger(&name);
        ledger.lock().deploys_ok += 1;
        at_work.versions.insert(number, version.clone());
        if at_work.versions.len() > VERSIONS {
            at_work.versions.pop_first();
        }
        at_work.version = version;
        at_work.refused = None;
        at_work.generation = number;
        let judged = async move {
            // A consumer that ended judges nothing.
            let ended = told.await.unwrap_or(Ended::Replaced);
            Judged {
                name,
                generation: number,
                ended,
            }
        };
        self.probations.spawn(judged);
        Ok(())
    }

    /// Drains a consumer until `deadline`, and waits for it.
    ///
    /// # Errors
    /// It, or another one meanwhile, failed.
    pub async fn stop(&mut self, name: &str, deadline: Instant) -> anyhow::Result<()> {
        let Some(at_work) = self.consumers.remove(name) else {
            return Ok(());
        };
        // A consumer that has ended is drained.
        let _ = at_work.drain.send(deadline);
        if let Some(ended) = self.tasks.join_next().await {
            let (ended, result) = ended.context("a consumer's task panicked")?;
            result?;
            anyhow::ensure!(
                *ended == *name,
                "consumer {ended} ended without being asked to"
            );
        }
        self.surroundings.health.forget(name);
        Ok(())
    }

    /// Drains a consumer that is named no more, and forgets its figures: a lag that stands for ever
    /// would be an alert for ever.
    ///
    /// # Errors
    /// As [`Self::stop`].
    pub async fn remove(&mut self, name: &str, deadline: Instant) -> anyhow::Result<()> {
        self.stop(name, deadline).await?;
        let Surroundings { host, metrics, .. } = &self.surroundings;
        metrics.forget(name);
        host.hooks().custom_metrics.remove(name);
        Ok(())
    }

    /// What happens next by itself. Dropping the future loses nothing.
    ///
    /// # Errors
    /// A consumer ended, which is a fault.
    pub async fn next(&mut self) -> anyhow::Result<Judged> {
        loop {
            let judged = tokio::select! {
                Some(judged) = self.probations.join_next() => {
                    judged.context("waiting for a judgement panicked")?
                }
                Some(ended) = self.tasks.join_next() => {
                    let (name, ended) = ended.context("a consumer's task panicked")?;
                    ended?;
                    anyhow::bail!("consumer {name} ended without being asked to");
                }
                else => std::future::pending().await,
            };
            if judged.ended != Ended::Replaced {
                return Ok(judged);
            }
        }
    }

    /// Asks all consumers to drain until `deadline`, and waits for them.
    ///
    /// # Errors
    /// A consumer failed while draining.
    pub async fn drain(mut self, deadline: Instant) -> anyhow::Result<()> {
        for at_work in std::mem::take(&mut self.consumers).into_values() {
            // A consumer that has ended is drained.
            let _ = at_work.drain.send(deadline);
        }
        let mut first = Ok(());
        while let Some(ended) = self.tasks.join_next().await {
            let ended = ended
                .context("a consumer's task panicked")
                .and_then(|(_, result)| result);
            if first.is_ok() {
                first = ended;
            }
        }
        first
    }
}

fn subscription(consumer: &config::Consumer) -> Subscription {
    let ahead = Budget::ahead(consumer.in_flight);
    let outputs = consumer
        .outputs
        .iter()
        .filter_map(|output| output.topic.clone());
    let dead_letters = consumer
        .dead_letter
        .iter()
        .map(|dead_letter| dead_letter.topic.clone());
    let mut topics = consumer.topics.clone();
    let replays = std::iter::once(consumer.replay_topic());
    let replays = replays.chain(consumer.previous_replay_topics());
    topics.extend(replays.map(TopicPattern::Name));
    Subscription {
        consumer: consumer.name.clone(),
        group: consumer.group.clone(),
        previous_groups: consumer.previous_groups().collect(),
        topics,
        excluded: outputs.chain(dead_letters).collect(),
        start: consumer.start.unwrap_or_default(),
        on_lost_position: consumer.on_lost_position,
        fetch_events: ahead.events,
        fetch_bytes: ahead.bytes,
        transactional: consumer.delivery == Delivery::ExactlyOnce,
    }
}
