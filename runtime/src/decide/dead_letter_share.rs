//! Whether a consumer fails nearly everything for good: then going on would empty a topic into its
//! dead letters.

use std::time::Duration;

use tokio::time::Instant;

use super::window::{Counts, Window};

/// How far back is looked.
pub const WINDOW: Duration = Duration::from_secs(60);
/// The fewest settled events to judge by.
pub const MIN_EVENTS: u64 = 20;

/// The dead letters among the settled events of the last minute.
#[derive(Clone, Debug)]
pub struct DeadLetterShare {
    max_ratio: f64,
    window: Window,
}

/// More than is allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooMany {
    pub dead_letters: u64,
    pub events: u64,
}

impl DeadLetterShare {
    /// None settled yet. A larger part than `max_ratio` (from 0 to 1) is too many.
    pub fn new(max_ratio: f64, now: Instant) -> Self {
        Self {
            max_ratio,
            window: Window::new(WINDOW, now),
        }
    }

    /// Events were settled, so many of them as dead letters.
    pub fn settled(&mut self, events: u64, dead_letters: u64, now: Instant) -> Option<TooMany> {
        let counts = Counts {
            good: events - dead_letters.min(events),
            bad: dead_letters,
        };
        self.window.add(counts, now);
        let counts = self.window.counts(now);
        let events = counts.good + counts.bad;
        let too_many = events >= MIN_EVENTS && counts.bad as f64 > self.max_ratio * events as f64;
        (too_many && dead_letters > 0).then_some(TooMany {
            dead_letters: counts.bad,
            events,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_few_events_are_not_judged() {
        let now = Instant::now();
        let mut share = DeadLetterShare::new(0.5, now);
        assert_eq!(share.settled(19, 19, now), None);
        let found = share.settled(1, 1, now);
        assert_eq!(
            found,
            Some(TooMany {
                dead_letters: 20,
                events: 20
            })
        );
    }

    #[test]
    fn exactly_the_ratio_is_allowed_and_old_ones_are_forgotten() {
        let begun = Instant::now();
        let mut share = DeadLetterShare::new(0.5, begun);
        assert_eq!(share.settled(40, 20, begun), None);
        let later = begun + WINDOW;
        assert_eq!(share.settled(30, 15, later), None);
        assert!(share.settled(1, 1, later).is_some());
    }

    #[test]
    fn the_whole_never_is_too_much() {
        let now = Instant::now();
        assert_eq!(DeadLetterShare::new(1.0, now).settled(100, 100, now), None);
        assert!(
            DeadLetterShare::new(0.0, now)
                .settled(100, 1, now)
                .is_some()
        );
    }

    proptest::proptest! {
        /// Against a list of everything that was ever settled.
        #[test]
        fn it_agrees_with_a_list(
            ratio in 0.0..=1.0,
            steps in proptest::collection::vec((0_u64..20_000, 1_u64..30, 0_u64..30), 1..60),
        ) {
            let begun = Instant::now();
            let mut share = DeadLetterShare::new(ratio, begun);
            let slot = WINDOW.as_millis() as u64 / 10;
            let (mut at, mut all) = (0, Vec::new());
            for (wait, events, dead) in steps {
                at += wait;
                let dead = dead.min(events);
                all.push((at / slot, events, dead));
                let recent = all.iter().filter(|(then, ..)| then + 10 > at / slot);
                let (total, bad) = recent.fold((0, 0), |(a, b), (_, e, d)| (a + e, b + d));
                let wanted = dead > 0 && total >= MIN_EVENTS && bad as f64 > ratio * total as f64;
                let now = begun + Duration::from_millis(at);
                let found = share.settled(events, dead, now);
                proptest::prop_assert_eq!(found.is_some(), wanted);
            }
        }
    }
}
