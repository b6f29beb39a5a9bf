//! What a producer was asked to write, from the request to its answer.

use std::sync::Arc;

use parking_lot::Mutex;
use rdkafka::error::RDKafkaErrorCode;
use tokio::sync::oneshot;

use crate::broker::{Place, PublishError};
use crate::event::TopicPartition;
use crate::records::Records;

/// How a publication ended.
pub(super) type Outcome = Result<Vec<Place>, Failure>;

/// A failed publication. Nothing more is taken before its error has reached the caller, who writes
/// this and all later publications again: what came between would overtake them.
pub(super) struct Failure {
    pub(super) error: PublishError,
    /// Dropped once the caller has the error, or is gone.
    _key: Option<Key>,
}

impl Failure {
    pub(super) fn new(error: PublishError, key: Option<Key>) -> Self {
        Self { error, _key: key }
    }
}

/// Whether publications are taken.
#[derive(Default)]
pub(super) struct Gate {
    /// How many keys are out there.
    closed: Mutex<usize>,
}

impl Gate {
    pub(super) fn is_open(&self) -> bool {
        *self.closed.lock() == 0
    }

    /// Closes the gate until the key is dropped.
    pub(super) fn close(self: &Arc<Self>) -> Key {
        *self.closed.lock() += 1;
        Key(self.clone())
    }
}

/// Opens the gate when dropped.
pub(super) struct Key(Arc<Gate>);

impl Drop for Key {
    fn drop(&mut self) {
        let mut closed = self.0.closed.lock();
        *closed = closed.saturating_sub(1);
    }
}

/// Records under way to the broker.
pub(super) struct Publication {
    pub(super) records: Arc<Records>,
    reply: Option<oneshot::Sender<Outcome>>,
    /// The next record to hand to librdkafka.
    pub(super) next: usize,
    /// Which records were acknowledged, a bit each.
    acknowledged: Vec<u64>,
    left: usize,
    /// Where they were written, where the caller wants to know.
    places: Option<Vec<Place>>,
    /// One record at a time, to find the one that the broker refuses.
    pub(super) one_by_one: bool,
}

impl Publication {
    pub(super) fn new(
        records: Arc<Records>,
        reply: oneshot::Sender<Outcome>,
        wants_places: bool,
    ) -> Self {
        let count = records.len();
        let places = wants_places.then(|| {
            records
                .iter()
                .map(|record| Place {
                    partition: TopicPartition {
                        topic: record.topic().clone(),
                        partition: 0,
                    },
                    offset: 0,
                })
                .collect()
        });
        Self {
            records,
            reply: Some(reply),
            next: 0,
            acknowledged: vec![0; count.div_ceil(64)],
            left: count,
            places,
            one_by_one: false,
        }
    }

    /// Notes that the broker has the record at `index`.
    pub(super) fn acknowledge(&mut self, index: usize, partition: i32, offset: i64) {
        let Some(bits) = self.acknowledged.get_mut(index / 64) else {
            return;
        };
        let bit = 1 << (index % 64);
        if *bits & bit != 0 {
            return;
        }
        *bits |= bit;
        self.left = self.left.saturating_sub(1);
        if let Some(place) = self
            .places
            .as_mut()
            .and_then(|places| places.get_mut(index))
        {
            place.partition.partition = u32::try_from(partition).unwrap_or(0);
            place.offset = u64::try_from(offset).unwrap_or(0);
        }
    }

    /// Whether all was handed to librdkafka.
    pub(super) fn sent(&self) -> bool {
        self.next >= self.records.len()
    }

    /// Whether the broker has everything.
    pub(super) fn complete(&self) -> bool {
        self.left == 0
    }

    /// Whether the next record may be handed over: one by one, only once those before are there.
    pub(super) fn may_send(&self) -> bool {
        !self.sent() && (!self.one_by_one || self.next == self.records.len() - self.left)
    }

    /// Starts again, one record at a time.
    pub(super) fn isolate(&mut self) {
        self.one_by_one = true;
        self.restart();
    }

    /// Starts again from the first record that the broker does not have. Later ones that it has
    /// are written twice, for else they would stand before those.
    pub(super) fn restart(&mut self) {
        let count = self.records.len();
        let first = (0..count)
            .find(|index| self.acknowledged[index / 64] & (1 << (index % 64)) == 0)
            .unwrap_or(count);
        for index in first..count {
            self.acknowledged[index / 64] &= !(1 << (index % 64));
        }
        self.next = first;
        self.left = count - first;
    }

    /// Whether the answer was given.
    pub(super) fn answered(&self) -> bool {
        self.reply.is_none()
    }

    pub(super) fn succeed(&mut self) {
        if let Some(reply) = self.reply.take() {
            // Nobody may listen any more.
            let _ = reply.send(Ok(self.places.take().unwrap_or_default()));
        }
    }

    pub(super) fn fail(&mut self, error: PublishError, key: Option<Key>) {
        if let Some(reply) = self.reply.take() {
            let _ = reply.send(Err(Failure::new(error, key)));
        }
    }

    /// The error that blames the record at `index`.
    pub(super) fn error_of(&self, index: usize, code: RDKafkaErrorCode) -> PublishError {
        match (index < self.records.len()).then(|| self.records.get(index)) {
            Some(record) => super::errors::publish_error(index, record.topic(), code),
            None => PublishError::Passing(code.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::records::NewRecord;

    fn publication(count: usize) -> Publication {
        let topic: Arc<str> = "t".into();
        let mut records = Records::new();
        for _ in 0..count {
            records.push(&topic, NewRecord::default());
        }
        Publication::new(Arc::new(records), oneshot::channel().0, true)
    }

    #[test]
    fn it_is_complete_when_each_record_was_acknowledged_once() {
        let mut publication = publication(70);
        for index in 0..69 {
            publication.acknowledge(index, 0, 0);
            publication.acknowledge(index, 0, 0);
        }
        assert!(!publication.complete());
        publication.acknowledge(69, 2, 5);
        assert!(publication.complete());
    }

    /// A record that is sent before the one in front of it was taken could be blamed for it.
    #[test]
    fn one_by_one_the_next_record_waits_for_the_last() {
        let mut publication = publication(3);
        publication.next = 3;
        publication.acknowledge(0, 0, 0);
        publication.acknowledge(2, 0, 0);
        publication.isolate();
        assert_eq!(publication.next, 1);
        assert!(publication.may_send());
        publication.next = 2;
        assert!(!publication.may_send());
        publication.acknowledge(1, 0, 0);
        assert!(publication.may_send());
        assert!(!publication.complete());
    }

    /// With the gate open a later publication would overtake those that are written again.
    #[test]
    fn the_gate_opens_when_the_caller_has_the_error() {
        let gate = Arc::new(Gate::default());
        let (reply, mut answer) = oneshot::channel();
        let mut publication = publication(1);
        publication.reply = Some(reply);
        publication.fail(PublishError::Passing("x".into()), Some(gate.close()));
        assert!(!gate.is_open());
        drop(answer.try_recv());
        assert!(gate.is_open());
    }
}
