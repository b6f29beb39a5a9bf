//! How long an event takes from its producer to a reader of what is derived from it.
//!
//! ```text
//! producer, so many a second ─▶ input ─▶ contender ─▶ output ─▶ reader: now − the record's timestamp
//!                                 └───── straight through Kafka ──────────▶┘
//! ```
//! One clock: producer and reader are threads of this process, and a derived event inherits the
//! timestamp of its source, which is when that was handed to the producer, in milliseconds.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, anyhow, ensure};
use millstream_test_support::kafka_tools::KafkaTools;
use millstream_test_support::wait::Deadline;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::Message;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::{Offset, TopicPartitionList};
use tokio::time::Instant;

use crate::bid::Bids;
use crate::contender::{Contender, Job};
use crate::query::Query;

/// How long events may take altogether.
const PATIENCE: Duration = Duration::from_secs(60);
/// What is sent before anything counts: clients, caches and the plugin become warm.
const WARM_UP: Duration = Duration::from_secs(3);
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
    /// See [`Job::properties`].
    pub properties: &'a [String],
}

/// How long events took, in milliseconds, in order.
pub struct Delays(Vec<i64>);

impl Delays {
    /// Of these, in any order.
    pub fn of(mut delays: Vec<i64>) -> Self {
        delays.sort_unstable();
        Self(delays)
    }

    /// The delay that this part of all events did not exceed.
    pub fn at(&self, quantile: f64) -> i64 {
        let last = self.0.len().saturating_sub(1);
        let index = (last as f64 * quantile).round() as usize;
        self.0.get(index).copied().unwrap_or_default()
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
    let warm_up = u64::from(plan.rate) * WARM_UP.as_secs();
    let events = warm_up + u64::from(plan.rate) * u64::from(plan.seconds);
    let job = Job {
        query: Query::Q0,
        bootstrap,
        group: &plan.topic,
        input: &input,
        output: &output,
        partitions: plan.partitions.try_into()?,
        events,
        folder: plan.folder,
        properties: plan.properties,
    };
    let _process = plan
        .contender
        .map(|contender| contender.serve(&job))
        .transpose()?;
    let read = if plan.contender.is_some() {
        &output
    } else {
        &input
    };
    let reader = reader(kafka, read, plan.partitions)?;
    let producer: BaseProducer = kafka
        .client()
        .set("enable.idempotence", "true")
        .set("partitioner", "murmur2_random")
        .set("linger.ms", "1")
        .create()?;

    // An event must have passed before the rate begins: starting up is not what is measured.
    let mut bids = Bids::new(plan.seed, events + 1);
    send(&producer, &input, &mut bids, 1)?;
    let mut seen = 0;
    let mut delays = Vec::new();
    receive(&reader, 1, &mut seen, &mut delays)?;
    delays.clear();

    let failed = Arc::new(AtomicBool::new(false));
    let (rate, topic, flag) = (plan.rate, input.clone(), failed.clone());
    let sending = thread::spawn(move || {
        let result = pace(&producer, &topic, bids, events, rate);
        flag.store(result.is_err(), Ordering::Release);
        result
    });
    while seen <= events && !failed.load(Ordering::Acquire) {
        receive(&reader, seen + 1, &mut seen, &mut delays)?;
    }
    sending
        .join()
        .map_err(|_| anyhow!("the producer panicked"))??;
    ensure!(
        seen == events + 1,
        "{seen} events came out of {}",
        events + 1
    );
    let counted = delays.split_off(usize::try_from(warm_up)?);
    Ok(Delays::of(counted))
}

/// A reader of committed events from the beginning of a topic.
///
/// # Errors
/// No client can be made.
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

/// Reads until so many events were seen.
fn receive(reader: &BaseConsumer, until: u64, seen: &mut u64, delays: &mut Vec<i64>) -> Result<()> {
    let deadline = Deadline::after(PATIENCE);
    while *seen < until {
        if let Some(message) = reader.poll(Duration::from_millis(100)) {
            let message = message?;
            let made = message
                .timestamp()
                .to_millis()
                .context("a record without a timestamp")?;
            delays.push(now_ms()? - made);
            *seen += 1;
        }
        ensure!(!deadline.passed(), "nothing comes after {seen} events");
    }
    Ok(())
}

fn pace(
    producer: &BaseProducer,
    topic: &str,
    mut bids: Bids,
    events: u64,
    rate: u32,
) -> Result<()> {
    let begun = Instant::now();
    let mut sent = 0;
    while sent < events {
        let due = (begun.elapsed().as_secs_f64() * f64::from(rate)) as u64;
        let count = due.min(events) - sent;
        send(producer, topic, &mut bids, count)?;
        sent += count;
        producer.poll(STEP);
    }
    producer
        .flush(PATIENCE)
        .context("the input was not written")
}

fn send(producer: &BaseProducer, topic: &str, bids: &mut Bids, count: u64) -> Result<()> {
    let mut json = Vec::new();
    for bid in bids.take(usize::try_from(count)?) {
        json.clear();
        bid.write(&mut json);
        let key = bid.key();
        let record = BaseRecord::to(topic)
            .key(&key)
            .payload(&json)
            .timestamp(now_ms()?);
        producer.send(record).map_err(|(error, _)| error)?;
    }
    producer.poll(Duration::ZERO);
    Ok(())
}

/// Milliseconds since 1970-01-01 UTC.
///
/// # Errors
/// The clock of the machine stands before that.
#[expect(
    clippy::disallowed_methods,
    reason = "what is measured is the time of the wall"
)]
pub fn now_ms() -> Result<i64> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?;
    Ok(i64::try_from(now.as_millis())?)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An index that is off by one would take the worst delay for the 99th percentile of few.
    #[test]
    fn a_quantile_is_what_this_part_of_all_did_not_exceed() {
        let delays = Delays((1..=101).collect());
        assert_eq!(delays.at(0.0), 1);
        assert_eq!(delays.at(0.5), 51);
        assert_eq!(delays.at(0.99), 100);
        assert_eq!(delays.at(1.0), 101);
    }
}
