//! Where a consumer's units go: in the order of the calls, and none past one that failed.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use futures::future::BoxFuture;
use tokio::sync::oneshot;

use super::Shared;
use super::queue::{Append, AppendError, AppendReply, Positions, Request, Transaction};
use super::session::SessionShared;
use crate::broker::{Commit, CommitError, PublishError, Sink, TransactError};
use crate::records::Records;

/// The sink of one session.
pub struct EmbeddedSink {
    pub shared: Arc<Shared>,
    pub session: Arc<SessionShared>,
    pub turns: Arc<Turns>,
}

/// Keeps the order of a sink's publications over a failure.
///
/// A publication belongs to the turn in which it was made. When one fails, all of its turn that are
/// not written yet fail too; the next turn begins when the caller hears of it. So what the caller
/// had sent before it knew never overtakes what it writes again.
#[derive(Debug)]
pub struct Turns {
    current: AtomicU64,
    /// Turns below this one failed.
    failed_below: AtomicU64,
}

impl Default for Turns {
    fn default() -> Self {
        Self {
            current: AtomicU64::new(0),
            failed_below: AtomicU64::new(0),
        }
    }
}

/// The turn of one publication.
#[derive(Clone, Debug)]
pub struct Ticket {
    turns: Arc<Turns>,
    turn: u64,
}

impl Ticket {
    /// A ticket for a publication that is made now.
    pub fn new(turns: &Arc<Turns>) -> Self {
        Self {
            turn: turns.current.load(Ordering::Acquire),
            turns: turns.clone(),
        }
    }

    /// Whether an earlier publication of this turn failed.
    pub fn failed(&self) -> bool {
        self.turn < self.turns.failed_below.load(Ordering::Acquire)
    }

    /// Fails this turn.
    pub fn fail(&self) {
        self.turns
            .failed_below
            .fetch_max(self.turn + 1, Ordering::AcqRel);
    }

    /// The caller has heard of its publication's end, or has given up on it.
    fn heard(&self) {
        if self.failed() {
            self.turns
                .current
                .fetch_max(self.turn + 1, Ordering::AcqRel);
        }
    }
}

/// Begins the next turn also where the caller drops a publication's future unheard.
struct Hearing(Ticket);

impl Drop for Hearing {
    fn drop(&mut self) {
        self.0.heard();
    }
}

impl Sink for EmbeddedSink {
    fn publish(&self, records: Arc<Records>) -> BoxFuture<'static, Result<(), PublishError>> {
        if records.is_empty() {
            return Box::pin(async { Ok(()) });
        }
        let ticket = Ticket::new(&self.turns);
        let hearing = Hearing(ticket.clone());
        let (reply, answer) = oneshot::channel();
        let request = Request::Append(Append {
            records,
            ticket: Some(ticket),
            once: None,
            reply: AppendReply::Acknowledgement(reply),
        });
        let refused = self.shared.queue.push(request).is_err();
        if refused {
            hearing.0.fail();
        }
        Box::pin(async move {
            let outcome = match answer.await {
                Ok(outcome) => outcome,
                Err(_) => {
                    hearing.0.fail();
                    return Err(PublishError::Passing(
                        "the embedded broker is closing or overloaded".to_owned(),
                    ));
                }
            };
            drop(hearing);
            outcome.map_err(PublishError::from)
        })
    }

    fn commit(&self, commits: Vec<Commit>) -> BoxFuture<'static, Result<(), CommitError>> {
        if self.session.is_closed() {
            return Box::pin(async {
                Err(CommitError::Fenced(
                    "the consumer left its group".to_owned(),
                ))
            });
        }
        let (reply, answer) = oneshot::channel();
        let request = Request::Commit(Positions {
            group: self.session.group.clone(),
            commits,
            found: false,
            reply,
        });
        // A refused request is dropped with its reply, which the answer below then shows.
        drop(self.shared.queue.push(request));
        Box::pin(async move {
            answer.await.unwrap_or_else(|_| {
                Err(CommitError::Passing(
                    "the embedded broker is closing or overloaded".to_owned(),
                ))
            })
        })
    }

    /// One request is one part of an atomic, synced batch of the store: never in doubt.
    fn transact(
        &self,
        records: Vec<Arc<Records>>,
        commits: Vec<Commit>,
    ) -> BoxFuture<'static, Result<(), TransactError>> {
        if self.session.is_closed() {
            return Box::pin(async {
                Err(TransactError::Aborted(
                    "the consumer left its group".to_owned(),
                ))
            });
        }
        let (reply, answer) = oneshot::channel();
        let request = Request::Transact(Transaction {
            records,
            group: self.session.group.clone(),
            commits,
            reply,
        });
        drop(self.shared.queue.push(request));
        Box::pin(async move {
            answer.await.unwrap_or_else(|_| {
                Err(TransactError::Aborted(
                    "the embedded broker is closing or overloaded".to_owned(),
                ))
            })
        })
    }
}

impl From<AppendError> for PublishError {
    fn from(error: AppendError) -> Self {
        match error {
            AppendError::Behind => {
                Self::Passing("records that were published before these were not taken".to_owned())
            }
            AppendError::DiskFull(reason) => Self::Passing(reason),
            AppendError::Store(error) => Self::Passing(error.to_string()),
            AppendError::Record {
                index,
                topic,
                reason,
            } => Self::Event {
                index,
                topic,
                reason,
            },
            AppendError::Topic {
                index,
                topic,
                reason,
            } => Self::Topic {
                index,
                topic,
                reason,
            },
        }
    }
}

impl AppendError {
    /// The same of a transaction, for the records at `batch`.
    pub fn of_transaction(self, batch: usize) -> TransactError {
        match PublishError::from(self) {
            PublishError::Passing(reason) => TransactError::Aborted(reason),
            error => TransactError::Refused { batch, error },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Without turns, the second of three publications would be written although the first was
    /// not, and the first would come after it when it is written again.
    #[test]
    fn a_failure_fails_its_turn_until_the_caller_heard_of_it() {
        let turns = Arc::new(Turns::default());
        let first = Ticket::new(&turns);
        let second = Ticket::new(&turns);
        first.fail();
        let third = Ticket::new(&turns);
        assert!(second.failed() && third.failed());
        drop(Hearing(first));
        let again = Ticket::new(&turns);
        assert!(!again.failed());
        drop(Hearing(second));
        assert!(!again.failed() && !Ticket::new(&turns).failed());
        assert!(third.failed());
    }
}
