//! The command line.
//!
//! ```text
//! arguments, MILLSTREAM_… ─▶ Cli ─▶ Context + a command's Args ─▶ its run() ─▶ exit code
//!                                                     └─ connect.rs ─▶ Topics of the broker
//! ```
//!
//! Data goes to stdout and everything else to stderr. A command is a file with `Args` and `run`.

mod cargo;
mod completions;
pub mod config;
pub mod connect;
mod consume;
mod dev;
mod dlq;
mod exit;
mod format;
mod lag;
mod layout;
mod lines;
mod merge;
mod new;
mod operate;
mod place;
mod plugin;
mod produce;
mod run;
mod skip;
mod table;
mod terminal;
mod test;
mod topics;
pub mod validate;

use std::ffi::OsString;
use std::io::IsTerminal as _;
use std::panic::AssertUnwindSafe;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use clap::builder::FalseyValueParser;
use clap::parser::ValueSource;
use clap::{CommandFactory as _, FromArgMatches as _, Parser, Subcommand, ValueEnum};

pub use self::exit::Failure;
use crate::config::{Config, Consumer};
use crate::logging::{self, LogFormat};

/// Heading of the options that every command takes.
const EVERYWHERE: &str = "Options of every command";

/// Runs event consumers as sandboxed WebAssembly plugins.
#[derive(Debug, Parser)]
#[command(
    name = "millstream",
    version,
    propagate_version = true,
    max_term_width = 100
)]
#[command(after_help = "Every option can be set by the environment variable that its help names.")]
struct Cli {
    /// The configuration
    #[arg(
        long,
        global = true,
        help_heading = EVERYWHERE,
        env = "MILLSTREAM_CONFIG",
        value_name = "FILE",
        default_value = "millstream.toml"
    )]
    config: PathBuf,

    /// Certificates (PEM) to trust in a running runtime's TLS, instead of the system's
    #[arg(
        long,
        global = true,
        help_heading = EVERYWHERE,
        env = "MILLSTREAM_CA",
        value_name = "FILE"
    )]
    ca: Option<PathBuf>,

    /// How data is printed
    #[arg(
        long,
        global = true,
        help_heading = EVERYWHERE,
        env = "MILLSTREAM_OUTPUT",
        value_name = "FORMAT",
        default_value = "text"
    )]
    output: OutputFormat,

    /// The same as --output json
    #[arg(
        long,
        global = true,
        help_heading = EVERYWHERE,
        env = "MILLSTREAM_JSON",
        value_parser = FalseyValueParser::new()
    )]
    json: bool,

    /// What is logged to stderr: error, warn, info, debug or trace, or directives such as
    /// warn,millstream::broker=debug [default: info for `run`, else warn]
    #[arg(
        long,
        global = true,
        help_heading = EVERYWHERE,
        env = "MILLSTREAM_LOG_LEVEL",
        value_name = "LEVEL",
        hide_default_value = true
    )]
    log_level: Option<String>,

    /// How it is logged
    #[arg(
        long,
        global = true,
        help_heading = EVERYWHERE,
        env = "MILLSTREAM_LOG_FORMAT",
        value_name = "FORMAT",
        default_value = "text"
    )]
    log_format: LogFormat,

    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the consumers until stopped
    Run(run::Args),
    /// Check a configuration without running it
    Validate(validate::Args),
    /// Look at the configuration
    Config(config::Args),
    /// Write events to a topic, one a line
    Produce(produce::Args),
    /// Print the events of a topic
    Consume(consume::Args),
    /// List, create and delete topics
    Topics(topics::Args),
    /// Show how far each consumer is
    Lag(lag::Args),
    /// Browse dead letters and send them back to their consumer
    Dlq(dlq::Args),
    /// Move a halted partition past one event
    Skip(skip::Args),
    /// Let another component take over, until the configuration names another one
    Deploy(operate::DeployArgs),
    /// Go back to the build before
    Rollback(operate::RollbackArgs),
    /// Let a consumer stand still
    Pause(operate::Args),
    /// Let a paused consumer go on
    Resume(operate::Args),
    /// Make a plugin project that builds and passes at once
    New(new::Args),
    /// Run a plugin's cases on the built component
    Test(test::Args),
    /// Build a plugin at each save, and show what comes of its cases
    Dev(dev::Args),
    /// Look at plugins
    Plugin(plugin::Args),
    /// Print completions for a shell
    Completions(completions::Args),
}

