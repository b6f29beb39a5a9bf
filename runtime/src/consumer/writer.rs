//! The one writer of a consumer: units are written in order, many in flight at once.
//!
//! ```text
//! units ─▶ queue ─▶ publish (in order, many in flight) ─▶ acknowledged ─▶ positions
//!            ▲              │ refused or lost
//!            └── written again, from the failed one on ◀┘
//! ```

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use tokio::time::Instant;

use super::transactions::Transacted;
use super::unit::Unit;
use crate::broker::{PublishError, Sink, TransactError};
use crate::event::TopicPartition;
use crate::mutation::{self, Mutation};

/// Waits before a failed unit is written again: doubling from the first to the second.
pub(super) const REWRITE_AFTER: (Duration, Duration) =
    (Duration::from_millis(50), Duration::from_secs(5));

type Publication = BoxFuture<'static, Result<(), PublishError>>;

/// What the writer has to say.
#[derive(Debug)]
pub enum Written {
    /// All its records are acknowledged: its offsets may be settled.
    Unit(Box<Unit>),
    /// The broker will never take a record of a unit: mend it with [`Writer::mend`].
    Refused(PublishError),
    /// Its records may or may not be written, and are not written again (at most once).
    Lost(Box<Unit>, PublishError),
    /// Units and positions took effect together (exactly once).
    Transaction(Transacted),
    /// A transaction had no effect after this time; its units wait again.
    Aborted(TransactError, Duration),
}

/// What is to be done with a unit that was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mended {
    /// It was changed: write it again.
    Write,
    /// Its partition halts at it.
    Drop,
}

/// See the module's picture.
pub struct Writer {
    sink: Arc<dyn Sink>,
    queue: VecDeque<Unit>,
    /// Of the first units of the queue, in its order.
    in_flight: VecDeque<Publication>,
    queued_bytes: usize,
    failed: Option<PublishError>,
    rewrite_at: Option<Instant>,
    rewrites: u32,
    /// Whether a unit that was not written is written again.
    again: bool,
}

impl Writer {
    /// A writer with nothing to write.
    pub fn new(sink: Arc<dyn Sink>) -> Self {
        Self {
            sink,
            queue: VecDeque::new(),
            in_flight: VecDeque::new(),
            queued_bytes: 0,
            failed: None,
            rewrite_at: None,
            rewrites: 0,
            again: true,
        }
    }

    /// A writer that writes each unit once, whatever becomes of it.
    pub fn once(sink: Arc<dyn Sink>) -> Self {
        Self {
            again: false,
            ..Self::new(sink)
        }
    }

    /// Writes a unit after those before it.
    pub fn write(&mut self, unit: Unit) {
        self.queued_bytes += unit.records.bytes();
        if self.failed.is_none() {
            self.in_flight.push_back(self.publish(&unit));
        }
        self.queue.push_back(unit);
    }

    fn publish(&self, unit: &Unit) -> Publication {
        if unit.records.is_empty() {
            return Box::pin(std::future::ready(Ok(())));
        }
        if mutation::is(Mutation::SettledBeforeAcknowledged) {
            drop(self.sink.publish(unit.records.clone()));
            return Box::pin(std::future::ready(Ok(())));
        }
        self.sink.publish(unit.records.clone())
    }

    /// Bytes of the records that wait for their acknowledgement.
    pub fn queued_bytes(&self) -> usize {
        self.queued_bytes
    }

    /// Whether units of these partitions wait.
    pub fn is_writing(&self, of: impl Fn(&TopicPartition) -> bool) -> bool {
        self.queue.iter().any(|unit| of(&unit.partition))
    }

    /// What happens next to the units; waits for ever where there is none. Dropping the future
    /// loses nothing.
    pub async fn next(&mut self) -> Written {
        loop {
            if self.failed.is_some() {
                if let Some(error) = self.settle_failure().await {
                    return Written::Refused(error);
                }
                continue;
            }
            let Some(front) = self.in_flight.front_mut() else {
                return std::future::pending().await;
            };
            let result = front.await;
            self.in_flight.pop_front();
            let result = match result {
                Err(_) if mutation::is(Mutation::FailureIgnored) => Ok(()),
                result => result,
            };
            match result {
                Ok(()) => {
                    if let Some(unit) = self.queue.pop_front() {
                        self.rewrites = 0;
                        self.queued_bytes = self.queued_bytes.saturating_sub(unit.records.bytes());
                        return Written::Unit(Box::new(unit));
                    }
                }
                Err(error) if !self.again => {
                    if let Some(unit) = self.queue.pop_front() {
                        self.queued_bytes = self.queued_bytes.saturating_sub(unit.records.bytes());
                        return Written::Lost(Box::new(unit), error);
                    }
                }
                Err(error) => {
                    let (first, longest) = REWRITE_AFTER;
                    let wait = first
                        .saturating_mul(1 << self.rewrites.min(16))
                        .min(longest);
                    self.rewrites += 1;
                    self.rewrite_at = Some(Instant::now() + wait);
                    tracing::warn!(%error, units = self.queue.len(), "a unit was not written");
                    self.failed = Some(error);
                }
            }
        }
    }

