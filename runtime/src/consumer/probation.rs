//! A generation that has still to prove itself.
//!
//! ```text
//! swap ─▶ on probation ── events that fail: kept in their lanes, unsettled ──┐
//!            │ too many, an open breaker, no instance ─▶ the one before ◀────┤ takes them
//!            └ time is over, few failed ─────────────▶ trusted ◀─────────────┘
//! ```
//! So a failed deploy changes nothing but the time at which some events are processed.

use std::sync::Arc;

use tokio::sync::oneshot;
use tokio::time::Instant;

use super::assemble::{Answer, Fate};
use super::generation::Generation;
use super::runner::Runner;
use super::status::State;
use crate::broker::PublishError;
use crate::config::Deploy;
use crate::decide::probation::{Cause, Judgement, Probation};
use crate::metrics::Outcome;
use crate::mutation::{self, Mutation};

/// How a probation ended.
#[derive(Clone, Debug, PartialEq)]
pub enum Ended {
    Passed,
    /// The generation of this number took over again.
    RolledBack {
        to: u64,
        reason: String,
    },
    /// Another one took over before the judgement.
    Replaced,
}

/// A generation on probation, and what comes after it.
pub(super) struct OnProbation {
    counts: Probation,
    /// The last one that was trusted.
    before: Arc<Generation>,
    /// What the last event that failed was told.
    complaint: Option<String>,
    tell: oneshot::Sender<Ended>,
}

impl Runner {
    /// Puts the generation that just took over on probation, where its settings ask for it and a way
    /// leads back.
    pub(super) fn begin_probation(
        &mut self,
        before: Arc<Generation>,
        tell: oneshot::Sender<Ended>,
        now: Instant,
    ) {
        let settings = self.settings().deploy;
        let Some(counts) = Probation::begin(settings, now) else {
            // Nobody waits where there is no probation.
            let _ = tell.send(Ended::Passed);
            return;
        };
        if !leads_back(before.settings.deploy, settings) {
            tracing::warn!(
                consumer = %self.settings().name, from = before.settings.deploy.state_version,
                to = settings.state_version,
                "no probation: from another state_version no way leads back"
            );
            let _ = tell.send(Ended::Passed);
            return;
        }
        self.generation.put_on_probation(true);
        self.probation = Some(OnProbation {
            counts,
            before,
            complaint: None,
            tell,
        });
    }

    /// The generation to go back to: the one before the one on probation, or the one that works.
    pub(super) fn trusted(&self) -> Arc<Generation> {
        match &self.probation {
            Some(probation) => probation.before.clone(),
            None => self.generation.clone(),
        }
    }

    /// Ends a probation without a judgement, for another generation takes over.
    pub(super) fn replace_probation(&mut self) {
        if let Some(probation) = self.probation.take() {
            // Whoever waits for it may have gone.
            let _ = probation.tell.send(Ended::Replaced);
        }
    }

    /// The broker refuses what a generation on probation derived from an event: the event failed,
    /// though its call did not. It does not settle, and what came behind it may not be written before
    /// it: its partition stands, and is taken again by whoever is trusted; at once where another one
    /// works by now. With it `handled` events were counted that come again.
    pub(super) fn await_judgement(
        &mut self,
        assignment: u64,
        generation: &Generation,
        offset: u64,
        handled: u64,
        error: &PublishError,
    ) {
        let now = Instant::now();
        let reason = format!(
            "what generation {} made of offset {offset} cannot be written: {error}; the generation is on \
             probation, and the partition waits for the judgement",
            generation.number
        );
        tracing::warn!(consumer = %self.settings().name, %reason, "a partition waits");
        self.stand(assignment, None, reason);
        if let Some(partition) = self.partitions.get_mut(&assignment) {
            partition.awaits_judgement = true;
        }
        match &mut self.probation {
            Some(probation) if generation.number == self.generation.number => {
                probation.counts.take_back(handled);
                probation.complaint = Some(error.to_string());
                self.judge(now);
            }
            _ => self.take_again(|partition| partition.awaits_judgement, now),
        }
    }

