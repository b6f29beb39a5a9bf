//! The handles of a session: what the runtime holds, while the poll thread does the work.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use parking_lot::Mutex;
use rdkafka::consumer::Consumer;
use tokio::sync::oneshot;

use super::commit::Reply;
use super::member::Member;
use super::partitions::End;
use super::producer::Producer;
use super::raw;
use super::transactor::Transactor;
use crate::broker::outbox::Outbox;
use crate::broker::wake::Wake;
use crate::broker::{
    Assignment, Commit, CommitError, Control, PublishError, Sink, Source, SourceEvent,
    TransactError,
};
use crate::event::TopicPartition;
use crate::records::Records;

/// How long leaving a group may take before it is left to itself: a client can hang in it.
const CLOSE_WAIT: Duration = Duration::from_secs(15);

/// What the runtime asks of a poll thread.
pub(super) enum Command {
    Hold(Vec<TopicPartition>),
    Release(Vec<TopicPartition>),
    /// Give these up and take them again where the group stands.
    Retake(Vec<TopicPartition>),
    Commit(Vec<Commit>, Reply),
    /// The topics that the subscription means have changed.
    Topics(Vec<String>),
    /// Leave the group and end; the sender is dropped when it is done.
    Close(Option<oneshot::Sender<()>>),
}

/// Commands for a poll thread.
pub(super) struct Mailbox {
    commands: Mutex<Option<Vec<Command>>>,
    wake: Arc<Wake>,
}

impl Mailbox {
    pub(super) fn new(wake: Arc<Wake>) -> Self {
        Self {
            commands: Mutex::new(Some(Vec::new())),
            wake,
        }
    }

    /// Leaves a command; after the thread has ended it is dropped.
    pub(super) fn send(&self, command: Command) {
        if let Some(commands) = &mut *self.commands.lock() {
            commands.push(command);
        }
        self.wake.notify();
    }

    /// All commands that wait, in order.
    pub(super) fn take(&self) -> Vec<Command> {
        self.commands
            .lock()
            .as_mut()
            .map(std::mem::take)
            .unwrap_or_default()
    }

    /// Drops what waits and what comes.
    pub(super) fn close(&self) {
        self.commands.lock().take();
    }
}

/// The ends of the partitions that a member owns, as far as they are known without asking.
#[derive(Default)]
pub(super) struct Ends {
    /// Taken away before the client is closed: its last reference must go on the poll thread.
    member: Mutex<Option<Arc<Member>>>,
    partitions: Mutex<Vec<(TopicPartition, Arc<End>)>>,
    /// The assignments that the runtime has heard of, each by its end.
    heard: Mutex<HashMap<TopicPartition, Arc<End>>>,
}

impl Ends {
    pub(super) fn new(member: Arc<Member>) -> Self {
        Self {
            member: Mutex::new(Some(member)),
            partitions: Mutex::default(),
            heard: Mutex::default(),
        }
    }

    /// The runtime hears that these partitions are its own: what it makes of them from now on belongs
    /// to this assignment and not to one before.
    fn hear(&self, assignments: &[Assignment]) {
        let owned = self.partitions.lock();
        let mut heard = self.heard.lock();
        for Assignment { partition, .. } in assignments {
            if let Some((_, end)) = owned.iter().find(|(known, _)| known == partition) {
                heard.insert(partition.clone(), end.clone());
            }
        }
    }

    /// The assignments of these partitions as the runtime knows them now; `None` where it never heard
    /// of one.
    fn heard<'a>(
        &self,
        partitions: impl Iterator<Item = &'a TopicPartition>,
    ) -> Option<Vec<(TopicPartition, Arc<End>)>> {
        let heard = self.heard.lock();
        partitions
            .map(|partition| Some((partition.clone(), heard.get(partition)?.clone())))
            .collect()
    }

    pub(super) fn set(&self, partitions: Vec<(TopicPartition, Arc<End>)>) {
        *self.partitions.lock() = partitions;
    }

    /// Another member takes the place of the one before.
    pub(super) fn renew(&self, member: Arc<Member>) {
        *self.member.lock() = Some(member);
    }

    pub(super) fn close(&self) {
        self.member.lock().take();
        self.partitions.lock().clear();
    }

    /// The member, while it is one. To be let go soon: the poll thread closes it.
    pub(super) fn member(&self) -> Option<Arc<Member>> {
        self.member.lock().clone()
    }

    /// Looks at the member while none of these assignments can be given up; `None` where one is over.
    /// A partition that was lost and came back is another assignment: its events are read again.
    pub(super) fn while_ours<T>(
        &self,
        assignments: &[(TopicPartition, Arc<End>)],
        look: impl FnOnce(&Member) -> T,
    ) -> Option<T> {
        let member = self.member()?;
        let owned = self.partitions.lock();
        let ours = assignments.iter().all(|(partition, end)| {
            let same = |(known, at): &(TopicPartition, Arc<End>)| {
                known == partition && Arc::ptr_eq(at, end)
            };
            owned.iter().any(same)
        });
        ours.then(|| look(&member))
    }

    fn all(&self) -> Vec<(TopicPartition, u64)> {
        let member = self.member.lock();
        let Some(member) = &*member else {
            return Vec::new();
        };
        self.partitions
            .lock()
            .iter()
            .map(|(partition, end)| {
                let high = raw::cached_high_watermark(member.client(), &end.name, end.number);
                (partition.clone(), end.offset(high))
            })
            .collect()
    }
}

