//! Exactly once: a thread with a transactional producer, which makes one transaction at a time.
//!
//! ```text
//! stage ────▶ open: produce ─┐
//! transact ─▶ the rest ──────┴▶ still ours? ─▶ send offsets ─▶ delivered? ─▶ commit ─▶ certain: answer
//!                                  │ no            │ no            │ no         │ in doubt
//!                                  ▼               ▼               ▼            ▼
//!                                abort ◀───────────┴───────────────┘   new producer of the same id,
//!                                  └─▶ aborted, or a record refused    read what was committed
//! ```
//! A commit is in doubt after a time-out, a fatal or transport error, or when it took long: librdkafka
//! sends the request again by itself, and may report the success of a transaction that a delayed
//! first request ended (it lacks KIP-890; librdkafka issue 5423). `decide/doubt.rs` says when that is
//! and how it is resolved.

use std::sync::Arc;
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::error::RDKafkaErrorCode;
use tokio::time::Instant;

use super::client::Listener;
use super::errors::{Fault, fault, publish_error};
use super::open_transaction::{OpenTransaction, Undelivered};
use super::positions;
use super::raw::Writer;
use super::source::Ends;
use super::transactor::{Inbox, Job, Transaction};
use crate::broker::TransactError;
use crate::decide::doubt::{self, Doubt, Resolution, Step};
use crate::event::TopicPartition;
use crate::records::Records;

/// How long a call to the coordinator may take.
pub(super) const CALL_WAIT: Duration = Duration::from_secs(10);
/// How long records may be on their way: a little less than the transaction itself may last.
const DELIVERY_WAIT: Duration = Duration::from_secs(14);
/// How long an abort waits for reports of what is under way; a producer that waits for more is
/// replaced.
const ABORT_WAIT: Duration = Duration::from_secs(1);
/// How long a producer is kept at least though connections of it ended: where they break again and
/// again, it would be replaced before each transaction.
const YOUNG: Duration = Duration::from_secs(5);
/// How long the thread sleeps at most.
const TICK: Duration = Duration::from_millis(100);
/// How soon a failed look at the committed positions is tried again.
pub(super) const RETRY: Duration = Duration::from_millis(200);

/// See the module.
pub(super) struct TransactorThread {
    config: ClientConfig,
    listener: Listener,
    pub(super) ends: Arc<Ends>,
    pub(super) inbox: Arc<Inbox>,
    /// Ready to begin a transaction, unless one is open.
    pub(super) writer: Option<Writer>,
    pub(super) open: Option<OpenTransaction>,
    /// When the producer was registered.
    registered: Option<Instant>,
    /// Connections of it that had ended by then: nothing of a transaction was ever sent on them.
    /// librdkafka leaves the one that it began with as soon as it knows the cluster.
    lost_before: u64,
    /// Whether batches are written when they are staged; after a failure all that is left is written
    /// with the transaction itself.
    stages: bool,
    /// The broker refused a batch for one of its records: they are written one at a time to find it.
    one_by_one: bool,
}

/// How a transaction ended that is not known to have taken effect.
pub(super) enum Ended {
    Aborted(String),
    Undelivered(Undelivered),
    /// Only what was committed can tell.
    InDoubt(Doubt),
}

impl TransactorThread {
    /// Has no client yet: it is made with the first transaction.
    pub(super) fn new(
        config: ClientConfig,
        listener: Listener,
        ends: Arc<Ends>,
        inbox: Arc<Inbox>,
    ) -> Self {
        Self {
            config,
            listener,
            ends,
            inbox,
            writer: None,
            open: None,
            registered: None,
            lost_before: 0,
            stages: true,
            one_by_one: false,
        }
    }

    /// Works until the inbox is closed.
    pub(super) fn run(mut self) {
        while let Ok(job) = self.inbox.next() {
            match job {
                Some(Job::Stage(records)) => self.stage(records),
                Some(Job::Unstage) => self.unstage(),
                Some(Job::Transact(transaction)) => {
                    let result = self.transact(&transaction);
                    self.stages = true;
                    // The consumer may have ended meanwhile.
                    let _ = transaction.reply.send(result);
                }
                None => {
                    if let (Some(writer), Some(open)) = (&mut self.writer, &mut self.open) {
                        open.look(writer);
                    }
                    self.inbox.wake.wait(TICK);
                }
            }
        }
        self.unstage();
        self.discard();
    }

