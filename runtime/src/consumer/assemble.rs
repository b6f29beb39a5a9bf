//! From a plugin's answer to what follows from it: records to write, and the fate of each event.
//!
//! ```text
//! work + checked outcome ─▶ verdicts ─▶ derived events ─┐
//! work + failed call ─────▶ backoff ──▶ dead letters ───┼─▶ Answer { records, fates, … } ─▶ lane, writer
//! ```

use std::time::Duration;

use millstream_wire as wire;
use tokio::time::Instant;

use super::dead_letter::{self, Reason};
use super::derive::{self, Derived, Deriver, OwnHeader};
use super::generation::Generation;
use super::guard::Witness;
use super::lane::scope;
use super::work::{Item, Work};
use crate::config::{Consumer, Delivery};
use crate::decide::backoff::{self, Next};
use crate::decide::breaker::Sentence;
use crate::decide::verdict::{self, ForGood, Plea, Said, Verdict};
use crate::metrics::Outcome;
use crate::mutation::{self, Mutation};
use crate::plugin::CallError;
use crate::records::Records;

/// What follows from one call.
#[derive(Debug, Default)]
pub struct Answer {
    pub records: Records,
    /// By event of the work, in order.
    pub fates: Vec<Fate>,
    /// Derived events by index of the output.
    pub produced: Vec<Produced>,
    /// Attempts that failed, by kind.
    pub failures: Vec<(&'static str, u64)>,
    /// What the plugin said of the last attempt that failed.
    pub complaint: Option<String>,
    /// What every event needs is down: no call for this long.
    pub unavailable: Option<Unavailable>,
    /// The plugin says that going on would do harm.
    pub stop: Option<String>,
}

/// Derived events of one output.
#[derive(Clone, Copy, Debug, Default)]
pub struct Produced {
    pub events: u64,
    pub bytes: u64,
}

/// What the plugin said when it found that nothing can be processed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unavailable {
    /// Zero leaves it to the runtime.
    pub after: Duration,
    pub reason: String,
}

/// What becomes of an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fate {
    Settled(Outcome, Option<Reason>),
    /// Back to its lane; no attempt is counted.
    Again,
    /// Back to its lane until this time, as this item.
    Retry(RetryAt),
    /// Its partition halts at it.
    Halt(String),
    /// It failed for good, for this reason, by a version on probation: another one may handle it.
    Kept(String),
    /// It is neither processed nor dead-lettered, for this reason (at most once).
    Lost(String),
}

/// A retry: when, and what the event has been through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetryAt {
    pub at: Instant,
    pub attempt: u32,
    pub failing_since: Instant,
}

/// What one call is made and answered with.
pub struct Context<'a> {
    pub generation: &'a Generation,
    pub now: Instant,
    pub now_ms: i64,
    /// A random number from 0 to 1, for the jitter.
    pub dice: f64,
}

impl Context<'_> {
    fn settings(&self) -> &Consumer {
        &self.generation.settings
    }

    fn is_claimed(&self) -> bool {
        self.settings().delivery == Delivery::AtMostOnce
    }

    /// What becomes of events that fail for good. What is claimed (at most once) has moved its
    /// position already, and nobody is called for it again.
    fn for_good(&self) -> ForGood {
        let settings = self.settings();
        match settings.dead_letter.is_some() || self.is_claimed() {
            _ if self.keeps() => ForGood::Keep,
            true => ForGood::DeadLetter,
            false => ForGood::Halt,
        }
    }

    /// Whether an event that fails for good is kept.
    fn keeps(&self) -> bool {
        self.generation.is_on_probation()
            && !self.is_claimed()
            && !mutation::is(Mutation::ProbationGivesUp)
    }

    fn after_failure(&self, item: &Item, at_least: Duration) -> Next {
        if self.is_claimed() {
            return Next::GiveUp;
        }
        let failing = item
            .failing_since
            .map_or(Duration::ZERO, |since| self.now - since);
        backoff::after_failure(
            &self.settings().retry,
            item.attempt,
            failing,
            at_least,
            self.dice,
        )
    }

    fn retry(&self, item: &Item, after: Duration) -> Fate {
        Fate::Retry(RetryAt {
            at: self.now + after,
            attempt: item.attempt.saturating_add(1),
            failing_since: item.failing_since.unwrap_or(self.now),
        })
    }

    /// Tried again once the breaker lets it, with its attempts as they were. It waits a little
    /// longer than that, so that events that it may not hold back are tried before it. Its age
    /// begins anew: the time of an outage is not its own.
    fn stays(&self, item: &Item, at: Instant) -> Fate {
        let settings = self.settings();
        Fate::Retry(RetryAt {
            at: at.max(self.now) + backoff::delay(&settings.retry, item.attempt, self.dice),
            attempt: item.attempt,
            failing_since: self.now,
        })
    }

    /// Writes the dead letter, or halts where there is no topic for it.
    fn fail_for_good(
        &self,
        records: &mut Records,
        work: &Work,
        index: usize,
        failure: dead_letter::Failure,
    ) -> Fate {
        let event = work.event(index);
        let Some(dead_letter) = &self.settings().dead_letter else {
            if self.is_claimed() {
                let (reason, error) = (failure.reason.name(), &failure.error);
                return Fate::Lost(format!("{reason}: {error}"));
            }
            return Fate::Halt(format!(
                "{}/{} failed for good ({}{}{}): {}; name a dead_letter topic for such events, or mend the plugin",
                event.source(),
                event.offset(),
                failure.reason.name(),
                if failure.code.is_empty() {
                    ""
                } else {
                    ", code "
                },
                failure.code,
                dead_letter::cut(&failure.error, dead_letter::ERROR_LIMIT),
            ));
        };
        let consumer = &self.settings().name;
        let digest = self.generation.digest();
        dead_letter::push(
            records,
            &dead_letter.topic,
            consumer,
            digest,
            &event,
            self.settings().is_replay_topic(&event.source().topic),
            &failure,
        );
        Fate::Settled(Outcome::DeadLettered, Some(failure.reason))
    }

    fn first_seen_ms(&self, item: &Item) -> i64 {
        let failing = item.failing_since.map_or(0, |since| {
            i64::try_from((self.now - since).as_millis()).unwrap_or(i64::MAX)
        });
        self.now_ms.saturating_sub(failing)
    }
}

