//! The ordered work of one partition, or of one slot of keys in it.
//!
//! ```text
//! push ─▶ queue ─────────┐
//! again ─▶ returned ─────┼─▶ take ─▶ work ─▶ plugin ─▶ give back (retry, again)
//! retry ─▶ holds (a key, ┘
//!          its time, what must not overtake)
//! ```

use std::collections::VecDeque;
use std::sync::Arc;

use tokio::time::Instant;

use super::work::{Item, Work};
use crate::config::{Batch, Ordering};
use crate::decide::admission::Load;
use crate::decide::pace::Pace;
use crate::event::{Block, EventView};
use crate::mutation::{self, Mutation};

/// Slots that the keys of a partition are spread over with `ordering = "key"`.
pub const SLOTS: u64 = 64;

/// What an event may not be overtaken in: a number that all events of its partition or key share.
/// `None` where nothing has to wait for it (no ordering, or a null key).
pub fn scope(ordering: Ordering, event: &EventView<'_>) -> Option<u64> {
    match ordering {
        Ordering::Partition => Some(0),
        Ordering::Key => event.key().map(key_hash),
        Ordering::None => None,
    }
}

/// A hash of a key that is not the partitioner's: with the same one, the keys of a partition would
/// fall into few of the slots.
pub fn key_hash(key: &[u8]) -> u64 {
    xxhash_rust::xxh3::xxh3_64(key)
}

/// Events of one block on their way into a lane.
#[derive(Debug)]
pub struct Run {
    block: Arc<Block>,
    indices: Indices,
}

#[derive(Debug)]
enum Indices {
    Range(std::ops::Range<u32>),
    Picked(VecDeque<u32>),
}

impl Run {
    /// The whole block.
    pub fn whole(block: Arc<Block>) -> Self {
        let end = block.len() as u32;
        Self {
            block,
            indices: Indices::Range(0..end),
        }
    }

    /// These events of the block, in order.
    pub fn picked(block: Arc<Block>, indices: Vec<u32>) -> Self {
        Self {
            block,
            indices: Indices::Picked(indices.into()),
        }
    }

    fn pop(&mut self) -> Option<u32> {
        match &mut self.indices {
            Indices::Range(range) => range.next(),
            Indices::Picked(indices) => indices.pop_front(),
        }
    }

    fn next_offset(&self) -> Option<u64> {
        let index = match &self.indices {
            Indices::Range(range) => range.clone().next(),
            Indices::Picked(indices) => indices.front().copied(),
        };
        index.map(|index| self.block.event(index as usize).offset())
    }

    fn len(&self) -> usize {
        match &self.indices {
            Indices::Range(range) => range.len(),
            Indices::Picked(indices) => indices.len(),
        }
    }
}

/// An event that waits with its block.
type Waiting = (Arc<Block>, Item);

/// An event that is to be retried, and what must not overtake it.
#[derive(Debug)]
struct Hold {
    scope: Option<u64>,
    /// `None` while it waits for a judgement on the version that failed it, and not for a time.
    ready_at: Option<Instant>,
    waiting: VecDeque<Waiting>,
}

impl Hold {
    fn of(scope: Option<u64>, ready_at: Option<Instant>, first: Waiting) -> Self {
        Self {
            scope,
            ready_at,
            waiting: VecDeque::from([first]),
        }
    }

    fn is_ready(&self, now: Instant) -> bool {
        self.ready_at.is_some_and(|ready_at| ready_at <= now)
    }
}

/// What comes back from a call.
pub enum Back {
    /// As soon as the lane's turn comes.
    Again(Item),
    /// Not before this time.
    Retry(Item, Instant),
    /// Not before [`Lane::begin_anew`].
    Kept(Item),
}

/// See the module's picture.
#[derive(Debug)]
pub struct Lane {
    ordering: Ordering,
    queue: VecDeque<Run>,
    returned: VecDeque<Waiting>,
    holds: Vec<Hold>,
    pace: Pace,
    /// How many of the next events run one at a time, to find the one that fails its batch.
    alone: usize,
    /// Whether a call of this lane is under way: a lane has one at a time.
    pub busy: bool,
    /// Whether an event of its last call failed: probes go to others first, for one that fails
    /// again tells nothing new of what the plugin depends on.
    pub doubtful: bool,
}

