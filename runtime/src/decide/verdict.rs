//! What becomes of each event of a batch once the plugin has answered.
//!
//! ```text
//! partition  [ok][ok][retry][ok][ok]      key  [a ok][b retry][a ok][b ok]
//!             ✓   ✓    ↻     ⟲   ⟲               ✓      ↻       ✓     ⟲
//! ```
//!
//! A non-final event cuts the batch: what it must not be overtaken by comes again (⟲), with no
//! attempt counted, and its outputs of this call are discarded.

use crate::mutation::{self, Mutation};

/// What the plugin said of one event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Said {
    /// Handled, with or without outputs.
    Handled,
    /// Beyond `handled`.
    Unanswered,
    Reject,
    Retry,
}

/// What becomes of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Its outputs are taken; it is settled with its unit.
    Take,
    /// It goes to the dead letters and is settled with its unit.
    DeadLetter,
    /// It failed for good and there is no dead-letter topic: its partition halts at it.
    Halt,
    /// It failed for good by the word of a version on probation: it waits for the judgement.
    Keep,
    /// After backoff.
    Retry,
    /// As soon as its lane's turn comes; no attempt is counted.
    Again,
}

impl Verdict {
    /// Whether the event is settled by its unit.
    pub fn is_final(self) -> bool {
        matches!(self, Self::Take | Self::DeadLetter)
    }
}

/// What becomes of an event that failed for good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ForGood {
    DeadLetter,
    Halt,
    Keep,
}

impl ForGood {
    fn verdict(self) -> Verdict {
        match self {
            Self::DeadLetter => Verdict::DeadLetter,
            Self::Halt => Verdict::Halt,
            Self::Keep => Verdict::Keep,
        }
    }
}

/// What becomes of an event that asks to be tried again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Plea {
    Granted,
    /// No attempt is left.
    Exhausted,
    /// Not the event is at fault: it comes again, and no attempt is counted.
    Stays,
}

/// Decides over a batch, in order.
///
/// * `said(index)`: the plugin's word for the event.
/// * `scope(index)`: what may not overtake the event when it fails: a number that all events of
///   the partition (or of the key) share, or `None` where it holds nobody.
/// * `plea(index, coped)`: what becomes of an event that asks for a retry; `coped` says how many
///   events before it the plugin handled or rejected. Asked once an event, in order.
/// * `for_good`: what becomes of events that fail for good.
pub fn verdicts(
    events: usize,
    said: impl Fn(usize) -> Said,
    scope: impl Fn(usize) -> Option<u64>,
    mut plea: impl FnMut(usize, usize) -> Plea,
    for_good: ForGood,
) -> Vec<Verdict> {
    let mut cut: Vec<u64> = Vec::new();
    let mut halted = false;
    let mut coped = 0;
    (0..events)
        .map(|index| {
            let behind_a_cut =
                || !cut.is_empty() && scope(index).is_some_and(|scope| cut.contains(&scope));
            if halted || behind_a_cut() {
                return Verdict::Again;
            }
            let said = said(index);
            let verdict = match said {
                Said::Handled => Verdict::Take,
                Said::Unanswered => Verdict::Again,
                Said::Reject => for_good.verdict(),
                Said::Retry => match plea(index, coped) {
                    Plea::Granted => Verdict::Retry,
                    Plea::Exhausted => for_good.verdict(),
                    Plea::Stays => Verdict::Again,
                },
            };
            coped += usize::from(matches!(said, Said::Handled | Said::Reject));
            if !verdict.is_final() && !mutation::is(Mutation::BatchNotCut) {
                cut.extend(scope(index));
            }
            halted |= verdict == Verdict::Halt;
            verdict
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::Said::*;
    use super::Verdict::*;
    use super::*;

    fn decide(said: &[Said], scopes: &[Option<u64>], for_good: ForGood) -> Vec<Verdict> {
        verdicts(
            said.len(),
            |index| said[index],
            |index| scopes[index],
            |_, _| Plea::Granted,
            for_good,
        )
    }

    #[test]
    fn in_a_partition_nothing_overtakes_a_retry() {
        let scopes = [Some(0); 4];
        assert_eq!(
            decide(
                &[Handled, super::Said::Retry, Handled, Reject],
                &scopes,
                ForGood::DeadLetter
            ),
            [Take, super::Verdict::Retry, Again, Again]
        );
    }

    #[test]
    fn with_keys_only_the_same_key_waits() {
        let scopes = [Some(1), Some(2), Some(1), Some(2), None];
        assert_eq!(
            decide(
                &[Handled, super::Said::Retry, Handled, Handled, Handled],
                &scopes,
                ForGood::DeadLetter
            ),
            [Take, super::Verdict::Retry, Take, Again, Take]
        );
    }

    #[test]
    fn without_order_nothing_waits() {
        assert_eq!(
            decide(
                &[super::Said::Retry, Handled, Reject],
                &[None; 3],
                ForGood::DeadLetter
            ),
            [super::Verdict::Retry, Take, DeadLetter]
        );
    }

    /// A later event of the key that was answered while an earlier one was not would overtake it.
    #[test]
    fn an_unanswered_event_cuts_as_a_retry_does() {
        let scopes = [Some(0); 3];
        assert_eq!(
            decide(
                &[Handled, Unanswered, Unanswered],
                &scopes,
                ForGood::DeadLetter
            ),
            [Take, Again, Again]
        );
    }

    #[test]
    fn the_last_attempt_is_final_and_cuts_nothing() {
        let found = verdicts(
            2,
            |i| [super::Said::Retry, Handled][i],
            |_| Some(0),
            |_, _| Plea::Exhausted,
            ForGood::DeadLetter,
        );
        assert_eq!(found, [DeadLetter, Take]);
    }

    /// In an outage nothing behind an event that stays may overtake it.
    #[test]
    fn an_event_that_stays_cuts_and_is_told_what_went_well_before_it() {
        let said = [Handled, Reject, super::Said::Retry, Handled];
        let mut asked = Vec::new();
        let found = verdicts(
            4,
            |i| said[i],
            |_| Some(0),
            |index, coped| {
                asked.push((index, coped));
                Plea::Stays
            },
            ForGood::DeadLetter,
        );
        assert_eq!(found, [Take, DeadLetter, Again, Again]);
        assert_eq!(asked, [(2, 2)]);
    }

    #[test]
    fn without_a_dead_letter_topic_the_partition_halts_whatever_the_order() {
        assert_eq!(
            decide(&[Handled, Reject, Handled], &[None; 3], ForGood::Halt),
            [Take, Halt, Again]
        );
    }

    /// What a version on probation rejects may be good: nothing behind it may overtake it.
    #[test]
    fn what_is_kept_cuts_as_a_retry_does() {
        let scopes = [Some(1), Some(2), Some(1)];
        assert_eq!(
            decide(&[Reject, Handled, Handled], &scopes, ForGood::Keep),
            [Keep, Take, Again]
        );
    }
}
