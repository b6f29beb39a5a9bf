//! `millstream config show` and `millstream config schema`.

use std::io::IsTerminal as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context as _;

use super::{Context, OutputFormat};
use crate::config::{self, Problems, schema, show};

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
    let args = match args.command {
        Command::Schema => {
            println!("{}", serde_json::to_string_pretty(&schema::schema())?);
            return Ok(ExitCode::SUCCESS);
        }
        Command::Show(args) => args,
    };
    let file = args.file.unwrap_or_else(|| context.config.clone());
    let output = context.output;
    let text = tokio::task::spawn_blocking(move || match args.resolved {
        true => resolved(&file, output),
        false => written(&file, output),
    })
    .await
    .context("the configuration could not be read")??;
    match text {
        Ok(text) => {
            println!("{}", text.trim_end());
            Ok(ExitCode::SUCCESS)
        }
        Err(problems) => {
            let color = context.color && std::io::stderr().is_terminal();
            eprint!("{}", problems.render(color));
            eprintln!("{}", problems.count());
            Ok(ExitCode::from(INVALID))
        }
    }
}

fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

fn resolved(file: &Path, output: OutputFormat) -> anyhow::Result<Result<String, Problems>> {
    let loaded = match config::load_without_plugins(file, &variable) {
        Ok(loaded) => loaded,
        Err(problems) => return Ok(Err(problems)),
    };
    Ok(Ok(match output {
        OutputFormat::Json => serde_json::to_string_pretty(&show::resolved(&loaded.config))?,
        OutputFormat::Text => show::resolved_toml(&loaded.config)?,
    }))
}

fn written(file: &Path, output: OutputFormat) -> anyhow::Result<Result<String, Problems>> {
    let files = match config::files(file, &variable) {
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
