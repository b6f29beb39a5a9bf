//! The loop of one consumer.
//!
//! ```text
//!            ┌──────────────── one task ─────────────────┐
//!  calls ───▶│ done: fates, lanes, units                 │
//!  Sink ────▶│ written: settle   committed: next commit  │──▶ dispatch: ready lane + instance ─▶ call
//!  timers ──▶│ retries, commits, ticks                   │
//!  Source ──▶│ intake: assign, admit, revoke             │
//!            └───────────────────────────────────────────┘
//! ```

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use futures::future::BoxFuture;
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::call::{self, Call, Done};
use super::claims::Claims;
use super::commands::{self, Command, Commander};
use super::generation::Generation;
use super::guard::{Guard, Witness};
use super::instances::Instances;
use super::kept_back::KeptBack;
use super::outlet::Outlet;
use super::partition::Partition;
use super::positions::Positions;
use super::probation::OnProbation;
use super::shadow::{self, Shadow};
use super::status::{PartitionStatus, SharedStatus, State};
use super::trial_room::TrialRoom;
use super::work::Work;
use crate::broker::{Control, Session, Source};
use crate::config::{self, Batch, Delivery};
use crate::decide::admission::Budget;
use crate::event::TopicPartition;
use crate::metrics::{Lag, SharedLedger};
use crate::mutation::{self, Mutation};
use crate::plugin::Instance;

/// How often lag, status and the age of events are brought up to date.
const TICK: Duration = Duration::from_millis(250);

/// A lane: its partition's assignment and its slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LaneId {
    pub assignment: u64,
    pub slot: usize,
}

/// What a consumer runs with.
pub struct Parts {
    pub generation: Arc<Generation>,
    pub session: Session,
    pub ledger: SharedLedger,
    pub status: SharedStatus,
    /// An instance that the deploy started to try the plugin.
    pub first_instance: Option<Box<dyn Instance>>,
}

/// One consumer at work; see the module's picture.
pub struct Runner {
    pub(super) generation: Arc<Generation>,
    pub(super) source: Box<dyn Source>,
    pub(super) control: Arc<dyn Control>,
    pub(super) writer: Outlet,
    pub(super) claims: Claims,
    pub(super) trial_room: Arc<TrialRoom>,
    /// Ends when the room is free for one of the partitions that wait for it.
    pub(super) room_awaited: Option<BoxFuture<'static, Option<OwnedSemaphorePermit>>>,
    /// The room, for the first of them that may begin.
    pub(super) room_entered: Option<OwnedSemaphorePermit>,
    /// Tells this process's watches from those of before.
    pub(super) life: u32,
    pub(super) positions: Positions,
    pub(super) budget: Budget,
    pub(super) kept_back: KeptBack,
    pub(super) instances: Instances,
    pub(super) calls: JoinSet<(LaneId, Done)>,
    pub(super) partitions: BTreeMap<u64, Partition>,
    pub(super) assignments: BTreeMap<TopicPartition, u64>,
    pub(super) next_assignment: u64,
    ready: VecDeque<LaneId>,
    /// When calls may begin that breaker or rate keep back.
    pub(super) room_due: Option<Instant>,
    queued: HashSet<LaneId>,
    pub(super) wakes: BinaryHeap<Reverse<(Instant, LaneId)>>,
    pub(super) guard: Guard,
    /// A generation that is tried on live events before it takes over.
    pub(super) shadow: Option<Shadow>,
    /// How the generation proves itself, where it has to.
    pub(super) probation: Option<OnProbation>,
    /// No instance can be started, or (without a breaker) what the plugin needs is down: no call
    /// before this time.
    pub(super) no_calls_until: Option<Instant>,
    /// How often in a row that happened.
    pub(super) unavailable: u32,
    pub(super) state: State,
    /// Whether an operator lets it stand.
    pub(super) paused: bool,
    /// Partitions that are to be given up and taken again.
    pub(super) retaking: Vec<TopicPartition>,
    pub(super) ledger: SharedLedger,
    pub(super) status: SharedStatus,
    next_tick: Instant,
    commander: Commander,
    commands: mpsc::Receiver<Command>,
}

