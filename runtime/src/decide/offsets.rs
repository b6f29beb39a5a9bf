//! Which offsets of a partition are settled.
//!
//! ```text
//!            settled     in flight and settled, interleaved           not read yet
//!   ────────────────────┬──────────────────────────────────────────┬──────────────▶ offsets
//!                      next  □ ■ ■ □ ■ ■ ■ □                      read
//!                            └ above: the ■ ranges
//! ```
//!
//! With `key` or `none` ordering the lanes of a partition interleave, so a lowest settled offset
//! alone would forget what is settled above a slow event, and repeat it after a restart.

use std::collections::VecDeque;
use std::ops::Range;

use super::crash::Watch;
use crate::mutation::{self, Mutation};

/// A committed position: everything below `next` is settled, and so are the ranges above it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    pub next: u64,
    /// Rising, not touching one another, all above `next`.
    pub above: Vec<Range<u64>>,
    /// That somebody works on the partition; none once it was given up in order.
    pub watch: Option<Watch>,
}

impl Progress {
    /// A position with nothing settled above it.
    pub fn at(next: u64) -> Self {
        Self {
            next,
            ..Self::default()
        }
    }

    /// Whether `offset` is settled.
    pub fn covers(&self, offset: u64) -> bool {
        offset < self.next || self.above.iter().any(|range| range.contains(&offset))
    }

    /// Whether everything is settled that is settled in `other`.
    pub fn includes(&self, other: &Progress) -> bool {
        let has = |range: &Range<u64>| {
            let mut above = self.above.iter();
            range.end <= self.next
                || above
                    .any(|mine| mine.start <= range.start.max(self.next) && range.end <= mine.end)
        };
        other.next <= self.next && other.above.iter().all(has)
    }
}

/// Follows one partition from its assignment to its revocation.
#[derive(Clone, Debug)]
pub struct Tracker {
    /// What the group had settled above its position when we were assigned.
    inherited: Vec<Range<u64>>,
    /// Admitted offsets from the lowest unsettled one on, in order.
    window: VecDeque<Slot>,
    /// One past the highest offset that was read.
    read: u64,
    unsettled: usize,
}

#[derive(Debug, Clone, Copy)]
struct Slot {
    offset: u64,
    settled: bool,
}

impl Tracker {
    /// Starts where the group stands.
    pub fn new(progress: &Progress) -> Self {
        Self {
            inherited: if mutation::is(Mutation::RangesIgnored) {
                Vec::new()
            } else {
                progress.above.clone()
            },
            window: VecDeque::new(),
            read: progress.next,
            unsettled: 0,
        }
    }

    /// Takes note of an event that was read. False where it was settled before our time, or was
    /// seen already: it must not be processed.
    pub fn admit(&mut self, offset: u64) -> bool {
        if offset < self.read || self.inherited.iter().any(|range| range.contains(&offset)) {
            return false;
        }
        self.read = offset + 1;
        self.window.push_back(Slot {
            offset,
            settled: false,
        });
        self.unsettled += 1;
        true
    }

    /// Takes note that no event lies between what was read and `next`.
    pub fn caught_up(&mut self, next: u64) {
        if !mutation::is(Mutation::EndIgnored) {
            self.read = self.read.max(next);
        }
    }

    /// Settles an admitted event; false where it is unknown or settled already.
    pub fn settle(&mut self, offset: u64) -> bool {
        // Offsets mostly rise by one, so the guess is nearly always right.
        let guess = self
            .window
            .front()
            .and_then(|front| offset.checked_sub(front.offset))
            .and_then(|index| usize::try_from(index).ok())
            .filter(|index| {
                self.window
                    .get(*index)
                    .is_some_and(|slot| slot.offset == offset)
            });
        let index = match guess {
            Some(index) => index,
            None => match self
                .window
                .binary_search_by_key(&offset, |slot| slot.offset)
            {
                Ok(index) => index,
                Err(_) => return false,
            },
        };
        let slot = &mut self.window[index];
        if slot.settled {
            return false;
        }
        slot.settled = true;
        self.unsettled -= 1;
        while self.window.front().is_some_and(|slot| slot.settled) {
            self.window.pop_front();
        }
        true
    }

    /// How many admitted events are not settled.
    pub fn unsettled(&self) -> usize {
        self.unsettled
    }

    /// The offset below which everything is settled.
    pub fn position(&self) -> u64 {
        self.window.front().map_or(self.read, |slot| slot.offset)
    }

