//! Exactly once: a thread with a transactional producer, which makes one transaction at a time.
//!
//! ```text
//! begin ─▶ produce all ─▶ delivered? ─▶ still ours? ─▶ send offsets ─▶ commit ─▶ certain: answer
//!                            │ no           │ no           │ no          │ in doubt
//!                            ▼              ▼              ▼             ▼
//!                          abort ◀──────────┴──────────────┘   new producer of the same id,
//!                            └─▶ aborted, or a record refused   read what was committed
//! ```
//! A commit is in doubt after a time-out, a fatal or transport error, or when it took long: librdkafka
//! sends the request again by itself, and may report the success of a transaction that a delayed
//! first request ended (it lacks KIP-890; librdkafka issue 5423). `decide/doubt.rs` says when that is
//! and how it is resolved.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use rdkafka::ClientConfig;
use rdkafka::consumer::Consumer;
use rdkafka::error::RDKafkaErrorCode;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::client::Listener;
use super::errors::{Fault, fault, publish_error};
use super::partitions::End;
use super::positions;
use super::raw::{self, GroupMetadata, Writer};
use super::source::Ends;
use crate::broker::wake::Wake;
use crate::broker::{Commit, TransactError};
use crate::decide::doubt::{self, Doubt, Resolution, Step};
use crate::event::TopicPartition;
use crate::records::Records;

/// How long a call to the coordinator may take.
const CALL_WAIT: Duration = Duration::from_secs(10);
/// How long records may be on their way: a little less than the transaction itself may last.
const DELIVERY_WAIT: Duration = Duration::from_secs(14);
/// How often a wait for deliveries looks whether anyone still waits for the answer.
const TICK: Duration = Duration::from_millis(100);
/// How soon a failed look at the committed positions is tried again.
const RETRY: Duration = Duration::from_millis(200);

/// The transactional producer of a consumer.
pub(super) struct Transactor {
    jobs: SyncSender<Job>,
}

struct Job {
    records: Vec<Arc<Records>>,
    commits: Vec<Commit>,
    /// To which assignments of their partitions the commits belong.
    assignments: Vec<(TopicPartition, Arc<End>)>,
    reply: oneshot::Sender<Result<(), TransactError>>,
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
        // One transaction is made at a time.
        let (jobs, receiver) = sync_channel(1);
        let thread = TransactorThread {
            config,
            listener,
            ends,
            wake: Arc::default(),
            writer: None,
            one_by_one: false,
        };
        std::thread::Builder::new()
            .name(format!("kafka-tx-{name}"))
            .spawn(move || thread.run(&receiver))?;
        Ok(Self { jobs })
    }

    /// See [`crate::broker::Sink::transact`].
    pub(super) fn transact(
        &self,
        records: Vec<Arc<Records>>,
        commits: Vec<Commit>,
        assignments: Vec<(TopicPartition, Arc<End>)>,
    ) -> BoxFuture<'static, Result<(), TransactError>> {
        let (reply, answer) = oneshot::channel();
        let job = Job {
            records,
            commits,
            assignments,
            reply,
        };
        // A refused job is dropped with its reply, which the answer below then shows.
        drop(self.jobs.try_send(job));
        async move {
            answer.await.unwrap_or_else(|_| {
                Err(TransactError::Aborted(
                    "another transaction is under way, or the producer is closed".to_owned(),
                ))
            })
        }
        .boxed()
    }
}

struct TransactorThread {
    config: ClientConfig,
    listener: Listener,
    ends: Arc<Ends>,
    wake: Arc<Wake>,
    /// Ready to begin a transaction.
    writer: Option<Writer>,
    /// The broker refused a batch for one of its records: they are written one at a time to find it.
    one_by_one: bool,
}

/// A record that was not written.
struct Undelivered {
    batch: usize,
    index: usize,
    code: RDKafkaErrorCode,
    /// Whether it alone can be at fault.
    alone: bool,
}

/// How a transaction ended that is not known to have taken effect.
enum Ended {
    Aborted(String),
    Undelivered(Undelivered),
    /// Only what was committed can tell.
    InDoubt(Doubt),
}

impl TransactorThread {
    fn run(mut self, jobs: &Receiver<Job>) {
        while let Ok(job) = jobs.recv() {
            let result = self.transact(&job);
            // The consumer may have ended meanwhile.
            let _ = job.reply.send(result);
        }
        self.discard();
    }

