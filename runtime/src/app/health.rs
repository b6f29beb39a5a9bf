//! What the runtime tells of itself, from what its consumers show.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures::future::BoxFuture;
use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use super::reload::Request;
use crate::admin::{
    ConsumerReport, Health, NotDone, Operator, PartitionReport, Readiness, ReloadReport, Wish,
};
use crate::broker::Broker;
use crate::config;
use crate::consumer::commands::Commander;
use crate::consumer::status::{SharedStatus, State, Status};
use crate::decide::breaker::Phase;
use crate::event::TopicPartition;

/// See the module.
pub struct RuntimeHealth {
    broker: Arc<dyn Broker>,
    stuck_after: Duration,
    started: AtomicBool,
    draining: AtomicBool,
    consumers: Mutex<Vec<(Arc<config::Consumer>, SharedStatus)>>,
    commanders: Mutex<BTreeMap<Arc<str>, Commander>>,
    reloads: mpsc::Sender<Request>,
    /// What was done by hand and holds, by consumer.
    overrides: Mutex<BTreeMap<Arc<str>, Shown>>,
}

/// What `/api/v1/consumers` tells of what was done by hand.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Shown {
    /// `deploy`, `rollback`, `pause`.
    pub overrides: Vec<String>,
    /// Whether what runs is not what the configuration names.
    pub drift: bool,
}

impl RuntimeHealth {
    /// A runtime that has not started its consumers yet; `reloads` hears who wants a reload.
    pub fn new(
        broker: Arc<dyn Broker>,
        stuck_after: Duration,
        reloads: mpsc::Sender<Request>,
    ) -> Self {
        Self {
            broker,
            stuck_after,
            started: AtomicBool::new(false),
            draining: AtomicBool::new(false),
            consumers: Mutex::default(),
            commanders: Mutex::default(),
            reloads,
            overrides: Mutex::default(),
        }
    }

    /// This was done by hand to a consumer, and holds.
    pub fn overridden(&self, name: &Arc<str>, shown: Shown) {
        self.overrides.lock().insert(name.clone(), shown);
    }

    /// All consumers are at work.
    pub fn started(&self) {
        self.started.store(true, Ordering::Relaxed);
    }

    /// The runtime shuts down.
    pub fn drain(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }

    /// A consumer begins to work; where one of its name did before, in its place.
    pub fn set(&self, settings: Arc<config::Consumer>, status: SharedStatus) {
        let mut consumers = self.consumers.lock();
        match consumers
            .iter_mut()
            .find(|(one, _)| one.name == settings.name)
        {
            Some(place) => *place = (settings, status),
            None => consumers.push((settings, status)),
        }
    }

    /// A consumer works with other settings from now on.
    pub fn changed(&self, settings: Arc<config::Consumer>) {
        let mut consumers = self.consumers.lock();
        if let Some((one, _)) = consumers
            .iter_mut()
            .find(|(one, _)| one.name == settings.name)
        {
            *one = settings;
        }
    }

    /// A consumer is no more.
    pub fn forget(&self, name: &str) {
        self.consumers.lock().retain(|(one, _)| *one.name != *name);
        self.commanders.lock().remove(name);
    }

    /// Shows the consumers in this order.
    pub fn arrange(&self, names: &[Arc<str>]) {
        let place = |name: &Arc<str>| names.iter().position(|one| one == name);
        self.consumers
            .lock()
            .sort_by_key(|(one, _)| place(&one.name));
    }

    /// Says how a consumer is reached while it works.
    pub fn commanded_by(&self, name: &Arc<str>, commander: Commander) {
        self.commanders.lock().insert(name.clone(), commander);
    }

    /// Every consumer as it stands.
    pub fn all(&self) -> Vec<(Arc<config::Consumer>, Status)> {
        let consumers = self.consumers.lock();
        let read = |(settings, status): &(Arc<config::Consumer>, SharedStatus)| {
            (settings.clone(), status.lock().clone())
        };
        consumers.iter().map(read).collect()
    }

    /// Events that wait in the assigned partitions of all consumers.
    pub fn lag(&self) -> u64 {
        self.all().iter().map(|(_, status)| lag(status)).sum()
    }
}

