//! Moving a partition past the event that it halted at, or that the circuit breaker keeps, by an
//! operator's word.
//!
//! ```text
//! Commander ─ Skip ─▶ Runner: settle that one offset ─▶ commit ─▶ Control::retake ─▶ Assigned anew
//! ```
//! What came behind the event was thrown away at the halt, so the partition is taken again where the
//! group stands by then; what is settled above stays settled. A partition of which the breaker keeps
//! events halts for it first.

use std::time::Duration;

use tokio::time::Instant;

use super::runner::Runner;
use crate::config::Delivery;
use crate::decide::crash::Watch;
use crate::event::TopicPartition;
use crate::mutation::{self, Mutation};

/// How long units in flight and the commit may take.
const WITHIN: Duration = Duration::from_secs(5);

impl Runner {
    /// Moves a partition past the event that it halted at, or says why not.
    pub(super) async fn skip(&mut self, name: &TopicPartition, offset: u64) -> Result<(), String> {
        let deadline = Instant::now() + WITHIN;
        self.check_halted_at(name, offset)
            .or_else(|why| self.halt_at_kept(name, offset).ok_or(why))?;
        // What was written before the halt settles first, or it would be repeated.
        while self.writer.is_writing(|partition| partition == name) {
            self.transact(Instant::now(), true);
            if !self.wrote_before(deadline).await {
                return Err(format!(
                    "{name} still waits for the broker to take what was written before; nothing \
                     was skipped, try again"
                ));
            }
        }
        if let Some(tracker) = self.positions.tracker(name)
            && !mutation::is(Mutation::SkipForgotten)
        {
            // Settled already where an earlier try did not get as far as the commit.
            tracker.settle(offset);
        }
        if self.settings().delivery != Delivery::AtMostOnce {
            self.positions
                .watch(name, Watch::working(self.life), Instant::now());
        }
        if !mutation::is(Mutation::SkipUncommitted) && !self.commit_all(deadline).await {
            return Err(format!(
                "the position of {name} could not be committed in time; the partition stays halted, \
                 try again"
            ));
        }
        let consumer = self.settings().name.clone();
        tracing::warn!(%consumer, partition = %name, offset, "an operator skipped the event; the partition goes on");
        let id = self.assignments.get(name).copied();
        if let Some(partition) = id.and_then(|id| self.partitions.get_mut(&id)) {
            partition.halted_at = None;
            partition.halted = Some(format!("{offset} was skipped, and it is taken up again"));
        }
        let key = (name.topic.clone(), "skipped");
        *self.ledger.lock().skipped.entry(key).or_default() += 1;
        self.control.retake(std::slice::from_ref(name));
        self.show(Instant::now());
        Ok(())
    }

    /// Halts a partition at an event that failed and that the breaker keeps; `None` where that is not
    /// so.
    fn halt_at_kept(&mut self, name: &TopicPartition, offset: u64) -> Option<()> {
        let id = *self.assignments.get(name)?;
        let partition = self.partitions.get(&id)?;
        let keeps = self.guard.is_open() || self.guard.is_probing();
        if !keeps || partition.halted.is_some() || !partition.holds_failed(offset) {
            return None;
        }
        self.stand(id, Some(offset), format!("{offset} is being skipped"));
        Some(())
    }

    /// Whether it may be skipped; else why not.
    fn check_halted_at(&self, name: &TopicPartition, offset: u64) -> Result<(), String> {
        let partition = self
            .assignments
            .get(name)
            .and_then(|id| self.partitions.get(id));
        let Some(partition) = partition else {
            return Err(format!(
                "{name} is not with this runtime; ask the one that has it"
            ));
        };
        let Some(reason) = &partition.halted else {
            return Err(format!(
                "{name} is not halted, and no event that failed waits at {offset} for the circuit breaker; \
                 only such an event can be skipped. Where it is tried at the moment, try again"
            ));
        };
        match partition.halted_at {
            Some(at) if at == offset => Ok(()),
            Some(at) => Err(format!(
                "{name} is halted at offset {at}, not at {offset}: {reason}"
            )),
            None => Err(format!("{name} is halted, but not at an event: {reason}")),
        }
    }
}
