//! Whether each event that was fed came out once, in its order, and the versions one after the other.

use std::collections::HashMap;

use anyhow::{Context, Result, ensure};
use millstream_test_support::kafka_tools::KafkaTools;
use millstream_test_support::process;
use rdkafka::message::{Headers, Message};
use serde::Deserialize;

use super::feeder::End;
use super::stage::{PARTITIONS, Stage, version_of};
use crate::topics;

/// Events of one request to the embedded broker.
const LOOK: usize = 10_000;

/// What a reader of all found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Found {
    pub lost: u64,
    /// Came again.
    pub twice: u64,
    /// Came after a later one of its key.
    pub reordered: u64,
    /// Came from an older version than one of its key before.
    pub back: u64,
}

/// Reads all that a stage's runtime wrote of `fed` events.
///
/// # Errors
/// A topic cannot be read, or holds what is not derived from what was fed.
pub fn check(stage: &Stage, fed: u64) -> Result<Found> {
    let mut tally = Tally::new(version_of);
    for (topic, partitions, source) in [
        ("orders", PARTITIONS, Source::Derived),
        ("dlq", 1, Source::Dead),
    ] {
        let mut take = |record: Record<'_>| tally.add(&record, source);
        match stage.way().end {
            End::Kafka(tools) => kafka(&tools, topic, &mut take)?,
            End::Embedded(admin) => embedded(&admin, topic, partitions, &mut take)?,
        }
    }
    tally.found(fed)
}

/// Reads a topic of the embedded broker that a consumer of one version wrote, of `fed` events.
///
/// # Errors
/// The topic cannot be read, or holds what is not derived from what was fed.
pub fn check_embedded(admin: &str, topic: &str, partitions: u32, fed: u64) -> Result<Found> {
    let mut tally = Tally::new(|_| Some(0));
    let mut take = |record: Record<'_>| tally.add(&record, Source::Derived);
    embedded(admin, topic, partitions, &mut take)?;
    tally.found(fed)
}

/// How an event says what it came from.
#[derive(Clone, Copy)]
enum Source {
    Derived,
    Dead,
}

/// An event as either broker shows it.
struct Record<'a> {
    key: &'a [u8],
    value: &'a [u8],
    headers: HashMap<String, String>,
}

struct Tally {
    /// The version that wrote a value.
    version: fn(&[u8]) -> Option<usize>,
    /// By partition: which offsets were seen.
    seen: HashMap<u32, Vec<bool>>,
    /// By key: the offset and the version of the last one.
    last: HashMap<Vec<u8>, (usize, usize)>,
    found: Found,
}

impl Tally {
    fn new(version: fn(&[u8]) -> Option<usize>) -> Self {
        Self {
            version,
            seen: HashMap::new(),
            last: HashMap::new(),
            found: Found::default(),
        }
    }

    fn add(&mut self, record: &Record<'_>, source: Source) -> Result<()> {
        let header = |name: &str| -> Result<&str> {
            let value = record.headers.get(name).map(String::as_str);
            value.with_context(|| format!("no header {name}"))
        };
        let (partition, offset) = match source {
            Source::Derived => {
                let mut parts = header("millstream-source")?.rsplit('/');
                let offset = parts.next().context("no offset")?;
                (parts.next().context("no partition")?, offset)
            }
            Source::Dead => (
                header("millstream-dlq-partition")?,
                header("millstream-dlq-offset")?,
            ),
        };
        let (partition, offset): (u32, usize) = (partition.parse()?, offset.parse()?);
        let seen = self.seen.entry(partition).or_default();
        if seen.len() <= offset {
            seen.resize(offset + 1, false);
        }
        if std::mem::replace(&mut seen[offset], true) {
            self.found.twice += 1;
            return Ok(());
        }
        if matches!(source, Source::Dead) {
            return Ok(());
        }
        let version = (self.version)(record.value).context("an event of no version")?;
        if let Some((before, by)) = self.last.get(record.key) {
            self.found.reordered += u64::from(*before > offset);
            self.found.back += u64::from(*by > version);
        }
        self.last.insert(record.key.to_vec(), (offset, version));
        Ok(())
    }

    /// Offsets of a topic that no transaction writes to have no gaps: as many must be there as were
    /// fed.
    fn found(self, fed: u64) -> Result<Found> {
        let seen = self.seen.values().flatten().filter(|seen| **seen).count() as u64;
        ensure!(seen <= fed, "{seen} events of {fed} came out");
        Ok(Found {
            lost: fed - seen,
            ..self.found
        })
    }
}

fn kafka(
    tools: &KafkaTools,
    topic: &str,
    take: &mut impl FnMut(Record<'_>) -> Result<()>,
) -> Result<()> {
    topics::read(tools, topic, |message| {
        let headers = message.headers().into_iter().flat_map(|headers| {
            headers.iter().filter_map(|header| {
                let value = String::from_utf8_lossy(header.value?).into_owned();
                Some((header.key.to_owned(), value))
            })
        });
        take(Record {
            key: message.key().unwrap_or_default(),
            value: message.payload().unwrap_or_default(),
            headers: headers.collect(),
        })
    })
}

#[derive(Deserialize)]
struct Event {
    offset: u64,
    key: String,
    value: String,
    headers: Vec<Header>,
}

#[derive(Deserialize)]
struct Header {
    name: String,
    value: String,
}

fn embedded(
    admin: &str,
    topic: &str,
    partitions: u32,
    take: &mut impl FnMut(Record<'_>) -> Result<()>,
) -> Result<()> {
    for partition in 0..partitions {
        let mut next = 0;
        loop {
            let path = format!("/topics/{topic}?partition={partition}&from={next}&count={LOOK}");
            let (status, lines) = process::get(admin, &path)?;
            ensure!(status == 200, "{status}: {lines}");
            if lines.is_empty() {
                break;
            }
            for line in lines.lines() {
                let event: Event = serde_json::from_str(line)?;
                next = event.offset + 1;
                let headers = event.headers.into_iter().map(|one| (one.name, one.value));
                take(Record {
                    key: event.key.as_bytes(),
                    value: event.value.as_bytes(),
                    headers: headers.collect(),
                })?;
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn add(tally: &mut Tally, offset: u64, version: usize) {
        let value = format!("{{\"currency\":\"V{version}\"}}");
        let source = format!("lines/2/{offset}");
        let record = Record {
            key: b"k",
            value: value.as_bytes(),
            headers: HashMap::from([("millstream-source".to_owned(), source)]),
        };
        tally.add(&record, Source::Derived).unwrap();
    }

    /// A check that takes a repetition for what is missing would call a loss none.
    #[test]
    fn what_is_lost_twice_late_or_of_an_old_version_is_told() {
        let mut tally = Tally::new(version_of);
        for (offset, version) in [(0, 1), (2, 2), (1, 2), (1, 2), (4, 1)] {
            add(&mut tally, offset, version);
        }
        let found = tally.found(5).unwrap();
        let wanted = Found {
            lost: 1,
            twice: 1,
            reordered: 1,
            back: 1,
        };
        assert_eq!(found, wanted);
    }
}