/// What follows from an answered call.
pub fn answered(
    context: &Context<'_>,
    work: &Work,
    batch: &wire::Batch<'_>,
    checked: &wire::Checked,
    witness: &Witness,
) -> Answer {
    let outcome = checked.outcome();
    let said = Words::new(work.len(), outcome);
    let ordering = context.settings().ordering;
    let mut hearing = witness.hearing(context.now);
    let mut stay = Vec::new();
    let verdicts = verdict::verdicts(
        work.len(),
        |index| said.of(index),
        |index| scope(ordering, &work.event(index)),
        |index, coped| {
            let after = said.failure(index).map_or(Duration::ZERO, after);
            let exhausted = context.after_failure(&work.items[index], after) == Next::GiveUp;
            hearing.coped(coped);
            match hearing.failed(work.event(index).offset(), true, exhausted) {
                Sentence::Stays if !context.is_claimed() => {
                    stay.push((index, hearing.again_at()));
                    Plea::Stays
                }
                _ if exhausted => Plea::Exhausted,
                _ => Plea::Granted,
            }
        },
        context.for_good(),
    );
    hearing.coped(coped(&verdicts, &said));
    drop(hearing);
    let mut answer = Answer {
        produced: vec![Produced::default(); context.settings().outputs.len()],
        ..Answer::default()
    };
    let emitted = derive_all(context, &mut answer, work, batch, outcome, &verdicts);
    for (index, verdict) in verdicts.iter().enumerate() {
        let fate = match verdict {
            Verdict::Take if emitted[index] => Fate::Settled(Outcome::Ok, None),
            Verdict::Take => Fate::Settled(Outcome::Dropped, None),
            Verdict::Again => Fate::Again,
            Verdict::Retry | Verdict::DeadLetter | Verdict::Halt | Verdict::Keep => {
                failed(context, &mut answer, work, index, outcome, &said)
            }
        };
        answer.fates.push(fate);
    }
    if !stay.is_empty() {
        answer.failures.push(("retry", stay.len() as u64));
    }
    for (index, at) in stay {
        answer.fates[index] = context.stays(&work.items[index], at);
    }
    answer.complaint = complaint(outcome);
    stop_or_wait(&mut answer, outcome);
    answer
}

/// How many events the plugin handled or rejected, those that come again left out.
fn coped(verdicts: &[Verdict], said: &Words<'_>) -> usize {
    let coped = |(index, verdict): &(usize, &Verdict)| {
        let good = matches!(said.of(*index), Said::Handled | Said::Reject);
        good && **verdict != Verdict::Again
    };
    verdicts.iter().enumerate().filter(coped).count()
}

/// What the plugin said of the last event that may succeed later.
fn complaint(outcome: &wire::Outcome) -> Option<String> {
    let mut failures = outcome.failures.iter().rev();
    let failure = failures.find(|failure| failure.remedy == wire::REMEDY_RETRY)?;
    Some(text(outcome, failure.reason))
}

