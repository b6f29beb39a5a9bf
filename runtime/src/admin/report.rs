//! What the runtime tells of itself: health, readiness and each consumer's state.

use std::path::PathBuf;

use futures::future::BoxFuture;
use serde::{Deserialize, Serialize};

use crate::event::TopicPartition;

/// What the HTTP interface asks of the runtime. No call blocks.
pub trait Health: Send + Sync {
    /// Whether every poll loop and lane makes progress.
    ///
    /// # Errors
    /// What stands still, and for how long.
    fn alive(&self) -> Result<(), String>;

    /// Whether the runtime can do its work.
    fn ready(&self) -> Readiness;

    /// Whether it is shutting down: nothing new is taken.
    fn draining(&self) -> bool;

    /// Every consumer, in the order of the configuration.
    fn consumers(&self) -> Vec<ConsumerReport>;
}

/// What the HTTP interface may tell the runtime to do.
pub trait Operator: Send + Sync {
    /// Moves a halted partition of a consumer past the event at `offset`.
    fn skip<'a>(
        &'a self,
        consumer: &'a str,
        partition: TopicPartition,
        offset: u64,
    ) -> BoxFuture<'a, Result<(), NotDone>>;

    /// Deploys, goes back, pauses or resumes.
    fn grant(&self, wish: Wish) -> BoxFuture<'_, Result<ReloadReport, NotDone>>;
}

/// What an operator wants of the consumers at work.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wish {
    /// That the newest configuration applies.
    Reload,
    /// Another component for a consumer, or the one that the file names again.
    Deploy {
        consumer: String,
        options: DeployRequest,
    },
    /// What ran before.
    Rollback {
        consumer: String,
        options: RollbackRequest,
    },
    /// That a consumer stands still.
    Pause(String),
    /// That it goes on.
    Resume(String),
}

/// The body of `POST /api/v1/consumers/{consumer}/deploy`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeployRequest {
    /// A component on the runtime's machine, by its absolute path; without it what the file names.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plugin: Option<PathBuf>,
    /// Whether what was rolled back may be deployed again.
    #[serde(default)]
    pub force: bool,
    /// Whether all is checked and nothing changed.
    #[serde(default)]
    pub dry_run: bool,
}

/// The body of `POST /api/v1/consumers/{consumer}/rollback`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RollbackRequest {
    /// The beginning of the digest to go back to; without it the one before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<String>,
    /// Whether all is checked and nothing changed.
    #[serde(default)]
    pub dry_run: bool,
}

/// The answer of `POST /-/reload`: what became of each consumer that changed.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ReloadReport {
    pub steps: Vec<ReloadStep>,
    /// Tables that changed and are read at the start alone.
    pub needs_restart: Vec<String>,
    /// Whether nothing of it was done.
    #[serde(default)]
    pub dry_run: bool,
}

/// A consumer's part of a reload.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ReloadStep {
    pub consumer: String,
    /// `add`, `swap`, `start-anew` or `remove`.
    pub change: String,
    /// The keys that differ, where that is why.
    pub keys: Vec<String>,
    /// The generation that works now; 0 where none does.
    pub generation: u64,
    /// Of the plugin that works now; empty where none does.
    #[serde(default)]
    pub digest: String,
    /// What handling live events in shadow showed, where it was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shadow: Option<ShadowSummary>,
    /// For how many seconds it has still to prove itself; 0 where it has not.
    #[serde(default)]
    pub probation_seconds: f64,
}

/// What another version made of live events beside the one at work.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ShadowSummary {
    pub events: u64,
    pub equal: u64,
    pub different: u64,
    pub failed: u64,
    /// Of the first that were not equal.
    pub examples: Vec<String>,
    /// What an event took, by the version at work and by the other one.
    pub microseconds_before: f64,
    pub microseconds: f64,
}

/// Why an operator's wish was not done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NotDone {
    /// No consumer of this name is at work.
    UnknownConsumer,
    /// The consumer says why.
    Refused(String),
}

/// The answer of `/readyz`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Readiness {
    pub ready: bool,
    /// What stands in the way.
    pub reasons: Vec<String>,
    /// What is worth knowing and does not count: open breakers, pauses, lag.
    pub notes: Vec<String>,
}

/// A consumer as `/api/v1/consumers` shows it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConsumerReport {
    pub name: String,
    pub group: String,
    /// `starting`, `running`, `waiting`, `halted`, `stopped` or `disabled`.
    pub state: String,
    /// Why it is in this state, where that is not plain.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Counts the loaded versions of the plugin, from 1.
    pub generation: u64,
    /// Of the plugin: `sha256:` and 64 hexadecimal digits.
    pub digest: String,
    /// Unsettled events of all assigned partitions.
    pub lag: u64,
    /// Events admitted and not settled yet.
    pub in_flight: u64,
    /// `closed`, `open` or `half_open`.
    pub breaker: String,
    /// What was done by hand and holds: `deploy`, `rollback`, `pause`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub overrides: Vec<String>,
    /// Whether what runs is not what the configuration names.
    #[serde(default)]
    pub drift: bool,
    /// Whether its generation has still to prove itself.
    #[serde(default)]
    pub probation: bool,
    /// The assigned partitions.
    pub partitions: Vec<PartitionReport>,
}

/// An assigned partition of a consumer.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartitionReport {
    pub topic: String,
    pub partition: u32,
    /// The offset below which everything is settled.
    pub position: u64,
    /// One past the last event, as last heard of.
    pub end: u64,
    pub lag: u64,
    /// Why it is halted; absent while it is not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub halted: Option<String>,
    /// The offset of the event that it is halted at; absent where it was something else.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub halted_at: Option<u64>,
    /// Whether its events run one at a time since a process died with some of them in flight; absent
    /// where they do not.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub on_trial: bool,
}
