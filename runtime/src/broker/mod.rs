//! The seam to a broker: what the runtime asks of one, whoever it is.
//!
//! ```text
//!            Source ── Assigned, Block, CaughtUp, Revoked ──▶ intake
//! Broker ──▶ Control ◀── hold, release ─────────────────────  intake
//!            Sink   ◀── publish records, commit progress ───  writer
//! Topics ◀── list, create, produce, read, positions ────────  command line, HTTP
//! ```
//!
//! Offsets are numbers whose meaning is the adapter's alone: they rise within a partition, and a
//! commit names those that are settled. An adapter for a broker that acknowledges deliveries one by
//! one numbers them itself and acknowledges what a commit newly covers.

pub mod embedded;
pub mod kafka;
#[cfg(test)]
pub mod memory;
pub mod names;
pub mod outbox;
pub mod partitioner;
pub mod remote;
pub mod request_key;
pub mod seek;
pub mod wake;

use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use tokio::sync::oneshot;

pub use self::request_key::RequestKey;

use crate::config::{OnLostPosition, Start, TopicPattern, TopicSettings};
use crate::decide::offsets::Progress;
use crate::event::{Block, TopicPartition};
use crate::records::Records;

/// A broker that the runtime is connected to.
pub trait Broker: Send + Sync {
    /// Joins a group and starts to fetch. Answers at once; assignments come from the source.
    ///
    /// # Errors
    /// Only for a subscription that can never work; a broker out of reach is waited for.
    fn subscribe(&self, subscription: Subscription) -> Result<Session, BrokerError>;

    /// What people and the control plane ask of the broker.
    fn topics(&self) -> Arc<dyn Topics>;

    /// Whether the broker answered lately; no I/O.
    fn up(&self) -> bool;

    /// Bytes that the broker holds on this machine's disk, and bytes free beside them; `None` where
    /// the events lie elsewhere. No I/O.
    fn store_size(&self) -> Option<(u64, u64)> {
        None
    }

    /// Waits until the broker is broken beyond repair in this process, and says how.
    fn broken(&self) -> BoxFuture<'_, BrokerError> {
        Box::pin(std::future::pending())
    }

    /// Writes what is left, closes every client and file. Sessions were closed before.
    fn close(&self) -> BoxFuture<'_, ()>;
}

/// What a consumer subscribes to.
#[derive(Clone, Debug)]
pub struct Subscription {
    /// The consumer's name, for logs and client ids.
    pub consumer: Arc<str>,
    pub group: Arc<str>,
    /// Groups whose positions this one takes over, the first that has any, in partitions where it has
    /// none: those of the consumer under other names. Before anything is consumed, and not while
    /// somebody works on in their name.
    pub previous_groups: Vec<Arc<str>>,
    pub topics: Vec<TopicPattern>,
    /// Topics that a pattern never matches: the consumer's own outputs and dead letters.
    pub excluded: Vec<Arc<str>>,
    pub start: Start,
    pub on_lost_position: OnLostPosition,
    /// How much to fetch ahead, in events and bytes; part of the consumer's budget.
    pub fetch_events: usize,
    pub fetch_bytes: usize,
    /// Whether units are written by [`Sink::transact`] (exactly once).
    pub transactional: bool,
}

/// A membership of a group, in three parts for the three who use it.
pub struct Session {
    pub source: Box<dyn Source>,
    pub control: Arc<dyn Control>,
    pub sink: Arc<dyn Sink>,
}

/// Where events come from.
pub trait Source: Send {
    /// The next thing that happened. Dropping the future loses nothing.
    fn next(&mut self) -> BoxFuture<'_, SourceEvent>;

    /// Leaves the group and closes the client. Call it after the last commit.
    fn close(self: Box<Self>) -> BoxFuture<'static, ()>;
}

/// What a [`Source`] has to say.
#[derive(Debug)]
pub enum SourceEvent {
    /// These partitions are ours from now on; their blocks follow.
    Assigned(Vec<Assignment>),
    /// These partitions are to be given up. The adapter waits, bounded in time, for `done` to be
    /// sent or dropped before it lets go; with `lost` they are gone already and nothing of them may
    /// be committed.
    Revoked {
        partitions: Vec<TopicPartition>,
        lost: bool,
        done: oneshot::Sender<()>,
    },
    /// Events of one partition, following those before.
    Block(Arc<Block>),
    /// Every event below `next` was handed over: what lies between the last event and it are
    /// offsets that no event carries (markers, aborted or compacted records).
    CaughtUp {
        partition: TopicPartition,
        next: u64,
    },
    /// Retention or truncation took events that the group had not settled; `on_lost_position` said
    /// to go on at `to`.
    Skipped {
        partition: TopicPartition,
        from: u64,
        to: u64,
    },
    /// The consumer cannot go on with this partition by itself (`on_lost_position = "stop"`).
    Halted {
        partition: TopicPartition,
        reason: String,
    },
    /// The broker refuses the subscription for good (authorization, say).
    Failed(BrokerError),
}

