//! `millstream plugin inspect FILE`.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Subcommand;

use super::table::Table;
use super::{Context, OutputFormat, terminal};
use crate::plugin::inspect::{self, Import, Inspection, Needs};

#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Show a component's contract version, imports and the grants they need, digest and size
    Inspect { file: PathBuf },
}

/// Reads the component, without running it.
///
/// # Errors
/// It is no plugin for this version; the text says why and what to do.
pub async fn run(args: Args, context: &Context) -> anyhow::Result<ExitCode> {
    let Action::Inspect { file } = args.action;
    let inspection = tokio::task::spawn_blocking(move || inspect::inspect(&file)).await?;
    let inspection = inspection.map_err(|error| {
        let remedy = error.remedy();
        anyhow::anyhow!("{error}\n  hint: {remedy}")
    })?;
    match context.output {
        OutputFormat::Json => terminal::print_json(&inspection).await?,
        OutputFormat::Text => terminal::print(&describe(&inspection, context.color)).await?,
    }
    Ok(ExitCode::SUCCESS)
}

fn describe(inspection: &Inspection, color: bool) -> String {
    let mut text = format!(
        "contract  millstream:plugin {}\ndigest    {}\nsize      {} bytes\n\n",
        inspection.contract, inspection.digest, inspection.size
    );
    let mut table = Table::new(&["IMPORT", "NEEDS"]);
    for import in &inspection.imports {
        table.row([import.name.clone(), needs(import)]);
    }
    match table.is_empty() {
        true => text.push_str("no imports\n"),
        false => text.push_str(&table.render(color)),
    }
    text
}

/// Parts of WASI that a capability makes real.
const MADE_REAL: [(&str, &str); 3] = [
    ("wasi:cli/environment@", "env"),
    ("wasi:clocks/wall-clock@", "clock"),
    ("wasi:random/", "random"),
];

fn needs(import: &Import) -> String {
    match import.needs {
        Needs::Nothing => "nothing".to_owned(),
        Needs::Inert => {
            let real = MADE_REAL
                .iter()
                .find(|(interface, _)| import.name.starts_with(interface));
            match real {
                Some((_, capability)) => {
                    format!("nothing: it is there, and real with the capability `{capability}`")
                }
                None => "nothing: it is there, but does nothing".to_owned(),
            }
        }
        Needs::Capability {
            capability,
            supported: true,
        } => format!("the capability `{capability}`"),
        Needs::Capability {
            capability,
            supported: false,
        } => format!("the capability `{capability}`, not supported by this version"),
        Needs::Unknown => "something that no runtime offers".to_owned(),
    }
}
