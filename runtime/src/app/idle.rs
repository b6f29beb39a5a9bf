//! When everything is processed: every group has reached one snapshot of all ends, nothing is in
//! flight, and a second snapshot says the same.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::health::RuntimeHealth;
use super::reload::Current;
use crate::broker::{Broker, BrokerError};
use crate::config::{Config, Consumer};
use crate::consumer::status::{State, Status};
use crate::event::TopicPartition;

/// How often it is looked.
const LOOK: Duration = Duration::from_millis(100);

type Ends = BTreeMap<TopicPartition, (u64, u64)>;

/// Waits until everything is processed.
///
/// # Errors
/// The reason, where nothing has moved for `patience` and something still waits.
pub async fn wait(
    current: &Current,
    broker: &Arc<dyn Broker>,
    health: &RuntimeHealth,
    patience: Duration,
) -> Result<(), String> {
    let mut reached: Option<Ends> = None;
    let mut last = (0, Instant::now());
    loop {
        tokio::time::sleep(LOOK).await;
        let why = match look(&current.get(), broker, health).await {
            Ok((ends, None)) if reached.as_ref() == Some(&ends) => return Ok(()),
            Ok((ends, None)) => {
                reached = Some(ends);
                continue;
            }
            Ok((_, Some(why))) => why,
            Err(error) => error.to_string(),
        };
        reached = None;
        let moved: u64 = health
            .all()
            .iter()
            .flat_map(|(_, status)| status.partitions.values().map(|shown| shown.position))
            .sum();
        let now = Instant::now();
        if moved != last.0 {
            last = (moved, now);
        } else if now.saturating_duration_since(last.1) >= patience {
            return Err(format!(
                "not idle, and nothing moved for {} s: {why}",
                patience.as_secs_f64()
            ));
        }
    }
}

/// The ends of the topics that are consumed, and why the consumers have not reached them.
async fn look(
    config: &Config,
    broker: &Arc<dyn Broker>,
    health: &RuntimeHealth,
) -> Result<(Ends, Option<String>), BrokerError> {
    let topics = broker.topics();
    let mut ends = Ends::new();
    let enabled = || config.consumers.iter().filter(|consumer| consumer.enabled);
    for topic in topics.list().await? {
        // What others write to the same cluster is not waited for.
        if !enabled().any(|consumer| consumer.reads(&topic.name)) {
            continue;
        }
        for (number, partition) in topic.partitions.iter().enumerate() {
            let name = TopicPartition::new(topic.name.clone(), number as u32);
            ends.insert(name, (partition.start, partition.end));
        }
    }
    let running = health.all();
    for consumer in enabled() {
        let status = running
            .iter()
            .find(|(settings, _)| settings.name == consumer.name)
            .map(|(_, status)| status);
        let Some(status) = status else {
            return Ok((
                ends,
                Some(format!("consumer {} has not started", consumer.name)),
            ));
        };
        if let Some(why) = behind(consumer, status, &ends) {
            return Ok((ends, Some(why)));
        }
        let elsewhere = elsewhere(consumer, status, &ends);
        if elsewhere.is_empty() {
            continue;
        }
        // Another runtime of the group has these partitions: what it committed is what counts.
        let committed: BTreeMap<_, _> = topics
            .positions(&consumer.group)
            .await?
            .into_iter()
            .collect();
        for partition in elsewhere {
            let position = committed
                .get(&partition)
                .map_or(0, |progress| progress.next);
            let (start, end) = ends[&partition];
            if position < end && start < end {
                let why = format!(
                    "consumer {}: {partition} is at {position} of {end}",
                    consumer.name
                );
                return Ok((ends, Some(why)));
            }
        }
    }
    Ok((ends, None))
}

/// Why a consumer is not done with the partitions that it has.
fn behind(consumer: &Consumer, status: &Status, ends: &Ends) -> Option<String> {
    let name = &consumer.name;
    match &status.state {
        State::Stopped(reason) => return Some(format!("consumer {name} is stopped: {reason}")),
        State::Paused => return Some(format!("consumer {name} is paused")),
        State::Waiting(reason) => return Some(format!("consumer {name} waits: {reason}")),
        _ => {}
    }
    for (partition, shown) in &status.partitions {
        if let Some(reason) = &shown.halted {
            return Some(format!("consumer {name}: {partition} is halted: {reason}"));
        }
        let end = ends.get(partition).map_or(0, |(_, end)| *end);
        if shown.position < end {
            // Between two probes it is half-open, which explains nothing by itself.
            let breaker = match &status.breaker.reason {
                Some(reason) => format!(", and the circuit breaker was opened: {reason}"),
                None => String::new(),
            };
            let position = shown.position;
            return Some(format!(
                "consumer {name}: {partition} is at {position} of {end}{breaker}"
            ));
        }
    }
    (status.in_flight > 0)
        .then(|| format!("consumer {name} has {} events in flight", status.in_flight))
}

/// Partitions with events that the consumer wants and does not have.
fn elsewhere(consumer: &Consumer, status: &Status, ends: &Ends) -> Vec<TopicPartition> {
    ends.iter()
        .filter(|(partition, (start, end))| {
            start < end
                && !status.partitions.contains_key(*partition)
                && consumer.reads(&partition.topic)
        })
        .map(|(partition, _)| partition.clone())
        .collect()
}
