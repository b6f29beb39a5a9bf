//! Exactly once: units and the positions that they settle take effect together.
//!
//! ```text
//! units ─▶ waiting ──gathered, or enough──▶ one transaction ─▶ committed: settle, the next one
//!             ▲ └─ staged: written already ─▶     │ aborted, or a record refused
//!             └────── in front, in order ◀────────┘
//! ```
//! A unit is kept until the outcome of its transaction is known; whether one that was in doubt took
//! effect is the adapter's to find out.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use tokio::time::Instant;

use super::unit::Unit;
use super::writer::{Mended, REWRITE_AFTER, Written};
use crate::broker::{Commit, PublishError, Sink, TransactError};
use crate::config::{CommitCadence, InFlight};
use crate::decide::admission::Load;
use crate::decide::gathering::Gathering;
use crate::event::TopicPartition;
use crate::mutation::{self, Mutation};

/// The longest interval that a transaction is open for while it gathers units; the broker ends one
/// after 15 s.
const STAGED_FOR: Duration = Duration::from_secs(5);

/// See the module's picture.
pub struct Transactions {
    sink: Arc<dyn Sink>,
    cadence: CommitCadence,
    /// With so much waiting a transaction is committed before its interval is over: the rest of the
    /// budget is what the plugin works on meanwhile.
    enough: Load,
    waiting: VecDeque<Unit>,
    /// How many of the first of them the broker may be writing into the next transaction.
    staged: usize,
    waits: Load,
    /// When what waits is committed.
    due: Option<Instant>,
    gathering: Gathering,
    running: Option<Running>,
    /// The waiting unit of which the broker refuses a record.
    culprit: Option<(usize, PublishError)>,
    not_before: Option<Instant>,
    aborts: u32,
    queued_bytes: usize,
}

struct Running {
    future: BoxFuture<'static, Result<(), TransactError>>,
    begun: Instant,
    units: Vec<Unit>,
    commits: Vec<Commit>,
}

/// A transaction that took effect.
#[derive(Debug)]
pub struct Transacted {
    pub units: Vec<Unit>,
    pub commits: Vec<Commit>,
    pub took: Duration,
}

impl Transactions {
    /// None yet.
    pub fn new(sink: Arc<dyn Sink>, cadence: CommitCadence, in_flight: InFlight) -> Self {
        Self {
            sink,
            cadence,
            enough: Load {
                events: (in_flight.max_events / 2).min(cadence.max_events).max(1),
                bytes: (in_flight.max_bytes / 2).max(1),
            },
            waiting: VecDeque::new(),
            staged: 0,
            waits: Load::default(),
            due: None,
            gathering: Gathering::default(),
            running: None,
            culprit: None,
            not_before: None,
            aborts: 0,
            queued_bytes: 0,
        }
    }

    /// Adds a unit behind those that wait.
    pub fn write(&mut self, unit: Unit) {
        if mutation::is(Mutation::DeadLettersOutside)
            && unit.settled.iter().any(|settled| settled.reason.is_some())
        {
            drop(self.sink.publish(unit.records.clone()));
        }
        self.queued_bytes += unit.records.bytes();
        self.waits.add(cost(&unit));
        self.waiting.push_back(unit);
        let now = Instant::now();
        let enough =
            self.waits.events >= self.enough.events || self.waits.bytes >= self.enough.bytes;
        let at = if enough {
            now
        } else {
            now + self.gathering.lasts(self.cadence.interval)
        };
        self.due = Some(self.due.map_or(at, |due| due.min(at)));
        self.stage(now);
    }

    /// Has the units that wait written already. Not where their transaction would be open for long:
    /// readers wait for its end.
    fn stage(&mut self, now: Instant) {
        if self.cadence.interval > STAGED_FOR
            || self.culprit.is_some()
            || self.not_before.is_some_and(|at| at > now)
        {
            return;
        }
        while let Some(unit) = self.waiting.get(self.staged) {
            if !unit.records.is_empty() && !self.sink.stage(&unit.records) {
                return;
            }
            self.staged += 1;
        }
    }

    fn unstage(&mut self) {
        if std::mem::take(&mut self.staged) > 0 {
            self.sink.unstage();
        }
    }

    /// Bytes of the records that are not known to be written.
    pub fn queued_bytes(&self) -> usize {
        self.queued_bytes
    }

    /// Whether units of these partitions are not written yet.
    pub fn is_writing(&self, of: impl Fn(&TopicPartition) -> bool) -> bool {
        let running = self.running.iter().flat_map(|running| &running.units);
        self.waiting
            .iter()
            .chain(running)
            .any(|unit| of(&unit.partition))
    }

    /// Whether a transaction is under way.
    pub fn is_running(&self) -> bool {
        self.running.is_some()
    }

    /// When the next transaction is due; `None` where nothing waits or one is under way.
    pub fn due(&self) -> Option<Instant> {
        if self.running.is_some() || self.culprit.is_some() {
            return None;
        }
        self.due.map(|due| self.not_sooner(due))
    }

    /// When what is due then may begin: after an abort some time passes.
    pub fn not_sooner(&self, due: Instant) -> Instant {
        self.not_before.map_or(due, |at| at.max(due))
    }

    /// What waits is due now.
    pub fn hurry(&mut self, now: Instant) {
        self.due = self.due.map(|due| due.min(now));
    }

