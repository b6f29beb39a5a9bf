//! What a run did, while it goes on and at its end.

use std::time::Duration;

use super::health::RuntimeHealth;
use super::{Ended, RunOptions};
use crate::config::Config;
use crate::metrics::{Metrics, Outcome};

/// The state of a run, all consumers together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RunProgress {
    pub consumed: u64,
    pub settled: u64,
    pub produced: u64,
    pub dead_letters: u64,
    /// Events that wait in the topics.
    pub lag: u64,
}

/// What a run did.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RunSummary {
    pub duration: Duration,
    /// In the order of the configuration.
    pub consumers: Vec<ConsumerSummary>,
    /// Why the run counts as failed; `None` where it did what it was asked to.
    pub failure: Option<String>,
    /// Whether it ended by SIGINT.
    pub interrupted: bool,
}

/// What one consumer did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ConsumerSummary {
    pub name: String,
    pub consumed: u64,
    /// Events by outcome: `ok`, `filtered`, `dropped`, `dead_lettered`, `abandoned`.
    pub settled: Vec<(String, u64)>,
    /// Derived events by output.
    pub produced: Vec<(String, u64)>,
}

/// All consumers of a configuration together, as they stand.
pub(super) fn progress(config: &Config, metrics: &Metrics, health: &RuntimeHealth) -> RunProgress {
    let mut progress = RunProgress::default();
    for consumer in config.consumers.iter().filter(|consumer| consumer.enabled) {
        let ledger = metrics.ledger(&consumer.name);
        let ledger = ledger.lock();
        progress.consumed += ledger
            .consumed
            .values()
            .map(|volume| volume.events)
            .sum::<u64>();
        progress.settled += OUTCOMES
            .iter()
            .map(|(outcome, _)| ledger.settled_as(*outcome))
            .sum::<u64>();
        progress.produced += ledger
            .produced
            .values()
            .map(|volume| volume.events)
            .sum::<u64>();
        progress.dead_letters += ledger.dead_letters();
    }
    progress.lag = health.lag();
    progress
}

const OUTCOMES: [(Outcome, &str); 5] = [
    (Outcome::Ok, "ok"),
    (Outcome::Filtered, "filtered"),
    (Outcome::Dropped, "dropped"),
    (Outcome::DeadLettered, "dead_lettered"),
    (Outcome::Abandoned, "abandoned"),
];

/// What all of it came to.
///
/// # Errors
/// What ended the run, where that is a fault.
pub(super) fn summarize(
    config: &Config,
    options: &RunOptions,
    metrics: &Metrics,
    ended: Ended,
    duration: Duration,
) -> anyhow::Result<RunSummary> {
    let mut summary = RunSummary {
        duration,
        ..RunSummary::default()
    };
    let mut dead_letters = 0;
    for consumer in config.consumers.iter().filter(|consumer| consumer.enabled) {
        let ledger = metrics.ledger(&consumer.name);
        let ledger = ledger.lock();
        dead_letters += ledger.dead_letters();
        let settled = OUTCOMES
            .iter()
            .map(|(outcome, name)| ((*name).to_owned(), ledger.settled_as(*outcome)));
        let produced = ledger
            .produced
            .iter()
            .map(|(name, volume)| (name.to_string(), volume.events));
        summary.consumers.push(ConsumerSummary {
            name: consumer.name.to_string(),
            consumed: ledger.consumed.values().map(|volume| volume.events).sum(),
            settled: settled.collect(),
            produced: produced.collect(),
        });
    }
    match ended {
        Ended::Failed(error) => return Err(error),
        Ended::Stuck(reason) => summary.failure = Some(reason),
        Ended::Signal { interrupted } => summary.interrupted = interrupted,
        Ended::Idle => {}
    }
    if options.fail_on_dead_letter && dead_letters > 0 && summary.failure.is_none() {
        summary.failure = Some(format!("{dead_letters} events went to the dead letters"));
    }
    Ok(summary)
}
