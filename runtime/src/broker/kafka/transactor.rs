//! The transactional producer of a consumer, as the consumer sees it.

use std::collections::VecDeque;
use std::sync::Arc;

use futures::FutureExt;
use futures::future::BoxFuture;
use parking_lot::Mutex;
use rdkafka::ClientConfig;
use tokio::sync::oneshot;

use super::client::Listener;
use super::partitions::End;
use super::source::Ends;
use super::transactions::TransactorThread;
use crate::broker::wake::Wake;
use crate::broker::{Commit, TransactError};
use crate::event::TopicPartition;
use crate::records::Records;

/// Batches that may wait to be staged.
const STAGED_LIMIT: usize = 1_024;

/// The transactional producer of a consumer.
pub(super) struct Transactor {
    inbox: Arc<Inbox>,
}

/// What the thread is to do.
pub(super) struct Inbox {
    /// `None` once the consumer has ended.
    jobs: Mutex<Option<VecDeque<Job>>>,
    /// Wakes the thread: for a job, or for reports of its producer.
    pub(super) wake: Arc<Wake>,
}

/// The consumer has ended.
pub(super) struct Closed;

impl Inbox {
    /// The next job, where one waits.
    pub(super) fn next(&self) -> Result<Option<Job>, Closed> {
        let mut jobs = self.jobs.lock();
        jobs.as_mut().map(VecDeque::pop_front).ok_or(Closed)
    }

    fn put(&self, job: Job, limit: usize) -> bool {
        let mut jobs = self.jobs.lock();
        let Some(jobs) = jobs.as_mut().filter(|jobs| jobs.len() < limit) else {
            return false;
        };
        jobs.push_back(job);
        self.wake.notify();
        true
    }
}

/// See the methods of [`Transactor`].
pub(super) enum Job {
    Stage(Arc<Records>),
    Unstage,
    Transact(Transaction),
}

/// What is to take effect together.
pub(super) struct Transaction {
    pub(super) records: Vec<Arc<Records>>,
    pub(super) commits: Vec<Commit>,
    /// To which assignments of their partitions the commits belong.
    pub(super) assignments: Vec<(TopicPartition, Arc<End>)>,
    pub(super) reply: oneshot::Sender<Result<(), TransactError>>,
}

impl Transactor {
    /// Starts the thread; the client itself is made with the first transaction.
    ///
    /// # Errors
    /// Where the system has no thread to give.
    pub(super) fn start(
        name: &str,
        config: ClientConfig,
        listener: Listener,
        ends: Arc<Ends>,
    ) -> std::io::Result<Self> {
        let inbox = Arc::new(Inbox {
            jobs: Mutex::new(Some(VecDeque::new())),
            wake: Arc::default(),
        });
        let thread = TransactorThread::new(config, listener, ends, inbox.clone());
        std::thread::Builder::new()
            .name(format!("kafka-tx-{name}"))
            .spawn(move || thread.run())?;
        Ok(Self { inbox })
    }

    /// See [`crate::broker::Sink::stage`].
    pub(super) fn stage(&self, records: Arc<Records>) -> bool {
        self.inbox.put(Job::Stage(records), STAGED_LIMIT)
    }

    /// See [`crate::broker::Sink::unstage`].
    pub(super) fn unstage(&self) {
        self.inbox.put(Job::Unstage, usize::MAX);
    }

    /// See [`crate::broker::Sink::transact`].
    pub(super) fn transact(
        &self,
        records: Vec<Arc<Records>>,
        commits: Vec<Commit>,
        assignments: Vec<(TopicPartition, Arc<End>)>,
    ) -> BoxFuture<'static, Result<(), TransactError>> {
        let (reply, answer) = oneshot::channel();
        let transaction = Transaction {
            records,
            commits,
            assignments,
            reply,
        };
        // One that is not taken is dropped with its reply, which the answer below then shows.
        self.inbox.put(Job::Transact(transaction), usize::MAX);
        async move {
            answer.await.unwrap_or_else(|_| {
                Err(TransactError::Aborted("the producer is closed".to_owned()))
            })
        }
        .boxed()
    }
}

impl Drop for Transactor {
    fn drop(&mut self) {
        self.inbox.jobs.lock().take();
        self.inbox.wake.notify();
    }
}