/// How a command prints data.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum OutputFormat {
    /// For people.
    #[default]
    Text,
    /// For programs.
    Json,
}

/// What every command is given.
#[derive(Clone, Debug)]
pub struct Context {
    /// The configuration file.
    pub config: PathBuf,
    /// Whom to trust in a running runtime's TLS, where it is not the system.
    pub ca: Option<PathBuf>,
    /// Whether somebody named it, or it is the default.
    pub config_given: bool,
    pub output: OutputFormat,
    /// Whether stdout may be coloured.
    pub color: bool,
}

impl Cli {
    fn context(&self, config_given: bool) -> Context {
        // `produce --json` says how events are read, not how the result is printed.
        let json = self.json && !matches!(self.command, Command::Produce(_));
        Context {
            config: self.config.clone(),
            ca: self.ca.clone(),
            config_given,
            output: if json {
                OutputFormat::Json
            } else {
                self.output
            },
            color: std::io::stdout().is_terminal() && colors_wanted(),
        }
    }
}

/// Whether the user wants colours at all: <https://no-color.org>.
fn colors_wanted() -> bool {
    std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

fn colors_wanted_on_stderr() -> bool {
    std::io::stderr().is_terminal() && colors_wanted()
}

/// The command line, and whether it or the environment names a configuration.
fn parse<T: Into<OsString> + Clone>(
    arguments: impl IntoIterator<Item = T>,
) -> Result<(Cli, bool), clap::Error> {
    let mut matches = command_line().try_get_matches_from(arguments)?;
    let given = matches.value_source("config") != Some(ValueSource::DefaultValue);
    let cli = Cli::from_arg_matches_mut(&mut matches);
    Ok((
        cli.map_err(|error| error.format(&mut command_line()))?,
        given,
    ))
}

/// Runs the command that the process was started with.
pub fn main() -> ExitCode {
    let (cli, config_given) = match parse(std::env::args_os()) {
        Ok(parsed) => parsed,
        Err(error) => {
            // Nothing is left to do where neither stream takes the text.
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { exit::USAGE } else { 0 });
        }
    };
    let level = match (&cli.log_level, &cli.command) {
        (Some(level), _) => level,
        // The store's own housekeeping is of no interest to who runs it.
        (None, Command::Run(_)) => "info,fjall=warn,lsm_tree=warn",
        // What a save comes to, and what the plugin itself says.
        (None, Command::Dev(_)) => "warn,millstream::app=info,plugin=info",
        (None, _) => "warn",
    };
    if let Err(text) = logging::start(level, cli.log_format, colors_wanted()) {
        return exit::report(&Failure::Usage(text).into());
    }
    let runtime = match tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => {
            let text = format!("cannot start threads: {error}");
            return exit::report(&Failure::Internal(text).into());
        }
    };
    let context = cli.context(config_given);
    let command = AssertUnwindSafe(|| runtime.block_on(until_interrupted(cli.command, &context)));
    let code = match std::panic::catch_unwind(command) {
        Ok(Ok(code)) => code,
        Ok(Err(error)) => exit::report(&error),
        // The hook has printed the panic.
        Err(_) => ExitCode::from(exit::INTERNAL),
    };
    // A thread may hang in a read from a terminal or a write to a full pipe; it must not keep the
    // process.
    runtime.shutdown_background();
    code
}

