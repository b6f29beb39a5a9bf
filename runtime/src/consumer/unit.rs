//! All that follows from a batch and takes effect as a whole.

use std::sync::Arc;

use super::assemble::Produced;
use super::dead_letter::Reason;
use super::generation::Generation;
use super::work::Work;
use crate::event::TopicPartition;
use crate::metrics::Outcome;
use crate::records::Records;

/// Derived events and dead letters, and the offsets that are settled once they are written.
#[derive(Debug)]
pub struct Unit {
    /// By whose word.
    pub generation: Arc<Generation>,
    pub partition: TopicPartition,
    /// Which assignment of the partition it belongs to: after a revoke it must not commit (I6).
    pub assignment: u64,
    pub records: Arc<Records>,
    pub settled: Vec<Settled>,
    /// Derived events by index of the output.
    pub produced: Vec<Produced>,
    /// Keeps the source events, to dead-letter one whose outputs the broker refuses.
    pub work: Work,
}

/// An event that its unit settles.
#[derive(Clone, Copy, Debug)]
pub struct Settled {
    pub offset: u64,
    /// Index of the event in the unit's work.
    pub index: u32,
    pub outcome: Outcome,
    pub reason: Option<Reason>,
}