/// A partition that was given to us.
#[derive(Clone, Debug)]
pub struct Assignment {
    pub partition: TopicPartition,
    /// Where the group stands. The adapter fetches from `progress.next`; the intake skips the
    /// ranges above.
    pub progress: Progress,
    /// Our own membership was lost a moment ago, so that who had the partition before may have lost
    /// it in the same way, alive.
    pub after_loss: bool,
}

/// The valve of a partition. All calls return at once.
pub trait Control: Send + Sync {
    /// Hands over no event of these partitions any more; what was fetched stays fetched where the
    /// broker allows it.
    fn hold(&self, partitions: &[TopicPartition]);

    /// Hands over events of these partitions again.
    fn release(&self, partitions: &[TopicPartition]);

    /// Gives these partitions up and takes them again where the group stands by then, with an open
    /// valve. The source tells of it as of lost and assigned partitions; the group hears nothing.
    fn retake(&self, partitions: &[TopicPartition]);

    /// The ends (one past the last event that may be read) as last heard of, for the assigned
    /// partitions; a partition not heard of yet is missing.
    fn ends(&self) -> Vec<(TopicPartition, u64)>;
}

/// Where units go.
pub trait Sink: Send + Sync {
    /// Writes records and answers when the broker has acknowledged all of them. Calls are written
    /// in the order in which they were made, the futures need not be awaited for it.
    fn publish(&self, records: Arc<Records>) -> BoxFuture<'static, Result<(), PublishError>>;

    /// Moves the group's positions. Answers when the broker has stored them.
    fn commit(&self, commits: Vec<Commit>) -> BoxFuture<'static, Result<(), CommitError>>;

    /// Writes records and moves positions, all of it or nothing. Answers once the outcome is certain
    /// and visible to readers of committed events: an adapter that is in doubt finds it out first.
    /// For a subscription with [`Subscription::transactional`]; one at a time.
    fn transact(
        &self,
        records: Vec<Arc<Records>>,
        commits: Vec<Commit>,
    ) -> BoxFuture<'static, Result<(), TransactError>>;

    /// Says that the next transaction will begin with what was staged since the last one and then
    /// have these records: they may be written into it already. To be followed soon by
    /// [`Self::transact`] or [`Self::unstage`]. False where there is no room, and nothing more is to
    /// be staged before there is.
    fn stage(&self, records: &Arc<Records>) -> bool {
        let _ = records;
        true
    }

    /// Takes back what was staged since the last transaction.
    fn unstage(&self) {}
}

/// A partition's new position.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Commit {
    pub partition: TopicPartition,
    pub progress: Progress,
}

/// Why records were not written.
#[derive(Clone, Debug, thiserror::Error)]
pub enum PublishError {
    /// Nothing is known of some or all records; writing them again, in order, is the remedy.
    /// Publications made after this one, until its caller hears of it, fail too: none overtakes
    /// what is written again.
    #[error("the broker did not take the records: {0}; they are written again")]
    Passing(String),
    /// The broker will never take this record: its source event is at fault.
    #[error("the broker refuses the record for {topic}: {reason}")]
    Event {
        /// Index into the records.
        index: usize,
        topic: Arc<str>,
        reason: String,
    },
    /// The broker takes nothing for this topic (authorization, unknown topic).
    #[error("the broker refuses to write to topic {topic}: {reason}")]
    Topic {
        index: usize,
        topic: Arc<str>,
        reason: String,
    },
}

/// Why a transaction had no effect.
#[derive(Clone, Debug, thiserror::Error)]
pub enum TransactError {
    /// Again, later, with what is still ours.
    #[error("the transaction was aborted: {0}; it is tried again")]
    Aborted(String),
    /// A record is refused for good.
    #[error("the transaction was aborted: {error}")]
    Refused {
        /// Index into the records of the transaction.
        batch: usize,
        error: PublishError,
    },
}

/// Why positions did not move.
#[derive(Clone, Debug, thiserror::Error)]
pub enum CommitError {
    /// Again, later.
    #[error("the position was not committed: {0}; it is tried again")]
    Passing(String),
    /// The partitions are no longer ours.
    #[error("the position was not committed, the group has moved on: {0}")]
    Fenced(String),
}

