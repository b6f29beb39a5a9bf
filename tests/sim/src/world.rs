//! What outlives a crash: the topics, and what the group committed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use millstream::broker::Commit;
use millstream::decide::offsets::Progress;
use millstream::event::{Block, BlockBuilder, NewEvent, TopicPartition};
use parking_lot::Mutex;

use crate::coordinator::Coordinator;
use crate::plugin;
use crate::trace::{About, Trace};
use crate::version::Versions;
use crate::written::Wrote;

/// The topic that is consumed.
pub const INPUT: &str = "input";
/// The topic of derived events.
pub const OUTPUT: &str = "output";
/// The topic of dead letters.
pub const DEAD: &str = "dead";

/// A partition of the input topic.
pub fn place(partition: u32) -> TopicPartition {
    TopicPartition::new(INPUT, partition)
}

/// An event of the input topic.
#[derive(Clone, Debug)]
pub struct Input {
    pub offset: u64,
    pub key: Option<String>,
    pub value: String,
    /// Through how many consumers it came.
    pub hops: u32,
}

/// The durable part of the simulation, and the checks of what is done to it.
#[derive(Debug)]
pub struct World {
    /// By partition; offsets rise, with gaps.
    pub input: Vec<Vec<Input>>,
    /// The first offset that retention left, by partition.
    pub starts: Vec<u64>,
    /// One past the last offset of each partition, markers included.
    pub ends: Vec<u64>,
    pub derived: Vec<Wrote>,
    pub dead: Vec<Wrote>,
    /// Sources of everything that was written.
    pub(crate) written: BTreeSet<(u32, u64)>,
    pub committed: BTreeMap<TopicPartition, Progress>,
    /// Which incarnation and assignment may commit a partition.
    pub owners: BTreeMap<u32, u64>,
    pub transactions: Coordinator,
    pub trace: Trace,
    /// Events that retention took and whose consumer was told so.
    pub gone: BTreeSet<(u32, u64)>,
    /// Events that an operator asked to skip.
    pub skipping: BTreeSet<(u32, u64)>,
    /// Those of which the consumer said that they are.
    pub skipped: BTreeSet<(u32, u64)>,
    /// Whether a position may stand behind events that nothing followed from yet (at most once).
    pub claims: bool,
    /// The life of the consumer that goes on now, from 1 on.
    pub life: u64,
    /// Whether nothing may be written twice (at most once, exactly once).
    pub once: bool,
    /// The life in which nothing fails but the plugin.
    pub calm: u64,
    /// What that life wrote: the events, and partitions that it took again.
    pub(crate) calm_writes: BTreeSet<(u32, u64)>,
    pub(crate) retaken: BTreeSet<u32>,
    pub versions: Versions,
    /// Dead letters of versions that were trusted and should not have been.
    pub spoilt: BTreeSet<(u32, u64)>,
    /// With a topology that feeds itself: the most events that its input may grow to.
    pub most_events: usize,
}

/// Shared by broker and checks.
pub type SharedWorld = Arc<Mutex<World>>;

