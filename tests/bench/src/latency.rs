//! How long an event takes from its producer to a reader of what is derived from it.
//!
//! ```text
//! producer, so many a second ─▶ input ─▶ contender ─▶ output ─▶ reader: now − when this bid was sent
//!      └ notes when               └───── straight through Kafka ──────▶┘
//! ```
//! One clock: producer and reader are threads of this process, and a bid says which one it is.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};
use millstream_test_support::kafka_tools::KafkaTools;
use millstream_test_support::wait::Deadline;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::Message;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::types::RDKafkaErrorCode;
use rdkafka::{Offset, TopicPartitionList};
use serde::Serialize;
use tokio::time::Instant;

use crate::bid::{Bids, number};
use crate::contender::{Contender, Job};
use crate::workload::Workload;

/// How long events may take altogether.
const PATIENCE: Duration = Duration::from_secs(60);
/// What is sent before anything counts: clients, caches and the plugin become warm.
const WARM_UP: Duration = Duration::from_secs(5);
/// How often the producer sends what is due.
const STEP: Duration = Duration::from_millis(1);

/// What is measured.
pub struct Plan<'a> {
    /// `None`: straight through Kafka.
    pub contender: Option<Contender>,
    pub topic: String,
    pub partitions: u32,
    /// Events a second.
    pub rate: u32,
    pub seconds: u32,
    pub seed: u64,
    pub folder: &'a Path,
}

/// How long events took, in milliseconds.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Delays {
    pub p50: f64,
    pub p99: f64,
    pub p999: f64,
    pub max: f64,
}

impl Delays {
    /// Of microseconds in order.
    fn of(delays: &[u64]) -> Self {
        let at = |quantile: f64| {
            let last = delays.len().saturating_sub(1);
            let index = (last as f64 * quantile).round() as usize;
            delays.get(index).copied().unwrap_or_default() as f64 / 1000.0
        };
        Self {
            p50: at(0.5),
            p99: at(0.99),
            p999: at(0.999),
            max: at(1.0),
        }
    }
}

/// When each bid was sent, in microseconds since `begun`.
struct Sent {
    begun: Instant,
    at: Vec<AtomicU64>,
}

impl Sent {
    fn now(&self) -> u64 {
        u64::try_from(self.begun.elapsed().as_micros()).unwrap_or(u64::MAX)
    }
}

/// Sends events at a steady rate and reads what comes out.
///
/// # Errors
/// The contender cannot be started, or not every event comes out.
pub fn measure(kafka: &KafkaTools, bootstrap: &str, plan: &Plan<'_>) -> Result<Delays> {
    let (input, output) = (format!("{}-in", plan.topic), format!("{}-out", plan.topic));
    kafka.create_topic(&input, plan.partitions)?;
    kafka.create_topic(&output, plan.partitions)?;
    let rate = u64::from(plan.rate);
    let warm_up = rate * WARM_UP.as_secs();
    let events = warm_up + rate * u64::from(plan.seconds);
    let job = Job {
        workload: Workload::Q0,
        bootstrap,
        groups: vec![plan.topic.clone()],
        input: &input,
        output: &output,
        partitions: plan.partitions,
        // More than come: it goes on until it is ended.
        events: u64::MAX,
        seed: plan.seed,
        folder: plan.folder,
    };
    let start = |contender: Contender| contender.start(&job, contender.launch(&job)?);
    let _process = plan.contender.map(start).transpose()?;
    let read = plan.contender.map_or(&input, |_| &output);
    let reader = reader(kafka, read, plan.partitions)?;
    let producer: BaseProducer = kafka
        .client()
        .set("enable.idempotence", "true")
        .set("partitioner", "murmur2_random")
        .set("linger.ms", "1")
        .create()?;

    // An event must have passed before the rate begins: starting up is not what is measured.
    let mut bids = Bids::new(plan.seed, events + 1);
    let sent = Arc::new(Sent {
        begun: Instant::now(),
        at: (0..=events).map(|_| AtomicU64::new(0)).collect(),
    });
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
    let mut counted = delays.split_off(usize::try_from(warm_up)?);
    counted.sort_unstable();
    kafka.delete_topic(&input)?;
    kafka.delete_topic(&output)?;
    Ok(Delays::of(&counted))
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
            let now = sent.now();
            let number = number(message.payload().unwrap_or_default()).context("no bid")?;
            let at = sent.at.get(usize::try_from(number)?).context("not sent")?;
            delays.push(now.saturating_sub(at.load(Ordering::Acquire)));
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
        let at = noted.at.get(usize::try_from(number)?).context("too many")?;
        at.store(noted.now(), Ordering::Release);
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

#[cfg(test)]
mod tests {
    use super::*;

    /// An index that is off by one would take the worst delay for the 99th percentile of few.
    #[test]
    fn a_quantile_is_what_this_part_of_all_did_not_exceed() {
        let delays: Vec<u64> = (1..=101).map(|n| n * 1000).collect();
        let delays = Delays::of(&delays);
        let shown = [delays.p50, delays.p99, delays.max];
        assert_eq!(shown.map(|ms| ms.round() as u64), [51, 100, 101]);
    }
}