impl Lane {
    /// An empty lane.
    pub fn new(ordering: Ordering, batch: Batch) -> Self {
        Self {
            ordering,
            queue: VecDeque::new(),
            returned: VecDeque::new(),
            holds: Vec::new(),
            pace: Pace::new(batch.max_events),
            alone: 0,
            busy: false,
            doubtful: false,
        }
    }

    /// The lane's batch size.
    pub fn pace(&mut self) -> &mut Pace {
        &mut self.pace
    }

    /// Adds events behind those that wait.
    pub fn push(&mut self, run: Run) {
        self.queue.push_back(run);
    }

    #[cfg(test)]
    fn is_idle(&self) -> bool {
        !self.busy
            && self.holds.is_empty()
            && self.returned.is_empty()
            && self.queue.iter().all(|run| run.len() == 0)
    }

    /// What waits, with its share of its blocks' bytes.
    pub fn waiting(&self) -> Load {
        let mut load = Load::default();
        let mut add = |block: &Block, events: usize| {
            load.add(Load {
                events,
                bytes: events * block.event_cost(),
            });
        };
        for run in &self.queue {
            add(&run.block, run.len());
        }
        let held = self.holds.iter().flat_map(|hold| &hold.waiting);
        for (block, _) in self.returned.iter().chain(held) {
            add(block, 1);
        }
        load
    }

    /// Whether an event that failed waits here.
    pub fn holds_failed(&self, offset: u64) -> bool {
        let held = self.holds.iter().flat_map(|hold| &hold.waiting);
        self.returned.iter().chain(held).any(|(block, item)| {
            item.failing_since.is_some() && block.event(item.index as usize).offset() == offset
        })
    }

    /// Whether there is something to call the plugin for.
    pub fn ready(&self, now: Instant) -> bool {
        if self.busy {
            return false;
        }
        if self.holds.iter().any(|hold| hold.is_ready(now)) {
            return true;
        }
        let waiting = !self.returned.is_empty() || self.queue.iter().any(|run| run.len() > 0);
        waiting
            && (self.ordering != Ordering::Partition
                || self.holds.is_empty()
                || mutation::is(Mutation::RetryOvertaken))
    }

    /// The lowest offset that may be called next, where there is one; `None` for one at work.
    pub fn next_offset(&self, now: Instant) -> Option<u64> {
        if !self.ready(now) {
            return None;
        }
        let ready = self.holds.iter().filter(|hold| hold.is_ready(now));
        let held = ready.filter_map(|hold| hold.waiting.front());
        let waiting = held.chain(self.returned.front());
        let waiting = waiting.map(|(block, item)| block.event(item.index as usize).offset());
        let queued = self.queue.iter().find_map(Run::next_offset);
        waiting.chain(queued).min()
    }

    /// When the next retry is due.
    pub fn wake_at(&self) -> Option<Instant> {
        self.holds.iter().filter_map(|hold| hold.ready_at).min()
    }

    /// Takes the next batch; empty where everything that waits must wait on.
    pub fn take(&mut self, now: Instant, limits: Batch) -> Work {
        let mut work = Work::default();
        let limit = if self.alone > 0 {
            1
        } else {
            self.pace.size().min(limits.max_events)
        };
        let mut room = Room {
            events: limit,
            bytes: limits.max_bytes,
            empty: true,
        };
        // Of single events that are tried, one that has not failed yet goes before those that fail
        // again and again: it would never have its turn.
        let fresh_first = self.doubtful && limit == 1;
        if !fresh_first {
            self.take_ready_holds(now, &mut work, &mut room);
        }
        let blocked = self.ordering == Ordering::Partition
            && !self.holds.is_empty()
            && !mutation::is(Mutation::RetryOvertaken);
        while !blocked && !room.full() {
            let Some((block, item)) = self.next_waiting() else {
                break;
            };
            let event = block.event(item.index as usize);
            let held = scope(self.ordering, &event)
                .and_then(|scope| self.holds.iter_mut().find(|hold| hold.scope == Some(scope)));
            if let Some(hold) = held {
                hold.waiting.push_back((block, item));
                continue;
            }
            if !room.admits(&event, item) {
                self.returned.push_front((block, item));
                break;
            }
            work.push(&block, item);
        }
        if fresh_first {
            self.take_ready_holds(now, &mut work, &mut room);
        }
        self.alone = self.alone.saturating_sub(work.len());
        work
    }

