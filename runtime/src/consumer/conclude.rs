//! What follows from calls and from what was written: units, settled offsets, halts.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::assemble::{self, Answer, Context, Fate, Unavailable};
use super::call::{Done, Trouble};
use super::dead_letter::Reason;
use super::generation::Generation;
use super::lane::Back;
use super::positions::Committed;
use super::runner::{LaneId, Runner};
use super::status::State;
use super::transactions::Transacted;
use super::unit::{Settled, Unit};
use super::work::{Item, Work};
use super::writer::{Mended, Written};
use crate::broker::PublishError;
use crate::clock;
use crate::decide::admission::Load;
use crate::decide::backoff;
use crate::metrics::Outcome;
use crate::mutation::{self, Mutation};
use crate::plugin::StartError;
use crate::records::Records;

const DEAD_LETTER_HINT: &str =
    "name a dead_letter topic for such events, or let the plugin make smaller ones";
const TOPIC_HINT: &str =
    "create the topic (or describe it in [topics.NAME]), or allow writing to it";

impl Runner {
    /// A call ended.
    pub(super) fn on_done(&mut self, id: LaneId, done: Done) {
        let now = Instant::now();
        self.count(&done);
        // One of a generation before has had its last call, and nobody asks for its advice any more.
        let current = done.generation.number == self.generation.number;
        if !current && mutation::is(Mutation::LateCallSwapsBack) {
            self.generation = done.generation.clone();
        }
        self.instances
            .give_back(done.instance.filter(|_| current), done.memory);
        done.witness.ended();
        if let Some(lane) = self.lane(id) {
            lane.busy = false;
        }
        let deadline = self.settings().limits.deadline;
        let events = done.work.len();
        let first = done.work.event(0).offset();
        match done.result {
            Ok(answer) => {
                if let Some(lane) = self.lane(id) {
                    lane.pace().answered(events, done.took, deadline);
                    lane.doubtful = answer.complaint.is_some();
                }
                self.complain(answer.complaint.as_ref());
                if current {
                    self.shadow(&done.work, &answer, done.took);
                    self.testify(id.assignment, &answer);
                    self.follow_advice(&answer, now);
                }
                self.conclude(
                    done.generation,
                    id.assignment,
                    Some(id.slot),
                    done.work,
                    answer,
                );
            }
            Err(Trouble::Call(error, answer)) => {
                let consumer = &self.settings().name;
                let what = assemble::describe(&done.work);
                let digest = done.generation.digest();
                tracing::warn!(%consumer, events = %what, %digest, %error, "a call into the plugin failed");
                if let Some(lane) = self.lane(id) {
                    lane.doubtful = true;
                    if events > 1 {
                        lane.pace().missed();
                        lane.isolate(events);
                    }
                }
                self.complain(answer.complaint.as_ref());
                if current {
                    self.testify(id.assignment, &answer);
                }
                self.conclude(
                    done.generation,
                    id.assignment,
                    Some(id.slot),
                    done.work,
                    *answer,
                );
            }
            Err(Trouble::Start(error)) => {
                if current {
                    self.unavailable = self.unavailable.saturating_add(1);
                    self.start_failed(&error, now);
                }
                let answer = Answer {
                    fates: vec![Fate::Again; events],
                    ..Answer::default()
                };
                self.conclude(
                    done.generation,
                    id.assignment,
                    Some(id.slot),
                    done.work,
                    answer,
                );
            }
        }
        self.came_through(id.assignment, first, now);
        if !mutation::is(Mutation::LaneForgotten) {
            self.consider(id, now);
        }
        self.judge(now);
    }

    /// Does what the plugin asks for beyond its events.
    fn follow_advice(&mut self, answer: &Answer, now: Instant) {
        self.unavailable = match &answer.unavailable {
            Some(unavailable) => {
                self.on_unavailable(unavailable.clone(), now);
                self.unavailable.saturating_add(1)
            }
            None => 0,
        };
        if let Some(reason) = answer.stop.clone() {
            let reason = format!("the plugin asked to halt: {reason}");
            if !self.roll_back_for(reason.clone(), now) {
                self.stop(reason);
            }
        }
    }