    /// What to commit, without a watch.
    pub fn progress(&self) -> Progress {
        let mut next = self.position();
        if mutation::is(Mutation::PositionAtWhatWasRead) {
            return Progress::at(self.read);
        }
        if mutation::is(Mutation::RangesForgotten) {
            return Progress::at(next);
        }
        if mutation::is(Mutation::PositionOneTooHigh) && self.unsettled > 0 {
            next += 1;
        }
        let mut above: Vec<Range<u64>> = Vec::new();
        let mut push = |range: Range<u64>| {
            if range.is_empty() {
                return;
            }
            match above.last_mut() {
                Some(last) if last.end >= range.start => last.end = last.end.max(range.end),
                _ => above.push(range),
            }
        };
        // Offsets between two settled events that no event carries count as settled too, which
        // keeps the ranges few; but nothing after the last read offset is claimed.
        let mut open: Option<u64> = None;
        let mut inherited = self
            .inherited
            .iter()
            .filter(|range| range.end > next)
            .peekable();
        for slot in &self.window {
            while let Some(range) = inherited.next_if(|range| range.start < slot.offset) {
                if open.is_none() {
                    push(range.clone());
                }
            }
            match (slot.settled, open) {
                (true, None) => open = Some(slot.offset),
                (false, Some(start)) => {
                    push(start..slot.offset);
                    open = None;
                }
                _ => {}
            }
        }
        if let Some(start) = open {
            push(start..self.read);
        }
        for range in inherited {
            push(range.start.max(next)..range.end);
        }
        if let Some(first) = above.first().filter(|first| first.start <= next).cloned() {
            above.remove(0);
            return Progress {
                next: first.end,
                above,
                watch: None,
            };
        }
        Progress {
            next,
            above,
            watch: None,
        }
    }
}

#[cfg(test)]
#[expect(
    clippy::single_range_in_vec_init,
    reason = "one settled range is what is meant"
)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_position_is_the_lowest_unsettled_offset() {
        let mut tracker = Tracker::new(&Progress::at(10));
        for offset in [10, 11, 13] {
            assert!(tracker.admit(offset));
        }
        assert_eq!(tracker.position(), 10);
        assert!(tracker.settle(11));
        assert_eq!(
            tracker.progress(),
            Progress {
                next: 10,
                above: vec![11..13],
                watch: None,
            }
        );
        assert!(tracker.settle(10));
        assert_eq!(tracker.progress(), Progress::at(13));
        assert!(tracker.settle(13));
        assert_eq!(tracker.progress(), Progress::at(14));
    }

    /// A commit marker holds an offset that no event carries: without this a caught-up group
    /// would show a lag of one for ever.
    #[test]
    fn catching_up_moves_the_position_past_offsets_without_an_event() {
        let mut tracker = Tracker::new(&Progress::at(0));
        tracker.admit(0);
        tracker.caught_up(5);
        assert_eq!(tracker.position(), 0);
        tracker.settle(0);
        assert_eq!(tracker.position(), 5);
    }

    #[test]
    fn settling_twice_or_out_of_range_is_refused() {
        let mut tracker = Tracker::new(&Progress::at(0));
        tracker.admit(0);
        tracker.admit(1);
        assert!(tracker.settle(1));
        assert!(!tracker.settle(1));
        assert!(!tracker.settle(7));
        assert_eq!(tracker.unsettled(), 1);
    }

    proptest! {
        /// Against the naive model: a set of settled offsets. A position that claims one unsettled
        /// event loses it (I4); one that forgets a settled one repeats it.
        #[test]
        fn progress_claims_exactly_what_is_settled(
            start in 0u64..50,
            gaps in prop::collection::vec(1u64..4, 1..60),
            order in prop::collection::vec(any::<prop::sample::Index>(), 0..80),
            inherited in prop::collection::vec((1u64..6, 1u64..5), 0..4),
        ) {
            let mut above = Vec::new();
            let mut at = start + 1;
            for (gap, length) in inherited {
                above.push(at + gap..at + gap + length);
                at += gap + length + 1;
            }
            let before = Progress { next: start, above, watch: None };
            let mut tracker = Tracker::new(&before);
            let mut admitted = Vec::new();
            let mut read = start;
            let mut offset = start;
            for gap in gaps {
                offset += gap - 1;
                if tracker.admit(offset) {
                    admitted.push(offset);
                } else {
                    prop_assert!(before.covers(offset));
                }
                offset += 1;
                read = offset;
            }
            let mut settled = std::collections::BTreeSet::new();
            for index in order {
                if admitted.is_empty() { break; }
                let offset = admitted[index.index(admitted.len())];
                prop_assert_eq!(tracker.settle(offset), settled.insert(offset));
            }
            let progress = tracker.progress();
            for offset in &admitted {
                prop_assert_eq!(
                    progress.covers(*offset),
                    settled.contains(offset),
                    "offset {} in {:?}", offset, progress
                );
            }
            for range in &before.above {
                for offset in range.clone() {
                    prop_assert!(progress.covers(offset), "{} forgotten", offset);
                }
            }
            // Nothing that was not read yet is claimed, what was inherited aside.
            for offset in read..read + 100 {
                if progress.covers(offset) {
                    prop_assert!(before.covers(offset), "{} claimed in {:?}", offset, progress);
                }
            }
            for pair in progress.above.windows(2) {
                prop_assert!(pair[0].end < pair[1].start);
            }
        }
    }
}
