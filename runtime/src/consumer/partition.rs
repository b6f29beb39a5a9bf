//! One assigned partition: its lanes, its share of the budget, its valve.

use std::collections::VecDeque;
use std::sync::Arc;

use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Instant;

use super::lane::{Lane, Run, SLOTS, key_hash};
use super::runner::LaneId;
use crate::config::{Batch, Ordering};
use crate::decide::admission::Load;
use crate::decide::crash::Trial;
use crate::event::{Block, TopicPartition};

/// See the module.
pub struct Partition {
    pub name: TopicPartition,
    /// By slot; made when first needed.
    lanes: Vec<Option<Lane>>,
    ordering: Ordering,
    batch: Batch,
    /// What of the budget it uses.
    pub load: Load,
    /// Since when its valve is closed.
    pub held_since: Option<Instant>,
    /// Why it stands still for good.
    pub halted: Option<String>,
    /// The event that it halted at, where it was one.
    pub halted_at: Option<u64>,
    /// Whether it stands until the version at work is judged.
    pub kept: bool,
    /// Whether it is committed that it is worked on: no call begins before.
    pub watched: bool,
    /// The events that are tried one at a time after a death.
    pub trial: Option<Trial>,
    /// The lane whose next event is named: another one's naming in between would undo it.
    pub trial_slot: Option<usize>,
    /// The event of it whose call ended, while what follows from it is not written.
    pub trial_ended: Option<u64>,
    /// Held while one of them is tried that nothing may be tried beside.
    pub trial_room: Option<OwnedSemaphorePermit>,
    /// The slot that the next events go to, without ordering.
    turn: usize,
    /// Blocks with unsettled events: their end and the timestamp of their first event.
    unsettled: VecDeque<(u64, i64)>,
    /// The end of the partition as last heard of.
    pub end: Option<u64>,
}

impl Partition {
    /// A partition with nothing in it. `concurrency` is how many slots take turns without ordering.
    pub fn new(name: TopicPartition, ordering: Ordering, batch: Batch, concurrency: u32) -> Self {
        let slots = match ordering {
            Ordering::Partition => 1,
            Ordering::Key => SLOTS as usize,
            Ordering::None => (concurrency as usize).clamp(1, SLOTS as usize),
        };
        Self {
            name,
            lanes: (0..slots).map(|_| None).collect(),
            ordering,
            batch,
            load: Load::default(),
            held_since: None,
            halted: None,
            halted_at: None,
            kept: false,
            watched: false,
            trial: None,
            trial_slot: None,
            trial_ended: None,
            trial_room: None,
            turn: 0,
            unsettled: VecDeque::new(),
            end: None,
        }
    }

    /// How many lanes it may have.
    pub fn slots(&self) -> usize {
        self.lanes.len()
    }

    /// The lane in this slot, where there is one.
    pub fn lane(&mut self, slot: usize) -> Option<&mut Lane> {
        self.lanes.get_mut(slot).and_then(Option::as_mut)
    }

    /// Puts events of a block (`indices` in order; all of them where `None`) into their lanes, and
    /// returns the slots that got some.
    pub fn enqueue(&mut self, block: &Arc<Block>, indices: Option<Vec<u32>>) -> Vec<usize> {
        if let (Some(first), Some(last)) = (block.events().first(), block.events().last()) {
            self.unsettled
                .push_back((last.offset + 1, first.timestamp_ms));
        }
        match self.ordering {
            Ordering::Partition => vec![self.push(0, block, indices)],
            Ordering::None => {
                self.turn = (self.turn + 1) % self.lanes.len();
                vec![self.push(self.turn, block, indices)]
            }
            Ordering::Key => self.enqueue_by_key(block, indices),
        }
    }

    fn enqueue_by_key(&mut self, block: &Arc<Block>, indices: Option<Vec<u32>>) -> Vec<usize> {
        let mut by_slot: Vec<Vec<u32>> = vec![Vec::new(); self.lanes.len()];
        let mut add = |index: u32| {
            let slot = match block.event(index as usize).key() {
                Some(key) => key_hash(key) % SLOTS,
                None => u64::from(index) % SLOTS,
            };
            by_slot[slot as usize].push(index);
        };
        match indices {
            Some(indices) => indices.into_iter().for_each(&mut add),
            None => (0..block.len() as u32).for_each(&mut add),
        }
        let mut slots = Vec::new();
        for (slot, indices) in by_slot.into_iter().enumerate() {
            if !indices.is_empty() {
                slots.push(self.push(slot, block, Some(indices)));
            }
        }
        slots
    }

