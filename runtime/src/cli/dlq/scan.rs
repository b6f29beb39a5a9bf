//! Reading a topic from its start to the end that it had when the reading began.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::super::merge::{Cursor, Merge};
use crate::broker::{BrokerError, PartitionInfo, Topics};
use crate::event::{Block, EventView, TopicPartition};

/// How long a broker may have nothing for us below the end that it named itself.
const STALL: Duration = Duration::from_secs(30);
/// The pause between two looks at a broker that had nothing.
const PAUSE: Duration = Duration::from_millis(20);

/// What a topic held at one moment, to be read any number of times.
pub struct Snapshot {
    topic: Arc<str>,
    partitions: Vec<PartitionInfo>,
}

impl Snapshot {
    /// What `topic` holds now; nothing where there is no such topic.
    ///
    /// # Errors
    /// Of the broker.
    pub async fn of(topics: &dyn Topics, topic: &Arc<str>) -> Result<Option<Self>, BrokerError> {
        let known = topics.list().await?;
        let found = known.into_iter().find(|info| info.name == *topic);
        Ok(found.map(|info| Self {
            topic: topic.clone(),
            partitions: info.partitions,
        }))
    }

    /// How many partitions.
    pub fn partitions(&self) -> usize {
        self.partitions.len()
    }

    /// Reads it from its start.
    pub fn scan(&self) -> Scan {
        let cursors = (0..).zip(&self.partitions).map(|(number, bounds)| {
            let partition = TopicPartition::new(self.topic.clone(), number);
            Cursor::new(partition, bounds.start, Some(bounds.end))
        });
        Scan {
            merge: Merge::new(cursors.collect()),
        }
    }
}

/// A topic that is being read; it holds some megabytes of it at a time.
pub struct Scan {
    merge: Merge,
}

/// Events that were read together.
pub struct Batch(Vec<(Arc<Block>, usize)>);

impl Batch {
    /// The events, oldest first.
    pub fn events(&self) -> impl Iterator<Item = EventView<'_>> {
        self.0.iter().map(|(block, index)| block.event(*index))
    }

    /// The block and index of an event, to keep it.
    pub fn keep(&self, at: usize) -> (Arc<Block>, usize) {
        self.0[at].clone()
    }
}

impl Scan {
    /// The next events; `None` at the end.
    ///
    /// # Errors
    /// Of the broker, and where it has nothing for long.
    pub async fn next(&mut self, topics: &dyn Topics) -> Result<Option<Batch>, BrokerError> {
        let begun = Instant::now();
        while !self.merge.finished() {
            let further = self.merge.fill(topics).await?;
            let mut batch = Vec::new();
            while let Some(event) = self.merge.next() {
                batch.push(event);
            }
            if !batch.is_empty() {
                return Ok(Some(Batch(batch)));
            }
            if further {
                continue;
            }
            if begun.elapsed() > STALL {
                let text = format!("nothing came for {} s before the end", STALL.as_secs());
                return Err(BrokerError::Unreachable(text));
            }
            tokio::time::sleep(PAUSE).await;
        }
        Ok(None)
    }
}
