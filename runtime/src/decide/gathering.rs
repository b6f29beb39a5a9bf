//! How long finished units gather before their transaction begins.

use std::time::Duration;

/// So much of what the last transactions took is from those before the last one: seven eighths.
const MEMORY: u32 = 8;

/// What transactions take, by those that were: a moving average. Units are to take effect when the
/// commit interval is over, not to begin with it then.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Gathering {
    takes: Duration,
}

impl Gathering {
    /// A transaction took effect after so long.
    pub fn took(&mut self, took: Duration) {
        self.takes = (self.takes.saturating_mul(MEMORY - 1)).saturating_add(took) / MEMORY;
    }

    /// How long the next units gather, at this interval: at least half of it, so that a slow broker is
    /// not asked for more and smaller transactions than twice as many.
    pub fn lasts(&self, interval: Duration) -> Duration {
        interval - self.takes.min(interval / 2)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn after(took: impl IntoIterator<Item = u64>) -> Gathering {
        let mut gathering = Gathering::default();
        for one in took {
            gathering.took(ms(one));
        }
        gathering
    }

    #[test]
    fn what_a_transaction_takes_is_taken_off_the_interval() {
        assert_eq!(after([]).lasts(ms(100)), ms(100));
        let lasts = after([20; 100]).lasts(ms(100));
        assert!(lasts >= ms(80) && lasts < ms(81), "{lasts:?}");
        assert!(after([20; 100]).lasts(ms(5_000)) >= ms(4_980));
    }

    /// One long wait at the coordinator is not to hurry the transactions behind it.
    #[test]
    fn one_transaction_that_takes_long_changes_an_eighth() {
        let steady = [20; 100].into_iter();
        let lasts = after(steady.chain([180])).lasts(ms(100));
        assert!(lasts >= ms(60) && lasts <= ms(61), "{lasts:?}");
    }

    #[test]
    fn units_gather_for_half_of_the_interval_at_least() {
        assert_eq!(after([60_000; 100]).lasts(ms(100)), ms(50));
        assert_eq!(after([20; 100]).lasts(Duration::ZERO), Duration::ZERO);
    }
}
