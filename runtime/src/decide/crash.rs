//! Which events may have killed the process, and what to do with them at the next start.
//!
//! ```text
//!            committed with the position                at the next take-up
//!  works     Watch { deaths 0, nothing }       ─death─▶ all that may have been in flight: present at 1
//!  tries     Watch { deaths 1, some offsets }  ─death─▶ those: present at 2
//!  tries one Watch { deaths 2, 1 offset }      ─death─▶ that one: present at 3, not run again,
//!                                                       unless the death is known to be none of its call
//!  given up in order: no watch                 ───────▶ nothing is suspected
//! ```
//! A partition is watched while somebody works on it: the mark is committed before the first call, and
//! goes when the partition is given up in order. Whoever finds one that is not its own takes the
//! partition up after a death. The events that may have been in flight are then tried one at a time,
//! and what is tried is committed before it is called, so that the next death names fewer.

use std::collections::BTreeSet;
use std::ops::Range;

/// An event that was present at so many deaths is not run again.
pub const DEATHS: u32 = 3;

/// Offsets that are named together when they are tried for the first time, at least: one commit each
/// would make every start after a SIGKILL slow.
const TOGETHER: u64 = 64;

/// Committed with the position of a partition that somebody works on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Watch {
    /// Who works on it: a random number for each start of a consumer.
    pub life: u32,
    /// Deaths that the events from `from` up to, not including, `until` were present at.
    pub deaths: u32,
    /// The first offset that is tried; equal to `until` where nothing is.
    pub from: u64,
    pub until: u64,
}

impl Watch {
    /// The mark of ordinary work.
    pub fn working(life: u32) -> Self {
        Self {
            life,
            deaths: 0,
            from: 0,
            until: 0,
        }
    }

    /// Whether it names an event that is tried alone: at its next death it is convicted.
    pub fn names_one(&self) -> bool {
        self.deaths + 1 == DEATHS && self.from.checked_add(1) == Some(self.until)
    }
}

/// Whether an event may be called now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    Call,
    /// Not before this is committed; ask again then.
    Record(Watch),
    /// Never: it was present at so many deaths.
    Convict(u32),
}

/// The events of a partition that are tried one at a time after a death.
#[derive(Debug)]
pub struct Trial {
    life: u32,
    /// Deaths that the events in `named` were present at; all other suspects at one.
    deaths: u32,
    named: Range<u64>,
    recorded: Option<Watch>,
    /// So many of the events that are read next may have been in flight as well.
    unread: usize,
    /// How many offsets are named together. As many as there are groups of them: a start after a death
    /// costs a commit for each group, one after a second death a commit for each event of a group.
    together: u64,
    /// One past the last of them that was read.
    read_to: u64,
    suspects: BTreeSet<u64>,
    under_way: Option<u64>,
}

impl Trial {
    /// The trial that the watch found with a position asks for, where it does. `in_flight` is how
    /// many events can have been in flight. `in_call` says whether the process died while it called
    /// the first event that the watch names; `None` where nobody knows. `alive` says that whoever left
    /// the mark may well be alive: our own membership was lost just then, too.
    pub fn taken_up(
        found: Option<Watch>,
        life: u32,
        in_flight: usize,
        in_call: Option<bool>,
        alive: bool,
    ) -> Option<Self> {
        let found = found?;
        // What this life marked itself and takes up again is no death.
        let died = found.life != life && !alive;
        if !died && found.from >= found.until {
            return None;
        }
        // Named it is also while it waits for its turn and for the broker: a death then is not its
        // own, and it is tried once more as it was.
        let blamed = !found.names_one() || in_call != Some(false);
        Some(Self {
            life,
            deaths: found.deaths.saturating_add(u32::from(died && blamed)),
            named: found.from..found.until,
            recorded: None,
            unread: in_flight,
            together: (in_flight as u64).isqrt().max(TOGETHER),
            read_to: 0,
            suspects: BTreeSet::new(),
            under_way: None,
        })
    }

    /// Takes note of an event that is to be called.
    pub fn read(&mut self, offset: u64) {
        if self.unread > 0 {
            self.unread -= 1;
            self.read_to = offset.saturating_add(1);
            self.suspects.insert(offset);
        }
    }

    /// Everything there is was read.
    pub fn caught_up(&mut self) {
        self.unread = 0;
    }

