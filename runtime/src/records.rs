//! Records on their way to topics: derived events, dead letters and what producers send.
//!
//! A batch of them is one arena of bytes and two lists of fixed-size rows, so that it costs a
//! constant number of allocations whatever it holds.

use std::ops::Range;
use std::sync::Arc;

use crate::event::EventView;

use xxhash_rust::xxh3::Xxh3;

/// Records to write, in order.
#[derive(Clone, Debug, Default)]
pub struct Records {
    topics: Vec<Arc<str>>,
    rows: Vec<Row>,
    headers: Vec<HeaderRow>,
    data: Vec<u8>,
}

/// Bytes of the arena; `None` stands for null.
type Piece = Option<Range<u32>>;

#[derive(Clone, Debug)]
struct Row {
    topic: u32,
    partition: Option<u32>,
    timestamp_ms: Option<i64>,
    key: Piece,
    value: Piece,
    headers: Range<u32>,
    tag: u64,
}

#[derive(Clone, Debug)]
struct HeaderRow {
    name: Range<u32>,
    value: Piece,
}

/// What a record is made of besides its headers.
#[derive(Clone, Copy, Debug, Default)]
pub struct NewRecord<'a> {
    pub key: Option<&'a [u8]>,
    pub value: Option<&'a [u8]>,
    /// `None` lets the key decide.
    pub partition: Option<u32>,
    /// Milliseconds since 1970-01-01 UTC; `None` is the time of writing.
    pub timestamp_ms: Option<i64>,
    /// The caller's own number, handed back by [`RecordView::tag`]: the source event's offset for
    /// derived events and dead letters.
    pub tag: u64,
}

impl<'a> NewRecord<'a> {
    /// An event as it is, without its headers; its key decides the partition.
    pub fn copy_of(event: &EventView<'a>) -> Self {
        Self {
            key: event.key(),
            value: event.value(),
            partition: None,
            timestamp_ms: Some(event.timestamp_ms()),
            tag: event.offset(),
        }
    }
}

impl Records {
    /// No records.
    pub fn new() -> Self {
        Self::default()
    }

    /// Makes room for so many more records with all their headers and bytes.
    pub fn reserve(&mut self, records: usize, headers: usize, bytes: usize) {
        self.rows.reserve(records);
        self.headers.reserve(headers);
        self.data.reserve(bytes);
    }

    /// Adds a record for `topic`; its headers follow by [`Self::push_header`].
    pub fn push(&mut self, topic: &Arc<str>, record: NewRecord<'_>) {
        let topic = match self.topics.iter().position(|known| known == topic) {
            Some(index) => index as u32,
            None => {
                self.topics.push(topic.clone());
                self.topics.len() as u32 - 1
            }
        };
        let key = record.key.map(|bytes| self.append(bytes));
        let value = record.value.map(|bytes| self.append(bytes));
        let headers = self.headers.len() as u32;
        self.rows.push(Row {
            topic,
            partition: record.partition,
            timestamp_ms: record.timestamp_ms,
            key,
            value,
            headers: headers..headers,
            tag: record.tag,
        });
    }

    /// Adds a header to the record pushed last; before the first record it does nothing.
    pub fn push_header(&mut self, name: &[u8], value: Option<&[u8]>) {
        if self.rows.is_empty() {
            return;
        }
        let name = self.append(name);
        let value = value.map(|bytes| self.append(bytes));
        self.headers.push(HeaderRow { name, value });
        let end = self.headers.len() as u32;
        if let Some(row) = self.rows.last_mut() {
            row.headers.end = end;
        }
    }

    /// Takes back all records from `len` on.
    pub fn truncate(&mut self, len: usize) {
        if let Some(row) = self.rows.get(len) {
            let headers = row.headers.start as usize;
            self.headers.truncate(headers);
            self.rows.truncate(len);
        }
    }

    /// Appends all records of `other`, after its own.
    pub fn append_all(&mut self, other: &Records) {
        for record in other.iter() {
            self.push_view(&record);
        }
    }

    /// Appends a copy of one record.
    pub fn push_view(&mut self, record: &RecordView<'_>) {
        let topic = record.topic().clone();
        self.push(
            &topic,
            NewRecord {
                key: record.key(),
                value: record.value(),
                partition: record.partition(),
                timestamp_ms: record.timestamp_ms(),
                tag: record.tag(),
            },
        );
        for (name, value) in record.headers() {
            self.push_header(name, value);
        }
    }

    /// How many records.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Heap bytes that the records hold.
    pub fn bytes(&self) -> usize {
        self.data.len()
            + self.rows.len() * size_of::<Row>()
            + self.headers.len() * size_of::<HeaderRow>()
    }

    /// The record at `index`; panics past the end, as a slice does.
    pub fn get(&self, index: usize) -> RecordView<'_> {
        RecordView {
            records: self,
            row: &self.rows[index],
        }
    }

    /// All records in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = RecordView<'_>> {
        (0..self.rows.len()).map(|index| self.get(index))
    }

    /// A digest of all that is to be written, in order: topics, partitions, times, keys, values and
    /// headers. Not proof against someone who looks for two records with the same one.
    pub fn digest(&self) -> u128 {
        let mut digest = Xxh3::new();
        let mut add = |piece: Option<&[u8]>| {
            // The length in front keeps pieces apart; no piece is as long as what stands for null.
            let length = piece.map_or(u64::MAX, |bytes| bytes.len() as u64);
            digest.update(&length.to_le_bytes());
            digest.update(piece.unwrap_or_default());
        };
        for record in self.iter() {
            add(Some(record.topic().as_bytes()));
            let partition = record.partition().map(u32::to_le_bytes);
            add(partition.as_ref().map(|bytes| &bytes[..]));
            let timestamp = record.timestamp_ms().map(i64::to_le_bytes);
            add(timestamp.as_ref().map(|bytes| &bytes[..]));
            add(record.key());
            add(record.value());
            add(Some(&(record.headers().len() as u64).to_le_bytes()));
            for (name, value) in record.headers() {
                add(Some(name));
                add(value);
            }
        }
        digest.digest128()
    }

    fn append(&mut self, bytes: &[u8]) -> Range<u32> {
        let start = self.data.len() as u32;
        self.data.extend_from_slice(bytes);
        start..self.data.len() as u32
    }

    fn slice(&self, range: &Range<u32>) -> &[u8] {
        &self.data[range.start as usize..range.end as usize]
    }
}

