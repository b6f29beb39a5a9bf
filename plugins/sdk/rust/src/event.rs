//! What came in: borrowed views of the batch.

use std::fmt;
use std::ops::Range;

use millstream_wire as wire;
use serde::Deserialize;

use crate::{Error, Field, Result, fields};

/// One event. A view that copies nothing: pass it on by value.
#[derive(Clone, Copy)]
pub struct Event<'a> {
    batch: &'a wire::Batch<'a>,
    record: &'a wire::Event,
}

impl<'a> Event<'a> {
    /// The key; `None` is null, which is not the same as empty.
    pub fn key(&self) -> Option<&'a [u8]> {
        (self.record.bits & wire::EVENT_KEY_NULL == 0).then(|| self.slice(self.record.key))
    }

    /// The value; `None` is null, a tombstone, which is not the same as empty.
    pub fn value(&self) -> Option<&'a [u8]> {
        (self.record.bits & wire::EVENT_VALUE_NULL == 0).then(|| self.slice(self.record.value))
    }

    /// The value as text.
    ///
    /// # Errors
    /// A null value, or one that is not UTF-8: rejected with the code `decode`.
    pub fn text(&self) -> Result<&'a str> {
        let value = self.value().ok_or_else(no_value)?;
        std::str::from_utf8(value).map_err(|error| Error::decode(format!("not UTF-8: {error}")))
    }

    /// The value as JSON. `T` may borrow from the event.
    ///
    /// # Errors
    /// A null value, or one that is not JSON of this shape: rejected with the code `decode`.
    pub fn json<T: Deserialize<'a>>(&self) -> Result<T> {
        let value = self.value().ok_or_else(no_value)?;
        serde_json::from_slice(value)
            .map_err(|error| Error::decode(format!("not the JSON that was expected: {error}")))
    }

    /// Fields of a JSON object by their names: the rest is passed over without being parsed, which spares
    /// work where an object holds much more than is wanted.
    ///
    /// ```
    /// use millstream_plugin::prelude::*;
    ///
    /// fn cheap(event: Event<'_>, out: &mut Outbox) -> Result {
    ///     let [price, url] = event.fields(["price", "url"])?;
    ///     if price.parse::<u64>()? < 100 {
    ///         out.text(&url.text()?)?;
    ///     }
    ///     Ok(())
    /// }
    /// # let bid = r#"{"extra":{"url":1},"price":99,"url":"https:\/\/a"}"#;
    /// # assert_eq!(Harness::function(cheap).run([TestEvent::text(bid)]).only_output().text(), "https://a");
    /// ```
    /// Of a name that comes twice the first counts. What is passed over is not checked to be JSON, and
    /// what stands behind the last field that is wanted is not looked at.
    ///
    /// # Errors
    /// A null value, or one that is no JSON object as far as it was looked at: rejected with the code
    /// `decode`.
    pub fn fields<const N: usize>(&self, names: [&'static str; N]) -> Result<[Field<'a>; N]> {
        fields::find(self.value().ok_or_else(no_value)?, names)
    }

    /// The value of the last header of this name; `None` where there is none or it is null.
    pub fn header(&self, name: &str) -> Option<&'a [u8]> {
        let last = self
            .header_records()
            .iter()
            .rev()
            .find(|header| self.slice(header.name) == name.as_bytes())?;
        self.header_value(last)
    }

    /// The same as text; `None` also where it is not UTF-8.
    pub fn header_text(&self, name: &str) -> Option<&'a str> {
        std::str::from_utf8(self.header(name)?).ok()
    }

    /// All headers in order; names may repeat, and `None` is null.
    pub fn headers(&self) -> impl ExactSizeIterator<Item = (&'a str, Option<&'a [u8]>)> + use<'a> {
        let event = *self;
        self.header_records().iter().map(move |header| {
            let name = std::str::from_utf8(event.slice(header.name)).unwrap_or_default();
            (name, event.header_value(header))
        })
    }

    /// Milliseconds since 1970-01-01 UTC, as the producer or the broker set it.
    pub fn timestamp(&self) -> i64 {
        self.record.timestamp_ms
    }

    /// The topic that it was read from.
    pub fn topic(&self) -> &'a str {
        std::str::from_utf8(self.slice(self.record.topic)).unwrap_or_default()
    }

    /// Where it lies: topic, partition and offset.
    pub fn position(&self) -> Position<'a> {
        Position {
            topic: self.topic(),
            partition: self.record.partition,
            offset: self.record.offset,
        }
    }

    /// What names the event at every attempt: the id that a broker without offsets gave it, else
    /// its position as `topic/partition/offset`. An idempotency key for calls to the outside.
    pub fn id(&self) -> String {
        match self.header_text("millstream-message-id") {
            Some(id) => id.to_owned(),
            None => self.position().to_string(),
        }
    }

    /// 1 at the first attempt; from 1 again after a restart, a rebalance or a deploy.
    pub fn attempt(&self) -> u32 {
        self.record.attempt
    }

    /// Its place in the batch.
    pub(crate) fn index(&self) -> u32 {
        let start = self.batch.events.as_ptr().addr();
        let own = std::ptr::from_ref(self.record).addr();
        ((own - start) / size_of::<wire::Event>()) as u32
    }

    fn header_records(&self) -> &'a [wire::Header] {
        let start = self.record.headers_start as usize;
        start
            .checked_add(self.record.headers_count as usize)
            .and_then(|end| self.batch.headers.get(start..end))
            .unwrap_or_default()
    }

    fn header_value(&self, header: &wire::Header) -> Option<&'a [u8]> {
        (header.bits & wire::HEADER_VALUE_NULL == 0).then(|| self.slice(header.value))
    }

    fn slice(&self, span: wire::Span) -> &'a [u8] {
        span.of(self.batch.data).unwrap_or_default()
    }
}

