//! The partitions that this member owns, each with its queue and its valve.
//!
//! ```text
//! partition queue ──▶ batch ──▶ blocks ──▶ outbox
//!      ╳ held: stays here
//! ```
//! No queue is sent on to a common one. librdkafka fetches for a partition while its queue is short,
//! and the length of a common queue would stand for all: one full partition would starve the others.
//! A held partition, too, keeps what it fetched in its own queue and nowhere else.

use std::collections::BTreeMap;
use std::ffi::CString;
use std::sync::Arc;

use rdkafka::error::RDKafkaErrorCode;
use tokio::time::{Duration, Instant};

use super::bell::Bell;
use super::raw::{MessageBatch, Queue};
use crate::event::{Block, BlockBuilder, NewEvent, TopicPartition};

/// A batch that is a whole block crosses the wall as it lies, so a block is no larger than one.
pub(super) const BLOCK_EVENTS: usize = 256;
const BLOCK_BYTES: usize = 1 << 20;

/// What an event is taken to weigh before the first was seen: rather too much, so that the first
/// batch of a partition with large events does not fill the memory.
const FIRST_EVENT_BYTES: usize = 32 * 1024;

/// How long a partition is held before it is paused in librdkafka, which throws away what was
/// fetched for it.
pub(super) const PAUSE_AFTER: Duration = Duration::from_secs(1);

/// A partition that is ours.
pub(super) struct Owned {
    pub(super) queue: Queue,
    /// Rings when the queue is empty no more.
    pub(super) bell: Arc<Bell>,
    /// What an event weighed when some were taken last.
    pub(super) event_bytes: usize,
    /// One past the last event handed over.
    pub(super) next: u64,
    pub(super) end: Arc<End>,
    pub(super) valve: Valve,
    /// Not fetched for a while, though its valve is open: all partitions together held too much.
    pub(super) crowded_out: bool,
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
    pub(super) fn new(mut queue: Queue, bell: Bell, next: u64, end: Arc<End>) -> Self {
        let bell = Arc::new(bell);
        queue.stand_alone();
        queue.rings(bell.clone());
        Self {
            queue,
            bell,
            event_bytes: FIRST_EVENT_BYTES,
            next,
            end,
            valve: Valve::Open,
            crowded_out: false,
            doubtful: false,
            astray: false,
            halted: false,
            leaving: false,
        }
    }

    /// About how many bytes were fetched and not handed over.
    pub(super) fn fetched_bytes(&self) -> usize {
        self.queue.len().saturating_mul(self.event_bytes)
    }

    /// Whether what is fetched is handed over.
    pub(super) fn flows(&self) -> bool {
        self.valve == Valve::Open && !self.halted && !self.leaving
    }
}

/// All partitions that are ours.
pub(super) type Partitions = BTreeMap<TopicPartition, Owned>;

/// What was taken from a partition's queue.
#[derive(Default)]
pub(super) struct Taken {
    /// In order.
    pub(super) blocks: Vec<Arc<Block>>,
    /// It reported an error (told where it is not known from the bounds anyway), and is to be taken
    /// up anew where it was.
    pub(super) lost: bool,
    pub(super) error: Option<RDKafkaErrorCode>,
}

/// Copies the messages into blocks, one copy each, and sorts out what stands between them.
pub(super) fn copy(batch: &MessageBatch, source: &TopicPartition, owned: &mut Owned) -> Taken {
    let mut taken = Taken::default();
    if !owned.flows() || owned.astray {
        return taken;
    }
    let mut blocks = Blocks {
        source,
        open: None,
        left: batch.len(),
    };
    for message in batch.iter() {
        blocks.left -= 1;
        if let Some(code) = message.error() {
            owned.doubtful = true;
            taken.lost = true;
            if code != RDKafkaErrorCode::AutoOffsetReset {
                taken.error = Some(code);
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
        let builder = blocks.room_for(&event, &mut taken.blocks);
        builder.push(event);
        message.headers(|name, value| builder.push_header(name, value));
    }
    blocks.close(&mut taken.blocks);
    let events: usize = taken.blocks.iter().map(|block| block.len()).sum();
    let bytes: usize = taken.blocks.iter().map(|block| block.bytes()).sum();
    if let Some(mean) = bytes.checked_div(events) {
        owned.event_bytes = mean.max(1);
    }
    taken
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