    /// Lets the publications after a failed one end, and writes all again unless the first unit
    /// must be mended before.
    async fn settle_failure(&mut self) -> Option<PublishError> {
        while let Some(publication) = self.in_flight.front_mut() {
            // Whatever became of it: it is written again behind the failed one, in order.
            let _ = publication.await;
            self.in_flight.pop_front();
        }
        if matches!(self.failed, Some(PublishError::Passing(_))) {
            if let Some(at) = self.rewrite_at {
                tokio::time::sleep_until(at).await;
            }
            self.failed = None;
            self.write_all_again();
            return None;
        }
        self.failed.clone()
    }

    fn write_all_again(&mut self) {
        if mutation::is(Mutation::RewrittenInReverse) {
            self.queue.make_contiguous().reverse();
        }
        if mutation::is(Mutation::RewriteIncomplete) && self.queue.len() > 1 {
            let publish = |unit: &Unit| self.sink.publish(unit.records.clone());
            let first = Box::pin(std::future::ready(Ok(()))) as Publication;
            let rest: Vec<_> = self.queue.iter().skip(1).map(publish).collect();
            self.in_flight.push_back(first);
            self.in_flight.extend(rest);
            return;
        }
        let again: Vec<_> = self.queue.iter().map(|unit| self.publish(unit)).collect();
        self.in_flight.extend(again);
    }

    /// Changes the unit that the broker refused, and writes it and all behind it again. Where `mend`
    /// says that it cannot be helped, it is dropped and returned with all units of its partition
    /// behind it: they must not be written before it.
    pub fn mend(&mut self, mend: impl FnOnce(&mut Unit) -> Mended) -> Vec<Unit> {
        let mut dropped = Vec::new();
        if let Some(mut unit) = self.queue.pop_front() {
            match mend(&mut unit) {
                Mended::Write => self.queue.push_front(unit),
                Mended::Drop => {
                    let assignment = unit.assignment;
                    dropped.push(unit);
                    let waiting = std::mem::take(&mut self.queue);
                    let (behind, others) = waiting
                        .into_iter()
                        .partition::<Vec<_>, _>(|unit| unit.assignment == assignment);
                    dropped.extend(behind);
                    self.queue = others.into();
                }
            }
        }
        self.queued_bytes = self.queue.iter().map(|unit| unit.records.bytes()).sum();
        self.failed = None;
        self.write_all_again();
        dropped
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broker::{Commit, CommitError};
    use crate::records::{NewRecord, Records};

    use super::super::generation;
    use super::super::work::Work;

    /// Refuses whatever goes to the topic `missing`.
    struct Picky;

    impl Sink for Picky {
        fn publish(&self, records: Arc<Records>) -> BoxFuture<'static, Result<(), PublishError>> {
            let refused = records
                .iter()
                .position(|record| **record.topic() == *"missing");
            let result = refused.map_or(Ok(()), |index| {
                Err(PublishError::Topic {
                    index,
                    topic: "missing".into(),
                    reason: "unknown".to_owned(),
                })
            });
            Box::pin(std::future::ready(result))
        }

        fn commit(&self, _: Vec<Commit>) -> BoxFuture<'static, Result<(), CommitError>> {
            Box::pin(std::future::ready(Ok(())))
        }

        fn transact(
            &self,
            _: Vec<Arc<Records>>,
            _: Vec<Commit>,
        ) -> BoxFuture<'static, Result<(), TransactError>> {
            Box::pin(std::future::ready(Ok(())))
        }
    }

    fn unit(assignment: u64, topic: &str) -> Unit {
        let mut records = Records::new();
        records.push(&topic.into(), NewRecord::default());
        Unit {
            generation: generation::tests::nobodys(),
            partition: TopicPartition::new("orders", assignment as u32),
            assignment,
            records: Arc::new(records),
            settled: Vec::new(),
            produced: Vec::new(),
            work: Work::default(),
        }
    }

    /// Past an event that could not be written, nothing of its partition may come out, and other
    /// partitions go on.
    #[tokio::test]
    async fn what_is_behind_a_unit_that_is_given_up_is_given_up_with_it() {
        let mut writer = Writer::new(Arc::new(Picky));
        for (assignment, topic) in [(1, "missing"), (2, "there"), (1, "there"), (2, "there")] {
            writer.write(unit(assignment, topic));
        }
        assert!(matches!(writer.next().await, Written::Refused(_)));
        let given_up = writer.mend(|_| Mended::Drop);
        let of: Vec<_> = given_up.iter().map(|unit| unit.assignment).collect();
        assert_eq!(of, [1, 1]);
        for _ in 0..2 {
            let Written::Unit(unit) = writer.next().await else {
                panic!("refused again")
            };
            assert_eq!(unit.assignment, 2);
        }
        assert_eq!(writer.queued_bytes(), 0);
        assert!(!writer.is_writing(|_| true));
    }
}
