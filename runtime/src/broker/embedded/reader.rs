//! Reading events: from a partition's tail in memory, else from the store. Blocks the thread.
//!
//! No reader looks past the end that the log writer published, and no iterator of the store
//! outlives a call: an open one would keep removed batches on disk.

use std::sync::Arc;

use super::catalog::Partition;
use super::codec::{BatchReader, Damaged, Take};
use super::recent::{Place, Read, Recent};
use super::store::Store;
use super::tail::TailBatch;
use crate::broker::{BrokerError, ReadLimits};
use crate::event::{Block, BlockBuilder};

/// Values above this are decoded once for all their readers; smaller ones are put together to a
/// block by each.
const SHARED_BYTES: usize = 64 * 1024;

/// What a read found.
pub enum Found {
    /// At least one event.
    Events { block: Arc<Block>, next: u64 },
    /// Nothing yet.
    End,
    /// Retention took the events at this offset, or they were never written.
    Lost,
}

/// The events from `from` on, up to the limits, but at least one if there is one. With `recent`, what
/// is read from the store of a partition that several sessions read is shared with them.
///
/// # Errors
/// The store fails, or a batch in it is damaged.
pub fn read(
    store: &Store,
    recent: Option<&Recent>,
    partition: &Partition,
    from: u64,
    limits: ReadLimits,
) -> Result<Found, BrokerError> {
    let end = partition.end();
    if from < partition.start() || from > end {
        return Ok(Found::Lost);
    }
    if from == end {
        return Ok(Found::End);
    }
    if let Some(batches) = partition.tail.from(from, limits.bytes) {
        return unpack(partition, &batches, from, end, limits);
    }
    let recent = recent.filter(|_| partition.is_shared());
    let mut limits = limits;
    match recent.map_or(Place::Unknown, |kept| kept.find(partition, from, limits)) {
        Place::Begins(Read { block, next }) => return Ok(Found::Events { block, next }),
        Place::Within(until) => limits.events = limits.events.min((until - from) as usize),
        Place::Unknown => {}
    }
    let batches = stored(store, partition, from, end, limits)?;
    let found = unpack(partition, &batches, from, end, limits)?;
    if let (Some(recent), Found::Events { block, next }) = (recent, &found) {
        let (block, next) = (block.clone(), *next);
        recent.keep(partition, from, Read { block, next });
    }
    Ok(found)
}

/// The events of batches from `from` on.
fn unpack(
    partition: &Partition,
    batches: &[TailBatch],
    from: u64,
    end: u64,
    limits: ReadLimits,
) -> Result<Found, BrokerError> {
    let Some(first) = batches.first() else {
        return gone(partition, from, "there is none");
    };
    if first.base > from {
        return gone(partition, from, "the next one begins later");
    }
    let damaged = |e: Damaged| damaged(partition, first.base, &e);
    if let Some(block) = whole(partition, first, from, end, limits).map_err(damaged)? {
        return Ok(Found::Events {
            block,
            next: first.next,
        });
    }
    let bytes: usize = batches.iter().map(|batch| batch.value.len()).sum();
    let mut block = BlockBuilder::new(partition.place.clone(), 0, bytes.min(limits.bytes));
    let mut next = from;
    for batch in batches {
        let take = Take {
            from,
            until: end,
            events: limits.events.max(1),
            bytes: limits.bytes,
        };
        let reader = BatchReader::open(&batch.value).map_err(damaged)?;
        next = reader.copy_into(&mut block, take).map_err(damaged)?;
        if next < reader.next() {
            break;
        }
    }
    Ok(Found::Events {
        block: Arc::new(block.build()),
        next,
    })
}

/// The whole batch as the block that all readers of the tail share, where the limits allow it.
fn whole(
    partition: &Partition,
    batch: &TailBatch,
    from: u64,
    end: u64,
    limits: ReadLimits,
) -> Result<Option<Arc<Block>>, Damaged> {
    let count = batch.next - batch.base;
    let fits = batch.base == from
        && batch.next <= end
        && batch.value.len() >= SHARED_BYTES
        && count <= limits.events as u64;
    if !fits {
        return Ok(None);
    }
    let block = match batch.decoded.get() {
        Some(block) => block.clone(),
        None => {
            let mut block =
                BlockBuilder::new(partition.place.clone(), count as usize, batch.value.len());
            let take = Take {
                from,
                until: u64::MAX,
                events: usize::MAX,
                bytes: usize::MAX,
            };
            BatchReader::open(&batch.value)?.copy_into(&mut block, take)?;
            // Two readers may come first at once; either's block will do.
            batch
                .decoded
                .get_or_init(|| Arc::new(block.build()))
                .clone()
        }
    };
    Ok((block.bytes() <= limits.bytes).then_some(block))
}

