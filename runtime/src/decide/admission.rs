//! How much of a consumer's budget is in use, and which partitions must stop for it.
//!
//! ```text
//! used:  0 ───────── low ───────── high ── budget
//!             release     (as is)   hold     └ what was on its way when `hold` was said still fits
//! ```

use crate::config::InFlight;

/// An amount of events with their bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Load {
    pub events: usize,
    pub bytes: usize,
}

impl Load {
    /// Adds another amount.
    pub fn add(&mut self, other: Load) {
        self.events += other.events;
        self.bytes += other.bytes;
    }

    /// Takes an amount off that was added before.
    pub fn remove(&mut self, other: Load) {
        debug_assert!(self.events >= other.events && self.bytes >= other.bytes);
        self.events = self.events.saturating_sub(other.events);
        self.bytes = self.bytes.saturating_sub(other.bytes);
    }

    fn exceeds(&self, limit: Load) -> bool {
        self.events >= limit.events || self.bytes >= limit.bytes
    }
}

/// The marks of a consumer's budget.
#[derive(Clone, Copy, Debug)]
pub struct Budget {
    high: Load,
    low: Load,
}

/// What to do with a partition's valve.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Valve {
    Hold,
    Release,
    /// Between the marks: leave it.
    Keep,
}

impl Budget {
    /// Three quarters of `in_flight` are for admitted events; the last quarter is for what the
    /// adapter fetched ahead and for blocks on their way when a partition is held.
    pub fn new(in_flight: InFlight) -> Self {
        let part = |share: usize| Load {
            events: (in_flight.max_events * share / 8).max(1),
            bytes: (in_flight.max_bytes * share / 8).max(1),
        };
        Self {
            high: part(6),
            low: part(4),
        }
    }

    /// What an adapter may fetch ahead.
    pub fn ahead(in_flight: InFlight) -> Load {
        Load {
            events: (in_flight.max_events / 4).max(1),
            bytes: (in_flight.max_bytes / 4).max(1),
        }
    }

    /// Decides for one partition that uses `own` of the `total` in use, among `partitions`
    /// assigned ones. Each has an equal share, so that a slow one cannot starve the others.
    pub fn valve(&self, total: Load, own: Load, partitions: usize) -> Valve {
        let share = |mark: Load| Load {
            events: (mark.events / partitions.max(1)).max(1),
            bytes: (mark.bytes / partitions.max(1)).max(1),
        };
        if total.exceeds(self.high) || own.exceeds(share(self.high)) {
            Valve::Hold
        } else if !total.exceeds(self.low) && !own.exceeds(share(self.low)) {
            Valve::Release
        } else {
            Valve::Keep
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(events: usize) -> Load {
        Load {
            events,
            bytes: events * 10,
        }
    }

    fn budget() -> Budget {
        Budget::new(InFlight {
            max_events: 800,
            max_bytes: 8_000,
        })
    }

    #[test]
    fn a_full_budget_holds_everyone_and_an_empty_one_releases() {
        assert_eq!(budget().valve(load(600), load(0), 4), Valve::Hold);
        assert_eq!(budget().valve(load(500), load(0), 4), Valve::Keep);
        assert_eq!(budget().valve(load(399), load(0), 4), Valve::Release);
    }

    /// Without a share of its own a stuck partition would fill the budget and stop all others.
    #[test]
    fn a_partition_stops_at_its_share() {
        assert_eq!(budget().valve(load(150), load(150), 4), Valve::Hold);
        assert_eq!(budget().valve(load(150), load(0), 4), Valve::Release);
        assert_eq!(budget().valve(load(150), load(150), 1), Valve::Release);
    }

    #[test]
    fn bytes_count_as_events_do() {
        let heavy = Load {
            events: 1,
            bytes: 6_000,
        };
        assert_eq!(budget().valve(heavy, heavy, 1), Valve::Hold);
    }

    /// A share of nothing would hold 500 partitions for ever.
    #[test]
    fn many_partitions_still_have_a_share() {
        assert_eq!(budget().valve(load(0), load(0), 10_000), Valve::Release);
    }
}
