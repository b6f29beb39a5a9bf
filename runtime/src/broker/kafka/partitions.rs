//! The partitions that this member owns: their queues, valves and the blocks behind closed ones.
//!
//! ```text
//! partition queue ──forward──▶ data queue ──▶ blocks ──▶ outbox
//!        ╳ held: kept here                      └─ held: stash ──release──▶ outbox
//! ```

use std::collections::{HashMap, VecDeque};
use std::ffi::CString;
use std::sync::Arc;

use rdkafka::error::RDKafkaErrorCode;
use tokio::time::{Duration, Instant};

use super::raw::{MessageBatch, Queue};
use crate::event::{Block, BlockBuilder, NewEvent, TopicPartition};

/// A batch that is a whole block crosses the wall as it lies, so a block is no larger than one.
const BLOCK_EVENTS: usize = 256;
const BLOCK_BYTES: usize = 1 << 20;

/// How long a partition is held before it is paused in librdkafka, which throws away what was
/// fetched for it.
pub(super) const PAUSE_AFTER: Duration = Duration::from_secs(1);

/// A partition that is ours.
pub(super) struct Owned {
    pub(super) queue: Queue,
    /// One past the last event handed over.
    pub(super) next: u64,
    pub(super) end: Arc<End>,
    pub(super) valve: Valve,
    /// What was fetched and drained before the valve closed, oldest first.
    pub(super) stash: VecDeque<Arc<Block>>,
    /// librdkafka's own position cannot be trusted before the next message: it counts an error
    /// that it reports as if it were an event.
    pub(super) doubtful: bool,
    /// A message went astray: nothing is handed over until it was fetched again.
    pub(super) astray: bool,
    /// It waits for a person: nothing of it is handed over.
    pub(super) halted: bool,
    /// It is being given up: nothing more of it is handed over.
    pub(super) leaving: bool,
}

/// What is known of a partition's end without asking the broker.
pub(super) struct End {
    pub(super) name: CString,
    pub(super) number: i32,
    /// As asked when the partition was assigned.
    first_heard: u64,
}

impl End {
    pub(super) fn new(name: CString, number: i32, first_heard: u64) -> Self {
        Self {
            name,
            number,
            first_heard,
        }
    }

    /// The end, given the high watermark that the last fetch told.
    pub(super) fn offset(&self, high_watermark: Option<u64>) -> u64 {
        high_watermark
            .unwrap_or(self.first_heard)
            .max(self.first_heard)
    }
}

/// Whether events of a partition are handed over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Valve {
    Open,
    /// Not drained since then.
    Held(Instant),
    /// Not even fetched.
    Paused,
}

impl Owned {
    /// A partition that starts at `next`, its valve open.
    pub(super) fn new(queue: Queue, next: u64, end: Arc<End>) -> Self {
        Self {
            queue,
            next,
            end,
            valve: Valve::Open,
            stash: VecDeque::new(),
            doubtful: false,
            astray: false,
            halted: false,
            leaving: false,
        }
    }

    /// Whether what is fetched goes to the data queue.
    pub(super) fn flows(&self) -> bool {
        self.valve == Valve::Open && !self.halted && !self.leaving
    }
}

/// All partitions that are ours.
pub(super) type Partitions = HashMap<TopicPartition, Owned>;

/// Messages of one partition within a batch.
struct Group {
    topic_identity: usize,
    partition: i32,
    source: TopicPartition,
    indexes: Vec<u32>,
}

/// What a batch held.
#[derive(Default)]
pub(super) struct Sorted {
    /// Blocks of partitions whose valve is open, each partition's in order.
    pub(super) blocks: Vec<Arc<Block>>,
    /// Partitions that reported an error, and are taken up anew where they were.
    pub(super) lost: Vec<TopicPartition>,
    /// Errors of partitions, for the log.
    pub(super) errors: Vec<(TopicPartition, RDKafkaErrorCode)>,
}

