//! Notices that a plugin's sources or cases have changed.
//!
//! ```text
//! folder events ─▶ flag ─▶ names, lengths and times of the files ─ the same for 200 ms ─▶ changed
//! ```
//! What is built, what a runtime stores and what is hidden is left out, and so is `Cargo.lock`, which
//! cargo itself writes.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use anyhow::Context as _;
use notify::{RecursiveMode, Watcher as _};
use tokio::sync::Notify;

use crate::app::{folder_events, quiet};

/// Files and folders that are looked at; a plugin has a few dozen.
const MAX_FILES: usize = 10_000;

/// What is known of a file without reading it.
type Fingerprint = Vec<(PathBuf, u64, SystemTime)>;

/// Watches until dropped.
pub struct Watch {
    files: Arc<Files>,
    changed: Arc<Notify>,
    watcher: notify::RecommendedWatcher,
    watched: BTreeSet<PathBuf>,
    seen: Fingerprint,
}

/// Which files are watched.
struct Files {
    folder: PathBuf,
    ignored: Vec<PathBuf>,
}

#[derive(Default)]
struct Found {
    fingerprint: Fingerprint,
    folders: BTreeSet<PathBuf>,
}

impl Watch {
    /// Watches a folder and those below it, but for those to be ignored.
    ///
    /// # Errors
    /// The system has no watches to give, or the folder cannot be read.
    pub async fn start(folder: &Path, ignored: Vec<PathBuf>) -> anyhow::Result<Self> {
        let changed = Arc::new(Notify::new());
        let watcher = folder_events::watcher(changed.clone());
        let files = Files {
            folder: resolved(folder),
            ignored: ignored.iter().map(|path| resolved(path)).collect(),
        };
        let mut watch = Self {
            files: Arc::new(files),
            changed,
            watcher: watcher.context("cannot watch the plugin's folder")?,
            watched: BTreeSet::new(),
            seen: Vec::new(),
        };
        watch.mark().await?;
        Ok(watch)
    }

    /// Takes the files as they are now for known.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub async fn mark(&mut self) -> anyhow::Result<()> {
        // First watched and then looked at: what changes in between is seen.
        let found = self
            .files
            .look()
            .await
            .context("cannot look at the files")?;
        for folder in found.folders {
            if self.watched.insert(folder.clone()) {
                self.watcher
                    .watch(&folder, RecursiveMode::NonRecursive)
                    .with_context(|| format!("cannot watch {}", folder.display()))?;
            }
        }
        let found = self
            .files
            .look()
            .await
            .context("cannot look at the files")?;
        self.seen = found.fingerprint;
        Ok(())
    }

    /// Waits until the files are other ones than those that are known, and left alone.
    ///
    /// # Errors
    /// The files cannot be looked at any more.
    pub async fn changed(&mut self) -> anyhow::Result<()> {
        loop {
            let look = || async { self.files.look().await.map(|found| found.fingerprint) };
            let now = quiet::settled(look).await;
            if now.context("cannot look at the files")? != self.seen {
                return Ok(());
            }
            self.changed.notified().await;
        }
    }
}

impl Files {
    /// Reading folders blocks; `None` while the runtime ends.
    async fn look(self: &Arc<Self>) -> Option<Found> {
        let files = self.clone();
        tokio::task::spawn_blocking(move || files.find()).await.ok()
    }

    fn find(&self) -> Found {
        let mut found = Found::default();
        let mut folders = vec![self.folder.clone()];
        while let Some(folder) = folders.pop() {
            // It may have been removed since.
            for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
                let path = entry.path();
                if self.is_ignored(&path) || found.fingerprint.len() >= MAX_FILES {
                    continue;
                }
                // A link is followed: it is the file that counts.
                let Ok(metadata) = fs::metadata(&path) else {
                    continue;
                };
                if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                    folders.push(path);
                } else if let Ok(time) = metadata.modified() {
                    found.fingerprint.push((path, metadata.len(), time));
                }
            }
            found.folders.insert(folder);
        }
        found.fingerprint.sort();
        found
    }

    fn is_ignored(&self, path: &Path) -> bool {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        name.starts_with('.') || name == "Cargo.lock" || self.ignored.contains(&resolved(path))
    }
}

/// A path without links and dots, as far as it exists: what a build or a runtime will write may not
/// be there yet.
fn resolved(path: &Path) -> PathBuf {
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    for there in absolute.ancestors() {
        if let (Ok(real), Ok(rest)) = (there.canonicalize(), absolute.strip_prefix(there)) {
            return match rest == Path::new("") {
                true => real,
                false => real.join(rest),
            };
        }
    }
    absolute
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    async fn within(watch: &mut Watch, patience: Duration) -> bool {
        tokio::time::timeout(patience, watch.changed())
            .await
            .is_ok()
    }

    /// What a build writes must not start the next build.
    #[tokio::test]
    async fn sources_and_cases_count_and_what_is_built_does_not() {
        let folder = tempfile::tempdir().expect("a folder");
        let root = folder.path().canonicalize().expect("a path");
        let write = |name: &str, text: &str| {
            let path = root.join(name);
            fs::create_dir_all(path.parent().expect("a parent")).expect("a folder");
            fs::write(path, text).expect("written");
        };
        write("src/lib.rs", "a");
        // As a configuration names it, before any of it is there.
        let ignored = vec![root.join("./target"), root.join("plugins/deep/p.wasm")];
        let mut watch = Watch::start(&root, ignored).await.expect("a watch");
        for name in [
            "target/a.wasm",
            "plugins/deep/p.wasm",
            "Cargo.lock",
            ".git/HEAD",
        ] {
            write(name, "changed");
        }
        assert!(!within(&mut watch, Duration::from_millis(600)).await);
        for name in ["src/lib.rs", "cases/new/a.json", "cases/new/b.json"] {
            write(name, name);
            assert!(within(&mut watch, Duration::from_secs(30)).await, "{name}");
            watch.mark().await.expect("files");
        }
        fs::remove_file(root.join("src/lib.rs")).expect("removed");
        assert!(
            within(&mut watch, Duration::from_secs(30)).await,
            "a file was removed"
        );
    }
}
