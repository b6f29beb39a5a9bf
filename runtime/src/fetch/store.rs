//! Fetched components on disk, by digest, so that none is fetched twice.
//!
//! ```text
//! <cache_dir>/components/<digest>.wasm    a component
//!                        <digest>.json    the manifest of an artifact that is named by its digest
//! ```
//! What is read is believed for its digest alone, so it does not matter who wrote it. The folder is
//! private to the user all the same: components may be. Everything here blocks.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use sha2::{Digest as _, Sha256};

use crate::clock;

/// Bytes of the largest entry.
const MAX_ENTRY: u64 = 64 << 20;
/// Entries that are kept, those used last: a rollback wants the ones before.
const MAX_ENTRIES: usize = 128;
/// A draft that is older than this was left by a process that died.
const DRAFT_LIFE: Duration = Duration::from_secs(3_600);

/// What an entry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Component,
    Manifest,
}

/// The folder.
#[derive(Clone, Debug)]
pub struct Store {
    folder: PathBuf,
}

impl Store {
    /// In this folder, which is made at the first use.
    pub fn new(folder: PathBuf) -> Self {
        Self { folder }
    }

    /// Where the entry of a digest (64 hexadecimal digits) lies, if it is there.
    pub fn path(&self, digest: &str, kind: Kind) -> PathBuf {
        let ending = match kind {
            Kind::Component => "wasm",
            Kind::Manifest => "json",
        };
        self.folder.join(format!("{digest}.{ending}"))
    }

    /// The entry of a digest, if it is there and has that digest. One that was damaged counts as
    /// absent: it is fetched again and replaced.
    pub fn read(&self, digest: &str, kind: Kind) -> Option<Vec<u8>> {
        let path = self.path(digest, kind);
        let bytes = match read(&path) {
            Ok(bytes) => bytes,
            Err(error) => {
                if error.kind() != io::ErrorKind::NotFound {
                    let path = path.display();
                    tracing::warn!(%path, %error, "a fetched plugin cannot be read; it is fetched again");
                }
                return None;
            }
        };
        if sha256(&bytes) != digest {
            tracing::warn!(path = %path.display(), "a fetched plugin is damaged; it is fetched again");
            return None;
        }
        Some(bytes)
    }

    /// Whether the component of a digest is there and whole. Notes that it was of use.
    pub fn holds(&self, digest: &str) -> bool {
        let held = self.read(digest, Kind::Component).is_some();
        if held {
            let path = self.path(digest, Kind::Component);
            // Of use for the sweep alone.
            let _ = File::open(path).and_then(|file| file.set_modified(now()));
        }
        held
    }

    /// Keeps bytes under their digest: all of them, or nothing.
    ///
    /// # Errors
    /// The folder is not ours or not writable, or the disk is full.
    pub fn keep(&self, digest: &str, kind: Kind, bytes: &[u8]) -> io::Result<()> {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&self.folder)?;
        if fs::metadata(&self.folder)?.permissions().mode() & 0o077 != 0 {
            fs::set_permissions(&self.folder, fs::Permissions::from_mode(0o700))?;
        }
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let draft = format!(".draft-{}-{number}", std::process::id());
        let draft = self.folder.join(draft);
        let kept = write(&draft, bytes)
            .and_then(|()| fs::rename(&draft, self.path(digest, kind)))
            .and_then(|()| File::open(&self.folder)?.sync_all());
        if kept.is_err() {
            // It may not even be there.
            let _ = fs::remove_file(&draft);
        }
        kept?;
        self.sweep()
    }

    /// Removes what was not used for longest. Ages are told by the files' own times.
    fn sweep(&self) -> io::Result<()> {
        let mut files = Vec::new();
        for file in fs::read_dir(&self.folder)? {
            let path = file?.path();
            // Another process may have swept it meanwhile.
            if let Ok(used) = fs::symlink_metadata(&path).and_then(|file| file.modified()) {
                files.push((used, path));
            }
        }
        files.sort_unstable_by(|one, other| other.cmp(one));
        let Some(newest) = files.first().map(|(used, _)| *used) else {
            return Ok(());
        };
        let mut entries = 0;
        for (used, path) in files {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            let ours = name.ends_with(".wasm") || name.ends_with(".json");
            entries += usize::from(ours);
            let draft = name.starts_with(".draft-");
            let stale = newest
                .duration_since(used)
                .is_ok_and(|age| age > DRAFT_LIFE);
            if (ours && entries > MAX_ENTRIES) || (draft && stale) {
                // Who cannot remove it keeps it.
                let _ = fs::remove_file(&path);
            }
        }
        Ok(())
    }
}

