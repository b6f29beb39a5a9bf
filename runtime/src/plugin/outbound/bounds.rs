//! How much plugins may have under way outside at once: a consumer, and all of them together.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::Failure;
use super::resolver::Resolver;
use crate::decide::outbound::AllowList;

/// Requests of one consumer under way at once; others wait for their turn.
const OF_CONSUMER: usize = 64;
/// Requests of all consumers.
const OF_PROCESS: usize = 256;
/// Names that are looked up at once, each on a thread that nothing can interrupt.
const LOOKUPS: usize = 16;
/// Bytes of answers that wait for their plugin, of all consumers.
const ANSWERS: usize = 128 << 20;
/// Bytes that room is counted in.
const UNIT: usize = 1 << 10;

/// The bounds of all consumers, by name: the generations of a consumer share one.
pub(in crate::plugin) struct BoundsOfAll {
    process: Arc<Semaphore>,
    lookups: Arc<Semaphore>,
    answers: Arc<Semaphore>,
    consumers: HashMap<Arc<str>, Weak<Semaphore>>,
}

impl Default for BoundsOfAll {
    fn default() -> Self {
        Self {
            process: Arc::new(Semaphore::new(OF_PROCESS)),
            lookups: Arc::new(Semaphore::new(LOOKUPS)),
            answers: Arc::new(Semaphore::new(ANSWERS / UNIT)),
            consumers: HashMap::new(),
        }
    }
}

impl BoundsOfAll {
    /// Those of this consumer, made if they are new. Those no longer in use are swept.
    pub(in crate::plugin) fn of(&mut self, consumer: &Arc<str>) -> Bounds {
        self.consumers.retain(|_, bounds| bounds.strong_count() > 0);
        let known = self.consumers.get(consumer).and_then(Weak::upgrade);
        let own = known.unwrap_or_else(|| {
            let new = Arc::new(Semaphore::new(OF_CONSUMER));
            self.consumers
                .insert(Arc::clone(consumer), Arc::downgrade(&new));
            new
        });
        Bounds {
            own,
            process: Arc::clone(&self.process),
            lookups: Arc::clone(&self.lookups),
            answers: Arc::clone(&self.answers),
        }
    }
}

/// The bounds of one consumer.
pub(in crate::plugin) struct Bounds {
    own: Arc<Semaphore>,
    process: Arc<Semaphore>,
    lookups: Arc<Semaphore>,
    answers: Arc<Semaphore>,
}

impl Bounds {
    /// Waits until a request may be under way; it may until the turn is dropped.
    pub(super) async fn turn(
        &self,
    ) -> (Option<OwnedSemaphorePermit>, Option<OwnedSemaphorePermit>) {
        // The own one first: who waits for it holds nothing that others wait for.
        let own = Arc::clone(&self.own).acquire_owned().await.ok();
        let process = Arc::clone(&self.process).acquire_owned().await.ok();
        (own, process)
    }

    /// Room for an answer of this `send`, none taken yet.
    pub(super) fn room(&self, send: &Arc<Held>) -> Room {
        Room {
            send: Arc::clone(send),
            answers: Arc::clone(&self.answers),
            bytes: 0,
            permit: None,
        }
    }

    /// What looks names up for connections to this port.
    pub(super) fn resolver(&self, allowed: &Arc<AllowList>, port: u16) -> Resolver {
        Resolver::new(allowed, port, Arc::clone(&self.lookups))
    }
}

/// Bytes of the answers to one `send`.
pub(super) struct Held {
    limit: usize,
    bytes: AtomicUsize,
}

impl Held {
    /// None yet, and at most this many.
    pub(super) fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self {
            limit,
            bytes: AtomicUsize::new(0),
        })
    }
}

/// The room of one answer; dropping it gives the room back.
pub(in crate::plugin) struct Room {
    send: Arc<Held>,
    answers: Arc<Semaphore>,
    bytes: usize,
    permit: Option<OwnedSemaphorePermit>,
}

impl Room {
    /// So many bytes more.
    ///
    /// # Errors
    /// The answers to the `send`, or those of all plugins, are too large together.
    pub(super) fn take(&mut self, more: usize) -> Result<(), Failure> {
        let sum = |bytes: usize| {
            bytes
                .checked_add(more)
                .filter(|sum| *sum <= self.send.limit)
        };
        let order = Ordering::Relaxed;
        if self.send.bytes.fetch_update(order, order, sum).is_err() {
            return Err(Failure::TooLarge);
        }
        let before = self.bytes.div_ceil(UNIT);
        self.bytes += more;
        let units = self.bytes.div_ceil(UNIT) - before;
        let units = u32::try_from(units).unwrap_or(u32::MAX);
        let Ok(permit) = Arc::clone(&self.answers).try_acquire_many_owned(units) else {
            return Err(Failure::Other(
                "the answers to all plugins fill the room that the runtime has for them".into(),
            ));
        };
        match &mut self.permit {
            Some(taken) => taken.merge(permit),
            none => *none = Some(permit),
        }
        Ok(())
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        self.send.bytes.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bounds() -> (BoundsOfAll, Bounds) {
        let mut all = BoundsOfAll::default();
        let one = all.of(&"c".into());
        (all, one)
    }

    /// Room that is not given back would end all requests of the process one day.
    #[test]
    fn room_comes_back() {
        let (_all, bounds) = bounds();
        let free = bounds.answers.available_permits();
        let send = Held::new(5_000);
        let mut first = bounds.room(&send);
        first.take(100).unwrap();
        first.take(4_000).unwrap();
        assert_eq!(bounds.answers.available_permits(), free - 5);
        let mut second = bounds.room(&send);
        assert_eq!(second.take(1_000), Err(Failure::TooLarge));
        drop(first);
        second.take(1_000).unwrap();
        drop(second);
        assert_eq!(bounds.answers.available_permits(), free);
        assert_eq!(send.bytes.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn all_answers_of_the_process_have_a_bound() {
        let (_all, bounds) = bounds();
        let mut first = bounds.room(&Held::new(usize::MAX));
        first.take(ANSWERS).unwrap();
        let mut second = bounds.room(&Held::new(usize::MAX));
        assert!(matches!(second.take(1), Err(Failure::Other(_))));
    }

    /// A generation more must not be a way to more requests at once.
    #[tokio::test]
    async fn generations_of_a_consumer_share_their_turns() {
        let (mut all, bounds) = bounds();
        let again = all.of(&"c".into());
        let mut turns = Vec::new();
        for _ in 0..OF_CONSUMER {
            turns.push(bounds.turn().await);
        }
        assert_eq!(again.own.available_permits(), 0);
        assert_eq!(all.of(&"d".into()).own.available_permits(), OF_CONSUMER);
        turns.pop();
        assert_eq!(again.own.available_permits(), 1);
    }
}