/// Copies the messages into blocks, one copy each, and sorts out what stands between them. What
/// belongs to partitions that are not ours is left out.
pub(super) fn sort(batch: &MessageBatch, partitions: &mut Partitions) -> Sorted {
    let mut sorted = Sorted::default();
    let mut groups: Vec<Group> = Vec::new();
    let mut last = 0;
    for (index, message) in batch.iter().enumerate() {
        let (identity, partition) = (message.topic_identity(), message.partition());
        let fits = |group: &Group| group.topic_identity == identity && group.partition == partition;
        // Messages come in runs of one partition.
        let known = match groups.get(last) {
            Some(group) if fits(group) => Some(last),
            _ => groups.iter().position(fits),
        };
        last = known.unwrap_or_else(|| {
            let number = u32::try_from(partition).unwrap_or(u32::MAX);
            groups.push(Group {
                topic_identity: identity,
                partition,
                source: TopicPartition::new(message.topic(), number),
                indexes: Vec::new(),
            });
            groups.len() - 1
        });
        groups[last].indexes.push(index as u32);
    }
    for group in &groups {
        if let Some(owned) = partitions.get_mut(&group.source)
            && !owned.leaving
            && !owned.halted
            && !owned.astray
        {
            copy(batch, group, owned, &mut sorted);
        }
    }
    sorted
}

fn copy(batch: &MessageBatch, group: &Group, owned: &mut Owned, sorted: &mut Sorted) {
    let mut blocks = Blocks {
        source: &group.source,
        open: None,
        left: group.indexes.len(),
    };
    let mut finished: Vec<Arc<Block>> = Vec::new();
    for &index in &group.indexes {
        let message = batch.get(index as usize);
        blocks.left -= 1;
        if let Some(code) = message.error() {
            owned.doubtful = true;
            sorted.lost.push(group.source.clone());
            if code != RDKafkaErrorCode::AutoOffsetReset {
                sorted.errors.push((group.source.clone(), code));
            }
            continue;
        }
        let Ok(offset) = u64::try_from(message.offset()) else {
            continue;
        };
        // A fetch that began anew after a pause may bring what was handed over already.
        if offset < owned.next {
            continue;
        }
        owned.next = offset + 1;
        owned.doubtful = false;
        let (timestamp_ms, timestamp_of_broker) = message.timestamp();
        let event = NewEvent {
            offset,
            timestamp_ms,
            timestamp_of_broker,
            key: message.key(),
            value: message.value(),
        };
        let builder = blocks.room_for(&event, &mut finished);
        builder.push(event);
        message.headers(|name, value| builder.push_header(name, value));
    }
    blocks.close(&mut finished);
    if owned.flows() {
        sorted.blocks.append(&mut finished);
    } else {
        owned.stash.extend(finished);
    }
}

/// Cuts a run of messages into blocks.
struct Blocks<'a> {
    source: &'a TopicPartition,
    open: Option<BlockBuilder>,
    /// Messages still to come, to make room for.
    left: usize,
}

impl Blocks<'_> {
    fn room_for(
        &mut self,
        event: &NewEvent<'_>,
        finished: &mut Vec<Arc<Block>>,
    ) -> &mut BlockBuilder {
        let bytes = event.key.map_or(0, <[u8]>::len) + event.value.map_or(0, <[u8]>::len);
        if self
            .open
            .as_ref()
            .is_some_and(|open| open.len() >= BLOCK_EVENTS || open.bytes() + bytes > BLOCK_BYTES)
        {
            self.close(finished);
        }
        let source = self.source;
        let events = (self.left + 1).min(BLOCK_EVENTS);
        self.open.get_or_insert_with(|| {
            // The first event's size stands for the others'; half as much again is for headers.
            let expected = (events * (bytes + bytes / 2)).clamp(bytes, BLOCK_BYTES.max(bytes));
            BlockBuilder::new(source.clone(), events, expected)
        })
    }

    fn close(&mut self, finished: &mut Vec<Arc<Block>>) {
        if let Some(open) = self.open.take()
            && !open.is_empty()
        {
            finished.push(Arc::new(open.build()));
        }
    }
}
