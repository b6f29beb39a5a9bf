//! `millstream test [DIR]`: runs a plugin's cases on the built component, without a broker.

mod answer;
mod case;
mod difference;
mod event;
pub mod report;
pub mod settings;
pub mod suite;
mod ways;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context as _;
use clap::builder::FalseyValueParser;

use self::suite::Suite;
use super::cargo::{Project, Voice};
use super::{Context, OutputFormat, terminal};
use crate::config::Consumer;

/// The folder of cases beside a plugin.
const CASES: &str = "cases";

#[derive(Debug, clap::Args)]
pub struct Args {
    /// The plugin's folder
    #[arg(value_name = "DIR", default_value = ".")]
    folder: PathBuf,

    /// Run this component, and build nothing
    #[arg(long, value_name = "FILE", env = "MILLSTREAM_TEST_COMPONENT")]
    component: Option<PathBuf>,

    /// Run what was built before
    #[arg(long, env = "MILLSTREAM_TEST_NO_BUILD", value_parser = FalseyValueParser::new())]
    no_build: bool,

    /// The folder of cases [default: `cases` in the plugin's folder]
    #[arg(long, value_name = "DIR", env = "MILLSTREAM_TEST_CASES")]
    cases: Option<PathBuf>,

    /// Run the cases whose name or file has this text alone
    #[arg(long, value_name = "TEXT", env = "MILLSTREAM_TEST_ONLY")]
    only: Option<String>,

    /// The consumer whose settings apply, where the configuration has several for the component
    #[arg(long, value_name = "NAME", env = "MILLSTREAM_TEST_CONSUMER")]
    consumer: Option<String>,

    /// Write what came out into the cases, where it is not what they expect
    #[arg(long, env = "MILLSTREAM_TEST_UPDATE", value_parser = FalseyValueParser::new())]
    update: bool,
}

/// Builds the plugin, runs its cases and prints what differs; exit code 1 where something does.
///
/// # Errors
/// There is no plugin, it does not compile or is none, or there are no cases.
pub async fn run(args: Args, context: &Context) -> anyhow::Result<ExitCode> {
    let (component, cache) = component(&args).await?;
    let folder = args.cases.unwrap_or_else(|| beside(&args.folder));
    let consumer = consumer(&args.folder, args.consumer.as_deref(), &component, context)?;
    let suite = Suite {
        folder,
        component,
        consumer,
        only: args.only,
        update: args.update,
    };
    let host = suite::host(cache.path())?;
    let report = suite::run(&suite, &host).await?;
    if report.cases.is_empty() {
        anyhow::bail!("{}", no_cases(&suite));
    }
    match context.output {
        OutputFormat::Json => {
            let json = report::json(&report, &suite.component, &suite.folder);
            terminal::print_json(&json).await?;
        }
        OutputFormat::Text => {
            terminal::print(&report::text(&report, &suite.folder, context.color)).await?;
        }
    }
    Ok(match report.failed() {
        0 => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    })
}

/// The folder of cases of the plugin in `folder`.
pub fn beside(folder: &Path) -> PathBuf {
    match folder == Path::new(".") {
        true => CASES.into(),
        false => folder.join(CASES),
    }
}

/// What is said where a suite has no case.
pub fn no_cases(suite: &Suite) -> String {
    let folder = suite.folder.display();
    match &suite.only {
        Some(only) => format!("no case in {folder} has `{only}` in its name or file"),
        None => format!(
            "there are no cases in {folder}: a case is a JSON file with `input` and `expected`, as \
             `millstream new` writes some and `millstream dlq show CONSUMER PLACE --as-case` makes \
             one of a dead letter"
        ),
    }
}

/// The consumer whose settings a component is tested with.
///
/// # Errors
/// The configuration is wrong, or does not say which.
pub fn consumer(
    folder: &Path,
    name: Option<&str>,
    component: &Path,
    context: &Context,
) -> anyhow::Result<Arc<Consumer>> {
    match settings::file(folder, context) {
        Some(file) => settings::consumer(&settings::load(&file, context)?, name, component),
        None => Ok(Arc::new(settings::plain("plugin", "default")?)),
    }
}

/// A folder for what was compiled.
pub enum Cache {
    /// Kept with what cargo built.
    Kept(PathBuf),
    /// For this run alone.
    Passing(tempfile::TempDir),
}

impl Cache {
    /// The one of a project.
    pub fn of(project: &Project) -> Self {
        Self::Kept(project.target_dir.join("millstream-cache"))
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        match self {
            Self::Kept(path) => path,
            Self::Passing(folder) => folder.path(),
        }
    }
}

/// The component to run, built if need be.
async fn component(args: &Args) -> anyhow::Result<(PathBuf, Cache)> {
    if let Some(component) = &args.component {
        let folder = tempfile::tempdir().context("cannot make a temporary folder")?;
        return Ok((component.clone(), Cache::Passing(folder)));
    }
    let project = Project::find(&args.folder).await?;
    let cache = Cache::of(&project);
    if args.no_build {
        return Ok((project.component(), cache));
    }
    match project.build(Voice::Full).await? {
        Some(component) => Ok((component, cache)),
        None => anyhow::bail!("{} does not compile", project.name),
    }
}
