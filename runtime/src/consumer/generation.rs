//! One loaded version of a consumer's plugin with one configuration.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::config;
use crate::plugin::Plugin;

/// What every call of a consumer is made with. A deploy swaps it as a whole; a call that runs ends
/// on the one it began with.
pub struct Generation {
    /// Counts the generations of a consumer, from 1 on.
    pub number: u64,
    pub plugin: Arc<dyn Plugin>,
    pub settings: Arc<config::Consumer>,
    on_probation: AtomicBool,
}

impl Generation {
    /// One that is trusted.
    pub fn new(number: u64, plugin: Arc<dyn Plugin>, settings: Arc<config::Consumer>) -> Self {
        Self {
            number,
            plugin,
            settings,
            on_probation: AtomicBool::new(false),
        }
    }

    /// Whether what it fails for good is kept until it is judged.
    pub fn is_on_probation(&self) -> bool {
        self.on_probation.load(Ordering::Relaxed)
    }

    /// From here on it is on probation, or not any more. A call that runs may still end by the word
    /// from before.
    pub fn put_on_probation(&self, on_probation: bool) {
        self.on_probation.store(on_probation, Ordering::Relaxed);
    }

    /// The digest of the component.
    pub fn digest(&self) -> &Arc<str> {
        &self.plugin.info().digest
    }
}
