//! A batch of events as one value of the store. Pure.
//!
//! ```text
//! 0         8       9        12     16          24              32
//! ┌─────────┬───────┬────────┬──────┬───────────┬───────────────┬───────┬───────┬───
//! │checksum │version│reserved│count │base offset│base timestamp │event 0│event 1│ …
//! └─────────┴───────┴────────┴──────┴───────────┴───────────────┴───────┴───────┴───
//!     └── XXH3 of everything after it
//!
//! event   timestamp − base (zigzag varint) │ key │ value │ headers (varint) │ name value …
//! key, value   varint: 0 is null, else length + 1, and the bytes
//! ```
//!
//! Offsets are consecutive from the base, so an event stores none. Integers are little-endian.

use millstream_wire as wire;
use xxhash_rust::xxh3::xxh3_64;

use crate::event::{BlockBuilder, NewEvent};
use crate::records::RecordView;

/// The form that this module writes and reads.
const VERSION: u8 = 1;
/// What a header costs a block besides its bytes.
const HEADER_COST: usize = size_of::<wire::Header>();
/// Bytes before the first event.
const HEAD: usize = 32;

/// A value that is not a batch as it was written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Damaged {
    #[error("its checksum does not match, so its bytes changed after they were written")]
    Checksum,
    #[error("it has version {0}, which this version of Millstream does not know")]
    Version(u8),
    #[error("it is cut short")]
    Short,
    #[error("its ranges of offsets touch or overlap")]
    Ranges,
    #[error("it counts {0} events, more than a request can bring")]
    Count(u64),
}

/// Puts a batch together.
#[derive(Debug)]
pub struct BatchWriter {
    value: Vec<u8>,
    base: u64,
    count: u32,
    base_timestamp: i64,
    max_timestamp: i64,
}

impl BatchWriter {
    /// An empty batch whose first event gets the offset `base`.
    pub fn new(base: u64) -> Self {
        Self {
            value: vec![0; HEAD],
            base,
            count: 0,
            base_timestamp: 0,
            max_timestamp: i64::MIN,
        }
    }

    /// Adds a record with this timestamp (milliseconds) and answers its offset.
    pub fn push(&mut self, record: &RecordView<'_>, timestamp_ms: i64) -> u64 {
        if self.count == 0 {
            self.base_timestamp = timestamp_ms;
        }
        self.max_timestamp = self.max_timestamp.max(timestamp_ms);
        put_signed(
            &mut self.value,
            timestamp_ms.wrapping_sub(self.base_timestamp),
        );
        put_bytes(&mut self.value, record.key());
        put_bytes(&mut self.value, record.value());
        let headers = record.headers();
        put_number(&mut self.value, headers.len() as u64);
        for (name, value) in headers {
            put_bytes(&mut self.value, Some(name));
            put_bytes(&mut self.value, value);
        }
        let offset = self.base + u64::from(self.count);
        self.count += 1;
        offset
    }

    /// How many events it holds.
    pub fn count(&self) -> u32 {
        self.count
    }

    /// How many bytes its value has so far.
    pub fn bytes(&self) -> usize {
        self.value.len()
    }

    /// The offset of its first event.
    pub fn base(&self) -> u64 {
        self.base
    }

    /// The largest timestamp among its events; the smallest number where there is none.
    pub fn max_timestamp(&self) -> i64 {
        self.max_timestamp
    }

    /// The finished value.
    pub fn finish(mut self) -> Vec<u8> {
        self.value[8] = VERSION;
        self.value[12..16].copy_from_slice(&self.count.to_le_bytes());
        self.value[16..24].copy_from_slice(&self.base.to_le_bytes());
        self.value[24..32].copy_from_slice(&self.base_timestamp.to_le_bytes());
        let checksum = xxh3_64(&self.value[8..]);
        self.value[..8].copy_from_slice(&checksum.to_le_bytes());
        self.value
    }
}

/// A batch whose checksum was right.
#[derive(Clone, Copy, Debug)]
pub struct BatchReader<'a> {
    base: u64,
    count: u32,
    base_timestamp: i64,
    events: &'a [u8],
}

/// How much of a batch to take.
#[derive(Clone, Copy, Debug)]
pub struct Take {
    /// Events below this offset are left out.
    pub from: u64,
    /// Events from this offset on are left out.
    pub until: u64,
    /// The block holds at most so many events afterwards.
    pub events: usize,
    /// Nothing is added that would let the block cost more bytes, unless it is empty.
    pub bytes: usize,
}

impl<'a> BatchReader<'a> {
    /// Checks a value of the store.
    ///
    /// # Errors
    /// The value is not a batch as this module wrote it.
    pub fn open(value: &'a [u8]) -> Result<Self, Damaged> {
        let (checksum, rest) = value.split_first_chunk::<8>().ok_or(Damaged::Short)?;
        if value.len() < HEAD {
            return Err(Damaged::Short);
        }
        if xxh3_64(rest) != u64::from_le_bytes(*checksum) {
            return Err(Damaged::Checksum);
        }
        if value[8] != VERSION {
            return Err(Damaged::Version(value[8]));
        }
        let mut input = Input(&value[12..]);
        Ok(Self {
            count: u32::from_le_bytes(input.array()?),
            base: u64::from_le_bytes(input.array()?),
            base_timestamp: i64::from_le_bytes(input.array()?),
            events: input.0,
        })
    }