    /// Writes a batch into the transaction that will commit it. What cannot be written now is written
    /// then, and a failure is told then.
    fn stage(&mut self, records: Arc<Records>) {
        if !self.stages || self.one_by_one {
            return;
        }
        self.stages = self.begin().is_ok();
        if let (Some(writer), Some(open)) = (&mut self.writer, &mut self.open) {
            let deadline = Instant::now() + DELIVERY_WAIT;
            open.write(writer, &self.inbox.wake, records, false, deadline);
            open.look(writer);
            self.stages = open.failed.is_none();
        }
    }

    fn unstage(&mut self) {
        self.abort();
        self.stages = true;
    }

    /// Opens a transaction, unless one is open.
    fn begin(&mut self) -> Result<(), Ended> {
        if self.open.is_some() {
            return Ok(());
        }
        let lost = (self.writer.as_ref())
            .is_some_and(|writer| writer.lost_connections() > self.lost_before);
        if lost && self.registered.is_none_or(|at| at.elapsed() > YOUNG) {
            // A request that was on its way may arrive late and be taken for one of the next
            // transaction; that of a producer which another has replaced is refused.
            self.discard();
        }
        self.prepare()?;
        let begun = match &self.writer {
            Some(writer) => writer
                .begin_transaction()
                .map_err(|failure| failure.to_string()),
            None => Err("there is no producer".to_owned()),
        };
        if let Err(reason) = begun {
            self.discard();
            return Err(Ended::Aborted(reason));
        }
        self.open = Some(OpenTransaction::default());
        Ok(())
    }

    fn transact(&mut self, job: &Transaction) -> Result<(), TransactError> {
        let ended = match self.attempt(job) {
            Ok(()) => {
                self.one_by_one = false;
                return Ok(());
            }
            Err(ended) => ended,
        };
        match ended {
            Ended::Aborted(reason) => {
                self.abort();
                Err(TransactError::Aborted(reason))
            }
            Ended::Undelivered(undelivered) => {
                let error = self.blame(job, &undelivered);
                self.abort();
                Err(error)
            }
            Ended::InDoubt(doubt) => {
                tracing::warn!(
                    consumer = &*self.listener.owner,
                    "a transaction is in doubt, what was committed is looked up: {doubt}"
                );
                self.discard();
                self.resolve(job, &doubt)
            }
        }
    }

    fn attempt(&mut self, job: &Transaction) -> Result<(), Ended> {
        if let Some(open) = &self.open
            && !open.begins(&job.records)
        {
            // Of what is staged something is not ours any more: without it, from the start.
            self.abort();
        }
        self.begin()?;
        let wake = self.inbox.wake.clone();
        let deadline = Instant::now() + DELIVERY_WAIT;
        let one_by_one = self.one_by_one;
        let (writer, open) = self.parts()?;
        for records in &job.records[open.batches()..] {
            open.write(writer, &wake, records.clone(), one_by_one, deadline);
        }
        open.look(writer);
        if !job.commits.is_empty() && open.failed.is_none() {
            // While the records are on their way.
            self.send_offsets(job)?;
        }
        let (writer, open) = self.parts()?;
        open.delivered(writer, deadline)
            .map_err(Ended::Undelivered)?;
        let Some(writer) = &self.writer else {
            return Err(no_producer());
        };
        let lost = writer.lost_connections();
        let begun = Instant::now();
        let committed = writer.commit_transaction(CALL_WAIT);
        let lost = writer.lost_connections() - lost;
        let answer = committed.map_err(|failure| failure.to_string());
        doubt::of(answer, lost, begun.elapsed()).map_err(Ended::InDoubt)?;
        self.open = None;
        Ok(())
    }

    fn parts(&mut self) -> Result<(&mut Writer, &mut OpenTransaction), Ended> {
        match (&mut self.writer, &mut self.open) {
            (Some(writer), Some(open)) => Ok((writer, open)),
            _ => Err(no_producer()),
        }
    }

