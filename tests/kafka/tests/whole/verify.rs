//! Whether what Kafka's reader shows is what was calculated.

use std::collections::{BTreeMap, HashMap};
use std::thread;

use anyhow::{Context, Result, bail, ensure};
use millstream_test_support::kafka_tools::{KafkaRecord, KafkaTools};

use super::order_lines::{Becomes, Line};
use super::outcome::Outcome;
use super::setup::Names;

/// Values of each key, in the order in which they must come.
pub type ByKey = BTreeMap<String, Vec<String>>;

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

/// What the delivery of a consumer promises to a reader.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Promise {
    AtMost,
    AtLeast,
    Exactly,
}

/// What a promise allows to differ.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Records that came again.
    pub repeats: u64,
    /// Records that were expected and did not come.
    pub missing: u64,
}

impl Promise {
    /// The value of `delivery` in a configuration.
    pub fn delivery(self) -> &'static str {
        match self {
            Self::AtMost => "at-most-once",
            Self::AtLeast => "at-least-once",
            Self::Exactly => "exactly-once",
        }
    }

    /// Checks all topics of a consumer, as a reader of committed events sees them.
    ///
    /// # Errors
    /// As [`Promise::derived`], and where the reader fails.
    pub fn kept(
        self,
        tools: &KafkaTools,
        names: &Names,
        consumer: &str,
        expected: &Expected,
    ) -> Result<Outcome> {
        let topics = [&names.orders, &names.large, &names.dead_letters];
        // At once, for a reader waits seconds for more.
        let read = thread::scope(|scope| {
            let readers = topics.map(|topic| scope.spawn(|| tools.read_committed_to_mark(topic)));
            let join = |reader: thread::ScopedJoinHandle<'_, Result<Vec<KafkaRecord>>>| {
                reader.join().ok().context("a reader panicked")?
            };
            readers.into_iter().map(join).collect::<Result<Vec<_>>>()
        })?;
        self.kept_in(&read, consumer, expected)
    }

    /// The same of what was read already: orders, large orders and dead letters.
    ///
    /// # Errors
    /// As [`Promise::derived`].
    pub fn kept_in(
        self,
        read: &[Vec<KafkaRecord>],
        consumer: &str,
        expected: &Expected,
    ) -> Result<Outcome> {
        let [orders, large, dead_letters] = read else {
            bail!("{} topics were read, not three", read.len());
        };
        let tallies = [
            self.derived(orders, &expected.orders)?,
            self.derived(large, &expected.large)?,
            self.dead_letters(dead_letters, consumer, &expected.dead_letters)?,
        ];
        let tally = Tally {
            repeats: tallies.iter().map(|tally| tally.repeats).sum(),
            missing: tallies.iter().map(|tally| tally.missing).sum(),
        };
        Ok(Outcome {
            promise: self,
            read: read.iter().map(Vec::len).sum(),
            tally,
        })
    }

    /// Checks derived events: with repeats removed those of each key are the expected ones in their
    /// order, and their sources ascend; none came twice, or is missing, that must not.
    ///
    /// # Errors
    /// The first key that differs, and how; or the first events that came twice.
    pub fn derived(self, records: &[KafkaRecord], expected: &ByKey) -> Result<Tally> {
        self.compare(
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
    /// As [`Promise::derived`].
    pub fn dead_letters(
        self,
        records: &[KafkaRecord],
        consumer: &str,
        expected: &ByKey,
    ) -> Result<Tally> {
        self.compare(
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

    fn compare(
        self,
        records: &[KafkaRecord],
        expected: &ByKey,
        identity: impl Fn(&KafkaRecord) -> Result<(String, String)>,
        shown: impl Fn(&KafkaRecord) -> String,
    ) -> Result<Tally> {
        let (found, repeats) = in_order(records, identity, shown)?;
        ensure!(
            repeats.is_empty() || self == Self::AtLeast,
            "{} events came twice, such as {:#?}",
            repeats.len(),
            &repeats[..repeats.len().min(5)]
        );
        let missing = match self {
            Self::AtMost => some_of(&found, expected)?,
            Self::AtLeast | Self::Exactly => all_of(&found, expected).map(|()| 0)?,
        };
        Ok(Tally {
            repeats: repeats.len() as u64,
            missing,
        })
    }
}

/// As [`Promise::derived`], with repeats allowed. Returns how many there were.
///
/// # Errors
/// As there.
pub fn derived(records: &[KafkaRecord], expected: &ByKey) -> Result<u64> {
    let tally = Promise::AtLeast.derived(records, expected)?;
    Ok(tally.repeats)
}

/// As [`Promise::dead_letters`], with repeats allowed. Returns how many there were.
///
/// # Errors
/// As there.
pub fn dead_letters(records: &[KafkaRecord], consumer: &str, expected: &ByKey) -> Result<u64> {
    let tally = Promise::AtLeast.dead_letters(records, consumer, expected)?;
    Ok(tally.repeats)
}

/// What is shown of each key, and the repeats, which are left out of it; sources must ascend.
/// `identity` yields a record's source and what is the same in all repeats of it.
fn in_order(
    records: &[KafkaRecord],
    identity: impl Fn(&KafkaRecord) -> Result<(String, String)>,
    shown: impl Fn(&KafkaRecord) -> String,
) -> Result<(ByKey, Vec<String>)> {
    let mut seen: HashMap<String, (i32, u64)> = HashMap::new();
    let mut last: BTreeMap<String, (i32, String, u64)> = BTreeMap::new();
    let mut found = ByKey::new();
    let mut repeats = Vec::new();
    for record in records {
        let (source, id) = identity(record)?;
        let place = (record.partition, record.offset);
        if let Some(first) = seen.get(&id) {
            repeats.push(format!("{id} at {first:?} and {place:?}"));
            continue;
        }
        seen.insert(id, place);
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
    Ok((found, repeats))
}

fn all_of(found: &ByKey, expected: &ByKey) -> Result<()> {
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
    no_stranger(found, expected)
}

/// Returns how many of the expected did not come.
fn some_of(found: &ByKey, expected: &ByKey) -> Result<u64> {
    let mut missing = 0;
    for (key, wanted) in expected {
        let got = found.get(key).map_or(&[][..], Vec::as_slice);
        let mut left = wanted.iter();
        for one in got {
            ensure!(
                left.any(|wanted| wanted == one),
                "key {key}: not expected, or not in this place: {one}"
            );
        }
        missing += (wanted.len() - got.len()) as u64;
    }
    no_stranger(found, expected)?;
    Ok(missing)
}

fn no_stranger(found: &ByKey, expected: &ByKey) -> Result<()> {
    let stranger = found.keys().find(|key| !expected.contains_key(*key));
    ensure!(
        stranger.is_none(),
        "no event of key {stranger:?} was expected"
    );
    Ok(())
}

fn header(record: &KafkaRecord, name: &str) -> Result<String> {
    record
        .header(name)
        .with_context(|| format!("no header {name}: {record:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn by_key(values: &[&str]) -> ByKey {
        ByKey::from([(
            "k".to_owned(),
            values.iter().map(ToString::to_string).collect(),
        )])
    }

    /// A checker that takes a swap for a loss would let events come out of order.
    #[test]
    fn at_most_once_may_lose_but_not_reorder() {
        let expected = by_key(&["a", "b", "c", "b"]);
        assert_eq!(some_of(&by_key(&["a", "b"]), &expected).unwrap(), 2);
        assert_eq!(some_of(&ByKey::new(), &expected).unwrap(), 4);
        assert!(some_of(&by_key(&["c", "a"]), &expected).is_err());
        assert!(some_of(&by_key(&["d"]), &expected).is_err());
        assert!(all_of(&by_key(&["a", "b"]), &expected).is_err());
    }
}