impl Runner {
    /// A consumer that has joined its group and has no partition yet.
    pub fn new(parts: Parts) -> Self {
        let settings = &parts.generation.settings;
        let sink = parts.session.sink;
        let mut instances = Instances::new(settings.concurrency as usize, settings.limits.memory);
        if let Some(instance) = parts.first_instance {
            instances.add(instance);
        }
        {
            let mut ledger = parts.ledger.lock();
            ledger.memory_limit_bytes = settings.limits.memory;
            ledger.digest = parts.generation.digest().clone();
            ledger.generation = parts.generation.number;
        }
        let (commander, commands) = commands::channel();
        let trial_room = TrialRoom::unnoted();
        Self {
            commander,
            commands,
            source: parts.session.source,
            control: parts.session.control,
            writer: Outlet::new(sink.clone(), settings),
            claims: Claims::default(),
            life: trial_room.life(),
            trial_room,
            room_awaited: None,
            room_entered: None,
            positions: Positions::new(sink, settings.commit),
            budget: Budget::new(settings.in_flight),
            kept_back: KeptBack::default(),
            instances,
            calls: JoinSet::new(),
            partitions: BTreeMap::new(),
            assignments: BTreeMap::new(),
            next_assignment: 1,
            ready: VecDeque::new(),
            room_due: None,
            queued: HashSet::new(),
            wakes: BinaryHeap::new(),
            guard: Guard::new(settings, Instant::now()),
            shadow: None,
            probation: None,
            no_calls_until: None,
            unavailable: 0,
            state: State::Starting,
            paused: false,
            retaking: Vec::new(),
            ledger: parts.ledger,
            status: parts.status,
            next_tick: Instant::now(),
            generation: parts.generation,
        }
    }

    /// Shares the room for trials with the other consumers of the process.
    pub fn sharing(mut self, trial_room: Arc<TrialRoom>) -> Self {
        self.life = trial_room.life();
        self.trial_room = trial_room;
        self
    }

    /// Reaches the consumer while it works.
    pub fn commander(&self) -> Commander {
        self.commander.clone()
    }

    /// The consumer's settings.
    pub(super) fn settings(&self) -> &Arc<config::Consumer> {
        &self.generation.settings
    }

    /// Works until `drain` is sent or dropped, then drains until the deadline that it carries.
    ///
    /// # Errors
    /// Only for a bug of the host: a call that panicked. Its events come again after a restart.
    pub async fn run(mut self, mut drain: oneshot::Receiver<Instant>) -> anyhow::Result<()> {
        loop {
            self.retake().await;
            self.take_up();
            self.dispatch();
            // Who could not begin after all asks for it again.
            self.room_entered = None;
            self.transact(Instant::now(), false);
            let wake = self.next_wake();
            tokio::select! {
                biased;
                deadline = &mut drain => {
                    let deadline = deadline.unwrap_or_else(|_| Instant::now());
                    return self.drain(deadline).await;
                }
                Some(done) = self.calls.join_next(), if !self.calls.is_empty() => {
                    let (id, done) = done.context("a call into a plugin panicked in the host")?;
                    self.on_done(id, done);
                }
                written = self.writer.next() => self.on_written(written),
                committed = self.positions.committed() => self.on_committed(&committed),
                room = entered(&mut self.room_awaited) => self.on_room(room),
                compared = shadow::ended(&mut self.shadow) => self.on_shadow(compared),
                () = tokio::time::sleep_until(wake) => self.on_time(Instant::now()),
                Some(command) = self.commands.recv() => self.on_command(command).await,
                event = self.source.next() => self.on_source(event).await,
            }
        }
    }

