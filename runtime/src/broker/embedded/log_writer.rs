//! The one thread that writes the log.
//!
//! ```text
//! queue ──take──▶ group ──▶ fjall batch ──commit, sync──▶ ends and tails ──▶ answers, readers wake
//! ```
//!
//! Everything that waits while a sync runs goes into the next one. Nothing is shown or answered
//! before the commit returned.

use std::collections::VecDeque;
use std::sync::Arc;

use super::Shared;
use super::answers::{Answers, Found, GroupAnswers};
use super::catalog::{Partition, Topic, TopicRecord};
use super::disk::Room;
use super::group_commit::Group;
use super::queue::{Append, AppendError, AppendReply, Positions, Request, Transaction};
use super::sink::Ticket;
use super::store::{self, BatchKey, Store, broken};
use crate::broker::{BrokerError, CommitError, Place, TransactError};
use crate::clock;
use crate::config::TopicSettings;
use crate::event::TopicPartition;
use tokio::sync::oneshot;

/// Bytes of batches that all tails together hold; as much again once their readers decoded them.
const TAIL_BYTES: usize = 32 * 1024 * 1024;

/// The log writer's own state.
pub struct LogWriter {
    shared: Arc<Shared>,
    store: Arc<Store>,
    next_topic: u32,
    answers: Answers,
    /// The partition and size of every batch that a tail holds, oldest first.
    kept: VecDeque<(Arc<Partition>, usize)>,
    kept_bytes: usize,
}

/// Who is answered when the group is durable.
enum Waiting {
    Append(AppendReply, Option<Ticket>, Vec<Place>),
    Positions(oneshot::Sender<Result<(), CommitError>>),
    Transaction(oneshot::Sender<Result<(), TransactError>>),
}

/// Lets nobody wait for a writer that has ended, however it ended.
struct Ending(Arc<Shared>);

impl Drop for Ending {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.poison("the log writer panicked");
        }
        self.0.queue.abandon();
    }
}

impl LogWriter {
    /// A writer for the store.
    ///
    /// # Errors
    /// The store fails.
    pub fn new(shared: Arc<Shared>, store: Arc<Store>) -> Result<Self, BrokerError> {
        let next = store.meta.get(store::NEXT_TOPIC).map_err(broken)?;
        let next_topic = next.and_then(|value| value.first_chunk().copied());
        Ok(Self {
            shared,
            answers: Answers::open(&store)?,
            store,
            next_topic: next_topic.map_or(1, u32::from_be_bytes),
            kept: VecDeque::new(),
            kept_bytes: 0,
        })
    }

    /// Writes until the queue is closed and empty.
    pub fn run(mut self) {
        let _ending = Ending(self.shared.clone());
        while let Some(requests) = self.shared.clone().queue.take() {
            self.handle(requests);
        }
        if let Err(error) = self.store.sync() {
            self.shared.poison(&error.to_string());
        }
    }

    fn handle(&mut self, mut requests: Vec<Request>) {
        let alone = match requests.pop() {
            Some(last @ (Request::Append(_) | Request::Commit(_) | Request::Transact(_))) => {
                requests.push(last);
                return self.write_group(requests);
            }
            Some(alone) => alone,
            None => return,
        };
        match alone {
            Request::Create {
                name,
                settings,
                reply,
            } => drop(reply.send(self.create(&name, &settings))),
            Request::Delete { name, reply } => drop(reply.send(self.delete(&name))),
            Request::Trim {
                place,
                topic,
                keys,
                start,
                reply,
            } => drop(reply.send(self.trim(&place, topic, &keys, start))),
            Request::Purge {
                topic,
                keys,
                last,
                reply,
            } => drop(reply.send(self.purge(topic, &keys, last))),
            Request::Forget { now_ms, reply } => drop(reply.send(self.forget(now_ms))),
            Request::Append(_) | Request::Commit(_) | Request::Transact(_) => {}
        }
    }

    fn write_group(&mut self, requests: Vec<Request>) {
        let (shared, store) = (self.shared.clone(), self.store.clone());
        let now_ms = clock::now_ms();
        let mut room = shared.disk.room(store.path());
        let mut group = Group::new(&shared.catalog, &shared.settings, self.next_topic, now_ms);
        let mut answers = self.answers.group(&store, now_ms);
        let mut waiting = Vec::with_capacity(requests.len());
        for request in requests {
            match request {
                Request::Append(append) => {
                    waiting.extend(add(&mut group, &mut answers, append, &mut room));
                }
                Request::Commit(positions) => waiting.extend(add_positions(&mut group, positions)),
                Request::Transact(transaction) => {
                    waiting.extend(add_transaction(&mut group, transaction, &mut room));
                }
                _ => {}
            }
        }
        let written = if group.is_empty() && answers.is_empty() {
            Ok(())
        } else {
            let mut batch = store.batch(shared.durability);
            let change = answers.write(&mut batch);
            self.commit(group, batch)
                .map(|()| self.answers.apply(&change))
        };
        for waiting in waiting {
            waiting.answer(&written);
        }
    }

