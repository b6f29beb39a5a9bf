//! What an instance starts with.

use serde::de::DeserializeOwned;

use crate::{Error, Output, Result, host};

/// What an instance starts with: the consumer's configuration and the names of its outputs.
#[derive(Debug)]
pub struct Setup {
    config: String,
    outputs: Vec<String>,
}

impl Setup {
    /// `config` is a JSON object, `{}` where the consumer has none.
    pub(crate) fn new(config: String, outputs: Vec<String>) -> Self {
        Self { config, outputs }
    }

    /// The output that the consumer's configuration gives this name.
    ///
    /// # Errors
    /// There is none: the deploy is refused, saying which name is missing.
    pub fn output(&self, name: &str) -> Result<Output> {
        find(&self.outputs, name)
    }

    /// The names of the consumer's outputs.
    pub fn outputs(&self) -> impl ExactSizeIterator<Item = &str> {
        self.outputs.iter().map(String::as_str)
    }

    /// A fact about the runtime: `version`, `consumer`, `generation`, `plugin.digest`, `shadow`.
    /// None where the runtime does not know it. In a [`Harness`](crate::Harness) none is known.
    pub fn property(&self, name: &str) -> Option<String> {
        host::property(name)
    }

    /// The consumer's `config` as JSON text.
    pub fn config(&self) -> &str {
        &self.config
    }

    /// The consumer's `config` as the plugin's type. `{}` is also read as `()`.
    pub(crate) fn settings<T: DeserializeOwned>(&self) -> Result<T> {
        serde_json::from_str(&self.config)
            .or_else(|error| {
                let none = self.config.trim() == "{}";
                none.then(|| serde_json::from_str("null").ok())
                    .flatten()
                    .ok_or(error)
            })
            .map_err(|error| {
                Error::reject("config", format!("config is not what it wants: {error}"))
            })
    }

    pub(crate) fn into_outputs(self) -> Vec<String> {
        self.outputs
    }
}

/// The output of this name among `outputs`.
pub(crate) fn find(outputs: &[String], name: &str) -> Result<Output> {
    match outputs.iter().position(|known| known == name) {
        Some(index) => Ok(Output::at(index as u32)),
        None => Err(Error::halt(
            "no-output",
            format!(
                "it has no output {name:?}; add it to the consumer's `outputs`, which name {}",
                outputs.join(", ")
            ),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn setup(config: &str) -> Setup {
        Setup::new(config.to_owned(), vec!["default".to_owned()])
    }

    /// A plugin without settings must start, and a misspelt table must not pass for none.
    #[test]
    fn no_settings_are_unit_and_nothing_else() {
        assert!(setup("{}").settings::<()>().is_ok());
        assert!(setup(r#"{"a": 1}"#).settings::<()>().is_err());
    }

    #[test]
    fn a_missing_output_is_named_with_the_known_ones() {
        let error = setup("{}").output("alerts").unwrap_err();
        assert!(error.reason().contains("\"alerts\""), "{error}");
        assert!(error.reason().contains("default"), "{error}");
    }
}
