//! `millstream validate`: everything that can be known without starting and without a broker.

use std::io::{IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context as _;

use super::{Context, OutputFormat};
use crate::config::{
    self, Broker, Config, Consumer, Environment, Loaded, Place, Problem, Problems,
};
use crate::fetch;
use crate::plugin::{LoadError, grants, inspect};

/// The exit code of a configuration with errors.
const INVALID: u8 = 78;

/// Check the configuration and its plugins without starting
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The configuration, instead of --config
    #[arg(value_name = "CONFIG")]
    file: Option<PathBuf>,
}

/// What is wrong with a consumer's component.
#[derive(Clone, Debug)]
pub struct ComponentProblem {
    /// In one line without a full stop.
    pub message: String,
    pub cause: Option<String>,
    /// What to do about it.
    pub hint: Option<String>,
}

/// Runs the command: exit code 78 where there is an error, and 0 with warnings alone.
///
/// # Errors
/// Only where the output cannot be made.
pub async fn run(args: Args, context: &Context) -> anyhow::Result<ExitCode> {
    let context = context.clone();
    tokio::task::spawn_blocking(move || {
        let file = args.file.as_ref().unwrap_or(&context.config);
        let result = validate(file, &|name| std::env::var(name).ok(), &check_component);
        print(file, &result, &context)?;
        Ok(match result {
            Ok(_) => ExitCode::SUCCESS,
            Err(_) => ExitCode::from(INVALID),
        })
    })
    .await
    .context("the checks did not come to an end")?
}

/// Whether a consumer's component can run here; it is read, not run.
fn check_component(consumer: &Consumer) -> Result<(), ComponentProblem> {
    let plugin = &consumer.plugin;
    let problem = |error: LoadError| ComponentProblem {
        hint: Some(error.remedy()),
        message: error.of(plugin).to_string(),
        cause: None,
    };
    let inspection = inspect::inspect(&plugin.path).map_err(problem)?;
    grants::check(&plugin.path, &inspection, &consumer.capabilities).map_err(problem)?;
    let wanted = plugin
        .sha256
        .as_ref()
        .map(|digits| format!("sha256:{digits}"));
    match wanted {
        Some(wanted) if wanted != inspection.digest => Err(ComponentProblem {
            message: "the file is another one than `sha256` says".to_owned(),
            cause: Some(format!(
                "its digest is {}, and {wanted} is expected",
                inspection.digest
            )),
            hint: Some("put the right file there, or name its digest".to_owned()),
        }),
        _ => Ok(()),
    }
}

/// Checks a configuration, and each enabled consumer's component by `component_check`.
///
/// # Errors
/// Everything that is wrong, warnings included.
pub fn validate(
    file: &Path,
    environment: &Environment<'_>,
    component_check: &dyn Fn(&Consumer) -> Result<(), ComponentProblem>,
) -> Result<Loaded, Problems> {
    let mut loaded = config::examine_all(file, environment);
    for (consumer, place) in loaded.config.consumers.iter().zip(&loaded.plugins) {
        if !consumer.enabled {
            continue;
        }
        let mut consumer = Arc::clone(consumer);
        if consumer.plugin.remote.is_some() {
            let Some(source) = fetch::here(&loaded.config, &consumer.plugin) else {
                loaded.warnings.push(not_checked(&consumer, place));
                continue;
            };
            Arc::make_mut(&mut consumer).plugin = source;
        }
        // What is not there was reported as missing.
        if !consumer.plugin.path.is_file() {
            continue;
        }
        if let Err(found) = component_check(&consumer) {
            let mut problem = Problem::error("plugin", found.message)
                .at(place)
                .label(format!("the plugin of consumer `{}`", consumer.name));
            if let Some(cause) = found.cause {
                problem = problem.cause(cause);
            }
            if let Some(hint) = found.hint {
                problem = problem.hint(hint);
            }
            loaded.warnings.push(problem);
        }
    }
    if loaded.warnings.errors() == 0 {
        Ok(loaded)
    } else {
        Err(loaded.warnings)
    }
}