    /// Makes the producer, where there is none.
    fn prepare(&mut self) -> Result<(), Ended> {
        if self.writer.is_some() {
            return Ok(());
        }
        let writer = Writer::new(
            &self.config,
            self.listener.clone(),
            self.inbox.wake.clone(),
            true,
        )
        .map_err(|error| {
            Ended::Aborted(format!(
                "the transactional producer cannot be made: {error}"
            ))
        })?;
        match writer.init_transactions(CALL_WAIT) {
            Ok(()) => {
                self.lost_before = writer.lost_connections();
                self.writer = Some(writer);
                self.registered = Some(Instant::now());
                Ok(())
            }
            Err(failure) => {
                self.writer = Some(writer);
                self.discard();
                Err(Ended::Aborted(format!(
                    "the transactional producer is not ready: {failure}"
                )))
            }
        }
    }

    /// Ends the open transaction without effect; a producer that cannot is replaced by one that does.
    fn abort(&mut self) {
        let (Some(writer), Some(mut open)) = (&mut self.writer, self.open.take()) else {
            return;
        };
        let deadline = Instant::now() + ABORT_WAIT;
        // The call waits for reports that only this thread takes. And librdkafka gives the sequence
        // numbers of records that failed to those of the next transaction, though the broker may
        // have them: it would take the new ones for repetitions and not write them. The
        // registration of the next producer aborts as well, and numbers anew.
        if !open.reported(writer, &self.inbox.wake, deadline) || open.failed.is_some() {
            self.discard();
        } else if let Err(failure) = writer.abort_transaction(CALL_WAIT) {
            tracing::debug!(
                consumer = &*self.listener.owner,
                "aborting a transaction: {failure}"
            );
            self.discard();
        }
    }

    fn blame(&mut self, job: &Transaction, undelivered: &Undelivered) -> TransactError {
        let Undelivered {
            batch,
            index,
            mut code,
            mut one_of_all,
            alone,
        } = *undelivered;
        if code == RDKafkaErrorCode::PurgeQueue {
            // The whole transaction failed; the broker may refuse one of its topics.
            code = (self.writer.as_ref().and_then(Writer::cause)).unwrap_or(code);
            one_of_all = true;
        }
        let records = job.records.get(batch);
        let Some(records) = records.filter(|records| index < records.len()) else {
            return TransactError::Aborted(code.to_string());
        };
        let error = publish_error(index, records.get(index).topic(), code);
        match fault(code) {
            Fault::Passing => TransactError::Aborted(error.to_string()),
            at_fault if !alone && (one_of_all || at_fault == Fault::Event) => {
                self.one_by_one = true;
                TransactError::Aborted(format!(
                    "{error}; the records are written one at a time to find the one at fault"
                ))
            }
            Fault::Event | Fault::Topic => {
                self.one_by_one = false;
                TransactError::Refused { batch, error }
            }
        }
    }

    /// Finds out what became of a transaction whose commit is in doubt.
    fn resolve(&mut self, job: &Transaction, doubt: &Doubt) -> Result<(), TransactError> {
        let partitions: Vec<TopicPartition> = job
            .commits
            .iter()
            .map(|commit| commit.partition.clone())
            .collect();
        let mut resolution = Resolution::default();
        while !job.reply.is_closed() {
            if resolution.step() == Step::Register && self.prepare().is_ok() {
                resolution.registered();
            }
            if resolution.step() == Step::Read
                && let Some(member) = self.ends.member()
                && let Ok(committed) = positions::committed(&*member, &partitions, CALL_WAIT)
            {
                let commits = job.commits.iter();
                let took_effect = resolution.took_effect(
                    commits.map(|commit| (&commit.progress, committed.get(&commit.partition))),
                );
                tracing::info!(
                    consumer = &*self.listener.owner,
                    took_effect,
                    "the transaction in doubt is resolved"
                );
                return match took_effect {
                    true => Ok(()),
                    false => Err(TransactError::Aborted(doubt.to_string())),
                };
            }
            self.inbox.wake.wait(RETRY);
        }
        Err(TransactError::Aborted(doubt.to_string()))
    }

    /// Throws the producer away, and with it what is open.
    fn discard(&mut self) {
        self.open = None;
        if let Some(writer) = self.writer.take() {
            writer.discard();
        }
    }
}

pub(super) fn no_producer() -> Ended {
    Ended::Aborted("there is no producer".to_owned())
}
