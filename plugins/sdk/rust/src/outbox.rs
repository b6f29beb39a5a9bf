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
use crate::{Error, Result};

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
    outcome: wire::Outcome,
    outputs: Vec<String>,
    main: Option<Output>,
    source: u32,
    /// Where the batch's bytes lie in memory.
    batch: Range<usize>,
    /// What finished events wrote.
    event: Mark,
    /// What finished outputs of the current event wrote besides.
    closed: Mark,
    /// Bytes of the answer before this one, to make room at once.
    expected: usize,
}

/// Lengths of the outcome's lists.
#[derive(Clone, Copy, Debug, Default)]
struct Mark {
    outputs: usize,
    headers: usize,
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
        Draft {
            out: self,
            record,
            replace: false,
            problem: None,
        }
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

    fn mark(&self) -> Mark {
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

    fn append(&mut self, bytes: &[u8]) -> wire::Span {
        let start = self.outcome.data.len() as u32;
        self.outcome.data.extend_from_slice(bytes);
        wire::Span {
            start,
            length: bytes.len() as u32,
        }
    }

    /// Where these bytes are to be found: in the batch where they are a slice of it, which costs
    /// no copy in either direction; else appended.
    fn place(&mut self, bytes: &[u8]) -> (wire::Part, wire::Span) {
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

/// A derived event under construction, from [`Outbox::to`]. It is written by [`Draft::json`],
/// [`Draft::text`], [`Draft::bytes`], [`Draft::forward`] or [`Draft::tombstone`].
#[derive(Debug)]
#[must_use = "nothing goes out before `json`, `text`, `bytes`, `forward` or `tombstone`"]
pub struct Draft<'o> {
    out: &'o mut Outbox,
    record: wire::Output,
    replace: bool,
    problem: Option<Error>,
}

impl Draft<'_> {
    /// Sets a header: those of this name that the source has are dropped. Called again with the same
    /// name it adds another.
    ///
    /// Names have 1 to 255 bytes; `millstream-…` and `traceparent` are the runtime's.
    pub fn header(mut self, name: &str, value: impl AsRef<[u8]>) -> Self {
        if self.accepts(name) {
            let header = wire::Header {
                name: self.out.append(name.as_bytes()),
                value: self.out.append(value.as_ref()),
                bits: 0,
            };
            self.out.outcome.headers.push(header);
        }
        self
    }

    /// Drops the source's headers of this name.
    pub fn without_header(mut self, name: &str) -> Self {
        if self.accepts(name) {
            let header = wire::Header {
                name: self.out.append(name.as_bytes()),
                value: wire::Span::default(),
                bits: wire::HEADER_VALUE_NULL,
            };
            self.out.outcome.headers.push(header);
        }
        self
    }

    /// Drops all of the source's headers; only those set here go along.
    pub fn fresh_headers(mut self) -> Self {
        self.replace = true;
        self
    }

    /// Sets the key.
    pub fn key(mut self, key: impl AsRef<[u8]>) -> Self {
        let (part, span) = self.out.place(key.as_ref());
        self.set_key(part, span);
        self
    }

    /// Sets the key to null: the event goes to any partition.
    pub fn null_key(mut self) -> Self {
        self.set_key(wire::Part::Null, wire::Span::default());
        self
    }

    /// Sets the timestamp, in milliseconds since 1970-01-01 UTC.
    pub fn timestamp(mut self, milliseconds: i64) -> Self {
        self.record.timestamp_ms = milliseconds;
        self.record.edit |= wire::EDIT_TIMESTAMP;
        self
    }

    /// Writes the event with this value as JSON.
    ///
    /// # Errors
    /// The value cannot be written as JSON (rejected with the code `encode`), or as for
    /// [`Draft::bytes`].
    pub fn json<T: Serialize + ?Sized>(mut self, value: &T) -> Result {
        let start = self.out.outcome.data.len();
        serde_json::to_writer(&mut self.out.outcome.data, value)
            .map_err(|error| Error::reject("encode", error))?;
        let span = wire::Span {
            start: start as u32,
            length: (self.out.outcome.data.len() - start) as u32,
        };
        self.set_value(wire::Part::Outcome, span);
        self.finish()
    }

    /// Writes the event with this text as its value.
    ///
    /// # Errors
    /// As for [`Draft::bytes`].
    pub fn text(self, value: &str) -> Result {
        self.bytes(value.as_bytes())
    }

    /// Writes the event with these bytes as its value. A slice of an event of this batch is not
    /// copied.
    ///
    /// # Errors
    /// A header's name is empty, too long or reserved (rejected with the code `bad-header`), or the
    /// answer passes 4 GiB (code `too-large`).
    pub fn bytes(mut self, value: &[u8]) -> Result {
        let (part, span) = self.out.place(value);
        self.set_value(part, span);
        self.finish()
    }

    /// Writes the event with the source's value.
    ///
    /// # Errors
    /// As for [`Draft::bytes`].
    pub fn forward(self) -> Result {
        self.finish()
    }

    /// Writes the event with a null value: it deletes the key downstream.
    ///
    /// # Errors
    /// As for [`Draft::bytes`].
    pub fn tombstone(mut self) -> Result {
        self.set_value(wire::Part::Null, wire::Span::default());
        self.finish()
    }

    fn set_key(&mut self, part: wire::Part, span: wire::Span) {
        self.record.edit = self.record.edit & !0b11 | part.bits();
        self.record.key = span;
    }

    fn set_value(&mut self, part: wire::Part, span: wire::Span) {
        self.record.edit |= part.bits() << 2;
        self.record.value = span;
    }

    /// Whether the wall takes a header of this name; remembers the first that it does not, for one
    /// bad name would make the runtime refuse the answer to the whole batch.
    fn accepts(&mut self, name: &str) -> bool {
        let fault = if name.is_empty() || name.len() > wire::HEADER_NAME_MAX {
            "a header's name has 1 to 255 bytes"
        } else if wire::is_reserved_header(name.as_bytes()) {
            "is set by the runtime alone"
        } else {
            return true;
        };
        self.problem
            .get_or_insert_with(|| Error::reject("bad-header", format!("{name:?}: {fault}")));
        false
    }

    fn finish(mut self) -> Result {
        if let Some(problem) = self.problem.take() {
            return Err(problem);
        }
        let start = self.record.headers_start as usize;
        let headers = &mut self.out.outcome.headers;
        if self.replace {
            // In a replacement a record without a value would be a header of its own.
            let own = headers.split_off(start);
            headers.extend(own.iter().filter(|header| header.bits == 0));
        }
        self.record.headers_count = (headers.len() - start) as u32;
        self.record.edit |= match (self.replace, self.record.headers_count) {
            (true, _) => 2 << wire::EDIT_HEADERS_SHIFT,
            (false, 0) => 0,
            (false, _) => 1 << wire::EDIT_HEADERS_SHIFT,
        };
        if self.out.outcome.data.len() > u32::MAX as usize {
            return Err(Error::reject("too-large", "the answer passes 4 GiB"));
        }
        self.out.outcome.outputs.push(self.record);
        self.out.closed = self.out.mark();
        Ok(())
    }
}
