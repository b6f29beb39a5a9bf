//! The bound: a bare librdkafka loop on one thread, as tight as it can be. At least once, as its
//! rival: positions are committed after what was derived before them is acknowledged.
//!
//! ```text
//! consume_batch ─▶ transform into one arena ─▶ produce_batch ─▶ poll ─▶ commit what is delivered
//! ```

use std::borrow::Cow;
use std::ffi::CString;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use clap::Args;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use crate::contender::{Job, Launch};
use crate::deliveries::Epochs;
use crate::input::CLASS;
use crate::librdkafka::{Message, Reader, Writer};
use crate::order;
use crate::workload::{CLASSES, Step, WANTED, Workload};

/// Messages read at once.
const BATCH: usize = 1000;
/// The cadence of commits: the runtime's defaults.
const COMMIT_EVERY: Duration = Duration::from_millis(100);
const COMMIT_EVENTS: u64 = 10_000;

/// What the loop is told.
#[derive(Args, Clone, Debug)]
pub struct Task {
    #[arg(long)]
    pub bootstrap: String,
    /// Each named group gets a loop of its own.
    #[arg(long = "group", required = true)]
    pub groups: Vec<String>,
    #[arg(long)]
    pub input: String,
    #[arg(long)]
    pub output: String,
    #[arg(long)]
    pub partitions: usize,
    /// A loop ends once as many events are committed.
    #[arg(long)]
    pub events: u64,
    #[arg(long, value_enum)]
    pub workload: Workload,
    /// Each record gets headers as the runtime's have them.
    #[arg(long)]
    pub headers: bool,
}

/// What q22 needs of a bid.
#[derive(Deserialize)]
struct Bid<'a> {
    auction: u64,
    bidder: u64,
    price: u64,
    #[serde(borrow)]
    channel: Cow<'a, str>,
    #[serde(borrow)]
    url: Cow<'a, str>,
}

/// What q22 writes.
#[derive(Serialize)]
struct Split<'a> {
    auction: u64,
    bidder: u64,
    price: u64,
    channel: &'a str,
    dir1: &'a str,
    dir2: &'a str,
    dir3: &'a str,
}

/// What the filter needs of a bid.
#[derive(Deserialize)]
struct Bidder {
    bidder: u64,
}

/// The library that it is a loop of.
pub fn version() -> String {
    format!("librdkafka {}", rdkafka::util::get_rdkafka_version().1)
}

/// How it is started: this program, by its hidden command.
///
/// # Errors
/// The path of this program is not known.
pub fn launch(job: &Job<'_>, headers: bool) -> Result<Launch> {
    let (partitions, events) = (job.partitions.to_string(), job.events.to_string());
    let named = [
        ("--bootstrap", job.bootstrap),
        ("--input", job.input),
        ("--output", job.output),
        ("--partitions", &partitions),
        ("--events", &events),
        ("--workload", job.workload.name()),
    ];
    let groups = job.groups.iter().map(|group| ("--group", group.as_str()));
    let options = named.into_iter().chain(groups);
    let arguments = options.flat_map(|(name, value)| [name.to_owned(), value.to_owned()]);
    Ok(Launch {
        program: std::env::current_exe()?,
        arguments: std::iter::once("bound".to_owned())
            .chain(arguments)
            .chain(headers.then(|| "--headers".to_owned()))
            .collect(),
        environment: Vec::new(),
        admin: None,
    })
}

/// Runs the loops to their end.
///
/// # Errors
/// The broker fails, or an event is no bid.
pub fn run(task: &Task) -> Result<()> {
    if let [group] = &*task.groups {
        return repeat(task, group);
    }
    thread::scope(|threads| {
        let mut loops = Vec::new();
        for group in &task.groups {
            loops.push(threads.spawn(move || repeat(task, group)));
        }
        loops
            .into_iter()
            .try_for_each(|one| one.join().map_err(|_| anyhow!("a loop panicked"))?)
    })
}

