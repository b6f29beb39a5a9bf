//! Dead letters and what is sent back: anyone may write to those topics.

use std::sync::Arc;

use millstream::consumer::dead_letter::{self, ERROR_LIMIT, Failure, Reason};
use millstream::consumer::letter::Letter;
use millstream::consumer::replay::{self, Origin};
use millstream::event::{Block, BlockBuilder, NewEvent, TopicPartition};
use millstream::records::Records;
use millstream_fuzz_tests::fuzz;
use proptest::prelude::*;

use super::{Header, event, headers};

const NAMES: &[&str] = &[
    "millstream-dlq-consumer",
    "millstream-dlq-topic",
    "millstream-dlq-partition",
    "millstream-dlq-offset",
    "millstream-dlq-reason",
    "millstream-dlq-code",
    "millstream-dlq-error",
    "millstream-dlq-attempts",
    "millstream-dlq-count",
    "millstream-dlq-first-seen",
    "millstream-dlq-plugin-digest",
    "millstream-dlq-unknown",
    "millstream-replay-of",
    "millstream-replay-count",
    "millstream-replay-first-seen",
    "millstream-hops",
    "other",
];
const VALUES: &[&str] = &[
    "c",
    "orders",
    "a/b",
    "0",
    "1",
    "7",
    "-1",
    "+1",
    " 1",
    "4294967295",
    "4294967296",
    "18446744073709551615",
    "18446744073709551616",
    "orders/1/7",
    "orders/1/7/2",
    "/1/7",
    "",
    "é",
    "-9223372036854775808",
];

fn last<'a>(headers: &'a [Header], wanted: &str) -> Option<&'a [u8]> {
    let of = headers
        .iter()
        .rev()
        .find(|(name, _)| name == wanted.as_bytes());
    of.and_then(|(_, value)| value.as_deref())
}

fn number(headers: &[Header], wanted: &str) -> Option<i128> {
    let text = std::str::from_utf8(last(headers, wanted)?).ok()?;
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    // No number of the letter is negative, so a zero with a minus is none of them.
    let plain =
        text != "-0" && !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    plain.then(|| text.parse().ok())?
}

/// The only record as an event of the topic `t`.
fn read_back(records: &Records) -> Block {
    let record = records.get(0);
    let mut block = BlockBuilder::new(TopicPartition::new("t", 0), 1, 0);
    block.push(NewEvent {
        offset: 3,
        timestamp_ms: record.timestamp_ms().unwrap_or_default(),
        timestamp_of_broker: false,
        key: record.key(),
        value: record.value(),
    });
    for (name, value) in record.headers() {
        block.push_header(name, value);
    }
    block.build()
}

#[test]
fn dead_letters_are_read_as_they_say_or_not_at_all() {
    fuzz(
        "dead letters",
        5_000,
        &headers(NAMES, VALUES, 14),
        |headers| {
            let block = event(Some(b"k"), &headers);
            let event = block.event(0);
            let text = |name: &str| last(&headers, name).map(String::from_utf8_lossy);
            let place = || {
                Some((
                    text("millstream-dlq-consumer")?,
                    text("millstream-dlq-topic")?,
                    u32::try_from(number(&headers, "millstream-dlq-partition")?).ok()?,
                    u64::try_from(number(&headers, "millstream-dlq-offset")?).ok()?,
                    text("millstream-dlq-reason")?,
                ))
            };
            let Some(letter) = Letter::read(&event) else {
                prop_assert!(place().is_none(), "a dead letter was passed over");
                return Ok(());
            };
            let (consumer, topic, partition, offset, reason) = place().unwrap();
            prop_assert_eq!(&letter.consumer, &*consumer);
            prop_assert_eq!(&*letter.source.topic, &*topic);
            prop_assert_eq!(
                (letter.source.partition, letter.offset),
                (partition, offset)
            );
            prop_assert_eq!(&letter.reason, &*reason);

            // On its way back it is known as what it was.
            let mut records = Records::new();
            replay::push(&mut records, &"back".into(), &event, &letter);
            let back = read_back(&records);
            let origin = Origin::of(&back.event(0)).unwrap();
            prop_assert_eq!(origin.partition, letter.source);
            prop_assert_eq!(origin.offset, letter.offset);
            prop_assert_eq!(
                (origin.count, origin.first_seen_ms),
                (letter.count, letter.first_seen_ms)
            );
            let dlq = b"millstream-dlq-";
            prop_assert!(
                back.event(0)
                    .headers()
                    .all(|(name, _)| !name.starts_with(dlq))
            );
            Ok(())
        },
    );
}

#[test]
fn what_fails_is_a_dead_letter_that_reads_as_it_was_meant() {
    let failure = (
        0..Reason::ALL.len(),
        "[a-z-]{0,8}",
        "(\\PC|\n){0,20}",
        any::<(u32, i64)>(),
    );
    let inputs = (
        headers(NAMES, VALUES, 10),
        failure,
        any::<bool>(),
        1..200_usize,
    );
    fuzz(
        "failures",
        2_000,
        &inputs,
        |(headers, failure, replayed, often)| {
            let block = event(Some(b"k"), &headers);
            let (reason, code, error, (attempts, first_seen_ms)) = failure;
            let failure = Failure {
                reason: Reason::ALL[reason],
                code,
                error: error.repeat(often),
                attempts,
                first_seen_ms,
            };
            let mut records = Records::new();
            let topic: Arc<str> = "dlq".into();
            let source = block.event(0);
            dead_letter::push(
                &mut records,
                &topic,
                "c",
                "sha256:aa",
                &source,
                replayed,
                &failure,
            );
            let written = read_back(&records);
            let letter = Letter::read(&written.event(0)).expect("it is a dead letter");
            let origin = Origin::of(&source).filter(|_| replayed);
            let (partition, offset) = match &origin {
                Some(origin) => (origin.partition.clone(), origin.offset),
                None => (TopicPartition::new("orders", 3), 42),
            };
            prop_assert_eq!((letter.source, letter.offset), (partition, offset));
            prop_assert_eq!(
                (letter.consumer, letter.attempts),
                ("c".to_owned(), failure.attempts)
            );
            prop_assert_eq!(letter.reason, failure.reason.name());
            prop_assert!(letter.error.len() <= ERROR_LIMIT);
            prop_assert!(failure.error.starts_with(&letter.error));
            prop_assert!(letter.count >= 1);
            Ok(())
        },
    );
}
