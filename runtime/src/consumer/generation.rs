//! One loaded version of a consumer's plugin with one configuration.

use std::sync::Arc;

use crate::config;
use crate::plugin::Plugin;

/// What every call of a consumer is made with. A deploy swaps it as a whole; a call that runs ends
/// on the one it began with.
pub struct Generation {
    /// Counts the generations of a consumer, from 1 on.
    pub number: u64,
    pub plugin: Arc<dyn Plugin>,
    pub settings: Arc<config::Consumer>,
}

impl Generation {
    /// The digest of the component.
    pub fn digest(&self) -> &Arc<str> {
        &self.plugin.info().digest
    }
}
