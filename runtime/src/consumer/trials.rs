//! Partitions are watched while they are worked on, and after a death the events that may have
//! caused it are tried one at a time; what is decided is in [`crate::decide::crash`].
//!
//! ```text
//! assigned ─▶ watch committed ─▶ calls       found someone else's watch ─▶ Trial
//!                                              │ one event, one call
//!                   named, committed ◀─────────┤
//!                          └─▶ call ─▶ came through ─▶ the next ─▶ over: ordinary work
//! ```
//! At most once needs none of it: what was claimed never comes again.

use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Instant;

use super::assemble::{self, Context};
use super::dead_letter::Reason;
use super::lane::Back;
use super::partition::Partition;
use super::runner::{LaneId, Runner};
use super::trial_room::{Noting, Tried};
use super::work::Work;
use crate::clock;
use crate::decide::crash::{Start, Trial, Watch};

impl Runner {
    /// Whether a call for this lane's partition may begin, as far as deaths are concerned; if not, the
    /// lane is considered again when it may.
    pub(super) fn may_try(&mut self, id: LaneId) -> bool {
        let Some(partition) = self.partitions.get_mut(&id.assignment) else {
            return false;
        };
        if !partition.watched {
            return false;
        }
        let Some(trial) = &partition.trial else {
            return true;
        };
        if trial.is_busy() || partition.trial_slot.is_some_and(|slot| slot != id.slot) {
            return false;
        }
        if trial.is_grave() && partition.trial_room.is_none() {
            let room = self.room_entered.take();
            let Some(room) = room.or_else(|| self.trial_room.enter()) else {
                let wait = || Box::pin(self.trial_room.wait()) as _;
                self.room_awaited.get_or_insert_with(wait);
                return false;
            };
            partition.trial_room = Some(room);
        }
        true
    }

    /// The lane whose turn it is in place of one that is ready: on trial events go in the order of
    /// their offsets, or next to each would be named by a commit of its own. Not while the breaker
    /// tries single events: it chooses itself, and the first may be one that always fails.
    pub(super) fn in_order_of_trial(&self, id: LaneId, now: Instant) -> LaneId {
        if self.guard.is_probing() {
            return id;
        }
        // Where no call may begin all its lanes come by, and the search for the first of them would
        // be repeated for each.
        let begins = |partition: &&Partition| {
            let tries = |trial: &Trial| !trial.is_busy();
            partition.watched
                && partition.trial_slot.is_none()
                && partition.trial.as_ref().is_some_and(tries)
        };
        let first = (self.partitions.get(&id.assignment))
            .filter(begins)
            .and_then(|partition| partition.first_slot(now));
        LaneId {
            slot: first.unwrap_or(id.slot),
            ..id
        }
    }

    /// The room is free for one of the partitions that wait for it.
    pub(super) fn on_room(&mut self, room: Option<OwnedSemaphorePermit>) {
        self.room_awaited = None;
        self.room_entered = room;
        let waits = |partition: &Partition| {
            partition.trial_room.is_none() && partition.trial.as_ref().is_some_and(Trial::is_grave)
        };
        let waiting = self
            .partitions
            .iter()
            .filter(|(_, partition)| waits(partition));
        let waiting: Vec<_> = waiting.map(|(id, _)| *id).collect();
        for id in waiting {
            self.consider_all(id, Instant::now());
        }
    }

    /// Begins the trial of the only event of `work`. `None` where it is not to be called now: it went
    /// back to its lane until it is named, or was given up.
    pub(super) fn try_event(&mut self, id: LaneId, work: Work, now: Instant) -> Option<Work> {
        let partition = self.partitions.get_mut(&id.assignment)?;
        let trial = partition.trial.as_mut()?;
        let start = trial.start(work.event(0).offset());
        partition.trial_slot = matches!(start, Start::Record(_)).then_some(id.slot);
        match start {
            Start::Call => return Some(work),
            Start::Convict(deaths) => self.convict(id, work, deaths, now),
            Start::Record(watch) => {
                partition.watched = false;
                if let Some(lane) = partition.lane(id.slot) {
                    let back = Back::Again(work.items[0]);
                    lane.give_back(&work, vec![back]);
                }
                self.positions.watch(&partition.name, watch, now);
                // It may be what is committed already.
                self.watched();
            }
        }
        None
    }

