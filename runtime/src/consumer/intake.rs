//! What comes from the source: assignments, blocks of events, revocations.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::Instant;

use super::assemble::{self, Context};
use super::dead_letter::Reason;
use super::derive;
use super::partition::Partition;
use super::runner::{LaneId, Runner};
use super::status::State;
use super::trial_room::Tried;
use super::work::{Item, Work};
use crate::broker::{Assignment, SourceEvent};
use crate::clock;
use crate::config::Delivery;
use crate::decide::admission::{Load, Valve};
use crate::decide::breaker::Phase;
use crate::decide::crash::{Trial, Watch};
use crate::decide::routing;
use crate::event::{Block, EventView, TopicPartition};
use crate::metrics::Outcome;
use crate::mutation::{self, Mutation};

/// How long a revocation may wait for the units and positions of its partitions: well below the
/// session time-out, or the group would go on without us.
const REVOKE_WITHIN: Duration = Duration::from_secs(3);

impl Runner {
    /// Handles one thing that the source says.
    pub(super) async fn on_source(&mut self, event: SourceEvent) {
        match event {
            SourceEvent::Assigned(assignments) => self.assign(assignments),
            SourceEvent::Block(block) => self.on_block(block),
            SourceEvent::CaughtUp { partition, next } => self.on_caught_up(partition, next),
            SourceEvent::Revoked {
                partitions,
                lost,
                done,
            } => self.revoke(partitions, lost, done).await,
            SourceEvent::Skipped {
                partition,
                from,
                to,
            } => {
                let consumer = &self.settings().name;
                if to < from {
                    tracing::error!(%consumer, %partition, from, to, "the topic ends below the position: it was made again or cut off, and is read again from here");
                } else {
                    tracing::error!(%consumer, %partition, from, to, "retention took events before they were processed");
                }
                let mut ledger = self.ledger.lock();
                let key = (partition.topic.clone(), "lost-position");
                if !mutation::is(Mutation::GapUncounted) {
                    *ledger.skipped.entry(key).or_default() += to.saturating_sub(from);
                }
            }
            SourceEvent::Halted { partition, reason } => {
                if let Some(id) = self.assignments.get(&partition).copied()
                    && !mutation::is(Mutation::HaltIgnored)
                {
                    self.halt(id, None, reason);
                }
            }
            SourceEvent::Failed(error) => {
                let consumer = &self.settings().name;
                tracing::error!(%consumer, %error, "the broker refuses the subscription");
                self.stop(error.to_string());
            }
        }
    }

    fn assign(&mut self, assignments: Vec<Assignment>) {
        let settings = self.settings().clone();
        for Assignment {
            partition,
            progress,
            after_loss,
        } in assignments
        {
            let id = self.next_assignment;
            self.next_assignment += 1;
            tracing::info!(consumer = %settings.name, %partition, position = progress.next, "partition assigned");
            let mut state = Partition::new(
                partition.clone(),
                settings.ordering,
                settings.batch,
                settings.concurrency,
            );
            // What was claimed at most once never comes again: it kills one process.
            let watching = settings.delivery != Delivery::AtMostOnce;
            if watching {
                let in_flight = settings.in_flight.max_events;
                let in_call = progress.watch.and_then(|watch| {
                    // It may have died under another name.
                    let names = std::iter::once(&settings.name).chain(&settings.previous_names);
                    let known = names.filter_map(|consumer| {
                        let event = Tried {
                            consumer,
                            partition: &partition,
                            offset: watch.from,
                        };
                        self.trial_room.died_in_call(watch.life, event)
                    });
                    known.reduce(|one, other| one || other)
                });
                state.trial =
                    Trial::taken_up(progress.watch, self.life, in_flight, in_call, after_loss);
            }
            let watch = match &state.trial {
                // Until the first event is named nothing more is known than before.
                Some(_) => progress.watch,
                None => watching.then(|| Watch::working(self.life)),
            };
            self.positions.assigned(&partition, id, &progress, watch);
            state.watched = !watching || self.positions.is_watched(&partition);
            if state.trial.is_some() {
                tracing::warn!(consumer = %settings.name, %partition, "who had the partition died; the events that may have been in flight run one at a time");
            }
            self.partitions.insert(id, state);
            self.assignments.insert(partition, id);
        }
        if self.state == State::Starting {
            self.state = State::Running;
        }
        self.ledger.lock().rebalanced("assigned");
        let now = Instant::now();
        if self.guard.is_open() || self.paused {
            self.close_all_valves(now);
        }
        // A new partition has an open valve, and the budget may be used up by what came before it.
        self.close_valves(Some(self.next_assignment - 1), now);
        self.show(now);
    }

