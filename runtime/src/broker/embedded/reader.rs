//! Reading events: from a partition's tail in memory, else from the store. Blocks the thread.
//!
//! No reader looks past the end that the log writer published, and no iterator of the store
//! outlives a call: an open one would keep removed batches on disk.

use std::sync::Arc;

use super::catalog::Partition;
use super::codec::{BatchReader, Damaged, Take};
use super::recent::{Recent, Stretch};
use super::store::Store;
use super::tail::TailBatch;
use crate::broker::{BrokerError, ReadLimits};
use crate::event::{Block, BlockBuilder};

/// Values above this are decoded once for all their readers; smaller ones are put together to a
/// block by each.
const SHARED_BYTES: usize = 64 * 1024;

/// Of the store at least so much is unpacked at once, in blocks of at most so much: what suits most
/// limits as it is.
const STRETCH_BYTES: usize = 128 * 1024;
const STRETCH_EVENTS: u64 = 1_024;
const PIECE_BYTES: usize = 128 * 1024;
const PIECE_EVENTS: usize = 256;

/// What a read found.
pub enum Found {
    /// At least one event.
    Events { block: Arc<Block>, next: u64 },
    /// Nothing yet.
    End,
    /// Retention took the events at this offset, or they were never written.
    Lost,
}

/// The events from `from` on, up to the limits, but at least one if there is one. What was unpacked
/// beyond them is `held` for the reader's next call.
///
/// # Errors
/// The store fails, or a batch in it is damaged.
pub fn read(
    store: &Store,
    recent: &Recent,
    partition: &Partition,
    from: u64,
    limits: ReadLimits,
    held: &mut Option<Arc<Stretch>>,
) -> Result<Found, BrokerError> {
    let held_before = held.take();
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
    let unpacked = match held_before.filter(|stretch| stretch.holds(from)) {
        Some(stretch) => Ok(stretch),
        None => recent.stretch(partition, from, || stretch(store, partition, from, end)),
    };
    let stretch = match unpacked {
        Ok(stretch) => stretch,
        Err(Unread::Gone(what)) => return gone(partition, from, what),
        Err(Unread::Failed(error)) => return Err(error),
    };
    let Some((block, next)) = stretch.from(from, limits) else {
        return gone(partition, from, "the next one begins later");
    };
    *held = stretch.holds(next).then_some(stretch);
    Ok(Found::Events { block, next })
}

/// Why nothing was read from the store.
enum Unread {
    Gone(&'static str),
    Failed(BrokerError),
}

impl From<BrokerError> for Unread {
    fn from(error: BrokerError) -> Self {
        Self::Failed(error)
    }
}

/// Unpacks batches of the store from the one that holds `from` on, until they are enough.
fn stretch(store: &Store, partition: &Partition, from: u64, end: u64) -> Result<Stretch, Unread> {
    let (topic, number) = (partition.topic_id, partition.place.partition);
    let begin = store
        .batch_at(topic, number, from)?
        .map_or(from, |key| key.base);
    let take = Take {
        from: 0,
        until: end,
        events: PIECE_EVENTS,
        bytes: PIECE_BYTES,
    };
    let builder = || BlockBuilder::new(partition.place.clone(), PIECE_EVENTS, 0);
    let mut blocks = Vec::new();
    let mut block = builder();
    let (mut base, mut next, mut loaded) = (None, begin, 0);
    for batch in store.batches(topic, number, begin) {
        let (key, value) = batch?;
        let enough = loaded >= STRETCH_BYTES || next.saturating_sub(begin) >= STRETCH_EVENTS;
        // What lies behind a gap is found missing by who comes to it.
        if key.base >= end || base.is_some() && (enough || key.base != next) {
            break;
        }
        if base.is_none() && (key.base > from || key.next() <= from) {
            return Err(Unread::Gone("the next one begins later"));
        }
        loaded += value.len();
        let mut reader = match BatchReader::open(&value) {
            Ok(reader) => reader,
            // Damage behind is found by who comes to it.
            Err(_) if base.is_some() => break,
            Err(error) => return Err(damaged(partition, key.base, &error).into()),
        };
        base.get_or_insert(key.base);
        let last = key.next().min(end);
        loop {
            next = reader
                .copy_into(&mut block, take)
                .map_err(|error| damaged(partition, key.base, &error))?;
            if next >= last || block.is_empty() {
                break;
            }
            blocks.push(Arc::new(std::mem::replace(&mut block, builder()).build()));
        }
    }
    if !block.is_empty() {
        blocks.push(Arc::new(block.build()));
    }
    match base {
        Some(base) => Ok(Stretch { blocks, base, next }),
        None => Err(Unread::Gone("there is none")),
    }
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
        let mut reader = BatchReader::open(&batch.value).map_err(damaged)?;
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
    use super::super::codec::BatchWriter;
    use super::super::store::BatchKey;
    use super::*;
    use crate::config::{Durability, TopicSettings};
    use crate::records::{NewRecord, Records};

    /// Small batches make large blocks, a large one several, and none is unpacked without need.
    #[test]
    fn a_stretch_is_as_many_batches_as_are_enough() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        let record = TopicRecord::new(1, "t", &TopicSettings::default()).unwrap();
        let topic = Topic::empty("t".into(), record);
        let partition = &topic.partitions[0];
        let mut batch = store.batch(Durability::Os);
        let mut base = 0;
        for (events, damage) in [
            (100, 0),
            (100, 0),
            (600, 0),
            (600, 0),
            (10, 0),
            (10, 1),
            (10, 0),
        ] {
            let mut records = Records::new();
            for _ in 0..events {
                records.push(&topic.name, NewRecord::default());
            }
            let mut writer = BatchWriter::new(base);
            for record in records.iter() {
                writer.push(&record, 0);
            }
            let mut value = writer.finish();
            value[0] ^= damage;
            let key = BatchKey {
                topic: partition.topic_id,
                partition: partition.place.partition,
                base,
                count: events,
                max_timestamp: 0,
                running_max_timestamp: 0,
                written_ms: 0,
                bytes_end: 0,
            };
            batch.insert(&store.log, key.encode(), value);
            base += u64::from(events);
        }
        batch.commit().unwrap();
        let read = |from| match stretch(&store, partition, from, base) {
            Ok(stretch) => {
                let sizes = stretch.blocks.iter().map(|block| block.len()).collect();
                Ok((stretch.base, stretch.next, sizes))
            }
            Err(Unread::Gone(what)) => Err(what.to_owned()),
            Err(Unread::Failed(error)) => Err(error.to_string()),
        };
        assert_eq!(read(0), Ok((0, 1_400, vec![256, 256, 256, 256, 256, 120])));
        assert_eq!(
            read(150),
            Ok((100, 1_400, vec![256, 256, 256, 256, 256, 20]))
        );
        // What is damaged is found by who comes to it.
        assert_eq!(read(1_405), Ok((1_400, 1_410, vec![10])));
        assert!(read(1_410).unwrap_err().contains("damaged"));
        assert_eq!(read(1_420), Ok((1_420, 1_430, vec![10])));
        assert!(read(1_430).is_err());
    }
}
