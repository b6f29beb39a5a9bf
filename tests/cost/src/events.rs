//! The events that the parts work on: of fixed bytes, so that each run does the same.

use std::sync::Arc;

use millstream::event::{Block, BlockBuilder, NewEvent, TopicPartition};
use millstream::records::{NewRecord, Records};

/// The topic that they come from.
pub const TOPIC: &str = "in";
const KEYS: [&str; 4] = ["customer-1", "customer-2", "customer-3", "customer-4"];
/// What an event holds.
pub const VALUE: &str = r#"{"auction":1042,"bidder":1007,"price":10043,"channel":"Google","url":"https://shop.example.com/hats/caps/red/item.htm?query=1","dateTime":1767225600000,"extra":"abcdef"}"#;
/// For where each byte is a loop's turn in a debug build, and would drown all else.
pub const SHORT: &str = r#"{"auction":1042}"#;
const HEADERS: [(&str, &str); 2] = [("type", "OrderPlaced"), ("region", "eu")];
/// 2026-01-01T00:00:00Z; then one event a millisecond.
const FIRST_MS: i64 = 1_767_225_600_000;

/// The only partition of the topic.
pub fn partition() -> TopicPartition {
    TopicPartition::new(TOPIC, 0)
}

fn key(offset: u64) -> &'static [u8] {
    KEYS[(offset % KEYS.len() as u64) as usize].as_bytes()
}

fn timestamp_ms(offset: u64) -> i64 {
    FIRST_MS.saturating_add_unsigned(offset)
}

/// So many events with this value from offset `first` on, as an adapter hands them over.
pub fn block(first: u64, count: usize, value: &str) -> Block {
    let mut block = BlockBuilder::new(partition(), count, count * (value.len() + 64));
    for offset in (first..).take(count) {
        block.push(NewEvent {
            offset,
            timestamp_ms: timestamp_ms(offset),
            timestamp_of_broker: false,
            key: Some(key(offset)),
            value: Some(value.as_bytes()),
        });
        for (name, text) in HEADERS {
            block.push_header(name.as_bytes(), Some(text.as_bytes()));
        }
    }
    block.build()
}

/// The same events as a producer sends them.
pub fn records(topic: &Arc<str>, first: u64, count: usize) -> Records {
    let mut records = Records::new();
    for offset in (first..).take(count) {
        let record = NewRecord {
            key: Some(key(offset)),
            value: Some(VALUE.as_bytes()),
            partition: Some(0),
            timestamp_ms: Some(timestamp_ms(offset)),
            tag: offset,
        };
        records.push(topic, record);
        for (name, value) in HEADERS {
            records.push_header(name.as_bytes(), Some(value.as_bytes()));
        }
    }
    records
}

/// Whether these bytes are the value of one of them.
pub fn is_value(bytes: Option<&[u8]>) -> bool {
    bytes == Some(VALUE.as_bytes())
}
