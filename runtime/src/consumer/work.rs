//! The events that a lane hands to a plugin, and their form on the way there.

use std::sync::Arc;

use millstream_wire as wire;
use tokio::time::Instant;

use super::replay::Origin;
use crate::event::{Block, EventView};
use crate::mutation::{self, Mutation};

/// An event in a lane: where it lies, and what it has been through.
#[derive(Clone, Copy, Debug)]
pub struct Item {
    /// Index of its block in [`Work::blocks`], or of nothing while it waits with its block.
    pub block: u32,
    /// Index of the event in its block.
    pub index: u32,
    /// The attempt that comes next, from 1 on.
    pub attempt: u32,
    /// When its first attempt failed.
    pub failing_since: Option<Instant>,
}

impl Item {
    /// The same event as if it had not been tried, for another version.
    pub fn anew(self) -> Self {
        if mutation::is(Mutation::AttemptsInherited) {
            return self;
        }
        Self {
            attempt: 1,
            failing_since: None,
            ..self
        }
    }
}

/// Consecutive events of one lane, for one call.
#[derive(Clone, Debug, Default)]
pub struct Work {
    pub blocks: Vec<Arc<Block>>,
    pub items: Vec<Item>,
}

impl Work {
    /// Adds an event of `block`.
    pub fn push(&mut self, block: &Arc<Block>, mut item: Item) {
        let known = self
            .blocks
            .last()
            .is_some_and(|last| Arc::ptr_eq(last, block));
        if !known {
            self.blocks.push(block.clone());
        }
        item.block = self.blocks.len() as u32 - 1;
        self.items.push(item);
    }

    /// How many events.
    pub fn len(&self) -> usize {
        self.items.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// Whether this holds of the topic that its events are of.
    pub fn is_of(&self, holds: impl Fn(&str) -> bool) -> bool {
        self.blocks
            .first()
            .is_some_and(|block| holds(&block.source().topic))
    }

    /// The block of an item.
    pub fn block(&self, item: &Item) -> &Arc<Block> {
        &self.blocks[item.block as usize]
    }

    /// The event at `index` of this work.
    pub fn event(&self, index: usize) -> EventView<'_> {
        let item = &self.items[index];
        self.blocks[item.block as usize].event(item.index as usize)
    }

    /// Whether it is one block from end to end at its first attempt: then it crosses the wall as it
    /// lies.
    fn is_a_whole_block(&self) -> bool {
        self.blocks.len() == 1
            && self.items.len() == self.blocks[0].len()
            && self
                .items
                .iter()
                .enumerate()
                .all(|(at, item)| item.index as usize == at && item.attempt == 1)
    }
}

/// A batch ready to be lowered: borrowed from its block, or packed.
pub enum Packed<'a> {
    Whole(&'a Block),
    Copied {
        events: Vec<wire::Event>,
        headers: Vec<wire::Header>,
        data: Vec<u8>,
    },
}

impl<'a> Packed<'a> {
    /// Packs the events of `work`, which are of one topic. Those that were `replayed` stand where they
    /// first were: a plugin that goes by topic or id takes them as it would have then.
    pub fn new(work: &'a Work, replayed: bool) -> Self {
        if !replayed && work.is_a_whole_block() {
            return Self::Whole(&work.blocks[0]);
        }
        let bytes: usize = (0..work.len()).map(|index| work.event(index).bytes()).sum();
        let topic = work
            .blocks
            .first()
            .map_or("", |block| &*block.source().topic);
        let mut data = Vec::with_capacity(bytes + topic.len());
        data.extend_from_slice(topic.as_bytes());
        let mut events = Vec::with_capacity(work.len());
        let mut headers = Vec::new();
        for (index, item) in work.items.iter().enumerate() {
            let view = work.event(index);
            let mut event = *view.record();
            event.topic = wire::Span {
                start: 0,
                length: topic.len() as u32,
            };
            if let Some(origin) = replayed.then(|| Origin::of(&view)).flatten() {
                event.topic = append(&mut data, origin.partition.topic.as_bytes());
                event.partition = origin.partition.partition;
                event.offset = origin.offset;
            }
            event.key = append(&mut data, view.key().unwrap_or_default());
            event.value = append(&mut data, view.value().unwrap_or_default());
            event.headers_start = headers.len() as u32;
            event.attempt = item.attempt;
            for (name, value) in view.headers() {
                headers.push(wire::Header {
                    name: append(&mut data, name),
                    value: append(&mut data, value.unwrap_or_default()),
                    bits: if value.is_none() {
                        wire::HEADER_VALUE_NULL
                    } else {
                        0
                    },
                });
            }
            events.push(event);
        }
        Self::Copied {
            events,
            headers,
            data,
        }
    }