/// The events of a membership.
pub(super) struct KafkaSource {
    pub(super) outbox: Arc<Outbox>,
    pub(super) mailbox: Arc<Mailbox>,
    pub(super) ends: Arc<Ends>,
}

impl Source for KafkaSource {
    fn next(&mut self) -> BoxFuture<'_, SourceEvent> {
        async {
            let event = self.outbox.next().await;
            if let SourceEvent::Assigned(assignments) = &event {
                self.ends.hear(assignments);
            }
            event
        }
        .boxed()
    }

    fn close(self: Box<Self>) -> BoxFuture<'static, ()> {
        let (done, closed) = oneshot::channel();
        self.mailbox.send(Command::Close(Some(done)));
        async move {
            // Keeps the source from sending its own farewell before.
            let _source = self;
            if tokio::time::timeout(CLOSE_WAIT, closed).await.is_err() {
                tracing::warn!(
                    "the Kafka client did not leave its group in time; it is left to itself"
                );
            }
        }
        .boxed()
    }
}

impl Drop for KafkaSource {
    fn drop(&mut self) {
        self.mailbox.send(Command::Close(None));
    }
}

/// The valves of a membership.
pub(super) struct KafkaControl {
    pub(super) outbox: Arc<Outbox>,
    pub(super) mailbox: Arc<Mailbox>,
    pub(super) ends: Arc<Ends>,
}

impl Control for KafkaControl {
    fn hold(&self, partitions: &[TopicPartition]) {
        self.outbox.hold(partitions);
        self.mailbox.send(Command::Hold(partitions.to_vec()));
    }

    fn release(&self, partitions: &[TopicPartition]) {
        self.outbox.release(partitions);
        self.mailbox.send(Command::Release(partitions.to_vec()));
    }

    fn retake(&self, partitions: &[TopicPartition]) {
        self.mailbox.send(Command::Retake(partitions.to_vec()));
    }

    fn ends(&self) -> Vec<(TopicPartition, u64)> {
        self.ends.all()
    }
}

/// Where the units of a membership go.
pub(super) struct KafkaSink {
    pub(super) producer: Producer,
    /// Of a transactional subscription.
    pub(super) transactor: Option<Transactor>,
    pub(super) ends: Arc<Ends>,
    pub(super) mailbox: Arc<Mailbox>,
}

impl Sink for KafkaSink {
    fn publish(&self, records: Arc<Records>) -> BoxFuture<'static, Result<(), PublishError>> {
        self.producer.publish(records)
    }

    fn commit(&self, commits: Vec<Commit>) -> BoxFuture<'static, Result<(), CommitError>> {
        let (reply, answer) = oneshot::channel();
        self.mailbox.send(Command::Commit(commits, reply));
        async move {
            answer
                .await
                .unwrap_or_else(|_| Err(CommitError::Fenced("the member has left".to_owned())))
        }
        .boxed()
    }

    fn transact(
        &self,
        records: Vec<Arc<Records>>,
        commits: Vec<Commit>,
    ) -> BoxFuture<'static, Result<(), TransactError>> {
        match &self.transactor {
            Some(transactor) => {
                let partitions = commits.iter().map(|commit| &commit.partition);
                match self.ends.heard(partitions) {
                    Some(assignments) => transactor.transact(records, commits, assignments),
                    None => {
                        let reason = "a partition of it is not assigned".to_owned();
                        std::future::ready(Err(TransactError::Aborted(reason))).boxed()
                    }
                }
            }
            None => {
                let reason = "this subscription has no transactions".to_owned();
                std::future::ready(Err(TransactError::Aborted(reason))).boxed()
            }
        }
    }

    fn stage(&self, records: &Arc<Records>) -> bool {
        let transactor = self.transactor.as_ref();
        transactor.is_some_and(|transactor| transactor.stage(records.clone()))
    }

    fn unstage(&self) {
        if let Some(transactor) = &self.transactor {
            transactor.unstage();
        }
    }
}
