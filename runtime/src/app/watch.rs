//! Notices that a configuration's files have changed.
//!
//! ```text
//! folder events ─▶ flag ─▶ fingerprint of the files ─ the same for 200 ms, and a new one ─▶ reload
//! ```
//! The folders are watched and not the files: an editor and a symlink that is swapped (as Kubernetes
//! does) put another file in the place of the one that was there.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use anyhow::Context as _;
use notify::{RecursiveMode, Watcher as _};
use tokio::sync::{Notify, mpsc, oneshot};

use super::reload::{Current, ENVIRONMENT, Request};
use super::{folder_events, quiet};
use crate::admin::Wish;
use crate::config;

/// Watches until dropped.
pub struct Watch(tokio::task::JoinHandle<()>);

impl Drop for Watch {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Asks for a reload whenever the configuration's files have changed; with `plugins` also when a
/// plugin's file has.
///
/// # Errors
/// The system has no watches to give.
pub fn start(
    current: Arc<Current>,
    requests: mpsc::Sender<Request>,
    plugins: bool,
) -> anyhow::Result<Watch> {
    let changed = Arc::new(Notify::new());
    let watcher = folder_events::watcher(changed.clone())
        .context("cannot watch the configuration's folder")?;
    let files = Files { current, plugins };
    let mut folders = Folders {
        watcher,
        watched: BTreeSet::new(),
    };
    folders.follow(files.folders())?;
    let task = tokio::spawn(follow(files, folders, changed, requests));
    Ok(Watch(task))
}

/// What tells that the folders changed.
struct Folders {
    watcher: notify::RecommendedWatcher,
    watched: BTreeSet<PathBuf>,
}

impl Folders {
    /// Watches these from now on, too: a new configuration may have files elsewhere.
    fn follow(&mut self, folders: BTreeSet<PathBuf>) -> anyhow::Result<()> {
        for folder in folders {
            if !self.watched.contains(&folder) {
                self.watcher
                    .watch(&folder, RecursiveMode::NonRecursive)
                    .with_context(|| format!("cannot watch {}", folder.display()))?;
                self.watched.insert(folder);
            }
        }
        Ok(())
    }
}

/// What is watched.
#[derive(Clone)]
struct Files {
    current: Arc<Current>,
    /// Whether plugins are watched too.
    plugins: bool,
}

/// What files hold, or for large ones their length and time.
type Fingerprint = (u64, Vec<Option<(u64, SystemTime)>>);

impl Files {
    fn plugins(&self) -> Vec<PathBuf> {
        let config = self.current.get();
        // What was fetched is named by its digest: it does not change.
        let followed = |one: &&Arc<config::Consumer>| self.plugins && one.plugin.remote.is_none();
        let consumers = config.consumers.iter().filter(followed);
        consumers.map(|one| one.plugin.path.clone()).collect()
    }

    fn folders(&self) -> BTreeSet<PathBuf> {
        let mut files = self.plugins();
        files.extend(config::file_names(&self.current.get().file, ENVIRONMENT));
        files.iter().flat_map(|file| folders_of(file)).collect()
    }

    fn fingerprint(&self) -> Fingerprint {
        let of = |path: PathBuf| {
            let metadata = std::fs::metadata(path).ok()?;
            Some((metadata.len(), metadata.modified().ok()?))
        };
        let plugins = self.plugins().into_iter().map(of).collect();
        let config = config::fingerprint(&self.current.get().file, ENVIRONMENT);
        (config, plugins)
    }

    /// Reading files blocks; `None` while the runtime ends.
    async fn look(&self) -> Option<(Fingerprint, BTreeSet<PathBuf>)> {
        let files = self.clone();
        let looking = tokio::task::spawn_blocking(move || (files.fingerprint(), files.folders()));
        looking.await.ok()
    }
}

/// Where a change of the file shows: its own folder, and where it is a link also that of what it leads
/// to, which may be edited in its place.
fn folders_of(file: &Path) -> impl Iterator<Item = PathBuf> {
    let folder = |file: &Path| match file.parent() {
        Some(folder) if folder != Path::new("") => folder.to_path_buf(),
        _ => PathBuf::from("."),
    };
    let target = file
        .is_symlink()
        .then(|| file.canonicalize().ok())
        .flatten();
    std::iter::once(folder(file)).chain(target.as_deref().map(folder))
}

async fn follow(
    files: Files,
    mut folders: Folders,
    changed: Arc<Notify>,
    requests: mpsc::Sender<Request>,
) {
    let Some((mut applied, _)) = files.look().await else {
        return;
    };
    // The files may have changed since they were read.
    applied.0 = files.current.get().fingerprint;
    changed.notify_one();
    loop {
        changed.notified().await;
        let look = || async { files.look().await.map(|(now, _)| now) };
        let Some(seen) = quiet::settled(look).await else {
            return;
        };
        if seen == applied {
            continue;
        }
        let (reply, done) = oneshot::channel();
        let request = Request {
            wish: Wish::Reload,
            cause: "the files changed",
            reply: Some(reply),
        };
        if requests.send(request).await.is_err() {
            return;
        }
        // How it went is logged; plugins of a new configuration are files to watch.
        let _ = done.await;
        let Some((now, needed)) = files.look().await else {
            return;
        };
        let watched = folders.watched.len();
        if let Err(error) = folders.follow(needed) {
            tracing::warn!("not all changes will be noticed, SIGHUP deploys them: {error:#}");
        }
        // What changed meanwhile is looked at again: the configuration itself may be another, a plugin
        // built anew after it was read, or something in a folder that was not watched yet.
        applied = seen;
        if now != applied || folders.watched.len() > watched {
            changed.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The configuration is often a link to where it is kept, and whoever edits it edits it there.
    #[test]
    fn what_a_link_leads_to_is_watched_too() {
        let of = |file: &Path| folders_of(file).collect::<Vec<_>>();
        let (links, files) = (tempfile::tempdir(), tempfile::tempdir());
        let (links, files) = (links.expect("a folder"), files.expect("a folder"));
        let (link, file) = (links.path().join("a.toml"), files.path().join("b.toml"));
        std::fs::write(&file, "").expect("written");
        std::os::unix::fs::symlink(&file, &link).expect("linked");
        let real = files.path().canonicalize().expect("it is there");
        assert_eq!(of(&link), [links.path().to_path_buf(), real]);
        assert_eq!(of(&file), [files.path()]);
        assert_eq!(of(Path::new("a.toml")), [Path::new(".")]);
        std::fs::remove_file(&file).expect("removed");
        assert_eq!(of(&link), [links.path()]);
    }
}
