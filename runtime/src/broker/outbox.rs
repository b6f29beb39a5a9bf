//! What a fetching thread has ready, until the intake takes it.
//!
//! ```text
//! thread ── room? ──▶ push ─▶ queue ─────────────▶ next ─▶ intake
//!                      └────▶ held, by partition ──┘ release
//! ```
//! A hold takes effect at once: no block of a held partition is taken any more, however many are
//! ready. That is what keeps the intake's budget exact. What one partition has ready does not take
//! the room of the others.

use std::collections::{HashMap, HashSet, VecDeque};

use parking_lot::Mutex;
use tokio::sync::Notify;

use super::SourceEvent;
use crate::decide::admission::{self, Load};
use crate::event::{Block, TopicPartition};

/// A queue from a fetching thread to the intake. Only blocks count against the bound: what else
/// there is to say is rare and must never be held up.
pub struct Outbox {
    state: Mutex<State>,
    arrived: Notify,
    wake: Box<dyn Fn() + Send + Sync>,
    limit: Load,
}

#[derive(Default)]
struct State {
    queue: VecDeque<SourceEvent>,
    held: HashMap<TopicPartition, VecDeque<SourceEvent>>,
    /// Blocks of the queue and of held partitions.
    total: Load,
    by_partition: HashMap<TopicPartition, Load>,
    /// What is kept for each partition, and what they all have ready beyond it.
    share: Load,
    common: Load,
    /// Blocks of the queue.
    ready: usize,
    /// The thread found no room and sleeps until there is.
    starved: bool,
}

impl Outbox {
    /// An empty queue for so many events and bytes; `wake` wakes the thread.
    pub fn new(limit: Load, wake: impl Fn() + Send + Sync + 'static) -> Self {
        Self {
            state: Mutex::default(),
            arrived: Notify::new(),
            wake: Box::new(wake),
            limit: limit.at_least_one(),
        }
    }

    /// How much of a partition, one of `partitions`, may be pushed now: `most` or less. `None` while
    /// it is too little to be worth its hand-over; the thread is woken once it is not.
    ///
    /// Half of the bound is kept for the partitions in equal shares, so that those who wait behind a
    /// closed valve stop nobody. A partition that has nothing ready may push an event larger than
    /// that; once the bound is passed by such, one at a time, or each of many partitions would.
    pub fn room(&self, partition: &TopicPartition, partitions: usize, most: Load) -> Option<Load> {
        let most = most.smaller(admission::largest_block(self.limit, partitions));
        let mut state = self.state.lock();
        state.share_among(partitions, self.limit);
        let share = state.share;
        let own = state.by_partition.get(partition).copied();
        let own = own.unwrap_or_default();
        let mut left = self.limit.part(1, 2).beyond(state.common);
        left.add(share.beyond(own));
        let left = left.smaller(most);
        let worth = most.smaller(share).part(1, 2).at_least_one();
        let enough = left.events >= worth.events && left.bytes >= worth.bytes;
        let waits = state.ready > 0 || state.held.contains_key(partition);
        let crowded = waits && state.total.reaches(self.limit);
        if crowded || (!enough && own != Load::default()) {
            state.starved = true;
            return None;
        }
        Some(left.at_least_one())
    }

    /// Adds what happened, after what happened before.
    pub fn push(&self, event: SourceEvent) {
        self.push_all(std::iter::once(event));
    }

    /// Adds several at once.
    pub fn push_all(&self, events: impl IntoIterator<Item = SourceEvent>) {
        let mut state = self.state.lock();
        for event in events {
            state.arrives(&event);
            state.enqueue(event);
        }
        drop(state);
        self.arrived.notify_one();
    }