    /// Whether one may begin at all.
    pub fn may_begin(&self, now: Instant) -> bool {
        self.running.is_none()
            && self.culprit.is_none()
            && self.not_before.is_none_or(|at| at <= now)
    }

    /// The units of the next transaction; [`Self::begin`] must follow.
    pub fn take(&mut self) -> Vec<Unit> {
        self.due = None;
        self.staged = 0;
        self.waits = Load::default();
        self.waiting.drain(..).collect()
    }

    /// Begins the transaction of these units and positions.
    pub fn begin(&mut self, units: Vec<Unit>, commits: Vec<Commit>) {
        let records = units
            .iter()
            .map(|unit| unit.records.clone())
            .filter(|records| {
                !records.is_empty() && !mutation::is(Mutation::TransactionWithoutRecords)
            })
            .collect();
        let positions = match mutation::is(Mutation::TransactionWithoutPositions) {
            true => Vec::new(),
            false => commits.clone(),
        };
        self.running = Some(Running {
            future: self.sink.transact(records, positions),
            begun: Instant::now(),
            units,
            commits,
        });
    }

    /// What happens next; waits for ever where nothing is under way. Dropping the future loses
    /// nothing.
    pub async fn next(&mut self) -> Written {
        loop {
            if let Some((_, error)) = &self.culprit {
                return Written::Refused(error.clone());
            }
            let Some(running) = &mut self.running else {
                return std::future::pending().await;
            };
            let result = (&mut running.future).await;
            let Some(running) = self.running.take() else {
                continue;
            };
            match result {
                Ok(()) => {
                    if mutation::is(Mutation::TransactionTwice) {
                        let records = running.units.iter().map(|unit| unit.records.clone());
                        drop(
                            self.sink
                                .transact(records.collect(), running.commits.clone()),
                        );
                    }
                    self.aborts = 0;
                    self.not_before = None;
                    let took = running.begun.elapsed();
                    self.gathering.took(took);
                    let written: usize = running.units.iter().map(|u| u.records.bytes()).sum();
                    self.queued_bytes = self.queued_bytes.saturating_sub(written);
                    return Written::Transaction(Transacted {
                        units: running.units,
                        commits: running.commits,
                        took,
                    });
                }
                Err(error) => {
                    let took = running.begun.elapsed();
                    self.failed(running.units, error.clone());
                    return Written::Aborted(error, took);
                }
            }
        }
    }

    /// Puts the units back, in front of those that came meanwhile.
    fn failed(&mut self, units: Vec<Unit>, error: TransactError) {
        self.unstage();
        if let TransactError::Refused { batch, error } = error {
            let refused = units
                .iter()
                .enumerate()
                .filter(|(_, unit)| !unit.records.is_empty())
                .nth(batch);
            self.culprit = refused.map(|(index, _)| (index, error));
        } else {
            let (first, longest) = REWRITE_AFTER;
            let wait = first.saturating_mul(1 << self.aborts.min(16)).min(longest);
            self.aborts += 1;
            self.not_before = Some(Instant::now() + wait);
        }
        for unit in units.into_iter().rev() {
            self.waits.add(cost(&unit));
            self.waiting.push_front(unit);
        }
        self.due = Some(Instant::now());
    }

    /// Changes the unit of which a record was refused; see [`super::writer::Writer::mend`].
    pub fn mend(&mut self, mend: impl FnOnce(&mut Unit) -> Mended) -> Vec<Unit> {
        let Some((index, _)) = self.culprit.take() else {
            return Vec::new();
        };
        let Some(unit) = self.waiting.get_mut(index) else {
            return Vec::new();
        };
        let assignment = unit.assignment;
        match mend(unit) {
            Mended::Write => {
                self.count_anew();
                Vec::new()
            }
            Mended::Drop => self.drop_behind(index, assignment),
        }
    }

    /// Takes the waiting units of assignments that are over: they must not be written any more.
    pub fn forget(&mut self, is_ours: impl Fn(&Unit) -> bool) -> Vec<Unit> {
        let waiting = std::mem::take(&mut self.waiting);
        let (ours, gone) = waiting.into_iter().partition::<Vec<_>, _>(is_ours);
        self.waiting = ours.into();
        if !gone.is_empty() {
            self.unstage();
            // The index may have moved; the broker says again what it refuses.
            self.culprit = None;
            self.count_anew();
        }
        gone
    }

    fn drop_behind(&mut self, index: usize, assignment: u64) -> Vec<Unit> {
        let waiting = std::mem::take(&mut self.waiting);
        let mut dropped = Vec::new();
        for (at, unit) in waiting.into_iter().enumerate() {
            if at >= index && unit.assignment == assignment {
                dropped.push(unit);
            } else {
                self.waiting.push_back(unit);
            }
        }
        self.count_anew();
        dropped
    }

    fn count_anew(&mut self) {
        self.waits = Load::default();
        for unit in &self.waiting {
            self.waits.add(cost(unit));
        }
        let running = self.running.iter().flat_map(|running| &running.units);
        let all = self.waiting.iter().chain(running);
        self.queued_bytes = all.map(|unit| unit.records.bytes()).sum();
    }
}

fn cost(unit: &Unit) -> Load {
    let bytes = unit.settled.iter().map(|settled| {
        let item = &unit.work.items[settled.index as usize];
        unit.work.block(item).event_cost()
    });
    Load {
        events: unit.settled.len(),
        bytes: bytes.sum(),
    }
}
