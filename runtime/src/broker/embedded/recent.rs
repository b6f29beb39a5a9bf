//! Stretches of partitions that were unpacked last, for whoever reads the same soon after.
//!
//! ```text
//! store:     batch │ batch │ batch ─ checked, unpacked ─▶ stretch: block │ block │ block, the oldest go
//! group a, from 0:                                                └──────────▶
//! group b, from 0:                                                └──▶            the same blocks
//! ```
//! A hundred consumers of a backlog would unpack each event a hundred times, and each of them a batch
//! anew for every block that it takes of it.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use parking_lot::Mutex;

use super::catalog::Partition;
use crate::broker::{BrokerError, ReadLimits};
use crate::event::{Block, BlockBuilder, NewEvent};

/// Bytes of all stretches that are kept.
pub const RECENT_BYTES: usize = 16 * 1024 * 1024;

/// Topic, partition and the first offset.
type Key = (u32, u32, u64);

/// Consecutive events of a partition, in blocks. Never empty.
#[derive(Debug)]
pub struct Stretch {
    /// None of them is empty.
    pub blocks: Vec<Arc<Block>>,
    /// The offset of the first event, and one past that of the last.
    pub base: u64,
    pub next: u64,
}

impl Stretch {
    /// The events from `from` on, which lies within: a whole block where the limits allow it, else as
    /// much of it as they do, but at least one event.
    pub fn from(&self, from: u64, limits: ReadLimits) -> Option<(Arc<Block>, u64)> {
        let last = |block: &Block| block.events().last().map_or(0, |event| event.offset);
        let at = self.blocks.partition_point(|block| last(block) < from);
        let block = self.blocks.get(at)?;
        let first = block.events().first()?.offset;
        if first >= from && block.len() <= limits.events && block.bytes() <= limits.bytes {
            return Some((block.clone(), last(block) + 1));
        }
        let mut part = BlockBuilder::new(block.source().clone(), 0, 0);
        let mut next = from;
        let skipped = block.events().partition_point(|event| event.offset < from);
        for event in block.iter().skip(skipped).take(limits.events.max(1)) {
            let cost = part.cost() + event.bytes() + size_of_val(event.record());
            if !part.is_empty() && cost > limits.bytes {
                break;
            }
            part.push(NewEvent {
                offset: event.offset(),
                timestamp_ms: event.timestamp_ms(),
                timestamp_of_broker: false,
                key: event.key(),
                value: event.value(),
            });
            for (name, value) in event.headers() {
                part.push_header(name, value);
            }
            next = event.offset() + 1;
        }
        Some((Arc::new(part.build()), next))
    }

    /// Whether it holds the event at `from`.
    pub fn holds(&self, from: u64) -> bool {
        (self.base..self.next).contains(&from)
    }

    /// Bytes in memory.
    pub fn bytes(&self) -> usize {
        self.blocks.iter().map(|block| block.bytes()).sum()
    }
}

/// See the module.
#[derive(Debug)]
pub struct Recent {
    limit: usize,
    kept: Mutex<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    stretches: BTreeMap<Key, Arc<Stretch>>,
    /// The oldest first.
    order: VecDeque<Key>,
    bytes: usize,
}

impl Recent {
    /// Keeps so many bytes.
    pub fn new(limit: usize) -> Self {
        Self {
            limit,
            kept: Mutex::default(),
        }
    }

    /// The stretch that holds `from`: a kept one, else what `unpack` makes of the store. Who wants the
    /// same partition meanwhile waits for it.
    ///
    /// # Errors
    /// Those of `unpack`.
    pub fn stretch<E: From<BrokerError>>(
        &self,
        partition: &Partition,
        from: u64,
        unpack: impl FnOnce() -> Result<Stretch, E>,
    ) -> Result<Arc<Stretch>, E> {
        if let Some(found) = self.find(partition, from) {
            return Ok(found);
        }
        let _turn = partition.unpacking.lock();
        if let Some(found) = self.find(partition, from) {
            return Ok(found);
        }
        let stretch = Arc::new(unpack()?);
        self.keep(partition, stretch.clone());
        Ok(stretch)
    }

    fn find(&self, partition: &Partition, from: u64) -> Option<Arc<Stretch>> {
        let (topic, number) = (partition.topic_id, partition.place.partition);
        let kept = self.kept.lock();
        let mut before = kept
            .stretches
            .range((topic, number, 0)..=(topic, number, from));
        let (_, stretch) = before.next_back()?;
        stretch.holds(from).then(|| stretch.clone())
    }

