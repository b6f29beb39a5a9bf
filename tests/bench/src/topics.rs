//! The topics of a run: filling the input, reading the output back.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use millstream_test_support::kafka_tools::KafkaTools;
use millstream_test_support::wait::Deadline;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::{BorrowedMessage, Header, Message, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::types::RDKafkaErrorCode;
use rdkafka::{Offset, TopicPartitionList};

use crate::input::{CLASS, Input};
use crate::workload::{Step, Tally, count};

/// How long a reader waits for the next event.
const PATIENCE: Duration = Duration::from_secs(60);

/// Writes the events of a workload to their topic.
///
/// # Errors
/// The broker does not take them.
pub fn fill(kafka: &KafkaTools, topic: &str, input: Input, seed: u64, events: u64) -> Result<()> {
    let producer: BaseProducer = kafka
        .client()
        .set("enable.idempotence", "true")
        .set("partitioner", "murmur2_random")
        .set("linger.ms", "20")
        .create()?;
    input.each(seed, events, |made| {
        let mut record = BaseRecord::to(topic).key(made.key).payload(made.value);
        if let Some(class) = made.class {
            let header = Header {
                key: CLASS,
                value: Some(class),
            };
            record = record.headers(OwnedHeaders::new_with_capacity(1).insert(header));
        }
        while let Err((error, unsent)) = producer.send(record) {
            let full = RDKafkaErrorCode::QueueFull;
            ensure!(error.rdkafka_error_code() == Some(full), "{error}");
            producer.poll(Duration::from_millis(10));
            record = unsent;
        }
        Ok(())
    })?;
    producer
        .flush(Duration::from_secs(120))
        .context("the input was not written")
}

/// What stands in a topic that a workload wrote to.
///
/// # Errors
/// The topic cannot be read to its end, or holds something else.
pub fn tally(kafka: &KafkaTools, topic: &str, step: Step) -> Result<Tally> {
    let mut tally = Tally::default();
    read(kafka, topic, |message| {
        let key = message.key().unwrap_or_default();
        let value = message.payload().unwrap_or_default();
        count(step, &mut tally, key, value)
    })?;
    Ok(tally)
}

/// Reads all that is committed in a topic, each partition in its order.
///
/// # Errors
/// The topic cannot be read to its end, or `take` fails.
pub fn read(
    kafka: &KafkaTools,
    topic: &str,
    mut take: impl FnMut(&BorrowedMessage<'_>) -> Result<()>,
) -> Result<()> {
    let partitions = kafka.ends(topic)?.len();
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
    let mut left: BTreeSet<i32> = (0..i32::try_from(partitions)?).collect();
    for partition in &left {
        list.add_partition_offset(topic, *partition, Offset::Beginning)?;
    }
    consumer.assign(&list)?;
    let mut deadline = Deadline::after(PATIENCE);
    while !left.is_empty() {
        match consumer.poll(Duration::from_millis(100)) {
            Some(Err(KafkaError::PartitionEOF(partition))) => {
                left.remove(&partition);
            }
            Some(message) => {
                take(&message?)?;
                deadline = Deadline::after(PATIENCE);
            }
            None if deadline.passed() => bail!("{topic} cannot be read to the ends of {left:?}"),
            None => {}
        }
    }
    Ok(())
}
