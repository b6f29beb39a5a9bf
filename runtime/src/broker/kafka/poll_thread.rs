//! The thread that owns a membership: it never blocks on the runtime, and always polls.
//!
//! ```text
//! main queue ─▶ demands of the group ─▶ rebalance ─▶ outbox (Assigned, Revoked)
//! data queue ─▶ batch ─▶ blocks ────────────────────▶ outbox (Block, CaughtUp), while it has room
//! commit queue ─▶ reports ─▶ callers          mailbox ─▶ hold, release, commit, close
//! ```
//! All of them wake it; without a wake-up it looks around every [`TICK`].

use std::sync::Arc;
use std::time::Duration;

use rdkafka::consumer::Consumer;
use rdkafka::error::KafkaError;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::commit::Committer;
use super::errors::{code_error, refuses_membership};
use super::first_start::{self, Found};
use super::member::{Member, keep, list_of, partitions_of};
use super::outbox::Outbox;
use super::partitions::{self, Owned, PAUSE_AFTER, Partitions, Valve};
use super::raw::{self, MessageBatch, Queue};
use super::rebalance::Turn;
use super::source::{Command, Ends, Mailbox};
use super::wake::Wake;
use super::watch::{self, Watcher};
use crate::broker::{BrokerError, SourceEvent, Subscription};
use crate::event::TopicPartition;

/// How long the thread sleeps at most.
const TICK: Duration = Duration::from_millis(250);
/// How often a rebalance that waits for the runtime is looked at.
const REVOKE_TICK: Duration = Duration::from_millis(5);
/// How long a request to the broker may hold the thread up.
pub(super) const REQUEST_WAIT: Duration = Duration::from_secs(3);
/// Messages taken at once.
const BATCH: usize = 2048;
/// Events of the main queue served in one go.
const MAIN_EVENTS: usize = 256;

/// Everything that the thread works with.
pub(super) struct PollThread {
    // Queues stand before the member: they go first.
    pub(super) partitions: Partitions,
    pub(super) data: Queue,
    commits: Queue,
    main: Queue,
    batch: MessageBatch,
    pub(super) member: Arc<Member>,
    pub(super) subscription: Arc<Subscription>,
    pub(super) outbox: Arc<Outbox>,
    mailbox: Arc<Mailbox>,
    pub(super) ends: Arc<Ends>,
    wake: Arc<Wake>,
    pub(super) committer: Committer,
    pub(super) turn: Option<Turn>,
    /// Partitions to take up anew, since the broker no longer has their position.
    pub(super) lost: Vec<TopicPartition>,
    pub(super) retry_lost_at: Instant,
    pub(super) found: Option<Found>,
    failed: bool,
    watcher: Option<Watcher>,
    next_tick: Instant,
}

