//! What a plugin under test is configured with.
//!
//! ```text
//! --config, else millstream.toml beside the plugin ─▶ its consumer ─▶ config, outputs, limits, …
//! no such file ─────────────────────────────────────▶ defaults, one output named `default`
//!                     a case's own `config` and `outputs` go before ─▶ the consumer of that case
//! ```

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context as _;

use super::case::Case;
use crate::cli::{Context, Failure, connect};
use crate::config::{self, Config, Consumer, Output};

/// Name of the configuration beside a plugin.
const FILE: &str = "millstream.toml";

/// The file that says how the plugin in `folder` is configured, if there is one.
pub fn file(folder: &Path, context: &Context) -> Option<PathBuf> {
    match context.config_given {
        true => Some(context.config.clone()),
        false => Some(folder.join(FILE)).filter(|file| file.is_file()),
    }
}

/// Reads a configuration; its plugins need not be built yet.
///
/// # Errors
/// [`Failure::Configuration`] with all that is wrong.
pub fn load(file: &Path, context: &Context) -> anyhow::Result<Config> {
    let environment = |name: &str| std::env::var(name).ok();
    config::load_without_plugins(file, &environment)
        .map(|loaded| loaded.config)
        .map_err(|problems| connect::failure(&problems, context))
}

/// The consumer of a configuration that a component belongs to: the one of this name, else the only
/// one, else the only one whose plugin's file has the component's name.
///
/// # Errors
/// [`Failure::Usage`] where that is none, or several.
pub fn consumer(
    config: &Config,
    name: Option<&str>,
    component: &Path,
) -> anyhow::Result<Arc<Consumer>> {
    if let Some(name) = name {
        return crate::cli::consumer(config, name).cloned();
    }
    if let [only] = &config.consumers[..] {
        return Ok(only.clone());
    }
    let file = component.file_name();
    let own = |consumer: &&Arc<Consumer>| consumer.plugin.path.file_name() == file;
    let own: Vec<_> = config.consumers.iter().filter(own).collect();
    if let [only] = own[..] {
        return Ok(only.clone());
    }
    let names = |consumers: &mut dyn Iterator<Item = &Arc<Consumer>>| {
        consumers
            .map(|one| one.name.to_string())
            .collect::<Vec<_>>()
            .join(", ")
    };
    let place = config.file.display();
    let text = match own.is_empty() {
        true => format!(
            "none of the consumers of {place} ({}) runs {}; name one by --consumer",
            names(&mut config.consumers.iter()),
            file.unwrap_or_default().display()
        ),
        false => format!(
            "several consumers of {place} run {} ({}); name one by --consumer",
            file.unwrap_or_default().display(),
            names(&mut own.into_iter())
        ),
    };
    Err(Failure::Usage(text).into())
}

/// A consumer with defaults alone.
///
/// # Errors
/// No folder for temporary files is to be had.
pub fn plain(name: &str, output: &str) -> anyhow::Result<Consumer> {
    let folder = tempfile::tempdir().context("cannot make a temporary folder")?;
    let file = folder.path().join(FILE);
    let name = toml::Value::from(name);
    let text = format!(
        "[[consumer]]\nname = {name}\nplugin = \"plugin.wasm\"\ntopics = [\"input\"]\n\
         outputs = {{ {output} = \"{output}\" }}\n"
    );
    std::fs::write(&file, text)?;
    let loaded = config::load_without_plugins(&file, &|_| None)
        .map_err(|problems| anyhow::anyhow!("{}", problems.render(false)))?;
    let consumer = loaded.config.consumers.into_iter().next();
    let consumer = consumer.context("the consumer of the defaults is missing")?;
    Ok(Arc::unwrap_or_clone(consumer))
}

/// The consumer that a case runs on: this component, and the case's own settings.
pub fn of_case(consumer: &Consumer, component: &Path, case: &Case) -> Consumer {
    let mut own = consumer.clone();
    own.plugin.path = component.to_owned();
    // It was the digest of what is deployed, and this is what was built now.
    own.plugin.sha256 = None;
    own.plugin.remote = None;
    if let Some(config) = &case.config {
        own.config = config.as_str().into();
    }
    if let Some(outputs) = &case.outputs {
        let output = |name: &String| Output {
            name: name.as_str().into(),
            topic: Some(name.as_str().into()),
            partitions: None,
        };
        own.outputs = outputs.iter().map(output).collect();
    }
    own
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(consumers: &[(&str, &str)]) -> Config {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join(FILE);
        let consumers: String = consumers
            .iter()
            .map(|(name, plugin)| {
                format!(
                    "[[consumer]]\nname = \"{name}\"\nplugin = \"{plugin}\"\ntopics = [\"t\"]\n"
                )
            })
            .collect();
        std::fs::write(&file, consumers).expect("written");
        let loaded = config::load_without_plugins(&file, &|_| None);
        loaded
            .unwrap_or_else(|problems| panic!("{}", problems.render(false)))
            .config
    }

    /// The settings of another plugin would make every case fail for no reason that its author sees.
    #[test]
    fn the_consumer_is_the_one_that_runs_the_component() {
        let found = |config: &Config, name: Option<&str>| {
            let found = consumer(config, name, Path::new("/target/b.wasm"));
            found
                .map(|one| one.name.to_string())
                .map_err(|error| error.to_string())
        };
        assert_eq!(
            found(&config(&[("x", "other.wasm")]), None).as_deref(),
            Ok("x")
        );
        let two = config(&[("x", "a.wasm"), ("y", "p/b.wasm")]);
        assert_eq!(found(&two, None).as_deref(), Ok("y"));
        assert_eq!(found(&two, Some("x")).as_deref(), Ok("x"));
        let error = found(&two, Some("z")).expect_err("no such consumer");
        assert!(error.contains("no consumer z"), "{error}");
        let error = found(&config(&[("x", "b.wasm"), ("y", "b.wasm")]), None);
        assert!(error.expect_err("several").contains("(x, y)"));
        let error = found(&config(&[("x", "a.wasm"), ("y", "c.wasm")]), None);
        assert!(error.expect_err("none").contains("none of the consumers"));
    }

    #[test]
    fn a_cases_own_settings_go_before() {
        let consumer = plain("p", "default").expect("a consumer");
        let text = r#"{"config":{"a":1},"outputs":["x","y"],"input":[{"value":"v"}]}"#;
        let case = Case::parse(text, "c").expect("a case");
        let own = of_case(&consumer, Path::new("/c.wasm"), &case);
        assert_eq!((&*own.config, own.outputs.len()), ("{\"a\":1}", 2));
        let case = Case::parse(r#"{"input":[{"value":"v"}]}"#, "c").expect("a case");
        let own = of_case(&consumer, Path::new("/c.wasm"), &case);
        assert_eq!((&*own.config, own.outputs.len()), (&*consumer.config, 1));
    }
}