    /// Whether an event is on its way, or named to be.
    pub fn is_named(&self) -> bool {
        self.is_busy() || self.recorded.is_some_and(|watch| watch.deaths > 1)
    }

    /// Whether one event is on its way: no other may begin.
    pub fn is_busy(&self) -> bool {
        self.under_way.is_some()
    }

    /// Whether an event of two deaths or more is left to be tried: nothing else in the process may be
    /// tried meanwhile, or the next death would be blamed on a bystander.
    pub fn is_grave(&self) -> bool {
        let unread = self.unread > 0 && self.read_to < self.named.end;
        let waits = || self.suspects.range(self.named.clone()).next().is_some();
        self.deaths > 1 && !self.named.is_empty() && (unread || waits())
    }

    /// Begins with an event, or says what comes instead or before. [`Self::came_through`] follows,
    /// unless it is to be recorded.
    pub fn start(&mut self, offset: u64) -> Start {
        let suspected = self.suspects.contains(&offset);
        let named = self.named.contains(&offset);
        let alone = self.named.end - self.named.start == 1;
        let deaths = if named { self.deaths } else { 1 };
        if !suspected || deaths >= DEATHS && alone {
            self.under_way = Some(offset);
            return match suspected {
                true => Start::Convict(deaths),
                false => Start::Call,
            };
        }
        let watch = if deaths > 1 {
            Watch {
                life: self.life,
                deaths: DEATHS - 1,
                from: offset,
                until: offset.saturating_add(1),
            }
        } else {
            let mut until = offset.saturating_add(self.together);
            if offset < self.named.start {
                until = until.min(self.named.start);
            }
            Watch {
                life: self.life,
                deaths: 1,
                from: offset,
                until,
            }
        };
        let recorded = self.recorded.is_some_and(|recorded| {
            recorded.deaths == watch.deaths && (recorded.from..recorded.until).contains(&offset)
        });
        if recorded {
            self.under_way = Some(offset);
            return Start::Call;
        }
        self.recorded = Some(watch);
        Start::Record(watch)
    }

    /// An event did not kill the process; whether it was the one under way. What was tried `alone` is
    /// not named any more.
    pub fn came_through(&mut self, offset: u64, alone: bool) -> bool {
        if self.under_way != Some(offset) {
            return false;
        }
        self.under_way = None;
        self.suspects.remove(&offset);
        if alone {
            self.recorded = None;
        }
        true
    }