    /// The batch as it crosses the wall.
    pub fn batch(&self, budget_ms: u32, in_order: bool) -> wire::Batch<'_> {
        let (events, headers, data) = match self {
            Self::Whole(block) => (block.events(), block.headers(), block.data()),
            Self::Copied {
                events,
                headers,
                data,
            } => (events.as_slice(), headers.as_slice(), data.as_slice()),
        };
        wire::Batch {
            events,
            headers,
            data,
            extras: &[],
            budget_ms,
            bits: if in_order { wire::BATCH_IN_ORDER } else { 0 },
        }
    }
}

fn append(data: &mut Vec<u8>, bytes: &[u8]) -> wire::Span {
    let start = data.len() as u32;
    data.extend_from_slice(bytes);
    wire::Span {
        start,
        length: bytes.len() as u32,
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::super::replay;
    use super::*;
    use crate::event::{BlockBuilder, NewEvent, TopicPartition};

    /// A block of `orders/0` with these offsets and keys; values are `v<offset>`.
    pub fn block(events: &[(u64, &str)]) -> Arc<Block> {
        let mut builder = BlockBuilder::new(TopicPartition::new("orders", 0), events.len(), 0);
        for (offset, key) in events {
            builder.push(NewEvent {
                offset: *offset,
                timestamp_ms: 1_000,
                timestamp_of_broker: false,
                key: Some(key.as_bytes()),
                value: Some(format!("v{offset}").as_bytes()),
            });
            builder.push_header(b"h", Some(key.as_bytes()));
        }
        Arc::new(builder.build())
    }

    fn item(index: u32, attempt: u32) -> Item {
        Item {
            block: 0,
            index,
            attempt,
            failing_since: None,
        }
    }

    /// A plugin of several topics goes by the topic, and its calls to the outside by the place.
    #[test]
    fn a_replayed_event_crosses_as_the_event_that_it_was() {
        let mut builder = BlockBuilder::new(TopicPartition::new("millstream.g.replay", 0), 2, 0);
        for (offset, of) in [(7, Some("orders/3/42")), (8, None)] {
            builder.push(NewEvent {
                offset,
                timestamp_ms: 1_000,
                timestamp_of_broker: false,
                key: None,
                value: None,
            });
            for (name, value) in of
                .iter()
                .flat_map(|of| [(replay::OF, *of), (replay::COUNT, "1")])
            {
                builder.push_header(name.as_bytes(), Some(value.as_bytes()));
            }
            builder.push_header(replay::FIRST_SEEN.as_bytes(), Some(b"1"));
        }
        let block = Arc::new(builder.build());
        let mut work = Work::default();
        work.push(&block, item(0, 1));
        work.push(&block, item(1, 1));
        let packed = Packed::new(&work, true);
        let batch = packed.batch(1_000, true);
        let places = batch.events.iter().map(|event| {
            let topic = event.topic.of(batch.data).expect("within the data");
            (topic, event.partition, event.offset)
        });
        let expected = [(&b"orders"[..], 3, 42), (&b"millstream.g.replay"[..], 0, 8)];
        assert_eq!(places.collect::<Vec<_>>(), expected);
    }

    #[test]
    fn a_whole_block_crosses_as_it_lies() {
        let block = block(&[(1, "a"), (2, "b")]);
        let mut work = Work::default();
        work.push(&block, item(0, 1));
        work.push(&block, item(1, 1));
        assert!(matches!(Packed::new(&work, false), Packed::Whole(_)));
        work.items[1].attempt = 2;
        assert!(matches!(Packed::new(&work, false), Packed::Copied { .. }));
    }

    /// A span that still points into the old block would show the plugin another event's bytes.
    #[test]
    fn packed_events_keep_their_bytes() {
        let (first, second) = (block(&[(1, "a"), (2, "bb")]), block(&[(3, "ccc")]));
        let mut work = Work::default();
        work.push(&first, item(1, 3));
        work.push(&second, item(0, 1));
        let packed = Packed::new(&work, false);
        let batch = packed.batch(10, true);
        let seen: Vec<_> = batch
            .events
            .iter()
            .map(|event| {
                let header = batch.headers[event.headers_start as usize];
                (
                    event.topic.of(batch.data),
                    event.key.of(batch.data),
                    event.value.of(batch.data),
                    header.value.of(batch.data),
                    event.attempt,
                )
            })
            .collect();
        let topic = Some(&b"orders"[..]);
        assert_eq!(
            seen,
            [
                (
                    topic,
                    Some(&b"bb"[..]),
                    Some(&b"v2"[..]),
                    Some(&b"bb"[..]),
                    3
                ),
                (
                    topic,
                    Some(&b"ccc"[..]),
                    Some(&b"v3"[..]),
                    Some(&b"ccc"[..]),
                    1
                ),
            ]
        );
    }
}
