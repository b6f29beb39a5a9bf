//! A consumer's session: what its fetching thread hands over, and the valve in between.
//!
//! ```text
//! log writer ──wake──▶ fetcher thread ──blocks──▶ outbox (bounded) ──next──▶ intake
//!                          ▲ hold, release, room        │
//!                          └────────────────────────────┘
//! ```

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures::future::BoxFuture;
use parking_lot::Mutex;

use super::Shared;
use crate::broker::outbox::Outbox;
use crate::broker::wake::Wake;
use crate::broker::{Control, ReadLimits, Source, SourceEvent, Subscription};
use crate::decide::admission::Load;
use crate::event::TopicPartition;

/// What one block holds at most: with more, a batch for a plugin leaves the processor's cache.
const BLOCK: Load = Load {
    events: 4_096,
    bytes: 512 * 1024,
};
/// How long the fetcher sleeps at most; it is woken for everything that it acts upon.
const SLEEP: Duration = Duration::from_secs(3_600);

/// What the parts of a session share.
pub struct SessionShared {
    pub group: Arc<str>,
    pub outbox: Outbox,
    /// The fetcher's.
    wake: Arc<Wake>,
    ahead: Load,
    assigned: Mutex<Vec<TopicPartition>>,
    /// Partitions to be given up and taken again.
    retaken: Mutex<Vec<TopicPartition>>,
    closed: AtomicBool,
}

impl SessionShared {
    /// A session that hands over nothing yet.
    pub fn new(subscription: &Subscription) -> Self {
        let ahead = Load {
            events: subscription.fetch_events,
            bytes: subscription.fetch_bytes,
        };
        let wake = Arc::new(Wake::default());
        let wakes = wake.clone();
        Self {
            group: subscription.group.clone(),
            outbox: Outbox::new(ahead, move || wakes.notify()),
            wake,
            ahead,
            assigned: Mutex::default(),
            retaken: Mutex::default(),
            closed: AtomicBool::new(false),
        }
    }

    /// Lets the fetcher look again.
    pub fn wake(&self) {
        self.wake.notify();
    }

    /// Ends the session; the fetcher hands over nothing more.
    pub fn close(&self) {
        self.closed.store(true, Ordering::Release);
        self.wake.notify();
    }

    /// Whether the session has ended.
    pub fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    /// Waits until something changed since the last return; false once closed.
    pub fn wait(&self) -> bool {
        if !self.is_closed() {
            self.wake.wait(SLEEP);
        }
        !self.is_closed()
    }

    /// Says which partitions the session has.
    pub fn set_assigned(&self, assigned: Vec<TopicPartition>) {
        *self.assigned.lock() = assigned;
    }

    /// The partitions that are to be given up and taken again; they are asked for once.
    pub fn take_retaken(&self) -> Vec<TopicPartition> {
        std::mem::take(&mut *self.retaken.lock())
    }

    /// How large the next block of one of so many partitions may be; `None` while there is no room.
    pub fn room(&self, partition: &TopicPartition, partitions: usize) -> Option<ReadLimits> {
        let most = BLOCK.smaller(self.ahead.at_least_one());
        let room = self.outbox.room(partition, partitions, most)?;
        Some(ReadLimits {
            events: room.events,
            bytes: room.bytes,
        })
    }
}

/// The session's end at the intake.
pub struct EmbeddedSource {
    pub shared: Arc<Shared>,
    pub session: Arc<SessionShared>,
}

impl Source for EmbeddedSource {
    fn next(&mut self) -> BoxFuture<'_, SourceEvent> {
        Box::pin(self.session.outbox.next())
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
        self.session.outbox.hold(partitions);
    }

    fn release(&self, partitions: &[TopicPartition]) {
        self.session.outbox.release(partitions);
        self.session.wake();
    }

    fn retake(&self, partitions: &[TopicPartition]) {
        self.session.retaken.lock().extend_from_slice(partitions);
        self.session.wake();
    }

    fn ends(&self) -> Vec<(TopicPartition, u64)> {
        let assigned = self.session.assigned.lock().clone();
        assigned
            .into_iter()
            .filter_map(|place| {
                let partition = self.shared.catalog.partition(&place).ok()?;
                Some((place, partition.end()))
            })
            .collect()
    }
}
