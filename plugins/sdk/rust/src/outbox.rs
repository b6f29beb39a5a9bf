//! What goes out: derived events, written straight into the answer's arena.
//!
//! ```text
//! out.to(alerts) ─▶ Draft ── header, key, timestamp ─▶ json | text | bytes | forward | tombstone
//!                     │ header records, bytes              │ closes the output
//!                     ▼                                    ▼
//!  outcome: [ finished outputs of finished events | of the current event | the open draft ]
//!                                                 ▲ `event`              ▲ `closed`
//! ```
//! A draft that is dropped is cut back to `closed`, an event that fails to `event`.

use std::ops::Range;

use millstream_wire as wire;
use serde::Serialize;

use crate::event::Events;
use crate::setup::find;
use crate::{Draft, Error, Result};

/// An output of the consumer, from [`Setup::output`](crate::Setup::output).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Output(u32);

impl Output {
    pub(crate) fn at(index: u32) -> Self {
        Self(index)
    }
}

/// Takes what an event becomes. Nothing written and no error: the event is dropped.
///
/// The methods without [`Outbox::to`] write to the main output: the one named `default`, else the
/// first.
#[derive(Debug)]
pub struct Outbox {
    pub(crate) outcome: wire::Outcome,
    outputs: Vec<String>,
    main: Option<Output>,
    source: u32,
    /// Where the batch's bytes lie in memory.
    batch: Range<usize>,
    /// What finished events wrote.
    event: Mark,
    /// What finished outputs of the current event wrote besides.
    pub(crate) closed: Mark,
    /// Bytes of the answer before this one, to make room at once.
    expected: usize,
}

/// Lengths of the outcome's lists.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Mark {
    outputs: usize,
    pub(crate) headers: usize,
    data: usize,
}

impl Outbox {
    /// An outbox for a consumer with outputs of these names.
    pub(crate) fn new(outputs: Vec<String>) -> Self {
        let main = match outputs.iter().position(|name| name == "default") {
            Some(index) => Some(Output(index as u32)),
            None => (!outputs.is_empty()).then_some(Output(0)),
        };
        Self {
            outcome: wire::Outcome::default(),
            outputs,
            main,
            source: 0,
            batch: 0..0,
            event: Mark::default(),
            closed: Mark::default(),
            expected: 0,
        }
    }

