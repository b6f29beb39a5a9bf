//! Topics before consumers: made where the configuration says how, and checked for new groups.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::StartFailure;
use crate::broker::{Broker, BrokerError, Topics};
use crate::config::{Config, Consumer, TopicSettings};

/// How long to wait before a broker out of reach is asked again.
const AGAIN: Duration = Duration::from_secs(1);

/// Makes the topics that the configuration describes, and refuses a new group on topics that hold
/// events where its consumer does not say where to start. A broker out of reach is waited for. What
/// the configuration `before`, which applies, says alike was prepared with that: on Kafka each question
/// takes a client of its own.
///
/// # Errors
/// A topic is refused, or a consumer must say where to start.
pub async fn prepare(
    config: &Config,
    before: Option<&Config>,
    broker: &Arc<dyn Broker>,
) -> anyhow::Result<()> {
    let topics = broker.topics();
    let mut told = false;
    loop {
        match try_prepare(config, before, topics.as_ref()).await {
            Err(Trouble::Broker(BrokerError::Unreachable(reason))) => {
                if !std::mem::replace(&mut told, true) {
                    tracing::warn!(%reason, "the broker is out of reach; it is asked again until it answers");
                }
                tokio::time::sleep(AGAIN).await;
            }
            Err(Trouble::Broker(error)) => return Err(error.into()),
            Err(Trouble::Start(failure)) => return Err(failure.into()),
            Ok(()) => return Ok(()),
        }
    }
}

enum Trouble {
    Broker(BrokerError),
    Start(StartFailure),
}

impl From<BrokerError> for Trouble {
    fn from(error: BrokerError) -> Self {
        Self::Broker(error)
    }
}

async fn try_prepare(
    config: &Config,
    before: Option<&Config>,
    topics: &dyn Topics,
) -> Result<(), Trouble> {
    let made = before.map(wanted).unwrap_or_default();
    let wanted = wanted(config);
    let new = |(name, settings): &(&Arc<str>, &TopicSettings)| made.get(*name) != Some(*settings);
    for (name, settings) in wanted.iter().filter(new) {
        if topics.create(name, settings).await? {
            tracing::info!(topic = %name, "topic made");
        }
    }
    for consumer in config.consumers.iter().filter(|consumer| consumer.enabled) {
        if consumer.start.is_none() && !before.is_some_and(|before| joined(before, consumer)) {
            check_start(consumer, topics).await?;
        }
    }
    Ok(())
}

/// Whether a configuration has this consumer, in this group and with these topics.
fn joined(config: &Config, consumer: &Consumer) -> bool {
    config.consumers.iter().any(|one| {
        one.enabled
            && one.name == consumer.name
            && one.group == consumer.group
            && one.topics == consumer.topics
    })
}

/// `[topics.NAME]`, and outputs that say how many partitions they want.
fn wanted(config: &Config) -> BTreeMap<Arc<str>, TopicSettings> {
    let mut wanted = config.topics.clone();
    for consumer in config.consumers.iter().filter(|consumer| consumer.enabled) {
        for output in &consumer.outputs {
            if let (Some(topic), Some(partitions)) = (&output.topic, output.partitions) {
                let settings = wanted.entry(topic.clone()).or_default();
                settings.partitions.get_or_insert(partitions);
            }
        }
    }
    wanted
}

async fn check_start(consumer: &Consumer, topics: &dyn Topics) -> Result<(), Trouble> {
    let before = consumer.previous_groups();
    for group in std::iter::once(consumer.group.clone()).chain(before) {
        if !topics.positions(&group).await?.is_empty() {
            return Ok(());
        }
    }
    for topic in topics.list().await? {
        let events: u64 = topic
            .partitions
            .iter()
            .map(|p| p.end.saturating_sub(p.start))
            .sum();
        if events > 0
            && consumer
                .topics
                .iter()
                .any(|wanted| wanted.matches(&topic.name))
        {
            return Err(Trouble::Start(StartFailure::Configuration(format!(
                "consumer {}: group {} is new, and topic {} holds {events} events already\n  \
                 what to do: say where it starts: start = \"beginning\", start = \"end\" or a time",
                consumer.name, consumer.group, topic.name
            ))));
        }
    }
    Ok(())
}
