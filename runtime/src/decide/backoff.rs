//! When a failed event is tried again, and when it is given up.

use std::time::Duration;

use crate::config::Retry;
use crate::mutation::{self, Mutation};

/// What becomes of an event whose attempt failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Again, not sooner than this from now.
    Again(Duration),
    /// No attempt is left, or it has been failing for too long.
    GiveUp,
}

/// Decides after failed attempt number `attempt` (from 1 on) of an event that has been failing for
/// `failing`. `at_least` is the plugin's own wish, `dice` a random number from 0 to 1.
pub fn after_failure(
    retry: &Retry,
    attempt: u32,
    failing: Duration,
    at_least: Duration,
    dice: f64,
) -> Next {
    let last = attempt >= retry.max_attempts || failing >= retry.max_age;
    if last || mutation::is(Mutation::NoRetries) {
        return Next::GiveUp;
    }
    Next::Again(delay(retry, attempt, dice).max(at_least))
}

/// `initial × factor^(attempt − 1)`, at most `max`; with jitter a random half of it is taken off,
/// so that events that failed together do not come back together.
pub fn delay(retry: &Retry, attempt: u32, dice: f64) -> Duration {
    let exponent = i32::try_from(attempt.saturating_sub(1)).unwrap_or(i32::MAX);
    let grown = retry.initial.as_secs_f64() * retry.factor.powi(exponent);
    let capped = grown.min(retry.max.as_secs_f64()).max(0.0);
    let kept = if retry.jitter {
        capped * (1.0 - dice.clamp(0.0, 1.0) / 2.0)
    } else {
        capped
    };
    Duration::try_from_secs_f64(kept).unwrap_or(retry.max)
}

#[cfg(test)]
mod tests {
    use super::*;

    const RETRY: Retry = Retry {
        max_attempts: 5,
        initial: Duration::from_millis(100),
        max: Duration::from_secs(10),
        factor: 2.0,
        jitter: false,
        max_age: Duration::from_secs(3600),
    };

    #[test]
    fn delays_double_up_to_the_limit() {
        let delays: Vec<_> = (1..=9).map(|n| delay(&RETRY, n, 0.0).as_millis()).collect();
        assert_eq!(
            delays,
            [100, 200, 400, 800, 1600, 3200, 6400, 10_000, 10_000]
        );
        assert_eq!(delay(&RETRY, u32::MAX, 0.0), RETRY.max);
    }

    #[test]
    fn jitter_takes_off_at_most_half() {
        let jittery = Retry {
            jitter: true,
            ..RETRY
        };
        assert_eq!(delay(&jittery, 1, 0.0).as_millis(), 100);
        assert_eq!(delay(&jittery, 1, 1.0).as_millis(), 50);
    }

    #[test]
    fn an_event_is_given_up_after_its_last_attempt_or_its_age() {
        let none = Duration::ZERO;
        assert_eq!(
            after_failure(&RETRY, 4, none, none, 0.0),
            Next::Again(Duration::from_millis(800))
        );
        assert_eq!(after_failure(&RETRY, 5, none, none, 0.0), Next::GiveUp);
        assert_eq!(
            after_failure(&RETRY, 1, RETRY.max_age, none, 0.0),
            Next::GiveUp
        );
    }

    #[test]
    fn the_plugins_own_time_is_a_lower_bound() {
        let wish = Duration::from_secs(60);
        assert_eq!(
            after_failure(&RETRY, 1, Duration::ZERO, wish, 0.0),
            Next::Again(wish)
        );
    }
}
