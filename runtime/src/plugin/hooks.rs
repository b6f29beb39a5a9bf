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
    /// The plugins' own metrics, to be gathered with the rest.
    pub custom_metrics: Arc<CustomMetrics>,
}

impl Default for PluginHooks {
    fn default() -> Self {
        Self {
            compile_cache: Arc::new(|_| {}),
            log_entries_dropped: Arc::new(|_, _| {}),
            custom_metrics: Arc::default(),
        }
    }
}

impl fmt::Debug for PluginHooks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PluginHooks")
    }
}
