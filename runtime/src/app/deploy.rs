//! From a consumer's configuration to a consumer at work.
//!
//! ```text
//! component ─▶ compiled (or from the cache) ─▶ an instance tried ─▶ membership ─▶ runner's task
//! ```

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::Context as _;
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::StartFailure;
use super::health::RuntimeHealth;
use crate::broker::{Broker, Subscription};
use crate::config::{self, Delivery, TopicPattern};
use crate::consumer::commands::Commander;
use crate::consumer::generation::Generation;
use crate::consumer::runner::{Parts, Runner};
use crate::consumer::status;
use crate::consumer::trial_room::TrialRoom;
use crate::decide::admission::Budget;
use crate::decide::deploy_plan::Version;
use crate::metrics::Metrics;
use crate::plugin::{Host, Instance, PluginHooks, StartError};

/// A consumer whose plugin is ready.
pub struct Loaded {
    generation: Arc<Generation>,
    first_instance: Option<Box<dyn Instance>>,
}

/// Where the plugin host counts.
pub fn hooks(metrics: &Arc<Metrics>) -> PluginHooks {
    let (cache, entries) = (metrics.clone(), metrics.clone());
    PluginHooks {
        compile_cache: Arc::new(move |result| cache.cache_answered(result.as_str())),
        log_entries_dropped: Arc::new(move |consumer, dropped| {
            entries.ledger(&consumer.into()).lock().log_entries_dropped += dropped;
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
    let ledger = metrics.ledger(&consumer.name);
    let mut ledger = ledger.lock();
    match &result {
        Ok(_) => ledger.deploys_ok += 1,
        Err(_) => ledger.deploys_failed += 1,
    }
    result
}

async fn try_load(
    host: &Arc<Host>,
    consumer: &Arc<config::Consumer>,
    number: u64,
) -> anyhow::Result<Loaded> {
    let plugin = host.load(consumer, number).await.map_err(|error| {
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
                consumer.plugin.shown()
            ))
            .into());
        }
    };
    Ok(Loaded {
        generation: Arc::new(Generation {
            number,
            plugin,
            settings: consumer.clone(),
        }),
        first_instance,
    })
}

impl Loaded {
    fn version(&self) -> Version {
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
    trial_room: Arc<TrialRoom>,
    consumers: BTreeMap<Arc<str>, AtWork>,
}

struct AtWork {
    version: Version,
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

    /// Joins a consumer's group and lets it work on the data plane.
    ///
    /// # Errors
    /// The broker refuses the subscription for good.
    pub fn start(&mut self, loaded: Loaded) -> anyhow::Result<()> {
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
        .sharing(self.trial_room.clone());
        let commander = runner.commander();
        health.commanded_by(&name, commander.clone());
        let (drain, drained) = oneshot::channel();
        let at_work = AtWork {
            version,
            generation: number,
            commander,
            drain,
        };
        self.consumers.insert(name.clone(), at_work);
        let task = async move {
            let ended = runner.run(drained).await;
            let ended = ended.with_context(|| format!("consumer {name} ended"));
            (name, ended)
        };
        self.tasks.spawn_on(task, data_plane);
        Ok(())
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
        at_work
            .commander
            .swap(loaded.generation, loaded.first_instance)
            .await
            .map_err(|reason| anyhow::anyhow!("consumer {name}: {reason}"))?;
        self.surroundings.health.changed(version.settings.clone());
        at_work.version = version;
        at_work.generation = number;
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

    /// The first consumer that ends by itself, which is a fault.
    pub async fn failed(&mut self) -> anyhow::Error {
        match self.tasks.join_next().await {
            None => std::future::pending().await,
            Some(Ok((name, Ok(())))) => {
                anyhow::anyhow!("consumer {name} ended without being asked to")
            }
            Some(Ok((_, Err(error)))) => error,
            Some(Err(panic)) => anyhow::anyhow!("a consumer's task panicked: {panic}"),
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
    topics.push(TopicPattern::Name(consumer.replay_topic()));
    Subscription {
        consumer: consumer.name.clone(),
        group: consumer.group.clone(),
        topics,
        excluded: outputs.chain(dead_letters).collect(),
        start: consumer.start.unwrap_or_default(),
        on_lost_position: consumer.on_lost_position,
        fetch_events: ahead.events,
        fetch_bytes: ahead.bytes,
        transactional: consumer.delivery == Delivery::ExactlyOnce,
    }
}