    /// Whether nothing is suspected any more.
    pub fn is_over(&self) -> bool {
        self.unread == 0 && self.suspects.is_empty() && self.under_way.is_none()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const IN_FLIGHT: usize = 1_000;

    /// Works on the offsets from `next` on until one of `deadly` ends the life, or all came through.
    /// Returns what is committed then (position and watch), and who was convicted.
    fn live(
        life: u32,
        next: &mut u64,
        found: &mut Option<Watch>,
        end: u64,
        deadly: impl Fn(u64) -> bool,
        convicted: &mut Vec<u64>,
    ) -> bool {
        let Some(mut trial) = Trial::taken_up(*found, life, IN_FLIGHT, None, false) else {
            *found = Some(Watch::working(life));
            // The position is committed now and then: here never, which is the worst.
            return (*next..end).any(deadly);
        };
        (*next..end).for_each(|offset| trial.read(offset));
        trial.caught_up();
        for offset in *next..end {
            match trial.start(offset) {
                Start::Convict(_) => {
                    convicted.push(offset);
                    assert!(trial.came_through(offset, false));
                    continue;
                }
                Start::Record(watch) => {
                    // The commit takes the position along.
                    *next = offset;
                    *found = Some(watch);
                    assert_eq!(trial.start(offset), Start::Call);
                }
                Start::Call => {}
            }
            if deadly(offset) {
                return true;
            }
            assert!(trial.came_through(offset, false));
        }
        assert!(trial.is_over());
        *found = Some(Watch::working(life));
        *next = end;
        false
    }

    proptest! {
        /// Whatever the poison's place: the fourth life convicts it, and never a neighbour.
        #[test]
        fn an_event_that_kills_three_times_is_convicted_and_no_other(end in 1..500_u64, at in any::<prop::sample::Index>()) {
            let poison = at.index(end as usize) as u64;
            let (mut next, mut found, mut convicted) = (0, None, Vec::new());
            for life in 1..=3 {
                let died = live(life, &mut next, &mut found, end, |offset| offset == poison, &mut convicted);
                prop_assert!(died && convicted.is_empty(), "life {}", life);
            }
            let died = live(4, &mut next, &mut found, end, |offset| offset == poison, &mut convicted);
            prop_assert!(!died);
            prop_assert_eq!(convicted, vec![poison]);
        }
    }

    /// A restart in order takes the watch away; a partition that comes back to the same life (after a
    /// skip, say) finds its own.
    #[test]
    fn what_is_no_death_is_not_counted() {
        let other = Some(Watch::working(2));
        assert!(Trial::taken_up(other, 1, IN_FLIGHT, None, true).is_none());
        assert!(Trial::taken_up(None, 1, IN_FLIGHT, None, false).is_none());
        assert!(Trial::taken_up(Some(Watch::working(1)), 1, IN_FLIGHT, None, false).is_none());
        let own = Watch {
            life: 1,
            deaths: 2,
            from: 5,
            until: 6,
        };
        for _ in 0..5 {
            let mut trial = Trial::taken_up(Some(own), 1, IN_FLIGHT, None, false).unwrap();
            trial.read(5);
            assert_eq!(trial.start(5), Start::Record(own));
        }
    }

    /// Who survives is not suspected any more: an event that is retried for an hour must not be tried
    /// for an hour.
    #[test]
    fn what_came_through_is_called_freely_afterwards() {
        let mut trial = Trial::taken_up(Some(Watch::working(1)), 2, 2, None, false).unwrap();
        (0..3).for_each(|offset| trial.read(offset));
        assert!(matches!(trial.start(0), Start::Record(_)) && !trial.is_busy());
        assert!(trial.start(0) == Start::Call && trial.is_busy());
        assert!(trial.came_through(0, false));
        assert_eq!(trial.start(0), Start::Call);
        assert!(!trial.came_through(1, false) && trial.came_through(0, false));
        assert!(!trial.is_over());
        assert_eq!(trial.start(1), Start::Call, "named together with the first");
        assert!(trial.came_through(1, false));
        assert!(trial.is_over(), "the third was not in flight");
    }

    /// Whoever kills the process while an innocent event is tried, or waits for a full disk, would
    /// have it given up at the third time; a plugin that does it must not get away.
    #[test]
    fn only_a_death_in_its_call_convicts_an_event_that_is_tried_alone() {
        let alone = Watch {
            life: 1,
            deaths: 2,
            from: 5,
            until: 6,
        };
        let start = |found: Watch, in_call| {
            let mut trial =
                Trial::taken_up(Some(found), found.life + 1, IN_FLIGHT, in_call, false).unwrap();
            trial.read(5);
            trial.start(5)
        };
        assert_eq!(start(alone, Some(true)), Start::Convict(3));
        assert_eq!(start(alone, None), Start::Convict(3));
        let mut found = alone;
        for _ in 0..10 {
            let Start::Record(watch) = start(found, Some(false)) else {
                panic!("blamed for a death that was none of its own")
            };
            assert!(watch.names_one() && watch.life == found.life + 1);
            found = watch;
        }
        assert_eq!(start(found, Some(true)), Start::Convict(3));
        // Of those that are named together nobody is known to be called: a death counts.
        let together = Watch {
            until: 9,
            deaths: 1,
            ..alone
        };
        assert!(matches!(start(together, Some(false)), Start::Record(watch) if watch.names_one()));
    }

    #[test]
    fn only_events_of_two_deaths_are_grave() {
        let watch = Watch {
            life: 1,
            deaths: 1,
            from: 3,
            until: 5,
        };
        let mut trial = Trial::taken_up(Some(watch), 2, IN_FLIGHT, None, false).unwrap();
        assert!(trial.is_grave(), "they may be read yet");
        // More may be read, but nothing that was named.
        (3..7).for_each(|offset| trial.read(offset));
        for offset in 3..5 {
            assert!(trial.is_grave());
            let Start::Record(watch) = trial.start(offset) else {
                panic!("{offset} is not recorded")
            };
            assert_eq!(
                (watch.deaths, watch.from, watch.until),
                (2, offset, offset + 1)
            );
            assert!(trial.is_named() && trial.start(offset) == Start::Call);
            assert!(trial.came_through(offset, true) && !trial.is_named());
        }
        assert!(!trial.is_grave());
    }
}
