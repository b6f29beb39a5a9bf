//! The thread that removes what is too old or too much, whole batches at a time.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};
use tokio::sync::oneshot;

use super::catalog::{Partition, TopicRecord};
use super::queue::Request;
use super::store::{self, BatchKey, Store, broken};
use super::{Shared, disk};
use crate::broker::BrokerError;
use crate::clock;

/// How often retention looks at every partition.
const PERIOD: Duration = Duration::from_secs(30);
/// Batches that one request removes, so that the log writer is never held up for long.
const CHUNK: usize = 4_096;
/// Disk space is given back after so many bytes were removed. They are counted between the ends of
/// the first and the last batch of a chunk, which is near enough for that.
const RECLAIM_BYTES: u64 = 64 * 1024 * 1024;
/// And not before they are this part of the store, as the pass costs by the store's size.
const RECLAIM_SHARE: u64 = 10;

/// The bell of the keeper's thread.
#[derive(Default)]
pub struct Keeper {
    state: Mutex<State>,
    rung: Condvar,
}

#[derive(Default)]
struct State {
    rung: bool,
    closed: bool,
}

impl Keeper {
    /// Lets the keeper look at once.
    pub fn wake(&self) {
        self.state.lock().rung = true;
        self.rung.notify_all();
    }

    /// Ends the keeper.
    pub fn close(&self) {
        self.state.lock().closed = true;
        self.rung.notify_all();
    }

    fn is_closed(&self) -> bool {
        self.state.lock().closed
    }

    /// Waits for a period or the bell; false once closed.
    fn wait(&self) -> bool {
        let mut state = self.state.lock();
        if !state.rung && !state.closed {
            self.rung.wait_for(&mut state, PERIOD);
        }
        state.rung = false;
        !state.closed
    }
}

/// Keeps the store within the topics' retention until the keeper is closed.
pub fn run(shared: &Arc<Shared>) {
    let mut removed = 0;
    loop {
        measure(shared);
        match keep(shared, clock::now_ms()) {
            Ok(bytes) => removed += bytes,
            // The end cuts a round short; the next start does what is left.
            Err(_) if shared.keeper.is_closed() => return,
            // Said once a period; what fails is tried again.
            Err(error) => tracing::warn!(%error, "retention could not remove events"),
        }
        match shared.store().and_then(|store| reclaim(&store, removed)) {
            Ok(true) => removed = 0,
            Ok(false) => {}
            Err(error) => tracing::warn!(%error, "disk space could not be given back"),
        }
        if !shared.keeper.wait() {
            return;
        }
    }
}

/// Measures the store for those who may not wait for the disk.
fn measure(shared: &Shared) {
    let Ok(store) = shared.store() else {
        return;
    };
    if let (Ok(bytes), Some(free)) = (store.disk_bytes(), disk::free_bytes(store.path())) {
        *shared.size.lock() = Some((bytes, free));
    }
}

/// Gives disk space back where that is worth a pass over the log; whether it did.
fn reclaim(store: &Store, removed: u64) -> Result<bool, BrokerError> {
    let worth = removed >= RECLAIM_BYTES && removed >= store.disk_bytes()? / RECLAIM_SHARE;
    if worth {
        store.reclaim()?;
    }
    Ok(worth)
}

/// Removes what is due at `now_ms`; answers how many bytes.
///
/// # Errors
/// The store fails or is closed.
pub fn keep(shared: &Shared, now_ms: i64) -> Result<u64, BrokerError> {
    let store = shared.store()?;
    let mut removed = purge_deleted(shared, &store)?;
    for topic in shared.catalog.all() {
        for partition in &topic.partitions {
            removed += trim(shared, &store, &topic.record, partition, now_ms)?;
        }
    }
    // Answers to requests with a key, until none is too old.
    while ask(shared, |reply| Request::Forget { now_ms, reply })? > 0 {}
    Ok(removed)
}

/// The bounds of what a partition may hold.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Batches written before this time are due.
    pub oldest_ms: i64,
    /// Batches whose bytes end at or before this place are due.
    pub first_byte: u64,
}

impl Bounds {
    /// The bounds of a partition that has seen `bytes_end` bytes in all.
    pub fn new(record: &TopicRecord, bytes_end: u64, now_ms: i64) -> Self {
        let age = i64::try_from(record.retention_age_ms).unwrap_or(i64::MAX);
        Self {
            oldest_ms: now_ms.saturating_sub(age),
            first_byte: record
                .retention_bytes
                .map_or(0, |most| bytes_end.saturating_sub(most)),
        }
    }

