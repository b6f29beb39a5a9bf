//! The secrets of a consumer, read anew in each call of its plugin that asks for one.
//!
//! The file itself is read: that costs about what it would cost to find out whether it is still the
//! same, and a secret that is rotated is seen whatever its file's times say. Within one call a secret
//! is read once, so a plugin may ask for each event of a batch.

use std::collections::BTreeMap;
use std::fs::{File, metadata};
use std::io::{self, Read as _};
use std::path::Path;
use std::sync::Arc;

use tokio::sync::Mutex;

use crate::config::SecretSource;

/// What a call of a plugin has read. It ends with the call.
#[derive(Default)]
pub(super) struct Known(BTreeMap<String, String>);

impl Known {
    /// The call is over.
    pub(super) fn forget(&mut self) {
        self.0.clear();
    }

    /// What was read before in this call.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    /// For the rest of the call.
    pub(super) fn keep(&mut self, name: String, secret: String) {
        self.0.insert(name, secret);
    }
}

/// Bytes of a secret.
const MAX_SECRET: u64 = 64 << 10;

/// The secrets of a consumer by name.
pub(super) struct Secrets {
    by_name: BTreeMap<Arc<str>, Source>,
}

struct Source {
    place: SecretSource,
    /// Held while it is read, by the thread that reads: a file on a dead network drive then holds
    /// one thread, not one for each time that a plugin asks.
    turn: Arc<Mutex<()>>,
}

impl Secrets {
    /// Those that the configuration names.
    pub(super) fn new(sources: &BTreeMap<Arc<str>, SecretSource>) -> Self {
        let source = |(name, place): (&Arc<str>, &SecretSource)| {
            let source = Source {
                place: place.clone(),
                turn: Arc::default(),
            };
            (name.clone(), source)
        };
        Self {
            by_name: sources.iter().map(source).collect(),
        }
    }

    /// Whether there is one of this name, readable or not.
    pub(super) fn has(&self, name: &str) -> bool {
        self.by_name.contains_key(name)
    }

    /// The secret of this name as it is now; `None` where the configuration names none.
    ///
    /// # Errors
    /// It cannot be read; the text says where it should be, and never what it is.
    pub(super) async fn read(&self, name: &str) -> Result<Option<String>, String> {
        let Some(source) = self.by_name.get(name) else {
            return Ok(None);
        };
        match &source.place {
            SecretSource::Environment(variable) => match std::env::var(variable) {
                Ok(value) if !value.is_empty() => Ok(Some(value)),
                _ => Err(format!("the environment variable {variable} is not set")),
            },
            SecretSource::File(path) => {
                let turn = Arc::clone(&source.turn).lock_owned().await;
                let file = path.clone();
                let reading = tokio::task::spawn_blocking(move || {
                    let _turn = turn;
                    read_file(&file)
                });
                let read = reading.await.map_err(|error| error.to_string())?;
                read.map(Some)
                    .map_err(|error| format!("{}: {error}", path.display()))
            }
        }
    }
}

fn read_file(path: &Path) -> io::Result<String> {
    // Before it is opened: opening a pipe would wait for a writer.
    if !metadata(path)?.is_file() {
        return Err(io::Error::other("it is no file"));
    }
    let mut text = String::new();
    let length = File::open(path)?
        .take(MAX_SECRET + 1)
        .read_to_string(&mut text)?;
    if length as u64 > MAX_SECRET {
        return Err(io::Error::other("it is larger than 64 KiB"));
    }
    text.truncate(text.trim_end_matches(['\r', '\n']).len());
    match text.is_empty() {
        // Some who rotate secrets empty the file first.
        true => Err(io::Error::other("it is empty")),
        false => Ok(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secrets(path: &Path) -> Secrets {
        let file = SecretSource::File(path.to_owned());
        Secrets::new(&BTreeMap::from([("key".into(), file)]))
    }

    #[tokio::test]
    async fn a_rotated_secret_is_seen_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        let secrets = secrets(&path);
        for value in ["first", "other", "third"] {
            // The same length, and well within a tick of the file's times.
            std::fs::write(&path, format!("{value}\r\n")).unwrap();
            assert_eq!(secrets.read("key").await, Ok(Some(value.to_owned())));
        }
        assert_eq!(secrets.read("other").await, Ok(None));
        assert!(secrets.has("key") && !secrets.has("other"));
    }

    /// The text ends up in the log.
    #[tokio::test]
    async fn what_cannot_be_read_is_told_without_its_text() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        let secrets = secrets(&path);
        let told = || async { secrets.read("key").await.unwrap_err() };
        assert!(told().await.contains(path.to_str().unwrap()));
        std::fs::write(&path, "\n").unwrap();
        assert!(told().await.contains("empty"));
        std::fs::write(&path, "hunter2".repeat(10_000)).unwrap();
        assert!(told().await.contains("64 KiB") && !told().await.contains("hunter2"));
        std::fs::write(&path, b"hunter2\xff").unwrap();
        assert!(!told().await.contains("hunter2"));
        std::fs::remove_file(&path).unwrap();
        std::fs::create_dir(&path).unwrap();
        assert!(told().await.contains("no file"));
    }
}
