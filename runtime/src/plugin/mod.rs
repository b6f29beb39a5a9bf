//! The seam to plugins: what the consumer asks of one, whatever runs it.
//!
//! ```text
//! component file ──▶ Plugin (one generation) ──▶ Instance ── process(batch) ──▶ checked outcome
//! ```
//!
//! Behind it stands the WebAssembly host, the only place that knows of wasmtime:
//!
//! ```text
//! loader ─▶ inspect ─▶ cache ─▶ generation (pre-linked) ─▶ instance ─▶ abi (the call itself)
//! (file)    (names)   (compiled)      ▲                        │
//!                                  engine                   imports: runtime, log, metrics, inert WASI,
//!                                                                and what grants allow: http (outbound),
//!                                                                secrets, variables, clock, randomness
//! ```

mod abi;
mod cache;
mod compile_cost;
mod custom_metrics;
mod engine;
mod error;
mod failure;
mod generation;
pub mod grants;
mod hooks;
mod imports;
pub mod inspect;
mod instance;
mod journal;
mod limiter;
mod loader;
mod outbound;
mod reporter;
mod secrets;
mod state;

pub use custom_metrics::CustomMetrics;
pub use engine::Host;
pub use error::LoadError;
pub use hooks::{CacheResult, CountOfConsumer, HttpRequestOfConsumer, HttpResult, PluginHooks};

use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use millstream_wire as wire;

/// One loaded version of a plugin with one configuration: a generation.
pub trait Plugin: Send + Sync {
    /// Makes an instance and runs its `init`, under `limits.init`.
    fn instantiate(&self) -> BoxFuture<'_, Result<Box<dyn Instance>, StartError>>;

    /// What is known of the component.
    fn info(&self) -> &PluginInfo;

    /// The same for instances whose work counts for nothing: what they report is thrown away, and
    /// they do nothing elsewhere. `None` where that cannot be.
    fn in_shadow(&self) -> Option<Arc<dyn Plugin>> {
        None
    }
}

/// What is known of a loaded component.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PluginInfo {
    /// `sha256:` and 64 hexadecimal digits.
    pub digest: Arc<str>,
    /// Contract version that it was built against, such as `0.1.0`.
    pub contract: String,
    /// Size of the component in bytes.
    pub size: u64,
}

/// A running instance. Calls never overlap.
pub trait Instance: Send {
    /// One batch. The outcome was checked: its spans, indexes and codes can be trusted.
    ///
    /// After an error the instance must be dropped unless [`Self::alive`] says otherwise.
    fn process<'a>(
        &'a mut self,
        batch: wire::Batch<'a>,
        context: &'a CallContext,
    ) -> BoxFuture<'a, Result<wire::Checked, CallError>>;

    /// What its linear memory has grown to, in bytes.
    fn memory_bytes(&self) -> u64;

    /// Whether it can take another batch. After [`CallError::Invalid`] it mostly can; after any
    /// other error, or a call whose future was dropped, never.
    fn alive(&self) -> bool {
        true
    }
}

/// What a call is made for.
#[derive(Clone, Debug)]
pub struct CallContext {
    /// How long the call may take, host calls included.
    pub deadline: Duration,
}

/// Why a call failed. The plugin is at fault in each case.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// The guest trapped: a panic, an out-of-bounds access, `unreachable`, an `exit`.
    #[error("the plugin trapped: {0}")]
    Trap(String),
    /// The guest ran past its deadline.
    #[error("the plugin did not answer within {0:?}")]
    Deadline(Duration),
    /// The guest asked for more memory than `limits.memory` and trapped over it.
    #[error("the plugin wanted more memory than its limit: {0}")]
    Memory(String),
    /// The outcome breaks the rules of the wall.
    #[error("the plugin's answer is invalid: {0}")]
    Invalid(String),
}

impl CallError {
    /// The value of the label `kind` and of the header `millstream-dlq-reason`.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Trap(_) => "trap",
            Self::Deadline(_) => "deadline",
            Self::Memory(_) => "memory",
            Self::Invalid(_) => "invalid",
        }
    }
}

/// Why an instance did not start.
#[derive(Clone, Debug, thiserror::Error)]
pub enum StartError {
    /// `init` said that its configuration is wrong: the deploy is refused.
    #[error("the plugin refuses its configuration: {0}")]
    Misconfigured(String),
    /// `init` said that something it needs is not there yet: again after backoff.
    #[error("the plugin cannot start yet: {0}")]
    Unavailable(String),
    /// `init` trapped or ran past `limits.init`.
    #[error("the plugin failed to start: {0}")]
    Failed(CallError),
    /// The host has no room for another instance.
    #[error(
        "no room for another plugin instance: {0}; raise [runtime] max_instances or plugin_memory"
    )]
    Exhausted(String),
}
