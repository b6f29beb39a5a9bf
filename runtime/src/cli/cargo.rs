//! A plugin's cargo project: found, and built to a component.
//!
//! ```text
//! folder ─▶ cargo metadata ─▶ package, profile ─▶ cargo build ─▶ path of the component
//!                                                     └▶ stderr: cargo's own words
//! ```

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::Context as _;
use rustix::process::{Pid, Signal};
use serde::Deserialize;
use tokio::io::AsyncReadExt as _;
use tokio::process::{Child, Command};

use super::Failure;

/// What components are built for.
const TARGET: &str = "wasm32-wasip2";
/// The profile that a workspace may have for its plugins.
const PLUGIN_PROFILE: &str = "plugin";

/// A package whose library becomes a component.
#[derive(Clone, Debug)]
pub struct Project {
    /// The package's name.
    pub name: String,
    manifest: PathBuf,
    /// The library's name, which the component's file bears.
    library: String,
    profile: &'static str,
    /// Where cargo puts what it builds.
    pub target_dir: PathBuf,
}

/// How a build speaks on standard error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Voice {
    /// As cargo does: progress, warnings and errors.
    Full,
    /// Warnings and errors alone.
    Quiet,
}

impl Project {
    /// The package in this folder.
    ///
    /// # Errors
    /// [`Failure::Usage`] where there is none, or it is no plugin; cargo does not start or cannot read it.
    pub async fn find(folder: &Path) -> anyhow::Result<Self> {
        let manifest = folder.join("Cargo.toml");
        if !manifest.is_file() {
            return Err(Failure::Usage(format!(
                "there is no {}; name the plugin's folder, make one with `millstream new`, or name \
                 a component with --component",
                manifest.display()
            ))
            .into());
        }
        let manifest = manifest.canonicalize()?;
        let output = command()
            .args(["metadata", "--no-deps", "--format-version", "1"])
            .arg("--manifest-path")
            .arg(&manifest)
            .kill_on_drop(true)
            .output()
            .await
            .context("cannot start cargo; install Rust with rustup (https://rustup.rs)")?;
        anyhow::ensure!(
            output.status.success(),
            "cargo cannot read {}:\n{}",
            manifest.display(),
            String::from_utf8_lossy(&output.stderr).trim_end()
        );
        let metadata: Metadata = serde_json::from_slice(&output.stdout)
            .context("cargo metadata says something else than expected")?;
        let package = metadata
            .packages
            .into_iter()
            .find(|package| package.manifest_path == manifest);
        let package = package
            .ok_or_else(|| Failure::Usage(format!("{} is of no package", manifest.display())))?;
        let is_plugin = |target: &Target| target.kind.iter().any(|kind| kind == "cdylib");
        let library = package.targets.into_iter().find(is_plugin).ok_or_else(|| {
            Failure::Usage(format!(
                "{} builds no component: it needs `[lib] crate-type = [\"cdylib\"]`",
                manifest.display()
            ))
        })?;
        Ok(Self {
            name: package.name,
            library: library.name.replace('-', "_"),
            profile: profile(&metadata.workspace_root),
            target_dir: metadata.target_directory,
            manifest,
        })
    }

    /// Where the component is once it was built.
    pub fn component(&self) -> PathBuf {
        let folder = self.target_dir.join(TARGET).join(self.profile);
        folder.join(format!("{}.wasm", self.library))
    }

    /// Builds the component and says where it is; `None` where it does not compile, which cargo has
    /// told. Dropping the future ends cargo and all that it started.
    ///
    /// # Errors
    /// Cargo does not start.
    pub async fn build(&self, voice: Voice) -> anyhow::Result<Option<PathBuf>> {
        let mut cargo = command();
        cargo
            .args([
                "build",
                "--lib",
                "--target",
                TARGET,
                "--profile",
                self.profile,
            ])
            .args(["--message-format", "json-render-diagnostics"])
            .arg("--manifest-path")
            .arg(&self.manifest)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .process_group(0);
        if voice == Voice::Quiet {
            cargo.arg("--quiet");
        }
        let mut running = Running(cargo.spawn().context("cannot start cargo")?);
        let mut messages = String::new();
        if let Some(mut stdout) = running.0.stdout.take() {
            stdout.read_to_string(&mut messages).await?;
        }
        let status = running.0.wait().await?;
        if !status.success() {
            return Ok(None);
        }
        let component = messages.lines().filter_map(component).next_back();
        let component = component.context("cargo has built no component, and does not say why")?;
        Ok(Some(component))
    }
}

