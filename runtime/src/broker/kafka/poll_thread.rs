//! The thread that owns a membership: it never blocks on the runtime, and always polls.
//!
//! ```text
//! main queue ─▶ demands of the group ─▶ rebalance ─▶ outbox (Assigned, Revoked)
//! partition queues ─▶ batch ─▶ blocks ──────────────▶ outbox (Block, CaughtUp), while it has room
//! commit queue ─▶ reports ─▶ callers          mailbox ─▶ hold, release, commit, close
//! ```
//! All of them wake it; without a wake-up it looks around every [`TICK`]. Partitions take turns, a
//! batch at a time, so that a long queue does not hold the others up.

use std::ops::Bound;
use std::sync::Arc;
use std::time::Duration;

use rdkafka::consumer::Consumer;
use rdkafka::error::{KafkaError, KafkaResult};
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::bell::Bell;
use super::client::FEW_PARTITIONS;
use super::commit::Committer;
use super::errors::{code_error, refuses_membership};
use super::first_start::{self, Found};
use super::member::{Member, keep, list_of, partitions_of};
use super::partitions::{self, BLOCK_EVENTS, Owned, Partitions};
use super::predecessors::Predecessors;
use super::raw::{self, MessageBatch, Queue};
use super::rebalance::Turn;
use super::renewal::{self, MakeMember};
use super::source::{Command, Ends, Mailbox};
use super::watch::{self, Watcher};
use crate::broker::outbox::Outbox;
use crate::broker::wake::Wake;
use crate::broker::{BrokerError, SourceEvent, Subscription};
use crate::decide::admission::Load;
use crate::decide::reminder::Reminder;
use crate::event::TopicPartition;

/// How long the thread sleeps at most.
const TICK: Duration = Duration::from_millis(250);
/// How often it is looked whether a group before still has members.
const SUCCESSION_TICK: Duration = Duration::from_secs(1);
/// How often a rebalance that waits for the runtime is looked at.
const REVOKE_TICK: Duration = Duration::from_millis(5);
/// How long a request to the broker may hold the thread up.
pub(super) const REQUEST_WAIT: Duration = Duration::from_secs(3);
/// Messages taken at once: a batch of one partition.
const BATCH: usize = 2 * BLOCK_EVENTS;
/// Events of the main queue served in one go.
const MAIN_EVENTS: usize = 256;

/// Everything that the thread works with.
pub(super) struct PollThread {
    // Queues stand before the member: they go first.
    pub(super) partitions: Partitions,
    pub(super) commits: Queue,
    pub(super) main: Queue,
    batch: MessageBatch,
    /// Whose turn it is to hand over.
    turn_of: Option<TopicPartition>,
    pub(super) member: Arc<Member>,
    pub(super) subscription: Arc<Subscription>,
    pub(super) outbox: Arc<Outbox>,
    mailbox: Arc<Mailbox>,
    pub(super) ends: Arc<Ends>,
    pub(super) wake: Arc<Wake>,
    pub(super) committer: Committer,
    pub(super) turn: Option<Turn>,
    /// Partitions to take up anew, since the broker no longer has their position.
    pub(super) lost: Vec<TopicPartition>,
    pub(super) retry_lost_at: Instant,
    /// Partitions to give up and take again.
    pub(super) retaken: Vec<TopicPartition>,
    pub(super) found: Option<Found>,
    /// How many partitions the topics had when the group was looked up first.
    pub(super) partitions_seen: usize,
    pub(super) make_member: MakeMember,
    pub(super) predecessors: Predecessors,
    /// Since when the members of a group before are waited for.
    waits_for_others: Option<Reminder>,
    /// When the group took us for dead last.
    pub(super) session_lost: Option<Instant>,
    failed: bool,
    pub(super) watcher: Option<Watcher>,
    next_tick: Instant,
}

/// Who is in the group, who could take its place, and who was there before.
pub(super) struct Succession {
    pub(super) member: Arc<Member>,
    pub(super) make_member: MakeMember,
    pub(super) predecessors: Predecessors,
}

