//! How much room the disk has left.

use std::path::Path;

/// Refuses appends that would leave less than this free.
#[derive(Clone, Copy, Debug)]
pub struct DiskGuard {
    /// Bytes; 0 asks for nothing.
    pub min_free: u64,
}

impl DiskGuard {
    /// The room for events as it is now, to be used up by one group of appends. A disk that does not
    /// say how much is free has room.
    pub fn room(self, folder: &Path) -> Room<'_> {
        let free = match self.min_free {
            0 => None,
            _ => free_bytes(folder),
        };
        Room {
            folder,
            min_free: self.min_free,
            free: free.unwrap_or(u64::MAX),
            taken: 0,
        }
    }
}

/// Room on the disk.
#[derive(Debug)]
pub struct Room<'a> {
    folder: &'a Path,
    min_free: u64,
    free: u64,
    /// Bytes of the appends so far: they are not written yet, so the disk does not know of them.
    taken: u64,
}

impl Room<'_> {
    /// Takes room for so many bytes.
    ///
    /// # Errors
    /// Why there is none, and what to do.
    pub fn take(&mut self, bytes: usize) -> Result<(), String> {
        let taken = self.taken.saturating_add(bytes as u64);
        if self.free < self.min_free.saturating_add(taken) {
            return Err(format!(
                "{} has {} MiB free, of which [broker] min_free_disk keeps {} MiB free; make room, \
                 lower a topic's retention, or lower min_free_disk",
                self.folder.display(),
                self.free / (1024 * 1024),
                self.min_free.div_ceil(1024 * 1024),
            ));
        }
        self.taken = taken;
        Ok(())
    }
}

/// Bytes that are free to this process on the disk of `folder`.
pub fn free_bytes(folder: &Path) -> Option<u64> {
    let stat = rustix::fs::statvfs(folder).ok()?;
    Some(stat.f_bavail.saturating_mul(stat.f_frsize))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_below_the_limit_is_full_and_the_text_says_what_to_do() {
        let folder = tempfile::tempdir().unwrap();
        let take = |min_free| DiskGuard { min_free }.room(folder.path()).take(1);
        assert_eq!(take(0), Ok(()));
        assert_eq!(take(1), Ok(()));
        let full = take(u64::MAX).unwrap_err();
        assert!(full.contains("min_free_disk"), "{full}");
    }

    /// One look at the disk serves a whole group, and a group can be large.
    #[test]
    fn a_group_does_not_pass_the_limit_as_a_whole() {
        let mut room = Room {
            folder: Path::new("store"),
            min_free: 100,
            free: 110,
            taken: 0,
        };
        assert_eq!(room.take(6), Ok(()));
        assert!(room.take(5).is_err());
        assert_eq!(room.take(4), Ok(()));
        assert!(room.take(1).is_err());
    }
}
