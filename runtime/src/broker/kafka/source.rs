//! The handles of a session: what the runtime holds, while the poll thread does the work.

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
use super::transactions::Transactor;
use crate::broker::outbox::Outbox;
use crate::broker::wake::Wake;
use crate::broker::{
    Commit, CommitError, Control, PublishError, Sink, Source, SourceEvent, TransactError,
};
use crate::event::TopicPartition;
use crate::records::Records;

/// How long leaving a group may take before it is left to itself: a client can hang in it.
const CLOSE_WAIT: Duration = Duration::from_secs(15);

/// What the runtime asks of a poll thread.
pub(super) enum Command {
    Hold(Vec<TopicPartition>),
    Release(Vec<TopicPartition>),
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
}

impl Ends {
    pub(super) fn new(member: Arc<Member>) -> Self {
        Self {
            member: Mutex::new(Some(member)),
            partitions: Mutex::default(),
        }
    }

    pub(super) fn set(&self, partitions: Vec<(TopicPartition, Arc<End>)>) {
        *self.partitions.lock() = partitions;
    }

    pub(super) fn close(&self) {
        self.member.lock().take();
        self.partitions.lock().clear();
    }

    /// The member, while it is one. To be let go soon: the poll thread closes it.
    pub(super) fn member(&self) -> Option<Arc<Member>> {
        self.member.lock().clone()
    }

    /// Looks at the member while none of these partitions can be given up; `None` where one is not
    /// ours.
    pub(super) fn while_ours<'a, T>(
        &self,
        mut partitions: impl Iterator<Item = &'a TopicPartition>,
        look: impl FnOnce(&Member) -> T,
    ) -> Option<T> {
        let member = self.member()?;
        let owned = self.partitions.lock();
        let ours = partitions.all(|partition| owned.iter().any(|(known, _)| known == partition));
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
}

impl Source for KafkaSource {
    fn next(&mut self) -> BoxFuture<'_, SourceEvent> {
        self.outbox.next().boxed()
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

    fn ends(&self) -> Vec<(TopicPartition, u64)> {
        self.ends.all()
    }
}

/// Where the units of a membership go.
pub(super) struct KafkaSink {
    pub(super) producer: Producer,
    /// Of a transactional subscription.
    pub(super) transactor: Option<Transactor>,
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
            Some(transactor) => transactor.transact(records, commits),
            None => {
                let reason = "this subscription has no transactions".to_owned();
                std::future::ready(Err(TransactError::Aborted(reason))).boxed()
            }
        }
    }
}
