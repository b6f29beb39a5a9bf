//! All figures of one consumer, written under one lock.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use super::histogram::{BATCHES, DURATIONS, Histogram, LATENCIES};
use crate::consumer::dead_letter::Reason;
use crate::decide::admission::Load;
use crate::decide::breaker::Phase;
use crate::event::TopicPartition;
use crate::plugin::HttpResult;

/// How an admitted event ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    Ok,
    Filtered,
    Dropped,
    DeadLettered,
    /// Revoked, shut down or read again: not settled by us.
    Abandoned,
}

pub(super) const OUTCOMES: [&str; 5] = ["ok", "filtered", "dropped", "dead_lettered", "abandoned"];
pub(super) const FAILURES: [&str; 7] = [
    "retry",
    "unavailable",
    "reject",
    "trap",
    "deadline",
    "memory",
    "invalid",
];
pub(super) const REBALANCES: [&str; 3] = ["assigned", "revoked", "lost"];

/// Events with their bytes, counted up.
#[derive(Clone, Copy, Debug, Default)]
pub struct Volume {
    pub events: u64,
    pub bytes: u64,
}

/// A partition's distance from its end.
#[derive(Clone, Copy, Debug, Default)]
pub struct Lag {
    pub events: u64,
}

/// All figures of one consumer.
#[derive(Debug)]
pub struct Ledger {
    pub consumed: BTreeMap<Arc<str>, Volume>,
    pub(super) settled: [u64; 5],
    /// By output.
    pub produced: BTreeMap<Arc<str>, Volume>,
    /// By topic and reason.
    pub skipped: BTreeMap<(Arc<str>, &'static str), u64>,
    pub(super) failures: [u64; 7],
    pub retries: u64,
    pub(super) dead_letters: BTreeMap<Reason, u64>,
    pub instantiations_ok: u64,
    pub instantiations_failed: u64,
    pub commits_ok: u64,
    pub commits_failed: u64,
    pub(super) rebalances: [u64; 3],
    pub paused_for_backpressure: Duration,
    pub paused_for_breaker: Duration,
    pub paused_for_operator: Duration,
    pub breaker: Phase,
    /// By [`Phase::ALL`].
    pub breaker_transitions: [u64; 3],
    pub deploys_ok: u64,
    pub deploys_failed: u64,
    pub deploys_rolled_back: u64,
    pub log_entries_dropped: u64,
    /// By [`HttpResult::ALL`].
    pub(super) http_requests: [u64; HttpResult::ALL.len()],
    pub call_duration: Histogram,
    pub processing: Histogram,
    pub latency: Histogram,
    pub commit_duration: Histogram,
    pub batch_events: Histogram,
    pub init_duration: Histogram,
    pub lag: BTreeMap<TopicPartition, Lag>,
    /// Age of the oldest unsettled event by topic, in seconds.
    pub lag_seconds: BTreeMap<Arc<str>, f64>,
    /// Timestamp of the newest settled event by topic, in seconds since 1970-01-01 UTC.
    pub last_settled: BTreeMap<Arc<str>, f64>,
    pub in_flight: Load,
    pub assigned_partitions: u64,
    pub halted_partitions: u64,
    pub instances: u64,
    pub memory_bytes: u64,
    pub memory_limit_bytes: u64,
    pub digest: Arc<str>,
    pub generation: u64,
    /// What was done by hand and holds: `deploy`, `rollback`, `pause`.
    pub overrides: Vec<String>,
    /// Whether what runs is not what the configuration names.
    pub drift: bool,
}

impl Ledger {
    pub(super) fn new() -> Self {
        Self {
            consumed: BTreeMap::new(),
            settled: [0; 5],
            produced: BTreeMap::new(),
            skipped: BTreeMap::new(),
            failures: [0; 7],
            retries: 0,
            dead_letters: BTreeMap::new(),
            instantiations_ok: 0,
            instantiations_failed: 0,
            commits_ok: 0,
            commits_failed: 0,
            rebalances: [0; 3],
            paused_for_backpressure: Duration::ZERO,
            paused_for_breaker: Duration::ZERO,
            paused_for_operator: Duration::ZERO,
            breaker: Phase::Closed,
            breaker_transitions: [0; 3],
            deploys_ok: 0,
            deploys_failed: 0,
            deploys_rolled_back: 0,
            log_entries_dropped: 0,
            http_requests: [0; HttpResult::ALL.len()],
            call_duration: Histogram::new(DURATIONS),
            processing: Histogram::new(LATENCIES),
            latency: Histogram::new(LATENCIES),
            commit_duration: Histogram::new(DURATIONS),
            batch_events: Histogram::new(BATCHES),
            init_duration: Histogram::new(DURATIONS),
            lag: BTreeMap::new(),
            lag_seconds: BTreeMap::new(),
            last_settled: BTreeMap::new(),
            in_flight: Load::default(),
            assigned_partitions: 0,
            halted_partitions: 0,
            instances: 0,
            memory_bytes: 0,
            memory_limit_bytes: 0,
            digest: "".into(),
            generation: 0,
            overrides: Vec::new(),
            drift: false,
        }
    }

    /// Events of `topic` were admitted: they are in flight from now on.
    pub fn admitted(&mut self, topic: &Arc<str>, load: Load) {
        let volume = self.consumed.entry(topic.clone()).or_default();
        volume.events += load.events as u64;
        volume.bytes += load.bytes as u64;
        self.in_flight.add(load);
    }

    /// Admitted events ended.
    pub fn settled(&mut self, outcome: Outcome, load: Load) {
        self.settled[outcome as usize] += load.events as u64;
        self.in_flight.remove(load);
    }

    /// How many events ended so.
    pub fn settled_as(&self, outcome: Outcome) -> u64 {
        self.settled[outcome as usize]
    }

    /// An attempt failed; `kind` is one of the label's values.
    pub fn failed(&mut self, kind: &str, times: u64) {
        if let Some(index) = FAILURES.iter().position(|known| *known == kind) {
            self.failures[index] += times;
        }
    }

    /// A request of the plugin to the outside ended.
    pub fn requested(&mut self, result: HttpResult) {
        self.http_requests[result as usize] += 1;
    }

    /// Events became dead letters.
    pub fn dead_lettered(&mut self, reason: Reason, events: u64) {
        *self.dead_letters.entry(reason).or_default() += events;
    }

    /// How many dead letters there were.
    pub fn dead_letters(&self) -> u64 {
        self.dead_letters.values().sum()
    }

    /// Partitions came (`assigned`) or went (`revoked`, `lost`).
    pub fn rebalanced(&mut self, kind: &str) {
        if let Some(index) = REBALANCES.iter().position(|known| *known == kind) {
            self.rebalances[index] += 1;
        }
    }
}

/// A consumer's ledger, shared with the scrape.
pub type SharedLedger = Arc<Mutex<Ledger>>;
