//! Delays through Kafka.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};
use millstream_test_support::kafka::KafkaNode;
use millstream_test_support::kafka_tools::KafkaTools;
use millstream_test_support::wait::Deadline;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::Message;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::types::RDKafkaErrorCode;
use rdkafka::{Offset, TopicPartitionList};
use tokio::time::Instant;

use super::{Delays, PATIENCE, Plan, STEP, Sent};
use crate::bid::{Bids, number};
use crate::comparison::PARTITIONS;
use crate::contender::{Contender, Job};
use crate::workload::Workload;

/// Sends events at a steady rate and reads what comes out.
///
/// # Errors
/// The contender cannot be started, or not every event comes out.
pub fn measure(node: &KafkaNode, plan: &Plan<'_>) -> Result<Delays> {
    let (kafka, name) = (node.tools(), plan.name());
    let (input, output) = (format!("{name}-in"), format!("{name}-out"));
    kafka.create_topic(&input, PARTITIONS)?;
    kafka.create_topic(&output, PARTITIONS)?;
    let (events, rate) = (plan.events(), u64::from(plan.rate));
    let job = Job {
        workload: Workload::Q0,
        bootstrap: node.bootstrap(),
        groups: vec![name],
        input: &input,
        output: &output,
        partitions: PARTITIONS,
        // More than come: it goes on until it is ended.
        events: u64::MAX,
        seed: plan.seed,
        folder: plan.folder,
    };
    let contender = plan.route.contender();
    let start = |contender: Contender| contender.start(&job, contender.launch(&job)?);
    let _process = contender.map(start).transpose()?;
    let read = contender.map_or(&input, |_| &output);
    let reader = reader(kafka, read, PARTITIONS)?;
    let producer: BaseProducer = kafka
        .client()
        .set("enable.idempotence", "true")
        .set("partitioner", "murmur2_random")
        .set("linger.ms", "1")
        .create()?;

    // An event must have passed before the rate begins: starting up is not what is measured.
    let mut bids = Bids::new(plan.seed, events + 1);
    let sent = Arc::new(Sent::new(events + 1));
    send(&producer, &input, &mut bids, 1, &sent)?;
    let mut delays = Vec::new();
    receive(&reader, &sent, 1, &mut delays)?;
    delays.clear();

    let failed = Arc::new(AtomicBool::new(false));
    let (topic, flag, noted) = (input.clone(), failed.clone(), sent.clone());
    let sending = thread::spawn(move || {
        let result = pace(&producer, &topic, bids, events, rate, &noted);
        flag.store(result.is_err(), Ordering::Release);
        result
    });
    while (delays.len() as u64) < events && !failed.load(Ordering::Acquire) {
        let next = delays.len() + 1;
        receive(&reader, &sent, next, &mut delays)?;
    }
    sending
        .join()
        .map_err(|_| anyhow!("the producer panicked"))??;
    kafka.delete_topic(&input)?;
    kafka.delete_topic(&output)?;
    Delays::of(delays, plan)
}

/// A reader of all partitions from their beginning.
///
/// # Errors
/// The client cannot be made.
pub fn reader(kafka: &KafkaTools, topic: &str, partitions: u32) -> Result<BaseConsumer> {
    let consumer: BaseConsumer = kafka
        .client()
        .set("group.id", "millstream-bench-latency")
        .set("enable.auto.commit", "false")
        .set("isolation.level", "read_committed")
        .set("fetch.wait.max.ms", "10")
        .create()?;
    let mut list = TopicPartitionList::new();
    for partition in 0..i32::try_from(partitions)? {
        list.add_partition_offset(topic, partition, Offset::Beginning)?;
    }
    consumer.assign(&list)?;
    Ok(consumer)
}

/// Reads until so many delays are known, in microseconds.
fn receive(reader: &BaseConsumer, sent: &Sent, until: usize, delays: &mut Vec<u64>) -> Result<()> {
    let deadline = Deadline::after(PATIENCE);
    while delays.len() < until {
        if let Some(message) = reader.poll(Duration::from_millis(100)) {
            let message = message?;
            let number = number(message.payload().unwrap_or_default()).context("no bid")?;
            delays.push(sent.since(number)?);
        }
        ensure!(
            !deadline.passed(),
            "nothing comes after {} events",
            delays.len()
        );
    }
    Ok(())
}

fn pace(
    producer: &BaseProducer,
    topic: &str,
    mut bids: Bids,
    events: u64,
    rate: u64,
    noted: &Sent,
) -> Result<()> {
    let begun = Instant::now();
    let mut done = 0;
    while done < events {
        let due = (begun.elapsed().as_secs_f64() * rate as f64) as u64;
        let count = due.min(events) - done;
        send(producer, topic, &mut bids, count, noted)?;
        done += count;
        producer.poll(STEP);
    }
    producer
        .flush(PATIENCE)
        .context("the input was not written")
}

fn send(
    producer: &BaseProducer,
    topic: &str,
    bids: &mut Bids,
    count: u64,
    noted: &Sent,
) -> Result<()> {
    let mut json = Vec::new();
    for bid in bids.take(usize::try_from(count)?) {
        json.clear();
        bid.write(&mut json);
        let key = bid.key();
        let number = number(&json).context("no number")?;
        noted.note(number, noted.now())?;
        let mut record = BaseRecord::to(topic).key(&key).payload(&json);
        while let Err((error, unsent)) = producer.send(record) {
            let full = RDKafkaErrorCode::QueueFull;
            ensure!(error.rdkafka_error_code() == Some(full), "{error}");
            producer.poll(STEP);
            record = unsent;
        }
    }
    producer.poll(Duration::ZERO);
    Ok(())
}