    /// Counts what the generation on probation made of a call's events. Behind an event at which the
    /// partition stands it counts for nothing: they come again.
    pub(super) fn testify(&mut self, assignment: u64, answer: &Answer) {
        let partition = self.partitions.get(&assignment);
        let Some(probation) = &mut self.probation else {
            return;
        };
        if partition.is_none_or(|partition| partition.halted.is_some()) {
            return;
        }
        for fate in &answer.fates {
            match fate {
                Fate::Settled(Outcome::DeadLettered, _) | Fate::Halt(_) => {
                    probation.counts.count(0, 1);
                }
                Fate::Settled(..) => probation.counts.count(1, 0),
                Fate::Kept(reason) | Fate::Lost(reason) => {
                    probation.counts.count(0, 1);
                    probation.complaint = Some(reason.clone());
                }
                Fate::Again | Fate::Retry(_) => {}
            }
        }
    }

    /// Goes back from a generation on probation whose breaker opened before it handled anything;
    /// false where it did.
    pub(super) fn roll_back_if_useless(&mut self, why: &str, now: Instant) -> bool {
        let useless = |probation: &OnProbation| probation.counts.handled() == 0;
        self.probation.as_ref().is_some_and(useless)
            && self.roll_back_for(
                format!("the circuit breaker opened before an event was handled: {why}"),
                now,
            )
    }

    /// No instance starts of a generation that is on probation, if one is.
    pub(super) fn hinder_probation(&mut self, reason: &str) {
        if let Some(probation) = &mut self.probation {
            probation.counts.hindered(reason.to_owned());
        }
    }

    /// Acts on what is to be thought of the generation by now.
    pub(super) fn judge(&mut self, now: Instant) {
        let Some(probation) = &self.probation else {
            return;
        };
        if self.state == State::Draining {
            return;
        }
        let stuck = self.nothing_goes_on();
        match probation.counts.judge(now, stuck) {
            Judgement::GoesOn => {}
            Judgement::Passed => self.pass(now),
            Judgement::Failed(cause) => self.roll_back(&cause, now),
        }
    }

    /// Goes back from a generation on probation for something that is no event's fault; false where
    /// there is none.
    pub(super) fn roll_back_for(&mut self, trouble: String, now: Instant) -> bool {
        let on_probation = self.probation.is_some() && self.state != State::Draining;
        if on_probation {
            self.roll_back(&Cause::Trouble(trouble), now);
        }
        on_probation
    }

    fn pass(&mut self, now: Instant) {
        let Some(probation) = self.probation.take() else {
            return;
        };
        self.generation.put_on_probation(false);
        tracing::info!(
            consumer = %self.settings().name, generation = self.generation.number,
            "the generation has proved itself"
        );
        let _ = probation.tell.send(Ended::Passed);
        self.take_again(|partition| partition.awaits_judgement, now);
        self.begin_anew(now);
    }

    fn roll_back(&mut self, cause: &Cause, now: Instant) {
        let Some(probation) = self.probation.take() else {
            return;
        };
        let reason = match &probation.complaint {
            Some(complaint) => format!("{cause}; the last one: {complaint}"),
            None => cause.to_string(),
        };
        tracing::error!(
            consumer = %self.settings().name, generation = self.generation.number,
            digest = %self.generation.digest(), to = %probation.before.digest(), %reason,
            "the generation did not prove itself: the one before takes over again, and the events that failed are its"
        );
        let to = probation.before.number;
        // Shown before it is told: who is told looks.
        if !mutation::is(Mutation::RolledBackInWord) {
            self.take_over(probation.before, None, now);
        }
        let _ = probation.tell.send(Ended::RolledBack { to, reason });
    }

    /// Whether every event that waits stands behind one that failed.
    fn nothing_goes_on(&self) -> bool {
        self.calls.is_empty()
            && self.claims.len() == 0
            && !self.paused
            && (!self.has_ready_lanes() || self.guard.is_open())
    }

    /// What waits in all lanes is tried anew by the generation that works now.
    pub(super) fn begin_anew(&mut self, now: Instant) {
        let mut lanes = Vec::new();
        for (assignment, partition) in &mut self.partitions {
            lanes.extend(partition.begin_anew(*assignment, now));
        }
        for id in lanes {
            self.consider(id, now);
        }
    }
}

/// Whether the settings before can follow on those after: a plugin that kept its state in another
/// form cannot read it.
pub fn leads_back(before: Deploy, after: Deploy) -> bool {
    before.state_version == after.state_version
}
