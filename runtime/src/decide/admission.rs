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

    /// What is above another amount.
    pub fn beyond(self, other: Load) -> Load {
        Load {
            events: self.events.saturating_sub(other.events),
            bytes: self.bytes.saturating_sub(other.bytes),
        }
    }

    /// So many parts `of` it.
    pub fn part(self, share: usize, of: usize) -> Load {
        Load {
            events: self.events.saturating_mul(share) / of,
            bytes: self.bytes.saturating_mul(share) / of,
        }
    }

    /// The larger of each.
    pub fn larger(self, other: Load) -> Load {
        Load {
            events: self.events.max(other.events),
            bytes: self.bytes.max(other.bytes),
        }
    }

    /// The smaller of each.
    pub fn smaller(self, other: Load) -> Load {
        Load {
            events: self.events.min(other.events),
            bytes: self.bytes.min(other.bytes),
        }
    }

    /// Itself, but no zero.
    pub fn at_least_one(self) -> Load {
        self.larger(Load {
            events: 1,
            bytes: 1,
        })
    }

    /// Whether there is none left of a limit, in events or in bytes.
    pub fn reaches(&self, limit: Load) -> bool {
        self.events >= limit.events || self.bytes >= limit.bytes
    }
}

/// The marks of a consumer's budget.
#[derive(Clone, Copy, Debug)]
pub struct Budget {
    high: Load,
    low: Load,
    ahead: Load,
    whole: Load,
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
            low: part(5),
            ahead: Self::ahead(in_flight),
            whole: part(8),
        }
    }

    /// What an adapter may fetch ahead.
    pub fn ahead(in_flight: InFlight) -> Load {
        Load {
            events: (in_flight.max_events / 4).max(1),
            bytes: (in_flight.max_bytes / 4).max(1),
        }
    }

    /// Whether a block has room beside the `total` in use. One that is larger than the budget is
    /// admitted alone.
    pub fn fits(&self, total: Load, block: Load) -> bool {
        let mut after = total;
        after.add(block);
        total == Load::default() || after.beyond(self.whole) == Load::default()
    }

    /// How much of the common half is in use, given what each of the assigned partitions uses.
    pub fn common(&self, loads: impl ExactSizeIterator<Item = Load>) -> Common {
        let partitions = loads.len();
        let reserved = self.reserved(partitions);
        let mut used = Load::default();
        for load in loads {
            used.add(load.beyond(reserved));
        }
        Common { used, partitions }
    }

    /// Decides for one partition that uses `own` of the `total` in use.
    ///
    /// Half of the budget is reserved for the partitions in equal parts, so that however many are
    /// stuck the last one still flows. The other half is common: beyond its reserve a partition may
    /// use twice what is still free there, so that one alone has most of the budget (the dynamic
    /// threshold by which switches share a buffer: Choudhury and Hahne, 1998). The block that comes
    /// next counts as if it were there: else each of the stuck would pass its part by one.
    pub fn valve(&self, total: Load, own: Load, common: Common) -> Valve {
        let reserved = self.reserved(common.partitions);
        let spare = reserved.beyond(largest_block(self.ahead, common.partitions));
        let free = self.high.part(1, 2).beyond(common.used);
        let mut most = free.part(2, 1);
        most.add(spare);
        let mut few = free;
        few.add(spare.part(3, 4));
        let none = own == Load::default();
        if total.reaches(self.high) || (!none && own.reaches(most)) {
            Valve::Hold
        } else if none || (!total.reaches(self.low) && !own.reaches(few)) {
            // With nothing in use not only below the low mark: what is stuck may stay above it.
            Valve::Release
        } else {
            Valve::Keep
        }
    }

    fn reserved(&self, partitions: usize) -> Load {
        self.high.part(1, 2 * partitions.max(1)).at_least_one()
    }
}

/// The largest block of one of so many partitions, where an adapter may fetch `ahead`: what the
/// budget reserves for a partition. An event that is larger comes alone.
pub fn largest_block(ahead: Load, partitions: usize) -> Load {
    let reserved = ahead.part(3, 2 * partitions.max(1));
    ahead.smaller(reserved).at_least_one()
}

/// What is in use of the half of a budget that all partitions share.
#[derive(Clone, Copy, Debug)]
pub struct Common {
    used: Load,
    partitions: usize,
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