    /// Tells of partitions that are given up: their blocks go, and the news passes the blocks of
    /// all others, for the group waits for the answer.
    pub fn revoke(&self, partitions: &[TopicPartition], event: SourceEvent) {
        let gone: HashSet<&TopicPartition> = partitions.iter().collect();
        let mut state = self.state.lock();
        for partition in partitions {
            for waiting in state.held.remove(partition).unwrap_or_default() {
                state.leaves(&waiting);
            }
        }
        let queue = std::mem::take(&mut state.queue);
        let mut news = VecDeque::with_capacity(queue.len() + 1);
        let mut blocks = VecDeque::new();
        for waiting in queue {
            match partition_of(&waiting) {
                Some(partition) if gone.contains(partition) => state.leaves(&waiting),
                Some(_) => blocks.push_back(waiting),
                // An assignment of a partition stands before its blocks still.
                None => news.push_back(waiting),
            }
        }
        news.push_back(event);
        state.ready = 0;
        news.append(&mut blocks);
        for waiting in news {
            state.enqueue(waiting);
        }
        drop(state);
        self.arrived.notify_one();
    }

    /// Keeps the blocks of these partitions back, also those that are ready.
    pub fn hold(&self, partitions: &[TopicPartition]) {
        let mut state = self.state.lock();
        let mut new = false;
        for partition in partitions {
            if !state.held.contains_key(partition) {
                state.held.insert(partition.clone(), VecDeque::new());
                new = true;
            }
        }
        if !new {
            return;
        }
        let queue = std::mem::take(&mut state.queue);
        state.ready = 0;
        for event in queue {
            state.enqueue(event);
        }
        // Nobody will take what the thread waits for.
        let wakes = state.ready == 0 && std::mem::take(&mut state.starved);
        drop(state);
        if wakes {
            (self.wake)();
        }
    }

    /// Lets the blocks of these partitions go again.
    pub fn release(&self, partitions: &[TopicPartition]) {
        let mut state = self.state.lock();
        for partition in partitions {
            for waiting in state.held.remove(partition).unwrap_or_default() {
                state.enqueue(waiting);
            }
        }
        drop(state);
        self.arrived.notify_one();
    }

    /// Whether blocks of the partition are kept back.
    pub fn is_held(&self, partition: &TopicPartition) -> bool {
        self.state.lock().held.contains_key(partition)
    }

    /// The next thing that happened. Dropping the future loses nothing.
    pub async fn next(&self) -> SourceEvent {
        loop {
            if let Some(event) = self.take() {
                return event;
            }
            self.arrived.notified().await;
        }
    }

    /// The next thing that happened, where there is one.
    pub fn take(&self) -> Option<SourceEvent> {
        let mut state = self.state.lock();
        let event = state.queue.pop_front()?;
        if let SourceEvent::Block(_) = event {
            state.ready -= 1;
        }
        state.leaves(&event);
        // At half, not at the first free place: the thread is woken for a batch's worth.
        let total = state.total;
        let wakes = state.starved
            && total.events <= self.limit.events / 2
            && total.bytes <= self.limit.bytes / 2;
        // What is held may keep more than half for long: then the last block of the others counts.
        let wakes = wakes || (state.starved && state.queue.is_empty());
        if wakes {
            state.starved = false;
        }
        drop(state);
        if wakes {
            (self.wake)();
        }
        Some(event)
    }
}

impl State {
    fn enqueue(&mut self, event: SourceEvent) {
        let held = partition_of(&event).and_then(|partition| self.held.get_mut(partition));
        if held.is_none()
            && let SourceEvent::Block(_) = event
        {
            self.ready += 1;
        }
        held.unwrap_or(&mut self.queue).push_back(event);
    }

    fn arrives(&mut self, event: &SourceEvent) {
        if let SourceEvent::Block(block) = event {
            let load = load_of(block);
            self.total.add(load);
            let own = self.by_partition.entry(block.source().clone());
            let own = own.or_default();
            let before = own.beyond(self.share);
            own.add(load);
            self.common.add(own.beyond(self.share).beyond(before));
        }
    }

    fn leaves(&mut self, event: &SourceEvent) {
        if let SourceEvent::Block(block) = event {
            let load = load_of(block);
            self.total.remove(load);
            if let Some(own) = self.by_partition.get_mut(block.source()) {
                let before = own.beyond(self.share);
                own.remove(load);
                self.common.remove(before.beyond(own.beyond(self.share)));
                if own.events == 0 {
                    self.by_partition.remove(block.source());
                }
            }
        }
    }

