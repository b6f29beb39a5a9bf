//! A dead letter on its way back to its consumer.
//!
//! ```text
//! dead letter ─ push ─▶ millstream.<group>.replay ─▶ the consumer ─▶ handled
//!      ▲                millstream-replay-of             │
//!      └──────── the identity of the first time ─────────┘ fails again
//! ```
//! What is sent back is the event as it was (key, value, timestamp, headers), one hop further. The
//! headers `millstream-replay-…` say which event it was, how often it was dead-lettered, and when it
//! failed first; they count on the consumer's own replay topic alone.

use std::fmt::Write as _;
use std::sync::Arc;

use super::dead_letter;
use super::derive;
use super::letter::Letter;
use crate::event::{EventView, TopicPartition};
use crate::records::{NewRecord, Records};

/// Headers of a replayed event begin with this.
pub const PREFIX: &str = "millstream-replay-";
/// `topic/partition/offset` of the event that was dead-lettered first.
pub const OF: &str = "millstream-replay-of";
/// How often it was dead-lettered.
pub const COUNT: &str = "millstream-replay-count";
/// When it failed first, in milliseconds since 1970-01-01 UTC.
pub const FIRST_SEEN: &str = "millstream-replay-first-seen";

/// Which event a replayed one is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    pub partition: TopicPartition,
    pub offset: u64,
    /// How often it was dead-lettered.
    pub count: u32,
    /// Milliseconds since 1970-01-01 UTC.
    pub first_seen_ms: i64,
}

impl Origin {
    /// Reads it from an event of a replay topic; `None` where it does not say.
    pub fn of(event: &EventView<'_>) -> Option<Self> {
        let text = |name: &str| std::str::from_utf8(event.header(name)?).ok();
        let mut parts = text(OF)?.rsplitn(3, '/');
        let offset = parts.next()?.parse().ok()?;
        let partition = parts.next()?.parse().ok()?;
        let topic = parts.next()?;
        Some(Self {
            partition: TopicPartition::new(topic, partition),
            offset,
            count: text(COUNT)?.parse().ok()?,
            first_seen_ms: text(FIRST_SEEN)?.parse().ok()?,
        })
    }
}

/// Appends the event of a dead letter for the replay topic `topic`. `event` is the dead letter
/// itself, `letter` what its headers say.
pub fn push(records: &mut Records, topic: &Arc<str>, event: &EventView<'_>, letter: &Letter) {
    records.push(topic, NewRecord::copy_of(event));
    for (name, value) in event.headers() {
        let ours = name.starts_with(dead_letter::PREFIX.as_bytes())
            || name.starts_with(PREFIX.as_bytes())
            || name == derive::HOPS.as_bytes();
        if !ours {
            records.push_header(name, value);
        }
    }
    let mut text = String::new();
    let mut add = |name: &str, value: std::fmt::Arguments<'_>| {
        text.clear();
        let _ = text.write_fmt(value);
        records.push_header(name.as_bytes(), Some(text.as_bytes()));
    };
    let hops = derive::hops(event).saturating_add(1);
    add(derive::HOPS, format_args!("{hops}"));
    add(OF, format_args!("{}/{}", letter.source, letter.offset));
    add(COUNT, format_args!("{}", letter.count));
    add(FIRST_SEEN, format_args!("{}", letter.first_seen_ms));
}

#[cfg(test)]
mod tests {
    use super::super::dead_letter::Reason;
    use super::super::letter::tests::{dead_letter_of, event, read_back};
    use super::*;

    const REPLAY: &str = "millstream.g.replay";

    fn replayed(letter: &crate::event::Block) -> crate::event::Block {
        let event = letter.event(0);
        let read = Letter::read(&event).expect("a dead letter");
        let mut records = Records::new();
        push(&mut records, &REPLAY.into(), &event, &read);
        read_back(&records, REPLAY)
    }

    fn headers(event: &EventView<'_>) -> Vec<(String, String)> {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let both =
            |(name, value): (&[u8], Option<&[u8]>)| (text(name), text(value.unwrap_or(b"-")));
        event.headers().map(both).collect()
    }

    /// A second identity would make one event two in every list, and a third at the next replay.
    #[test]
    fn what_fails_again_keeps_its_identity_and_counts_up() {
        let first = event("orders", 9, &[("a", "1"), ("millstream-hops", "2")]);
        let mut letter = dead_letter_of(&first, false, Reason::Rejected);
        for count in 1..4 {
            let read = Letter::read(&letter.event(0)).expect("a dead letter");
            assert_eq!(
                (&*read.source.topic, read.source.partition, read.offset),
                ("orders", 1, 9)
            );
            assert_eq!((read.count, read.first_seen_ms), (count, 77));
            let back = replayed(&letter);
            let hops = (2 + 2 * count).to_string();
            let expected = [
                ("a", "1"),
                ("millstream-hops", &*hops),
                (OF, "orders/1/9"),
                (COUNT, &*count.to_string()),
                (FIRST_SEEN, "77"),
            ];
            let expected = expected.map(|(name, value)| (name.to_owned(), value.to_owned()));
            assert_eq!(headers(&back.event(0)), expected);
            assert_eq!(back.event(0).timestamp_ms(), 5);
            letter = dead_letter_of(&back, true, Reason::Trap);
        }
    }

    /// A producer may write such headers to an ordinary topic: they must not stand for another event.
    #[test]
    fn the_headers_count_on_the_replay_topic_alone() {
        let headers = [(OF, "other/0/1"), (COUNT, "7"), (FIRST_SEEN, "1")];
        let letter = dead_letter_of(&event("orders", 9, &headers), false, Reason::Rejected);
        let read = Letter::read(&letter.event(0)).expect("a dead letter");
        assert_eq!((&*read.source.topic, read.offset), ("orders", 9));
        assert_eq!((read.count, read.first_seen_ms), (1, 77));
        assert_eq!(letter.event(0).header(OF), None);
    }

    #[test]
    fn an_event_that_does_not_say_what_it_was_is_itself() {
        for of in ["", "orders", "orders/1", "orders/x/1", "orders/1/-1"] {
            let headers = [(OF, of), (COUNT, "1"), (FIRST_SEEN, "1")];
            assert_eq!(
                Origin::of(&event(REPLAY, 0, &headers).event(0)),
                None,
                "{of}"
            );
        }
    }
}
