//! How many events a lane hands to its plugin in one call.

use std::time::Duration;

/// A lane's batch size: it starts with one event, doubles while calls stay below a tenth of the
/// deadline, halves when they do not, and halves at each missed deadline.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    size: usize,
    max: usize,
}

impl Pace {
    /// A lane's first batch holds one event; none will hold more than `max`.
    pub fn new(max: usize) -> Self {
        Self {
            size: 1,
            max: max.max(1),
        }
    }

    /// How many events the next batch may hold.
    pub fn size(&self) -> usize {
        self.size
    }

    /// A batch of `events` was answered after `took`.
    pub fn answered(&mut self, events: usize, took: Duration, deadline: Duration) {
        if took >= deadline / 10 {
            self.missed();
        } else if events >= self.size {
            self.size = (self.size * 2).min(self.max);
        }
    }

    /// A batch missed its deadline, or its answer was refused as a whole.
    pub fn missed(&mut self) {
        self.size = (self.size / 2).max(1);
    }
}

/// How long a call with `events` events may take: `deadline` each, at most `call`.
pub fn budget(deadline: Duration, call: Duration, events: usize) -> Duration {
    deadline
        .saturating_mul(u32::try_from(events).unwrap_or(u32::MAX))
        .min(call.max(deadline))
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEADLINE: Duration = Duration::from_secs(1);

    #[test]
    fn it_grows_while_calls_are_quick_and_only_with_full_batches() {
        let mut pace = Pace::new(256);
        for _ in 0..12 {
            pace.answered(pace.size(), Duration::from_millis(1), DEADLINE);
        }
        assert_eq!(pace.size(), 256);
        let mut pace = Pace::new(256);
        pace.answered(1, Duration::from_millis(1), DEADLINE);
        pace.answered(1, Duration::from_millis(1), DEADLINE);
        assert_eq!(pace.size(), 2);
    }

    #[test]
    fn it_halves_when_calls_are_slow_but_never_below_one() {
        let mut pace = Pace::new(256);
        pace.size = 8;
        pace.answered(8, DEADLINE / 10, DEADLINE);
        assert_eq!(pace.size(), 4);
        for _ in 0..5 {
            pace.missed();
        }
        assert_eq!(pace.size(), 1);
    }

    #[test]
    fn a_call_has_a_deadline_an_event_up_to_the_cap() {
        let cap = Duration::from_secs(30);
        assert_eq!(budget(DEADLINE, cap, 3), DEADLINE * 3);
        assert_eq!(budget(DEADLINE, cap, 256), cap);
        assert_eq!(
            budget(Duration::from_secs(60), cap, 1),
            Duration::from_secs(60)
        );
    }
}
