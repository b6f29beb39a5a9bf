//! The events of a test case, and their form on the wall.

use millstream_wire as wire;
use serde::Serialize;

/// An event for a [`Harness`](super::Harness). Unless told otherwise it has a null key, no headers,
/// topic `input`, partition 0, its place in the case as offset, and a fixed timestamp.
#[derive(Clone, Debug)]
pub struct TestEvent {
    key: Option<Vec<u8>>,
    value: Option<Vec<u8>>,
    headers: Vec<(String, Option<Vec<u8>>)>,
    topic: String,
    partition: u32,
    offset: Option<u64>,
    timestamp: i64,
    attempt: u32,
}

impl TestEvent {
    /// The timestamp of events that are given none: 2023-11-14 22:13:20 UTC, in milliseconds.
    pub const TIMESTAMP: i64 = 1_700_000_000_000;

    /// An event with these bytes as its value.
    pub fn bytes(value: impl Into<Vec<u8>>) -> Self {
        Self::with_value(Some(value.into()))
    }

    /// An event with this text as its value.
    pub fn text(value: impl Into<String>) -> Self {
        Self::bytes(value.into())
    }

    /// An event with this value as JSON.
    ///
    /// # Panics
    /// When the value cannot be written as JSON.
    pub fn json<T: Serialize + ?Sized>(value: &T) -> Self {
        match serde_json::to_vec(value) {
            Ok(value) => Self::bytes(value),
            Err(error) => panic!("the test event is not JSON: {error}"),
        }
    }

    /// An event with a null value.
    pub fn tombstone() -> Self {
        Self::with_value(None)
    }

    fn with_value(value: Option<Vec<u8>>) -> Self {
        Self {
            key: None,
            value,
            headers: Vec::new(),
            topic: "input".to_owned(),
            partition: 0,
            offset: None,
            timestamp: Self::TIMESTAMP,
            attempt: 1,
        }
    }

    /// Sets the key.
    #[must_use]
    pub fn key(mut self, key: impl Into<Vec<u8>>) -> Self {
        self.key = Some(key.into());
        self
    }

    /// Adds a header.
    #[must_use]
    pub fn header(mut self, name: impl Into<String>, value: impl Into<Vec<u8>>) -> Self {
        self.headers.push((name.into(), Some(value.into())));
        self
    }

    /// Adds a header whose value is null.
    #[must_use]
    pub fn null_header(mut self, name: impl Into<String>) -> Self {
        self.headers.push((name.into(), None));
        self
    }

    /// Sets the topic.
    #[must_use]
    pub fn topic(mut self, topic: impl Into<String>) -> Self {
        self.topic = topic.into();
        self
    }

    /// Sets partition and offset.
    #[must_use]
    pub fn position(mut self, partition: u32, offset: u64) -> Self {
        self.partition = partition;
        self.offset = Some(offset);
        self
    }

    /// Sets the timestamp, in milliseconds since 1970-01-01 UTC.
    #[must_use]
    pub fn timestamp(mut self, milliseconds: i64) -> Self {
        self.timestamp = milliseconds;
        self
    }

    /// Sets which attempt it is; 1 is the first.
    #[must_use]
    pub fn attempt(mut self, attempt: u32) -> Self {
        self.attempt = attempt;
        self
    }
}

/// Test events as the runtime would hand them over.
#[derive(Debug, Default)]
pub(super) struct Encoded {
    events: Vec<wire::Event>,
    headers: Vec<wire::Header>,
    data: Vec<u8>,
}

impl Encoded {
    /// Encodes events; `first` is the place of the first in its case.
    pub(super) fn new(events: &[TestEvent], first: usize) -> Self {
        let mut encoded = Self::default();
        for (place, event) in (first as u64..).zip(events) {
            encoded.push(event, place);
        }
        encoded
    }

    /// The batch.
    pub(super) fn batch(&self, bits: u32) -> wire::Batch<'_> {
        wire::Batch {
            events: &self.events,
            headers: &self.headers,
            data: &self.data,
            extras: &[],
            budget_ms: 1000,
            bits,
        }
    }

    fn push(&mut self, event: &TestEvent, place: u64) {
        let headers_start = self.headers.len() as u32;
        for (name, value) in &event.headers {
            let header = wire::Header {
                name: self.append(name.as_bytes()),
                value: self.append(value.as_deref().unwrap_or_default()),
                bits: if value.is_none() {
                    wire::HEADER_VALUE_NULL
                } else {
                    0
                },
            };
            self.headers.push(header);
        }
        let mut bits = 0;
        if event.key.is_none() {
            bits |= wire::EVENT_KEY_NULL;
        }
        if event.value.is_none() {
            bits |= wire::EVENT_VALUE_NULL;
        }
        let record = wire::Event {
            offset: event.offset.unwrap_or(place),
            timestamp_ms: event.timestamp,
            topic: self.append(event.topic.as_bytes()),
            key: self.append(event.key.as_deref().unwrap_or_default()),
            value: self.append(event.value.as_deref().unwrap_or_default()),
            partition: event.partition,
            headers_start,
            headers_count: event.headers.len() as u32,
            attempt: event.attempt,
            bits,
            reserved: 0,
        };
        self.events.push(record);
    }

    fn append(&mut self, bytes: &[u8]) -> wire::Span {
        let start = self.data.len() as u32;
        self.data.extend_from_slice(bytes);
        wire::Span {
            start,
            length: bytes.len() as u32,
        }
    }
}
