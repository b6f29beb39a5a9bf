//! Another generation takes over, while events flow.
//!
//! ```text
//! calls under way ─▶ end on the generation they began with ─▶ their instances are dropped
//! next call ───────▶ the new generation, its limits, a new breaker
//! ```
//! No partition moves and no position: what waits in lanes waits for the new generation. What had
//! stopped or halted for the old one's sake is taken up again, for a deploy is how that is mended.

use std::sync::Arc;

use tokio::sync::oneshot;
use tokio::time::Instant;

use super::generation::Generation;
use super::probation::Ended;
use super::runner::Runner;
use super::status::State;
use crate::event::TopicPartition;
use crate::mutation::{self, Mutation};
use crate::plugin::Instance;

impl Runner {
    /// Calls are made with this generation from now on; how it proves itself is told.
    pub(super) fn swap(
        &mut self,
        generation: Arc<Generation>,
        first_instance: Option<Box<dyn Instance>>,
        tell: oneshot::Sender<Ended>,
    ) {
        let now = Instant::now();
        let before = self.trusted();
        self.replace_probation();
        self.take_over(generation, first_instance, now);
        self.begin_probation(before, tell, now);
    }

    /// Another generation makes the calls from now on.
    pub(super) fn take_over(
        &mut self,
        generation: Arc<Generation>,
        first_instance: Option<Box<dyn Instance>>,
        now: Instant,
    ) {
        let settings = generation.settings.clone();
        self.instances
            .renew(settings.concurrency as usize, settings.limits.memory);
        if let Some(instance) = first_instance {
            self.instances.add(instance);
        }
        self.guard = self.guard.renewed(&settings, now);
        {
            let mut ledger = self.ledger.lock();
            ledger.memory_limit_bytes = settings.limits.memory;
            ledger.digest = generation.digest().clone();
            ledger.generation = generation.number;
        }
        tracing::info!(
            consumer = %settings.name, generation = generation.number, digest = %generation.digest(),
            "a new generation takes over"
        );
        self.generation = generation;
        self.no_calls_until = None;
        self.unavailable = 0;
        self.room_due = None;
        self.take_again(now);
        self.begin_anew(now);
        self.follow_breaker(now);
        self.go_on(now);
        self.show(now);
    }

    /// Takes again what stands still: all partitions of a stopped consumer, and halted ones.
    fn take_again(&mut self, now: Instant) {
        let stopped = matches!(self.state, State::Stopped(_));
        let mut again: Vec<TopicPartition> = Vec::new();
        for partition in self.partitions.values_mut() {
            if stopped || partition.halted.is_some() || mutation::is(Mutation::SwapTakesAgain) {
                partition.halted_at = None;
                partition.halted = Some("it is taken up again after a deploy".to_owned());
                again.push(partition.name.clone());
            }
        }
        if stopped {
            self.state = State::Running;
        }
        if !again.is_empty() {
            self.control.retake(&again);
        }
        self.show(now);
    }
}
