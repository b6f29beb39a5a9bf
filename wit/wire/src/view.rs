//! A checked outcome as records: what each output and each failure says, resolved.

use crate::check::{Checked, kept_reason, slice};
use crate::types::{
    Batch, EDIT_TIMESTAMP, EVENT_KEY_NULL, EVENT_VALUE_NULL, Event, Failure, HEADER_VALUE_NULL,
    Header, HeaderEdit, Outcome, Output, Part, REMEDY_HALT, REMEDY_RETRY, REMEDY_UNAVAILABLE,
    SOURCE_BATCH, Span,
};

impl Checked {
    /// How many of the first events of the batch it answers.
    pub fn handled(&self) -> u32 {
        self.outcome().handled
    }

    /// The derived events, in order of their sources; those of failed events are among them and are
    /// to be left out.
    pub fn outputs(&self) -> impl ExactSizeIterator<Item = OutputView<'_>> {
        let outcome = self.outcome();
        outcome
            .outputs
            .iter()
            .map(move |record| OutputView { record, outcome })
    }

    /// The failed events, in order.
    pub fn failures(&self) -> impl ExactSizeIterator<Item = FailureView<'_>> {
        let outcome = self.outcome();
        outcome
            .failures
            .iter()
            .map(move |record| FailureView { record, outcome })
    }

    /// How the event at this index of the batch failed, if it did.
    pub fn failure(&self, event: u32) -> Option<FailureView<'_>> {
        let outcome = self.outcome();
        let index = outcome
            .failures
            .binary_search_by_key(&event, |failure| failure.event)
            .ok()?;
        let record = outcome.failures.get(index)?;
        Some(FailureView { record, outcome })
    }
}

/// A derived event of a checked outcome. The methods that take the batch want the one that the
/// outcome was checked against.
#[derive(Clone, Copy, Debug)]
pub struct OutputView<'a> {
    record: &'a Output,
    outcome: &'a Outcome,
}

