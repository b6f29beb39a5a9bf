//! Components of the workspace's plugins, built once for all tests.

use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;

use anyhow::{Context, Result, anyhow, ensure};
use serde_json::Value;

use crate::workspace;

/// The target that a plain `cargo build` makes components for.
const TARGET: &str = "wasm32-wasip2";

/// The component of the package `name`, built if it is not up to date.
///
/// # Errors
/// A plugin does not compile (cargo's words are in the text), or none has this name.
pub fn component(name: &str) -> Result<PathBuf> {
    static BUILT: OnceLock<Result<(), String>> = OnceLock::new();
    BUILT
        .get_or_init(|| build().map_err(|error| format!("{error:#}")))
        .clone()
        .map_err(|error| anyhow!(error))?;
    let file = format!("{}.wasm", name.replace('-', "_"));
    let path = workspace::target_dir()
        .join(TARGET)
        .join("plugin")
        .join(file);
    ensure!(
        path.is_file(),
        "no plugin of the workspace is called {name}: there is no {}",
        path.display()
    );
    Ok(path)
}

/// The packages of the workspace that are plugins: those whose library is a `cdylib`.
///
/// # Errors
/// Cargo cannot read the workspace.
pub fn packages() -> Result<Vec<String>> {
    let output = cargo()
        .args(["metadata", "--no-deps", "--format-version", "1"])
        .output()
        .context("cannot start cargo")?;
    ensure!(
        output.status.success(),
        "cargo cannot read the workspace: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    let metadata: Value = serde_json::from_slice(&output.stdout)?;
    Ok(cdylibs(&metadata))
}

fn cdylibs(metadata: &Value) -> Vec<String> {
    let is_cdylib = |package: &&Value| {
        let targets = package["targets"].as_array();
        let kinds = targets.into_iter().flatten().map(|t| &t["kind"]);
        kinds
            .filter_map(Value::as_array)
            .flatten()
            .any(|kind| kind == "cdylib")
    };
    let packages = metadata["packages"].as_array();
    let names = packages.into_iter().flatten().filter(is_cdylib);
    names
        .filter_map(|package| package["name"].as_str().map(str::to_owned))
        .collect()
}

fn build() -> Result<()> {
    let packages = packages()?;
    ensure!(!packages.is_empty(), "the workspace has no plugin");
    let output = cargo()
        .args([
            "build",
            "--quiet",
            "--profile",
            "plugin",
            "--target",
            TARGET,
        ])
        .args(packages.iter().flat_map(|name| ["-p", name]))
        .output()
        .context("cannot start cargo")?;
    ensure!(
        output.status.success(),
        "the plugins do not compile (is the target there? rustup target add {TARGET}):\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(())
}

fn cargo() -> Command {
    let program = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(program);
    command.current_dir(workspace::root());
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plugins_are_the_packages_that_build_a_cdylib() {
        let metadata = serde_json::json!({"packages": [
            {"name": "enrich", "targets": [{"kind": ["cdylib"]}, {"kind": ["test"]}]},
            {"name": "millstream", "targets": [{"kind": ["lib"]}, {"kind": ["bin"]}]},
        ]});
        assert_eq!(cdylibs(&metadata), ["enrich"]);
    }

    /// A core module in place of a component would be refused by the runtime much later.
    #[test]
    fn an_example_builds_to_a_component() {
        let path = component("enrich").unwrap();
        let bytes = std::fs::read(path).unwrap();
        assert_eq!(bytes[..8], *b"\0asm\x0d\0\x01\0");
        assert!(component("no-such-plugin").is_err());
    }
}
