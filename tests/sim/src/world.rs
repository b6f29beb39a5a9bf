//! What outlives a crash: the topics, and what the group committed.

use std::collections::BTreeMap;
use std::sync::Arc;

use millstream::broker::Commit;
use millstream::decide::offsets::Progress;
use millstream::event::{Block, BlockBuilder, NewEvent, TopicPartition};
use millstream::records::Records;
use parking_lot::Mutex;

/// The topic that is consumed.
pub const INPUT: &str = "input";
/// The topic of derived events.
pub const OUTPUT: &str = "output";
/// The topic of dead letters.
pub const DEAD: &str = "dead";

/// An event of the input topic.
#[derive(Clone, Debug)]
pub struct Input {
    pub offset: u64,
    pub key: Option<String>,
    pub value: String,
}

/// A record that was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wrote {
    /// Where its source lies.
    pub partition: u32,
    pub offset: u64,
    pub key: Option<String>,
    /// `millstream-dlq-reason`, for dead letters.
    pub reason: Option<String>,
}

/// The durable part of the simulation.
#[derive(Debug, Default)]
pub struct World {
    /// By partition; offsets rise, with gaps.
    pub input: Vec<Vec<Input>>,
    /// One past the last offset of each partition, markers included.
    pub ends: Vec<u64>,
    pub derived: Vec<Wrote>,
    pub dead: Vec<Wrote>,
    pub committed: BTreeMap<TopicPartition, Progress>,
    /// Which incarnation and assignment may commit a partition.
    pub owners: BTreeMap<u32, u64>,
    pub violations: Vec<String>,
    /// Whether a position may stand behind events that nothing followed from yet (at most once).
    pub claims: bool,
    /// Whether nothing may be written twice (at most once, exactly once).
    pub once: bool,
}

/// Shared by broker and checks.
pub type SharedWorld = Arc<Mutex<World>>;

impl World {
    /// Events by seed: keys and commands as the plugin understands them, in partitions with gaps.
    pub fn new(random: &mut fastrand::Rng, partitions: u32, events: usize) -> Self {
        let mut world = Self::default();
        for _ in 0..partitions {
            let mut offset = random.u64(0..5);
            let mut log = Vec::new();
            for _ in 0..events {
                let key = (random.f64() > 0.1).then(|| format!("k{}", random.u32(0..6)));
                log.push(Input {
                    offset,
                    key,
                    value: crate::plugin::command(random),
                });
                offset += 1 + u64::from(random.f64() < 0.1) * random.u64(1..4);
            }
            world.ends.push(offset);
            world.input.push(log);
        }
        world
    }

    /// The next events of a partition from `from` on.
    pub fn block(&self, partition: u32, from: u64, most: usize) -> Option<Block> {
        let log = &self.input[partition as usize];
        let first = log.partition_point(|event| event.offset < from);
        let events = &log[first..(first + most).min(log.len())];
        if events.is_empty() {
            return None;
        }
        let mut builder = BlockBuilder::new(TopicPartition::new(INPUT, partition), events.len(), 0);
        for event in events {
            builder.push(NewEvent {
                offset: event.offset,
                timestamp_ms: 1_000,
                timestamp_of_broker: false,
                key: event.key.as_deref().map(str::as_bytes),
                value: Some(event.value.as_bytes()),
            });
        }
        Some(builder.build())
    }

    /// Appends the first `count` records.
    pub fn append(&mut self, records: &Records, count: usize) {
        for record in records.iter().take(count) {
            let header = |name: &str| {
                record
                    .headers()
                    .find(|(found, _)| *found == name.as_bytes())
                    .and_then(|(_, value)| value)
                    .map(|value| String::from_utf8_lossy(value).into_owned())
            };
            let dead = &**record.topic() == DEAD;
            let place = if dead {
                header("millstream-dlq-partition").zip(header("millstream-dlq-offset"))
            } else {
                header("millstream-source").and_then(|source| {
                    let mut parts = source.split('/').skip(1).map(str::to_owned);
                    parts.next().zip(parts.next())
                })
            };
            let place = place.and_then(|(p, o)| p.parse().ok().zip(o.parse().ok()));
            let Some((partition, offset)) = place else {
                self.violations
                    .push("a record does not say where it comes from".to_owned());
                continue;
            };
            let wrote = Wrote {
                partition,
                offset,
                key: record
                    .key()
                    .map(|key| String::from_utf8_lossy(key).into_owned()),
                reason: header("millstream-dlq-reason"),
            };
            let place = |known: &&Wrote| known.partition == partition && known.offset == offset;
            if self.once
                && self
                    .derived
                    .iter()
                    .chain(&self.dead)
                    .any(|known| place(&known))
            {
                self.violations
                    .push(format!("I2: {partition}/{offset} is written twice"));
            }
            if dead {
                self.dead.push(wrote);
            } else {
                self.derived.push(wrote);
            }
        }
    }

    /// Stores a commit and checks it: it claims nothing unsettled, never goes back (I4), and comes
    /// from who has the partition (I6).
    pub fn commit(&mut self, commit: &Commit, assignment: u64) {
        let partition = commit.partition.partition;
        if self.owners.get(&partition) != Some(&assignment) {
            self.violations.push(format!(
                "I6: {} committed after it was given up",
                commit.partition
            ));
            return;
        }
        let before = self
            .committed
            .get(&commit.partition)
            .cloned()
            .unwrap_or_default();
        if commit.progress.next < before.next {
            let (from, to) = (before.next, commit.progress.next);
            self.violations.push(format!(
                "I4: {} went back from {from} to {to}",
                commit.partition
            ));
        }
        for event in &self.input[partition as usize] {
            if !self.claims
                && commit.progress.covers(event.offset)
                && !self.is_settled(partition, event)
            {
                let text = format!(
                    "I4: {} claims {} ({})",
                    commit.partition, event.offset, event.value
                );
                self.violations.push(text);
            }
            if before.covers(event.offset) && !commit.progress.covers(event.offset) {
                self.violations
                    .push(format!("I4: {} forgets {}", commit.partition, event.offset));
            }
        }
        self.committed
            .insert(commit.partition.clone(), commit.progress.clone());
    }

    fn is_settled(&self, partition: u32, event: &Input) -> bool {
        let wrote = |log: &[Wrote]| {
            log.iter()
                .any(|wrote| wrote.partition == partition && wrote.offset == event.offset)
        };
        crate::plugin::is_dropped(&event.value) || wrote(&self.derived) || wrote(&self.dead)
    }

    /// Whether the group has reached every end.
    pub fn is_done(&self) -> bool {
        self.ends.iter().enumerate().all(|(partition, end)| {
            let name = TopicPartition::new(INPUT, partition as u32);
            self.committed
                .get(&name)
                .is_some_and(|progress| progress.next >= *end)
        })
    }
}