impl PollThread {
    /// Prepares the queues; `None` where the client has none, which a consumer always has.
    pub(super) fn new(
        succession: Succession,
        subscription: Arc<Subscription>,
        outbox: Arc<Outbox>,
        mailbox: Arc<Mailbox>,
        ends: Arc<Ends>,
        wake: Arc<Wake>,
    ) -> Option<Self> {
        let Succession {
            member,
            make_member,
            predecessors,
        } = succession;
        let (commits, main) = queues(&member, &wake)?;
        let now = Instant::now();
        Some(Self {
            partitions: Partitions::new(),
            commits,
            main,
            batch: MessageBatch::new(BATCH),
            turn_of: None,
            member,
            subscription,
            outbox,
            mailbox,
            ends,
            wake,
            committer: Committer::default(),
            turn: None,
            lost: Vec::new(),
            retry_lost_at: now,
            retaken: Vec::new(),
            found: None,
            partitions_seen: 0,
            make_member,
            predecessors,
            waits_for_others: None,
            session_lost: None,
            failed: false,
            watcher: None,
            next_tick: now,
        })
    }

    /// Polls until told to close.
    pub(super) fn run(mut self) {
        let closed = loop {
            let now = Instant::now();
            let more = match self.pass(now) {
                Ok(more) => more,
                Err(reply) => break reply,
            };
            if !more {
                let waits = matches!(self.turn, Some(Turn::Revoke { .. }));
                self.wake.wait(if waits { REVOKE_TICK } else { TICK });
            }
        };
        self.leave();
        drop(closed);
    }

    /// Serves everything once; whether more is known to wait. `Err` is the wish to close.
    fn pass(&mut self, now: Instant) -> Result<bool, Option<oneshot::Sender<()>>> {
        for command in self.mailbox.take() {
            self.obey(command, now)?;
        }
        if self.found.is_none() {
            self.begin(now);
            return Ok(false);
        }
        self.serve_main();
        self.serve_group(now);
        self.retake();
        self.serve_commits();
        let more = self.fetch();
        self.take_up_lost(now);
        if now >= self.next_tick {
            self.next_tick = now + TICK;
            self.tick(now);
        }
        Ok(more)
    }

    /// Settles where a new group starts, then joins it. Until the broker answers nothing else can
    /// be done.
    fn begin(&mut self, now: Instant) {
        if now < self.next_tick {
            return;
        }
        match self.settle() {
            Ok(Found::InUse { group, members }) => {
                let now = Instant::now();
                self.next_tick = now + SUCCESSION_TICK;
                let first = self.waits_for_others.is_none();
                let reminder = self
                    .waits_for_others
                    .get_or_insert_with(|| Reminder::new(now));
                if reminder.due(now).is_some() || first {
                    tracing::warn!(
                        consumer = &*self.subscription.consumer,
                        members,
                        "nothing is consumed yet: group {group} has members, and this consumer goes \
                         on where they stop. Rename it in every runtime, or stop those that have \
                         the old name; one that was killed is missed after its session time-out"
                    );
                }
            }
            Ok(found) => {
                self.found = Some(found);
                // Until now it was not known how much each partition may fetch ahead.
                if self.partitions_seen > FEW_PARTITIONS
                    && let Err(error) = self.replace_member()
                {
                    self.fail(error);
                }
                self.join();
            }
            Err(error) => {
                if let Some(code) = error
                    .rdkafka_error_code()
                    .filter(|code| refuses_membership(*code))
                {
                    self.fail(code_error(
                        &format!("group {}", self.subscription.group),
                        code,
                    ));
                }
                tracing::debug!(
                    group = &*self.subscription.group,
                    "the group cannot be looked up yet: {error}"
                );
                self.next_tick = Instant::now() + TICK;
            }
        }
    }

    fn settle(&mut self) -> KafkaResult<Found> {
        let partitions =
            first_start::partitions_of(&self.member, &self.subscription, REQUEST_WAIT)?;
        self.partitions_seen = partitions.len();
        first_start::settle(
            &self.member,
            &self.subscription,
            &partitions,
            &self.predecessors,
            &self.commits,
            REQUEST_WAIT,
        )
    }

    /// Joins the group.
    pub(super) fn join(&mut self) {
        if watch::changes(&self.subscription) {
            self.watch();
        } else {
            self.subscribe(&watch::names(&self.subscription, std::iter::empty()));
        }
    }

