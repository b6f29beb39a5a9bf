//! Outcomes of the last while, counted in a fixed number of buckets.
//!
//! ```text
//! time ─▶  │ 7 │ 8 │ 9 │ 10 │ 11 │ 12 │ 13 │ 14 │ 15 │ 16… now
//!          └────────────── the window: ten slots ──────────┘
//! ```

use std::time::Duration;

use tokio::time::Instant;

/// How many slots a window has: it forgets a tenth of itself at a time.
const SLOTS: usize = 10;

/// What is in the window.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub good: u64,
    pub bad: u64,
}

#[derive(Clone, Copy, Debug, Default)]
struct Bucket {
    slot: u64,
    counts: Counts,
}

/// See the module. What is older than the window is forgotten, to within a tenth of it.
#[derive(Clone, Debug)]
pub struct Window {
    origin: Instant,
    width: Duration,
    buckets: [Bucket; SLOTS],
}

impl Window {
    /// An empty window of this length that begins at `now`.
    pub fn new(length: Duration, now: Instant) -> Self {
        Self {
            origin: now,
            width: (length / SLOTS as u32).max(Duration::from_nanos(1)),
            buckets: [Bucket::default(); SLOTS],
        }
    }

    /// The slot that a time falls into. Slots only grow.
    pub fn slot(&self, now: Instant) -> u64 {
        let since = now.saturating_duration_since(self.origin);
        (since.as_nanos() / self.width.as_nanos()) as u64
    }

    /// Whether a slot is still in the window.
    pub fn holds(&self, slot: u64, now: Instant) -> bool {
        slot + SLOTS as u64 > self.slot(now)
    }

    /// Adds outcomes.
    pub fn add(&mut self, counts: Counts, now: Instant) {
        let slot = self.slot(now);
        let bucket = &mut self.buckets[(slot % SLOTS as u64) as usize];
        if bucket.slot != slot {
            *bucket = Bucket {
                slot,
                counts: Counts::default(),
            };
        }
        bucket.counts.good += counts.good;
        bucket.counts.bad += counts.bad;
    }

    /// What the window holds.
    pub fn counts(&self, now: Instant) -> Counts {
        let mut all = Counts::default();
        for bucket in self.buckets {
            if self.holds(bucket.slot, now) {
                all.good += bucket.counts.good;
                all.bad += bucket.counts.bad;
            }
        }
        all
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        self.buckets = [Bucket::default(); SLOTS];
    }
}