impl<'a> OutputView<'a> {
    /// The record as the plugin wrote it.
    pub fn record(&self) -> &'a Output {
        self.record
    }

    /// Index of the event that it derives from; `None` is the batch as a whole.
    pub fn source(&self) -> Option<u32> {
        (self.record.source != SOURCE_BATCH).then_some(self.record.source)
    }

    /// Index of the event with which it takes effect: its source, or the last handled event where
    /// it derives from the batch.
    pub fn takes_effect_with(&self) -> u32 {
        self.source()
            .unwrap_or_else(|| self.outcome.handled.saturating_sub(1))
    }

    /// Index of the consumer's output that it goes to.
    pub fn output(&self) -> u32 {
        self.record.output
    }

    /// Milliseconds since 1970-01-01 UTC: its own where it gives one, else that of the event with
    /// which it takes effect.
    pub fn timestamp(&self, batch: &Batch<'a>) -> i64 {
        if self.record.edit & EDIT_TIMESTAMP != 0 {
            return self.record.timestamp_ms;
        }
        batch
            .events
            .get(self.takes_effect_with() as usize)
            .map_or(0, |event| event.timestamp_ms)
    }

    /// The key; `None` is null.
    pub fn key(&self, batch: &Batch<'a>) -> Option<&'a [u8]> {
        self.part(
            batch,
            self.record.key_part(),
            self.record.key,
            |event| event.key,
            EVENT_KEY_NULL,
        )
    }

    /// The value; `None` is null, a tombstone.
    pub fn value(&self, batch: &Batch<'a>) -> Option<&'a [u8]> {
        self.part(
            batch,
            self.record.value_part(),
            self.record.value,
            |event| event.value,
            EVENT_VALUE_NULL,
        )
    }

    /// Whether it brings a value of its own instead of the source's.
    pub fn value_changed(&self) -> bool {
        self.record.value_part() != Part::Source
    }

    /// Header names and values in order: what it inherits, then its own. Those that the runtime
    /// adds are not among them; those that the runtime added to the source are.
    pub fn headers(&self, batch: &Batch<'a>) -> Headers<'a> {
        let edit = self.record.header_edit().unwrap_or(HeaderEdit::Keep);
        let own = match edit {
            HeaderEdit::Keep => &[],
            HeaderEdit::Amend | HeaderEdit::Replace => slice(
                &self.outcome.headers,
                self.record.headers_start,
                self.record.headers_count,
            )
            .unwrap_or_default(),
        };
        let inherited = match (edit, self.event(batch)) {
            (HeaderEdit::Keep | HeaderEdit::Amend, Some(event)) => {
                slice(batch.headers, event.headers_start, event.headers_count).unwrap_or_default()
            }
            _ => &[],
        };
        Headers {
            inherited: inherited.iter(),
            inherited_data: batch.data,
            own: own.iter(),
            named: if edit == HeaderEdit::Amend { own } else { &[] },
            own_data: &self.outcome.data,
        }
    }

    fn event(&self, batch: &Batch<'a>) -> Option<&'a Event> {
        batch.events.get(self.source()? as usize)
    }

    fn part(
        &self,
        batch: &Batch<'a>,
        part: Part,
        span: Span,
        inherited: impl Fn(&Event) -> Span,
        null: u32,
    ) -> Option<&'a [u8]> {
        match part {
            Part::Source => {
                let event = self.event(batch)?;
                (event.bits & null == 0)
                    .then(|| inherited(event).of(batch.data).unwrap_or_default())
            }
            Part::Null => None,
            Part::Outcome => Some(span.of(&self.outcome.data).unwrap_or_default()),
            Part::Batch => Some(span.of(batch.data).unwrap_or_default()),
        }
    }
}

/// The headers of an output, from [`OutputView::headers`].
#[derive(Clone, Debug)]
pub struct Headers<'a> {
    inherited: std::slice::Iter<'a, Header>,
    inherited_data: &'a [u8],
    own: std::slice::Iter<'a, Header>,
    /// The records of an amendment: inherited headers of these names are dropped, and those of
    /// these records that have no value only drop.
    named: &'a [Header],
    own_data: &'a [u8],
}

impl<'a> Iterator for Headers<'a> {
    type Item = (&'a [u8], Option<&'a [u8]>);

    fn next(&mut self) -> Option<Self::Item> {
        for header in self.inherited.by_ref() {
            let (name, value) = resolve(header, self.inherited_data);
            let dropped = self
                .named
                .iter()
                .any(|named| named.name.of(self.own_data) == Some(name));
            if !dropped {
                return Some((name, value));
            }
        }
        for header in self.own.by_ref() {
            let (name, value) = resolve(header, self.own_data);
            if self.named.is_empty() || value.is_some() {
                return Some((name, value));
            }
        }
        None
    }
}

fn resolve<'a>(header: &Header, data: &'a [u8]) -> (&'a [u8], Option<&'a [u8]>) {
    let value =
        (header.bits & HEADER_VALUE_NULL == 0).then(|| header.value.of(data).unwrap_or_default());
    (header.name.of(data).unwrap_or_default(), value)
}

/// What is to be done about an event that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Remedy {
    /// It can never succeed: dead-letter it now.
    Reject,
    /// It may succeed: again after backoff.
    Retry,
    /// What every event needs is down: open the breaker, count no attempt.
    Unavailable,
    /// Going on would do harm: stop the consumer, leave the event unsettled.
    Halt,
}

/// A failed event of a checked outcome.
#[derive(Clone, Copy, Debug)]
pub struct FailureView<'a> {
    record: &'a Failure,
    outcome: &'a Outcome,
}

impl<'a> FailureView<'a> {
    /// Index of the event in the batch.
    pub fn event(&self) -> u32 {
        self.record.event
    }

    /// What is to be done.
    pub fn remedy(&self) -> Remedy {
        match self.record.remedy {
            REMEDY_RETRY => Remedy::Retry,
            REMEDY_UNAVAILABLE => Remedy::Unavailable,
            REMEDY_HALT => Remedy::Halt,
            _ => Remedy::Reject,
        }
    }

    /// Milliseconds before which it makes no sense to try again; 0 leaves it to the configuration.
    pub fn after_ms(&self) -> u32 {
        match self.remedy() {
            Remedy::Retry | Remedy::Unavailable => self.record.after_ms,
            Remedy::Reject | Remedy::Halt => 0,
        }
    }

    /// A stable name to search for; may be empty.
    pub fn code(&self) -> &'a str {
        let bytes = self.record.code.of(&self.outcome.data).unwrap_or_default();
        std::str::from_utf8(bytes).unwrap_or_default()
    }

    /// For a person; cut at [`crate::REASON_KEPT`] bytes.
    pub fn reason(&self) -> &'a str {
        let bytes = self
            .record
            .reason
            .of(&self.outcome.data)
            .unwrap_or_default();
        kept_reason(bytes).unwrap_or_default()
    }
}