    fn commit(
        &mut self,
        group: Group<'_>,
        mut batch: fjall::OwnedWriteBatch,
    ) -> Result<(), BrokerError> {
        let durable = group.write(&self.store, &mut batch)?;
        self.write(batch)?;
        self.next_topic = durable.next_topic;
        let shared = self.shared.clone();
        durable.publish(&shared.catalog, |partition, bytes| {
            self.kept.push_back((partition.clone(), bytes));
            self.kept_bytes += bytes;
        });
        while self.kept_bytes > TAIL_BYTES {
            let Some((partition, bytes)) = self.kept.pop_front() else {
                break;
            };
            partition.tail.pop();
            self.kept_bytes -= bytes;
        }
        shared.wake_sessions();
        Ok(())
    }

    fn write(&self, batch: fjall::OwnedWriteBatch) -> Result<(), BrokerError> {
        if self.shared.is_poisoned() {
            return Err(broken(fjall::Error::Poisoned));
        }
        batch.commit().map_err(|error| {
            let error = broken(error);
            self.shared.poison(&error.to_string());
            error
        })
    }

    /// Makes a topic; false where it exists already.
    ///
    /// # Errors
    /// The settings ask for what the embedded broker does not do, or the store fails.
    pub fn create(
        &mut self,
        name: &Arc<str>,
        settings: &TopicSettings,
    ) -> Result<bool, BrokerError> {
        if self.shared.catalog.get(name).is_some() {
            return Ok(false);
        }
        let record = TopicRecord::new(self.next_topic, name, settings)?;
        let mut batch = self.store.batch(self.shared.durability);
        batch.insert(&self.store.meta, store::topic_key(name), record.encode()?);
        let next_topic = self.next_topic + 1;
        batch.insert(
            &self.store.meta,
            store::NEXT_TOPIC,
            next_topic.to_be_bytes(),
        );
        self.write(batch)?;
        self.next_topic = next_topic;
        let topic = Topic::empty(name.clone(), record);
        self.shared.catalog.insert(Arc::new(topic));
        self.shared.wake_sessions();
        Ok(true)
    }

    /// Takes the topic and all positions in it out at once; its events are removed bit by bit by
    /// the keeper, which finds the mark left here even after a crash.
    fn delete(&mut self, name: &str) -> Result<bool, BrokerError> {
        let Some(topic) = self.shared.catalog.get(name) else {
            return Ok(false);
        };
        let id = topic.record.id;
        let mut batch = self.store.batch(self.shared.durability);
        batch.remove(&self.store.meta, store::topic_key(name));
        batch.insert(
            &self.store.meta,
            store::deleted_key(id),
            topic.record.partitions.to_be_bytes(),
        );
        for partition in 0..topic.record.partitions {
            batch.remove(&self.store.meta, store::start_key(id, partition));
        }
        for guard in self.store.positions.iter() {
            let key = guard.key().map_err(broken)?;
            if store::position_of(&key).is_some_and(|(topic, _)| topic == id) {
                batch.remove(&self.store.positions, key);
            }
        }
        self.write(batch)?;
        self.shared.catalog.remove(name);
        self.shared.wake_sessions();
        self.shared.keeper.wake();
        Ok(true)
    }

    fn trim(
        &mut self,
        place: &TopicPartition,
        topic: u32,
        keys: &[BatchKey],
        start: u64,
    ) -> Result<(), BrokerError> {
        let partition = self.shared.catalog.partition(place)?;
        if partition.topic_id != topic {
            return Err(BrokerError::UnknownTopic(place.topic.to_string()));
        }
        // Hidden first: a reader that finds a gap must know it for a loss by retention.
        partition.publish_start(start);
        let mut batch = self.store.batch(self.shared.durability);
        for key in keys {
            batch.remove(&self.store.log, key.encode());
        }
        batch.insert(
            &self.store.meta,
            store::start_key(topic, place.partition),
            start.to_be_bytes(),
        );
        self.write(batch)?;
        self.shared.wake_sessions();
        Ok(())
    }

