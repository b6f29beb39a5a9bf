//! A terminal in which a guide's commands are typed.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use millstream_test_support::guard::{Guarded, Plan};
use millstream_test_support::process::{self, Running, Site};
use millstream_test_support::workspace;

use crate::guide::Guide;
use crate::transcript::{self, Step};

/// Where the guides say that the HTTP interface listens.
const ADMIN: &str = "127.0.0.1:9464";
/// The longest that a command of a guide may take; a build is among them.
const PATIENCE: Duration = Duration::from_secs(600);

/// Tags of blocks that are a file of the tour, and its name. Rustdoc takes no `=` and `/` in a tag.
const FILES: &[(&str, &str)] = &[
    ("library", "src/lib.rs"),
    ("manifest", "Cargo.toml"),
    ("configuration", "millstream.toml"),
];

/// A folder in which a guide's commands run, in order.
pub struct Terminal {
    pub site: Site,
    /// Where `cd` led to, below the site's folder.
    folder: PathBuf,
    /// The runtime that `millstream run &` started.
    pub running: Option<Running>,
}

impl Terminal {
    /// An empty folder.
    ///
    /// # Errors
    /// The binary does not compile, or no folder is to be had.
    pub fn new() -> Result<Self> {
        Ok(Self {
            site: Site::new()?,
            folder: PathBuf::new(),
            running: None,
        })
    }

    /// Puts the guide's files in place, by their tags.
    ///
    /// # Errors
    /// A file cannot be written.
    pub fn write_files(&self, guide: &Guide) -> Result<()> {
        for block in &guide.blocks {
            let file = FILES.iter().find(|(tag, _)| block.has(tag));
            let Some((_, name)) = file else { continue };
            let sdk = workspace::root().join("plugins/sdk/rust");
            let sdk = format!("\"{}\"", sdk.display());
            let text = block
                .text
                .replace("\"../millstream/plugins/sdk/rust\"", &sdk);
            let text = match *name {
                // The port of the guide may be taken on this machine.
                "millstream.toml" => {
                    format!("{text}\n[admin]\nlisten = \"{}\"\n", self.site.admin())
                }
                "Cargo.toml" => format!("{text}\n[workspace]\n"),
                _ => text,
            };
            self.site.write(name, text.as_bytes())?;
        }
        Ok(())
    }

    /// Types a command and compares what it prints.
    ///
    /// # Errors
    /// It fails, or prints something else.
    pub fn step(&mut self, step: &Step) -> Result<()> {
        let command = step.command.replace(ADMIN, &self.site.admin());
        if let Some(folder) = command.strip_prefix("cd ") {
            self.folder.push(folder);
            return Ok(());
        }
        if let Some(command) = command.strip_suffix(" &") {
            let arguments = command.strip_prefix("millstream run");
            let arguments = arguments.context("another command in the background")?;
            let config = self.folder.join("millstream.toml").display().to_string();
            let mut all = vec!["run", config.as_str()];
            all.extend(arguments.split_whitespace());
            let mut running = self.site.launch(&all)?;
            running.until_ready(Duration::from_secs(60))?;
            self.running = Some(running);
            return Ok(());
        }
        if let (Some(url), Some(running)) = (command.strip_prefix("curl "), &self.running) {
            let path = url.trim_start_matches("http://");
            let path = path
                .strip_prefix(&self.site.admin())
                .context("another host")?;
            let (status, body) = running.get(path)?;
            ensure!(status == 200, "{command}: {status} {body}");
            return shown(step, &body);
        }
        shown(step, &self.shell(&command)?)
    }

    /// Runs a line in a shell that finds the built binary; returns both outputs, in order.
    ///
    /// # Errors
    /// It fails.
    pub fn shell(&self, line: &str) -> Result<String> {
        let binary = process::binary()?;
        let mut path = OsString::from(binary.parent().unwrap_or(Path::new(".")));
        if let Some(rest) = std::env::var_os("PATH") {
            path.push(":");
            path.push(rest);
        }
        let output = tempfile::tempdir()?;
        let output = output.path().join("output");
        let built = workspace::target_dir().join("docs");
        let mut child = Guarded::start(&Plan {
            program: OsStr::new("bash"),
            arguments: ["-o", "pipefail", "-c", line].map(OsString::from).into(),
            environment: vec![
                ("PATH".to_owned(), path),
                ("NO_COLOR".to_owned(), "1".into()),
                ("CARGO_TARGET_DIR".to_owned(), built.into()),
                ("CARGO_NET_OFFLINE".to_owned(), "true".into()),
                ("CARGO_TERM_QUIET".to_owned(), "true".into()),
            ],
            folder: &self.site.path().join(&self.folder),
            stdout: Some(&output),
            stderr: Some(&output),
            remove: None,
        })?;
        let status = child.wait(PATIENCE);
        let printed = fs::read_to_string(&output).unwrap_or_default();
        let status = status.with_context(|| format!("{line}\n{printed}"))?;
        ensure!(status.success(), "{line}: {status}\n{printed}");
        Ok(printed)
    }
}

/// Compares what was printed with what the guide shows.
///
/// # Errors
/// They differ; both are in the text.
pub fn shown(step: &Step, printed: &str) -> Result<()> {
    let fits = transcript::fits(&step.shown, printed);
    ensure!(
        fits,
        "{} prints\n{printed}\nand the guide shows\n{}",
        step.command,
        step.shown.join("\n")
    );
    Ok(())
}
