//! Dead letters: the event as it was, and beside it why it failed.

use std::fmt::Write as _;
use std::sync::Arc;

use super::derive;
use super::replay;
use crate::event::EventView;
use crate::records::{NewRecord, Records};

/// Headers that a dead letter adds begin with this.
pub const PREFIX: &str = "millstream-dlq-";

/// The longest error text that is kept, in bytes.
pub const ERROR_LIMIT: usize = 1024;

/// Why an event failed for good: the header `millstream-dlq-reason` and the label `reason`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Reason {
    Rejected,
    RetriesExhausted,
    Trap,
    Deadline,
    Memory,
    Invalid,
    Decode,
    Oversize,
    Undeliverable,
    Hops,
    /// It was in flight at three deaths of the process.
    Crash,
}

impl Reason {
    /// All of them, for metrics that start at zero.
    pub const ALL: [Self; 11] = [
        Self::Rejected,
        Self::RetriesExhausted,
        Self::Trap,
        Self::Deadline,
        Self::Memory,
        Self::Invalid,
        Self::Decode,
        Self::Oversize,
        Self::Undeliverable,
        Self::Hops,
        Self::Crash,
    ];

    /// The reason of this name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|reason| reason.name() == name)
    }

    /// As it stands in headers and labels.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Rejected => "rejected",
            Self::RetriesExhausted => "retries-exhausted",
            Self::Trap => "trap",
            Self::Deadline => "deadline",
            Self::Memory => "memory",
            Self::Invalid => "invalid",
            Self::Decode => "decode",
            Self::Oversize => "oversize",
            Self::Undeliverable => "undeliverable",
            Self::Hops => "hops",
            Self::Crash => "crash",
        }
    }
}

/// Everything that a dead letter says besides its event.
#[derive(Clone, Debug)]
pub struct Failure {
    pub reason: Reason,
    /// The plugin's own name for it; may be empty.
    pub code: String,
    pub error: String,
    /// Attempts made.
    pub attempts: u32,
    /// Milliseconds since 1970-01-01 UTC.
    pub first_seen_ms: i64,
}

/// Appends the dead letter of `event` for `topic`. An event that was `replayed` keeps the identity
/// under which it was dead-lettered first.
pub fn push(
    records: &mut Records,
    topic: &Arc<str>,
    consumer: &str,
    digest: &str,
    event: &EventView<'_>,
    replayed: bool,
    failure: &Failure,
) {
    records.push(topic, NewRecord::copy_of(event));
    let mut count = 0u32;
    for (name, value) in event.headers() {
        if name == b"millstream-dlq-count" {
            count = value
                .and_then(|value| std::str::from_utf8(value).ok())
                .and_then(|text| text.parse().ok())
                .unwrap_or(0);
        }
        // An event that was replayed and failed again says why it failed this time.
        let ours = name.starts_with(PREFIX.as_bytes())
            || name.starts_with(replay::PREFIX.as_bytes())
            || name == derive::HOPS.as_bytes();
        if !ours {
            records.push_header(name, value);
        }
    }
    let source = event.source();
    let mut place = (&*source.topic, source.partition, event.offset());
    let mut first_seen_ms = failure.first_seen_ms;
    let origin = replayed.then(|| replay::Origin::of(event)).flatten();
    if let Some(origin) = &origin {
        place = (
            &origin.partition.topic,
            origin.partition.partition,
            origin.offset,
        );
        count = origin.count;
        first_seen_ms = first_seen_ms.min(origin.first_seen_ms);
    }
    let mut text = String::new();
    let mut add = |prefix: &str, name: &str, value: &dyn std::fmt::Display| {
        text.clear();
        let _ = write!(text, "{value}");
        let header = format!("{prefix}{name}");
        records.push_header(header.as_bytes(), Some(text.as_bytes()));
    };
    add(derive::HOPS, "", &derive::hops(event).saturating_add(1));
    let mut add = |name: &str, value: &dyn std::fmt::Display| add(PREFIX, name, value);
    add("consumer", &consumer);
    add("topic", &place.0);
    add("partition", &place.1);
    add("offset", &place.2);
    add("timestamp", &event.timestamp_ms());
    add("reason", &failure.reason.name());
    add("code", &failure.code);
    add("error", &cut(&failure.error, ERROR_LIMIT));
    add("attempts", &failure.attempts);
    add("count", &count.saturating_add(1));
    add("first-seen", &first_seen_ms);
    add("plugin-digest", &digest);
}

/// The longest start of `text` that fits `limit` bytes and ends between characters.
pub fn cut(text: &str, limit: usize) -> &str {
    if text.len() <= limit {
        return text;
    }
    let mut end = limit;
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{BlockBuilder, NewEvent, TopicPartition};

    fn failure(error: &str) -> Failure {
        Failure {
            reason: Reason::Rejected,
            code: "bad-price".into(),
            error: error.into(),
            attempts: 1,
            first_seen_ms: 77,
        }
    }

    #[test]
    fn the_event_stays_as_it_was_and_says_where_it_came_from() {
        let mut builder = BlockBuilder::new(TopicPartition::new("orders", 2), 1, 0);
        builder.push(NewEvent {
            offset: 9,
            timestamp_ms: 5,
            timestamp_of_broker: false,
            key: None,
            value: Some(&[0xff, 0]),
        });
        builder.push_header(&[0xfe], Some(b"raw"));
        builder.push_header(b"millstream-dlq-count", Some(b"2"));
        builder.push_header(b"millstream-dlq-reason", Some(b"trap"));
        let block = builder.build();
        let mut records = Records::new();
        let long = "é".repeat(ERROR_LIMIT);
        push(
            &mut records,
            &"dlq".into(),
            "enrich",
            "sha256:aa",
            &block.event(0),
            false,
            &failure(&long),
        );
        let record = records.get(0);
        assert_eq!((record.key(), record.value()), (None, Some(&[0xff, 0][..])));
        let header = |name: &str| {
            let found: Vec<_> = record
                .headers()
                .filter(|(n, _)| *n == name.as_bytes())
                .collect();
            assert_eq!(found.len(), 1, "{name}");
            String::from_utf8_lossy(found[0].1.unwrap_or_default()).into_owned()
        };
        assert_eq!(
            record.headers().next(),
            Some((&[0xfe][..], Some(&b"raw"[..])))
        );
        assert_eq!(header("millstream-dlq-offset"), "9");
        assert_eq!(header("millstream-dlq-reason"), "rejected");
        assert_eq!(header("millstream-dlq-count"), "3");
        assert_eq!(header("millstream-dlq-error").len(), ERROR_LIMIT);
        assert_eq!(header("millstream-hops"), "1");
    }
}