    fn obey(&mut self, command: Command, now: Instant) -> Result<(), Option<oneshot::Sender<()>>> {
        match command {
            Command::Hold(partitions) => self.hold(&partitions, now),
            Command::Release(partitions) => self.release(&partitions),
            Command::Commit(commits, reply) => {
                let owned = &self.partitions;
                self.committer
                    .add(commits, reply, |partition| owned.contains_key(partition));
            }
            Command::Retake(partitions) => self.retaken.extend(partitions),
            Command::Topics(names) => self.subscribe(&names),
            Command::Close(reply) => return Err(reply),
        }
        Ok(())
    }

    pub(super) fn watch(&mut self) {
        let started = Watcher::start(
            self.member.clone(),
            self.subscription.clone(),
            self.mailbox.clone(),
        );
        match started {
            Ok(watcher) => self.watcher = Some(watcher),
            Err(error) => self.fail(BrokerError::Refused(format!(
                "consumer {} cannot watch its topics: {error}",
                self.subscription.consumer
            ))),
        }
    }

    pub(super) fn subscribe(&mut self, names: &[String]) {
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        if names.is_empty() {
            self.member.unsubscribe();
        } else if let Err(error) = self.member.subscribe(&names) {
            self.fail(BrokerError::Refused(format!(
                "consumer {} cannot subscribe to {}: {error}",
                self.subscription.consumer,
                names.join(", ")
            )));
        }
    }

    /// The consumer's own events: rebalances, errors, log lines.
    fn serve_main(&mut self) {
        for _ in 0..MAIN_EVENTS {
            if self.main.len() == 0 {
                return;
            }
            let problem = match self.member.poll(Duration::ZERO) {
                None => continue,
                Some(Ok(message)) => {
                    // Never seen: each partition's queue stands alone before it is assigned. If it
                    // does happen, the message is fetched again rather than lost.
                    use rdkafka::Message;
                    let number = u32::try_from(message.partition()).unwrap_or(u32::MAX);
                    let partition = TopicPartition::new(message.topic(), number);
                    if let Some(owned) = self.partitions.get_mut(&partition) {
                        owned.astray = true;
                        owned.doubtful = true;
                    }
                    self.lost.push(partition);
                    continue;
                }
                Some(Err(error)) => error,
            };
            let fatal = matches!(problem, KafkaError::MessageConsumptionFatal(_));
            match problem.rdkafka_error_code() {
                Some(code) if renewal::replaces(code, self.session_lost, Instant::now()) => {
                    if let Err(error) = self.renew() {
                        self.fail(error);
                    }
                    return;
                }
                Some(code) if fatal || refuses_membership(code) => {
                    let what = format!("consumer {}", self.subscription.consumer);
                    self.fail(BrokerError::Refused(format!("{what}: {code}")));
                }
                _ => tracing::debug!(
                    group = &*self.subscription.group,
                    "Kafka consumer: {problem}"
                ),
            }
        }
    }

    fn fail(&mut self, error: BrokerError) {
        if !self.failed {
            self.failed = true;
            self.outbox.push(SourceEvent::Failed(error));
        }
    }

    fn serve_commits(&mut self) {
        while let Some(report) = self.commits.commit_report(0) {
            self.committer.report(&report);
        }
        while let Some((id, commits)) = self.committer.next() {
            let list = raw::offsets_to_commit(commits.iter());
            if let Err(code) = raw::send_commit(self.member.client(), &list, &self.commits, id) {
                self.committer.finish(id, Some(code));
            }
        }
    }

