//! Whether what Kafka's reader shows is what was calculated.

use std::collections::{BTreeMap, HashSet};

use anyhow::{Context, Result, ensure};
use millstream_test_support::kafka_tools::KafkaRecord;

use super::order_lines::{Becomes, Line};

/// Values of each key, in the order in which they must come.
type ByKey = BTreeMap<String, Vec<String>>;

/// What must come of lines.
#[derive(Debug, Default)]
pub struct Expected {
    pub orders: ByKey,
    pub large: ByKey,
    /// Dead letters as the lines were, with the code behind each.
    pub dead_letters: ByKey,
}

impl Expected {
    /// Of lines, in the order in which they were produced.
    pub fn of(lines: &[Line]) -> Self {
        let mut expected = Self::default();
        let add = |map: &mut ByKey, key: &str, value: String| {
            map.entry(key.to_owned()).or_default().push(value);
        };
        for line in lines {
            match &line.becomes {
                Becomes::Order { value, large } => {
                    add(&mut expected.orders, &line.key, value.clone());
                    if *large {
                        add(&mut expected.large, &line.key, value.clone());
                    }
                }
                Becomes::Rejected(code) => {
                    let shown = shown_dead_letter(&line.value, code);
                    add(&mut expected.dead_letters, &line.key, shown);
                }
            }
        }
        expected
    }
}

fn shown_dead_letter(value: &str, code: &str) -> String {
    format!("{code}: {value}")
}

/// Checks derived events: with repeats removed those of each key are the expected ones in their
/// order, and their sources ascend. Returns how many repeats there were.
///
/// # Errors
/// The first key that differs, and how.
pub fn derived(records: &[KafkaRecord], expected: &ByKey) -> Result<u64> {
    compare(
        records,
        expected,
        |record| {
            let source = header(record, "millstream-source")?;
            let id = header(record, "millstream-id")?;
            let number = id
                .strip_prefix(&source)
                .and_then(|rest| rest.strip_prefix('/'));
            ensure!(
                number.is_some_and(|number| number.parse::<u32>().is_ok()),
                "the id {id} is none of an event derived from {source}"
            );
            ensure!(
                header(record, "millstream-hops")? == "1",
                "an event derived from a first one has one hop"
            );
            Ok((source, id))
        },
        KafkaRecord::value_text,
    )
}

/// Checks dead letters likewise, with the code of each.
///
/// # Errors
/// The first key that differs, and how.
pub fn dead_letters(records: &[KafkaRecord], consumer: &str, expected: &ByKey) -> Result<u64> {
    compare(
        records,
        expected,
        |record| {
            ensure!(
                header(record, "millstream-dlq-consumer")? == consumer
                    && header(record, "millstream-dlq-reason")? == "rejected",
                "not a rejected event of {consumer}: {record:?}"
            );
            let source = format!(
                "{}/{}/{}",
                header(record, "millstream-dlq-topic")?,
                header(record, "millstream-dlq-partition")?,
                header(record, "millstream-dlq-offset")?
            );
            Ok((source.clone(), source))
        },
        |record| {
            let code = record.header("millstream-dlq-code").unwrap_or_default();
            shown_dead_letter(&record.value_text(), &code)
        },
    )
}

/// `identity` yields a record's source and what is the same in all repeats of it.
fn compare(
    records: &[KafkaRecord],
    expected: &ByKey,
    identity: impl Fn(&KafkaRecord) -> Result<(String, String)>,
    shown: impl Fn(&KafkaRecord) -> String,
) -> Result<u64> {
    let mut seen = HashSet::new();
    let mut last: BTreeMap<String, (i32, String, u64)> = BTreeMap::new();
    let mut found = ByKey::new();
    let mut repeats = 0;
    for record in records {
        let (source, id) = identity(record)?;
        if !seen.insert(id) {
            repeats += 1;
            continue;
        }
        let (partition, offset) = source.rsplit_once('/').context("a source without offset")?;
        let offset: u64 = offset.parse().with_context(|| source.clone())?;
        let key = record.key_text();
        if let Some((to, from, before)) = last.get(&key) {
            ensure!(
                *to == record.partition && from == partition,
                "key {key} comes from {from} and {partition}, to {to} and {}",
                record.partition
            );
            ensure!(
                *before < offset,
                "key {key}: the event derived from {partition}/{offset} comes after that from {before}"
            );
        }
        last.insert(
            key.clone(),
            (record.partition, partition.to_owned(), offset),
        );
        found.entry(key).or_default().push(shown(record));
    }
    for (key, wanted) in expected {
        let got = found.get(key).map_or(&[][..], Vec::as_slice);
        let differs = (0..wanted.len().max(got.len())).find(|at| wanted.get(*at) != got.get(*at));
        ensure!(
            differs.is_none(),
            "key {key}: {} expected, {} found; the first difference is at {differs:?}:\nexpected {:?}\nfound    {:?}",
            wanted.len(),
            got.len(),
            differs.and_then(|at| wanted.get(at)),
            differs.and_then(|at| got.get(at)),
        );
    }
    let stranger = found.keys().find(|key| !expected.contains_key(*key));
    ensure!(
        stranger.is_none(),
        "no event of key {stranger:?} was expected"
    );
    Ok(repeats)
}

fn header(record: &KafkaRecord, name: &str) -> Result<String> {
    record
        .header(name)
        .with_context(|| format!("no header {name}: {record:?}"))
}
