//! Reads what comes out while it comes: how long each event took, and when a version showed first.
//!
//! It reads the large orders, which are one line in twenty-five: a reader of all would take what the
//! runtime is to have. A derived event has the timestamp of its source.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Result, anyhow, ensure};
use millstream_test_support::kafka_tools::KafkaTools;
use millstream_test_support::process;
use rdkafka::consumer::Consumer;
use rdkafka::message::Message;
use serde::Deserialize;
use tokio::time::Instant;

use super::delays::{Delays, now_ms};
use super::feeder::{End, Way, rest};
use super::stage::version_of;
use crate::latency::kafka::reader;

/// Between two looks at the embedded broker.
const STEP: Duration = Duration::from_millis(4);
/// Events of one look.
const LOOK: usize = 10_000;

/// See the module.
pub struct Watcher {
    seen: Arc<Mutex<Seen>>,
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Result<()>>,
}

#[derive(Default)]
struct Seen {
    delays: Vec<i64>,
    /// When the first event of each version was seen.
    first: HashMap<usize, Instant>,
}

impl Seen {
    fn add(&mut self, timestamp_ms: i64, value: &[u8]) -> Result<()> {
        self.delays.push(now_ms()? - timestamp_ms);
        if let Some(version) = version_of(value) {
            self.first.entry(version).or_insert_with(Instant::now);
        }
        Ok(())
    }
}

impl Watcher {
    /// Begins at the beginning.
    ///
    /// # Errors
    /// No reader is to be had.
    pub fn start(way: Way) -> Result<Self> {
        let seen = Arc::new(Mutex::new(Seen::default()));
        let stop = Arc::new(AtomicBool::new(false));
        let (shared, stopped) = (seen.clone(), stop.clone());
        let thread = match way.end {
            End::Kafka(tools) => thread::spawn(move || kafka(&tools, &shared, &stopped)),
            End::Embedded(admin) => thread::spawn(move || embedded(&admin, &shared, &stopped)),
        };
        Ok(Self { seen, stop, thread })
    }

    /// The delays that were seen since the last time.
    pub fn take(&self) -> Delays {
        Delays::of(std::mem::take(&mut locked(&self.seen).delays))
    }

    /// When the first event of a version was seen.
    pub fn first(&self, version: usize) -> Option<Instant> {
        locked(&self.seen).first.get(&version).copied()
    }

    /// Ends it.
    ///
    /// # Errors
    /// It failed on its way.
    pub fn finish(self) -> Result<()> {
        self.stop.store(true, Ordering::Release);
        let ended = self.thread.join();
        ended.map_err(|_| anyhow!("the watcher panicked"))?
    }
}

fn locked(seen: &Mutex<Seen>) -> MutexGuard<'_, Seen> {
    seen.lock().unwrap_or_else(PoisonError::into_inner)
}

fn kafka(tools: &KafkaTools, seen: &Mutex<Seen>, stop: &AtomicBool) -> Result<()> {
    let reader = reader(tools, "large", 1)?;
    while !stop.load(Ordering::Acquire) {
        let Some(message) = reader.poll(Duration::from_millis(100)) else {
            continue;
        };
        let message = message?;
        let timestamp = message.timestamp().to_millis().unwrap_or_default();
        locked(seen).add(timestamp, message.payload().unwrap_or_default())?;
    }
    reader.unassign()?;
    Ok(())
}

#[derive(Deserialize)]
struct Event {
    offset: u64,
    timestamp: i64,
    value: String,
}

fn embedded(admin: &str, seen: &Mutex<Seen>, stop: &AtomicBool) -> Result<()> {
    let mut next = 0;
    while !stop.load(Ordering::Acquire) {
        let path = format!("/topics/large?partition=0&from={next}&count={LOOK}");
        let (status, lines) = process::get(admin, &path)?;
        ensure!(status == 200, "{status}: {lines}");
        for line in lines.lines() {
            let event: Event = serde_json::from_str(line)?;
            locked(seen).add(event.timestamp, event.value.as_bytes())?;
            next = event.offset + 1;
        }
        rest(STEP);
    }
    Ok(())
}
