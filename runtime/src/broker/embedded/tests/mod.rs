//! Behaviour of the embedded broker as a whole, on a store in a temporary folder.

mod answers;
mod budget;
mod crash;
mod log;
mod retention;
mod sessions;
mod sink;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::EmbeddedBroker;
use crate::broker::{Broker, ReadLimits, Session, SourceEvent, Subscription};
use crate::config::{Durability, Embedded, OnLostPosition, Start, TopicPattern, TopicSettings};
use crate::event::{Block, TopicPartition};
use crate::records::{NewRecord, Records};

const ALL: ReadLimits = ReadLimits {
    events: usize::MAX,
    bytes: usize::MAX,
};

fn config(folder: &Path) -> Embedded {
    Embedded {
        data_dir: folder.to_owned(),
        durability: Durability::Os,
        min_free_disk: 0,
    }
}

fn open(folder: &Path) -> Arc<EmbeddedBroker> {
    EmbeddedBroker::open(&config(folder), &BTreeMap::new()).unwrap()
}

fn open_with(folder: &Path, topic: &str, settings: TopicSettings) -> Arc<EmbeddedBroker> {
    let topics = BTreeMap::from([(topic.into(), settings)]);
    EmbeddedBroker::open(&config(folder), &topics).unwrap()
}

fn partitions(count: u32) -> TopicSettings {
    TopicSettings {
        partitions: Some(count),
        ..TopicSettings::default()
    }
}

/// Events with these values for one partition.
fn records(topic: &str, partition: u32, values: &[&str]) -> Records {
    let topic: Arc<str> = topic.into();
    let mut records = Records::new();
    for value in values {
        records.push(
            &topic,
            NewRecord {
                value: Some(value.as_bytes()),
                partition: Some(partition),
                ..NewRecord::default()
            },
        );
    }
    records
}

async fn produce(broker: &EmbeddedBroker, topic: &str, partition: u32, values: &[&str]) {
    let records = records(topic, partition, values);
    broker.topics().produce(records).await.unwrap();
}

fn values(block: &Block) -> Vec<String> {
    block
        .iter()
        .map(|event| String::from_utf8_lossy(event.value().unwrap_or_default()).into_owned())
        .collect()
}

/// Everything in a partition, and where its reading began and ended.
async fn read_all(broker: &EmbeddedBroker, topic: &str, partition: u32) -> (u64, Vec<String>, u64) {
    let place = TopicPartition::new(topic, partition);
    let mut found = Vec::new();
    let mut first = None;
    let mut at = 0;
    loop {
        let chunk = broker.topics().read(&place, at, ALL).await.unwrap();
        if chunk.block.is_empty() {
            return (first.unwrap_or(chunk.next), found, chunk.next);
        }
        let mut expected = first.map_or(chunk.block.event(0).offset(), |_| at);
        for event in chunk.block.iter() {
            assert_eq!(event.offset(), expected, "offsets are consecutive");
            expected += 1;
        }
        first.get_or_insert(chunk.block.event(0).offset());
        found.extend(values(&chunk.block));
        at = chunk.next;
        assert_eq!(at, expected);
    }
}

fn named(topic: &str) -> Subscription {
    Subscription {
        consumer: "c".into(),
        group: "g".into(),
        previous_groups: Vec::new(),
        topics: vec![TopicPattern::Name(topic.into())],
        excluded: Vec::new(),
        start: Start::Beginning,
        on_lost_position: OnLostPosition::Stop,
        fetch_events: 10_000,
        fetch_bytes: 16 << 20,
        transactional: false,
    }
}

/// The next event of a source, or a failure instead of a test that hangs.
async fn next(session: &mut Session) -> SourceEvent {
    tokio::time::timeout(Duration::from_secs(60), session.source.next())
        .await
        .expect("the source stays silent")
}

/// What the session is given, in order, blocks by their values, up to the first event that `last`
/// accepts.
async fn told(session: &mut Session, last: impl Fn(&SourceEvent) -> bool) -> Vec<String> {
    let mut told = Vec::new();
    loop {
        let event = next(session).await;
        let done = last(&event);
        match event {
            SourceEvent::Assigned(assignments) => {
                told.extend(assignments.iter().map(|a| {
                    let progress = &a.progress;
                    format!(
                        "assigned {} {}{:?}",
                        a.partition, progress.next, progress.above
                    )
                }));
                if assignments.is_empty() {
                    told.push("assigned nothing".to_owned());
                }
            }
            SourceEvent::Block(block) => told.extend(values(&block)),
            SourceEvent::CaughtUp { partition, next } => {
                told.push(format!("caught up {partition} {next}"));
            }
            SourceEvent::Skipped {
                partition,
                from,
                to,
            } => told.push(format!("skipped {partition} {from} {to}")),
            SourceEvent::Halted { partition, .. } => told.push(format!("halted {partition}")),
            SourceEvent::Revoked {
                partitions, lost, ..
            } => told.extend(
                partitions
                    .iter()
                    .map(|p| format!("revoked {p} lost {lost}")),
            ),
            SourceEvent::Failed(error) => told.push(format!("failed {error}")),
        }
        if done {
            return told;
        }
    }
}

fn is_caught_up(event: &SourceEvent) -> bool {
    matches!(event, SourceEvent::CaughtUp { .. })
}
