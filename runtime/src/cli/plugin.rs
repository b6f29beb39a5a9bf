//! `millstream plugin inspect FILE`.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Subcommand;

use super::run::grouped;
use super::table::Table;
use super::{Context, OutputFormat, terminal};
use crate::plugin::LoadError;
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

/// Reads the component, without running it; what this version refuses about it is shown, and exit
/// code 1.
///
/// # Errors
/// It is no plugin; the text says why and what to do.
pub async fn run(args: Args, context: &Context) -> anyhow::Result<ExitCode> {
    let Action::Inspect { file } = args.action;
    let examined = tokio::task::spawn_blocking(move || inspect::examine(&file)).await?;
    let (inspection, refusal) = examined.map_err(|error| told(&error))?;
    match context.output {
        OutputFormat::Json => {
            let mut json = serde_json::to_value(&inspection)?;
            json["capabilities"] = capabilities(&inspection).into();
            terminal::print_json(&json).await?;
        }
        OutputFormat::Text => terminal::print(&describe(&inspection, context.color)).await?,
    }
    match refusal {
        Some(refusal) => Err(told(&refusal)),
        None => Ok(ExitCode::SUCCESS),
    }
}

fn told(error: &LoadError) -> anyhow::Error {
    let remedy = error.remedy();
    anyhow::anyhow!("{error}\n  hint: {remedy}")
}

/// The capabilities that must be granted, each once.
fn capabilities(inspection: &Inspection) -> Vec<&'static str> {
    let imports = inspection.imports.iter();
    let named = imports.filter_map(|import| match import.needs {
        Needs::Capability { capability, .. } => Some(capability),
        _ => None,
    });
    let unique: BTreeSet<_> = named.collect();
    unique.into_iter().collect()
}

/// What a consumer's table grants them with.
fn grant(capabilities: &[&str]) -> String {
    let of = |capability: &&str| match *capability {
        "http" => "http = [\"HOST:443\"]".to_owned(),
        "env" => "env = [\"NAME\"]".to_owned(),
        other => format!("{other} = true"),
    };
    let grants: Vec<_> = capabilities.iter().map(of).collect();
    match grants.is_empty() {
        true => "nothing needs to be granted".to_owned(),
        false => format!("capabilities = {{ {} }}", grants.join(", ")),
    }
}

fn describe(inspection: &Inspection, color: bool) -> String {
    let mut text = format!(
        "contract  millstream:plugin {}\ndigest    {}\nsize      {} bytes ({} KiB)\ngrants    {}\n\n",
        inspection.contract,
        inspection.digest,
        grouped(inspection.size),
        inspection.size.div_ceil(1 << 10),
        grant(&capabilities(inspection)),
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plugin::inspect::Import;

    fn inspection(needs: &[Needs]) -> Inspection {
        let imports = needs.iter().map(|needs| Import {
            name: "i".to_owned(),
            needs: *needs,
        });
        Inspection {
            contract: "0.1.0".to_owned(),
            digest: "sha256:0".to_owned(),
            size: 182_662,
            imports: imports.collect(),
            exports: Vec::new(),
        }
    }

    /// The line is copied into a configuration as it is.
    #[test]
    fn what_is_to_be_granted_is_a_line_of_the_configuration() {
        let capability = |capability| Needs::Capability {
            capability,
            supported: true,
        };
        let needs = [
            capability("secrets"),
            Needs::Inert,
            capability("http"),
            capability("http"),
        ];
        let text = describe(&inspection(&needs), false);
        let line = "capabilities = { http = [\"HOST:443\"], secrets = true }";
        assert!(text.contains(line), "{text}");
        assert!(line.parse::<toml::Table>().is_ok());
        assert!(text.contains("182,662 bytes (179 KiB)"), "{text}");
        let text = describe(&inspection(&[Needs::Nothing]), false);
        assert!(text.contains("nothing needs to be granted"), "{text}");
    }
}