    /// Starts calls while lanes are ready and instances are to be had.
    fn dispatch(&mut self) {
        let now = Instant::now();
        self.follow_breaker(now);
        if matches!(self.state, State::Stopped(_) | State::Draining)
            || self.no_calls_until.is_some()
            || self.paused && !mutation::is(Mutation::PauseIgnored)
            || self.positions.is_far_ahead()
        {
            return;
        }
        let settings = self.settings().clone();
        while self.instances.has_room(self.claims.len())
            && self.writer.queued_bytes() < settings.in_flight.max_bytes
        {
            let Some(id) = self.next_ready() else {
                break;
            };
            self.queued.remove(&id);
            // The other lanes of its partition are considered again when this one came through.
            let id = self.in_order_of_trial(id, now);
            let Some(partition) = self.partitions.get_mut(&id.assignment) else {
                continue;
            };
            if partition.halted.is_some() || !self.may_try(id) {
                continue;
            }
            let Some(partition) = self.partitions.get_mut(&id.assignment) else {
                continue;
            };
            let on_trial = partition.trial.is_some();
            let Some(lane) = partition.lane(id.slot) else {
                continue;
            };
            let Some(room) = self.guard.room(now) else {
                self.leave_trial_room(id.assignment);
                self.room_due = self.guard.due(now);
                self.queued.insert(id);
                self.ready.push_front(id);
                break;
            };
            let most = if on_trial { 1 } else { room.events };
            let limits = Batch {
                max_events: settings.batch.max_events.min(most),
                ..settings.batch
            };
            let work = match lane.ready(now) {
                true => lane.take(now, limits),
                false => Work::default(),
            };
            if work.is_empty() {
                self.guard.unused(room);
                self.leave_trial_room(id.assignment);
                // Everything that waits is held: its time must be noted, or the lane sleeps on.
                self.consider(id, now);
                if on_trial {
                    self.consider_all(id.assignment, now);
                }
                continue;
            }
            let work = match on_trial {
                true => self.try_event(id, work, now),
                false => Some(work),
            };
            let Some(work) = work else {
                self.guard.unused(room);
                continue;
            };
            if let Some(lane) = self.lane(id) {
                lane.busy = true;
            }
            let witness = self.guard.begin(room, id.assignment, work.len());
            match settings.delivery {
                Delivery::AtMostOnce if mutation::is(Mutation::CalledUnclaimed) => {
                    self.call(id, work, witness);
                }
                Delivery::AtMostOnce => self.claims.add(id, work, witness),
                Delivery::AtLeastOnce | Delivery::ExactlyOnce => self.call(id, work, witness),
            }
        }
        self.claim(now);
    }

    fn call(&mut self, id: LaneId, work: Work, witness: Witness) {
        let call = Call {
            generation: self.generation.clone(),
            borrowed: self.instances.borrow(),
            noting: self.noting(id, &work),
            work,
            witness,
        };
        self.calls.spawn(async move { (id, call::run(call).await) });
    }

    /// Commits the positions behind the batches that wait for it (at most once).
    fn claim(&mut self, now: Instant) {
        if self.claims.len() == 0 || self.positions.is_committing() || self.claims.is_claiming() {
            return;
        }
        for (id, work, _) in self.claims.claim() {
            if let Some(partition) = self.partitions.get(&id.assignment) {
                self.positions.claim(&partition.name, work, now);
            }
        }
        self.positions.commit();
        if !self.positions.is_committing() {
            // They were claimed before, and the plugin did not touch them.
            self.call_claimed();
        }
    }

    /// Calls the plugin for what is claimed. Of a partition that was given up meanwhile the commit may
    /// have come too late, and then someone else sees its events.
    pub(super) fn call_claimed(&mut self) {
        for (id, work, witness) in self.claims.take() {
            if self.partitions.contains_key(&id.assignment) || mutation::is(Mutation::GivenUpCalled)
            {
                self.call(id, work, witness);
            } else {
                witness.ended();
                self.abandon_work(id.assignment, &work);
            }
        }
    }

    /// Begins a transaction where one is due, or with whatever waits (exactly once).
    pub(super) fn transact(&mut self, now: Instant, at_once: bool) {
        let Some(transactions) = self.writer.transactions() else {
            return;
        };
        let is_due = |at: Option<Instant>| at.is_some_and(|at| at <= now);
        let due = is_due(transactions.due()) || is_due(self.positions.commit_due());
        if !transactions.may_begin(now) || !(due || at_once) {
            return;
        }
        let positions = &mut self.positions;
        let gone = transactions.forget(|unit| positions.owns(&unit.partition, unit.assignment));
        let units = transactions.take();
        let commits = positions.after(&units);
        positions.taken_along();
        if !units.is_empty() || !commits.is_empty() {
            transactions.begin(units, commits);
        }
        for unit in gone {
            self.abandon_unit(&unit);
        }
    }

    /// The lane whose turn it is. While the breaker tries single events, one that has not failed;
    /// one that has only by itself, or its failure would end the others' trial.
    fn next_ready(&mut self) -> Option<LaneId> {
        if !self.guard.is_probing() {
            return self.ready.pop_front();
        }
        let partitions = &mut self.partitions;
        let fresh = self.ready.iter().position(|id| {
            let partition = partitions.get_mut(&id.assignment);
            let lane = partition.and_then(|partition| partition.lane(id.slot));
            lane.is_none_or(|lane| !lane.doubtful)
        });
        match fresh {
            Some(fresh) => self.ready.remove(fresh),
            // Nor while a partition is about to go on with one that has not failed.
            None if self.calls.is_empty() && partitions.values().all(|p| p.watched) => {
                self.ready.pop_front()
            }
            None => None,
        }
    }

