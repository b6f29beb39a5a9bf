//! Values of the embedded store: a batch, and the answer to a request with a key. Their checksums
//! find what a disk changed; behind a right checksum nonsense must still end in an error.

use millstream::broker::Place;
use millstream::broker::embedded::answer_codec;
use millstream::broker::embedded::codec::{BatchReader, BatchWriter, Take};
use millstream::event::{Block, BlockBuilder, TopicPartition};
use millstream::records::{NewRecord, Records};
use millstream_fuzz_tests::{fuzz, mutated};
use proptest::prelude::*;

const ALL: Take = Take {
    from: 0,
    until: u64::MAX,
    events: usize::MAX,
    bytes: usize::MAX,
};

/// Numbers that are too large, as the store writes them.
const NUMBERS: &[&[u8]] = &[
    b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
    b"\x80\x80\x80\x80\x08",
    b"\xff\xff\xff\xff\x0f",
    b"\x00",
];

fn batch(events: usize) -> Vec<u8> {
    let mut records = Records::new();
    for number in 0..events {
        records.push(
            &"t".into(),
            NewRecord {
                key: (number % 2 == 0).then_some(&b"key"[..]),
                value: (number % 3 != 0).then_some(&b"a value"[..]),
                ..NewRecord::default()
            },
        );
        for _ in 0..number % 3 {
            records.push_header(b"name", (number % 4 != 0).then_some(&b"of header"[..]));
        }
    }
    let mut batch = BatchWriter::new(100);
    for (record, time) in records.iter().zip(1_000..) {
        batch.push(&record, time);
    }
    batch.finish()
}

/// The value with a checksum that is right again.
fn sealed(mut value: Vec<u8>) -> Vec<u8> {
    if value.len() > 8 {
        let checksum = xxhash_rust::xxh3::xxh3_64(&value[8..]);
        value[..8].copy_from_slice(&checksum.to_le_bytes());
    }
    value
}

fn read(value: &[u8], take: Take) -> Option<(Block, u64)> {
    let mut block = BlockBuilder::new(TopicPartition::new("t", 0), 0, 0);
    let next = BatchReader::open(value)
        .ok()?
        .copy_into(&mut block, take)
        .ok()?;
    Some((block.build(), next))
}

/// What was read, written again.
fn written(block: &Block, base: u64) -> Vec<u8> {
    let mut batch = BatchWriter::new(base);
    for event in block.iter() {
        let mut records = Records::new();
        records.push(&"t".into(), NewRecord::copy_of(&event));
        for (name, value) in event.headers() {
            records.push_header(name, value);
        }
        batch.push(&records.get(0), event.timestamp_ms());
    }
    batch.finish()
}

#[test]
fn batches_are_read_or_refused() {
    let corpus = [0, 1, 3, 12].map(batch).to_vec();
    let inputs = (
        mutated(corpus, NUMBERS),
        any::<bool>(),
        95..115_u64,
        0..200_usize,
    );
    fuzz("batches", 10_000, &inputs, |(value, seal, from, bytes)| {
        let value = if seal { sealed(value) } else { value };
        let Some((block, next)) = read(&value, ALL) else {
            return Ok(());
        };
        // Bounded by what was read.
        prop_assert!(block.len() <= value.len());
        prop_assert!(block.iter().map(|event| event.bytes()).sum::<usize>() <= value.len() * 64);
        let base = next.saturating_sub(block.len() as u64);
        if next < u64::MAX {
            prop_assert!(block.iter().map(|event| event.offset()).eq(base..next));
            let (again, end) = read(&written(&block, base), ALL).expect("what was written");
            prop_assert_eq!(end, next);
            let same = again.iter().zip(block.iter()).all(|(one, other)| {
                one.key() == other.key()
                    && one.value() == other.value()
                    && one.timestamp_ms() == other.timestamp_ms()
                    && one.headers().eq(other.headers())
            });
            prop_assert!(same);
        }
        // A part is a part of the whole.
        let part = Take { from, bytes, ..ALL };
        let (part, _) = read(&value, part).expect("the whole was read");
        prop_assert!(part.len() <= 1 || part.bytes() <= bytes);
        prop_assert!(part.iter().all(|event| event.offset() >= from));
        let reader = BatchReader::open(&value).expect("it was opened before");
        prop_assert!(reader.first_at(i64::MIN).is_ok());
        Ok(())
    });
}

fn places(count: u64, partitions: u64) -> Vec<Place> {
    (0..count)
        .map(|number| Place {
            partition: TopicPartition::new(format!("t{}", number % partitions), 1),
            offset: number,
        })
        .collect()
}

#[test]
fn answers_are_read_or_refused() {
    let corpus = [(1, 1), (20, 1), (20, 3), (0, 1)]
        .map(|(count, partitions)| answer_codec::encode(7, 9, &places(count, partitions)));
    let inputs = mutated(corpus.to_vec(), NUMBERS);
    fuzz("answers", 10_000, &inputs, |value| {
        let Ok((time, digest, rest)) = answer_codec::split(&value) else {
            return Ok(());
        };
        let Ok(read) = answer_codec::read_places(rest) else {
            return Ok(());
        };
        // Runs are the one place where few bytes stand for many events.
        prop_assert!(read.len() <= 2_000_000);
        if read.len() < 10_000 && read.iter().all(|place| place.offset < u64::MAX) {
            let again = answer_codec::encode(time, digest, &read);
            let (.., rest) = answer_codec::split(&again).expect("what was written");
            prop_assert_eq!(
                answer_codec::read_places(rest).expect("what was written"),
                read
            );
        }
        Ok(())
    });
}