    /// The note of the call of an event that is tried alone in all of the process.
    pub(super) fn noting(&self, id: LaneId, work: &Work) -> Option<Noting> {
        let partition = self.partitions.get(&id.assignment)?;
        partition.trial_room.as_ref()?;
        Some(self.trial_room.noting(Tried {
            consumer: &self.settings().name,
            partition: &partition.name,
            offset: work.event(0).offset(),
        }))
    }

    /// Gives an event up that was present at every death.
    pub(super) fn convict(&mut self, id: LaneId, work: Work, deaths: u32, now: Instant) {
        let offset = work.event(0).offset();
        let generation = self.generation.clone();
        let context = Context {
            generation: &generation,
            now,
            now_ms: clock::now_ms(),
            dice: 0.0,
        };
        let error = format!(
            "the process died {deaths} times with this event in flight, the last time with it alone; \
             it is not run again"
        );
        tracing::error!(
            consumer = %self.settings().name, event = %assemble::describe(&work), deaths,
            "an event was in flight each time the process died; it is given up"
        );
        let answer = assemble::refused(&context, &work, Reason::Crash, error);
        self.conclude(generation, id.assignment, Some(id.slot), work, answer);
        self.came_through(id.assignment, offset, now);
        self.consider(id, now);
    }

    /// Acts on positions that were committed: partitions go on whose watch is among them.
    pub(super) fn watched(&mut self) {
        let now = Instant::now();
        let mut begin = Vec::new();
        for (id, partition) in &mut self.partitions {
            if !partition.watched && self.positions.is_watched(&partition.name) {
                partition.watched = true;
                begin.push(*id);
            }
        }
        for id in begin {
            self.leave_trial_room(id);
            self.consider_all(id, now);
        }
    }

    /// An event's call ended, or what follows from it is written. One that is tried alone has come
    /// through when both is done.
    pub(super) fn came_through(&mut self, assignment: u64, offset: u64, now: Instant) {
        let Some(partition) = self.partitions.get_mut(&assignment) else {
            return;
        };
        let Some(trial) = &mut partition.trial else {
            return;
        };
        let name = partition.name.clone();
        let alone = partition.trial_room.is_some();
        if alone && self.writer.is_writing(|writing| *writing == name) {
            partition.trial_ended = Some(offset);
            // Nothing else goes on meanwhile: the interval would be waited for at each event.
            if let Some(transactions) = self.writer.transactions() {
                transactions.hurry(now);
            }
            return;
        }
        partition.trial_ended = None;
        if !trial.came_through(offset, alone) {
            return;
        }
        if alone {
            // The room is left once it is not named any more: a death from then on is not its own.
            partition.watched = false;
            let watch = Watch::working(self.life);
            self.positions.watch(&name, watch, now);
            self.watched();
        }
        self.end_trial(assignment, now);
        self.consider_next(assignment, now);
    }

    /// The next event of a trial may begin: that of one lane, and the others would come by in vain.
    fn consider_next(&mut self, assignment: u64, now: Instant) {
        let partition = self.partitions.get(&assignment);
        let on_trial = partition.filter(|partition| partition.trial.is_some());
        match on_trial.and_then(|partition| partition.first_slot(now)) {
            Some(slot) => self.consider(LaneId { assignment, slot }, now),
            None => self.consider_all(assignment, now),
        }
    }

    /// Goes on as usual where nothing is suspected any more.
    pub(super) fn end_trial(&mut self, assignment: u64, now: Instant) {
        let Some(partition) = self.partitions.get_mut(&assignment) else {
            return;
        };
        if partition.trial.as_ref().is_some_and(Trial::is_over) {
            partition.trial = None;
            let name = partition.name.clone();
            let watch = Watch::working(self.life);
            self.positions.watch(&name, watch, now);
            tracing::info!(consumer = %self.settings().name, partition = %name, "nothing is suspected any more");
            self.consider_all(assignment, now);
        }
    }

    /// Leaves the room where nothing is tried, or named to be.
    pub(super) fn leave_trial_room(&mut self, assignment: u64) {
        if let Some(partition) = self.partitions.get_mut(&assignment)
            && !partition.trial.as_ref().is_some_and(Trial::is_named)
        {
            partition.trial_room = None;
        }
    }

    pub(super) fn consider_all(&mut self, assignment: u64, now: Instant) {
        let slots = self.partitions.get(&assignment).map_or(0, |p| p.slots());
        for slot in 0..slots {
            self.consider(LaneId { assignment, slot }, now);
        }
    }
}
