//! What the host tells the metrics that the rest of the runtime owns.

use std::fmt;
use std::sync::Arc;

use super::custom_metrics::CustomMetrics;

/// How the compile cache answered; the value of the label `result`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CacheResult {
    /// A compiled component was loaded.
    Hit,
    /// There was none.
    Miss,
    /// There was one, but it is corrupt, foreign or not private; the component was compiled anew.
    Rejected,
}

impl CacheResult {
    /// The label's value.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Hit => "hit",
            Self::Miss => "miss",
            Self::Rejected => "rejected",
        }
    }
}

/// How a request of a plugin to the outside ended; the value of the label `result`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HttpResult {
    /// With an answer, whatever its status.
    Answered,
    /// It may not go there.
    Denied,
    /// The request is wrong.
    Invalid,
    TimedOut,
    Unreachable,
    /// The answer is.
    TooLarge,
    Other,
}

impl HttpResult {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::Answered,
        Self::Denied,
        Self::Invalid,
        Self::TimedOut,
        Self::Unreachable,
        Self::TooLarge,
        Self::Other,
    ];

    /// The label's value.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Answered => "answered",
            Self::Denied => "denied",
            Self::Invalid => "invalid",
            Self::TimedOut => "timed_out",
            Self::Unreachable => "unreachable",
            Self::TooLarge => "too_large",
            Self::Other => "other",
        }
    }
}

/// Is told a consumer's name and how a request of its plugin ended.
pub type HttpRequestOfConsumer = dyn Fn(&str, HttpResult) + Send + Sync;

/// Is told a consumer's name and how many more there are.
pub type CountOfConsumer = dyn Fn(&str, u64) + Send + Sync;

/// Where the host counts. The default counts nowhere. Hooks are called from the data path: they
/// must neither block nor panic.
#[derive(Clone)]
pub struct PluginHooks {
    /// `compile_cache_total`.
    pub compile_cache: Arc<dyn Fn(CacheResult) + Send + Sync>,
    /// `log_entries_dropped_total`.
    pub log_entries_dropped: Arc<CountOfConsumer>,
    /// `plugin_http_requests_total`.
    pub http_request: Arc<HttpRequestOfConsumer>,
    /// The plugins' own metrics, to be gathered with the rest.
    pub custom_metrics: Arc<CustomMetrics>,
}

impl Default for PluginHooks {
    fn default() -> Self {
        Self {
            compile_cache: Arc::new(|_| {}),
            log_entries_dropped: Arc::new(|_, _| {}),
            http_request: Arc::new(|_, _| {}),
            custom_metrics: Arc::default(),
        }
    }
}

impl fmt::Debug for PluginHooks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PluginHooks")
    }
}