    fn count(&self, done: &Done) {
        let mut ledger = self.ledger.lock();
        match done.started {
            Some(Ok(took)) => {
                ledger.instantiations_ok += 1;
                ledger.init_duration.observe(took.as_secs_f64(), 1);
            }
            Some(Err(())) => ledger.instantiations_failed += 1,
            None => {}
        }
        let answer = match &done.result {
            Ok(answer) => answer,
            Err(Trouble::Call(_, answer)) => answer.as_ref(),
            Err(Trouble::Start(_)) => return,
        };
        // An event whose call could not begin comes again as it was: no attempt was made.
        let again = done.work.items.iter().filter(|item| item.attempt > 1);
        ledger.retries += again.count() as u64;
        ledger.batch_events.observe(done.work.len() as f64, 1);
        ledger.call_duration.observe(done.took.as_secs_f64(), 1);
        for (kind, times) in &answer.failures {
            ledger.failed(kind, *times);
        }
    }

    fn start_failed(&mut self, error: &StartError, now: Instant) {
        let after = match error {
            StartError::Misconfigured(reason) => {
                let reason = format!("the plugin refuses its configuration: {reason}");
                if !self.roll_back_for(reason.clone(), now) {
                    self.stop(reason);
                }
                return;
            }
            StartError::Failed(_) if self.roll_back_for(error.to_string(), now) => return,
            StartError::Unavailable(_) | StartError::Failed(_) | StartError::Exhausted(_) => {
                Duration::ZERO
            }
        };
        let reason = error.to_string();
        self.hinder_probation(&reason);
        self.wait(Unavailable { after, reason }, now);
    }

    /// No call for a while: what the plugin needs is down.
    pub(super) fn wait(&mut self, unavailable: Unavailable, now: Instant) {
        let settings = self.settings();
        let backoff = backoff::delay(&settings.retry, self.unavailable.max(1), fastrand::f64());
        let after = if unavailable.after.is_zero() {
            backoff
        } else {
            unavailable.after
        };
        let reason = &unavailable.reason;
        tracing::warn!(consumer = %settings.name, ?after, %reason, "unavailable; calls wait and no attempt is counted");
        if !matches!(self.state, State::Stopped(_) | State::Draining) {
            self.state = State::Waiting(unavailable.reason);
        }
        self.no_calls_until = Some(now + after);
    }

    /// Stops the consumer until someone acts; its membership is kept.
    pub(super) fn stop(&mut self, reason: String) {
        tracing::error!(consumer = %self.settings().name, %reason, "the consumer stops");
        let names: Vec<_> = self.assignments.keys().cloned().collect();
        self.control.hold(&names);
        for id in self.partitions.keys().copied().collect::<Vec<_>>() {
            self.abandon_waiting(id);
        }
        if self.state != State::Draining {
            self.state = State::Stopped(reason);
        }
        self.show(Instant::now());
    }

    /// Stops a partition, at the event that failed for good where it was one.
    pub(super) fn halt(&mut self, id: u64, at: Option<u64>, reason: String) {
        let Some(partition) = self.partitions.get_mut(&id) else {
            return;
        };
        // What else fails while it stands comes again when it goes on.
        if partition.halted.is_some() {
            return;
        }
        tracing::error!(
            consumer = %self.generation.settings.name, partition = %partition.name, %reason,
            "the partition halts and the others go on; mend the cause and start again, or skip the event"
        );
        self.stand(id, at, reason);
    }

    /// Lets a partition stand, whatever for; what waits in it is thrown away.
    pub(super) fn stand(&mut self, id: u64, at: Option<u64>, reason: String) {
        let Some(partition) = self.partitions.get_mut(&id) else {
            return;
        };
        partition.halted = Some(reason);
        partition.halted_at = at;
        partition.held_since.get_or_insert_with(Instant::now);
        self.control.hold(std::slice::from_ref(&partition.name));
        self.abandon_waiting(id);
        self.show(Instant::now());
    }