fn no_value() -> Error {
    Error::decode("the value is null (a tombstone)")
}

impl fmt::Debug for Event<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Event({})", self.position())
    }
}

/// Where an event lies; shown as `topic/partition/offset`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Position<'a> {
    topic: &'a str,
    partition: u32,
    offset: u64,
}

impl<'a> Position<'a> {
    /// The topic.
    pub fn topic(&self) -> &'a str {
        self.topic
    }

    /// The number of the partition.
    pub fn partition(&self) -> u32 {
        self.partition
    }

    /// The broker's offset, or the number that the runtime gave where a broker has none.
    pub fn offset(&self) -> u64 {
        self.offset
    }
}

impl fmt::Display for Position<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.topic, self.partition, self.offset)
    }
}

/// The events of a batch, oldest first.
#[derive(Clone, Copy)]
pub struct Events<'a> {
    batch: &'a wire::Batch<'a>,
}

impl<'a> Events<'a> {
    pub(crate) fn new(batch: &'a wire::Batch<'a>) -> Self {
        Self { batch }
    }

    /// How many events.
    pub fn len(&self) -> usize {
        self.batch.events.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.batch.events.is_empty()
    }

    /// The event at `index`, if there is one.
    pub fn get(&self, index: usize) -> Option<Event<'a>> {
        let record = self.batch.events.get(index)?;
        Some(Event {
            batch: self.batch,
            record,
        })
    }

    /// All events, oldest first.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = Event<'a>> + use<'a> {
        let batch = self.batch;
        batch
            .events
            .iter()
            .map(move |record| Event { batch, record })
    }

    /// Where the batch's bytes lie in memory, for telling its slices from others.
    pub(crate) fn addresses(&self) -> Range<usize> {
        let start = self.batch.data.as_ptr().addr();
        start..start.saturating_add(self.batch.data.len())
    }
}

impl fmt::Debug for Events<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}
