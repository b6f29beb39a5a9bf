//! How much room the disk has left.

use std::path::Path;

/// Refuses appends while less than this is free.
#[derive(Clone, Copy, Debug)]
pub struct DiskGuard {
    /// Bytes; 0 asks for nothing.
    pub min_free: u64,
}

impl DiskGuard {
    /// Whether there is room for more events.
    ///
    /// # Errors
    /// Why not, and what to do. A disk that does not say how much is free has room.
    pub fn check(self, folder: &Path) -> Result<(), String> {
        if self.min_free == 0 {
            return Ok(());
        }
        match free_bytes(folder) {
            Some(free) if free < self.min_free => Err(format!(
                "{} has {} MiB free, and [broker] min_free_disk asks for {} MiB; make room, lower \
                 a topic's retention, or lower min_free_disk",
                folder.display(),
                free / (1024 * 1024),
                self.min_free.div_ceil(1024 * 1024),
            )),
            _ => Ok(()),
        }
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
        let guard = |min_free| DiskGuard { min_free };
        assert_eq!(guard(0).check(folder.path()), Ok(()));
        assert_eq!(guard(1).check(folder.path()), Ok(()));
        let full = guard(u64::MAX).check(folder.path()).unwrap_err();
        assert!(full.contains("min_free_disk"), "{full}");
    }
}
