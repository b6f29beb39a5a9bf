//! A plugin project that `millstream new` made, built where all tests share what it depends on.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use millstream_test_support::process::{Finished, Site};
use millstream_test_support::workspace;

/// The longest that a build may take; the first has dependencies, and the machine others to serve.
pub const PATIENCE: Duration = Duration::from_secs(600);

/// A project in a site's folder.
#[derive(Debug)]
pub struct Project {
    pub site: Site,
    /// Its folder, below the site's.
    pub name: &'static str,
}

impl Project {
    /// Makes a project. Tests that run side by side need names of their own: their components lie in
    /// one folder.
    ///
    /// # Errors
    /// `millstream new` fails.
    pub fn new(name: &'static str) -> Result<Self> {
        let mut site = Site::new()?;
        let built = workspace::target_dir().join("projects");
        site.set("CARGO_TARGET_DIR", &built);
        // Nothing that is not in the workspace's lock file is needed.
        site.set("CARGO_NET_OFFLINE", "true");
        site.succeed(&["new", name, "--language", "rust"])?;
        Ok(Self { site, name })
    }

    /// A file's path.
    pub fn path(&self, file: &str) -> PathBuf {
        self.site.path().join(self.name).join(file)
    }

    /// A file's text.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn read(&self, file: &str) -> Result<String> {
        fs::read_to_string(self.path(file)).context(file.to_owned())
    }

    /// Writes a file.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn write(&self, file: &str, text: &str) -> Result<()> {
        let name = format!("{}/{file}", self.name);
        self.site.write(&name, text.as_bytes()).map(drop)
    }

    /// Puts a text of a file in another's place.
    ///
    /// # Errors
    /// The file has no such text.
    pub fn replace(&self, file: &str, from: &str, to: &str) -> Result<()> {
        let text = self.read(file)?;
        ensure!(text.contains(from), "{file} has no {from:?}:\n{text}");
        self.write(file, &text.replace(from, to))
    }

    /// `millstream test` with further arguments.
    ///
    /// # Errors
    /// It cannot be started. An exit code that is not zero is no error here.
    pub fn test(&self, more: &[&str]) -> Result<Finished> {
        let mut arguments = vec!["test", self.name];
        arguments.extend(more);
        self.site.command_within(PATIENCE, &arguments)
    }
}