    fn push(&mut self, slot: usize, block: &Arc<Block>, indices: Option<Vec<u32>>) -> usize {
        let run = match indices {
            None => Run::whole(block.clone()),
            Some(indices) => Run::picked(block.clone(), indices),
        };
        let (ordering, batch) = (self.ordering, self.batch);
        self.lanes[slot]
            .get_or_insert_with(|| Lane::new(ordering, batch))
            .push(run);
        slot
    }

    /// The slot whose next event comes before those of the others, leaving out those whose last
    /// event failed.
    pub fn first_slot(&self, now: Instant) -> Option<usize> {
        let lanes = (0..).zip(&self.lanes);
        let next = lanes.filter_map(|(slot, lane)| {
            let lane = lane.as_ref().filter(|lane| !lane.doubtful)?;
            Some((lane.next_offset(now)?, slot))
        });
        next.min().map(|(_, slot)| slot)
    }

    /// What waits in its lanes is tried anew by another version; the lanes that hold some.
    pub fn begin_anew(&mut self, assignment: u64, now: Instant) -> Vec<LaneId> {
        let mut lanes = Vec::new();
        for (slot, lane) in self.lanes.iter_mut().enumerate() {
            if let Some(lane) = lane {
                lane.begin_anew(now);
                lanes.push(LaneId { assignment, slot });
            }
        }
        lanes
    }

    /// Forgets everything that waits in its lanes, and says how much it was. Lanes at work stay, so
    /// that what comes back finds its place.
    pub fn clear(&mut self) -> Load {
        let mut load = Load::default();
        for lane in self.lanes.iter_mut().flatten() {
            load.add(lane.waiting());
            let busy = lane.busy;
            *lane = Lane::new(self.ordering, self.batch);
            lane.busy = busy;
        }
        load
    }

    /// Whether an event that failed waits in one of its lanes.
    pub fn holds_failed(&self, offset: u64) -> bool {
        self.lanes
            .iter()
            .flatten()
            .any(|lane| lane.holds_failed(offset))
    }

    /// The timestamp of the oldest event that is not settled, to within its block; `position` is
    /// the settled position.
    pub fn oldest_unsettled_ms(&mut self, position: u64) -> Option<i64> {
        while self
            .unsettled
            .front()
            .is_some_and(|(end, _)| *end <= position)
        {
            self.unsettled.pop_front();
        }
        self.unsettled.front().map(|(_, timestamp)| *timestamp)
    }
}

#[cfg(test)]
mod tests {
    use super::super::work::tests::block;
    use super::*;

    const BATCH: Batch = Batch {
        max_events: 256,
        max_bytes: 1 << 20,
    };

    fn partition(ordering: Ordering) -> Partition {
        Partition::new(TopicPartition::new("orders", 0), ordering, BATCH, 4)
    }

    #[test]
    fn a_key_has_one_lane_and_keys_are_spread() {
        let mut partition = partition(Ordering::Key);
        let keys: Vec<String> = (0..200).map(|n| format!("k{}", n % 100)).collect();
        let events: Vec<_> = keys
            .iter()
            .enumerate()
            .map(|(n, k)| (n as u64, k.as_str()))
            .collect();
        let slots = partition.enqueue(&block(&events[..100]), None);
        assert!(slots.len() > 32, "{}", slots.len());
        let again = partition.enqueue(&block(&events[100..]), None);
        assert_eq!(slots, again);
    }

    #[test]
    fn without_order_lanes_take_turns() {
        let mut partition = partition(Ordering::None);
        let slots: Vec<_> = (0..5)
            .flat_map(|n| partition.enqueue(&block(&[(n, "a")]), None))
            .collect();
        assert_eq!(slots, [1, 2, 3, 0, 1]);
    }

    #[test]
    fn the_oldest_unsettled_event_is_followed() {
        let mut partition = partition(Ordering::Partition);
        partition.enqueue(&block(&[(0, "a"), (1, "a")]), None);
        partition.enqueue(&block(&[(5, "a")]), None);
        assert_eq!(partition.oldest_unsettled_ms(1), Some(1_000));
        assert_eq!(partition.unsettled.len(), 2);
        partition.oldest_unsettled_ms(2);
        assert_eq!(partition.unsettled.len(), 1);
        assert_eq!(partition.oldest_unsettled_ms(6), None);
    }
}
