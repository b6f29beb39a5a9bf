//! `millstream config show` and `millstream config schema`.

use std::io::IsTerminal as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context as _;

use super::validate::print_line;
use super::{Context, OutputFormat};
use crate::config::{self, Environment, Problems, schema};

/// The exit code of a configuration with errors.
const INVALID: u8 = 78;

/// Show the configuration, or what one may hold
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Print the configuration with secrets blanked
    Show(ShowArgs),
    /// Print the JSON Schema of configuration files
    Schema,
}

#[derive(Debug, clap::Args)]
struct ShowArgs {
    /// What applies after includes, environment and defaults, instead of what the files say
    #[arg(long, env = "MILLSTREAM_RESOLVED", value_parser = clap::builder::FalseyValueParser::new())]
    resolved: bool,
    /// The configuration, instead of --config
    #[arg(value_name = "CONFIG")]
    file: Option<PathBuf>,
}

/// Runs the command: exit code 78 where the configuration has an error.
///
/// # Errors
/// Only where the output cannot be made.
pub async fn run(args: Args, context: &Context) -> anyhow::Result<ExitCode> {
    let context = context.clone();
    tokio::task::spawn_blocking(move || match args.command {
        Command::Schema => {
            print_line(&serde_json::to_string_pretty(&schema::schema())?)?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Show(args) => show(&args, &context),
    })
    .await
    .context("the configuration could not be read")?
}

fn show(args: &ShowArgs, context: &Context) -> anyhow::Result<ExitCode> {
    let file = args.file.as_ref().unwrap_or(&context.config);
    let text = match args.resolved {
        true => resolved(file, context.output, &variable),
        false => written(file, context.output, &variable),
    };
    match text? {
        Ok(text) => {
            print_line(&text)?;
            Ok(ExitCode::SUCCESS)
        }
        Err(problems) => {
            let color = context.color && std::io::stderr().is_terminal();
            eprint!("{}", problems.render(color));
            eprintln!("{}: {}", file.display(), problems.count());
            Ok(ExitCode::from(INVALID))
        }
    }
}

fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// What applies.
fn resolved(
    file: &Path,
    output: OutputFormat,
    environment: &Environment<'_>,
) -> anyhow::Result<Result<String, Problems>> {
    let loaded = match config::load_without_plugins(file, environment) {
        Ok(loaded) => loaded,
        Err(problems) => return Ok(Err(problems)),
    };
    Ok(Ok(match output {
        OutputFormat::Json => {
            serde_json::to_string_pretty(&config::show::resolved(&loaded.config))?
        }
        OutputFormat::Text => config::show::resolved_toml(&loaded.config)?,
    }))
}

/// What the files say.
fn written(
    file: &Path,
    output: OutputFormat,
    environment: &Environment<'_>,
) -> anyhow::Result<Result<String, Problems>> {
    let files = match config::files(file, environment) {
        Ok(files) => files,
        Err(problems) => return Ok(Err(problems)),
    };
    Ok(Ok(match output {
        OutputFormat::Json => {
            let files: Vec<_> = files
                .iter()
                .map(|(file, text)| serde_json::json!({ "file": file, "text": text }))
                .collect();
            serde_json::to_string_pretty(&files)?
        }
        OutputFormat::Text => files
            .iter()
            .map(|(file, text)| format!("# {file}\n{text}"))
            .collect::<Vec<_>>()
            .join("\n"),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn no_variables(_: &str) -> Option<String> {
        None
    }

    /// A plugin that is not built yet must not keep anybody from looking at the configuration.
    #[test]
    fn both_forms_are_shown_in_both_formats() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("millstream.toml");
        let text = "# mine\n[[consumer]]\nname = \"a\"\nplugin = \"${env:P:-none.wasm}\"\ntopics = [\"t\"]\n";
        std::fs::write(&file, text).unwrap();
        let shown = |show: fn(&Path, _, &Environment<'_>) -> _, output| {
            let text: anyhow::Result<Result<String, Problems>> = show(&file, output, &no_variables);
            text.unwrap().unwrap()
        };
        let toml = shown(resolved, OutputFormat::Text);
        assert!(toml.contains("group = \"millstream.a\""), "{toml}");
        let json: serde_json::Value =
            serde_json::from_str(&shown(resolved, OutputFormat::Json)).unwrap();
        assert_eq!(json["consumer"][0]["limits"]["memory"], "64MiB");
        let as_written = shown(written, OutputFormat::Text);
        assert!(as_written.contains("# mine") && as_written.contains("${env:P:-none.wasm}"));
        let json: serde_json::Value =
            serde_json::from_str(&shown(written, OutputFormat::Json)).unwrap();
        assert_eq!(json[0]["text"], text);
    }

    #[test]
    fn an_error_is_shown_instead_of_half_a_configuration() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("millstream.toml");
        std::fs::write(&file, "[runtime]\nmax_instance = 1\n").unwrap();
        let problems = resolved(&file, OutputFormat::Text, &no_variables).unwrap();
        assert_eq!(problems.unwrap_err().count(), "1 error, 1 warning");
    }
}
