//! Where things lie, and the configuration that the parts run with.

use std::path::PathBuf;

use anyhow::{Context, Result, anyhow};
use millstream::config::{self, Config};

/// See the module.
pub struct Setting {
    /// For the store; of this run alone.
    pub folder: PathBuf,
    /// Of compiled plugins, kept from run to run.
    pub cache: PathBuf,
    /// A component that passes events through.
    pub plugin: PathBuf,
}

impl Setting {
    /// What `millstream.toml` says with these paths.
    ///
    /// # Errors
    /// The file is not there or does not hold what the parts need.
    pub fn config(&self) -> Result<Config> {
        let file = concat!(env!("CARGO_MANIFEST_DIR"), "/millstream.toml");
        let environment = |name: &str| {
            let path = match name {
                "FOLDER" => &self.folder,
                "CACHE" => &self.cache,
                "PLUGIN" => &self.plugin,
                _ => return None,
            };
            path.to_str().map(str::to_owned)
        };
        let config = config::load(file.as_ref(), &environment);
        config.map_err(|problems| anyhow!("{problems}"))
    }
}

/// The only consumer of a configuration.
///
/// # Errors
/// There is none.
pub fn consumer(config: &Config) -> Result<config::Consumer> {
    let consumer = config.consumers.first().context("there is no consumer")?;
    Ok(config::Consumer::clone(consumer))
}