/// One record of [`Records`].
#[derive(Clone, Copy)]
pub struct RecordView<'a> {
    records: &'a Records,
    row: &'a Row,
}

impl<'a> RecordView<'a> {
    /// The topic to write to.
    pub fn topic(&self) -> &'a Arc<str> {
        &self.records.topics[self.row.topic as usize]
    }

    /// The partition to write to; `None` lets the key decide.
    pub fn partition(&self) -> Option<u32> {
        self.row.partition
    }

    /// Milliseconds since 1970-01-01 UTC; `None` is the time of writing.
    pub fn timestamp_ms(&self) -> Option<i64> {
        self.row.timestamp_ms
    }

    /// The key; `None` is null.
    pub fn key(&self) -> Option<&'a [u8]> {
        self.row.key.as_ref().map(|range| self.records.slice(range))
    }

    /// The value; `None` is null.
    pub fn value(&self) -> Option<&'a [u8]> {
        self.row
            .value
            .as_ref()
            .map(|range| self.records.slice(range))
    }

    /// Header names and values in order.
    pub fn headers(&self) -> impl ExactSizeIterator<Item = (&'a [u8], Option<&'a [u8]>)> + use<'a> {
        let records = self.records;
        let range = self.row.headers.start as usize..self.row.headers.end as usize;
        records.headers[range].iter().map(move |header| {
            let value = header.value.as_ref().map(|range| records.slice(range));
            (records.slice(&header.name), value)
        })
    }

    /// The number that the caller gave with [`NewRecord::tag`].
    pub fn tag(&self) -> u64 {
        self.row.tag
    }

    /// Key, value and headers together, in bytes.
    pub fn bytes(&self) -> usize {
        let headers: usize = self
            .headers()
            .map(|(name, value)| name.len() + value.map_or(0, <[u8]>::len))
            .sum();
        self.key().map_or(0, <[u8]>::len) + self.value().map_or(0, <[u8]>::len) + headers
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A header that stays behind after a truncation would turn up on the next record.
    #[test]
    fn truncation_takes_the_headers_along() {
        let topic: Arc<str> = "t".into();
        let mut records = Records::new();
        records.push(
            &topic,
            NewRecord {
                value: Some(b"1"),
                ..NewRecord::default()
            },
        );
        records.push_header(b"a", Some(b"x"));
        records.push(
            &topic,
            NewRecord {
                value: Some(b"2"),
                ..NewRecord::default()
            },
        );
        records.push_header(b"b", None);
        records.truncate(1);
        records.push(
            &topic,
            NewRecord {
                value: None,
                ..NewRecord::default()
            },
        );
        let headers: Vec<_> = records.iter().map(|r| r.headers().count()).collect();
        assert_eq!(headers, [1, 0]);
        assert_eq!(records.get(1).value(), None);
    }

    fn one(topic: &str, record: NewRecord<'_>, headers: &[(&str, Option<&str>)]) -> Records {
        let mut records = Records::new();
        records.push(&topic.into(), record);
        for (name, value) in headers {
            records.push_header(name.as_bytes(), value.map(str::as_bytes));
        }
        records
    }

    /// Two requests that are taken for one lose the second one's events.
    #[test]
    fn whatever_is_written_is_in_the_digest() {
        let value = |text: &'static str| NewRecord {
            value: Some(text.as_bytes()),
            ..NewRecord::default()
        };
        let keyed = |key: &'static str, text: &'static str| NewRecord {
            key: Some(key.as_bytes()),
            ..value(text)
        };
        let mut two = one("t", value("a"), &[]);
        two.append_all(&one("t", value(""), &[]));
        let mut other_two = one("t", value(""), &[]);
        other_two.append_all(&one("t", value("a"), &[]));
        let different = [
            Records::new(),
            one("t", NewRecord::default(), &[]),
            one("t", value(""), &[]),
            one("t", value("a"), &[]),
            one("u", value("a"), &[]),
            one("t", keyed("", "a"), &[]),
            one("t", keyed("a", ""), &[]),
            one("t", keyed("ab", "c"), &[]),
            one("t", keyed("a", "bc"), &[]),
            one(
                "t",
                NewRecord {
                    partition: Some(0),
                    ..value("a")
                },
                &[],
            ),
            one(
                "t",
                NewRecord {
                    timestamp_ms: Some(0),
                    ..value("a")
                },
                &[],
            ),
            one("t", value("a"), &[("h", None)]),
            one("t", value("a"), &[("h", Some(""))]),
            one("t", value("a"), &[("h", Some("x")), ("i", None)]),
            two,
            other_two,
        ];
        let digests: std::collections::HashSet<u128> =
            different.iter().map(Records::digest).collect();
        assert_eq!(digests.len(), different.len());
        assert_eq!(one("t", value("a"), &[]).digest(), different[3].digest());
    }
}
