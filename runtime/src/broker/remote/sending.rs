//! How often events are sent that got no answer.

use std::time::Duration;

use crate::broker::BrokerError;
use crate::config;
use crate::decide::backoff::{self, Next};

/// How often events are sent, and how long is waited between: a runtime that is started again is
/// back within seconds. None is sent again after a minute and a half: one may have waited for
/// the time of a whole request in vain.
const SENDING: config::Retry = config::Retry {
    max_attempts: 8,
    initial: Duration::from_millis(250),
    max: Duration::from_secs(5),
    factor: 2.0,
    jitter: true,
    max_age: Duration::from_secs(90),
};

/// How long to wait after attempt number `attempt` (from 1 on), `elapsed` after the first began;
/// `None` where another one would not help. `again` is when the runtime wants to be asked again.
pub fn pause(
    attempt: u32,
    elapsed: Duration,
    again: Option<Duration>,
    dice: f64,
) -> Option<Duration> {
    let again = again.filter(|again| *again <= SENDING.max)?;
    match backoff::after_failure(&SENDING, attempt, elapsed, again, dice) {
        Next::Again(wait) => Some(wait),
        Next::GiveUp => None,
    }
}

/// What the sender of events is told in the end.
pub fn given_up(error: BrokerError, attempts: u32) -> BrokerError {
    match error {
        BrokerError::Unreachable(reason) => BrokerError::Unreachable(format!(
            "{reason}; that was attempt {attempts}, the last, and whether its events were written \
             is not known: look at the end of the topic before they are sent again"
        )),
        error => error,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Without an end a script that produces would hang when the runtime is gone for good.
    #[test]
    fn events_are_sent_again_a_few_times_and_not_when_it_is_of_no_use() {
        let soon = Some(Duration::ZERO);
        let early = |attempt| pause(attempt, Duration::ZERO, soon, 0.0);
        let waits: Duration = (1..8).filter_map(early).sum();
        assert!((10..30).contains(&waits.as_secs()), "{waits:?}");
        assert_eq!(early(8), None);
        assert_eq!(pause(1, SENDING.max_age, soon, 0.0), None);
        assert_eq!(pause(1, Duration::ZERO, None, 0.0), None);
        // The runtime's own wish counts, unless nobody would wait for so long.
        let wished = Some(Duration::from_secs(3));
        assert_eq!(pause(1, Duration::ZERO, wished, 0.0), wished);
        assert_eq!(
            pause(1, Duration::ZERO, Some(Duration::from_secs(60)), 0.0),
            None
        );
    }
}
