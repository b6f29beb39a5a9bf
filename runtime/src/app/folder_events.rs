//! Hears that something changed in a folder.
//!
//! inotify also tells who opened a file. Whoever looks at the files because of that opens them, and
//! would look at them again and again for ever.

use std::sync::Arc;

use notify::RecommendedWatcher;
use notify::event::{AccessKind, AccessMode, Event, EventKind};
use tokio::sync::Notify;

/// A watcher that watches nothing yet; once it does, it raises the flag for each change, and where
/// changes may have been missed.
///
/// # Errors
/// The system has no watches to give.
pub fn watcher(changed: Arc<Notify>) -> notify::Result<RecommendedWatcher> {
    telling(move |_| changed.notify_one())
}

fn telling(
    tell: impl Fn(notify::Result<Event>) + Send + 'static,
) -> notify::Result<RecommendedWatcher> {
    notify::recommended_watcher(move |event: notify::Result<Event>| {
        if !event.as_ref().is_ok_and(is_reading) {
            tell(event);
        }
    })
}

/// Whether a file was only opened or read. One that was open for writing and is closed has changed.
fn is_reading(event: &Event) -> bool {
    match event.kind {
        EventKind::Access(AccessKind::Close(AccessMode::Write)) => false,
        EventKind::Access(_) => !event.need_rescan(),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::sync::mpsc;
    use std::time::Duration;

    use notify::{RecursiveMode, Watcher as _};

    use super::*;

    /// A runtime would read its configuration fifty times a second for as long as it lives.
    #[test]
    fn reading_a_file_is_no_change_and_writing_one_is() {
        let folder = tempfile::tempdir().expect("a folder");
        let (read, written) = (folder.path().join("a.toml"), folder.path().join("b.toml"));
        fs::write(&read, "a").expect("written");
        fs::write(&written, "b").expect("written");
        let (sender, told) = mpsc::channel();
        let mut watcher =
            telling(move |event| sender.send(event).expect("the test listens")).expect("a watcher");
        let watched = watcher.watch(folder.path(), RecursiveMode::NonRecursive);
        watched.expect("watched");

        fs::read(&read).expect("read");
        fs::read_dir(folder.path()).expect("listed").for_each(drop);
        fs::write(&written, "c").expect("written");
        // They come in the order of what happened.
        let first = told.recv_timeout(Duration::from_secs(20));
        let first = first.expect("told in time").expect("an event");
        assert_eq!(first.paths, [written], "{first:?}");
    }
}
