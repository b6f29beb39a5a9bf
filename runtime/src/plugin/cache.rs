//! Compiled components on disk, so that a start does not compile.
//!
//! ```text
//! <digest of the component>-<hash of engine and options>.compiled
//! ┌───────┬─────────┬─────────┬────────────────┬─────────┐
//! │ magic │ SHA-256 │ length  │ SHA-256        │ payload │
//! │ 8     │ of name │ 8       │ of payload  32 │         │
//! └───────┴─ 32 ────┴─────────┴────────────────┴─────────┘
//! ```
//!
//! A compiled component is machine code: who can write here runs code in the host. So the folder
//! is private to the user, no stranger may put another one in its place, and an entry is loaded only
//! if it is a plain file that belongs to this user, that nobody else may write, and whose header
//! fits. Anything else is compiled anew and overwritten. The checksum finds damage; it is ownership
//! that keeps strangers out.
//!
//! The folder is opened once for each use, and its entries by what was opened: whoever exchanges a
//! name between a check and a use exchanges nothing.

use std::fs::{self, DirBuilder, File, Metadata};
use std::hash::{Hash as _, Hasher as _};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rustix::fs::{AtFlags, Mode, OFlags};
use sha2::{Digest as _, Sha256};
use wasmtime::Engine;
use wasmtime::component::Component;
use xxhash_rust::xxh3::Xxh3;

use super::hooks::CacheResult;

const MAGIC: &[u8; 8] = b"MSCACHE1";
const HEADER: usize = 8 + 32 + 8 + 32;
/// Bytes that an entry may have: compiled code is several times the component.
const MAX_ENTRY: u64 = 1 << 30;
/// Entries that are kept, newest first: every build of a plugin leaves one.
const MAX_ENTRIES: usize = 128;
/// A draft that is older than this was left by a process that died.
const DRAFT_LIFE: Duration = Duration::from_secs(3_600);

/// The compile cache.
#[derive(Debug)]
pub(super) struct Cache {
    folder: PathBuf,
    compatibility: u64,
}

/// What a look-up found.
pub(super) enum Found {
    Hit(Component),
    /// Nothing that may be loaded, and whether something was there.
    Nothing(CacheResult),
}

impl Cache {
    /// A cache in this folder, which is made at the first use.
    pub(super) fn new(folder: &Path, engine: &Engine) -> Self {
        let mut hasher = Xxh3::new();
        engine.precompile_compatibility_hash().hash(&mut hasher);
        Self {
            folder: folder.to_owned(),
            compatibility: hasher.finish(),
        }
    }

    /// The compiled form of the component with this digest (64 hexadecimal digits). Blocks.
    pub(super) fn load(&self, engine: &Engine, digest: &str) -> Found {
        let bytes = match self.read(digest) {
            Ok(bytes) => bytes,
            Err(Refusal::Absent) => return Found::Nothing(CacheResult::Miss),
            Err(Refusal::Rejected(reason)) => {
                let entry = self.folder.join(self.entry(digest));
                tracing::warn!(entry = %entry.display(), %reason, "a cached plugin is not loaded; it is compiled anew");
                return Found::Nothing(CacheResult::Rejected);
            }
        };
        // SAFETY: `deserialize` runs whatever code its input holds, so the input must be what
        // `Component::serialize` returned. It is: `read` has shown that the folder and the file
        // belong to this user and can be written by no other, that the file was complete and is
        // unchanged since (its checksum), and that it was stored by `store` below under this very
        // digest and this very engine and options (its key). Whoever can forge that is this user
        // and needs no cache to run code. That the bytes fit this engine is checked again by
        // wasmtime.
        match unsafe { Component::deserialize(engine, &bytes[HEADER..]) } {
            Ok(component) => Found::Hit(component),
            Err(error) => {
                tracing::warn!(%digest, %error, "a cached plugin is from another engine; it is compiled anew");
                Found::Nothing(CacheResult::Rejected)
            }
        }
    }

    /// Keeps a compiled component. Blocks.
    ///
    /// # Errors
    /// The folder is not private or not writable; the component works all the same.
    pub(super) fn store(&self, digest: &str, component: &Component) -> io::Result<()> {
        let folder = self.prepare()?;
        let payload = component.serialize().map_err(io::Error::other)?;
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let process = std::process::id();
        let draft = format!(".draft-{process}-{number}");
        let written = self.write(&folder, &draft, digest, &payload);
        let stored = written.and_then(|()| {
            let entry = self.entry(digest);
            Ok(rustix::fs::renameat(&folder, &draft, &folder, entry)?)
        });
        if stored.is_err() {
            let _ = rustix::fs::unlinkat(&folder, &draft, AtFlags::empty());
        }
        stored.and_then(|()| self.sweep())
    }