/// 64 hexadecimal digits.
pub fn sha256(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}

fn now() -> SystemTime {
    let since = u64::try_from(clock::now_ms()).unwrap_or_default();
    UNIX_EPOCH + Duration::from_millis(since)
}

fn read(path: &Path) -> io::Result<Vec<u8>> {
    // Before it is opened: opening a pipe would wait for a writer.
    if !fs::metadata(path)?.is_file() {
        return Err(io::Error::other("not a file"));
    }
    let mut bytes = Vec::new();
    File::open(path)?
        .take(MAX_ENTRY + 1)
        .read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn write(draft: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(draft)?;
    file.write_all(bytes)?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt as _;

    use super::*;

    fn store() -> (tempfile::TempDir, Store) {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::new(folder.path().join("components"));
        (folder, store)
    }

    #[test]
    fn what_is_kept_is_found_whole_and_private() {
        let (_folder, store) = store();
        let digest = sha256(b"component");
        assert!(!store.holds(&digest));
        store.keep(&digest, Kind::Component, b"component").unwrap();
        assert!(store.holds(&digest));
        assert!(store.read(&digest, Kind::Manifest).is_none());
        let path = store.path(&digest, Kind::Component);
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        assert_eq!(fs::metadata(&store.folder).unwrap().mode() & 0o777, 0o700);
        assert_eq!(
            fs::read_dir(&store.folder).unwrap().count(),
            1,
            "a draft stays"
        );
    }

    /// A damaged component would be refused at each start, though the right one can be had.
    #[test]
    fn what_is_damaged_counts_as_absent_and_is_replaced() {
        let (_folder, store) = store();
        let digest = sha256(b"component");
        store.keep(&digest, Kind::Component, b"component").unwrap();
        let path = store.path(&digest, Kind::Component);
        for damage in [&b"componenT"[..], b"compo", b""] {
            fs::write(&path, damage).unwrap();
            assert!(!store.holds(&digest));
        }
        fs::remove_file(&path).unwrap();
        fs::create_dir(&path).unwrap();
        assert!(!store.holds(&digest));
        fs::remove_dir(&path).unwrap();
        store.keep(&digest, Kind::Component, b"component").unwrap();
        assert!(store.holds(&digest));
    }

    /// What runs must not be swept away by what is tried once.
    #[test]
    fn what_was_used_last_is_kept() {
        let (_folder, store) = store();
        let digest = sha256(b"in use");
        store.keep(&digest, Kind::Component, b"in use").unwrap();
        let age = |path: &Path, hours: u64| {
            let file = File::create(path).unwrap();
            let before = Duration::from_secs(hours * 3_600);
            file.set_modified(now() - before).unwrap();
        };
        for number in 0..200 {
            age(&store.folder.join(format!("{number:03}.wasm")), number + 1);
        }
        age(&store.folder.join(".draft-1-1"), 2);
        fs::File::open(store.path(&digest, Kind::Component))
            .and_then(|file| file.set_modified(now() - Duration::from_secs(999 * 3_600)))
            .unwrap();
        assert!(store.holds(&digest));
        store.sweep().unwrap();
        assert!(store.holds(&digest));
        assert!(store.folder.join("126.wasm").exists());
        assert!(!store.folder.join("127.wasm").exists());
        assert!(!store.folder.join(".draft-1-1").exists());
    }
}