    /// Puts a lane into the queue of those that want a call, or notes when it will.
    pub(super) fn consider(&mut self, id: LaneId, now: Instant) {
        let Some(partition) = self.partitions.get_mut(&id.assignment) else {
            return;
        };
        let Some(lane) = partition.lane(id.slot) else {
            return;
        };
        if lane.ready(now) {
            if self.queued.insert(id) {
                self.ready.push_back(id);
            }
        } else if !lane.busy
            && let Some(at) = lane.wake_at()
            && !mutation::is(Mutation::RetryTimeForgotten)
        {
            self.wakes.push(Reverse((at, id)));
        }
    }

    fn next_wake(&self) -> Instant {
        let mut wake = self.next_tick;
        if let Some(Reverse((at, _))) = self.wakes.peek() {
            wake = wake.min(*at);
        }
        if let Some(at) = self.commit_due() {
            wake = wake.min(at);
        }
        for at in [self.no_calls_until, self.room_due].into_iter().flatten() {
            wake = wake.min(at);
        }
        wake
    }

    /// When the positions, or units with them, are to be committed.
    fn commit_due(&self) -> Option<Instant> {
        let Outlet::Atomic(transactions) = &self.writer else {
            return self.positions.commit_due();
        };
        // Not a time in the past while none may begin: it would wake the loop again and again.
        let positions = self
            .positions
            .commit_due()
            .filter(|_| !transactions.is_running())
            .map(|due| transactions.not_sooner(due));
        [transactions.due(), positions].into_iter().flatten().min()
    }

    fn on_time(&mut self, now: Instant) {
        while let Some(Reverse((at, id))) = self.wakes.peek().copied()
            && at <= now
        {
            self.wakes.pop();
            self.consider(id, now);
        }
        // Here and not where calls begin: a time that stays in the past would wake the loop at once,
        // again and again, while calls wait for something else.
        if self.no_calls_until.is_some_and(|until| until <= now) {
            self.no_calls_until = None;
            self.go_on(now);
        }
        self.room_due = self.room_due.filter(|due| *due > now);
        if matches!(self.writer, Outlet::Stepwise(_))
            && self.positions.commit_due().is_some_and(|at| at <= now)
        {
            self.positions.commit();
            // Nothing is left to commit where the positions of what is claimed were lost, or were
            // committed after all.
            if self.claims.is_claiming() && !self.positions.is_committing() {
                self.call_claimed();
            }
        }
        if self.next_tick <= now {
            self.next_tick = now + TICK;
            self.open_valves(now);
            self.judge(now);
            self.end_shadow_in_time(now);
            self.show(now);
        }
    }

    /// Whether a call could begin.
    pub(super) fn has_ready_lanes(&self) -> bool {
        !self.ready.is_empty()
    }

    /// Brings status, lag and gauges up to date.
    pub(super) fn show(&mut self, now: Instant) {
        for (name, end) in self.control.ends() {
            let partition = self
                .assignments
                .get(&name)
                .and_then(|id| self.partitions.get_mut(id));
            if let Some(partition) = partition {
                partition.end = Some(end);
            }
        }
        let now_ms = crate::clock::now_ms();
        let positions: BTreeMap<TopicPartition, u64> = self
            .positions
            .all()
            .map(|(name, at)| (name.clone(), at))
            .collect();
        let mut ledger = self.ledger.lock();
        ledger.lag.clear();
        ledger.lag_seconds.clear();
        let mut shown = BTreeMap::new();
        for partition in self.partitions.values_mut() {
            let position = positions.get(&partition.name).copied().unwrap_or(0);
            if let Some(end) = partition.end {
                let events = end.saturating_sub(position);
                ledger.lag.insert(partition.name.clone(), Lag { events });
            }
            let age = partition
                .oldest_unsettled_ms(position)
                .map_or(0.0, |oldest| (now_ms - oldest).max(0) as f64 / 1000.0);
            let seconds = ledger
                .lag_seconds
                .entry(partition.name.topic.clone())
                .or_default();
            *seconds = seconds.max(age);
            let status = PartitionStatus {
                position,
                end: partition.end,
                halted: partition.halted.clone(),
                halted_at: partition.halted_at,
                on_trial: partition.trial.is_some(),
            };
            shown.insert(partition.name.clone(), status);
        }
        ledger.assigned_partitions = self.partitions.len() as u64;
        ledger.halted_partitions = self
            .partitions
            .values()
            .filter(|partition| partition.halted.is_some())
            .count() as u64;
        ledger.instances = self.instances.count() as u64;
        ledger.memory_bytes = self.instances.memory();
        let mut status = self.status.lock();
        status.state = match &self.state {
            State::Running | State::Waiting(_) if self.paused => State::Paused,
            state => state.clone(),
        };
        status.partitions = shown;
        status.in_flight = ledger.in_flight.events;
        status.generation = self.generation.number;
        status.digest = self.generation.digest().clone();
        status.probation = self.probation.is_some();
        status.alive_at = now;
    }