fn repeat(task: &Task, group: &str) -> Result<()> {
    let common = ("bootstrap.servers", task.bootstrap.as_str());
    let mut reader = Reader::new(
        &[
            common,
            ("group.id", group),
            ("enable.auto.commit", "false"),
            ("enable.auto.offset.store", "false"),
            ("auto.offset.reset", "earliest"),
            ("fetch.queue.backoff.ms", "5"),
        ],
        &task.input,
        BATCH,
    )?;
    let mut writer = Writer::new(
        &[
            common,
            ("enable.idempotence", "true"),
            ("acks", "all"),
            ("partitioner", "murmur2_random"),
        ],
        &task.output,
    )?;

    let (header, wanted) = (CString::new(CLASS)?, WANTED.to_string());
    let mut arena = Vec::with_capacity(BATCH * 256);
    let mut ends = Vec::with_capacity(BATCH);
    let mut positions = vec![-1; task.partitions];
    let mut epochs = Epochs::default();
    let mut epoch = 0;
    let (mut done, mut in_epoch) = (0, 0);
    let mut closed_at = Instant::now();
    loop {
        let batch = reader.next(5)?;
        let count = batch.len();
        if count > 0 {
            for message in batch.iter() {
                let partition = usize::try_from(message.partition)?;
                let position = positions.get_mut(partition).context("a new partition")?;
                *position = message.offset + 1;
            }
            match task.workload.step() {
                Step::Pass => {
                    write(&mut writer, task, epoch, batch.iter().map(|m| (m, m.value)))?;
                }
                step @ (Step::Split | Step::Enrich) => {
                    arena.clear();
                    ends.clear();
                    let mut from = Vec::with_capacity(BATCH);
                    for message in batch.iter() {
                        let made = match step {
                            Step::Split => split(message, &mut arena)?,
                            _ => order::enrich(message.value, &mut arena)?,
                        };
                        if made {
                            from.push(message);
                            ends.push(arena.len());
                        }
                    }
                    let starts = std::iter::once(0).chain(ends.iter().copied());
                    let values = starts.zip(&ends).map(|(start, end)| &arena[start..*end]);
                    write(&mut writer, task, epoch, from.into_iter().zip(values))?;
                }
                step @ (Step::ByHeader | Step::ByValue) => {
                    let mut kept = Vec::new();
                    for message in batch.iter() {
                        let keep = match step {
                            Step::ByHeader => message.header(&header) == Some(wanted.as_bytes()),
                            _ => bidder(message)? % CLASSES == WANTED,
                        };
                        if keep {
                            kept.push((message, message.value));
                        }
                    }
                    write(&mut writer, task, epoch, kept.into_iter())?;
                }
            }
        }
        drop(batch);
        done += count as u64;
        in_epoch += count as u64;
        writer.poll(0)?;

        let due = in_epoch >= COMMIT_EVENTS || closed_at.elapsed() >= COMMIT_EVERY;
        if in_epoch > 0 && (due || done == task.events) {
            while epochs.full() {
                writer.poll(10)?;
                commit(&mut epochs, &writer, &reader, false)?;
            }
            epochs.close(epoch, &positions);
            epoch += 1;
            in_epoch = 0;
            closed_at = Instant::now();
        }
        let last = done == task.events;
        let mut committed = commit(&mut epochs, &writer, &reader, last)?;
        if last {
            while !committed {
                writer.poll(10)?;
                committed = commit(&mut epochs, &writer, &reader, true)?;
            }
            return Ok(());
        }
    }
}

fn write<'a>(
    writer: &mut Writer,
    task: &Task,
    epoch: usize,
    records: impl Iterator<Item = (Message<'a>, &'a [u8])>,
) -> Result<()> {
    match task.headers {
        true => writer.write_derived(epoch, &task.input, records),
        false => writer.write(epoch, records.map(|(message, value)| (message.key, value))),
    }
}

/// Commits what is delivered; true where nothing waits any more.
fn commit(epochs: &mut Epochs, writer: &Writer, reader: &Reader, wait: bool) -> Result<bool> {
    if let Some(positions) = epochs.delivered(writer.deliveries()) {
        reader.commit(&positions, wait)?;
    }
    Ok(epochs.empty())
}

fn bidder(message: Message<'_>) -> Result<u64> {
    let bid: Bidder = serde_json::from_slice(message.value).context("an event is no bid")?;
    Ok(bid.bidder)
}

fn split(message: Message<'_>, arena: &mut Vec<u8>) -> Result<bool> {
    let bid: Bid<'_> = serde_json::from_slice(message.value).context("an event is no bid")?;
    let mut parts = bid.url.split('/').skip(3);
    let mut part = || parts.next().unwrap_or_default();
    let split = Split {
        auction: bid.auction,
        bidder: bid.bidder,
        price: bid.price,
        channel: &bid.channel,
        dir1: part(),
        dir2: part(),
        dir3: part(),
    };
    serde_json::to_writer(arena, &split)?;
    Ok(true)
}