    /// Whether a batch is to be removed. Its age counts from when it was written: events may carry
    /// timestamps of long ago.
    pub fn due(&self, key: &BatchKey) -> bool {
        key.written_ms < self.oldest_ms || key.bytes_end <= self.first_byte
    }
}

fn trim(
    shared: &Shared,
    store: &Store,
    record: &TopicRecord,
    partition: &Partition,
    now_ms: i64,
) -> Result<u64, BrokerError> {
    let (topic, number) = (partition.topic_id, partition.place.partition);
    let bytes_end = partition
        .bytes_end
        .load(std::sync::atomic::Ordering::Relaxed);
    let bounds = Bounds::new(record, bytes_end, now_ms);
    let mut removed = 0;
    loop {
        let mut keys = Vec::new();
        // Retention never reaches past the published end, or it would remove what is being written.
        let end = partition.end();
        for key in store.keys(topic, number, partition.start()).take(CHUNK) {
            let key = key?;
            if key.next() > end || !bounds.due(&key) {
                break;
            }
            keys.push(key);
        }
        let (Some(first), Some(last)) = (keys.first(), keys.last()) else {
            return Ok(removed);
        };
        removed += last.bytes_end - first.bytes_end;
        let (start, full) = (last.next(), keys.len() == CHUNK);
        let place = partition.place.clone();
        ask(shared, |reply| Request::Trim {
            place,
            topic,
            keys,
            start,
            reply,
        })?;
        if !full {
            return Ok(removed);
        }
    }
}

/// Removes the events of topics that were deleted, also of those deleted before a crash.
fn purge_deleted(shared: &Shared, store: &Store) -> Result<u64, BrokerError> {
    let mut removed = 0;
    let marks: Vec<_> = store
        .meta
        .prefix(store::DELETED)
        .map(|guard| guard.into_inner())
        .collect::<Result<_, _>>()
        .map_err(broken)?;
    for (key, value) in marks {
        let id = key.last_chunk::<4>().map(|id| u32::from_be_bytes(*id));
        let partitions = value.first_chunk::<4>().map(|n| u32::from_be_bytes(*n));
        let (Some(topic), Some(partitions)) = (id, partitions) else {
            continue;
        };
        for partition in 0..partitions {
            loop {
                let keys: Vec<_> = store
                    .keys(topic, partition, 0)
                    .take(CHUNK)
                    .collect::<Result<_, _>>()?;
                let (Some(first), Some(last)) = (keys.first(), keys.last()) else {
                    break;
                };
                removed += last.bytes_end - first.bytes_end;
                ask(shared, |reply| Request::Purge {
                    topic,
                    keys,
                    last: false,
                    reply,
                })?;
            }
        }
        ask(shared, |reply| Request::Purge {
            topic,
            keys: Vec::new(),
            last: true,
            reply,
        })?;
    }
    Ok(removed)
}

fn ask<T>(
    shared: &Shared,
    request: impl FnOnce(oneshot::Sender<Result<T, BrokerError>>) -> Request,
) -> Result<T, BrokerError> {
    let (reply, answer) = oneshot::channel();
    shared
        .queue
        .push(request(reply))
        .map_err(|_| super::closed())?;
    answer.blocking_recv().map_err(|_| super::closed())?
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::TopicSettings;

    fn key(written_ms: i64, bytes_end: u64) -> BatchKey {
        BatchKey {
            topic: 1,
            partition: 0,
            base: 0,
            count: 1,
            max_timestamp: 0,
            running_max_timestamp: 0,
            written_ms,
            bytes_end,
        }
    }

    #[test]
    fn age_counts_from_writing_and_bytes_from_the_end() {
        let settings = TopicSettings {
            retention_age: Some(Duration::from_millis(1_000)),
            retention_bytes: Some(100),
            ..TopicSettings::default()
        };
        let record = TopicRecord::new(1, "t", &settings).unwrap();
        let bounds = Bounds::new(&record, 250, 10_000);
        assert!(bounds.due(&key(8_999, 250)));
        assert!(!bounds.due(&key(9_000, 151)));
        assert!(bounds.due(&key(9_000, 150)));
    }

    #[test]
    fn without_a_bound_on_bytes_only_age_counts() {
        let record = TopicRecord::new(1, "t", &TopicSettings::default()).unwrap();
        let bounds = Bounds::new(&record, u64::MAX, 0);
        assert!(!bounds.due(&key(0, 1)));
    }
}