    /// Takes what was fetched, as far as there is room; whether more is likely to wait. Goes round
    /// once, from where it stopped last.
    fn fetch(&mut self) -> bool {
        let first = self.turn_of.take();
        let (later, earlier) = match &first {
            Some(first) => (
                (Bound::Included(first), Bound::Unbounded),
                Some((Bound::Unbounded, Bound::Excluded(first))),
            ),
            None => ((Bound::Unbounded, Bound::Unbounded), None),
        };
        let count = self.partitions.len();
        let most = Load {
            events: BATCH,
            bytes: usize::MAX,
        };
        let mut first_left_out = None;
        let mut more = false;
        for range in std::iter::once(later).chain(earlier) {
            for (partition, owned) in self.partitions.range_mut::<TopicPartition, _>(range) {
                if !owned.flows() || !owned.bell.answer() {
                    continue;
                }
                let Some(room) = self.outbox.room(partition, count, most) else {
                    owned.bell.keep();
                    first_left_out.get_or_insert_with(|| partition.clone());
                    continue;
                };
                let limit = room.events.min(room.bytes.div_ceil(owned.event_bytes));
                owned.queue.take(&mut self.batch, limit, 0);
                if self.batch.len() == limit {
                    owned.bell.keep();
                    more = true;
                }
                if self.batch.len() == 0 {
                    continue;
                }
                let taken = partitions::copy(&self.batch, partition, owned);
                self.batch.clear();
                if taken.lost {
                    self.lost.push(partition.clone());
                }
                if let Some(code) = taken.error {
                    tracing::warn!(%partition, "fetching: {code}");
                }
                let blocks = taken.blocks.into_iter().map(SourceEvent::Block);
                self.outbox.push_all(blocks);
            }
        }
        self.turn_of = first_left_out;
        more
    }

    fn tick(&mut self, now: Instant) {
        self.committer.send_again(now);
        self.tell_caught_up();
        for owned in self.partitions.values_mut().filter(|owned| owned.flows()) {
            // Nothing is known to send a queue on or to miss its bell, but a partition that stayed
            // silent for ever would be found by nobody.
            owned.queue.stand_alone();
            owned.bell.keep();
        }
        self.relieve(now);
    }

    /// Markers and aborted events hold offsets that no message has, but librdkafka's position
    /// passes them: what lies below it was handed over.
    fn tell_caught_up(&mut self) {
        let flowing = self
            .partitions
            .iter()
            .filter(|(_, owned)| owned.flows() && !owned.doubtful)
            .map(|(partition, _)| partition);
        let list = list_of(flowing, |_| rdkafka::Offset::Invalid);
        if list.count() == 0 {
            return;
        }
        for (partition, next) in raw::positions(self.member.client(), &list) {
            if let Some(owned) = self.partitions.get_mut(&partition)
                && next > owned.next
            {
                owned.next = next;
                self.outbox.push(SourceEvent::CaughtUp { partition, next });
            }
        }
    }

    /// Leaves the group and closes the client.
    fn leave(mut self) {
        // It keeps the member alive.
        self.watcher = None;
        self.committer.end();
        self.mailbox.close();
        let context = self.member.context().clone();
        context.leave();
        self.grant_all();
        self.ends.close();
        let Self {
            partitions,
            commits,
            main,
            batch,
            member,
            ..
        } = self;
        drop(batch);
        drop(partitions);
        drop((commits, main));
        if let Ok(list) = member.assignment() {
            tracing::debug!(partitions = partitions_of(&list).len(), "leaving the group");
        }
        // Leaves the group, polling until that is done.
        drop(member);
    }
}

/// The queues of a member: for the answers to its commits, and for its own events.
pub(super) fn queues(member: &Arc<Member>, wake: &Arc<Wake>) -> Option<(Queue, Queue)> {
    let client = member.client();
    let mut commits = Queue::new(client, keep(member))?;
    let mut main = Queue::of_consumer(client, keep(member))?;
    for queue in [&mut commits, &mut main] {
        queue.rings(Arc::new(Bell::new(wake.clone())));
    }
    Some((commits, main))
}

/// The queue of a partition.
pub(super) fn queue_of(member: &Arc<Member>, partition: &TopicPartition) -> Option<Queue> {
    let number = i32::try_from(partition.partition).ok()?;
    Queue::of_partition(member.client(), keep(member), &partition.topic, number)
}

/// What is known of the ends of these partitions.
pub(super) fn ends_of(partitions: &Partitions) -> Vec<(TopicPartition, Arc<partitions::End>)> {
    partitions
        .iter()
        .map(|(partition, owned): (_, &Owned)| (partition.clone(), owned.end.clone()))
        .collect()
}