    fn purge(&mut self, topic: u32, keys: &[BatchKey], last: bool) -> Result<(), BrokerError> {
        let mut batch = self.store.batch(self.shared.durability);
        for key in keys {
            batch.remove(&self.store.log, key.encode());
        }
        if last {
            batch.remove(&self.store.meta, store::deleted_key(topic));
        }
        self.write(batch)
    }

    /// Removes answers that are too old, and answers how many.
    fn forget(&mut self, now_ms: i64) -> Result<usize, BrokerError> {
        let mut batch = self.store.batch(self.shared.durability);
        let change = self.answers.forget(&self.store, now_ms, &mut batch)?;
        if change.forgotten > 0 {
            self.write(batch)?;
        }
        self.answers.apply(&change);
        Ok(change.forgotten)
    }
}

fn add(
    group: &mut Group<'_>,
    answers: &mut GroupAnswers<'_>,
    append: Append,
    room: &mut Room<'_>,
) -> Option<Waiting> {
    let added = append_once(group, answers, &append, room);
    let Append { ticket, reply, .. } = append;
    match added {
        Ok(places) => Some(Waiting::Append(reply, ticket, places)),
        Err(error) => {
            reply.fail(ticket.as_ref(), error);
            None
        }
    }
}

/// Adds the records of an append, unless they were written under its key before.
fn append_once(
    group: &mut Group<'_>,
    answers: &mut GroupAnswers<'_>,
    append: &Append,
    room: &mut Room<'_>,
) -> Result<Vec<Place>, AppendError> {
    let Append {
        records,
        ticket,
        once,
        reply,
    } = append;
    if ticket.as_ref().is_some_and(Ticket::failed) {
        return Err(AppendError::Behind);
    }
    let new = match once {
        None => None,
        Some(once) => match answers.find(once).map_err(AppendError::Store)? {
            Found::Answer(places) => return Ok(places),
            Found::New(new) => Some((once, new)),
        },
    };
    room.take(records.bytes()).map_err(AppendError::DiskFull)?;
    let places = group.append(records, matches!(reply, AppendReply::Places(_)))?;
    if let Some((once, new)) = new {
        answers.keep(once, &new, &places);
    }
    Ok(places)
}

fn add_positions(group: &mut Group<'_>, positions: Positions) -> Option<Waiting> {
    match group.commit(&positions) {
        Ok(()) => Some(Waiting::Positions(positions.reply)),
        Err(error) => {
            // Who does not wait for the answer does not want it.
            drop(positions.reply.send(Err(error)));
            None
        }
    }
}

fn add_transaction(
    group: &mut Group<'_>,
    transaction: Transaction,
    room: &mut Room<'_>,
) -> Option<Waiting> {
    let Transaction {
        records,
        group: name,
        commits,
        reply,
    } = transaction;
    let bytes: usize = records.iter().map(|records| records.bytes()).sum();
    // Positions alone take next to nothing, and move on a full disk too.
    let room = match bytes {
        0 => Ok(()),
        _ => room.take(bytes).map_err(TransactError::Aborted),
    };
    let added = room.and_then(|()| group.transact(&records, &name, &commits));
    match added {
        Ok(()) => Some(Waiting::Transaction(reply)),
        Err(error) => {
            drop(reply.send(Err(error)));
            None
        }
    }
}

impl AppendReply {
    /// The ticket fails before the answer is sent: the caller must not get ahead of it.
    fn fail(self, ticket: Option<&Ticket>, error: AppendError) {
        if let Some(ticket) = ticket {
            ticket.fail();
        }
        match self {
            Self::Places(reply) => drop(reply.send(Err(error))),
            Self::Acknowledgement(reply) => drop(reply.send(Err(error))),
        }
    }
}

impl Waiting {
    fn answer(self, written: &Result<(), BrokerError>) {
        match (self, written) {
            (Self::Append(AppendReply::Places(reply), _, places), Ok(())) => {
                drop(reply.send(Ok(places)));
            }
            (Self::Append(AppendReply::Acknowledgement(reply), ..), Ok(())) => {
                drop(reply.send(Ok(())));
            }
            (Self::Append(reply, ticket, _), Err(error)) => {
                reply.fail(ticket.as_ref(), AppendError::Store(error.clone()));
            }
            (Self::Transaction(reply), Ok(())) => drop(reply.send(Ok(()))),
            (Self::Transaction(reply), Err(error)) => {
                drop(reply.send(Err(TransactError::Aborted(error.to_string()))));
            }
            (Self::Positions(reply), Ok(())) => drop(reply.send(Ok(()))),
            (Self::Positions(reply), Err(error)) => {
                drop(reply.send(Err(CommitError::Passing(error.to_string()))));
            }
        }
    }
}
