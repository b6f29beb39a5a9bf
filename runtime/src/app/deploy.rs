//! From a consumer's configuration to a consumer at work.
//!
//! ```text
//! component ─▶ compiled (or from the cache) ─▶ an instance tried ─▶ membership ─▶ runner's task
//! ```

use std::sync::Arc;

use anyhow::Context as _;
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::StartFailure;
use super::health::RuntimeHealth;
use crate::broker::{Broker, Subscription};
use crate::config::{self, Delivery, TopicPattern};
use crate::consumer::generation::Generation;
use crate::consumer::runner::{Parts, Runner};
use crate::consumer::status;
use crate::consumer::trial_room::TrialRoom;
use crate::decide::admission::Budget;
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

/// Loads a consumer's plugin and starts an instance of it, so that a plugin that cannot start is
/// refused before anything is consumed.
///
/// # Errors
/// The component or its configuration is at fault.
pub async fn load(
    host: &Arc<Host>,
    consumer: &Arc<config::Consumer>,
    metrics: &Metrics,
) -> anyhow::Result<Loaded> {
    let number = 1;
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
                consumer.plugin.path.display()
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

/// The consumers at work.
pub struct Running {
    tasks: JoinSet<anyhow::Result<()>>,
    trial_room: Arc<TrialRoom>,
    drains: Vec<oneshot::Sender<Instant>>,
}

impl Running {
    /// None yet; they will share this room.
    pub fn new(trial_room: Arc<TrialRoom>) -> Self {
        Self {
            tasks: JoinSet::new(),
            trial_room,
            drains: Vec::new(),
        }
    }

    /// How many consumers there are.
    pub fn len(&self) -> usize {
        self.drains.len()
    }

    /// Joins a consumer's group and lets it work on the data plane.
    ///
    /// # Errors
    /// The broker refuses the subscription for good.
    pub fn start(
        &mut self,
        loaded: Loaded,
        broker: &Arc<dyn Broker>,
        metrics: &Metrics,
        health: &RuntimeHealth,
        data_plane: &tokio::runtime::Handle,
    ) -> anyhow::Result<()> {
        let Loaded {
            generation,
            first_instance,
        } = loaded;
        let settings = generation.settings.clone();
        let status = status::starting(generation.number, generation.digest().clone());
        health.add(settings.clone(), status.clone());
        // Some adapters start tasks of their own: they belong to the data plane too.
        let _entered = data_plane.enter();
        let session = broker
            .subscribe(subscription(&settings))
            .with_context(|| format!("consumer {} cannot subscribe", settings.name))?;
        let runner = Runner::new(Parts {
            generation,
            session,
            ledger: metrics.ledger(&settings.name),
            status,
            first_instance,
        })
        .sharing(self.trial_room.clone());
        health.commanded_by(&settings.name, runner.commander());
        let (drain, drained) = oneshot::channel();
        self.drains.push(drain);
        let name = settings.name.clone();
        self.tasks.spawn_on(
            async move {
                let ended = runner.run(drained).await;
                ended.with_context(|| format!("consumer {name} ended"))
            },
            data_plane,
        );
        Ok(())
    }

    /// The first consumer that ends by itself, which is a fault.
    pub async fn failed(&mut self) -> anyhow::Error {
        match self.tasks.join_next().await {
            None => std::future::pending().await,
            Some(Ok(Ok(()))) => anyhow::anyhow!("a consumer ended without being asked to"),
            Some(Ok(Err(error))) => error,
            Some(Err(panic)) => anyhow::anyhow!("a consumer's task panicked: {panic}"),
        }
    }

    /// Asks all consumers to drain until `deadline`, and waits for them.
    ///
    /// # Errors
    /// A consumer failed while draining.
    pub async fn drain(mut self, deadline: Instant) -> anyhow::Result<()> {
        for drain in self.drains.drain(..) {
            // A consumer that has ended is drained.
            let _ = drain.send(deadline);
        }
        let mut first = Ok(());
        while let Some(ended) = self.tasks.join_next().await {
            let ended = ended
                .context("a consumer's task panicked")
                .and_then(|result| result);
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
