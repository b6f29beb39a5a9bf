//! The bound: a bare librdkafka loop on one thread, as tight as it can be. At least once, as its
//! rival: positions are committed after what was derived before them is acknowledged.
//!
//! ```text
//! consume_batch ─▶ transform into one arena ─▶ produce_batch ─▶ poll ─▶ commit what is delivered
//! ```

use std::borrow::Cow;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::Args;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use crate::deliveries::Epochs;
use crate::librdkafka::{Message, Reader, Writer};
use crate::query::Query;

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
    #[arg(long)]
    pub group: String,
    #[arg(long)]
    pub input: String,
    #[arg(long)]
    pub output: String,
    #[arg(long)]
    pub partitions: usize,
    /// Ends once as many events are committed.
    #[arg(long)]
    pub events: u64,
    #[arg(long, value_enum)]
    pub query: Query,
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

/// Runs the loop to its end.
///
/// # Errors
/// The broker fails, or an event is no bid.
pub fn run(task: &Task) -> Result<()> {
    let common = ("bootstrap.servers", task.bootstrap.as_str());
    let mut reader = Reader::new(
        &[
            common,
            ("group.id", &task.group),
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
            match task.query {
                Query::Q0 => writer.write(epoch, batch.iter().map(|m| (m.key, m.value)))?,
                Query::Q22 => {
                    arena.clear();
                    ends.clear();
                    for message in batch.iter() {
                        split(message, &mut arena)?;
                        ends.push(arena.len());
                    }
                    let starts = std::iter::once(0).chain(ends.iter().copied());
                    let values = starts.zip(&ends).map(|(start, end)| &arena[start..*end]);
                    writer.write(epoch, batch.iter().map(|m| m.key).zip(values))?;
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

/// Commits what is delivered; true where nothing waits any more.
fn commit(epochs: &mut Epochs, writer: &Writer, reader: &Reader, wait: bool) -> Result<bool> {
    if let Some(positions) = epochs.delivered(writer.deliveries()) {
        reader.commit(&positions, wait)?;
    }
    Ok(epochs.empty())
}

fn split(message: Message<'_>, arena: &mut Vec<u8>) -> Result<()> {
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
    Ok(())
}
