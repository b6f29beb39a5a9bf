//! What is said of a store's files besides what is in them: who holds it, and what a crash left
//! unfinished at the end of its journals.
//!
//! The store cuts an unfinished batch off a journal when it opens it. That is as it should be, for
//! nobody was answered for it; but bytes that go without a word would be looked for in vain.

use std::fs::{self, File};
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};

/// Read at once.
const CHUNK: u64 = 1024 * 1024;

/// The journals of a store before it is opened, each with the end of what was written to it.
pub struct Journals(Vec<(PathBuf, u64)>);

impl Journals {
    /// Looks at the store in this folder. Files that cannot be read are left out: opening the store
    /// says so better.
    pub fn of(store: &Path) -> Self {
        let entries = fs::read_dir(store.join("journals")).or_else(|_| fs::read_dir(store));
        let files = entries.into_iter().flatten().flatten();
        let journals = files
            .map(|entry| entry.path())
            .filter(|path| path.extension().is_some_and(|name| name == "jnl"));
        Self(
            journals
                .filter_map(|path| {
                    let end = written_end(&path).ok()?;
                    Some((path, end))
                })
                .collect(),
        )
    }

    /// Which of them the opening made shorter than what was written, and by how many bytes.
    pub fn cut(&self) -> Vec<(&Path, u64)> {
        let cut = self.0.iter().filter_map(|(path, end)| {
            let left = fs::metadata(path).ok()?.len();
            (left < *end).then(|| (path.as_path(), end - left))
        });
        cut.collect()
    }
}

/// One past the last byte that is not zero: journals are made at their full length.
fn written_end(path: &Path) -> io::Result<u64> {
    let mut file = File::open(path)?;
    let mut end = file.metadata()?.len();
    let mut chunk = Vec::new();
    while end > 0 {
        let from = end.saturating_sub(CHUNK);
        file.seek(SeekFrom::Start(from))?;
        chunk.clear();
        (&mut file).take(end - from).read_to_end(&mut chunk)?;
        if let Some(last) = chunk.iter().rposition(|byte| *byte != 0) {
            return Ok(from + last as u64 + 1);
        }
        end = from;
    }
    Ok(0)
}

/// The process that holds the store in this folder, where the system tells.
pub fn holder(store: &Path) -> Option<u32> {
    use std::os::unix::fs::MetadataExt as _;

    let inode = fs::metadata(store.join("lock")).ok()?.ino();
    let locks = fs::read_to_string("/proc/locks").ok()?;
    locks.lines().find_map(|line| {
        // 3: FLOCK  ADVISORY  WRITE 1234 08:01:5678 0 EOF
        let mut fields = line.split_whitespace().skip(1);
        let kind = fields.next()?;
        let (process, file) = (fields.nth(2)?, fields.next()?);
        let held = kind == "FLOCK" && file.rsplit(':').next() == Some(&inode.to_string());
        held.then(|| process.parse().ok()).flatten()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_cut_off_behind_the_zeros_is_told_and_zeros_are_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("3.jnl");
        let mut bytes = vec![7; 1_000];
        bytes.resize(3 * CHUNK as usize, 0);
        fs::write(&path, &bytes).unwrap();
        let journals = Journals::of(folder.path());
        let file = File::options().write(true).open(&path).unwrap();
        file.set_len(1_000).unwrap();
        assert_eq!(journals.cut(), []);
        file.set_len(990).unwrap();
        assert_eq!(journals.cut(), [(path.as_path(), 10)]);
    }
}