    /// Keeps half of the bound for so many partitions.
    fn share_among(&mut self, partitions: usize, limit: Load) {
        let share = limit.part(1, 2 * partitions.max(1)).at_least_one();
        if share != self.share {
            self.share = share;
            self.common = Load::default();
            for own in self.by_partition.values() {
                self.common.add(own.beyond(share));
            }
        }
    }
}

fn load_of(block: &Block) -> Load {
    Load {
        events: block.len(),
        bytes: block.bytes(),
    }
}

/// Whose valve an event waits for.
fn partition_of(event: &SourceEvent) -> Option<&TopicPartition> {
    match event {
        SourceEvent::Block(block) => Some(block.source()),
        SourceEvent::CaughtUp { partition, .. } => Some(partition),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use crate::broker::Assignment;
    use crate::decide::offsets::Progress;
    use crate::event::{BlockBuilder, NewEvent};
    use tokio::sync::oneshot;

    fn place(topic: &str) -> TopicPartition {
        TopicPartition::new(topic, 0)
    }

    fn block(topic: &str, events: u64) -> SourceEvent {
        let mut builder = BlockBuilder::new(place(topic), 1, 10);
        for offset in 0..events {
            builder.push(NewEvent {
                offset,
                timestamp_ms: 0,
                timestamp_of_broker: false,
                key: None,
                value: Some(b"0123456789"),
            });
        }
        SourceEvent::Block(Arc::new(builder.build()))
    }

    /// An outbox for so many events, and how often the thread was woken.
    fn outbox(events: usize) -> (Outbox, Arc<AtomicUsize>) {
        let woken = Arc::new(AtomicUsize::new(0));
        let wakes = woken.clone();
        let limit = Load {
            events,
            bytes: 1 << 20,
        };
        let outbox = Outbox::new(limit, move || {
            wakes.fetch_add(1, Ordering::Relaxed);
        });
        (outbox, woken)
    }

    fn room(outbox: &Outbox, topic: &str, partitions: usize) -> Option<usize> {
        let most = Load {
            events: 1000,
            bytes: 1 << 20,
        };
        let room = outbox.room(&place(topic), partitions, most);
        room.map(|load| load.events)
    }

    fn topic_of(event: &SourceEvent) -> String {
        partition_of(event).map_or(String::new(), |partition| partition.topic.to_string())
    }

    /// Without a bound a slow plugin would let its whole topic into memory; without the wake-up it
    /// would stall.
    #[test]
    fn blocks_wait_for_room_and_the_thread_hears_of_it() {
        let (outbox, woken) = outbox(100);
        assert_eq!(room(&outbox, "a", 1), Some(100));
        outbox.push(block("a", 40));
        assert_eq!(room(&outbox, "a", 1), Some(60));
        outbox.push(block("a", 60));
        assert_eq!(room(&outbox, "a", 1), None);
        assert!(outbox.take().is_some());
        assert_eq!(
            woken.load(Ordering::Relaxed),
            0,
            "still more than half full"
        );
        assert!(outbox.take().is_some());
        assert_eq!(woken.load(Ordering::Relaxed), 1);
        assert_eq!(room(&outbox, "a", 1), Some(100));
    }

    /// An event larger than the whole bound is handed over alone, or it would never be.
    #[test]
    fn with_nothing_ready_there_is_always_room_for_an_event() {
        let (outbox, woken) = outbox(1);
        assert_eq!(room(&outbox, "a", 2), Some(1));
        outbox.push(block("a", 50));
        assert_eq!(room(&outbox, "b", 2), None);
        assert_eq!(room(&outbox, "a", 2), None);
        assert!(outbox.take().is_some());
        assert_eq!(woken.load(Ordering::Relaxed), 1);
        assert_eq!(room(&outbox, "b", 2), Some(1));
    }

    /// However many partitions there are, and however large their events, only the last that comes
    /// passes the bound: five hundred with one each would fill the memory.
    #[test]
    fn one_event_of_each_of_many_partitions_does_not_pass_the_bound() {
        let (outbox, woken) = outbox(100);
        let names: Vec<String> = (0..500).map(|n| n.to_string()).collect();
        let push = |events: u64| {
            let pushed = names.iter().filter(|name| {
                let room = room(&outbox, name, names.len());
                room.inspect(|_| outbox.push(block(name, events))).is_some()
            });
            pushed.count()
        };
        // Events as large as the 40 small ones of such a block.
        assert_eq!(push(40), 3);
        assert_eq!(push(1), 0);
        let first: Vec<_> = names[..3].iter().map(|name| place(name)).collect();
        outbox.hold(&first);
        // What waits behind closed valves leaves one at a time to the others.
        assert_eq!(woken.load(Ordering::Relaxed), 1);
        assert_eq!(push(40), 1);
        assert!(outbox.take().is_some());
        assert_eq!(woken.load(Ordering::Relaxed), 2);
        assert_eq!(push(1), 1);
        assert_eq!(room(&outbox, "0", names.len()), None, "it is held");
        outbox.release(&first);
        assert_eq!(push(1), 0);
        while outbox.take().is_some() {}
        assert_eq!(woken.load(Ordering::Relaxed), 3);
        assert_eq!(push(1), 100);
    }

    /// A stuck partition whose blocks took all room would stop the others of its consumer.
    #[test]
    fn what_is_held_leaves_each_partition_its_share() {
        let (outbox, woken) = outbox(100);
        outbox.push(block("a", 75));
        outbox.hold(&[place("a")]);
        assert_eq!(room(&outbox, "b", 2), Some(25));
        outbox.push(block("b", 25));
        assert_eq!(room(&outbox, "b", 2), None);
        assert_eq!(
            outbox.take().map(|event| topic_of(&event)).as_deref(),
            Some("b")
        );
        assert_eq!(woken.load(Ordering::Relaxed), 1);
    }

    /// A block that was ready would else be admitted beyond the budget.
    #[test]
    fn a_hold_takes_effect_at_once_and_keeps_the_order() {
        let (outbox, _) = outbox(100);
        for (topic, events) in [("a", 1), ("b", 2), ("a", 3)] {
            outbox.push(block(topic, events));
        }
        outbox.hold(&[place("a")]);
        outbox.push(block("a", 4));
        assert_eq!(
            outbox.take().map(|event| topic_of(&event)).as_deref(),
            Some("b")
        );
        assert!(outbox.take().is_none());
        outbox.release(&[place("a")]);
        let sizes: Vec<_> = std::iter::from_fn(|| outbox.take())
            .map(|event| match event {
                SourceEvent::Block(block) => block.len(),
                _ => 0,
            })
            .collect();
        assert_eq!(sizes, [1, 3, 4]);
    }

    /// A revocation behind a full queue would be answered too late, and what is handed over after
    /// it would be processed twice.
    #[tokio::test]
    async fn a_revocation_passes_blocks_and_takes_those_of_its_partitions_away() {
        let (outbox, _) = outbox(100);
        outbox.push(SourceEvent::Assigned(vec![Assignment {
            after_loss: false,
            partition: place("a"),
            progress: Progress::at(0),
        }]));
        for topic in ["a", "b", "c"] {
            outbox.push(block(topic, 1));
        }
        outbox.hold(&[place("c")]);
        let (done, _answer) = oneshot::channel();
        let gone = [place("a"), place("c")];
        outbox.revoke(
            &gone,
            SourceEvent::Revoked {
                partitions: gone.to_vec(),
                lost: false,
                done,
            },
        );
        assert!(matches!(outbox.next().await, SourceEvent::Assigned(_)));
        assert!(matches!(outbox.next().await, SourceEvent::Revoked { .. }));
        assert_eq!(topic_of(&outbox.next().await), "b");
        assert_eq!(room(&outbox, "a", 1), Some(100));
        assert!(!outbox.is_held(&place("c")), "held when it comes back");
    }
}
