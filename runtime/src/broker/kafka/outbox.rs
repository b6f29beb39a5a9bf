//! What the poll thread has for the source, bounded: the thread stops fetching while it is full.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::Notify;

use super::wake::Wake;
use crate::broker::SourceEvent;
use crate::event::TopicPartition;

/// A queue from the poll thread to the source. Only blocks count against the bound: what else
/// there is to say is rare and must never be held up.
pub(super) struct Outbox {
    state: Mutex<State>,
    arrived: Notify,
    /// The poll thread's.
    wake: Arc<Wake>,
    max_events: usize,
    max_bytes: usize,
}

#[derive(Default)]
struct State {
    queue: VecDeque<SourceEvent>,
    events: usize,
    bytes: usize,
    /// The poll thread found no room and sleeps until there is.
    starved: bool,
}

impl Outbox {
    /// An empty queue for so many events and bytes.
    pub(super) fn new(wake: Arc<Wake>, max_events: usize, max_bytes: usize) -> Self {
        Self {
            state: Mutex::default(),
            arrived: Notify::new(),
            wake,
            max_events: max_events.max(1),
            max_bytes: max_bytes.max(1),
        }
    }

    /// How many events may be fetched now; 0 has the thread woken once there is room.
    pub(super) fn room(&self) -> usize {
        let mut state = self.state.lock();
        let room = if state.bytes >= self.max_bytes {
            0
        } else {
            self.max_events.saturating_sub(state.events)
        };
        state.starved = room == 0;
        room
    }

    /// Adds what happened, after what happened before.
    pub(super) fn push(&self, event: SourceEvent) {
        self.push_all(std::iter::once(event));
    }

    /// Adds several at once.
    pub(super) fn push_all(&self, events: impl IntoIterator<Item = SourceEvent>) {
        let mut state = self.state.lock();
        for event in events {
            state.count(&event, true);
            state.queue.push_back(event);
        }
        drop(state);
        self.arrived.notify_one();
    }

    /// Tells of partitions that are given up: their blocks go, and the news passes the blocks of
    /// all others, for the group waits for the answer.
    pub(super) fn revoke(&self, partitions: &[TopicPartition], event: SourceEvent) {
        let gone: HashSet<&TopicPartition> = partitions.iter().collect();
        let mut state = self.state.lock();
        let queue = std::mem::take(&mut state.queue);
        let mut news = VecDeque::with_capacity(queue.len() + 1);
        let mut blocks = VecDeque::new();
        for waiting in queue {
            match &waiting {
                SourceEvent::Block(block) if gone.contains(block.source()) => {
                    state.count(&waiting, false);
                }
                SourceEvent::CaughtUp { partition, .. } if gone.contains(partition) => {}
                SourceEvent::Block(_) | SourceEvent::CaughtUp { .. } => blocks.push_back(waiting),
                // An assignment of a partition stands before its blocks still.
                _ => news.push_back(waiting),
            }
        }
        news.push_back(event);
        news.append(&mut blocks);
        state.queue = news;
        drop(state);
        self.arrived.notify_one();
    }

    /// The next thing that happened. Dropping the future loses nothing.
    pub(super) async fn next(&self) -> SourceEvent {
        loop {
            if let Some(event) = self.take() {
                return event;
            }
            self.arrived.notified().await;
        }
    }

    fn take(&self) -> Option<SourceEvent> {
        let mut state = self.state.lock();
        let event = state.queue.pop_front()?;
        state.count(&event, false);
        // At half, not at the first free place: the thread is woken for a batch's worth.
        let wake = state.starved
            && state.events <= self.max_events / 2
            && state.bytes <= self.max_bytes / 2;
        if wake {
            state.starved = false;
        }
        drop(state);
        if wake {
            self.wake.notify();
        }
        Some(event)
    }
}

impl State {
    fn count(&mut self, event: &SourceEvent, arrives: bool) {
        if let SourceEvent::Block(block) = event {
            if arrives {
                self.events += block.len();
                self.bytes += block.bytes();
            } else {
                self.events = self.events.saturating_sub(block.len());
                self.bytes = self.bytes.saturating_sub(block.bytes());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broker::Assignment;
    use crate::decide::offsets::Progress;
    use crate::event::{Block, BlockBuilder, NewEvent};
    use tokio::sync::oneshot;

    fn block(topic: &str, offset: u64) -> Arc<Block> {
        let mut builder = BlockBuilder::new(TopicPartition::new(topic, 0), 1, 10);
        builder.push(NewEvent {
            offset,
            timestamp_ms: 0,
            timestamp_of_broker: false,
            key: None,
            value: Some(b"0123456789"),
        });
        Arc::new(builder.build())
    }

    /// Without a bound a slow plugin would fill the memory; without the wake-up it would stall.
    #[tokio::test]
    async fn a_full_outbox_has_no_room_and_wakes_the_thread_when_it_has_again() {
        let wake = Arc::new(Wake::default());
        let outbox = Outbox::new(wake, 2, 1_000_000);
        assert_eq!(outbox.room(), 2);
        outbox.push(SourceEvent::Block(block("a", 0)));
        outbox.push(SourceEvent::Block(block("a", 1)));
        assert_eq!(outbox.room(), 0);
        assert!(outbox.state.lock().starved);
        outbox.next().await;
        assert!(!outbox.state.lock().starved);
        assert_eq!(outbox.room(), 1);
    }

    /// A revocation behind a full queue would be answered too late, and what is handed over after
    /// it would be processed twice.
    #[tokio::test]
    async fn a_revocation_passes_blocks_and_takes_those_of_its_partitions_away() {
        let outbox = Outbox::new(Arc::default(), 100, 1_000_000);
        let gone = TopicPartition::new("a", 0);
        outbox.push(SourceEvent::Assigned(vec![Assignment {
            partition: gone.clone(),
            progress: Progress::at(0),
        }]));
        outbox.push(SourceEvent::Block(block("a", 0)));
        outbox.push(SourceEvent::Block(block("b", 0)));
        let (done, _answer) = oneshot::channel();
        outbox.revoke(
            std::slice::from_ref(&gone),
            SourceEvent::Revoked {
                partitions: vec![gone.clone()],
                lost: false,
                done,
            },
        );
        assert!(matches!(outbox.next().await, SourceEvent::Assigned(_)));
        assert!(matches!(outbox.next().await, SourceEvent::Revoked { .. }));
        let SourceEvent::Block(left) = outbox.next().await else {
            panic!("the other partition's block is gone");
        };
        assert_eq!(&*left.source().topic, "b");
        assert_eq!(outbox.room(), 100);
    }
}