    /// Starts a derived event for this output. It has key, value and headers of its source until
    /// told otherwise.
    pub fn to(&mut self, output: Output) -> Draft<'_> {
        self.cut(self.closed);
        let record = wire::Output {
            source: self.source,
            output: output.0,
            headers_start: self.closed.headers as u32,
            ..wire::Output::default()
        };
        Draft::new(self, record)
    }

    /// The same by name, for plugins without an `init` to look it up in.
    ///
    /// # Errors
    /// The consumer has no such output: halts, for every event would go wrong.
    pub fn to_named(&mut self, name: &str) -> Result<Draft<'_>> {
        let output = find(&self.outputs, name)?;
        Ok(self.to(output))
    }

    /// Derives an event with this value as JSON to the main output.
    ///
    /// # Errors
    /// As for [`Draft::json`].
    pub fn json<T: Serialize + ?Sized>(&mut self, value: &T) -> Result {
        self.main()?.json(value)
    }

    /// Derives an event with this text as its value to the main output.
    ///
    /// # Errors
    /// As for [`Draft::bytes`].
    pub fn text(&mut self, value: &str) -> Result {
        self.main()?.text(value)
    }

    /// Derives an event with these bytes as its value to the main output.
    ///
    /// # Errors
    /// As for [`Draft::bytes`].
    pub fn bytes(&mut self, value: &[u8]) -> Result {
        self.main()?.bytes(value)
    }

    /// Passes the event on to the main output as it is; nothing is copied.
    ///
    /// # Errors
    /// As for [`Draft::forward`].
    pub fn forward(&mut self) -> Result {
        self.main()?.forward()
    }

    /// Derives an event with a null value to the main output: it deletes the key downstream.
    ///
    /// # Errors
    /// As for [`Draft::tombstone`].
    pub fn tombstone(&mut self) -> Result {
        self.main()?.tombstone()
    }

    fn main(&mut self) -> Result<Draft<'_>> {
        match self.main {
            Some(output) => Ok(self.to(output)),
            None => Err(Error::halt(
                "no-output",
                "the consumer has no output; add one to its `outputs`",
            )),
        }
    }

    /// Starts the answer to a batch.
    pub(crate) fn begin(&mut self, events: Events<'_>) {
        self.outcome = wire::Outcome {
            outputs: Vec::with_capacity(events.len()),
            data: Vec::with_capacity(self.expected),
            ..wire::Outcome::default()
        };
        self.batch = events.addresses();
        self.event = Mark::default();
        self.closed = Mark::default();
    }

    /// What is written from now on derives from the event at this index.
    pub(crate) fn begin_event(&mut self, index: u32) {
        self.source = index;
    }

    /// The current event is done: what it wrote stays.
    pub(crate) fn keep_event(&mut self) {
        self.cut(self.closed);
        self.event = self.closed;
    }

    /// The event failed: what it wrote is taken back, and the answer says so instead.
    pub(crate) fn fail_event(&mut self, index: u32, error: &Error) {
        self.cut(self.event);
        let code = self.append(error.code().as_bytes());
        let reason = self.append(kept(error.reason()).as_bytes());
        self.outcome.failures.push(wire::Failure {
            event: index,
            remedy: match error.remedy() {
                wire::Remedy::Reject => wire::REMEDY_REJECT,
                wire::Remedy::Retry => wire::REMEDY_RETRY,
                wire::Remedy::Unavailable => wire::REMEDY_UNAVAILABLE,
                wire::Remedy::Halt => wire::REMEDY_HALT,
            },
            after_ms: error.after_ms(),
            code,
            reason,
        });
        self.event = self.mark();
        self.closed = self.event;
    }

    /// The answer: so many events are handled.
    pub(crate) fn finish(&mut self, handled: u32) -> wire::Outcome {
        let mut outcome = std::mem::take(&mut self.outcome);
        outcome.handled = handled;
        self.expected = outcome.data.len();
        self.batch = 0..0;
        outcome
    }

    pub(crate) fn mark(&self) -> Mark {
        Mark {
            outputs: self.outcome.outputs.len(),
            headers: self.outcome.headers.len(),
            data: self.outcome.data.len(),
        }
    }

    fn cut(&mut self, mark: Mark) {
        self.outcome.outputs.truncate(mark.outputs);
        self.outcome.headers.truncate(mark.headers);
        self.outcome.data.truncate(mark.data);
    }

    pub(crate) fn append(&mut self, bytes: &[u8]) -> wire::Span {
        let start = self.outcome.data.len() as u32;
        self.outcome.data.extend_from_slice(bytes);
        wire::Span {
            start,
            length: bytes.len() as u32,
        }
    }

    /// Where these bytes are to be found: in the batch where they are a slice of it, which costs
    /// no copy in either direction; else appended.
    pub(crate) fn place(&mut self, bytes: &[u8]) -> (wire::Part, wire::Span) {
        let start = bytes.as_ptr().addr();
        let within = start >= self.batch.start
            && start
                .checked_add(bytes.len())
                .is_some_and(|end| end <= self.batch.end);
        if within && !bytes.is_empty() {
            let span = wire::Span {
                start: (start - self.batch.start) as u32,
                length: bytes.len() as u32,
            };
            return (wire::Part::Batch, span);
        }
        (wire::Part::Outcome, self.append(bytes))
    }
}

/// The start of a reason that the runtime keeps.
fn kept(reason: &str) -> &str {
    let mut end = reason.len().min(wire::REASON_KEPT);
    while !reason.is_char_boundary(end) {
        end -= 1;
    }
    &reason[..end]
}
