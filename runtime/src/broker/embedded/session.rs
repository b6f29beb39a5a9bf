//! A consumer's session: what its fetching thread hands over, and the valve in between.
//!
//! ```text
//! log writer ──wake──▶ fetcher thread ──blocks──▶ queue (bounded) ──next──▶ intake
//!                          ▲ hold, release, room        │
//!                          └────────────────────────────┘
//! ```

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;

use futures::future::BoxFuture;
use parking_lot::{Condvar, Mutex};
use tokio::sync::Notify;

use super::Shared;
use crate::broker::{Control, ReadLimits, Source, SourceEvent, Subscription};
use crate::event::TopicPartition;

/// What one block holds at most: with more, a batch for a plugin leaves the processor's cache.
const BLOCK_BYTES: usize = 512 * 1024;
/// Events of one block at most.
const BLOCK_EVENTS: usize = 4_096;

/// What the parts of a session share.
pub struct SessionShared {
    pub group: Arc<str>,
    fetch_events: usize,
    fetch_bytes: usize,
    state: Mutex<State>,
    /// For the fetcher: something changed that it acts upon.
    changed: Condvar,
    /// For the source: something was queued.
    queued: Notify,
}

#[derive(Default)]
struct State {
    queue: VecDeque<SourceEvent>,
    queued_events: usize,
    queued_bytes: usize,
    held: HashSet<TopicPartition>,
    assigned: Vec<TopicPartition>,
    /// The fetcher has more to hand over and waits for room.
    waits_for_room: bool,
    changed: bool,
    closed: bool,
}

impl SessionShared {
    /// A session that hands over nothing yet.
    pub fn new(subscription: &Subscription) -> Self {
        Self {
            group: subscription.group.clone(),
            fetch_events: subscription.fetch_events.max(1),
            fetch_bytes: subscription.fetch_bytes.max(1),
            state: Mutex::default(),
            changed: Condvar::new(),
            queued: Notify::new(),
        }
    }

    /// Lets the fetcher look again.
    pub fn wake(&self) {
        self.state.lock().changed = true;
        self.changed.notify_one();
    }

    /// Ends the session; the fetcher hands over nothing more.
    pub fn close(&self) {
        self.state.lock().closed = true;
        self.changed.notify_one();
    }

    /// Whether the session has ended.
    pub fn is_closed(&self) -> bool {
        self.state.lock().closed
    }

    /// Waits until [`Self::wake`] was called since the last return; false once closed.
    pub fn wait(&self) -> bool {
        let mut state = self.state.lock();
        while !state.changed && !state.closed {
            self.changed.wait(&mut state);
        }
        state.changed = false;
        !state.closed
    }

    /// Hands something over.
    pub fn push(&self, event: SourceEvent) {
        let mut state = self.state.lock();
        if let SourceEvent::Block(block) = &event {
            state.queued_events += block.len();
            state.queued_bytes += block.bytes();
        }
        state.queue.push_back(event);
        drop(state);
        self.queued.notify_one();
    }

    /// Whether events of the partition may be handed over.
    pub fn is_held(&self, partition: &TopicPartition) -> bool {
        self.state.lock().held.contains(partition)
    }

    /// Says which partitions the session has; the valve of one that it lost is forgotten.
    pub fn set_assigned(&self, assigned: Vec<TopicPartition>) {
        let mut state = self.state.lock();
        state.held.retain(|held| assigned.contains(held));
        state.assigned = assigned;
    }

    /// How large the next block may be; `None` while there is no room for one that is worth its
    /// hand-over. The fetcher is woken when there is.
    pub fn room(&self) -> Option<ReadLimits> {
        let mut state = self.state.lock();
        let most = ReadLimits {
            events: BLOCK_EVENTS.min(self.fetch_events),
            bytes: BLOCK_BYTES.min(self.fetch_bytes),
        };
        let left = ReadLimits {
            events: self.fetch_events.saturating_sub(state.queued_events),
            bytes: self.fetch_bytes.saturating_sub(state.queued_bytes),
        };
        let enough = left.events >= most.events.div_ceil(2) && left.bytes >= most.bytes.div_ceil(2);
        state.waits_for_room = !enough && state.queued_events > 0;
        if state.waits_for_room {
            return None;
        }
        Some(ReadLimits {
            events: most.events.min(left.events.max(1)),
            bytes: most.bytes.min(left.bytes.max(1)),
        })
    }