    /// Commits until everything settled is committed, or `deadline` has passed; false then.
    pub(super) async fn commit_all(&mut self, deadline: Instant) -> bool {
        if matches!(self.writer, Outlet::Stepwise(_)) {
            let done = self.positions.commit_all(deadline).await;
            if done {
                self.call_claimed();
                self.watched();
            }
            return done;
        }
        loop {
            self.transact(Instant::now(), true);
            if !self.writer.is_writing(|_| true) && self.positions.are_committed() {
                return true;
            }
            if !self.wrote_before(deadline).await {
                return false;
            }
        }
    }

    /// Waits for what happens next to the units, or until a transaction that was aborted may be made
    /// again; false where the deadline has passed before.
    pub(super) async fn wrote_before(&mut self, deadline: Instant) -> bool {
        let transactions = self.writer.transactions();
        let due = transactions.and_then(|transactions| transactions.due());
        let wake = due.unwrap_or(deadline).min(deadline);
        match tokio::time::timeout_at(wake, self.writer.next()).await {
            Ok(written) => self.on_written(written),
            Err(_) => return wake < deadline,
        }
        true
    }

    /// Ends in the order of SEMANTICS: admission, calls, units, positions, membership.
    async fn drain(mut self, deadline: Instant) -> anyhow::Result<()> {
        self.state = State::Draining;
        self.commands.close();
        self.room_awaited = None;
        self.shadow = None;
        let names: Vec<_> = self.assignments.keys().cloned().collect();
        self.control.hold(&names);
        for id in self.partitions.keys().copied().collect::<Vec<_>>() {
            self.abandon_waiting(id);
        }
        for (id, work, witness) in self.claims.withdraw(None) {
            witness.ended();
            self.abandon_work(id.assignment, &work);
        }
        self.show(Instant::now());
        let finished = async {
            while !self.calls.is_empty()
                || self.writer.is_writing(|_| true)
                || self.claims.is_claiming()
            {
                self.transact(Instant::now(), self.calls.is_empty());
                let wake = self.next_wake();
                tokio::select! {
                    biased;
                    Some(done) = self.calls.join_next(), if !self.calls.is_empty() => {
                        let (id, done) = done.context("a call into a plugin panicked in the host")?;
                    self.on_done(id, done);
                    }
                    written = self.writer.next() => self.on_written(written),
                    committed = self.positions.committed() => self.on_committed(&committed),
                    () = tokio::time::sleep_until(wake) => self.on_time(Instant::now()),
                }
            }
            anyhow::Ok(())
        };
        match tokio::time::timeout_at(deadline, finished).await {
            Ok(result) => result?,
            Err(_) => tracing::warn!(
                consumer = %self.settings().name,
                calls = self.calls.len(),
                "the time to drain is over; what is in flight is abandoned and comes again"
            ),
        }
        self.calls.shutdown().await;
        for name in &names {
            self.positions.unwatch(name);
        }
        if !self.commit_all(deadline).await {
            tracing::warn!(
                consumer = %self.settings().name,
                "the last positions were not committed in time; some events come again"
            );
        }
        self.show(Instant::now());
        self.instances.clear();
        self.source.close().await;
        let mut status = self.status.lock();
        status.state = State::Ended;
        Ok(())
    }
}

/// The end of the wait for the room; waits for ever where there is none. Dropping the future loses
/// nothing.
async fn entered(
    awaited: &mut Option<BoxFuture<'static, Option<OwnedSemaphorePermit>>>,
) -> Option<OwnedSemaphorePermit> {
    match awaited {
        Some(awaited) => awaited.await,
        None => std::future::pending().await,
    }
}