    /// Takes a block in: what is new and wanted goes to its lanes, the rest is settled here.
    pub(super) fn admit(&mut self, block: Arc<Block>) {
        let Some(id) = self.assignments.get(block.source()).copied() else {
            return;
        };
        if self
            .partitions
            .get(&id)
            .is_none_or(|partition| partition.halted.is_some())
        {
            return;
        }
        let now = Instant::now();
        let settings = self.settings().clone();
        let cost = block.event_cost();
        let sorted = self.sort(&block, &settings);
        let load = |events: usize| Load {
            events,
            bytes: events * cost,
        };
        {
            let admitted = sorted.wanted.len() + sorted.refused.len() + sorted.filtered;
            let mut ledger = self.ledger.lock();
            ledger.admitted(&block.source().topic, load(admitted));
            ledger.settled(Outcome::Filtered, load(sorted.filtered));
        }
        if sorted.filtered > 0 {
            self.positions.moved(sorted.filtered, now);
        }
        let all = sorted.wanted.len() == block.len();
        let in_lanes = load(sorted.wanted.len() + sorted.refused.len());
        if let Some(partition) = self.partitions.get_mut(&id) {
            partition.load.add(in_lanes);
            if let Some(trial) = &mut partition.trial {
                let wanted = sorted.wanted.iter();
                wanted.for_each(|index| trial.read(block.event(*index as usize).offset()));
            }
            if !sorted.wanted.is_empty() {
                let slots = partition.enqueue(&block, (!all).then_some(sorted.wanted));
                for slot in slots {
                    self.consider(
                        LaneId {
                            assignment: id,
                            slot,
                        },
                        now,
                    );
                }
            }
        }
        for (index, reason, error) in sorted.refused {
            self.refuse(id, &block, index, reason, error);
        }
        self.close_valves(Some(id), now);
    }

    fn sort(&mut self, block: &Arc<Block>, settings: &crate::config::Consumer) -> Sorted {
        let mut sorted = Sorted::default();
        let Some(tracker) = self.positions.tracker(block.source()) else {
            return sorted;
        };
        // What was sent back is meant for the plugin, whatever the filter says by now.
        let everything = settings.filter.conditions.is_empty()
            || settings.is_replay_topic(&block.source().topic);
        let largest = settings.limits.memory;
        let may_be_oversize = block.bytes() as u64 > largest;
        for (index, event) in block.iter().enumerate() {
            if !tracker.admit(event.offset()) {
                continue;
            }
            let refused = match may_be_oversize {
                true => oversize(&event, largest),
                false => None,
            };
            let refused = refused.or_else(|| refusal(&event, settings.limits.hops));
            if let Some((reason, error)) = refused {
                sorted.refused.push((index as u32, reason, error));
            } else if everything || routing::wants(&settings.filter, &event) {
                sorted.wanted.push(index as u32);
            } else {
                tracker.settle(event.offset());
                sorted.filtered += 1;
            }
        }
        sorted
    }

    /// Dead-letters an event that no plugin may see.
    fn refuse(
        &mut self,
        assignment: u64,
        block: &Arc<Block>,
        index: u32,
        reason: Reason,
        error: String,
    ) {
        let mut work = Work::default();
        let item = Item {
            block: 0,
            index,
            attempt: 1,
            failing_since: None,
        };
        work.push(block, item);
        let generation = self.generation.clone();
        let context = Context {
            generation: &generation,
            now: Instant::now(),
            now_ms: clock::now_ms(),
            dice: 0.0,
        };
        let answer = assemble::refused(&context, &work, reason, error);
        self.conclude(generation, assignment, None, work, answer);
    }

    pub(super) fn caught_up(&mut self, partition: &TopicPartition, next: u64) {
        let id = self.assignments.get(partition).copied();
        if let Some((id, state)) = id.and_then(|id| Some((id, self.partitions.get_mut(&id)?)))
            && let Some(trial) = &mut state.trial
        {
            trial.caught_up();
            self.end_trial(id, Instant::now());
        }
        if let Some(tracker) = self.positions.tracker(partition) {
            let before = tracker.position();
            tracker.caught_up(next);
            if tracker.position() != before {
                self.positions.moved(0, Instant::now());
            }
        }
    }

    /// Gives partitions up: finishes what is written, commits, and lets go.
    async fn revoke(
        &mut self,
        partitions: Vec<TopicPartition>,
        lost: bool,
        done: oneshot::Sender<()>,
    ) {
        let kind = if lost { "lost" } else { "revoked" };
        let consumer = self.settings().name.clone();
        self.ledger.lock().rebalanced(kind);
        let deadline = Instant::now() + REVOKE_WITHIN;
        self.kept_back.forget(&partitions);
        for partition in &partitions {
            if !lost {
                self.positions.unwatch(partition);
            }
            if let Some(id) = self.assignments.remove(partition) {
                for (_, work, witness) in self.claims.withdraw(Some(id)) {
                    witness.ended();
                    self.abandon_work(id, &work);
                }
                self.abandon_waiting(id);
                self.partitions.remove(&id);
            }
            if lost && !mutation::is(Mutation::LostKept) {
                self.positions.forget(partition);
            }
        }
        if !lost {
            while self
                .writer
                .is_writing(|partition| partitions.contains(partition))
            {
                self.transact(Instant::now(), true);
                if !self.wrote_before(deadline).await {
                    tracing::warn!(%consumer, "a revoke did not wait for the broker any longer; events in flight come again elsewhere");
                    break;
                }
            }
            self.commit_all(deadline).await;
        }
        for partition in &partitions {
            if !mutation::is(Mutation::LostKept) {
                self.positions.forget(partition);
            }
            tracing::info!(%consumer, %partition, kind, "partition given up");
        }
        self.show(Instant::now());
        // The adapter may have stopped to wait; then nobody is left to tell.
        let _ = done.send(());
    }