    /// One past the offset of its last event.
    pub fn next(&self) -> u64 {
        self.base.saturating_add(u64::from(self.count))
    }

    /// Moves events into a block; answers one past the offset of the last event that was taken or
    /// left out for being below `from`. The next call goes on there.
    ///
    /// # Errors
    /// The value is cut short. The block then holds events that must not be used.
    pub fn copy_into(&mut self, block: &mut BlockBuilder, take: Take) -> Result<u64, Damaged> {
        for offset in self.base..self.next() {
            if offset >= take.until {
                return Ok(offset);
            }
            let mut input = Input(self.events);
            let before = input.0.len();
            let timestamp_ms = self.base_timestamp.wrapping_add(input.signed()?);
            let key = input.bytes()?;
            let value = input.bytes()?;
            let headers = input.number()?;
            if offset < take.from {
                for _ in 0..headers {
                    input.bytes()?;
                    input.bytes()?;
                }
                self.pass(input);
                continue;
            }
            // The headers are read twice, first for the event's size: an event is taken whole or
            // not at all.
            let mut headers_input = Input(input.0);
            for _ in 0..headers {
                input.bytes()?;
                input.bytes()?;
            }
            let size = before - input.0.len();
            let cost = size + size_of::<wire::Event>() + headers as usize * HEADER_COST;
            let full = block.len() >= take.events || block.cost().saturating_add(cost) > take.bytes;
            if (full && !block.is_empty()) || !block.fits(size) {
                return Ok(offset);
            }
            block.push(NewEvent {
                offset,
                timestamp_ms,
                timestamp_of_broker: false,
                key,
                value,
            });
            for _ in 0..headers {
                let name = headers_input.bytes()?.unwrap_or_default();
                block.push_header(name, headers_input.bytes()?);
            }
            self.pass(input);
        }
        Ok(self.base)
    }

    /// Leaves its first event behind.
    fn pass(&mut self, rest: Input<'a>) {
        self.base += 1;
        self.count -= 1;
        self.events = rest.0;
    }

    /// The offset of the first event with this timestamp or a later one.
    ///
    /// # Errors
    /// The value is cut short.
    pub fn first_at(&self, timestamp_ms: i64) -> Result<Option<u64>, Damaged> {
        let mut input = Input(self.events);
        for offset in self.base..self.next() {
            if self.base_timestamp.wrapping_add(input.signed()?) >= timestamp_ms {
                return Ok(Some(offset));
            }
            input.bytes()?;
            input.bytes()?;
            for _ in 0..input.number()? {
                input.bytes()?;
                input.bytes()?;
            }
        }
        Ok(None)
    }
}

/// Appends an unsigned number in groups of seven bits.
pub fn put_number(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

fn put_signed(out: &mut Vec<u8>, number: i64) {
    put_number(out, ((number << 1) ^ (number >> 63)) as u64);
}

/// Appends bytes or null, with their length in front.
pub fn put_bytes(out: &mut Vec<u8>, bytes: Option<&[u8]>) {
    match bytes {
        None => put_number(out, 0),
        Some(bytes) => {
            put_number(out, bytes.len() as u64 + 1);
            out.extend_from_slice(bytes);
        }
    }
}

/// Bytes that are yet to be read.
pub struct Input<'a>(pub &'a [u8]);