async fn until_interrupted(command: Command, context: &Context) -> anyhow::Result<ExitCode> {
    // These end in their own order.
    match command {
        Command::Run(_) | Command::Dev(_) => return dispatch(command, context).await,
        _ => {}
    }
    tokio::select! {
        done = dispatch(command, context) => done,
        Ok(()) = tokio::signal::ctrl_c() => Ok(ExitCode::from(exit::INTERRUPTED)),
    }
}

async fn dispatch(command: Command, context: &Context) -> anyhow::Result<ExitCode> {
    match command {
        Command::Run(args) => run::run(args, context).await,
        Command::Validate(args) => validate::run(args, context).await,
        Command::Config(args) => config::run(args, context).await,
        Command::Produce(args) => produce::run(args, context).await,
        Command::Consume(args) => consume::run(args, context).await,
        Command::Topics(args) => topics::run(args, context).await,
        Command::Lag(args) => lag::run(args, context).await,
        Command::Dlq(args) => dlq::run(args, context).await,
        Command::Skip(args) => skip::run(args, context).await,
        Command::Deploy(args) => operate::deploy(args, context).await,
        Command::Rollback(args) => operate::rollback(args, context).await,
        Command::Pause(args) => operate::pause(args, context).await,
        Command::Resume(args) => operate::resume(args, context).await,
        Command::New(args) => new::run(args, context).await,
        Command::Test(args) => test::run(args, context).await,
        Command::Dev(args) => dev::run(args, context).await,
        Command::Plugin(args) => plugin::run(args, context).await,
        Command::Completions(args) => completions::run(args, context).await,
    }
}

/// The consumer of this name.
fn consumer<'a>(config: &'a Config, name: &str) -> anyhow::Result<&'a Arc<Consumer>> {
    let found = config.consumers.iter().find(|known| *known.name == *name);
    found.ok_or_else(|| anyhow::anyhow!("there is no consumer {name} in {}", config.file.display()))
}

/// The whole command line, for completions.
fn command_line() -> clap::Command {
    Cli::command()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn context(line: &str) -> Context {
        let parsed = parse(line.split_whitespace());
        let (cli, given) = parsed.unwrap_or_else(|error| panic!("{line}: {error}"));
        cli.context(given)
    }

    /// clap's own checks: two options of one name, a default that does not parse.
    #[test]
    fn the_command_line_is_consistent() {
        command_line().debug_assert();
    }

    /// An option without one cannot be set where only the environment can be, in a container.
    #[test]
    fn every_option_has_an_environment_variable_of_its_own() {
        fn visit(command: &clap::Command, seen: &mut Vec<String>) {
            for argument in command.get_arguments() {
                let id = argument.get_id().as_str();
                if argument.is_positional() || matches!(id, "help" | "version") {
                    continue;
                }
                let variable = argument.get_env().map(|v| v.to_string_lossy().into_owned());
                let variable = variable.unwrap_or_else(|| panic!("--{id} has no variable"));
                assert!(variable.starts_with("MILLSTREAM_"), "{variable}");
                assert!(!seen.contains(&variable), "{variable} is used twice");
                seen.push(variable);
            }
            for inner in command.get_subcommands() {
                visit(inner, seen);
            }
        }
        visit(&command_line(), &mut Vec::new());
    }

    #[test]
    fn global_options_stand_anywhere() {
        for line in [
            "millstream --json --config a.toml topics",
            "millstream topics --config a.toml --output json",
            "millstream topics list --json --config a.toml",
        ] {
            let context = context(line);
            assert_eq!(context.output, OutputFormat::Json, "{line}");
            assert_eq!(context.config, PathBuf::from("a.toml"), "{line}");
            assert!(context.config_given, "{line}");
        }
        let context = context("millstream topics");
        assert_eq!(context.output, OutputFormat::Text);
        assert!(!context.config_given);
        assert_eq!(context.config, PathBuf::from("millstream.toml"));
    }

    #[test]
    fn json_of_produce_is_about_its_input() {
        let text = context("millstream produce orders --json");
        assert_eq!(text.output, OutputFormat::Text);
        let json = context("millstream produce orders --output json");
        assert_eq!(json.output, OutputFormat::Json);
    }
}