    fn pop(&self) -> Option<SourceEvent> {
        let mut state = self.state.lock();
        let event = state.queue.pop_front()?;
        if let SourceEvent::Block(block) = &event {
            state.queued_events -= block.len();
            state.queued_bytes -= block.bytes();
            let half_empty = state.queued_events <= self.fetch_events / 2
                && state.queued_bytes <= self.fetch_bytes / 2;
            if state.waits_for_room && half_empty {
                state.waits_for_room = false;
                state.changed = true;
                self.changed.notify_one();
            }
        }
        Some(event)
    }
}

/// The session's end at the intake.
pub struct EmbeddedSource {
    pub shared: Arc<Shared>,
    pub session: Arc<SessionShared>,
}

impl Source for EmbeddedSource {
    fn next(&mut self) -> BoxFuture<'_, SourceEvent> {
        Box::pin(async move {
            loop {
                if let Some(event) = self.session.pop() {
                    return event;
                }
                self.session.queued.notified().await;
            }
        })
    }

    fn close(self: Box<Self>) -> BoxFuture<'static, ()> {
        Box::pin(async move {
            let shared = self.shared.clone();
            let session = self.session.clone();
            // Dropping the source ends the session; its thread is waited for elsewhere than on an
            // executor's thread.
            drop(self);
            let ended = tokio::task::spawn_blocking(move || shared.end_session(&session)).await;
            if let Err(error) = ended {
                tracing::warn!(%error, "a consumer's fetcher did not end in order");
            }
        })
    }
}

impl Drop for EmbeddedSource {
    fn drop(&mut self) {
        self.session.close();
    }
}

/// The valve of a session.
pub struct EmbeddedControl {
    pub shared: Arc<Shared>,
    pub session: Arc<SessionShared>,
}

impl Control for EmbeddedControl {
    fn hold(&self, partitions: &[TopicPartition]) {
        let mut state = self.session.state.lock();
        state.held.extend(partitions.iter().cloned());
    }

    fn release(&self, partitions: &[TopicPartition]) {
        let mut state = self.session.state.lock();
        for partition in partitions {
            state.held.remove(partition);
        }
        state.changed = true;
        self.session.changed.notify_one();
    }

    fn ends(&self) -> Vec<(TopicPartition, u64)> {
        let assigned = self.session.state.lock().assigned.clone();
        assigned
            .into_iter()
            .filter_map(|place| {
                let partition = self.shared.catalog.partition(&place).ok()?;
                Some((place, partition.end()))
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{OnLostPosition, Start};
    use crate::event::{BlockBuilder, NewEvent};

    fn session(fetch_events: usize, fetch_bytes: usize) -> SessionShared {
        SessionShared::new(&Subscription {
            consumer: "c".into(),
            group: "g".into(),
            topics: Vec::new(),
            excluded: Vec::new(),
            start: Start::Beginning,
            on_lost_position: OnLostPosition::Stop,
            fetch_events,
            fetch_bytes,
        })
    }

    fn block(events: u64) -> SourceEvent {
        let mut block = BlockBuilder::new(TopicPartition::new("t", 0), 0, 0);
        for offset in 0..events {
            block.push(NewEvent {
                offset,
                timestamp_ms: 0,
                timestamp_of_broker: false,
                key: None,
                value: None,
            });
        }
        SourceEvent::Block(Arc::new(block.build()))
    }

    /// Without the bound, a slow plugin would let its whole topic into memory.
    #[test]
    fn blocks_wait_for_room_and_the_fetcher_hears_of_it() {
        let session = session(100, 1 << 20);
        assert_eq!(session.room().map(|room| room.events), Some(100));
        session.push(block(40));
        assert_eq!(session.room().map(|room| room.events), Some(60));
        session.push(block(60));
        assert!(session.room().is_none());
        assert!(session.pop().is_some());
        assert!(!session.state.lock().changed, "still more than half full");
        assert!(session.pop().is_some());
        assert!(session.state.lock().changed);
        assert_eq!(session.room().map(|room| room.events), Some(100));
    }

    /// An event larger than the whole budget is handed over alone, or it would never be.
    #[test]
    fn an_empty_queue_always_has_room() {
        let session = session(1, 1);
        let room = session.room().unwrap();
        assert_eq!((room.events, room.bytes), (1, 1));
    }
}