impl<'a> Input<'a> {
    /// A fixed number of bytes.
    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], Damaged> {
        let (head, rest) = self.0.split_first_chunk::<N>().ok_or(Damaged::Short)?;
        self.0 = rest;
        Ok(*head)
    }

    /// A number that [`put_number`] wrote.
    pub fn number(&mut self) -> Result<u64, Damaged> {
        let mut number = 0_u64;
        for shift in (0..64).step_by(7) {
            let [byte] = self.array::<1>()?;
            number |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(number);
            }
        }
        Err(Damaged::Short)
    }

    fn signed(&mut self) -> Result<i64, Damaged> {
        let number = self.number()?;
        Ok((number >> 1) as i64 ^ -((number & 1) as i64))
    }

    /// What [`put_bytes`] wrote.
    pub fn bytes(&mut self) -> Result<Option<&'a [u8]>, Damaged> {
        let Some(length) = self.number()?.checked_sub(1) else {
            return Ok(None);
        };
        let length = usize::try_from(length).map_err(|_| Damaged::Short)?;
        let (bytes, rest) = self.0.split_at_checked(length).ok_or(Damaged::Short)?;
        self.0 = rest;
        Ok(Some(bytes))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::*;
    use crate::event::TopicPartition;
    use crate::records::{NewRecord, Records};

    type Bytes = Option<Vec<u8>>;
    type Event = (i64, Bytes, Bytes, Vec<(Vec<u8>, Bytes)>);

    const ALL: Take = Take {
        from: 0,
        until: u64::MAX,
        events: usize::MAX,
        bytes: usize::MAX,
    };

    fn encode(base: u64, events: &[Event]) -> Vec<u8> {
        let topic: Arc<str> = "t".into();
        let mut records = Records::new();
        for (_, key, value, headers) in events {
            records.push(
                &topic,
                NewRecord {
                    key: key.as_deref(),
                    value: value.as_deref(),
                    ..NewRecord::default()
                },
            );
            for (name, value) in headers {
                records.push_header(name, value.as_deref());
            }
        }
        let mut batch = BatchWriter::new(base);
        for (record, (timestamp, ..)) in records.iter().zip(events) {
            batch.push(&record, *timestamp);
        }
        batch.finish()
    }

    fn decode(value: &[u8], take: Take) -> Result<(Vec<(u64, Event)>, u64), Damaged> {
        let mut block = BlockBuilder::new(TopicPartition::new("t", 0), 0, 0);
        let next = BatchReader::open(value)?.copy_into(&mut block, take)?;
        let events = block
            .build()
            .iter()
            .map(|event| {
                let headers = event
                    .headers()
                    .map(|(name, value)| (name.to_vec(), value.map(<[u8]>::to_vec)))
                    .collect();
                let key = event.key().map(<[u8]>::to_vec);
                let value = event.value().map(<[u8]>::to_vec);
                (event.offset(), (event.timestamp_ms(), key, value, headers))
            })
            .collect();
        Ok((events, next))
    }

    fn any_events() -> impl Strategy<Value = Vec<Event>> {
        let bytes = || proptest::option::of(proptest::collection::vec(any::<u8>(), 0..40));
        let name = proptest::collection::vec(any::<u8>(), 0..10);
        let headers = proptest::collection::vec((name, bytes()), 0..4);
        proptest::collection::vec((any::<i64>(), bytes(), bytes(), headers), 0..20)
    }

    proptest! {
        #[test]
        fn what_was_written_is_read(base in 0..u64::MAX / 2, events in any_events()) {
            let (read, next) = decode(&encode(base, &events), ALL).unwrap();
            prop_assert_eq!(next, base + events.len() as u64);
            let expected: Vec<_> = (base..).zip(events).collect();
            prop_assert_eq!(read, expected);
        }

        #[test]
        fn a_changed_byte_is_noticed(events in any_events(), at in any::<prop::sample::Index>(), bit in 0..8_u32) {
            let mut value = encode(3, &events);
            let at = at.index(value.len());
            value[at] ^= 1_u8 << bit;
            prop_assert_eq!(BatchReader::open(&value).err(), Some(Damaged::Checksum));
        }

        /// A valid checksum over nonsense must end in an error, never in a panic.
        #[test]
        fn garbage_never_panics(mut value in proptest::collection::vec(any::<u8>(), 0..200), sealed: bool) {
            if sealed && value.len() >= HEAD {
                value[8] = VERSION;
                let checksum = xxh3_64(&value[8..]);
                value[..8].copy_from_slice(&checksum.to_le_bytes());
            }
            if let Ok(batch) = BatchReader::open(&value) {
                let _ = decode(&value, ALL);
                let _ = batch.first_at(0);
            }
        }

        #[test]
        fn a_batch_that_is_cut_short_is_refused(events in any_events(), cut in any::<prop::sample::Index>()) {
            let value = encode(0, &events);
            prop_assert!(BatchReader::open(&value[..cut.index(value.len())]).is_err());
        }
    }

    fn numbered(count: u64) -> Vec<u8> {
        let events: Vec<Event> = (0..count)
            .map(|n| (n as i64 * 10, None, Some(vec![n as u8; 10]), Vec::new()))
            .collect();
        encode(100, &events)
    }

    #[test]
    fn a_take_begins_and_ends_where_it_is_told() {
        let value = numbered(10);
        let offsets = |take| {
            let (events, next) = decode(&value, take).unwrap();
            let offsets: Vec<_> = events.iter().map(|(offset, _)| *offset).collect();
            (offsets, next)
        };
        let take = Take {
            from: 103,
            events: 2,
            ..ALL
        };
        assert_eq!(offsets(take), (vec![103, 104], 105));
        assert_eq!(offsets(Take { until: 102, ..ALL }), (vec![100, 101], 102));
        // One event is taken however large it is, or a reader would stand still for ever.
        assert_eq!(offsets(Take { bytes: 1, ..ALL }), (vec![100], 101));
    }

    #[test]
    fn a_timestamp_between_two_events_is_answered_with_the_later() {
        let value = numbered(10);
        let batch = BatchReader::open(&value).unwrap();
        assert_eq!(batch.first_at(15), Ok(Some(102)));
        assert_eq!(batch.first_at(0), Ok(Some(100)));
        assert_eq!(batch.first_at(91), Ok(None));
    }

    #[test]
    fn a_later_version_is_named() {
        let mut value = numbered(1);
        value[8] = 9;
        let checksum = xxh3_64(&value[8..]);
        value[..8].copy_from_slice(&checksum.to_le_bytes());
        assert_eq!(BatchReader::open(&value).err(), Some(Damaged::Version(9)));
    }
}
