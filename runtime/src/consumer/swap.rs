//! Another generation takes over, while events flow.
//!
//! ```text
//! calls under way ─▶ end on the generation they began with ─▶ their instances are dropped
//! next call ───────▶ the new generation, its limits, a new breaker
//! ```
//! No partition moves and no position: what waits in lanes waits for the new generation. What had
//! stopped or halted for the old one's sake is taken up again, for a deploy is how that is mended.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::Instant;

use super::generation::Generation;
use super::partition::Partition;
use super::probation::Ended;
use super::runner::Runner;
use super::status::State;
use crate::plugin::Instance;

/// How long the commit before partitions are taken again may take.
const COMMITTED_WITHIN: Duration = Duration::from_secs(5);

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
        let stopped = matches!(self.state, State::Stopped(_));
        if stopped {
            self.state = State::Running;
        }
        // All of a stopped consumer, and what halted.
        self.take_again(|partition| stopped || partition.halted.is_some(), now);
        self.begin_anew(now);
        self.follow_breaker(now);
        self.go_on(now);
        self.show(now);
    }

    /// Takes these partitions again, which stand still: at the next turn, once what was settled of them
    /// is committed.
    pub(super) fn take_again(&mut self, which: impl Fn(&Partition) -> bool, now: Instant) {
        for partition in self.partitions.values_mut() {
            if which(partition) {
                partition.halted_at = None;
                partition.awaits_judgement = false;
                partition.halted = Some("it is taken up again after a deploy".to_owned());
                self.retaking.push(partition.name.clone());
            }
        }
        self.show(now);
    }

    /// Gives up the partitions that are to be taken again. What was written before settles first, or it
    /// would be repeated.
    pub(super) async fn retake(&mut self) {
        if self.retaking.is_empty() {
            return;
        }
        let again = std::mem::take(&mut self.retaking);
        if !self.commit_all(Instant::now() + COMMITTED_WITHIN).await {
            tracing::warn!(
                consumer = %self.settings().name,
                "positions could not be committed in time; events of partitions that halted may come twice"
            );
        }
        self.control.retake(&again);
    }
}
