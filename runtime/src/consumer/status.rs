//! What a consumer shows of itself to the control plane.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::time::Instant;

use crate::decide::breaker::Phase;
use crate::event::TopicPartition;

/// Where a consumer's life stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// Joining its group.
    Starting,
    Running,
    /// What its plugin needs is down; calls wait.
    Waiting(String),
    /// An operator lets it stand.
    Paused,
    /// Stopped by its plugin or by the broker, until someone acts.
    Stopped(String),
    Draining,
    /// Drained, its membership given up.
    Ended,
}

impl State {
    /// One word for tables and JSON.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Running => "running",
            Self::Waiting(_) => "waiting",
            Self::Paused => "paused",
            Self::Stopped(_) => "stopped",
            Self::Draining => "draining",
            Self::Ended => "ended",
        }
    }

    /// Why, where the state has a reason.
    pub fn reason(&self) -> Option<&str> {
        match self {
            Self::Waiting(reason) | Self::Stopped(reason) => Some(reason),
            _ => None,
        }
    }
}

/// One assigned partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartitionStatus {
    /// The offset below which everything is settled.
    pub position: u64,
    /// As last heard of.
    pub end: Option<u64>,
    /// Why it stands still for good.
    pub halted: Option<String>,
    /// The offset of the event that it halted at, where it was one.
    pub halted_at: Option<u64>,
    /// Whether its events run one at a time, for one of them may have killed the process.
    pub on_trial: bool,
}

/// A consumer's circuit breaker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BreakerStatus {
    pub phase: Phase,
    pub since: Instant,
    /// Why it opened; `None` while it is closed.
    pub reason: Option<String>,
}

/// A consumer at one moment.
#[derive(Clone, Debug)]
pub struct Status {
    pub state: State,
    pub partitions: BTreeMap<TopicPartition, PartitionStatus>,
    pub breaker: BreakerStatus,
    /// Events admitted and not settled.
    pub in_flight: usize,
    pub generation: u64,
    pub digest: Arc<str>,
    /// Whether the generation has still to prove itself.
    pub probation: bool,
    /// When its loop last came round: a long silence means that it is stuck.
    pub alive_at: Instant,
}

/// Written by the consumer, read by the control plane.
pub type SharedStatus = Arc<Mutex<Status>>;

/// A consumer that has not joined its group yet.
pub fn starting(generation: u64, digest: Arc<str>) -> SharedStatus {
    Arc::new(Mutex::new(Status {
        state: State::Starting,
        partitions: BTreeMap::new(),
        breaker: BreakerStatus {
            phase: Phase::Closed,
            since: Instant::now(),
            reason: None,
        },
        in_flight: 0,
        generation,
        digest,
        probation: false,
        alive_at: Instant::now(),
    }))
}