    fn take_ready_holds(&mut self, now: Instant, work: &mut Work, room: &mut Room) {
        // Who waits longest is first: a key whose first event always fails keeps its place among the
        // holds, and would be tried again and again before all behind it.
        self.holds.sort_by_key(|hold| hold.ready_at);
        for hold in self.holds.iter_mut().filter(|hold| hold.is_ready(now)) {
            while !room.full()
                && let Some((block, item)) = hold.waiting.pop_front()
            {
                if !room.admits(&block.event(item.index as usize), item) {
                    hold.waiting.push_front((block, item));
                    room.events = 0;
                } else {
                    work.push(&block, item);
                }
            }
        }
        self.holds.retain(|hold| !hold.waiting.is_empty());
    }

    fn next_waiting(&mut self) -> Option<Waiting> {
        if let Some(waiting) = self.returned.pop_front() {
            return Some(waiting);
        }
        loop {
            let run = self.queue.front_mut()?;
            if let Some(index) = run.pop() {
                let item = Item {
                    block: 0,
                    index,
                    attempt: 1,
                    failing_since: None,
                };
                return Some((run.block.clone(), item));
            }
            self.queue.pop_front();
        }
    }

    /// Takes back what a call did not settle, in the order of `work`.
    pub fn give_back(&mut self, work: &Work, back: Vec<Back>) {
        for back in back.into_iter().rev() {
            let item = match &back {
                Back::Again(item) | Back::Retry(item, _) | Back::Kept(item) => *item,
            };
            let block = work.block(&item).clone();
            let mut scope = scope(self.ordering, &block.event(item.index as usize));
            if mutation::is(Mutation::RetryOvertaken) && matches!(back, Back::Retry(..)) {
                scope = None;
            }
            if mutation::is(Mutation::ReturnedDropped) && matches!(back, Back::Again(_)) {
                continue;
            }
            let hold = self
                .holds
                .iter_mut()
                .find(|hold| scope.is_some() && hold.scope == scope);
            match (back, hold) {
                (Back::Again(_), Some(hold)) => hold.waiting.push_front((block, item)),
                (Back::Again(_), None) => self.returned.push_front((block, item)),
                (Back::Retry(_, ready_at), Some(hold)) => {
                    hold.ready_at = Some(ready_at);
                    hold.waiting.push_front((block, item));
                }
                (Back::Kept(_), Some(hold)) => {
                    hold.ready_at = None;
                    hold.waiting.push_front((block, item));
                }
                (Back::Retry(_, ready_at), None) => {
                    self.holds
                        .push(Hold::of(scope, Some(ready_at), (block, item)));
                }
                (Back::Kept(_), None) => self.holds.push(Hold::of(scope, None, (block, item))),
            }
        }
    }

    /// Another version handles what waits: what was kept is let go, and attempts count from one
    /// again. What waits for its time goes on waiting.
    pub fn begin_anew(&mut self, now: Instant) {
        if mutation::is(Mutation::SwapDropsHeld) {
            self.holds.clear();
        }
        if mutation::is(Mutation::SwapBreaksOrder) {
            let held = self.holds.drain(..).flat_map(|hold| hold.waiting);
            self.returned.extend(held);
        }
        if !mutation::is(Mutation::KeptForgotten) {
            for hold in &mut self.holds {
                hold.ready_at.get_or_insert(now);
            }
        }
        let held = self.holds.iter_mut().flat_map(|hold| &mut hold.waiting);
        for (_, item) in self.returned.iter_mut().chain(held) {
            *item = item.anew();
        }
    }

    /// The next `events` events run one at a time.
    pub fn isolate(&mut self, events: usize) {
        self.alone = self.alone.max(events);
    }
}

/// What still fits a batch.
struct Room {
    events: usize,
    bytes: usize,
    empty: bool,
}

impl Room {
    fn full(&self) -> bool {
        self.events == 0
    }

    /// Takes the event's room if it has some; the first event always has. An event that failed
    /// before runs alone, so that a trap of its own takes nobody along.
    fn admits(&mut self, event: &EventView<'_>, item: Item) -> bool {
        let bytes = event.bytes();
        let alone = item.attempt > 1;
        if !self.empty && (bytes > self.bytes || alone) {
            return false;
        }
        self.events = if alone { 0 } else { self.events - 1 };
        self.bytes = self.bytes.saturating_sub(bytes);
        self.empty = false;
        true
    }
}

#[cfg(test)]
mod tests;