/// Batches of the store from the one that holds `from` on, no more than the limits ask for: each is read
/// from a file and unpacked, and what is not taken of it is read again by the next call.
fn stored(
    store: &Store,
    partition: &Partition,
    from: u64,
    end: u64,
    limits: ReadLimits,
) -> Result<Vec<TailBatch>, BrokerError> {
    let (topic, number) = (partition.topic_id, partition.place.partition);
    let mut batches = store.batches(topic, number, from).peekable();
    let begins_there = matches!(batches.peek(), Some(Ok((key, _))) if key.base == from);
    if !begins_there && let Some(key) = store.batch_at(topic, number, from)? {
        batches = store.batches(topic, number, key.base).peekable();
    }
    let mut found = Vec::new();
    let mut total = 0;
    for batch in batches {
        let (key, value) = batch?;
        if key.next() <= from || key.base >= end {
            break;
        }
        total += value.len();
        found.push(TailBatch::new(key.base, key.next(), value));
        let enough =
            total >= limits.bytes || key.next().saturating_sub(from) >= limits.events as u64;
        if enough || key.next() >= end {
            break;
        }
    }
    Ok(found)
}

/// Events are missing although the partition's end says that they were written.
fn gone(partition: &Partition, from: u64, what: &str) -> Result<Found, BrokerError> {
    if from < partition.start() {
        return Ok(Found::Lost);
    }
    Err(BrokerError::Store(format!(
        "the batch at {} offset {from} is missing ({what}): the store is damaged; restore it from \
         a backup, or delete the topic",
        partition.place
    )))
}

fn damaged(partition: &Partition, base: u64, error: &Damaged) -> BrokerError {
    BrokerError::Store(format!(
        "the batch at {} offset {base} is damaged: {error}; check the disk, and restore the store \
         from a backup or delete the topic",
        partition.place
    ))
}

/// The offset of the first event with this timestamp or a later one; the end where there is none.
///
/// # Errors
/// As [`read`].
pub fn offset_at(
    store: &Store,
    partition: &Partition,
    timestamp_ms: i64,
) -> Result<u64, BrokerError> {
    let (topic, number) = (partition.topic_id, partition.place.partition);
    let (start, end) = (partition.start(), partition.end());
    // Timestamps are the producers' and may go back, but the largest so far never does: the first
    // batch that reaches the wanted time is found by halves.
    let (mut low, mut high) = (start, end);
    while low < high {
        let middle = low + (high - low) / 2;
        match store.batch_at(topic, number, middle)? {
            Some(key) if key.base >= start && key.running_max_timestamp < timestamp_ms => {
                low = key.next().max(middle + 1);
            }
            Some(key) => high = key.base.clamp(low, middle),
            None => high = middle,
        }
    }
    // What reached it first may have been removed since; then a later batch holds the event.
    for key in store.keys(topic, number, low) {
        let key = key?;
        if key.base >= end {
            break;
        }
        if key.max_timestamp < timestamp_ms {
            continue;
        }
        let Some((_, value)) = store.batches(topic, number, key.base).next().transpose()? else {
            break;
        };
        let reader = BatchReader::open(&value).map_err(|e| damaged(partition, key.base, &e))?;
        let first = reader
            .first_at(timestamp_ms)
            .map_err(|e| damaged(partition, key.base, &e))?;
        if let Some(offset) = first {
            return Ok(offset);
        }
    }
    Ok(end)
}

#[cfg(test)]
mod tests {
    use super::super::catalog::{Topic, TopicRecord};
    use super::super::store::BatchKey;
    use super::*;
    use crate::config::{Durability, TopicSettings};

    #[test]
    fn no_more_is_loaded_than_the_limits_ask_for() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        let record = TopicRecord::new(1, "t", &TopicSettings::default()).unwrap();
        let topic = Topic::empty("t".into(), record);
        let partition = &topic.partitions[0];
        let mut batch = store.batch(Durability::Os);
        for base in [0, 10, 20, 30] {
            let key = BatchKey {
                topic: partition.topic_id,
                partition: partition.place.partition,
                base,
                count: 10,
                max_timestamp: 0,
                running_max_timestamp: 0,
                written_ms: 0,
                bytes_end: 0,
            };
            batch.insert(&store.log, key.encode(), [0; 100].as_slice());
        }
        batch.commit().unwrap();
        let loaded = |from, events, bytes| -> Vec<u64> {
            let limits = ReadLimits { events, bytes };
            let batches = stored(&store, partition, from, 40, limits).unwrap();
            batches.iter().map(|batch| batch.base).collect()
        };
        let many = usize::MAX;
        assert_eq!(loaded(0, many, many), [0, 10, 20, 30]);
        assert_eq!(loaded(0, many, 101), [0, 10]);
        assert_eq!(loaded(0, 5, many), [0]);
        assert_eq!(loaded(15, 5, many), [10]);
        assert_eq!(loaded(15, 6, many), [10, 20]);
        assert_eq!(loaded(10, 0, 0), [10]);
    }
}
