//! Polls of a condition with a deadline: the only way that tests wait.

use std::time::Duration;

use anyhow::{Result, bail};
use tokio::time::Instant;

/// How often a condition is looked at.
const STEP: Duration = Duration::from_millis(20);

/// One step of a poll.
#[expect(
    clippy::disallowed_methods,
    reason = "tests poll from plain threads; each caller has a deadline"
)]
pub fn step() {
    std::thread::sleep(STEP);
}

/// A point in time that a wait does not go past.
#[derive(Clone, Copy, Debug)]
pub struct Deadline {
    at: Instant,
    within: Duration,
}

impl Deadline {
    /// `within` from now.
    pub fn after(within: Duration) -> Self {
        Self {
            at: Instant::now() + within,
            within,
        }
    }

    /// Whether it has passed.
    pub fn passed(&self) -> bool {
        Instant::now() >= self.at
    }

    /// What is left; zero once it has passed.
    pub fn left(&self) -> Duration {
        self.at.saturating_duration_since(Instant::now())
    }
}

/// Waits until `condition` holds.
///
/// # Errors
/// The deadline passed; the error names `what` and how long it was waited for.
pub fn eventually(what: &str, within: Duration, mut condition: impl FnMut() -> bool) -> Result<()> {
    eventually_some(what, within, || condition().then_some(()))
}

/// Waits until `attempt` yields something, and returns it.
///
/// # Errors
/// The deadline passed; the error names `what` and how long it was waited for.
pub fn eventually_some<T>(
    what: &str,
    within: Duration,
    mut attempt: impl FnMut() -> Option<T>,
) -> Result<T> {
    let deadline = Deadline::after(within);
    loop {
        if let Some(found) = attempt() {
            return Ok(found);
        }
        if deadline.passed() {
            bail!("waited {:?} in vain: {what}", deadline.within);
        }
        step();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_condition_that_never_holds_ends_in_an_error_that_names_it() {
        let error = eventually("the moon is blue", Duration::ZERO, || false).unwrap_err();
        assert!(error.to_string().contains("the moon is blue"));
    }

    #[test]
    fn a_condition_that_holds_later_is_found() {
        let mut looks = 0;
        let found = eventually_some("third look", Duration::from_secs(60), || {
            looks += 1;
            (looks == 3).then_some(looks)
        });
        assert_eq!(found.unwrap(), 3);
    }
}