impl PollThread {
    /// Prepares the queues; `None` where the client has none, which a consumer always has.
    pub(super) fn new(
        member: Arc<Member>,
        subscription: Arc<Subscription>,
        outbox: Arc<Outbox>,
        mailbox: Arc<Mailbox>,
        ends: Arc<Ends>,
        wake: Arc<Wake>,
    ) -> Option<Self> {
        let client = member.client();
        let mut data = Queue::new(client, keep(&member))?;
        let mut commits = Queue::new(client, keep(&member))?;
        let mut main = Queue::of_consumer(client, keep(&member))?;
        for queue in [&mut data, &mut commits, &mut main] {
            queue.wakes(wake.clone());
        }
        let now = Instant::now();
        Some(Self {
            partitions: Partitions::new(),
            data,
            commits,
            main,
            batch: MessageBatch::new(BATCH),
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
            found: None,
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
        match first_start::settle(
            &self.member,
            &self.subscription,
            &self.commits,
            REQUEST_WAIT,
        ) {
            Ok(found) => {
                self.found = Some(found);
                if watch::has_patterns(&self.subscription) {
                    self.watch();
                } else {
                    self.subscribe(&watch::names(&self.subscription, std::iter::empty()));
                }
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

    fn obey(&mut self, command: Command, now: Instant) -> Result<(), Option<oneshot::Sender<()>>> {
        match command {
            Command::Hold(partitions) => self.hold(&partitions, now),
            Command::Release(partitions) => self.release(&partitions),
            Command::Commit(commits, reply) => {
                let owned = &self.partitions;
                self.committer
                    .add(commits, reply, |partition| owned.contains_key(partition));
            }
            Command::Topics(names) => self.subscribe(&names),
            Command::Close(reply) => return Err(reply),
        }
        Ok(())
    }

    fn watch(&mut self) {
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

    fn subscribe(&mut self, names: &[String]) {
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

    /// The valve closes: what is fetched stays in the partition's own queue.
    fn hold(&mut self, partitions: &[TopicPartition], now: Instant) {
        for partition in partitions {
            if let Some(owned) = self.partitions.get_mut(partition)
                && owned.valve == Valve::Open
            {
                owned.valve = Valve::Held(now);
                owned.queue.forward(None);
            }
        }
    }

    /// The valve opens: first what was drained before it closed, then what was fetched since. A
    /// paused partition is fetched again right after the last event that was drained.
    fn release(&mut self, partitions: &[TopicPartition]) {
        for partition in partitions {
            let Some(owned) = self.partitions.get_mut(partition) else {
                continue;
            };
            let was = std::mem::replace(&mut owned.valve, Valve::Open);
            if was == Valve::Open || !owned.flows() {
                continue;
            }
            self.outbox
                .push_all(owned.stash.drain(..).map(SourceEvent::Block));
            if was == Valve::Paused {
                resume(&self.member, partition);
            }
            owned.queue.forward(Some(&self.data));
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
                    // Never seen: each partition's queue is forwarded before it is assigned. If it
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

    /// Takes what was fetched, as far as there is room; whether more is likely to wait.
    fn fetch(&mut self) -> bool {
        let limit = self.outbox.room().min(BATCH);
        if limit == 0 {
            return false;
        }
        self.data.take(&mut self.batch, limit, 0);
        if self.batch.len() == 0 {
            return false;
        }
        let full = self.batch.len() == limit;
        let sorted = partitions::sort(&self.batch, &mut self.partitions);
        self.batch.clear();
        self.lost.extend(sorted.lost);
        for (partition, code) in sorted.errors {
            tracing::warn!(%partition, "fetching: {code}");
        }
        let blocks = sorted.blocks.into_iter().map(SourceEvent::Block);
        self.outbox.push_all(blocks);
        full
    }

    fn tick(&mut self, now: Instant) {
        let mut kept = 0;
        for owned in self.partitions.values() {
            if !owned.flows() && matches!(owned.valve, Valve::Held(_)) {
                kept += owned.queue.len();
            }
        }
        // Many held partitions together may not keep more than the budget either.
        let crowded = kept > self.subscription.fetch_events;
        self.tell_caught_up();
        for (partition, owned) in &mut self.partitions {
            if owned.flows() {
                // Stopping a fetch, which librdkafka does in its own time, takes the forwarding
                // away. A partition that came back at once would then stay silent for ever.
                if let Some(queue) = queue_of(&self.member, partition) {
                    queue.forward(Some(&self.data));
                    owned.queue = queue;
                }
            } else if let Valve::Held(since) = owned.valve
                && (crowded || now.duration_since(since) >= PAUSE_AFTER)
            {
                owned.valve = Valve::Paused;
                pause(&self.member, partition);
            }
        }
    }

    /// Markers and aborted events hold offsets that no message has, but librdkafka's position
    /// passes them: what lies below it was handed over.
    fn tell_caught_up(&mut self) {
        let flowing = self
            .partitions
            .iter()
            .filter(|(_, owned)| owned.flows() && !owned.doubtful && owned.stash.is_empty())
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
            data,
            commits,
            main,
            batch,
            member,
            ..
        } = self;
        for owned in partitions.values() {
            owned.queue.forward(None);
        }
        drop(batch);
        drop(partitions);
        drop((data, commits, main));
        if let Ok(list) = member.assignment() {
            tracing::debug!(partitions = partitions_of(&list).len(), "leaving the group");
        }
        // Leaves the group, polling until that is done.
        drop(member);
    }
}

/// The queue of a partition.
pub(super) fn queue_of(member: &Arc<Member>, partition: &TopicPartition) -> Option<Queue> {
    let number = i32::try_from(partition.partition).ok()?;
    Queue::of_partition(member.client(), keep(member), &partition.topic, number)
}

/// Stops fetching; what was fetched and not drained is thrown away and fetched again later.
pub(super) fn pause(member: &Member, partition: &TopicPartition) {
    let list = list_of([partition], |_| rdkafka::Offset::Invalid);
    if let Err(error) = member.pause(&list) {
        tracing::debug!(%partition, "pausing: {error}");
    }
}

/// Fetches again, right after the last event that was drained.
pub(super) fn resume(member: &Member, partition: &TopicPartition) {
    let list = list_of([partition], |_| rdkafka::Offset::Invalid);
    if let Err(error) = member.resume(&list) {
        tracing::debug!(%partition, "resuming: {error}");
    }
}

/// What is known of the ends of these partitions.
pub(super) fn ends_of(partitions: &Partitions) -> Vec<(TopicPartition, Arc<partitions::End>)> {
    partitions
        .iter()
        .map(|(partition, owned): (_, &Owned)| (partition.clone(), owned.end.clone()))
        .collect()
}