impl World {
    /// Events by seed: keys and commands as the plugin understands them, in partitions with gaps.
    pub fn new(random: &mut fastrand::Rng, partitions: u32, events: usize, trace: Trace) -> Self {
        let mut world = Self {
            input: Vec::new(),
            starts: vec![0; partitions as usize],
            ends: Vec::new(),
            derived: Vec::new(),
            dead: Vec::new(),
            written: BTreeSet::new(),
            committed: BTreeMap::new(),
            owners: BTreeMap::new(),
            transactions: Coordinator::default(),
            trace,
            gone: BTreeSet::new(),
            skipping: BTreeSet::new(),
            skipped: BTreeSet::new(),
            claims: false,
            life: 0,
            once: false,
            calm: 0,
            calm_writes: BTreeSet::new(),
            retaken: BTreeSet::new(),
            versions: Versions::default(),
            spoilt: BTreeSet::new(),
            most_events: usize::MAX,
        };
        for partition in 0..partitions {
            let mut offset = random.u64(0..5);
            let mut log = Vec::new();
            for _ in 0..events {
                let key = (random.f64() > 0.1).then(|| format!("k{}", random.u32(0..6)));
                let value = plugin::command(random);
                world.trace.note(About::event(partition, offset), || {
                    format!("produced {} `{value}` key {key:?}", show(partition, offset))
                });
                log.push(Input {
                    offset,
                    key,
                    value,
                    hops: 0,
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
        let mut builder = BlockBuilder::new(place(partition), events.len(), 0);
        for event in events {
            builder.push(NewEvent {
                offset: event.offset,
                timestamp_ms: 1_000,
                timestamp_of_broker: false,
                key: event.key.as_deref().map(str::as_bytes),
                value: Some(event.value.as_bytes()),
            });
            if event.hops > 0 {
                let hops = event.hops.to_string();
                builder.push_header(b"millstream-hops", Some(hops.as_bytes()));
            }
        }
        Some(builder.build())
    }

    /// The value of an input event.
    pub fn value(&self, partition: u32, offset: u64) -> Option<&str> {
        let log = self.input.get(partition as usize)?;
        let index = log.binary_search_by_key(&offset, |event| event.offset);
        index.ok().map(|index| log[index].value.as_str())
    }

    /// Retention takes what lies below `start`.
    pub fn retain(&mut self, partition: u32, start: u64) {
        let first = &mut self.starts[partition as usize];
        *first = (*first).max(start);
        self.trace.note(About::Partition(partition), || {
            format!("retention leaves {INPUT}/{partition} from {start} on")
        });
    }

    /// A consumer that stood at `from` was told that retention took what lies below `to`.
    pub fn told_of_gap(&mut self, partition: u32, from: u64, to: u64) {
        let log = &self.input[partition as usize];
        let gone = log
            .iter()
            .filter(|event| (from..to).contains(&event.offset));
        self.gone
            .extend(gone.map(|event| (partition, event.offset)));
    }

    /// A life begins in which nothing fails but the plugin.
    pub fn calm_down(&mut self, life: u64) {
        self.calm = life;
        self.calm_writes.clear();
        self.retaken.clear();
    }

    /// A life takes a partition again: what it had settled and not committed comes again.
    pub fn retakes(&mut self, partition: u32, life: u64) {
        if life == self.calm {
            self.retaken.insert(partition);
        }
    }

    /// A member gives a partition up; someone else may have it already.
    pub fn disown(&mut self, partition: u32, assignment: Option<u64>) {
        if assignment.is_some() && self.owners.get(&partition).copied() == assignment {
            self.owners.remove(&partition);
        }
    }

    /// Stores a commit of who has the partition, and checks it: it claims nothing unsettled and
    /// never goes back (I4).
    pub fn commit(&mut self, commit: &Commit, life: u64) {
        let partition = commit.partition.partition;
        let name = &commit.partition;
        let before = self.committed.get(name).cloned().unwrap_or_default();
        let (from, to) = (before.next, commit.progress.next);
        let end = commit.progress.above.last().map_or(to, |range| range.end);
        let about = About::Events(partition, from.min(to), end.max(to));
        self.trace.note(about, || {
            let above = &commit.progress.above;
            format!("committed: {name} from {from} to {to}, above {above:?}, life {life}")
        });
        if to < from {
            let text = format!("I4: {name} went back from {from} to {to}");
            self.trace.violate(about, text);
        }
        let log = &self.input[partition as usize];
        let first = log.partition_point(|event| event.offset < from.min(to));
        let mut wrong = Vec::new();
        for event in &log[first..] {
            let (offset, about) = (event.offset, About::event(partition, event.offset));
            let covers = commit.progress.covers(offset);
            if !self.claims && covers && !self.is_settled(partition, event) {
                wrong.push((
                    about,
                    format!("I4: {name} claims {offset} ({})", event.value),
                ));
            }
            if before.covers(offset) && !covers {
                wrong.push((about, format!("I4: {name} forgets {offset}")));
            }
        }
        for (about, text) in wrong {
            self.trace.violate(about, text);
        }
        self.committed.insert(name.clone(), commit.progress.clone());
    }

    fn is_settled(&self, partition: u32, event: &Input) -> bool {
        let place = (partition, event.offset);
        plugin::is_dropped(&event.value)
            || self.written.contains(&place)
            || self.gone.contains(&place)
            || self.skipping.contains(&place)
    }

    /// Whether the group has reached every end.
    pub fn is_done(&self) -> bool {
        self.ends.iter().zip(0..).all(|(end, partition)| {
            let committed = self.committed.get(&place(partition));
            committed.is_some_and(|progress| progress.next >= *end)
        })
    }
}

/// As an operator would name an event.
pub fn show(partition: u32, offset: u64) -> String {
    format!("{INPUT}/{partition}@{offset}")
}
