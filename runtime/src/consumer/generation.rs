//! One loaded version of a consumer's plugin with one configuration.

use std::fmt;
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

impl fmt::Debug for Generation {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(to, "generation {} ({})", self.number, self.digest())
    }
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

#[cfg(test)]
pub mod tests {
    use futures::future::BoxFuture;

    use super::*;
    use crate::plugin::{Instance, PluginInfo, StartError};

    struct Nobody(PluginInfo);

    impl Plugin for Nobody {
        fn instantiate(&self) -> BoxFuture<'_, Result<Box<dyn Instance>, StartError>> {
            let nobody = StartError::Exhausted("nobody starts".to_owned());
            Box::pin(std::future::ready(Err(nobody)))
        }

        fn info(&self) -> &PluginInfo {
            &self.0
        }
    }

    /// One that makes no call.
    pub fn nobodys() -> Arc<Generation> {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("millstream.toml");
        let text = "[[consumer]]\nname = \"n\"\nplugin = \"n.wasm\"\ntopics = [\"in\"]\n";
        std::fs::write(&file, text).unwrap();
        let loaded = config::load_without_plugins(&file, &|_| None).unwrap();
        let info = PluginInfo {
            digest: "sha256:0".into(),
            contract: "0.1.0".to_owned(),
            size: 1,
        };
        let settings = loaded.config.consumers[0].clone();
        Arc::new(Generation::new(1, Arc::new(Nobody(info)), settings))
    }
}
