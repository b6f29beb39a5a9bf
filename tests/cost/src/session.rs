//! A membership on a broker in memory that has so many events and takes whatever is written.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Result, ensure};
use futures::future::BoxFuture;
use millstream::broker::{
    Assignment, Commit, CommitError, Control, PublishError, Session, Sink, Source, SourceEvent,
    TransactError,
};
use millstream::decide::offsets::Progress;
use millstream::event::{Block, TopicPartition};
use millstream::records::Records;
use tokio::sync::watch;

use crate::events;

/// Events of a block.
const BLOCK: u64 = 500;
/// Blocks that are made, however many are handed over: making them is the adapter's work, and so falls
/// out of the difference of two runs.
const BLOCKS: u64 = 10;

/// What the consumer did so far.
pub struct Broker {
    /// How many it hands over.
    events: u64,
    held: watch::Sender<bool>,
    written: AtomicU64,
    committed: watch::Sender<u64>,
}

impl Broker {
    /// One with so many events.
    ///
    /// # Errors
    /// They are no whole blocks, or more than there are.
    pub fn new(events: u64) -> Result<Arc<Self>> {
        let fits = events.is_multiple_of(BLOCK) && events <= BLOCK * BLOCKS;
        ensure!(fits, "there are {BLOCKS} blocks of {BLOCK} events");
        Ok(Arc::new(Self {
            events,
            held: watch::Sender::new(false),
            written: AtomicU64::new(0),
            committed: watch::Sender::new(0),
        }))
    }

    /// The membership of its only consumer.
    pub fn join(self: &Arc<Self>) -> Session {
        Session {
            source: Box::new(Stock {
                held: self.held.subscribe(),
                blocks: blocks(),
                assigned: false,
                left: self.events,
                next: 0,
                caught_up: false,
            }),
            control: Arc::new(ValveOf(self.clone())),
            sink: Arc::new(SinkOf(self.clone())),
        }
    }

    /// How many records were written.
    pub fn written(&self) -> u64 {
        self.written.load(Ordering::Relaxed)
    }

    /// Waits until the position behind the last event is committed.
    pub async fn is_done(&self) {
        let mut committed = self.committed.subscribe();
        // Fails only without a sender, and this is one.
        let _ = committed.wait_for(|next| *next == self.events).await;
    }

    fn write(&self, records: &Records) {
        self.written
            .fetch_add(records.len() as u64, Ordering::Relaxed);
    }

    fn commit(&self, commits: &[Commit]) {
        if let Some(commit) = commits.last() {
            self.committed.send_replace(commit.progress.next);
        }
    }
}

fn blocks() -> VecDeque<Arc<Block>> {
    let firsts = (0..BLOCKS).map(|number| number * BLOCK);
    let block = |first| events::block(first, BLOCK as usize, events::VALUE);
    firsts.map(|first| Arc::new(block(first))).collect()
}

/// Hands the events over, in blocks, whenever it is not held.
struct Stock {
    held: watch::Receiver<bool>,
    blocks: VecDeque<Arc<Block>>,
    assigned: bool,
    left: u64,
    next: u64,
    caught_up: bool,
}

impl Source for Stock {
    fn next(&mut self) -> BoxFuture<'_, SourceEvent> {
        Box::pin(async move {
            if !self.assigned {
                self.assigned = true;
                return SourceEvent::Assigned(vec![Assignment {
                    partition: events::partition(),
                    progress: Progress::at(0),
                    after_loss: false,
                }]);
            }
            // Fails only when the broker is gone, which it is not before its source.
            let _ = self.held.wait_for(|held| !held).await;
            if self.left > 0
                && let Some(block) = self.blocks.pop_front()
            {
                self.left -= BLOCK;
                self.next += BLOCK;
                return SourceEvent::Block(block);
            }
            if !self.caught_up {
                self.caught_up = true;
                return SourceEvent::CaughtUp {
                    partition: events::partition(),
                    next: self.next,
                };
            }
            std::future::pending().await
        })
    }

    fn close(self: Box<Self>) -> BoxFuture<'static, ()> {
        Box::pin(std::future::ready(()))
    }
}

struct ValveOf(Arc<Broker>);

impl Control for ValveOf {
    fn hold(&self, _: &[TopicPartition]) {
        self.0.held.send_replace(true);
    }

    fn release(&self, _: &[TopicPartition]) {
        self.0.held.send_replace(false);
    }

    /// Nobody else could have the partition.
    fn retake(&self, _: &[TopicPartition]) {}

    fn ends(&self) -> Vec<(TopicPartition, u64)> {
        vec![(events::partition(), self.0.events)]
    }
}

struct SinkOf(Arc<Broker>);

impl Sink for SinkOf {
    fn publish(&self, records: Arc<Records>) -> BoxFuture<'static, Result<(), PublishError>> {
        self.0.write(&records);
        Box::pin(std::future::ready(Ok(())))
    }

    fn commit(&self, commits: Vec<Commit>) -> BoxFuture<'static, Result<(), CommitError>> {
        self.0.commit(&commits);
        Box::pin(std::future::ready(Ok(())))
    }

    fn transact(
        &self,
        records: Vec<Arc<Records>>,
        commits: Vec<Commit>,
    ) -> BoxFuture<'static, Result<(), TransactError>> {
        records.iter().for_each(|records| self.0.write(records));
        self.0.commit(&commits);
        Box::pin(std::future::ready(Ok(())))
    }
}
