//! The composition root.

use std::time::Duration;

use tokio::sync::watch;

use crate::config::Config;

/// How to run.
#[derive(Clone, Debug, Default)]
pub struct RunOptions {
    /// End when everything is processed. The value is how long one who waits (an open breaker, a
    /// stopped consumer) is given.
    pub until_idle: Option<Duration>,
    /// Fail when an event was dead-lettered.
    pub fail_on_dead_letter: bool,
    /// Where to put the state of the run a few times a second, for whoever shows it.
    pub progress: Option<watch::Sender<RunProgress>>,
}

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

/// Runs until stopped, or until everything is processed.
///
/// # Errors
/// What keeps the runtime from starting, or ended it.
pub async fn run(config: Config, options: RunOptions) -> anyhow::Result<RunSummary> {
    let _ = (config, options);
    anyhow::bail!("this build has no consumers")
}
