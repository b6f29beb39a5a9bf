//! When to say that something lasts: not at once, for most trouble passes, and not at every try.

use std::time::Duration;

use tokio::time::Instant;

/// How long it lasts before it is said first.
pub const FIRST: Duration = Duration::from_secs(10);
/// How often it is said from then on.
pub const AGAIN: Duration = Duration::from_secs(60);

/// See the module.
#[derive(Clone, Copy, Debug)]
pub struct Reminder {
    since: Instant,
    next: Instant,
}

impl Reminder {
    /// It begins now.
    pub fn new(now: Instant) -> Self {
        Self {
            since: now,
            next: now + FIRST,
        }
    }

    /// How long it has lasted, where that is to be said now.
    pub fn due(&mut self, now: Instant) -> Option<Duration> {
        if now < self.next {
            return None;
        }
        self.next = now + AGAIN;
        Some(now - self.since)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A line at every try would hide all others, none at all leaves a standstill unexplained.
    #[test]
    fn it_is_said_late_and_seldom() {
        let start = Instant::now();
        let mut reminder = Reminder::new(start);
        assert_eq!(reminder.due(start + FIRST / 2), None);
        assert_eq!(reminder.due(start + FIRST), Some(FIRST));
        assert_eq!(reminder.due(start + FIRST * 2), None);
        assert_eq!(reminder.due(start + FIRST + AGAIN), Some(FIRST + AGAIN));
    }
}
