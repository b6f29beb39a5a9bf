//! Blocks that were read from the store last, for other groups that read the same soon after.
//!
//! ```text
//! group a: [0 ─── 4096) [4096 ─── 8192) ─▶ kept, the oldest go
//! group b:              [4096 ─── 8192)    the same block, nothing is unpacked again
//! group c:                    [5000 ── 8192)  its own, up to where the kept one ends: from there on it
//!                                             can have the same
//! ```
//! A hundred consumers of a backlog would unpack each event a hundred times.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use parking_lot::Mutex;

use super::catalog::Partition;
use crate::broker::ReadLimits;
use crate::event::Block;

/// Bytes of all blocks that are kept.
pub const RECENT_BYTES: usize = 16 * 1024 * 1024;

/// Topic, partition and the first offset.
type Key = (u32, u32, u64);

/// See the module.
#[derive(Debug)]
pub struct Recent {
    limit: usize,
    kept: Mutex<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    blocks: BTreeMap<Key, Read>,
    /// The oldest first.
    order: VecDeque<Key>,
    bytes: usize,
}

/// A block, and the offset to read on from.
#[derive(Clone, Debug)]
pub struct Read {
    pub block: Arc<Block>,
    pub next: u64,
}

/// What is kept of an offset.
#[derive(Debug)]
pub enum Place {
    /// The block that begins there.
    Begins(Read),
    /// It lies in a block that ends there, or before one that is too large: to be read up to there at
    /// most.
    Within(u64),
    Unknown,
}

impl Recent {
    /// Keeps so many bytes.
    pub fn new(limit: usize) -> Self {
        Self {
            limit,
            kept: Mutex::default(),
        }
    }

    /// What is kept of the partition's events from `from` on, within the limits.
    pub fn find(&self, partition: &Partition, from: u64, limits: ReadLimits) -> Place {
        let (topic, number) = (partition.topic_id, partition.place.partition);
        let kept = self.kept.lock();
        let before = kept
            .blocks
            .range((topic, number, 0)..=(topic, number, from));
        match before.last() {
            Some(((.., base), read)) if *base == from => {
                let fits = read.block.len() <= limits.events && read.block.bytes() <= limits.bytes;
                match fits {
                    true => Place::Begins(read.clone()),
                    false => Place::Within(read.next),
                }
            }
            Some((_, read)) if read.next > from => Place::Within(read.next),
            _ => Place::Unknown,
        }
    }

    /// Keeps what was read from `from` on; the oldest go.
    pub fn keep(&self, partition: &Partition, from: u64, read: Read) {
        let key = (partition.topic_id, partition.place.partition, from);
        let mut kept = self.kept.lock();
        kept.bytes += read.block.bytes();
        match kept.blocks.insert(key, read) {
            // Two readers may come first at once; either's block will do.
            Some(replaced) => kept.bytes -= replaced.block.bytes(),
            None => kept.order.push_back(key),
        }
        while kept.bytes > self.limit
            && let Some(oldest) = kept.order.pop_front()
        {
            if let Some(read) = kept.blocks.remove(&oldest) {
                kept.bytes -= read.block.bytes();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::catalog::{Topic, TopicRecord};
    use super::*;
    use crate::config::TopicSettings;
    use crate::event::{BlockBuilder, NewEvent};

    const ANY: ReadLimits = ReadLimits {
        events: usize::MAX,
        bytes: usize::MAX,
    };

    fn topic() -> Topic {
        let record = TopicRecord::new(1, "t", &TopicSettings::default()).unwrap();
        Topic::empty("t".into(), record)
    }

    fn read(partition: &Partition, from: u64, events: u64) -> Read {
        let mut block = BlockBuilder::new(partition.place.clone(), 0, 0);
        for offset in from..from + events {
            block.push(NewEvent {
                offset,
                timestamp_ms: 0,
                timestamp_of_broker: false,
                key: None,
                value: Some(&[7; 100]),
            });
        }
        Read {
            block: Arc::new(block.build()),
            next: from + events,
        }
    }

    #[test]
    fn who_reads_the_same_has_the_same_block() {
        let topic = topic();
        let (one, other) = (&topic.partitions[0], &topic.partitions[1]);
        let recent = Recent::new(1 << 20);
        let kept = read(one, 10, 5);
        recent.keep(one, 10, kept.clone());
        let Place::Begins(found) = recent.find(one, 10, ANY) else {
            panic!("not found");
        };
        assert!(Arc::ptr_eq(&found.block, &kept.block) && found.next == 15);
        for (partition, from) in [(one, 9), (one, 15), (other, 10)] {
            let found = recent.find(partition, from, ANY);
            assert!(matches!(found, Place::Unknown), "{found:?}");
        }
    }

    /// A block beyond the limits would break the budget; a reader that went its own way from there
    /// on would never share again.
    #[test]
    fn who_cannot_have_the_block_reads_up_to_its_end() {
        let topic = topic();
        let partition = &topic.partitions[0];
        let recent = Recent::new(1 << 20);
        recent.keep(partition, 10, read(partition, 10, 5));
        let few = ReadLimits { events: 4, ..ANY };
        let small = ReadLimits { bytes: 300, ..ANY };
        for (from, limits) in [(10, few), (10, small), (12, ANY)] {
            let found = recent.find(partition, from, limits);
            assert!(matches!(found, Place::Within(15)), "{found:?}");
        }
    }

    #[test]
    fn the_oldest_go_where_there_is_no_room() {
        let topic = topic();
        let partition = &topic.partitions[0];
        let one = read(partition, 0, 10).block.bytes();
        let recent = Recent::new(2 * one);
        for from in [0, 10, 10, 20] {
            recent.keep(partition, from, read(partition, from, 10));
        }
        let begins = |from| matches!(recent.find(partition, from, ANY), Place::Begins(_));
        assert_eq!([0, 10, 20].map(begins), [false, true, true]);
        assert_eq!(recent.kept.lock().bytes, 2 * one);
    }
}
