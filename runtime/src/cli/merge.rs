//! Reads several partitions of a topic as one stream, oldest event first.
//!
//! ```text
//! partition 0 ─▶ chunk ─┐
//! partition 1 ─▶ chunk ─┼─▶ the oldest of the first events ─▶ next()
//! partition 2 ─▶ chunk ─┘
//! ```
//!
//! Within a partition the order is the broker's; between partitions the timestamp decides. At most
//! one chunk a partition is in memory.

use std::sync::Arc;

use futures::{StreamExt as _, TryStreamExt as _};

use crate::broker::{BrokerError, Chunk, ReadLimits, Topics};
use crate::event::{Block, EventView, TopicPartition};

/// Partitions that are asked at once.
const PARALLEL_READS: usize = 8;
/// Memory for chunks, shared by the partitions.
const ALL_CHUNKS: usize = 16 << 20;
/// What one read asks for at least and at most.
const CHUNK_BYTES: std::ops::RangeInclusive<usize> = (32 << 10)..=(1 << 20);
const CHUNK_EVENTS: usize = 10_000;

/// Where a partition is read.
pub struct Cursor {
    partition: TopicPartition,
    next: u64,
    /// One past the last offset to read; `None` goes on for ever.
    stop: Option<u64>,
    block: Option<Arc<Block>>,
    index: usize,
    /// The last read came to the end: nothing of it waits.
    at_end: bool,
}

impl Cursor {
    /// A cursor from `next` up to, not including, `stop`.
    pub fn new(partition: TopicPartition, next: u64, stop: Option<u64>) -> Self {
        Self {
            partition,
            next,
            stop,
            block: None,
            index: 0,
            at_end: false,
        }
    }

    fn front(&self) -> Option<EventView<'_>> {
        let block = self.block.as_ref()?;
        let event = (self.index < block.len()).then(|| block.event(self.index))?;
        match self.stop {
            Some(stop) if event.offset() >= stop => None,
            _ => Some(event),
        }
    }

    fn finished(&self) -> bool {
        self.front().is_none() && self.stop.is_some_and(|stop| self.next >= stop)
    }

    fn wants_more(&self) -> bool {
        self.front().is_none() && !self.finished()
    }

    /// Takes in what a read found; whether it got any further.
    fn take(&mut self, chunk: Chunk) -> bool {
        let further = chunk.next > self.next;
        self.at_end = chunk.next >= chunk.end;
        // Offsets that no event carries up to the end that we know: nothing is left to read.
        self.next = match self.stop {
            Some(stop) if self.at_end && chunk.end <= stop => stop,
            _ => chunk.next,
        };
        self.block = Some(chunk.block);
        self.index = 0;
        further
    }
}

/// The merged stream.
pub struct Merge {
    cursors: Vec<Cursor>,
    limits: ReadLimits,
}

impl Merge {
    /// Merges these partitions.
    pub fn new(cursors: Vec<Cursor>) -> Self {
        let share = ALL_CHUNKS / cursors.len().max(1);
        let limits = ReadLimits {
            events: CHUNK_EVENTS,
            bytes: share.clamp(*CHUNK_BYTES.start(), *CHUNK_BYTES.end()),
        };
        Self { cursors, limits }
    }

    /// Reads on where nothing is left in memory; whether any partition got further.
    ///
    /// # Errors
    /// Of the broker.
    pub async fn fill(&mut self, topics: &dyn Topics) -> Result<bool, BrokerError> {
        let limits = self.limits;
        let hungry = self.cursors.iter_mut().filter(|cursor| cursor.wants_more());
        let reads = hungry.map(|cursor| async move {
            let chunk = topics.read(&cursor.partition, cursor.next, limits).await?;
            Ok::<_, BrokerError>(cursor.take(chunk))
        });
        let reads = futures::stream::iter(reads).buffer_unordered(PARALLEL_READS);
        reads.try_fold(false, async |any, one| Ok(any | one)).await
    }

