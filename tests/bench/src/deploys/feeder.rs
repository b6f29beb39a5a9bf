//! Order lines at a steady rate, into either broker.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};
use millstream_test_support::kafka_tools::KafkaTools;
use millstream_test_support::process::post_lines;
use millstream_test_support::{retail, workspace};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::types::RDKafkaErrorCode;
use serde::Deserialize;
use tokio::time::Instant;

use super::delays::now_ms;

/// Between two looks at what is due.
const STEP: Duration = Duration::from_millis(2);
/// Events of one request to the embedded broker at most.
const REQUEST: usize = 5_000;

/// How events come in and go out.
#[derive(Clone)]
pub struct Way {
    pub end: End,
    lines: Arc<Vec<Line>>,
}

/// Who takes and gives them.
#[derive(Clone)]
pub enum End {
    Kafka(KafkaTools),
    /// `host:port` of the runtime.
    Embedded(String),
}

/// An order line by its article.
struct Line {
    key: String,
    value: String,
    /// Both as a line of JSON, as the runtime takes it.
    json: String,
}

#[derive(Deserialize)]
struct Sku {
    sku: String,
}

impl Way {
    /// Into a Kafka.
    ///
    /// # Errors
    /// There are no order lines.
    pub fn kafka(tools: KafkaTools) -> Result<Self> {
        Self::new(End::Kafka(tools))
    }

    /// Into the runtime that listens at this address.
    ///
    /// # Errors
    /// There are no order lines.
    pub fn embedded(admin: String) -> Result<Self> {
        Self::new(End::Embedded(admin))
    }

    fn new(end: End) -> Result<Self> {
        let sample = workspace::root().join(retail::sample()?);
        let text = std::fs::read_to_string(&sample)
            .with_context(|| format!("cannot read {}", sample.display()))?;
        let line = |line: &str| -> Result<Line> {
            let key = serde_json::from_str::<Sku>(line)?.sku;
            let json = serde_json::json!({ "key": key, "value": line });
            Ok(Line {
                key,
                value: line.to_owned(),
                json: format!("{json}\n"),
            })
        };
        let lines = text.lines().map(line).collect::<Result<Vec<_>>>()?;
        ensure!(!lines.is_empty(), "the sample is empty");
        Ok(Self {
            end,
            lines: Arc::new(lines),
        })
    }

    /// Writes so many events, as fast as they are taken.
    ///
    /// # Errors
    /// The broker does not take one.
    pub fn fill(&self, events: u64) -> Result<()> {
        let mut pen = self.pen(0)?;
        pen.write(events)?;
        pen.end()
    }

    fn pen(&self, from: u64) -> Result<Pen> {
        let producer = match &self.end {
            End::Kafka(tools) => Some(
                tools
                    .client()
                    .set("enable.idempotence", "true")
                    .set("partitioner", "murmur2_random")
                    .set("linger.ms", "1")
                    .create()?,
            ),
            End::Embedded(_) => None,
        };
        Ok(Pen {
            way: self.clone(),
            producer,
            next: usize::try_from(from)?,
        })
    }
}

/// What writes events, one after the other.
struct Pen {
    way: Way,
    producer: Option<BaseProducer>,
    next: usize,
}

impl Pen {
    fn write(&mut self, events: u64) -> Result<()> {
        let mut left = usize::try_from(events)?;
        let end = self.way.end.clone();
        match (&end, &self.producer) {
            (End::Embedded(admin), _) => {
                while left > 0 {
                    let count = left.min(REQUEST);
                    let body: String = self.take(count).map(|line| line.json.as_str()).collect();
                    let (status, said) = post_lines(admin, "/topics/lines", &body)?;
                    ensure!(status == 200, "{status}: {said}");
                    self.next += count;
                    left -= count;
                }
            }
            (End::Kafka(_), Some(producer)) => {
                for line in self.take(left) {
                    let mut record = BaseRecord::to("lines")
                        .key(&line.key)
                        .payload(&line.value)
                        .timestamp(now_ms()?);
                    while let Err((error, unsent)) = producer.send(record) {
                        let full = error.rdkafka_error_code() == Some(RDKafkaErrorCode::QueueFull);
                        ensure!(full, "{error}");
                        producer.poll(STEP);
                        record = unsent;
                    }
                }
                producer.poll(Duration::ZERO);
                self.next += left;
            }
            (End::Kafka(_), None) => {}
        }
        Ok(())
    }

    fn take(&self, count: usize) -> impl Iterator<Item = &Line> {
        let lines = &self.way.lines;
        (self.next..self.next + count).map(|at| &lines[at % lines.len()])
    }

    fn end(self) -> Result<()> {
        if let Some(producer) = &self.producer {
            let flushed = producer.flush(Duration::from_secs(120));
            flushed.context("what was fed was not written")?;
        }
        Ok(())
    }
}

/// Feeds on a thread of its own.
pub struct Feeder {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Result<u64>>,
}

impl Feeder {
    /// So many events a second, behind `fed` that were fed before.
    pub fn start(way: Way, fed: u64, rate: f64) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let thread = thread::spawn(move || {
            let mut pen = way.pen(fed)?;
            let begun = Instant::now();
            let mut sent = 0;
            while !stopped.load(Ordering::Acquire) {
                let due = (begun.elapsed().as_secs_f64() * rate) as u64;
                if due > sent {
                    pen.write(due - sent)?;
                    sent = due;
                }
                rest(STEP);
            }
            pen.end()?;
            Ok(fed + sent)
        });
        Self { stop, thread }
    }

    /// Stops, and says how many there are with those before.
    ///
    /// # Errors
    /// The broker did not take one.
    pub fn finish(self) -> Result<u64> {
        self.stop.store(true, Ordering::Release);
        let fed = self.thread.join();
        fed.map_err(|_| anyhow!("the feeder panicked"))?
    }
}

/// Leaves the processor to others.
#[expect(
    clippy::disallowed_methods,
    reason = "a steady rate and short looks from a thread of their own"
)]
pub fn rest(time: Duration) {
    thread::sleep(time);
}
