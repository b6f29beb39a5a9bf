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
//! is private to the user, and an entry is loaded only if it is a plain file that belongs to this
//! user, that nobody else may write, and whose header fits. Anything else is compiled anew and
//! overwritten. The checksum finds damage; it is ownership that keeps strangers out.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::hash::{Hash as _, Hasher as _};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{
    DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _,
};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use sha2::{Digest as _, Sha256};
use wasmtime::Engine;
use wasmtime::component::Component;
use xxhash_rust::xxh3::Xxh3;

use super::hooks::CacheResult;

const MAGIC: &[u8; 8] = b"MSCACHE1";
const HEADER: usize = 8 + 32 + 8 + 32;
/// Bytes that an entry may have: compiled code is several times the component.
const MAX_ENTRY: u64 = 1 << 30;

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
                let entry = self.entry(digest);
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
        self.prepare()?;
        let payload = component.serialize().map_err(io::Error::other)?;
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let process = std::process::id();
        let draft = self.folder.join(format!(".draft-{process}-{number}"));
        let written = self.write(&draft, digest, &payload);
        let stored = written.and_then(|()| fs::rename(&draft, self.entry(digest)));
        if stored.is_err() {
            let _ = fs::remove_file(&draft);
        }
        stored
    }

    fn write(&self, draft: &Path, digest: &str, payload: &[u8]) -> io::Result<()> {
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(draft)?;
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

    fn entry(&self, digest: &str) -> PathBuf {
        self.folder.join(format!("{}.compiled", self.key(digest)))
    }

    fn prepare(&self) -> io::Result<()> {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&self.folder)?;
        self.check_folder().map_err(|refusal| match refusal {
            Refusal::Absent => io::Error::from(io::ErrorKind::NotFound),
            Refusal::Rejected(reason) => io::Error::other(reason),
        })
    }

    /// The folder is ours; if others had access, they lose it. Their files stay strangers by owner.
    fn check_folder(&self) -> Result<(), Refusal> {
        let metadata = fs::metadata(&self.folder)?;
        if metadata.uid() != user() {
            return Err(Refusal::Rejected(
                "its folder belongs to another user".into(),
            ));
        }
        if metadata.mode() & 0o077 != 0 {
            fs::set_permissions(&self.folder, fs::Permissions::from_mode(0o700))?;
        }
        Ok(())
    }

    fn read(&self, digest: &str) -> Result<Vec<u8>, Refusal> {
        self.check_folder()?;
        let path = self.entry(digest);
        // A link could lead to a file whose owner is right and whose content is not ours.
        if !fs::symlink_metadata(&path)?.is_file() {
            return Err(Refusal::Rejected("it is not a plain file".into()));
        }
        let file = File::open(&path)?;
        let metadata = file.metadata()?;
        if metadata.uid() != user() || metadata.mode() & 0o077 != 0 || metadata.nlink() != 1 {
            return Err(Refusal::Rejected(
                "others than this user own it or have access to it".into(),
            ));
        }
        let mut bytes = Vec::new();
        file.take(MAX_ENTRY).read_to_end(&mut bytes)?;
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
mod tests {
    use super::*;

    const DIGEST: &str = "00";
    const EMPTY_COMPONENT: &[u8] = b"\0asm\x0d\0\x01\0";

    struct Setup {
        _folder: tempfile::TempDir,
        engine: Engine,
        cache: Cache,
    }

    fn stored() -> Setup {
        let folder = tempfile::tempdir().unwrap();
        let engine = Engine::default();
        let cache = Cache::new(&folder.path().join("cache"), &engine);
        let component = Component::new(&engine, EMPTY_COMPONENT).unwrap();
        cache.store(DIGEST, &component).unwrap();
        Setup {
            _folder: folder,
            engine,
            cache,
        }
    }

    impl Setup {
        fn load(&self) -> &'static str {
            match self.cache.load(&self.engine, DIGEST) {
                Found::Hit(_) => "hit",
                Found::Nothing(result) => result.as_str(),
            }
        }
    }

    #[test]
    fn what_was_stored_is_found_and_private() {
        let setup = stored();
        assert_eq!(setup.load(), "hit");
        let entry = fs::metadata(setup.cache.entry(DIGEST)).unwrap();
        let folder = fs::metadata(&setup.cache.folder).unwrap();
        assert_eq!(entry.mode() & 0o777, 0o600);
        assert_eq!(folder.mode() & 0o777, 0o700);
        let files = fs::read_dir(&setup.cache.folder).unwrap().count();
        assert_eq!(files, 1, "no draft stays behind");
        assert!(matches!(
            setup.cache.load(&setup.engine, "11"),
            Found::Nothing(CacheResult::Miss)
        ));
    }

    /// Half-written or rotten machine code would crash the host.
    #[test]
    fn every_damaged_byte_is_noticed() {
        let setup = stored();
        let path = setup.cache.entry(DIGEST);
        let good = fs::read(&path).unwrap();
        for at in [0, 9, 41, 50, HEADER, good.len() - 1] {
            let mut bad = good.clone();
            bad[at] ^= 1;
            fs::write(&path, &bad).unwrap();
            assert_eq!(setup.load(), "rejected", "byte {at}");
        }
        for length in [0, 10, HEADER, good.len() - 1] {
            fs::write(&path, &good[..length]).unwrap();
            assert_eq!(setup.load(), "rejected", "length {length}");
        }
    }

    /// Machine code that others could have put there must never run.
    #[test]
    fn planted_entries_are_not_loaded() {
        let setup = stored();
        let path = setup.cache.entry(DIGEST);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o666)).unwrap();
        assert_eq!(setup.load(), "rejected");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        assert_eq!(setup.load(), "hit");

        let elsewhere = setup.cache.folder.join("elsewhere");
        fs::rename(&path, &elsewhere).unwrap();
        std::os::unix::fs::symlink(&elsewhere, &path).unwrap();
        assert_eq!(setup.load(), "rejected");
        fs::remove_file(&path).unwrap();

        // Under another component's name: its code would run with that component's grants.
        fs::rename(&elsewhere, setup.cache.entry("11")).unwrap();
        assert!(matches!(
            setup.cache.load(&setup.engine, "11"),
            Found::Nothing(CacheResult::Rejected)
        ));
    }

    /// Code of another engine or other options must not be found under this engine's name.
    #[test]
    fn another_engine_has_other_entries() {
        let setup = stored();
        let mut config = wasmtime::Config::new();
        config.epoch_interruption(true);
        let engine = Engine::new(&config).unwrap();
        let other = Cache::new(&setup.cache.folder, &engine);
        assert!(matches!(
            other.load(&engine, DIGEST),
            Found::Nothing(CacheResult::Miss)
        ));
    }

    /// A folder that others may write is taken back before anything is read from it.
    #[test]
    fn an_open_folder_is_closed() {
        let setup = stored();
        fs::set_permissions(&setup.cache.folder, fs::Permissions::from_mode(0o777)).unwrap();
        assert_eq!(setup.load(), "hit");
        let mode = fs::metadata(&setup.cache.folder).unwrap().mode();
        assert_eq!(mode & 0o777, 0o700);
    }
}
