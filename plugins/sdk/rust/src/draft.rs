//! One derived event while it is being written.

use millstream_wire as wire;
use serde::Serialize;

use crate::{Error, Outbox, Result};

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

impl<'o> Draft<'o> {
    pub(crate) fn new(out: &'o mut Outbox, record: wire::Output) -> Self {
        Self {
            out,
            record,
            replace: false,
            problem: None,
        }
    }

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
