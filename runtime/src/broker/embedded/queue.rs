//! What waits for the log writer.
//!
//! Appends and positions that wait together are taken together: one sync serves them all. What
//! changes topics or removes events is taken alone, so that a group never sees a topic come or go.

use std::collections::VecDeque;
use std::sync::Arc;

use parking_lot::{Condvar, Mutex};
use tokio::sync::oneshot;

use super::store::BatchKey;
use crate::broker::{BrokerError, Commit, CommitError, Place, TransactError};
use crate::config::TopicSettings;
use crate::event::TopicPartition;
use crate::records::Records;

/// Requests beyond this are refused: their senders do not wait for answers as they should.
const MOST_REQUESTS: usize = 65_536;
/// Bytes that one group takes, so that a sync's latency and the memory for it stay bounded.
const GROUP_BYTES: usize = 16 * 1024 * 1024;
/// Requests that one group takes.
const GROUP_REQUESTS: usize = 4_096;

/// Work for the log writer.
pub enum Request {
    Append(Append),
    Commit(Positions),
    /// Records and positions, all or nothing.
    Transact(Transaction),
    Create {
        name: Arc<str>,
        settings: TopicSettings,
        reply: oneshot::Sender<Result<bool, BrokerError>>,
    },
    Delete {
        name: Arc<str>,
        reply: oneshot::Sender<Result<bool, BrokerError>>,
    },
    /// Removes the oldest batches of a partition, which then begins at `start`.
    Trim {
        place: TopicPartition,
        topic: u32,
        keys: Vec<BatchKey>,
        start: u64,
        reply: oneshot::Sender<Result<(), BrokerError>>,
    },
    /// Removes batches of a deleted topic; with `last` the memory of the topic too.
    Purge {
        topic: u32,
        keys: Vec<BatchKey>,
        last: bool,
        reply: oneshot::Sender<Result<(), BrokerError>>,
    },
    /// Removes answers to requests with a key that are too old at this time, so many as go at once,
    /// and answers how many.
    Forget {
        now_ms: i64,
        reply: oneshot::Sender<Result<usize, BrokerError>>,
    },
}

/// Records to write, all or none.
pub struct Append {
    pub records: Arc<Records>,
    /// Fails together with appends of the same sink that were made before it.
    pub ticket: Option<super::sink::Ticket>,
    /// Writes once for this key, and else gets the first answer.
    pub once: Option<super::answers::Once>,
    pub reply: AppendReply,
}

/// Records of one consumer, and the positions that go with them.
pub struct Transaction {
    pub records: Vec<Arc<Records>>,
    pub group: Arc<str>,
    pub commits: Vec<Commit>,
    pub reply: oneshot::Sender<Result<(), TransactError>>,
}

/// Who waits for an append.
pub enum AppendReply {
    Places(oneshot::Sender<Result<Vec<Place>, AppendError>>),
    Acknowledgement(oneshot::Sender<Result<(), AppendError>>),
}

/// Why records were not written.
#[derive(Clone, Debug)]
pub enum AppendError {
    /// An append of the same sink that was made before failed.
    Behind,
    DiskFull(String),
    /// For a reason that is none of the records'.
    Store(BrokerError),
    /// The record at this index.
    Record {
        index: usize,
        topic: Arc<str>,
        reason: String,
    },
    /// The topic of the record at this index.
    Topic {
        index: usize,
        topic: Arc<str>,
        reason: String,
    },
}

/// Positions to move.
pub struct Positions {
    pub group: Arc<str>,
    pub commits: Vec<Commit>,
    /// Remember that the group was seen.
    pub found: bool,
    pub reply: oneshot::Sender<Result<(), CommitError>>,
}

impl Request {
    fn is_data(&self) -> bool {
        matches!(self, Self::Append(_) | Self::Commit(_) | Self::Transact(_))
    }

    fn bytes(&self) -> usize {
        match self {
            Self::Append(append) => append.records.bytes(),
            Self::Transact(transaction) => {
                let records = transaction.records.iter();
                records.map(|records| records.bytes()).sum()
            }
            _ => 0,
        }
    }
}

/// The requests, in the order in which they were made.
#[derive(Default)]
pub struct Queue {
    state: Mutex<State>,
    arrived: Condvar,
}

#[derive(Default)]
struct State {
    requests: VecDeque<Request>,
    closed: bool,
}

impl Queue {
    /// Adds a request; hands it back where the writer has ended or far too many wait.
    pub fn push(&self, request: Request) -> Result<(), Request> {
        let mut state = self.state.lock();
        if state.closed || state.requests.len() >= MOST_REQUESTS {
            return Err(request);
        }
        state.requests.push_back(request);
        drop(state);
        self.arrived.notify_one();
        Ok(())
    }

    /// Waits for requests and takes those that go together; `None` once the queue is closed and
    /// empty.
    pub fn take(&self) -> Option<Vec<Request>> {
        let mut state = self.state.lock();
        while state.requests.is_empty() {
            if state.closed {
                return None;
            }
            self.arrived.wait(&mut state);
        }
        let mut taken = Vec::new();
        let mut bytes = 0;
        while let Some(next) = state.requests.pop_front() {
            let alone = !next.is_data();
            let size = next.bytes();
            let fits = bytes + size <= GROUP_BYTES && taken.len() < GROUP_REQUESTS && !alone;
            if !taken.is_empty() && !fits {
                state.requests.push_front(next);
                break;
            }
            bytes += size;
            taken.push(next);
            if alone {
                break;
            }
        }
        Some(taken)
    }

    /// Takes no more requests; those that wait are still handed out.
    pub fn close(&self) {
        self.state.lock().closed = true;
        self.arrived.notify_all();
    }

    /// Closes and drops what waits, so that nobody waits for an answer for ever.
    pub fn abandon(&self) {
        let mut state = self.state.lock();
        state.closed = true;
        let requests = std::mem::take(&mut state.requests);
        drop(state);
        drop(requests);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn commit(group: &str) -> Request {
        Request::Commit(Positions {
            group: group.into(),
            commits: Vec::new(),
            found: false,
            reply: oneshot::channel().0,
        })
    }

    fn delete(name: &str) -> Request {
        Request::Delete {
            name: name.into(),
            reply: oneshot::channel().0,
        }
    }

    fn names(requests: &[Request]) -> Vec<&str> {
        let name = |request: &Request| match request {
            Request::Commit(Positions { group, .. }) => Some(group.clone()),
            Request::Delete { name, .. } => Some(name.clone()),
            _ => None,
        };
        let known = ["a", "b", "c", "d"];
        requests
            .iter()
            .filter_map(|r| known.into_iter().find(|k| Some(*k) == name(r).as_deref()))
            .collect()
    }

    /// A topic that vanished in the middle of a group would take acknowledged events along.
    #[test]
    fn changes_of_topics_are_taken_alone_and_in_their_place() {
        let queue = Queue::default();
        for request in [commit("a"), commit("b"), delete("c"), commit("d")] {
            assert!(queue.push(request).is_ok());
        }
        assert_eq!(names(&queue.take().unwrap()), ["a", "b"]);
        assert_eq!(names(&queue.take().unwrap()), ["c"]);
        assert_eq!(names(&queue.take().unwrap()), ["d"]);
    }

    #[test]
    fn a_closed_queue_hands_out_the_rest_and_takes_nothing() {
        let queue = Queue::default();
        assert!(queue.push(commit("a")).is_ok());
        queue.close();
        assert!(queue.push(commit("b")).is_err());
        assert_eq!(names(&queue.take().unwrap()), ["a"]);
        assert!(queue.take().is_none());
    }
}