    /// Removes what is old. Ages are told by the files' own times, the youngest being now.
    fn sweep(&self) -> io::Result<()> {
        let mut files = Vec::new();
        for file in fs::read_dir(&self.folder)? {
            let path = file?.path();
            // Another process may have swept it meanwhile.
            if let Ok(changed) = fs::symlink_metadata(&path).and_then(|file| file.modified()) {
                files.push((changed, path));
            }
        }
        files.sort_unstable_by(|one, other| other.cmp(one));
        let Some(now) = files.first().map(|(changed, _)| *changed) else {
            return Ok(());
        };
        let mut entries = 0;
        for (changed, path) in files {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            let old = if name.starts_with(".draft-") {
                now.duration_since(changed)
                    .is_ok_and(|age| age > DRAFT_LIFE)
            } else {
                entries += usize::from(name.ends_with(".compiled"));
                name.ends_with(".compiled") && entries > MAX_ENTRIES
            };
            if old {
                let _ = fs::remove_file(&path);
            }
        }
        Ok(())
    }

    fn write(&self, folder: &File, draft: &str, digest: &str, payload: &[u8]) -> io::Result<()> {
        let new = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW;
        let mode = Mode::RUSR | Mode::WUSR;
        let mut file: File = rustix::fs::openat(folder, draft, new | OFlags::CLOEXEC, mode)?.into();
        file.write_all(&self.header(digest, payload))?;
        file.write_all(payload)?;
        file.sync_all()
    }

    fn header(&self, digest: &str, payload: &[u8]) -> Vec<u8> {
        let mut header = Vec::with_capacity(HEADER);
        header.extend_from_slice(MAGIC);
        header.extend_from_slice(&Sha256::digest(self.key(digest)));
        header.extend_from_slice(&(payload.len() as u64).to_le_bytes());
        header.extend_from_slice(&Sha256::digest(payload));
        header
    }

    fn key(&self, digest: &str) -> String {
        format!("{digest}-{:016x}", self.compatibility)
    }

    /// The name of an entry in the folder.
    fn entry(&self, digest: &str) -> String {
        format!("{}.compiled", self.key(digest))
    }

    fn prepare(&self) -> io::Result<File> {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&self.folder)?;
        self.open_folder().map_err(|refusal| match refusal {
            Refusal::Absent => io::Error::from(io::ErrorKind::NotFound),
            Refusal::Rejected(reason) => io::Error::other(reason),
        })
    }

    /// The folder, once it is known to be ours; if others had access, they lose it. Their files
    /// stay strangers by owner.
    fn open_folder(&self) -> Result<File, Refusal> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let folder = rustix::fs::open(&self.folder, flags, Mode::empty());
        let folder: File = folder.map_err(io::Error::from)?.into();
        let metadata = folder.metadata()?;
        if metadata.uid() != user() {
            return Err(Refusal::Rejected(
                "its folder belongs to another user".into(),
            ));
        }
        if metadata.mode() & 0o077 != 0 {
            folder.set_permissions(fs::Permissions::from_mode(0o700))?;
        }
        for above in fs::canonicalize(&self.folder)?.ancestors().skip(1) {
            if others_may_exchange(&fs::metadata(above)?) {
                return Err(Refusal::Rejected(format!(
                    "other users may put a folder of theirs in the place of its own: {} is theirs \
                     or open to them",
                    above.display()
                )));
            }
        }
        Ok(folder)
    }

    fn read(&self, digest: &str) -> Result<Vec<u8>, Refusal> {
        let folder = self.open_folder()?;
        // A link could lead to a file whose owner is right and whose content is not ours. A pipe
        // must not be waited for.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let opened = rustix::fs::openat(&folder, self.entry(digest), flags, Mode::empty());
        let mut file: File = opened.map_err(io::Error::from)?.into();
        let metadata = file.metadata()?;
        if !metadata.is_file() {
            return Err(Refusal::Rejected("it is not a plain file".into()));
        }
        // None is left where a newer entry took its place just now.
        if metadata.uid() != user() || metadata.mode() & 0o077 != 0 || metadata.nlink() > 1 {
            return Err(Refusal::Rejected(
                "others than this user own it or have access to it".into(),
            ));
        }
        if metadata.len() > MAX_ENTRY {
            return Err(Refusal::Rejected("it is larger than any entry".into()));
        }
        let mut bytes = Vec::new();
        (&mut file).take(MAX_ENTRY).read_to_end(&mut bytes)?;
        let Some((header, payload)) = bytes.split_at_checked(HEADER) else {
            return Err(Refusal::Rejected("it is shorter than its header".into()));
        };
        if header != self.header(digest, payload) {
            return Err(Refusal::Rejected(
                "its header does not fit its content".into(),
            ));
        }
        Ok(bytes)
    }
}

/// Whether users other than this one and root may rename what lies in a folder. One that is sticky,
/// such as /tmp, lets each rename their own alone. A group that may write is the operator's choice.
fn others_may_exchange(folder: &Metadata) -> bool {
    let stranger = folder.uid() != user() && folder.uid() != 0;
    let open = folder.mode() & 0o002 != 0 && folder.mode() & 0o1000 == 0;
    stranger || open
}

/// Why an entry is not loaded.
enum Refusal {
    Absent,
    Rejected(String),
}

impl From<io::Error> for Refusal {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::NotFound => Self::Absent,
            _ => Self::Rejected(error.to_string()),
        }
    }
}

/// The user that this process acts as.
fn user() -> u32 {
    // SAFETY: geteuid takes nothing, touches no memory and cannot fail.
    unsafe { libc::geteuid() }
}

#[cfg(test)]
mod tests;