/// What follows from a call that failed. A batch of several is run again event by event: nobody
/// knows yet who is at fault.
pub fn call_failed(
    context: &Context<'_>,
    work: &Work,
    error: &CallError,
    witness: &Witness,
) -> Answer {
    let mut answer = Answer::default();
    if work.len() > 1 && context.is_claimed() {
        // Any of them may have had its effect already.
        let lost = Fate::Lost(format!("the call for its batch failed: {error}"));
        answer.fates = vec![lost; work.len()];
        answer.failures.push((error.kind(), 1));
        return answer;
    }
    if work.len() > 1 && !mutation::is(Mutation::WholeBatchBlamed) {
        answer.fates = vec![Fate::Again; work.len()];
        return answer;
    }
    for index in 0..work.len() {
        let fate = blame(context, &mut answer, work, index, error, witness);
        answer.fates.push(fate);
    }
    answer
}

/// What becomes of an event whose call failed.
fn blame(
    context: &Context<'_>,
    answer: &mut Answer,
    work: &Work,
    index: usize,
    error: &CallError,
    witness: &Witness,
) -> Fate {
    let item = &work.items[index];
    answer.failures.push((error.kind(), 1));
    answer.complaint = Some(error.to_string());
    let next = match mutation::is(Mutation::WholeBatchBlamed) {
        true => Next::GiveUp,
        false => context.after_failure(item, Duration::ZERO),
    };
    let first = item.failing_since.is_none();
    let mut hearing = witness.hearing(context.now);
    let offset = work.event(index).offset();
    let sentence = hearing.failed(offset, first, next == Next::GiveUp);
    let again_at = hearing.again_at();
    drop(hearing);
    match next {
        _ if context.keeps() => Fate::Kept(error.to_string()),
        _ if sentence == Sentence::Stays && !context.is_claimed() => context.stays(item, again_at),
        Next::Again(after) => context.retry(item, after),
        Next::GiveUp => {
            let reason = match error {
                CallError::Trap(_) => Reason::Trap,
                CallError::Deadline(_) => Reason::Deadline,
                CallError::Memory(_) => Reason::Memory,
                CallError::Invalid(_) => Reason::Invalid,
            };
            let failure = dead_letter::Failure {
                reason,
                code: String::new(),
                error: error.to_string(),
                attempts: item.attempt,
                first_seen_ms: context.first_seen_ms(item),
            };
            context.fail_for_good(&mut answer.records, work, index, failure)
        }
    }
}

/// Dead-letters the only event of `work` for a reason that no call is needed for.
pub fn refused(context: &Context<'_>, work: &Work, reason: Reason, error: String) -> Answer {
    let mut answer = Answer::default();
    let failure = dead_letter::Failure {
        reason,
        code: String::new(),
        error,
        attempts: 0,
        first_seen_ms: context.now_ms,
    };
    let fate = context.fail_for_good(&mut answer.records, work, 0, failure);
    answer.fates.push(fate);
    answer
}

/// The plugin's word for each event.
struct Words<'a> {
    handled: usize,
    /// By event.
    failures: Vec<Option<&'a wire::Failure>>,
}

impl<'a> Words<'a> {
    fn new(events: usize, outcome: &'a wire::Outcome) -> Self {
        let mut failures = Vec::new();
        if !outcome.failures.is_empty() {
            failures.resize(events, None);
            for failure in &outcome.failures {
                if let Some(slot) = failures.get_mut(failure.event as usize) {
                    *slot = Some(failure);
                }
            }
        }
        Self {
            handled: outcome.handled as usize,
            failures,
        }
    }

    fn failure(&self, index: usize) -> Option<&'a wire::Failure> {
        self.failures.get(index).copied().flatten()
    }

    fn of(&self, index: usize) -> Said {
        if index >= self.handled {
            return Said::Unanswered;
        }
        match self.failure(index).map(|failure| failure.remedy) {
            None => Said::Handled,
            Some(wire::REMEDY_REJECT) => Said::Reject,
            Some(wire::REMEDY_RETRY) => Said::Retry,
            Some(_) => Said::Unanswered,
        }
    }
}

fn after(failure: &wire::Failure) -> Duration {
    Duration::from_millis(u64::from(failure.after_ms))
}

fn text(outcome: &wire::Outcome, span: wire::Span) -> String {
    String::from_utf8_lossy(span.of(&outcome.data).unwrap_or_default()).into_owned()
}

