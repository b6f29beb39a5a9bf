//! Whether a new version of a plugin proves itself.
//!
//! ```text
//! handled, failed ─▶ judge ─▶ goes on │ passed, at its end │ failed: too many, with a reason
//! ```

use std::fmt;

use tokio::time::Instant;

use crate::config::Deploy;

/// The fewest events to judge by while others are still to come.
const FEWEST: u64 = 20;

/// Counts what a generation does with the events of its probation.
#[derive(Clone, Debug)]
pub struct Probation {
    until: Instant,
    max_failure_ratio: f64,
    handled: u64,
    failed: u64,
    /// Why it was not tried, when it last should have been.
    hindered: Option<String>,
}

/// What the counts say.
#[derive(Clone, Debug, PartialEq)]
pub enum Judgement {
    GoesOn,
    Passed,
    Failed(Cause),
}

/// Why a generation did not prove itself.
#[derive(Clone, Debug, PartialEq)]
pub enum Cause {
    /// So many of so many events, more than `max_failure_ratio` allows.
    Failures {
        failed: u64,
        events: u64,
        max_ratio: f64,
    },
    /// Something that no version can go on with, in words.
    Trouble(String),
}

impl fmt::Display for Cause {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Failures {
                failed,
                events,
                max_ratio,
            } => write!(
                to,
                "{failed} of {events} events failed, and deploy.max_failure_ratio is {max_ratio}"
            ),
            Self::Trouble(what) => to.write_str(what),
        }
    }
}

impl Probation {
    /// Begins now; `None` where the settings ask for none.
    pub fn begin(settings: Deploy, now: Instant) -> Option<Self> {
        (!settings.probation.is_zero()).then(|| Self {
            until: now + settings.probation,
            max_failure_ratio: settings.max_failure_ratio,
            handled: 0,
            failed: 0,
            hindered: None,
        })
    }

    /// So many events were handled, and so many failed; each event once.
    pub fn count(&mut self, handled: u64, failed: u64) {
        self.handled += handled;
        self.failed += failed;
    }

    /// Of so many events that were counted as handled one failed after all, and the others come again.
    pub fn take_back(&mut self, handled: u64) {
        self.handled = self.handled.saturating_sub(handled);
        self.failed += 1;
    }

    /// Events wait, and none can be given to it: no instance starts.
    pub fn hindered(&mut self, reason: String) {
        self.hindered = Some(reason);
    }

    /// Events that it handled.
    pub fn handled(&self) -> u64 {
        self.handled
    }

    /// What is to be thought of it now. `stuck` says that nothing goes on before it is judged: all
    /// that waits stands behind events that failed, and more evidence will not come.
    pub fn judge(&self, now: Instant, stuck: bool) -> Judgement {
        let events = self.handled + self.failed;
        let too_many =
            self.failed > 0 && self.failed as f64 > self.max_failure_ratio * events as f64;
        let over = now >= self.until;
        if let Some(reason) = self.hindered.as_ref().filter(|_| over && events == 0) {
            let trouble = format!("it was never tried: {reason}");
            return Judgement::Failed(Cause::Trouble(trouble));
        }
        match too_many {
            true if over || stuck || events >= FEWEST => Judgement::Failed(Cause::Failures {
                failed: self.failed,
                events,
                max_ratio: self.max_failure_ratio,
            }),
            false if over => Judgement::Passed,
            _ => Judgement::GoesOn,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const SETTINGS: Deploy = Deploy {
        shadow: 0,
        probation: Duration::from_secs(30),
        max_failure_ratio: 0.1,
        state_version: 1,
    };

    fn failed(failed: u64, events: u64) -> Judgement {
        Judgement::Failed(Cause::Failures {
            failed,
            events,
            max_ratio: 0.1,
        })
    }

    fn counted(handled: u64, failed: u64) -> (Probation, Instant) {
        let now = Instant::now();
        let mut probation = Probation::begin(SETTINGS, now).unwrap();
        probation.count(handled, failed);
        (probation, now)
    }

    #[tokio::test(start_paused = true)]
    async fn without_a_time_there_is_none() {
        assert!(Probation::begin(Deploy::default(), Instant::now()).is_none());
    }

    /// One poison among the first events would take a good version back.
    #[tokio::test(start_paused = true)]
    async fn few_events_judge_nothing_while_more_come() {
        let (probation, now) = counted(3, 1);
        assert_eq!(probation.judge(now, false), Judgement::GoesOn);
        let (probation, now) = counted(15, 5);
        assert_eq!(probation.judge(now, false), failed(5, 20));
    }

    /// With order by partition the first event that fails holds all behind it: waiting for twenty
    /// would stand still until the end.
    #[tokio::test(start_paused = true)]
    async fn what_stands_still_is_judged_by_what_there_is() {
        let (probation, now) = counted(0, 1);
        assert_eq!(probation.judge(now, true), failed(1, 1));
        let (probation, now) = counted(40, 1);
        assert_eq!(probation.judge(now, true), Judgement::GoesOn);
    }

    #[tokio::test(start_paused = true)]
    async fn the_ratio_itself_is_allowed() {
        let (probation, now) = counted(90, 10);
        let end = now + SETTINGS.probation;
        assert_eq!(probation.judge(now, false), Judgement::GoesOn);
        assert_eq!(probation.judge(end, false), Judgement::Passed);
        let (probation, _) = counted(89, 10);
        assert_eq!(probation.judge(end, false), failed(10, 99));
    }

    /// What its `init` needs was down all the time: trusted without an event it would then fail them.
    #[tokio::test(start_paused = true)]
    async fn who_was_never_tried_has_proved_nothing() {
        let (mut probation, now) = counted(0, 0);
        let end = now + SETTINGS.probation;
        probation.hindered("the plugin is unavailable: no connection".to_owned());
        assert_eq!(probation.judge(now, false), Judgement::GoesOn);
        let trouble = "it was never tried: the plugin is unavailable: no connection";
        let failed = Judgement::Failed(Cause::Trouble(trouble.to_owned()));
        assert_eq!(probation.judge(end, false), failed);
        probation.count(1, 0);
        assert_eq!(probation.judge(end, false), Judgement::Passed);
    }

    #[tokio::test(start_paused = true)]
    async fn at_its_end_few_events_are_enough() {
        let (probation, now) = counted(3, 1);
        assert_eq!(
            probation.judge(now + SETTINGS.probation, false),
            failed(1, 4)
        );
        let (probation, now) = counted(0, 0);
        assert_eq!(
            probation.judge(now + SETTINGS.probation, false),
            Judgement::Passed
        );
    }
}