    /// The next event, or `None` where a partition has to be read first: call [`Self::fill`], or
    /// stop where all is [`Self::finished`].
    pub fn next(&mut self) -> Option<(Arc<Block>, usize)> {
        let mut oldest: Option<(usize, i64)> = None;
        for (index, cursor) in self.cursors.iter().enumerate() {
            match cursor.front() {
                Some(event) => {
                    if oldest.is_none_or(|(_, ms)| event.timestamp_ms() < ms) {
                        oldest = Some((index, event.timestamp_ms()));
                    }
                }
                None if cursor.finished() || cursor.at_end => {}
                None => return None,
            }
        }
        let cursor = &mut self.cursors[oldest?.0];
        let found = (cursor.block.clone()?, cursor.index);
        cursor.index += 1;
        Some(found)
    }

    /// Whether every partition was read up to where it should.
    pub fn finished(&self) -> bool {
        self.cursors.iter().all(Cursor::finished)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broker::memory::Memory;
    use crate::records::{NewRecord, Records};

    /// A topic `t` with these (partition, timestamp) events; the value is the timestamp.
    async fn topic(partitions: usize, events: &[(u32, i64)]) -> Memory {
        let topics = Memory::with_topic("t", partitions);
        add(&topics, events).await;
        topics
    }

    async fn add(topics: &Memory, events: &[(u32, i64)]) {
        let mut records = Records::new();
        for &(partition, timestamp) in events {
            records.push(
                &"t".into(),
                NewRecord {
                    value: Some(timestamp.to_string().as_bytes()),
                    partition: Some(partition),
                    timestamp_ms: Some(timestamp),
                    ..NewRecord::default()
                },
            );
        }
        topics.produce(records).await.expect("written");
    }

    fn cursor(partition: u32, next: u64, stop: Option<u64>) -> Cursor {
        Cursor::new(TopicPartition::new("t", partition), next, stop)
    }

    fn drain(merge: &mut Merge) -> Vec<i64> {
        std::iter::from_fn(|| merge.next())
            .map(|(block, index)| block.event(index).timestamp_ms())
            .collect()
    }

    #[tokio::test]
    async fn events_come_by_age_and_in_their_partitions_order() {
        // Partition 1 is out of order by itself: the broker's order must stay.
        let topics = topic(3, &[(0, 10), (1, 5), (0, 30), (1, 40), (1, 20)]).await;
        let cursors = vec![
            cursor(0, 0, Some(2)),
            cursor(1, 0, Some(3)),
            cursor(2, 0, Some(0)),
        ];
        let mut merge = Merge::new(cursors);
        assert!(!merge.finished());
        assert_eq!(merge.fill(&topics).await.ok(), Some(true));
        assert_eq!(drain(&mut merge), [5, 10, 30, 40, 20]);
        assert!(merge.finished());
    }

    /// Events written while we read belong to the next time, or the command would never end.
    #[tokio::test]
    async fn what_lies_past_the_end_is_left() {
        let topics = topic(1, &[(0, 1), (0, 2), (0, 3)]).await;
        let mut merge = Merge::new(vec![cursor(0, 1, Some(2))]);
        merge.fill(&topics).await.expect("read");
        assert_eq!(drain(&mut merge), [2]);
        assert!(merge.finished());
    }

    /// A partition that holds nothing new must not hold up the others.
    #[tokio::test]
    async fn following_goes_on_with_what_comes() {
        let topics = topic(2, &[(0, 1)]).await;
        let mut merge = Merge::new(vec![cursor(0, 0, None), cursor(1, 0, None)]);
        assert_eq!(merge.fill(&topics).await.ok(), Some(true));
        assert_eq!(drain(&mut merge), [1]);
        assert_eq!(merge.fill(&topics).await.ok(), Some(false));
        assert!(!merge.finished());
        add(&topics, &[(1, 2), (0, 3)]).await;
        assert_eq!(merge.fill(&topics).await.ok(), Some(true));
        assert_eq!(drain(&mut merge), [2, 3]);
    }

    /// Kafka's transaction markers hold the last offsets: no event will ever fill the gap.
    #[tokio::test]
    async fn an_end_that_no_event_reaches_is_reached() {
        let topics = topic(1, &[(0, 1)]).await;
        let mut merge = Merge::new(vec![cursor(0, 0, Some(3))]);
        let mut seen = Vec::new();
        for _ in 0..3 {
            merge.fill(&topics).await.expect("read");
            seen.extend(drain(&mut merge));
        }
        assert_eq!((seen, merge.finished()), (vec![1], true));
    }
}