    /// Turns the fates of a call's events, by a generation's word, into a unit and what goes back to
    /// the lane. `slot` is `None` for events that never were in a lane.
    pub(super) fn conclude(
        &mut self,
        generation: Arc<Generation>,
        assignment: u64,
        slot: Option<usize>,
        work: Work,
        answer: Answer,
    ) {
        let halted = self
            .partitions
            .get(&assignment)
            .is_none_or(|partition| partition.halted.is_some());
        let standing = matches!(self.state, State::Stopped(_) | State::Draining);
        let Some(partition) = self
            .partitions
            .get(&assignment)
            .map(|partition| partition.name.clone())
        else {
            self.abandon(None, &work, 0..work.len());
            return;
        };
        if halted && !mutation::is(Mutation::BehindHaltSettled) {
            // What was under way when the partition halted comes after the event that it halted at.
            self.abandon(Some(assignment), &work, 0..work.len());
            return;
        }
        // With another generation than made the call, attempts count from one again.
        let current = generation.number == self.generation.number;
        let returned = |item: Item| if current { item } else { item.anew() };
        let mut settled = Vec::with_capacity(work.len());
        let mut back = Vec::new();
        let mut abandoned = Vec::new();
        let mut halt = None;
        for (index, fate) in answer.fates.iter().enumerate() {
            let item = work.items[index];
            match fate {
                Fate::Settled(outcome, reason) => {
                    settled.push(entry(&work, index, *outcome, *reason))
                }
                Fate::Lost(reason) => {
                    let (consumer, offset) = (&self.settings().name, work.event(index).offset());
                    tracing::warn!(%consumer, %partition, offset, %reason, "an event is lost (at most once)");
                    abandoned.push(index);
                }
                Fate::Halt(reason) => {
                    halt = Some((work.event(index).offset(), reason.clone()));
                    abandoned.push(index);
                }
                Fate::Kept(_) if mutation::is(Mutation::KeptSettled) => {
                    settled.push(entry(&work, index, Outcome::Dropped, None))
                }
                _ if standing || halt.is_some() || slot.is_none() => abandoned.push(index),
                Fate::Again => back.push(Back::Again(returned(item))),
                Fate::Retry(retry) => {
                    let item = Item {
                        attempt: retry.attempt,
                        failing_since: Some(retry.failing_since),
                        ..item
                    };
                    back.push(Back::Retry(returned(item), retry.at));
                }
                Fate::Kept(_) if current && generation.is_on_probation() => {
                    let failing_since = Some(item.failing_since.unwrap_or_else(Instant::now));
                    let item = Item {
                        failing_since,
                        ..item
                    };
                    back.push(Back::Kept(item));
                }
                // The version that failed it is judged already, or another one works by now.
                Fate::Kept(_) => back.push(Back::Again(item.anew())),
            }
        }
        self.abandon(Some(assignment), &work, abandoned.into_iter());
        if let Some(lane) = slot.and_then(|slot| self.lane(LaneId { assignment, slot })) {
            lane.give_back(&work, back);
        }
        let dead = settled
            .iter()
            .filter(|settled| settled.outcome == Outcome::DeadLettered)
            .count();
        let too_many = self
            .guard
            .settled(settled.len() as u64, dead as u64, Instant::now());
        if !settled.is_empty() {
            self.writer.write(Unit {
                generation,
                partition,
                assignment,
                records: Arc::new(answer.records),
                settled,
                produced: answer.produced,
                work,
            });
        }
        if let Some((at, reason)) = halt {
            self.halt(assignment, Some(at), reason);
        }
        if let Some(reason) = too_many
            && !matches!(self.state, State::Stopped(_) | State::Draining)
        {
            self.stop(reason);
        }
    }

    /// The writer has something to say.
    pub(super) fn on_written(&mut self, written: Written) {
        match written {
            Written::Unit(unit) => self.settle(&unit),
            Written::Refused(error) => self.refused(&error),
            Written::Lost(unit, error) => {
                let (consumer, partition) = (&self.settings().name, &unit.partition);
                let events = unit.settled.len();
                tracing::error!(%consumer, %partition, events, %error, "what follows from events was not written, and is not written again (at most once)");
                self.abandon_unit(&unit);
            }
            Written::Transaction(transacted) => self.transacted(transacted),
            Written::Aborted(error, took) => {
                let mut ledger = self.ledger.lock();
                ledger.commits_failed += 1;
                ledger.commit_duration.observe(took.as_secs_f64(), 1);
                tracing::warn!(consumer = %self.generation.settings.name, %error, "a transaction had no effect");
            }
        }
    }