/// Cargo at work, in a process group of its own, so that the compilers that it started end with it.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // None where it has ended and was waited for: then its number may be another's.
        let id = self.0.id().and_then(|id| i32::try_from(id).ok());
        if let Some(group) = id.and_then(Pid::from_raw) {
            let _ = rustix::process::kill_process_group(group, Signal::KILL);
        }
    }
}

fn command() -> Command {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo"));
    Command::new(cargo)
}

/// What of `cargo metadata` is of interest.
#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
    workspace_root: PathBuf,
    target_directory: PathBuf,
}

#[derive(Deserialize)]
struct Package {
    name: String,
    manifest_path: PathBuf,
    targets: Vec<Target>,
}

#[derive(Deserialize)]
struct Target {
    name: String,
    kind: Vec<String>,
}

/// The workspace's own profile for plugins, else that of releases.
fn profile(workspace: &Path) -> &'static str {
    let manifest = std::fs::read_to_string(workspace.join("Cargo.toml")).unwrap_or_default();
    let manifest: toml::Table = manifest.parse().unwrap_or_default();
    let profiles = manifest.get("profile").and_then(toml::Value::as_table);
    match profiles.is_some_and(|profiles| profiles.contains_key(PLUGIN_PROFILE)) {
        true => PLUGIN_PROFILE,
        false => "release",
    }
}

/// The component that a line of cargo's messages names.
fn component(line: &str) -> Option<PathBuf> {
    #[derive(Deserialize)]
    struct Artifact {
        reason: String,
        target: Option<Target>,
        filenames: Option<Vec<PathBuf>>,
    }
    let artifact: Artifact = serde_json::from_str(line).ok()?;
    let built = artifact.reason == "compiler-artifact";
    let library = artifact
        .target
        .is_some_and(|target| target.kind.iter().any(|kind| kind == "cdylib"));
    let mut files = artifact.filenames?.into_iter();
    files.find(|file| built && library && file.extension().is_some_and(|end| end == "wasm"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_component_is_found_among_the_messages() {
        let message = |kind: &str, file: &str| {
            format!(
                r#"{{"reason":"compiler-artifact","target":{{"kind":["{kind}"],"name":"a"}},"filenames":["/t/{file}"],"fresh":true}}"#
            )
        };
        assert_eq!(
            component(&message("cdylib", "a.wasm")),
            Some("/t/a.wasm".into())
        );
        assert_eq!(component(&message("lib", "a.rlib")), None);
        assert_eq!(
            component(r#"{"reason":"build-finished","success":true}"#),
            None
        );
        assert_eq!(component("warning: text"), None);
    }

    #[test]
    fn a_profile_for_plugins_is_preferred() {
        let folder = tempfile::tempdir().expect("a folder");
        assert_eq!(profile(folder.path()), "release");
        let text = "[profile.plugin]\ninherits = \"release\"\n";
        std::fs::write(folder.path().join("Cargo.toml"), text).expect("written");
        assert_eq!(profile(folder.path()), "plugin");
    }

    /// Cargo ends at once when its future is dropped, and so does what it started: a compiler that
    /// went on would hold the lock of the next build.
    #[tokio::test]
    async fn nothing_is_left_of_a_build_that_is_given_up() {
        let mut command = Command::new("sh");
        command
            .args(["-c", "sleep 600 & echo $!; wait"])
            .stdout(Stdio::piped())
            .process_group(0);
        let mut running = Running(command.spawn().expect("a shell"));
        let mut number = Vec::new();
        let stdout = running.0.stdout.as_mut().expect("a pipe");
        while !number.ends_with(b"\n") {
            assert!(stdout.read_buf(&mut number).await.expect("a line") > 0);
        }
        let number = String::from_utf8_lossy(&number).trim().to_owned();
        drop(running);
        // A process that was killed stays as a zombie until its new parent takes it.
        let gone = async {
            loop {
                let stat = std::fs::read_to_string(format!("/proc/{number}/stat"));
                if !stat.is_ok_and(|stat| !stat.contains(") Z ")) {
                    return;
                }
                tokio::task::yield_now().await;
            }
        };
        let gone = tokio::time::timeout(std::time::Duration::from_secs(30), gone).await;
        assert!(gone.is_ok(), "process {number} is still there");
    }
}
