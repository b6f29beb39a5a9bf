//! Events as the runtime keeps them: in blocks, in the form in which they cross the wall.
//!
//! ```text
//! Block (fetched events of one partition, oldest first)
//!   events   [ 64-byte records: offset, timestamp, spans ]──┐
//!   headers  [ 20-byte records: name span, value span ]─────┤ spans point into
//!   data     [ topic | key value name value … | … ]◀────────┘
//! ```
//!
//! An adapter copies what it fetched into a block once; a batch that is a whole block is lowered
//! into the sandbox from there as it lies.

use std::fmt;
use std::sync::Arc;

use millstream_wire as wire;

/// A partition of a topic.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct TopicPartition {
    pub topic: Arc<str>,
    pub partition: u32,
}

impl TopicPartition {
    /// The partition with this number of `topic`.
    pub fn new(topic: impl Into<Arc<str>>, partition: u32) -> Self {
        Self {
            topic: topic.into(),
            partition,
        }
    }
}

impl fmt::Display for TopicPartition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.topic, self.partition)
    }
}

/// Fetched events of one partition, oldest first, with rising offsets.
///
/// Built by [`BlockBuilder`] alone, which keeps every span inside `data`.
#[derive(Debug)]
pub struct Block {
    source: TopicPartition,
    events: Vec<wire::Event>,
    headers: Vec<wire::Header>,
    data: Vec<u8>,
    undecodable: Vec<u32>,
}

impl Block {
    /// Where the events come from.
    pub fn source(&self) -> &TopicPartition {
        &self.source
    }

    /// How many events it holds.
    pub fn len(&self) -> usize {
        self.events.len()
    }

    /// Whether it holds no event.
    pub fn is_empty(&self) -> bool {
        self.events.is_empty()
    }

    /// The event records, as they cross the wall.
    pub fn events(&self) -> &[wire::Event] {
        &self.events
    }

    /// The header records of all events, as they cross the wall.
    pub fn headers(&self) -> &[wire::Header] {
        &self.headers
    }

    /// The bytes that all spans point into.
    pub fn data(&self) -> &[u8] {
        &self.data
    }

    /// The event at `index`; panics past the end, as a slice does.
    pub fn event(&self, index: usize) -> EventView<'_> {
        EventView {
            block: self,
            record: &self.events[index],
            index,
        }
    }

    /// All events, oldest first.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = EventView<'_>> {
        (0..self.events.len()).map(|index| self.event(index))
    }

    /// Heap bytes that the block holds; what it costs of a budget.
    pub fn bytes(&self) -> usize {
        self.data.len()
            + self.events.len() * size_of::<wire::Event>()
            + self.headers.len() * size_of::<wire::Header>()
    }

    fn slice(&self, span: wire::Span) -> &[u8] {
        span.of(&self.data).unwrap_or_default()
    }
}

/// One event of a [`Block`].
#[derive(Clone, Copy)]
pub struct EventView<'a> {
    block: &'a Block,
    record: &'a wire::Event,
    index: usize,
}

impl<'a> EventView<'a> {
    /// The broker's offset (or the number that the adapter gave).
    pub fn offset(&self) -> u64 {
        self.record.offset
    }

    /// Milliseconds since 1970-01-01 UTC.
    pub fn timestamp_ms(&self) -> i64 {
        self.record.timestamp_ms
    }

    /// Where the event comes from.
    pub fn source(&self) -> &'a TopicPartition {
        &self.block.source
    }

    /// The record as it crosses the wall.
    pub fn record(&self) -> &'a wire::Event {
        self.record
    }

    /// The key; `None` is null.
    pub fn key(&self) -> Option<&'a [u8]> {
        (self.record.bits & wire::EVENT_KEY_NULL == 0).then(|| self.block.slice(self.record.key))
    }

    /// The value; `None` is null, a tombstone.
    pub fn value(&self) -> Option<&'a [u8]> {
        (self.record.bits & wire::EVENT_VALUE_NULL == 0)
            .then(|| self.block.slice(self.record.value))
    }

    /// Header names and values in order; names are UTF-8 unless [`Self::decodable`] says no.
    pub fn headers(&self) -> impl Iterator<Item = (&'a [u8], Option<&'a [u8]>)> + use<'a> {
        let block = self.block;
        let start = self.record.headers_start as usize;
        let count = self.record.headers_count as usize;
        block.headers[start..start + count]
            .iter()
            .map(move |header| {
                let value =
                    (header.bits & wire::HEADER_VALUE_NULL == 0).then(|| block.slice(header.value));
                (block.slice(header.name), value)
            })
    }

    /// The last header of this name that has a value, which is the one that Kafka's clients read.
    pub fn header(&self, name: &str) -> Option<&'a [u8]> {
        self.headers()
            .filter(|(n, _)| *n == name.as_bytes())
            .last()
            .and_then(|(_, value)| value)
    }

    /// Whether the event can be shown to a plugin: a header's name that is not UTF-8, or is empty
    /// or longer than 255 bytes, cannot.
    pub fn decodable(&self) -> bool {
        !self.block.undecodable.contains(&(self.index as u32))
    }

    /// What the event costs of a byte budget: its bytes and its records.
    pub fn bytes(&self) -> usize {
        let headers: usize = self
            .headers()
            .map(|(name, value)| {
                name.len() + value.map_or(0, <[u8]>::len) + size_of::<wire::Header>()
            })
            .sum();
        self.record.key.length as usize
            + self.record.value.length as usize
            + headers
            + size_of::<wire::Event>()
    }
}

