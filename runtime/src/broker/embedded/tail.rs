//! The newest batches of a partition, in memory, for everyone who reads at its end.

use std::collections::VecDeque;
use std::sync::Arc;

use fjall::UserValue;
use parking_lot::Mutex;

use crate::event::Block;

/// The batches of one partition that were written last, without a gap up to its end.
#[derive(Debug, Default)]
pub struct Tail {
    entries: Mutex<VecDeque<TailBatch>>,
}

/// A batch in memory. Cloning it copies no events.
#[derive(Clone, Debug)]
pub struct TailBatch {
    pub base: u64,
    pub next: u64,
    pub value: UserValue,
    /// The events of the whole batch, decoded by the first of its readers for all.
    pub decoded: Arc<std::sync::OnceLock<Arc<Block>>>,
}

impl TailBatch {
    /// A batch of which nothing is decoded yet.
    pub fn new(base: u64, next: u64, value: UserValue) -> Self {
        Self {
            base,
            next,
            value,
            decoded: Arc::default(),
        }
    }
}

impl Tail {
    /// Adds the batch that follows the newest.
    pub fn push(&self, batch: TailBatch) {
        self.entries.lock().push_back(batch);
    }

    /// Forgets the oldest batch.
    pub fn pop(&self) {
        self.entries.lock().pop_front();
    }

    /// The batches from the one that holds `from` on, until their values have `bytes` bytes;
    /// `None` where memory does not reach back to `from`.
    pub fn from(&self, from: u64, bytes: usize) -> Option<Vec<TailBatch>> {
        let entries = self.entries.lock();
        let first = entries.partition_point(|batch| batch.next <= from);
        let held = entries.get(first).is_some_and(|batch| batch.base <= from);
        held.then(|| {
            let mut total = 0;
            let enough = |batch: &&TailBatch| {
                let wanted = total < bytes;
                total += batch.value.len();
                wanted
            };
            entries.range(first..).take_while(enough).cloned().collect()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tail() -> Tail {
        let tail = Tail::default();
        for base in [10, 20, 30] {
            tail.push(TailBatch::new(base, base + 10, UserValue::from([1; 8])));
        }
        tail
    }

    fn bases(tail: &Tail, from: u64, bytes: usize) -> Option<Vec<u64>> {
        let batches = tail.from(from, bytes)?;
        Some(batches.iter().map(|batch| batch.base).collect())
    }

    #[test]
    fn reading_begins_in_the_batch_that_holds_the_offset() {
        assert_eq!(bases(&tail(), 10, 100), Some(vec![10, 20, 30]));
        assert_eq!(bases(&tail(), 29, 100), Some(vec![20, 30]));
        assert_eq!(bases(&tail(), 9, 100), None);
        assert_eq!(bases(&tail(), 40, 100), None);
    }

    #[test]
    fn it_takes_no_more_batches_than_the_bytes_ask_for() {
        assert_eq!(bases(&tail(), 10, 9), Some(vec![10, 20]));
        assert_eq!(bases(&tail(), 10, 1), Some(vec![10]));
    }

    #[test]
    fn what_was_forgotten_is_read_from_the_store() {
        let tail = tail();
        tail.pop();
        assert_eq!(bases(&tail, 10, 100), None);
        assert_eq!(bases(&tail, 20, 1), Some(vec![20]));
    }
}