    /// 600 events, of which 300 are common.
    fn budget() -> Budget {
        Budget::new(InFlight {
            max_events: 800,
            max_bytes: 8_000,
        })
    }

    /// The valve of the first of some partitions.
    fn valve(loads: &[usize]) -> Valve {
        let budget = budget();
        let common = budget.common(loads.iter().map(|events| load(*events)));
        budget.valve(load(loads.iter().sum()), load(loads[0]), common)
    }

    #[test]
    fn a_full_budget_holds_everyone_and_a_lower_one_releases() {
        assert_eq!(valve(&[0, 600]), Valve::Hold);
        assert_eq!(valve(&[0, 599]), Valve::Release);
        let of_ten = |own: usize, others: usize| {
            let mut loads = [others; 10];
            loads[0] = own;
            valve(&loads)
        };
        assert_eq!(of_ten(40, 55), Valve::Keep);
        assert_eq!(of_ten(40, 50), Valve::Release);
    }

    #[test]
    fn a_partition_alone_has_most_of_the_budget() {
        assert_eq!(valve(&[433]), Valve::Keep);
        assert_eq!(valve(&[434]), Valve::Hold);
        assert_eq!(valve(&[337]), Valve::Release);
    }

    /// Without a reserve stuck partitions would fill the budget and stop the one that is not.
    #[test]
    fn something_is_left_for_the_last_of_many() {
        let mut loads = [0; 20];
        for stuck in 1..20 {
            loop {
                let mut order = loads;
                order.swap(0, stuck);
                if valve(&order) == Valve::Hold {
                    break;
                }
                loads[stuck] += 1;
            }
            assert!(loads[stuck] > 0, "nothing was left for {stuck}");
        }
        assert_ne!(valve(&loads), Valve::Hold);
    }

    /// Blocks are admitted whole: where each stuck partition passed its part by most of a block, some
    /// of them would fill the budget.
    #[test]
    fn stuck_partitions_leave_room_for_the_last_also_in_blocks() {
        for (partitions, max_events) in [(2, 10_000), (4, 10_000), (30, 10_000), (500, 10_000)] {
            let in_flight = InFlight {
                max_events,
                max_bytes: 10 * max_events,
            };
            let budget = Budget::new(in_flight);
            let block = largest_block(Budget::ahead(in_flight), partitions);
            let mut loads = vec![Load::default(); partitions];
            let valve = |loads: &[Load], at: usize| {
                let mut total = Load::default();
                loads.iter().for_each(|load| total.add(*load));
                budget.valve(total, loads[at], budget.common(loads.iter().copied()))
            };
            // In turn, as an adapter hands blocks over.
            let mut flows = true;
            while flows {
                flows = false;
                for stuck in 1..partitions {
                    if valve(&loads, stuck) != Valve::Hold {
                        loads[stuck].add(block);
                        flows = true;
                    }
                }
            }
            assert!(loads[1..].iter().all(|load| *load != Load::default()));
            assert_eq!(valve(&loads, 0), Valve::Release, "of {partitions}");
        }
    }

    #[test]
    fn bytes_count_as_events_do() {
        let heavy = Load {
            events: 1,
            bytes: 6_000,
        };
        let common = budget().common(std::iter::once(heavy));
        assert_eq!(budget().valve(heavy, heavy, common), Valve::Hold);
    }

    /// Two events of 10 MB in a budget of 16 MB would be more than what was asked for; one of 20 MB
    /// that waited for room would wait for ever.
    #[test]
    fn a_large_event_has_room_in_the_budget_or_alone() {
        let large = |bytes| Load { events: 1, bytes };
        assert!(budget().fits(large(4_000), large(4_000)));
        assert!(!budget().fits(large(4_000), large(4_001)));
        assert!(!budget().fits(load(800), large(0)));
        assert!(budget().fits(Load::default(), large(20_000)));
    }

    /// A partition without events that stays held would stay so for ever.
    #[test]
    fn with_the_smallest_budget_one_event_goes_at_a_time() {
        let least = Budget::new(InFlight {
            max_events: 1,
            max_bytes: 1,
        });
        let valve = |own| {
            let common = least.common(std::iter::once(load(own)));
            least.valve(load(own), load(own), common)
        };
        assert_eq!(valve(0), Valve::Release);
        assert_eq!(valve(1), Valve::Hold);
    }
}