/// Puts a [`Block`] together.
pub struct BlockBuilder {
    block: Block,
    topic: wire::Span,
}

/// What an adapter knows of an event besides its headers.
#[derive(Clone, Copy, Debug)]
pub struct NewEvent<'a> {
    pub offset: u64,
    pub timestamp_ms: i64,
    /// Whether the broker set the timestamp.
    pub timestamp_of_broker: bool,
    pub key: Option<&'a [u8]>,
    pub value: Option<&'a [u8]>,
}

impl BlockBuilder {
    /// An empty block of `source`, with room for `events` events and `bytes` bytes.
    pub fn new(source: TopicPartition, events: usize, bytes: usize) -> Self {
        let mut data = Vec::with_capacity(bytes + source.topic.len());
        data.extend_from_slice(source.topic.as_bytes());
        let topic = wire::Span {
            start: 0,
            length: source.topic.len() as u32,
        };
        Self {
            block: Block {
                source,
                events: Vec::with_capacity(events),
                headers: Vec::new(),
                data,
                undecodable: Vec::new(),
            },
            topic,
        }
    }

    /// Whether another event of `bytes` bytes still fits the 32-bit spans.
    pub fn fits(&self, bytes: usize) -> bool {
        self.block.data.len().saturating_add(bytes) < u32::MAX as usize
    }

    /// How many bytes the block holds so far.
    pub fn bytes(&self) -> usize {
        self.block.data.len()
    }

    /// What the block costs of a budget so far; see [`Block::bytes`].
    pub fn cost(&self) -> usize {
        self.block.bytes()
    }

    /// How many events the block holds so far.
    pub fn len(&self) -> usize {
        self.block.events.len()
    }

    /// Whether no event was pushed yet.
    pub fn is_empty(&self) -> bool {
        self.block.events.is_empty()
    }

    /// Adds an event; its headers follow by [`Self::push_header`].
    pub fn push(&mut self, event: NewEvent<'_>) {
        let key = self.append(event.key.unwrap_or_default());
        let value = self.append(event.value.unwrap_or_default());
        let mut bits = 0;
        if event.key.is_none() {
            bits |= wire::EVENT_KEY_NULL;
        }
        if event.value.is_none() {
            bits |= wire::EVENT_VALUE_NULL;
        }
        if event.timestamp_of_broker {
            bits |= wire::EVENT_TIMESTAMP_OF_BROKER;
        }
        self.block.events.push(wire::Event {
            offset: event.offset,
            timestamp_ms: event.timestamp_ms,
            topic: self.topic,
            key,
            value,
            partition: self.block.source.partition,
            headers_start: self.block.headers.len() as u32,
            headers_count: 0,
            attempt: 1,
            bits,
            reserved: 0,
        });
    }

    /// Adds a header to the event pushed last; before the first event it does nothing.
    pub fn push_header(&mut self, name: &[u8], value: Option<&[u8]>) {
        if self.block.events.is_empty() {
            return;
        }
        let header = wire::Header {
            name: self.append(name),
            value: self.append(value.unwrap_or_default()),
            bits: if value.is_none() {
                wire::HEADER_VALUE_NULL
            } else {
                0
            },
        };
        self.block.headers.push(header);
        let index = self.block.events.len() as u32 - 1;
        if let Some(event) = self.block.events.last_mut() {
            event.headers_count += 1;
        }
        let valid = !name.is_empty() && name.len() <= 255 && std::str::from_utf8(name).is_ok();
        if !valid && self.block.undecodable.last() != Some(&index) {
            self.block.undecodable.push(index);
        }
    }

    /// The finished block.
    pub fn build(self) -> Block {
        self.block
    }

    fn append(&mut self, bytes: &[u8]) -> wire::Span {
        let start = self.block.data.len() as u32;
        self.block.data.extend_from_slice(bytes);
        wire::Span {
            start,
            length: bytes.len() as u32,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block() -> Block {
        let mut builder = BlockBuilder::new(TopicPartition::new("orders", 3), 2, 64);
        builder.push(NewEvent {
            offset: 7,
            timestamp_ms: 1_000,
            timestamp_of_broker: false,
            key: Some(b"k"),
            value: None,
        });
        builder.push_header(b"a", Some(b"1"));
        builder.push_header(b"a", Some(b"2"));
        builder.push_header(b"none", None);
        builder.push(NewEvent {
            offset: 9,
            timestamp_ms: 2_000,
            timestamp_of_broker: true,
            key: None,
            value: Some(b""),
        });
        builder.push_header(&[0xff], Some(b"x"));
        builder.build()
    }

    /// A null that turns into an empty value would make a tombstone a live record.
    #[test]
    fn null_is_kept_apart_from_empty() {
        let block = block();
        assert_eq!(block.event(0).key(), Some(&b"k"[..]));
        assert_eq!(block.event(0).value(), None);
        assert_eq!(block.event(1).key(), None);
        assert_eq!(block.event(1).value(), Some(&b""[..]));
        let nulls: Vec<_> = block.event(0).headers().map(|(_, v)| v.is_none()).collect();
        assert_eq!(nulls, [false, false, true]);
    }

    #[test]
    fn the_last_header_of_a_name_wins() {
        assert_eq!(block().event(0).header("a"), Some(&b"2"[..]));
        assert_eq!(block().event(0).header("b"), None);
    }

    /// Such a name would break the UTF-8 promise that the wall makes to plugins.
    #[test]
    fn a_header_name_that_is_not_utf8_makes_the_event_undecodable() {
        let block = block();
        assert!(block.event(0).decodable());
        assert!(!block.event(1).decodable());
    }
}