    fn keep(&self, partition: &Partition, stretch: Arc<Stretch>) {
        let key = (partition.topic_id, partition.place.partition, stretch.base);
        let mut kept = self.kept.lock();
        kept.bytes += stretch.bytes();
        match kept.stretches.insert(key, stretch) {
            Some(replaced) => kept.bytes -= replaced.bytes(),
            None => kept.order.push_back(key),
        }
        while kept.bytes > self.limit
            && let Some(oldest) = kept.order.pop_front()
        {
            if let Some(gone) = kept.stretches.remove(&oldest) {
                kept.bytes -= gone.bytes();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::catalog::{Topic, TopicRecord};
    use super::*;
    use crate::config::TopicSettings;

    const ANY: ReadLimits = ReadLimits {
        events: usize::MAX,
        bytes: usize::MAX,
    };

    fn topic() -> Topic {
        let record = TopicRecord::new(1, "t", &TopicSettings::default()).unwrap();
        Topic::empty("t".into(), record)
    }

    /// Two blocks of as many events each.
    fn stretch(partition: &Partition, base: u64, events: u64) -> Stretch {
        let block = |base: u64| {
            let mut block = BlockBuilder::new(partition.place.clone(), 0, 0);
            for offset in base..base + events {
                block.push(NewEvent {
                    offset,
                    timestamp_ms: 7,
                    timestamp_of_broker: false,
                    key: None,
                    value: Some(&[7; 100]),
                });
                block.push_header(b"n", Some(b"v"));
            }
            Arc::new(block.build())
        };
        Stretch {
            blocks: vec![block(base), block(base + events)],
            base,
            next: base + 2 * events,
        }
    }

    fn offsets(found: Option<(Arc<Block>, u64)>) -> Vec<u64> {
        let (block, next) = found.expect("nothing");
        let offsets: Vec<u64> = block.iter().map(|event| event.offset()).collect();
        assert_eq!(offsets.last().map(|last| last + 1), Some(next));
        assert!(block.iter().all(|event| event.headers().count() == 1));
        offsets
    }

    #[test]
    fn it_is_unpacked_once_for_all_who_read_it() {
        let topic = topic();
        let (one, other) = (&topic.partitions[0], &topic.partitions[1]);
        let recent = Recent::new(1 << 20);
        let unpacks = |partition: &Partition, from| {
            let mut unpacked = false;
            let made = recent.stretch(partition, from, || {
                unpacked = true;
                Ok::<_, BrokerError>(stretch(partition, from, 5))
            });
            assert!(made.is_ok());
            unpacked
        };
        assert!(unpacks(one, 10));
        assert!(!unpacks(one, 10) && !unpacks(one, 19));
        assert!(unpacks(one, 9) && unpacks(one, 20) && unpacks(other, 10));
    }

    /// A block beyond the limits would break the budget.
    #[test]
    fn no_more_than_the_limits_is_taken_of_it() {
        let topic = topic();
        let stretch = stretch(&topic.partitions[0], 10, 3);
        let (whole, next) = stretch.from(10, ANY).expect("nothing");
        assert!(Arc::ptr_eq(&whole, &stretch.blocks[0]) && next == 13);
        let few = ReadLimits { events: 2, ..ANY };
        let none = ReadLimits {
            events: 0,
            bytes: 0,
        };
        let some_bytes = ReadLimits {
            bytes: whole.bytes() - 1,
            ..ANY
        };
        for (from, limits, wanted) in [
            (13, ANY, vec![13, 14, 15]),
            (14, ANY, vec![14, 15]),
            (10, few, vec![10, 11]),
            (10, none, vec![10]),
            (10, some_bytes, vec![10, 11]),
        ] {
            assert_eq!(offsets(stretch.from(from, limits)), wanted, "{limits:?}");
        }
        assert!(stretch.from(16, ANY).is_none());
    }

    #[test]
    fn the_oldest_go_where_there_is_no_room() {
        let topic = topic();
        let partition = &topic.partitions[0];
        let one = stretch(partition, 0, 5).bytes();
        let recent = Recent::new(2 * one);
        for base in [0, 10, 10, 20] {
            recent.keep(partition, Arc::new(stretch(partition, base, 5)));
        }
        let kept = |from| recent.find(partition, from).is_some();
        assert_eq!([0, 10, 20].map(kept), [false, true, true]);
        assert_eq!(recent.kept.lock().bytes, 2 * one);
    }
}
