//! `millstream deploy|rollback|pause|resume CONSUMER`: by hand what the configuration does.
//!
//! ```text
//! arguments ─▶ the running runtime, over HTTP ─▶ what became of it
//! ```
//! They hold on that runtime alone, over its restarts; others of the group are left as they are.

use std::path::PathBuf;
use std::process::ExitCode;

use serde::Serialize;

use super::table::Table;
use super::{Context, Failure, OutputFormat, connect, terminal};
use crate::admin::{DeployRequest, ReloadReport, ReloadStep, RollbackRequest};
use crate::broker::BrokerError;
use crate::config::Config;

/// Digits of a digest that are shown in a table.
const DIGITS: usize = "sha256:".len() + 12;

#[derive(Debug, clap::Args)]
pub struct DeployArgs {
    /// The consumer, by its name in the configuration
    consumer: String,

    /// The component; without it, the one that the configuration names takes over again
    plugin: Option<PathBuf>,

    /// Deploy a build again that was rolled back
    #[arg(long, env = "MILLSTREAM_DEPLOY_FORCE")]
    force: bool,

    /// Go back to what the configuration names
    #[arg(long, env = "MILLSTREAM_DEPLOY_CLEAR", conflicts_with = "plugin")]
    clear: bool,

    /// Check everything and change nothing
    #[arg(long, env = "MILLSTREAM_DEPLOY_DRY_RUN")]
    dry_run: bool,
}

#[derive(Debug, clap::Args)]
pub struct RollbackArgs {
    /// The consumer, by its name in the configuration
    consumer: String,

    /// The beginning of the digest to go back to; without it the build before
    #[arg(long, env = "MILLSTREAM_ROLLBACK_TO", value_name = "DIGEST")]
    to: Option<String>,

    /// Check everything and change nothing
    #[arg(long, env = "MILLSTREAM_ROLLBACK_DRY_RUN")]
    dry_run: bool,
}

#[derive(Debug, clap::Args)]
pub struct Args {
    /// The consumer, by its name in the configuration
    consumer: String,
}

/// Deploys a component until the configuration names another one.
///
/// # Errors
/// No runtime answers, or the component is refused.
pub async fn deploy(args: DeployArgs, context: &Context) -> anyhow::Result<ExitCode> {
    let plugin = args.plugin.map(std::path::absolute).transpose()?;
    let wish = DeployRequest {
        plugin,
        // To clear is to want what the file names, rolled back or not.
        force: args.force || args.clear,
        dry_run: args.dry_run,
    };
    let (report, runtime) = ask(context, &args.consumer, "deploy", &wish).await?;
    show(&report, &runtime, context).await
}

/// Goes back to a build that ran before.
///
/// # Errors
/// No runtime answers, or no way leads back.
pub async fn rollback(args: RollbackArgs, context: &Context) -> anyhow::Result<ExitCode> {
    let wish = RollbackRequest {
        to: args.to,
        dry_run: args.dry_run,
    };
    let (report, runtime) = ask(context, &args.consumer, "rollback", &wish).await?;
    show(&report, &runtime, context).await
}

/// Lets a consumer stand still.
///
/// # Errors
/// No runtime answers, or it has no such consumer.
pub async fn pause(args: Args, context: &Context) -> anyhow::Result<ExitCode> {
    let (_, runtime) = ask(context, &args.consumer, "pause", &()).await?;
    eprintln!(
        "{} stands still on {runtime}, over restarts too, until `millstream resume {0}`; other runtimes of its group go on",
        args.consumer
    );
    Ok(ExitCode::SUCCESS)
}

/// Lets a consumer go on.
///
/// # Errors
/// As [`pause`].
pub async fn resume(args: Args, context: &Context) -> anyhow::Result<ExitCode> {
    let (_, runtime) = ask(context, &args.consumer, "resume", &()).await?;
    eprintln!("{} goes on on {runtime}", args.consumer);
    Ok(ExitCode::SUCCESS)
}

/// Tells the running runtime; its answer, and where it is.
async fn ask(
    context: &Context,
    consumer: &str,
    act: &str,
    wish: &impl Serialize,
) -> anyhow::Result<(ReloadReport, String)> {
    let config: Config = connect::load(context)?;
    super::consumer(&config, consumer)?;
    let place = format!("the runtime at {}", config.admin.listen);
    let Some(remote) = connect::running(&config).await? else {
        let text = format!("{place} does not answer, and nothing else can {act} {consumer}");
        return Err(Failure::Unreachable(text).into());
    };
    match remote.operate(consumer, act, wish).await {
        Ok(report) => Ok((report, place)),
        Err(BrokerError::Refused(reason)) => Err(anyhow::anyhow!(reason)),
        Err(error) => Err(error.into()),
    }
}

async fn show(report: &ReloadReport, runtime: &str, context: &Context) -> anyhow::Result<ExitCode> {
    if context.output == OutputFormat::Json {
        terminal::print_json(report).await?;
        return Ok(ExitCode::SUCCESS);
    }
    if report.steps.is_empty() {
        eprintln!("nothing is new: that build runs already");
        return Ok(ExitCode::SUCCESS);
    }
    let mut table = Table::new(&["CONSUMER", "CHANGE", "KEYS", "#GENERATION", "DIGEST"]);
    for step in &report.steps {
        table.row([
            step.consumer.clone(),
            step.change.clone(),
            step.keys.join(", "),
            step.generation.to_string(),
            step.digest.get(..DIGITS).unwrap_or(&step.digest).to_owned(),
        ]);
    }
    terminal::print(&table.render(context.color)).await?;
    for step in &report.steps {
        for line in remarks(step) {
            eprintln!("{line}");
        }
    }
    match report.dry_run {
        true => eprintln!("a dry run: nothing was changed"),
        false => eprintln!(
            "done on {runtime}; it holds over restarts, until the configuration names another build"
        ),
    }
    Ok(ExitCode::SUCCESS)
}

/// What a step says beyond its row.
fn remarks(step: &ReloadStep) -> Vec<String> {
    let mut lines = Vec::new();
    if let Some(shadow) = &step.shadow {
        lines.push(format!(
            "in shadow: {} events, {} equal, {} different, {} failed; {:.0} µs an event before, {:.0} µs now",
            shadow.events,
            shadow.equal,
            shadow.different,
            shadow.failed,
            shadow.microseconds_before,
            shadow.microseconds
        ));
        lines.extend(shadow.examples.iter().map(|example| format!("  {example}")));
    }
    if step.probation_seconds > 0.0 {
        lines.push(format!(
            "on probation for {} s: if it fails, the build before takes over again",
            step.probation_seconds
        ));
    }
    lines
}
