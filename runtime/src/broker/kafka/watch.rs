//! Which topics a subscription means today.
//!
//! Patterns are matched here and the group is joined with plain names: librdkafka's own patterns
//! could not leave out the consumer's own outputs.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use rdkafka::consumer::Consumer;
use rdkafka::error::KafkaResult;
use rdkafka::types::RDKafkaRespErr;

use super::member::Member;
use super::source::{Command, Mailbox};
use crate::broker::Subscription;
use crate::broker::wake::Wake;
use crate::config::TopicPattern;

/// Whether any entry of the subscription is a pattern.
pub(super) fn has_patterns(subscription: &Subscription) -> bool {
    subscription
        .topics
        .iter()
        .any(|topic| matches!(topic, TopicPattern::Pattern(_)))
}

/// The names that the subscription means, given the topics that exist. Plain names are wanted
/// whether they exist or not: a missing topic is waited for.
pub(super) fn names<'a>(
    subscription: &Subscription,
    existing: impl Iterator<Item = &'a str>,
) -> Vec<String> {
    let mut names: Vec<String> = subscription
        .topics
        .iter()
        .filter_map(|topic| match topic {
            TopicPattern::Name(name) => Some(name.to_string()),
            TopicPattern::Pattern(_) => None,
        })
        .collect();
    for topic in existing {
        let wanted = subscription
            .topics
            .iter()
            .any(|entry| matches!(entry, TopicPattern::Pattern(_)) && entry.matches(topic));
        if wanted && !subscription.excluded.iter().any(|name| **name == *topic) {
            names.push(topic.to_owned());
        }
    }
    names.sort_unstable();
    names.dedup();
    names
}

/// The topics of the subscription that exist, with their partitions. Blocks.
pub(super) fn existing(
    member: &Arc<Member>,
    subscription: &Subscription,
    wait: Duration,
) -> KafkaResult<BTreeMap<Arc<str>, u32>> {
    let mut found = BTreeMap::new();
    let mut note = |metadata: rdkafka::metadata::Metadata, wanted: &dyn Fn(&str) -> bool| {
        for topic in metadata.topics() {
            let failed = topic
                .error()
                .is_some_and(|code| code != RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR);
            if !failed && wanted(topic.name()) {
                let count = u32::try_from(topic.partitions().len()).unwrap_or(u32::MAX);
                found.insert(Arc::from(topic.name()), count);
            }
        }
    };
    if has_patterns(subscription) {
        let metadata = member.fetch_metadata(None, wait)?;
        let names = names(
            subscription,
            metadata
                .topics()
                .iter()
                .map(rdkafka::metadata::MetadataTopic::name),
        );
        note(metadata, &|topic| names.iter().any(|name| name == topic));
    } else {
        for name in names(subscription, std::iter::empty()) {
            note(member.fetch_metadata(Some(&name), wait)?, &|topic| {
                topic == name
            });
        }
    }
    Ok(found)
}

/// How often patterns are matched anew.
const PERIOD: Duration = Duration::from_secs(5);
const WAIT: Duration = Duration::from_secs(3);

/// A thread that matches a subscription's patterns against the topics that exist, and tells the
/// poll thread of changes. Its requests block, which the poll thread must not.
pub(super) struct Watcher {
    stop: Arc<(AtomicBool, Wake)>,
    thread: Option<JoinHandle<()>>,
}

impl Watcher {
    /// Starts to watch.
    ///
    /// # Errors
    /// Where the system has no thread to give.
    pub(super) fn start(
        member: Arc<Member>,
        subscription: Arc<Subscription>,
        mailbox: Arc<Mailbox>,
    ) -> std::io::Result<Self> {
        let stop = Arc::new((AtomicBool::new(false), Wake::default()));
        let stopped = stop.clone();
        let thread = std::thread::Builder::new()
            .name("kafka-topics".to_owned())
            .spawn(move || {
                let mut known = Vec::new();
                while !stopped.0.load(Ordering::Relaxed) {
                    match existing(&member, &subscription, WAIT) {
                        Ok(topics) => {
                            let names = names(&subscription, topics.keys().map(|name| &**name));
                            if names != known {
                                known.clone_from(&names);
                                mailbox.send(Command::Topics(names));
                            }
                        }
                        Err(error) => tracing::debug!(
                            group = &*subscription.group,
                            "the topics cannot be listed yet: {error}"
                        ),
                    }
                    stopped.1.wait(PERIOD);
                }
            })?;
        Ok(Self {
            stop,
            thread: Some(thread),
        })
    }
}

impl Drop for Watcher {
    /// Waits until the thread has let go of the member.
    fn drop(&mut self) {
        self.stop.0.store(true, Ordering::Relaxed);
        self.stop.1.notify();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{OnLostPosition, Start};

    fn subscription(topics: Vec<TopicPattern>, excluded: &[&str]) -> Subscription {
        Subscription {
            consumer: "c".into(),
            group: "g".into(),
            topics,
            excluded: excluded.iter().map(|name| Arc::from(*name)).collect(),
            start: Start::Beginning,
            on_lost_position: OnLostPosition::Stop,
            fetch_events: 1,
            fetch_bytes: 1,
            transactional: false,
        }
    }

    /// A consumer that reads its own output multiplies events without end.
    #[test]
    fn a_pattern_never_means_the_consumers_own_outputs() {
        let pattern = TopicPattern::Pattern(regex::Regex::new("^orders").expect("a pattern"));
        let subscription = subscription(vec![pattern], &["orders-enriched"]);
        let existing = [
            "orders",
            "orders-enriched",
            "orders-eu",
            "other",
            "__consumer_offsets",
        ];
        assert_eq!(
            names(&subscription, existing.into_iter()),
            ["orders", "orders-eu"]
        );
    }

    #[test]
    fn a_plain_name_is_wanted_before_it_exists() {
        let subscription = subscription(vec![TopicPattern::Name("late".into())], &[]);
        assert_eq!(names(&subscription, std::iter::empty()), ["late"]);
    }
}
