//! What is planted in the cache, and that none of it is loaded.

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
    fn path(&self) -> PathBuf {
        self.path_of(DIGEST)
    }

    fn path_of(&self, digest: &str) -> PathBuf {
        self.cache.folder.join(self.cache.entry(digest))
    }

    fn store(&self) {
        let component = Component::new(&self.engine, EMPTY_COMPONENT).unwrap();
        self.cache.store(DIGEST, &component).unwrap();
    }

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
    let entry = fs::metadata(setup.path()).unwrap();
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
    let path = setup.path();
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
    let path = setup.path();
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
    fs::rename(&elsewhere, setup.path_of("11")).unwrap();
    assert!(matches!(
        setup.cache.load(&setup.engine, "11"),
        Found::Nothing(CacheResult::Rejected)
    ));
}

/// As above, for everything else that can stand under the right name.
#[test]
fn only_a_plain_file_of_ours_alone_is_loaded() {
    let setup = stored();
    let path = setup.path();
    let aside = setup.cache.folder.join("aside");
    for mode in [0o601, 0o602, 0o604, 0o610, 0o620, 0o640, 0o666, 0o777] {
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        assert_eq!(setup.load(), "rejected", "mode {mode:o}");
    }
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    assert_eq!(setup.load(), "hit");

    // Whoever holds the other name can change what is read.
    fs::hard_link(&path, &aside).unwrap();
    assert_eq!(setup.load(), "rejected");
    fs::remove_file(&path).unwrap();
    std::os::unix::fs::symlink(&aside, &path).unwrap();
    assert_eq!(setup.load(), "rejected");
    fs::remove_file(&path).unwrap();
    std::os::unix::fs::symlink("nowhere", &path).unwrap();
    assert_eq!(setup.load(), "rejected");
    fs::remove_file(&path).unwrap();
    fs::create_dir(&path).unwrap();
    assert_eq!(setup.load(), "rejected");
    fs::remove_dir(&path).unwrap();
    // A pipe without a writer: who opens it without care waits for ever.
    let pipe = Mode::RUSR | Mode::WUSR;
    rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, pipe, 0).unwrap();
    assert_eq!(setup.load(), "rejected");
    fs::remove_file(&path).unwrap();
    let large = File::create(&path).unwrap();
    large.set_len(MAX_ENTRY + 1).unwrap();
    large
        .set_permissions(fs::Permissions::from_mode(0o600))
        .unwrap();
    assert_eq!(setup.load(), "rejected");
    // Each of them gives way to what the runtime writes.
    setup.store();
    assert_eq!(setup.load(), "hit");
}

/// Only root can give files away, so elsewhere this says that it is left out.
#[test]
fn what_belongs_to_another_user_is_not_loaded() {
    if user() != 0 {
        eprintln!("LEFT OUT: files can be given to another user by root alone");
        return;
    }
    let setup = stored();
    std::os::unix::fs::chown(setup.path(), Some(1), None).unwrap();
    assert_eq!(setup.load(), "rejected");
    setup.store();
    assert_eq!(setup.load(), "hit");
    std::os::unix::fs::chown(&setup.cache.folder, Some(1), None).unwrap();
    assert_eq!(setup.load(), "rejected");
    let component = Component::new(&setup.engine, EMPTY_COMPONENT).unwrap();
    setup.cache.store(DIGEST, &component).unwrap_err();
}

/// In a folder that others may write they could rename ours and put theirs in its place.
#[test]
fn a_folder_that_can_be_exchanged_is_not_used() {
    let setup = stored();
    let above = setup.cache.folder.parent().unwrap();
    let mode = |mode| fs::set_permissions(above, fs::Permissions::from_mode(mode)).unwrap();
    mode(0o777);
    assert_eq!(setup.load(), "rejected");
    // Sticky, as /tmp is: each renames their own alone.
    mode(0o1777);
    assert_eq!(setup.load(), "hit");
    mode(0o775);
    assert_eq!(setup.load(), "hit");
    if user() == 0 {
        std::os::unix::fs::chown(above, Some(1), None).unwrap();
        assert_eq!(setup.load(), "rejected");
    }
}

/// The header says what it should, and behind it stands something else.
#[test]
fn a_header_that_fits_is_not_enough() {
    let setup = stored();
    let path = setup.path();
    let mut config = wasmtime::Config::new();
    config.epoch_interruption(true);
    let other = Engine::new(&config).unwrap();
    let foreign = Component::new(&other, EMPTY_COMPONENT).unwrap();
    for payload in [
        foreign.serialize().unwrap(),
        b"\x7fELF".to_vec(),
        Vec::new(),
    ] {
        let mut entry = setup.cache.header(DIGEST, &payload);
        entry.extend_from_slice(&payload);
        fs::write(&path, entry).unwrap();
        assert_eq!(setup.load(), "rejected", "{} bytes", payload.len());
    }
}

/// Several processes may use one cache: what is read is always whole, whoever writes meanwhile.
#[test]
fn readers_and_writers_at_once_find_whole_entries() {
    let setup = stored();
    std::thread::scope(|threads| {
        for _ in 0..4 {
            threads.spawn(|| {
                for _ in 0..25 {
                    setup.store();
                    assert_eq!(setup.load(), "hit");
                }
            });
        }
    });
    let files = fs::read_dir(&setup.cache.folder).unwrap().count();
    assert_eq!(files, 1, "no draft stays behind");
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

/// Every build of a plugin leaves an entry; without a sweep the folder grows for ever.
#[test]
fn old_entries_and_drafts_are_swept() {
    let setup = stored();
    let folder = &setup.cache.folder;
    let age = |name: &str, hours: u64| {
        let path = folder.join(name);
        let file = File::create(&path).unwrap();
        let now = fs::metadata(&path).unwrap().modified().unwrap();
        file.set_modified(now - Duration::from_secs(hours * 3_600))
            .unwrap();
    };
    for number in 0..200 {
        age(&format!("{number:03}.compiled"), number + 1);
    }
    age(".draft-1-1", 2);
    age(".draft-1-2", 0);
    age("a note of the user", 10_000);
    setup.cache.sweep().unwrap();
    assert_eq!(setup.load(), "hit");
    assert!(folder.join("126.compiled").exists() && !folder.join("127.compiled").exists());
    assert!(!folder.join(".draft-1-1").exists() && folder.join(".draft-1-2").exists());
    assert!(folder.join("a note of the user").exists());
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