    /// Closes the valves that there is no room behind any more (all, where the budget is used up),
    /// after a partition was assigned or events of it were admitted.
    pub(super) fn close_valves(&mut self, changed: Option<u64>, now: Instant) {
        let total = self.ledger.lock().in_flight;
        let mut hold = Vec::new();
        let common = self
            .budget
            .common(self.partitions.values().map(|partition| partition.load));
        let everyone = !self.kept_back.is_empty()
            || self.budget.valve(total, Load::default(), common) == Valve::Hold;
        for (other, partition) in &mut self.partitions {
            let scattered = Some(*other) == changed && self.positions.is_scattered(&partition.name);
            // Of each: what one took from the common half, the others have no more.
            let full = self.budget.valve(total, partition.load, common) == Valve::Hold;
            if (everyone || full || scattered) && partition.held_since.is_none() {
                partition.held_since = Some(now);
                hold.push(partition.name.clone());
            }
        }
        if !hold.is_empty() && !mutation::is(Mutation::BudgetIgnored) {
            self.control.hold(&hold);
        }
    }

    /// Closes every valve: nothing is fetched while no call is made.
    pub(super) fn close_all_valves(&mut self, now: Instant) {
        let mut hold = Vec::new();
        for partition in self.partitions.values_mut() {
            if partition.held_since.is_none() {
                partition.held_since = Some(now);
                hold.push(partition.name.clone());
            }
        }
        if !hold.is_empty() {
            self.control.hold(&hold);
        }
    }

    /// Opens the valves of partitions that fell below their low mark.
    pub(super) fn open_valves(&mut self, now: Instant) {
        let mut ledger = self.ledger.lock();
        let open = ledger.breaker == Phase::Open;
        let paused = self.paused;
        let total = ledger.in_flight;
        let common = self
            .budget
            .common(self.partitions.values().map(|partition| partition.load));
        let mut release = Vec::new();
        for partition in self.partitions.values_mut() {
            let Some(since) = partition.held_since.filter(|_| partition.halted.is_none()) else {
                continue;
            };
            let opens = !open
                && !paused
                && self.kept_back.is_empty()
                && self.budget.valve(total, partition.load, common) == Valve::Release
                && !self.positions.is_scattered(&partition.name);
            let stood = now.saturating_duration_since(since);
            match (paused, open) {
                (true, _) => ledger.paused_for_operator += stood,
                (false, true) => ledger.paused_for_breaker += stood,
                (false, false) => ledger.paused_for_backpressure += stood,
            }
            partition.held_since = (!opens).then_some(now);
            if opens && !mutation::is(Mutation::ValveStuck) {
                release.push(partition.name.clone());
            }
        }
        drop(ledger);
        if !release.is_empty() && !matches!(self.state, State::Stopped(_) | State::Draining) {
            self.control.release(&release);
        }
    }
}

/// What becomes of the events of a block.
#[derive(Default)]
struct Sorted {
    wanted: Vec<u32>,
    refused: Vec<(u32, Reason, String)>,
    filtered: usize,
}

/// Why an event cannot cross the wall: the plugin's memory would have to hold more than it may have.
fn oversize(event: &EventView<'_>, largest: u64) -> Option<(Reason, String)> {
    let bytes = event.bytes() as u64;
    (bytes > largest).then(|| {
        let error =
            format!("it has {bytes} bytes, and limits.memory = {largest} cannot hold it: raise limits.memory");
        (Reason::Oversize, error)
    })
}

/// Why an event may not cross the wall.
fn refusal(event: &EventView<'_>, most_hops: u32) -> Option<(Reason, String)> {
    if event.record().headers_count == 0 {
        return None;
    }
    if !event.decodable() {
        let error =
            "a header's name is not 1 to 255 bytes of UTF-8; the producer is at fault".to_owned();
        return Some((Reason::Decode, error));
    }
    let hops = derive::hops(event);
    (hops > most_hops).then(|| {
        let error = format!("it came through {hops} consumers, more than limits.hops = {most_hops}: look for a loop of topics");
        (Reason::Hops, error)
    })
}
