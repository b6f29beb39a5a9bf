//! From a TOML file as written to a checked configuration.
//!
//! ```text
//! file ─▶ include ─▶ written (as the file says) ─▶ ${env:…} ─▶ check ─▶ resolved (what applies)
//!            └──────────────── problems: file, line, column, cause, hint ──────▶ all at once
//! ```

mod capabilities;
mod check;
mod checks;
mod destination;
mod environment;
pub mod filter;
mod include;
pub mod kept;
pub mod origin;
mod problem;
mod redact;
mod resolved;
pub mod schema;
pub mod secret;
mod section;
pub mod show;
mod source;
#[cfg(test)]
mod tests;
pub mod time;
pub mod units;
mod written;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub use capabilities::{Capabilities, SecretSource};
pub use destination::{Destination, DestinationHost, NoDestination};
pub use environment::Environment;
pub use problem::{Place, Problem, Problems, Severity};
pub use resolved::*;

/// A configuration that passed every check, with what is allowed and probably not meant.
#[derive(Clone, Debug)]
pub struct Loaded {
    pub config: Config,
    pub warnings: Problems,
    /// Where each consumer of `config` names its plugin.
    pub plugins: Vec<Place>,
}

/// Reads and checks a configuration. `environment` looks up a variable.
///
/// Plugin files must exist, but are not opened.
///
/// # Errors
/// Everything that is wrong with it, warnings included.
pub fn load(path: &Path, environment: &Environment<'_>) -> Result<Config, Problems> {
    load_with_warnings(path, environment).map(|loaded| loaded.config)
}

/// As [`load`], for those who show the warnings too.
///
/// # Errors
/// Everything that is wrong with it, warnings included.
pub fn load_with_warnings(path: &Path, environment: &Environment<'_>) -> Result<Loaded, Problems> {
    let (loaded, _) = examine(path, environment);
    if loaded.warnings.errors() == 0 {
        Ok(loaded)
    } else {
        Err(loaded.warnings)
    }
}

/// As [`load_with_warnings`], with errors among the warnings and defaults in their place, for those
/// who have more to check.
pub fn examine_all(path: &Path, environment: &Environment<'_>) -> Loaded {
    examine(path, environment).0
}

/// The files of a configuration as they are written, by name, with secrets blanked.
///
/// # Errors
/// What keeps the files from being read, includes and environment included.
pub fn files(
    path: &Path,
    environment: &Environment<'_>,
) -> Result<Vec<(String, String)>, Problems> {
    let mut sources = source::Sources::default();
    let mut problems = Vec::new();
    include::read(path, environment, &mut sources, &mut problems);
    if problems.iter().any(Problem::is_error) {
        return Err(Problems::new(Arc::new(sources), problems));
    }
    Ok(sources.shown())
}

/// The files that a configuration is read from, as far as they are known.
pub fn file_names(path: &Path, environment: &Environment<'_>) -> Vec<PathBuf> {
    let mut sources = source::Sources::default();
    include::read(path, environment, &mut sources, &mut Vec::new());
    sources
        .shown()
        .into_iter()
        .map(|(name, _)| name.into())
        .collect()
}

/// What a configuration's files hold, in a number, for those who watch them. Files that cannot be read
/// count as empty.
pub fn fingerprint(path: &Path, environment: &Environment<'_>) -> u64 {
    let mut sources = source::Sources::default();
    include::read(path, environment, &mut sources, &mut Vec::new());
    sources.fingerprint()
}

/// The configuration that would apply if every plugin were built: as [`load_with_warnings`], but a
/// plugin's file may be missing.
///
/// # Errors
/// Everything else that is wrong with it.
pub fn load_without_plugins(
    path: &Path,
    environment: &Environment<'_>,
) -> Result<Loaded, Problems> {
    let (mut loaded, _) = examine(path, environment);
    loaded.warnings.remove("plugin-missing");
    if loaded.warnings.errors() == 0 {
        Ok(loaded)
    } else {
        Err(loaded.warnings)
    }
}

/// The configuration as far as it could be read, with errors among the warnings, and all keys that
/// were asked for.
fn examine(path: &Path, environment: &Environment<'_>) -> (Loaded, BTreeSet<String>) {
    let mut sources = source::Sources::default();
    let mut problems = Vec::new();
    let written = include::read(path, environment, &mut sources, &mut problems);
    let checks = checks::Checks::new(&sources, environment);
    let checked = check::check(path, &written, &checks);
    let (found, asked) = checks.finish();
    if !written.unreadable {
        problems.extend(found);
    }
    let loaded = Loaded {
        config: checked.config,
        plugins: checked.plugins,
        warnings: Problems::new(Arc::new(sources), problems),
    };
    (loaded, asked)
}
