//! Which offsets of a partition are settled, and the committed form of that knowledge.

use std::ops::Range;

/// A committed position: everything below `next` is settled, and so are the ranges above it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    pub next: u64,
    /// Rising, not touching one another, all above `next`.
    pub above: Vec<Range<u64>>,
}

impl Progress {
    /// A position with nothing settled above it.
    pub fn at(next: u64) -> Self {
        Self {
            next,
            above: Vec::new(),
        }
    }
}
