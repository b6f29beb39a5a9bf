//! What came from the source and has no room in the budget yet.
//!
//! Every valve is closed while a block is kept back, so that there is one, hardly ever more: an event
//! so large that what was admitted before it must be settled first.

use std::collections::VecDeque;
use std::sync::Arc;

use tokio::time::Instant;

use super::runner::Runner;
use super::status::State;
use crate::broker::SourceEvent;
use crate::decide::admission::Load;
use crate::event::{Block, TopicPartition};

/// Blocks, and the news about their partitions behind them, in their order.
#[derive(Default)]
pub struct KeptBack {
    events: VecDeque<SourceEvent>,
}

impl KeptBack {
    /// Whether there is nothing.
    pub fn is_empty(&self) -> bool {
        self.events.is_empty()
    }

    /// Keeps another one back.
    pub fn push(&mut self, event: SourceEvent) {
        self.events.push_back(event);
    }

    /// Forgets what is of these partitions: whoever has them next reads it again.
    pub fn forget(&mut self, partitions: &[TopicPartition]) {
        self.events.retain(|event| match event {
            SourceEvent::Block(block) => !partitions.contains(block.source()),
            SourceEvent::CaughtUp { partition, .. } => !partitions.contains(partition),
            _ => true,
        });
    }

    fn front(&self) -> Option<&SourceEvent> {
        self.events.front()
    }
}

impl Runner {
    /// Admits a block, or keeps it back where the budget has no room for it.
    pub(super) fn on_block(&mut self, block: Arc<Block>) {
        if self.kept_back.is_empty() && self.fits(&block) {
            self.admit(block);
        } else {
            self.kept_back.push(SourceEvent::Block(block));
            self.close_valves(None, Instant::now());
        }
    }

    /// Notes that nothing is left of a partition, once what was before that is admitted.
    pub(super) fn on_caught_up(&mut self, partition: TopicPartition, next: u64) {
        if self.kept_back.is_empty() {
            self.caught_up(&partition, next);
        } else {
            let event = SourceEvent::CaughtUp { partition, next };
            self.kept_back.push(event);
        }
    }

    /// Admits what was kept back, as far as there is room by now.
    pub(super) fn take_up(&mut self) {
        if self.kept_back.is_empty() || matches!(self.state, State::Stopped(_) | State::Draining) {
            return;
        }
        while let Some(event) = self.kept_back.front() {
            if let SourceEvent::Block(block) = event
                && !self.fits(block)
            {
                return;
            }
            match self.kept_back.events.pop_front() {
                Some(SourceEvent::Block(block)) => self.admit(block),
                Some(SourceEvent::CaughtUp { partition, next }) => {
                    self.caught_up(&partition, next);
                }
                _ => {}
            }
        }
        self.open_valves(Instant::now());
    }

    fn fits(&self, block: &Block) -> bool {
        let block = Load {
            events: block.len(),
            bytes: block.event_cost() * block.len(),
        };
        self.budget.fits(self.ledger.lock().in_flight, block)
    }
}