    fn transacted(&mut self, transacted: Transacted) {
        for unit in &transacted.units {
            self.settle(unit);
        }
        self.positions.committed_with(transacted.commits);
        self.watched();
        let mut ledger = self.ledger.lock();
        ledger.commits_ok += 1;
        let took = transacted.took.as_secs_f64();
        ledger.commit_duration.observe(took, 1);
        drop(ledger);
        self.show(Instant::now());
    }

    fn settle(&mut self, unit: &Unit) {
        let now = Instant::now();
        let ours = self.positions.settle(unit, now);
        let now_ms = clock::now_ms();
        let mut total = Load::default();
        let mut ledger = self.ledger.lock();
        // Events of a unit mostly share block, outcome and age: they are counted run by run.
        let alike = |one: &Settled, other: &Settled| {
            let (one_item, other_item) = (
                &unit.work.items[one.index as usize],
                &unit.work.items[other.index as usize],
            );
            one_item.block == other_item.block
                && one.outcome == other.outcome
                && one.reason == other.reason
                && unit.work.event(one.index as usize).timestamp_ms()
                    == unit.work.event(other.index as usize).timestamp_ms()
        };
        for run in unit.settled.chunk_by(alike) {
            let (settled, events) = (&run[0], run.len());
            let index = settled.index as usize;
            let block = unit.work.block(&unit.work.items[index]);
            let load = Load {
                events,
                bytes: events * block.event_cost(),
            };
            total.add(load);
            if !ours {
                ledger.settled(Outcome::Abandoned, load);
                continue;
            }
            ledger.settled(settled.outcome, load);
            if let Some(reason) = settled.reason {
                ledger.dead_lettered(reason, events as u64);
            }
            let timestamp_ms = unit.work.event(index).timestamp_ms();
            ledger.latency.observe(
                (now_ms - timestamp_ms).max(0) as f64 / 1000.0,
                events as u64,
            );
            let waited = now
                .saturating_duration_since(block.fetched_at())
                .as_secs_f64();
            ledger.processing.observe(waited, events as u64);
        }
        if ours && let Some(last) = unit.settled.last() {
            let seconds = unit.work.event(last.index as usize).timestamp_ms() as f64 / 1000.0;
            let newest = ledger
                .last_settled
                .entry(unit.partition.topic.clone())
                .or_default();
            *newest = newest.max(seconds);
        }
        for (output, produced) in unit.generation.settings.outputs.iter().zip(&unit.produced) {
            if produced.events > 0 {
                let volume = ledger.produced.entry(output.name.clone()).or_default();
                volume.events += produced.events;
                volume.bytes += produced.bytes;
            }
        }
        drop(ledger);
        if let Some(partition) = self.partitions.get_mut(&unit.assignment) {
            partition.load.remove(total);
            if let Some(offset) = partition.trial_ended {
                self.came_through(unit.assignment, offset, now);
            }
        }
        self.open_valves(now);
    }

    pub(super) fn on_committed(&mut self, committed: &Committed) {
        let mut ledger = self.ledger.lock();
        ledger
            .commit_duration
            .observe(committed.took.as_secs_f64(), 1);
        match &committed.result {
            Ok(()) => ledger.commits_ok += 1,
            Err(error) => {
                ledger.commits_failed += 1;
                tracing::warn!(consumer = %self.generation.settings.name, %error, "commit failed");
            }
        }
        drop(ledger);
        if committed.result.is_ok() {
            self.call_claimed();
            self.watched();
        }
        self.show(Instant::now());
    }