/// `validate` asks nobody: it is run where there is no network, and must not wait for one.
fn not_checked(consumer: &Consumer, place: &Place) -> Problem {
    // Without an origin that can be read there is an error already.
    let origin = consumer.plugin.shown();
    Problem::warning(
        "not-fetched",
        "a plugin is not here yet and was not checked",
    )
    .at(place)
    .label(format!("the plugin of consumer `{}`", consumer.name))
    .cause(format!(
        "{origin} was not fetched before, and `validate` asks no server: neither that it can be \
             fetched, nor its digest, contract and imports were checked"
    ))
    .hint("`millstream run` and a reload fetch it, and change nothing if that fails")
}

fn print(file: &Path, result: &Result<Loaded, Problems>, context: &Context) -> anyhow::Result<()> {
    let problems = match result {
        Ok(loaded) => &loaded.warnings,
        Err(problems) => problems,
    };
    if context.output == OutputFormat::Json {
        let report = serde_json::json!({
            "valid": result.is_ok(),
            "file": file.display().to_string(),
            "problems": problems.to_json(),
        });
        return print_line(&serde_json::to_string_pretty(&report)?);
    }
    if !problems.is_empty() {
        let color = context.color && std::io::stderr().is_terminal();
        eprint!("{}", problems.render(color));
    }
    match result {
        Ok(loaded) => print_line(&summary(file, &loaded.config, problems)),
        Err(problems) => {
            eprintln!("{}: {}", file.display(), problems.count());
            Ok(())
        }
    }
}

/// Prints to stdout; one who reads no further, as `head` does, is no error.
pub(super) fn print_line(text: &str) -> anyhow::Result<()> {
    match writeln!(std::io::stdout(), "{}", text.trim_end()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(error).context("cannot write to stdout")
        }
        _ => Ok(()),
    }
}

/// `millstream.toml is valid: 2 consumers (enrich, alerts) on the embedded broker`.
fn summary(file: &Path, config: &Config, warnings: &Problems) -> String {
    let names: Vec<_> = config
        .consumers
        .iter()
        .map(|consumer| match consumer.enabled {
            true => consumer.name.to_string(),
            false => format!("{} (not enabled)", consumer.name),
        })
        .collect();
    let consumers = match &names[..] {
        [] => "no consumer".to_owned(),
        [name] => format!("1 consumer ({name})"),
        names => format!("{} consumers ({})", names.len(), names.join(", ")),
    };
    let broker = match config.broker {
        Broker::Embedded(_) => "the embedded broker",
        Broker::Kafka(_) => "Kafka",
    };
    let warnings = match warnings.is_empty() {
        true => String::new(),
        false => format!(", {}", warnings.count()),
    };
    format!(
        "{} is valid: {consumers} on {broker}{warnings}",
        file.display()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn configuration(folder: &Path) -> PathBuf {
        let file = folder.join("millstream.toml");
        std::fs::write(folder.join("a.wasm"), b"").unwrap();
        std::fs::write(
            &file,
            "[[consumer]]\nname = \"a\"\nplugin = \"a.wasm\"\ntopics = [\"t\"]\nconcurrency = 1\n\
             [[consumer]]\nname = \"b\"\nplugin = \"a.wasm\"\ntopics = [\"t\"]\nenabled = false\n",
        )
        .unwrap();
        file
    }

    #[test]
    fn a_bad_component_is_reported_where_the_plugin_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let file = configuration(folder.path());
        let problems = validate(&file, &|_| None, &|consumer| {
            assert_eq!(
                &*consumer.name, "a",
                "a consumer that is not enabled needs no plugin"
            );
            Err(ComponentProblem {
                message: "this is not a component".to_owned(),
                cause: Some("the file is empty".to_owned()),
                hint: Some("build it".to_owned()),
            })
        })
        .unwrap_err();
        let json = problems.to_json();
        assert_eq!(json[0]["message"], "this is not a component");
        assert_eq!(
            (&json[0]["line"], &json[0]["column"]),
            (&3.into(), &10.into())
        );
    }

    #[test]
    fn a_valid_configuration_has_a_summary_of_one_line() {
        let folder = tempfile::tempdir().unwrap();
        let file = configuration(folder.path());
        let loaded = validate(&file, &|_| None, &|_| Ok(())).unwrap();
        assert_eq!(
            summary(
                Path::new("millstream.toml"),
                &loaded.config,
                &loaded.warnings
            ),
            "millstream.toml is valid: 2 consumers (a, b (not enabled)) on the embedded broker"
        );
    }
}
