//! A member of a group that notes everything it hears.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use millstream::broker::kafka::KafkaBroker;
use millstream::broker::{
    Broker, Commit, Control, Session, Sink, Source, SourceEvent, Subscription,
};
use millstream::config::secret::Secret;
use millstream::config::{Kafka, OnLostPosition, Start, TopicPattern};
use millstream::decide::offsets::Progress;
use millstream::event::TopicPartition;
use millstream::records::{NewRecord, Records};
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout};

/// How long anything may take on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A name that no other test has.
pub fn unique(stem: &str) -> String {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    format!("{stem}-{}-{number}", std::process::id())
}

/// The cluster at `bootstrap`.
pub fn broker(bootstrap: &str) -> Arc<KafkaBroker> {
    broker_with(bootstrap, &[], None)
}

/// The cluster with properties and an identity.
pub fn broker_with(
    bootstrap: &str,
    properties: &[(&str, &str)],
    instance: Option<&str>,
) -> Arc<KafkaBroker> {
    let mut all = BTreeMap::new();
    for (key, value) in properties {
        all.insert((*key).to_owned(), Secret::new(*value));
    }
    all.insert("bootstrap.servers".to_owned(), Secret::new(bootstrap));
    KafkaBroker::connect(&Kafka { properties: all }, instance).unwrap()
}

/// A subscription to `topics` from the beginning.
pub fn subscription(group: &str, topics: &[&str]) -> Subscription {
    Subscription {
        consumer: group.into(),
        group: group.into(),
        previous_groups: Vec::new(),
        topics: topics
            .iter()
            .map(|topic| TopicPattern::Name((*topic).into()))
            .collect(),
        excluded: Vec::new(),
        start: Start::Beginning,
        on_lost_position: OnLostPosition::Stop,
        fetch_events: 2_000,
        fetch_bytes: 4 << 20,
        transactional: false,
    }
}

/// Records for `topic`: `count` of them, valued by their numbers from `first` on.
pub fn numbered(topic: &str, partition: Option<u32>, first: u64, count: u64) -> Records {
    let topic: Arc<str> = topic.into();
    let mut records = Records::new();
    for number in first..first + count {
        let text = number.to_string();
        let record = NewRecord {
            key: Some(text.as_bytes()),
            value: Some(text.as_bytes()),
            partition,
            tag: number,
            ..NewRecord::default()
        };
        records.push(&topic, record);
    }
    records
}

/// An event as it was handed over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    pub partition: TopicPartition,
    pub offset: u64,
    pub value: String,
}

/// A member and what it has heard.
pub struct Member {
    pub source: Box<dyn Source>,
    pub control: Arc<dyn Control>,
    pub sink: Arc<dyn Sink>,
    /// With the position at which each was assigned.
    pub owned: BTreeMap<TopicPartition, Progress>,
    pub seen: Vec<Seen>,
    /// Of each partition that is owned: one past the last event seen.
    pub next: BTreeMap<TopicPartition, u64>,
    pub caught_up: BTreeMap<TopicPartition, u64>,
    pub skipped: Vec<(TopicPartition, u64, u64)>,
    pub halted: Vec<(TopicPartition, String)>,
    /// Revocations that were not answered, where the member keeps them.
    pub revoked: Vec<(Vec<TopicPartition>, oneshot::Sender<()>)>,
    /// Answer revocations at once.
    pub answers: bool,
}

impl Member {
    pub fn join(broker: &KafkaBroker, subscription: Subscription) -> Self {
        let Session {
            source,
            control,
            sink,
        } = broker.subscribe(subscription).unwrap();
        Self {
            source,
            control,
            sink,
            owned: BTreeMap::new(),
            seen: Vec::new(),
            next: BTreeMap::new(),
            caught_up: BTreeMap::new(),
            skipped: Vec::new(),
            halted: Vec::new(),
            revoked: Vec::new(),
            answers: true,
        }
    }

    /// Hears one thing, or nothing within `within`.
    pub async fn hear(&mut self, within: Duration) -> bool {
        let Ok(event) = timeout(within, self.source.next()).await else {
            return false;
        };
        match event {
            SourceEvent::Assigned(assignments) => {
                for assignment in assignments {
                    self.next
                        .insert(assignment.partition.clone(), assignment.progress.next);
                    let before = self.owned.insert(assignment.partition, assignment.progress);
                    assert!(before.is_none(), "assigned twice");
                }
            }
            SourceEvent::Revoked {
                partitions, done, ..
            } => {
                for partition in &partitions {
                    self.next.remove(partition);
                    assert!(
                        self.owned.remove(partition).is_some(),
                        "not ours: {partition}"
                    );
                }
                if self.answers {
                    drop(done);
                } else {
                    self.revoked.push((partitions, done));
                }
            }
            SourceEvent::Block(block) => {
                assert!(
                    self.owned.contains_key(block.source()),
                    "a block of {}, which is not ours",
                    block.source()
                );
                for event in block.iter() {
                    self.next.insert(block.source().clone(), event.offset() + 1);
                    self.seen.push(Seen {
                        partition: block.source().clone(),
                        offset: event.offset(),
                        value: String::from_utf8_lossy(event.value().unwrap_or_default())
                            .into_owned(),
                    });
                }
            }
            SourceEvent::CaughtUp { partition, next } => {
                self.caught_up.insert(partition, next);
            }
            SourceEvent::Skipped {
                partition,
                from,
                to,
            } => self.skipped.push((partition, from, to)),
            SourceEvent::Halted { partition, reason } => self.halted.push((partition, reason)),
            SourceEvent::Failed(error) => panic!("the subscription failed: {error}"),
        }
        true
    }

    /// Hears until `enough`.
    pub async fn until(&mut self, what: &str, enough: impl Fn(&Self) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !enough(self) {
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(
                self.hear(left).await,
                "{what}: not within {PATIENCE:?}; owned {:?}, {} events seen, caught up {:?}",
                self.owned
                    .keys()
                    .map(ToString::to_string)
                    .collect::<Vec<_>>(),
                self.seen.len(),
                self.caught_up
            );
        }
    }

    /// Hears for a while, whatever comes.
    pub async fn listen(&mut self, during: Duration) {
        let deadline = Instant::now() + during;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() || !self.hear(left).await {
                return;
            }
        }
    }

    pub async fn commit(&self, partition: &TopicPartition, progress: Progress) {
        let commit = Commit {
            partition: partition.clone(),
            progress,
        };
        self.sink.commit(vec![commit]).await.unwrap();
    }

    /// The values seen of a partition, in the order in which they came.
    pub fn values(&self, partition: &TopicPartition) -> Vec<u64> {
        self.seen
            .iter()
            .filter(|seen| seen.partition == *partition)
            .map(|seen| seen.value.parse().unwrap())
            .collect()
    }

    pub async fn leave(self) {
        self.source.close().await;
    }
}