/// Writes the derived events of all taken events; says which events have some.
fn derive_all(
    context: &Context<'_>,
    answer: &mut Answer,
    work: &Work,
    batch: &wire::Batch<'_>,
    outcome: &wire::Outcome,
    verdicts: &[Verdict],
) -> Vec<bool> {
    let settings = context.settings();
    let mut deriver = Deriver::new(
        &settings.name,
        work.is_of(|topic| settings.is_replay_topic(topic)),
        context.now_ms,
    );
    let mut emitted = vec![false; work.len()];
    let mut own: Vec<OwnHeader<'_>> = Vec::new();
    derive::reserve(&mut answer.records, outcome, work);
    let (mut last, mut number) = (usize::MAX, 0);
    let last_handled = (outcome.handled as usize).saturating_sub(1);
    for output in &outcome.outputs {
        let inherits = output.source != wire::SOURCE_BATCH;
        let source = if inherits {
            output.source as usize
        } else {
            last_handled
        };
        number = if source == last { number + 1 } else { 0 };
        last = source;
        if verdicts.get(source) != Some(&Verdict::Take) {
            continue;
        }
        emitted[source] = true;
        let target = &settings.outputs[output.output as usize];
        let Some(topic) = &target.topic else {
            continue;
        };
        let event = work.event(source);
        own.clear();
        let start = output.headers_start as usize;
        for header in &outcome.headers[start..start + output.headers_count as usize] {
            let value = header.value.of(&outcome.data).unwrap_or_default();
            let null = header.bits & wire::HEADER_VALUE_NULL != 0;
            own.push((
                header.name.of(&outcome.data).unwrap_or_default(),
                (!null).then_some(value),
            ));
        }
        let part = |part: wire::Part, span: wire::Span, inherited: Option<_>| match part {
            wire::Part::Source => inherited,
            wire::Part::Null => None,
            wire::Part::Outcome => span.of(&outcome.data),
            wire::Part::Batch => span.of(batch.data),
        };
        let derived = Derived {
            key: part(output.key_part(), output.key, event.key()),
            value: part(output.value_part(), output.value, event.value()),
            value_changed: output.value_part() != wire::Part::Source,
            timestamp_ms: (output.edit & wire::EDIT_TIMESTAMP != 0).then_some(output.timestamp_ms),
            edit: output.header_edit().unwrap_or(wire::HeaderEdit::Keep),
            own: &own,
            number,
            inherits,
        };
        let before = answer.records.len();
        deriver.push(&mut answer.records, topic, &event, &derived);
        let produced = &mut answer.produced[output.output as usize];
        produced.events += 1;
        produced.bytes += answer.records.get(before).bytes() as u64;
    }
    emitted
}

/// The fate of an event that the plugin said failed.
fn failed(
    context: &Context<'_>,
    answer: &mut Answer,
    work: &Work,
    index: usize,
    outcome: &wire::Outcome,
    said: &Words<'_>,
) -> Fate {
    let item = &work.items[index];
    let Some(failure) = said.failure(index) else {
        return Fate::Again;
    };
    let reason = if failure.remedy == wire::REMEDY_REJECT {
        answer.failures.push(("reject", 1));
        Reason::Rejected
    } else {
        answer.failures.push(("retry", 1));
        if let Next::Again(wait) = context.after_failure(item, after(failure)) {
            return context.retry(item, wait);
        }
        Reason::RetriesExhausted
    };
    if context.keeps() {
        let (reason, error) = (reason.name(), text(outcome, failure.reason));
        return Fate::Kept(format!("{reason}: {error}"));
    }
    let failure = dead_letter::Failure {
        reason,
        code: text(outcome, failure.code),
        error: text(outcome, failure.reason),
        attempts: item.attempt,
        first_seen_ms: context.first_seen_ms(item),
    };
    context.fail_for_good(&mut answer.records, work, index, failure)
}

fn stop_or_wait(answer: &mut Answer, outcome: &wire::Outcome) {
    for failure in &outcome.failures {
        match failure.remedy {
            wire::REMEDY_UNAVAILABLE => {
                answer.failures.push(("unavailable", 1));
                answer.unavailable = Some(Unavailable {
                    after: after(failure),
                    reason: text(outcome, failure.reason),
                });
            }
            wire::REMEDY_HALT => answer.stop = Some(text(outcome, failure.reason)),
            _ => {}
        }
    }
}

/// A unit's place among a consumer's: enough to name it in a log.
pub fn describe(work: &Work) -> String {
    let Some(last) = work.len().checked_sub(1) else {
        return "nothing".into();
    };
    let (first, last) = (work.event(0), work.event(last));
    format!("{}/{}..={}", first.source(), first.offset(), last.offset())
}