    fn transact(&mut self, job: &Job) -> Result<(), TransactError> {
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
                self.abort();
                Err(self.blame(job, &undelivered))
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

    fn attempt(&mut self, job: &Job) -> Result<(), Ended> {
        self.prepare()?;
        let Some(writer) = &mut self.writer else {
            return Err(Ended::Aborted("there is no producer".to_owned()));
        };
        writer
            .begin_transaction()
            .map_err(|failure| Ended::Aborted(failure.to_string()))?;
        write(writer, job, &self.wake, self.one_by_one).map_err(Ended::Undelivered)?;
        if !job.commits.is_empty() {
            send_offsets(writer, job, &self.ends)?;
        }
        let faults = self.listener.faults.load(Ordering::Acquire);
        let begun = Instant::now();
        let committed = writer.commit_transaction(CALL_WAIT);
        let faults = self.listener.faults.load(Ordering::Acquire) - faults;
        let answer = committed.map_err(|failure| failure.to_string());
        doubt::of(answer, faults, begun.elapsed()).map_err(Ended::InDoubt)
    }

    /// Makes the producer, where there is none.
    fn prepare(&mut self) -> Result<(), Ended> {
        if self.writer.is_some() {
            return Ok(());
        }
        let writer = Writer::new(&self.config, self.listener.clone(), self.wake.clone(), true)
            .map_err(|error| {
                Ended::Aborted(format!(
                    "the transactional producer cannot be made: {error}"
                ))
            })?;
        match writer.init_transactions(CALL_WAIT) {
            Ok(()) => {
                self.writer = Some(writer);
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
        let Some(writer) = &mut self.writer else {
            return;
        };
        writer.deliveries(|_| {});
        if writer.outstanding() > 0 {
            // It would wait for reports that only this thread takes. The registration of the next
            // producer aborts as well.
            self.discard();
            return;
        }
        if let Err(failure) = writer.abort_transaction(CALL_WAIT) {
            tracing::debug!(
                consumer = &*self.listener.owner,
                "aborting a transaction: {failure}"
            );
            self.discard();
        }
    }

    fn blame(&mut self, job: &Job, undelivered: &Undelivered) -> TransactError {
        let Undelivered {
            batch,
            index,
            code,
            alone,
        } = *undelivered;
        let records = job.records.get(batch);
        let Some(records) = records.filter(|records| index < records.len()) else {
            return TransactError::Aborted(code.to_string());
        };
        let error = publish_error(index, records.get(index).topic(), code);
        match fault(code) {
            Fault::Passing => TransactError::Aborted(error.to_string()),
            Fault::Event if !alone => {
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
    fn resolve(&mut self, job: &Job, doubt: &Doubt) -> Result<(), TransactError> {
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
            self.wake.wait(RETRY);
        }
        Err(TransactError::Aborted(doubt.to_string()))
    }

    /// Throws the producer away.
    fn discard(&mut self) {
        if let Some(writer) = self.writer.take() {
            writer.discard();
        }
    }
}

/// Hands all records over and waits until the broker has them.
fn write(writer: &mut Writer, job: &Job, wake: &Wake, one_by_one: bool) -> Result<(), Undelivered> {
    let deadline = Instant::now() + DELIVERY_WAIT;
    let mut failed: Option<Undelivered> = None;
    for (batch, records) in job.records.iter().enumerate() {
        for (index, record) in records.iter().enumerate() {
            let undelivered = |code, alone| Undelivered {
                batch,
                index,
                code,
                alone,
            };
            loop {
                match writer.produce(&record, id(batch, index)) {
                    Ok(()) => break,
                    Err(RDKafkaErrorCode::QueueFull) => {
                        wait(writer, wake, &mut failed, one_by_one);
                    }
                    Err(code) => return Err(undelivered(code, true)),
                }
                if let Some(failed) = failed.take() {
                    return Err(failed);
                }
                if Instant::now() > deadline {
                    return Err(undelivered(RDKafkaErrorCode::MessageTimedOut, true));
                }
            }
            while one_by_one && writer.outstanding() > 0 && failed.is_none() {
                wait(writer, wake, &mut failed, one_by_one);
            }
        }
    }
    while writer.outstanding() > 0 && failed.is_none() {
        wait(writer, wake, &mut failed, one_by_one);
        if Instant::now() > deadline {
            return Err(Undelivered {
                batch: 0,
                index: 0,
                code: RDKafkaErrorCode::MessageTimedOut,
                alone: true,
            });
        }
    }
    match failed {
        Some(failed) => Err(failed),
        None => Ok(()),
    }
}

/// Has what waits sent, and waits for news of it.
fn wait(writer: &mut Writer, wake: &Wake, failed: &mut Option<Undelivered>, one_by_one: bool) {
    writer.send_wave();
    let before = writer.outstanding();
    let mut take = |writer: &mut Writer| {
        writer.deliveries(|delivery| {
            if let Some(code) = delivery.error
                && failed.is_none()
            {
                let (batch, index) = parts(delivery.id);
                *failed = Some(Undelivered {
                    batch,
                    index,
                    code,
                    alone: one_by_one,
                });
            }
        });
    };
    take(writer);
    if writer.outstanding() == before {
        wake.wait(TICK);
        take(writer);
    }
}

/// Adds the positions, if all their partitions are still ours: the coordinator checks member and
/// generation, but not who has a partition.
fn send_offsets(writer: &Writer, job: &Job, ends: &Ends) -> Result<(), Ended> {
    let list = raw::offsets_to_commit(job.commits.iter());
    let deadline = Instant::now() + CALL_WAIT;
    loop {
        let group = ends
            .while_ours(&job.assignments, |member| {
                GroupMetadata::of(member.client())
            })
            .flatten();
        let Some(group) = group else {
            return Err(Ended::Aborted(
                "the group took partitions of it back".to_owned(),
            ));
        };
        match writer.send_offsets(&list, &group, CALL_WAIT) {
            Ok(()) => return Ok(()),
            Err(failure) if failure.retriable && Instant::now() < deadline => {}
            Err(failure) => return Err(Ended::Aborted(failure.to_string())),
        }
    }
}

/// A record's number: its batch in the upper half, its index in the lower.
fn id(batch: usize, index: usize) -> usize {
    (batch << 32) | (index & 0xffff_ffff)
}

fn parts(id: usize) -> (usize, usize) {
    (id >> 32, id & 0xffff_ffff)
}