/// What people and the control plane ask of a broker.
pub trait Topics: Send + Sync {
    /// All topics that are not the broker's own, by name.
    fn list(&self) -> BoxFuture<'_, Result<Vec<TopicInfo>, BrokerError>>;

    /// Makes a topic; false where it exists already.
    fn create<'a>(
        &'a self,
        name: &'a str,
        settings: &'a TopicSettings,
    ) -> BoxFuture<'a, Result<bool, BrokerError>>;

    /// Deletes a topic with its events; false where there is none.
    fn delete<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<bool, BrokerError>>;

    /// Writes records, all or none where the broker can, and answers once they are durable, with
    /// their places in the records' order. Missing topics are made where the broker does so.
    fn produce(&self, records: Records) -> BoxFuture<'_, Result<Vec<Place>, BrokerError>>;

    /// As [`Self::produce`], once for each key: for a day the same records under the same key write
    /// nothing and get the first answer, also after a crash. Other records under it are refused.
    ///
    /// A broker that cannot store the key together with the records refuses every key: one that is
    /// taken and then lost would let a sender believe that sending twice is safe.
    fn produce_once(
        &self,
        _records: Records,
        _key: RequestKey,
    ) -> BoxFuture<'_, Result<Vec<Place>, BrokerError>> {
        Box::pin(async {
            Err(BrokerError::Unsupported(
                "this broker cannot store `Idempotency-Key` together with the events, so it would \
                 not hold over a crash; nothing was written. Send without it, expect a repetition \
                 where you send again after a lost answer, and give events an id of your own by \
                 which their readers can tell"
                    .to_owned(),
            ))
        })
    }

    /// Reads what is there from `from` on, up to the limits (but at least one event if there is
    /// one); does not wait for more.
    fn read<'a>(
        &'a self,
        partition: &'a TopicPartition,
        from: u64,
        limits: ReadLimits,
    ) -> BoxFuture<'a, Result<Chunk, BrokerError>>;

    /// The offset of the first event with this timestamp (milliseconds) or a later one; the end
    /// where there is none.
    fn offset_at<'a>(
        &'a self,
        partition: &'a TopicPartition,
        timestamp_ms: i64,
    ) -> BoxFuture<'a, Result<u64, BrokerError>>;

    /// Where a group stands, for the partitions it has a position in.
    fn positions<'a>(
        &'a self,
        group: &'a str,
    ) -> BoxFuture<'a, Result<Vec<(TopicPartition, Progress)>, BrokerError>>;

    /// Moves positions of a group that nobody is a member of. `Refused` where it has members, who
    /// would not hear of it.
    fn set_positions<'a>(
        &'a self,
        group: &'a str,
        commits: Vec<Commit>,
    ) -> BoxFuture<'a, Result<(), BrokerError>>;
}

/// A topic and its partitions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicInfo {
    pub name: Arc<str>,
    /// By partition number.
    pub partitions: Vec<PartitionInfo>,
}

/// What a partition holds: offsets from `start` up to, not including, `end`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PartitionInfo {
    pub start: u64,
    pub end: u64,
}

/// Where a record was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    pub partition: TopicPartition,
    pub offset: u64,
}

/// How much one read may return.
#[derive(Clone, Copy, Debug)]
pub struct ReadLimits {
    pub events: usize,
    pub bytes: usize,
}

/// What a read found.
#[derive(Clone, Debug)]
pub struct Chunk {
    /// In order; may be empty.
    pub block: Arc<Block>,
    /// Where to read on.
    pub next: u64,
    /// The partition's end at the time.
    pub end: u64,
}

/// Why a broker did not do what it was asked.
#[derive(Clone, Debug, thiserror::Error)]
pub enum BrokerError {
    /// Nothing answers, or not in time; exit code 69.
    #[error("cannot reach the broker: {0}")]
    Unreachable(String),
    /// No such topic or partition.
    #[error("there is no topic {0}")]
    UnknownTopic(String),
    /// The request is at fault; the text says how.
    #[error("{0}")]
    Refused(String),
    /// The store is full, broken or held by another process.
    #[error("the broker's store: {0}")]
    Store(String),
    /// Less than `min_free_disk` is free.
    #[error("the disk is nearly full: {0}")]
    DiskFull(String),
    /// An event is larger than its topic takes.
    #[error("{0}")]
    TooLarge(String),
    /// There is no room for the request; nothing of it was done.
    #[error("{reason}")]
    Overloaded {
        reason: String,
        /// When to ask again at the soonest.
        retry_after: Duration,
    },
    /// This broker does not do such a thing at all.
    #[error("{0}")]
    Unsupported(String),
}