    /// The broker refuses a record for good: its source event becomes a dead letter, or the
    /// The broker refuses a record for good: its source event becomes a dead letter, or the
    /// partition halts. Where a generation on probation made it, another may do better with the event:
    /// the partition stands until that is known.
    fn refused(&mut self, error: &PublishError) {
        let (mut halt, mut unproven) = (None, None);
        let dropped = self.writer.mend(|unit| {
            let generation = unit.generation.clone();
            let dead_letter = &generation.settings.dead_letter;
            let (index, hint) = match error {
                PublishError::Event { index, .. } => (*index, DEAD_LETTER_HINT),
                PublishError::Topic { index, .. } => (*index, TOPIC_HINT),
                PublishError::Passing(_) => return Mended::Write,
            };
            let last = unit.records.len().saturating_sub(1);
            let culprit = unit.records.get(index.min(last));
            let to_dead_letters = dead_letter
                .as_ref()
                .is_some_and(|to| to.topic == *culprit.topic());
            let offset = culprit.tag();
            let of_event = matches!(error, PublishError::Event { .. }) && !to_dead_letters;
            if of_event && generation.is_on_probation() {
                unproven = Some((unit.assignment, offset, generation));
                return Mended::Drop;
            }
            if of_event && dead_letter.is_some() {
                dead_letter_source(&generation, unit, offset, error);
                return Mended::Write;
            }
            let reason = format!("what follows from offset {offset} cannot be written: {error}");
            halt = Some((unit.assignment, offset, format!("{reason}; {hint}")));
            Mended::Drop
        });
        for unit in &dropped {
            self.abandon_unit(unit);
        }
        if let Some((assignment, at, reason)) = halt {
            self.halt(assignment, Some(at), reason);
        }
        if let Some((assignment, offset, generation)) = unproven {
            let settled = dropped.iter().flat_map(|unit| &unit.settled);
            let handled = settled.filter(|one| one.outcome != Outcome::DeadLettered);
            let handled = handled.count() as u64;
            self.await_judgement(assignment, &generation, offset, handled, error);
        }
    }

    /// Ends the events of a unit that is not written.
    pub(super) fn abandon_unit(&mut self, unit: &Unit) {
        let indices = unit.settled.iter().map(|settled| settled.index as usize);
        self.abandon(Some(unit.assignment), &unit.work, indices);
    }

    /// Ends the events of a batch that is not called.
    pub(super) fn abandon_work(&mut self, assignment: u64, work: &Work) {
        self.abandon(Some(assignment), work, 0..work.len());
    }

    /// Ends events without settling them: they come again to whoever reads the partition next.
    fn abandon(
        &mut self,
        assignment: Option<u64>,
        work: &Work,
        indices: impl Iterator<Item = usize>,
    ) {
        let mut load = Load::default();
        for index in indices {
            load.add(Load {
                events: 1,
                bytes: work.block(&work.items[index]).event_cost(),
            });
        }
        if !mutation::is(Mutation::PermitLost) {
            self.ledger.lock().settled(Outcome::Abandoned, load);
        }
        if let Some(partition) = assignment.and_then(|id| self.partitions.get_mut(&id)) {
            partition.load.remove(load);
        }
    }

    /// Abandons what waits in the lanes of a partition.
    pub(super) fn abandon_waiting(&mut self, id: u64) {
        if let Some(partition) = self.partitions.get_mut(&id) {
            let load = partition.clear();
            partition.load.remove(load);
            self.ledger.lock().settled(Outcome::Abandoned, load);
        }
    }

    pub(super) fn lane(&mut self, id: LaneId) -> Option<&mut super::lane::Lane> {
        self.partitions.get_mut(&id.assignment)?.lane(id.slot)
    }
}

fn entry(work: &Work, index: usize, outcome: Outcome, reason: Option<Reason>) -> Settled {
    Settled {
        offset: work.event(index).offset(),
        index: index as u32,
        outcome,
        reason,
    }
}

/// Takes the outputs of one source out of a unit and dead-letters the source instead.
fn dead_letter_source(generation: &Generation, unit: &mut Unit, offset: u64, error: &PublishError) {
    let Some(settled) = unit
        .settled
        .iter_mut()
        .find(|settled| settled.offset == offset)
    else {
        return;
    };
    let mut records = Records::new();
    for record in unit.records.iter().filter(|record| record.tag() != offset) {
        records.push_view(&record);
    }
    let mut work = Work::default();
    let item = unit.work.items[settled.index as usize];
    work.push(unit.work.block(&item), item);
    let context = Context {
        generation,
        now: Instant::now(),
        now_ms: clock::now_ms(),
        dice: 0.0,
    };
    let answer = assemble::refused(&context, &work, Reason::Undeliverable, error.to_string());
    if !mutation::is(Mutation::RefusedDropped) {
        records.append_all(&answer.records);
    }
    settled.outcome = Outcome::DeadLettered;
    settled.reason = Some(Reason::Undeliverable);
    unit.records = Arc::new(records);
}
