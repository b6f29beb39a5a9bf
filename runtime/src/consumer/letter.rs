//! A dead letter as it is read: the headers that [`super::dead_letter`] wrote.

use std::borrow::Cow;
use std::str::FromStr;

use super::dead_letter::PREFIX;
use crate::event::{EventView, TopicPartition};

/// What the headers of a dead letter say. Its identity is `consumer`, `source` and `offset`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Letter {
    pub consumer: String,
    /// Where the event was that failed.
    pub source: TopicPartition,
    pub offset: u64,
    pub reason: String,
    /// The plugin's own name for it; may be empty.
    pub code: String,
    pub error: String,
    /// Attempts made.
    pub attempts: u32,
    /// How often the event was dead-lettered, this time included.
    pub count: u32,
    /// Milliseconds since 1970-01-01 UTC.
    pub first_seen_ms: i64,
    /// Of the plugin that failed.
    pub digest: String,
}

impl Letter {
    /// Reads an event of a dead-letter topic; `None` where it is no dead letter.
    pub fn read(event: &EventView<'_>) -> Option<Self> {
        let mut wanted: [Option<&[u8]>; 10] = [None; 10];
        const NAMES: [&str; 10] = [
            "consumer",
            "topic",
            "partition",
            "offset",
            "reason",
            "code",
            "error",
            "attempts",
            "count",
            "first-seen",
        ];
        let mut digest = None;
        for (name, value) in event.headers() {
            let Some(name) = name.strip_prefix(PREFIX.as_bytes()) else {
                continue;
            };
            if name == b"plugin-digest" {
                digest = value;
            } else if let Some(at) = NAMES.iter().position(|known| known.as_bytes() == name) {
                wanted[at] = value;
            }
        }
        let [
            consumer,
            topic,
            partition,
            offset,
            reason,
            code,
            error,
            attempts,
            count,
            first_seen,
        ] = wanted;
        Some(Self {
            consumer: text(consumer?).into_owned(),
            source: TopicPartition::new(&*text(topic?), number(partition)?),
            offset: number(offset)?,
            reason: text(reason?).into_owned(),
            code: text(code.unwrap_or_default()).into_owned(),
            error: text(error.unwrap_or_default()).into_owned(),
            attempts: number(attempts).unwrap_or(0),
            count: number(count).unwrap_or(1),
            first_seen_ms: number(first_seen).unwrap_or_else(|| event.timestamp_ms()),
            digest: text(digest.unwrap_or_default()).into_owned(),
        })
    }
}

fn text(value: &[u8]) -> Cow<'_, str> {
    String::from_utf8_lossy(value)
}

fn number<T: FromStr>(value: Option<&[u8]>) -> Option<T> {
    text(value?).parse().ok()
}

#[cfg(test)]
pub mod tests {
    use std::sync::Arc;

    use super::super::dead_letter::{self, Failure, Reason};
    use super::*;
    use crate::event::{Block, BlockBuilder, NewEvent};
    use crate::records::Records;

    /// An event `k: v` of this place with these headers.
    pub fn event(topic: &str, offset: u64, headers: &[(&str, &str)]) -> Block {
        let mut builder = BlockBuilder::new(TopicPartition::new(topic, 1), 1, 0);
        builder.push(NewEvent {
            offset,
            timestamp_ms: 5,
            timestamp_of_broker: false,
            key: Some(b"k"),
            value: Some(b"v"),
        });
        for (name, value) in headers {
            builder.push_header(name.as_bytes(), Some(value.as_bytes()));
        }
        builder.build()
    }

    /// The only record of `records` as an event of `topic`.
    pub fn read_back(records: &Records, topic: &str) -> Block {
        let record = records.get(0);
        let mut builder = BlockBuilder::new(TopicPartition::new(topic, 0), 1, 0);
        builder.push(NewEvent {
            offset: 3,
            timestamp_ms: record.timestamp_ms().unwrap_or_default(),
            timestamp_of_broker: false,
            key: record.key(),
            value: record.value(),
        });
        for (name, value) in record.headers() {
            builder.push_header(name, value);
        }
        builder.build()
    }

    /// The dead letter of an event, as it lies in the topic `dlq`.
    pub fn dead_letter_of(event: &Block, replayed: bool, reason: Reason) -> Block {
        let mut records = Records::new();
        let topic: Arc<str> = "dlq".into();
        let failure = Failure {
            reason,
            code: "too-old".into(),
            error: "it is from 1999".into(),
            attempts: 2,
            first_seen_ms: 77,
        };
        let event = event.event(0);
        dead_letter::push(
            &mut records,
            &topic,
            "enrich",
            "sha256:aa",
            &event,
            replayed,
            &failure,
        );
        read_back(&records, "dlq")
    }

    #[test]
    fn a_dead_letter_reads_as_it_was_written() {
        let letter = dead_letter_of(&event("orders", 9, &[]), false, Reason::Rejected);
        let expected = Letter {
            consumer: "enrich".into(),
            source: TopicPartition::new("orders", 1),
            offset: 9,
            reason: "rejected".into(),
            code: "too-old".into(),
            error: "it is from 1999".into(),
            attempts: 2,
            count: 1,
            first_seen_ms: 77,
            digest: "sha256:aa".into(),
        };
        assert_eq!(Letter::read(&letter.event(0)), Some(expected));
    }

    /// Anyone may write to the topic: what is no dead letter must not be taken for one.
    #[test]
    fn other_events_are_no_dead_letters() {
        for headers in [
            &[][..],
            &[("millstream-dlq-consumer", "enrich")],
            &[
                ("millstream-dlq-consumer", "enrich"),
                ("millstream-dlq-topic", "orders"),
                ("millstream-dlq-partition", "1"),
                ("millstream-dlq-offset", "-9"),
                ("millstream-dlq-reason", "trap"),
            ],
        ] {
            assert_eq!(Letter::read(&event("dlq", 0, headers).event(0)), None);
        }
    }
}
