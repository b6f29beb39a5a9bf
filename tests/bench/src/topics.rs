//! The topics of a run: filling the input, reading the output back.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use millstream_test_support::kafka_tools::KafkaTools;
use millstream_test_support::wait::Deadline;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::Message;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::types::RDKafkaErrorCode;
use rdkafka::{Offset, TopicPartitionList};

use crate::bid::Bids;
use crate::query::{Query, Tally, count};

/// Writes all bids to a topic.
///
/// # Errors
/// The broker does not take them.
pub fn fill(kafka: &KafkaTools, topic: &str, bids: Bids) -> Result<()> {
    let producer: BaseProducer = kafka
        .client()
        .set("enable.idempotence", "true")
        .set("partitioner", "murmur2_random")
        .set("linger.ms", "20")
        .create()?;
    let mut json = Vec::new();
    for bid in bids {
        json.clear();
        bid.write(&mut json);
        let key = bid.key();
        let mut record = BaseRecord::to(topic).key(&key).payload(&json);
        while let Err((error, unsent)) = producer.send(record) {
            let full = RDKafkaErrorCode::QueueFull;
            ensure!(error.rdkafka_error_code() == Some(full), "{error}");
            producer.poll(Duration::from_millis(10));
            record = unsent;
        }
    }
    producer
        .flush(Duration::from_secs(120))
        .context("the input was not written")
}

/// What stands in a topic of `query`'s output.
///
/// # Errors
/// The topic cannot be read to its end, or holds something else.
pub fn tally(kafka: &KafkaTools, topic: &str, query: Query) -> Result<Tally> {
    let ends = kafka.ends(topic)?;
    let consumer: BaseConsumer = kafka
        .client()
        .set("group.id", "millstream-bench-reader")
        .set("enable.auto.commit", "false")
        .set("fetch.queue.backoff.ms", "5")
        .set("isolation.level", "read_committed")
        // Markers of transactions have offsets too: the ends are told, not counted.
        .set("enable.partition.eof", "true")
        .create()?;
    let mut list = TopicPartitionList::new();
    let mut left: BTreeSet<i32> = BTreeSet::new();
    for (partition, _) in (0..).zip(&ends) {
        left.insert(partition);
        list.add_partition_offset(topic, partition, Offset::Beginning)?;
    }
    consumer.assign(&list)?;
    let mut tally = Tally::default();
    let mut deadline = Deadline::after(Duration::from_secs(60));
    while !left.is_empty() {
        match consumer.poll(Duration::from_millis(100)) {
            Some(Err(KafkaError::PartitionEOF(partition))) => {
                left.remove(&partition);
            }
            Some(message) => {
                let message = message?;
                let key = message.key().unwrap_or_default();
                count(
                    query,
                    &mut tally,
                    key,
                    message.payload().unwrap_or_default(),
                )?;
                deadline = Deadline::after(Duration::from_secs(60));
            }
            None if deadline.passed() => bail!("{topic} cannot be read to the ends of {left:?}"),
            None => {}
        }
    }
    Ok(tally)
}

/// Watches how far a group has come, from outside.
pub struct Progress {
    consumer: BaseConsumer,
    list: TopicPartitionList,
}

impl Progress {
    /// A watcher of `group` on `topic`.
    ///
    /// # Errors
    /// No client can be made.
    pub fn new(kafka: &KafkaTools, group: &str, topic: &str, partitions: i32) -> Result<Self> {
        let consumer = kafka.client().set("group.id", group).create()?;
        let mut list = TopicPartitionList::new();
        for partition in 0..partitions {
            list.add_partition(topic, partition);
        }
        Ok(Self { consumer, list })
    }

    /// How many events the group has committed; zero where it is not known yet.
    pub fn committed(&self) -> u64 {
        let patience = Duration::from_secs(5);
        let Ok(committed) = self.consumer.committed_offsets(self.list.clone(), patience) else {
            return 0;
        };
        let offsets = committed.elements();
        let known = offsets.iter().filter_map(|element| match element.offset() {
            Offset::Offset(offset) => u64::try_from(offset).ok(),
            _ => None,
        });
        known.sum()
    }
}