impl Operator for RuntimeHealth {
    fn skip<'a>(
        &'a self,
        consumer: &'a str,
        partition: TopicPartition,
        offset: u64,
    ) -> BoxFuture<'a, Result<(), NotDone>> {
        let commander = self.commanders.lock().get(consumer).cloned();
        Box::pin(async move {
            let commander = commander.ok_or(NotDone::UnknownConsumer)?;
            let skipped = commander.skip(partition, offset).await;
            skipped.map_err(NotDone::Refused)
        })
    }

    fn grant(&self, wish: Wish) -> BoxFuture<'_, Result<ReloadReport, NotDone>> {
        Box::pin(async move {
            let (reply, answer) = oneshot::channel();
            let request = Request {
                cause: "asked over HTTP",
                wish,
                reply: Some(reply),
            };
            let ended = || NotDone::Refused("the runtime is shutting down".to_owned());
            self.reloads.send(request).await.map_err(|_| ended())?;
            answer.await.map_err(|_| ended())?
        })
    }
}

impl Health for RuntimeHealth {
    fn alive(&self) -> Result<(), String> {
        let now = Instant::now();
        for (settings, status) in self.all() {
            let silent = now.saturating_duration_since(status.alive_at);
            if silent > self.stuck_after && status.state != State::Ended {
                return Err(format!(
                    "consumer {} has made no progress for {} s",
                    settings.name,
                    silent.as_secs()
                ));
            }
        }
        Ok(())
    }

    fn ready(&self) -> Readiness {
        let mut reasons = Vec::new();
        let mut notes = Vec::new();
        if self.draining() {
            reasons.push("the runtime is shutting down".to_owned());
        }
        if !self.broker.up() {
            reasons.push("the broker is out of reach".to_owned());
        }
        if !self.started.load(Ordering::Relaxed) {
            reasons.push("the runtime is starting".to_owned());
        }
        for (settings, status) in self.all() {
            let name = &settings.name;
            match &status.state {
                State::Starting => reasons.push(format!(
                    "consumer {name} has not joined group {} yet; does one of its topics exist?",
                    settings.group
                )),
                State::Stopped(reason) => {
                    reasons.push(format!("consumer {name} is stopped: {reason}"))
                }
                State::Paused => notes.push(format!("consumer {name} is paused")),
                State::Waiting(reason) => notes.push(format!("consumer {name} waits: {reason}")),
                State::Running | State::Draining | State::Ended => {}
            }
            if status.breaker.phase == Phase::HalfOpen {
                let note = "tries single events after its circuit breaker was open";
                notes.push(format!("consumer {name} {note}"));
            }
            for (partition, shown) in &status.partitions {
                if let Some(reason) = &shown.halted {
                    reasons.push(format!("consumer {name}: {partition} is halted: {reason}"));
                }
            }
            let lag = lag(&status);
            if lag > 0 {
                notes.push(format!("consumer {name} has {lag} events to go"));
            }
        }
        Readiness {
            ready: reasons.is_empty(),
            reasons,
            notes,
        }
    }

    fn draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }

    fn consumers(&self) -> Vec<ConsumerReport> {
        let overrides = self.overrides.lock();
        self.all()
            .iter()
            .map(|(settings, status)| {
                let shown = overrides.get(&settings.name).cloned();
                report(settings, status, shown.unwrap_or_default())
            })
            .collect()
    }
}

fn lag(status: &Status) -> u64 {
    let lags = status.partitions.values().map(|shown| {
        shown
            .end
            .map_or(0, |end| end.saturating_sub(shown.position))
    });
    lags.sum()
}

fn report(settings: &config::Consumer, status: &Status, shown: Shown) -> ConsumerReport {
    let partitions = status
        .partitions
        .iter()
        .map(|(name, shown)| PartitionReport {
            topic: name.topic.to_string(),
            partition: name.partition,
            position: shown.position,
            end: shown.end.unwrap_or(shown.position),
            lag: shown
                .end
                .map_or(0, |end| end.saturating_sub(shown.position)),
            halted: shown.halted.clone(),
            halted_at: shown.halted_at,
            on_trial: shown.on_trial,
        });
    let halted = status
        .partitions
        .values()
        .any(|shown| shown.halted.is_some());
    let state = match &status.state {
        State::Running if halted => "halted",
        state => state.name(),
    };
    ConsumerReport {
        name: settings.name.to_string(),
        group: settings.group.to_string(),
        state: state.to_owned(),
        reason: status.state.reason().map(str::to_owned),
        generation: status.generation,
        digest: status.digest.to_string(),
        lag: lag(status),
        in_flight: status.in_flight as u64,
        breaker: status.breaker.phase.name().to_owned(),
        overrides: shown.overrides,
        drift: shown.drift,
        probation: status.probation,
        partitions: partitions.collect(),
    }
}
