//! Which topics a subscription means today: those that it names, those that a pattern matches, and
//! those of the runtime's own that exist.
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
use rdkafka::metadata::{Metadata, MetadataTopic};
use rdkafka::types::RDKafkaRespErr;

use super::member::Member;
use super::source::{Command, Mailbox};
use crate::broker::Subscription;
use crate::broker::wake::Wake;
use crate::config::TopicPattern;

/// Topics of the runtime's own, such as those of replays: most are never made. Until one is there
/// it is not subscribed to, for a cluster may refuse even to say that it is not.
fn is_own(name: &str) -> bool {
    name.starts_with("millstream.")
}

/// Whether the topics that the subscription means can change.
pub(super) fn changes(subscription: &Subscription) -> bool {
    has_patterns(subscription)
        || subscription
            .topics
            .iter()
            .any(|topic| matches!(topic, TopicPattern::Name(name) if is_own(name)))
}

/// Whether any entry of the subscription is a pattern.
fn has_patterns(subscription: &Subscription) -> bool {
    subscription
        .topics
        .iter()
        .any(|topic| matches!(topic, TopicPattern::Pattern(_)))
}

/// The names that the subscription means, given the topics that exist. Plain names are wanted
/// whether they exist or not: a missing topic is waited for; one of the runtime's own is not.
pub(super) fn names<'a>(
    subscription: &Subscription,
    existing: impl Iterator<Item = &'a str>,
) -> Vec<String> {
    let mut names: Vec<String> = subscription
        .topics
        .iter()
        .filter_map(|topic| match topic {
            TopicPattern::Name(name) => (!is_own(name)).then(|| name.to_string()),
            TopicPattern::Pattern(_) => None,
        })
        .collect();
    for topic in existing {
        let wanted = subscription.topics.iter().any(|entry| match entry {
            TopicPattern::Pattern(_) => entry.matches(topic),
            TopicPattern::Name(name) => is_own(name) && **name == *topic,
        });
        if wanted && !subscription.excluded.iter().any(|name| **name == *topic) {
            names.push(topic.to_owned());
        }
    }
    names.sort_unstable();
    names.dedup();
    names
}

/// Topics that exist, with their partitions.
type Existing = BTreeMap<Arc<str>, u32>;

/// The topics of the subscription that exist. Blocks.
pub(super) fn existing(
    member: &Arc<Member>,
    subscription: &Subscription,
    wait: Duration,
) -> KafkaResult<Existing> {
    match has_patterns(subscription) {
        true => matching(member, subscription, wait),
        false => named(member, subscription, |_| true, wait),
    }
}

/// Those of them on which it depends what is subscribed to. Blocks.
fn deciding(
    member: &Arc<Member>,
    subscription: &Subscription,
    wait: Duration,
) -> KafkaResult<Existing> {
    match has_patterns(subscription) {
        true => matching(member, subscription, wait),
        false => named(member, subscription, is_own, wait),
    }
}

/// Asks for all topics of the cluster.
fn matching(
    member: &Arc<Member>,
    subscription: &Subscription,
    wait: Duration,
) -> KafkaResult<Existing> {
    let metadata = member.fetch_metadata(None, wait)?;
    let names = names(
        subscription,
        metadata.topics().iter().map(MetadataTopic::name),
    );
    let wanted = |topic: &&MetadataTopic| names.iter().any(|name| name == topic.name());
    Ok(healthy(&metadata).filter(wanted).map(counted).collect())
}

/// Asks for the topics that the subscription names, one by one.
fn named(
    member: &Arc<Member>,
    subscription: &Subscription,
    asked: impl Fn(&str) -> bool,
    wait: Duration,
) -> KafkaResult<Existing> {
    let mut found = Existing::new();
    for entry in &subscription.topics {
        let TopicPattern::Name(name) = entry else {
            continue;
        };
        if asked(name) {
            let metadata = member.fetch_metadata(Some(name), wait)?;
            let ours = healthy(&metadata).filter(|topic| topic.name() == &**name);
            found.extend(ours.map(counted));
        }
    }
    Ok(found)
}

fn healthy(metadata: &Metadata) -> impl Iterator<Item = &MetadataTopic> {
    metadata.topics().iter().filter(|topic| {
        topic
            .error()
            .is_none_or(|code| code == RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR)
    })
}

fn counted(topic: &MetadataTopic) -> (Arc<str>, u32) {
    let count = u32::try_from(topic.partitions().len()).unwrap_or(u32::MAX);
    (Arc::from(topic.name()), count)
}

/// How often it is looked.
const PERIOD: Duration = Duration::from_secs(5);
const WAIT: Duration = Duration::from_secs(3);

/// A thread that looks which topics of a subscription there are, and tells the poll thread of
/// changes. Its requests block, which the poll thread must not.
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
                    match deciding(&member, &subscription, WAIT) {
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
            previous_groups: Vec::new(),
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

    /// A topic that is never made must not be asked for again and again.
    #[test]
    fn a_topic_of_the_runtimes_own_is_wanted_once_it_exists() {
        let topics = ["orders", "millstream.g.replay"].map(|name| TopicPattern::Name(name.into()));
        let subscription = subscription(topics.into(), &[]);
        assert!(changes(&subscription));
        assert_eq!(names(&subscription, std::iter::empty()), ["orders"]);
        let existing = ["millstream.g.replay", "millstream.other.replay"];
        assert_eq!(
            names(&subscription, existing.into_iter()),
            ["millstream.g.replay", "orders"]
        );
    }

    #[test]
    fn a_plain_name_is_wanted_before_it_exists() {
        let subscription = subscription(vec![TopicPattern::Name("late".into())], &[]);
        assert_eq!(names(&subscription, std::iter::empty()), ["late"]);
    }
}
