//! stdout and stderr of a plugin: whole lines go to the log.

use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::io::AsyncWrite;
use tracing::Level;
use wasmtime_wasi::cli::{IsTerminal, StdoutStream};
use wasmtime_wasi::p2::{OutputStream, Pollable, StreamResult};

use crate::plugin::journal::{Journal, MAX_ENTRY};

/// Bytes that a guest may write at once.
const MAX_WRITE: usize = 4 << 10;

/// One of the two streams. Clones write to the same line.
#[derive(Clone)]
pub(super) struct Lines {
    journal: Arc<Journal>,
    level: Level,
    begun: Arc<Mutex<Vec<u8>>>,
}

impl Lines {
    /// A stream whose lines are entries of this level.
    pub(super) fn new(journal: Arc<Journal>, level: Level) -> Self {
        Self {
            journal,
            level,
            begun: Arc::default(),
        }
    }

    fn take(&self, bytes: &[u8]) {
        let mut begun = self.begun.lock();
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            begun.extend_from_slice(piece);
            // A line without end would grow for ever.
            if piece.ends_with(b"\n") || begun.len() >= MAX_ENTRY {
                let line = String::from_utf8_lossy(&begun);
                let line = line.trim_end();
                if !line.is_empty() {
                    self.journal.line(self.level, line);
                }
                begun.clear();
            }
        }
    }
}

impl IsTerminal for Lines {
    fn is_terminal(&self) -> bool {
        false
    }
}

impl StdoutStream for Lines {
    fn p2_stream(&self) -> Box<dyn OutputStream> {
        Box::new(self.clone())
    }

    /// Of later versions of WASI, which are not linked.
    fn async_stream(&self) -> Box<dyn AsyncWrite + Send + Sync> {
        Box::new(tokio::io::sink())
    }
}

impl OutputStream for Lines {
    fn write(&mut self, bytes: Bytes) -> StreamResult<()> {
        self.take(&bytes);
        Ok(())
    }

    fn flush(&mut self) -> StreamResult<()> {
        Ok(())
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        Ok(MAX_WRITE)
    }
}

#[wasmtime_wasi::async_trait]
impl Pollable for Lines {
    async fn ready(&mut self) {}
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plugin::hooks::PluginHooks;

    /// A panic's message comes in pieces; it is recognized only as whole lines.
    #[tokio::test]
    async fn pieces_become_lines() {
        let journal = Journal::new("c".into(), Arc::default(), PluginHooks::default());
        let lines = Lines::new(Arc::clone(&journal), Level::WARN);
        for piece in ["\nthread 'main' panicked", " at a.rs:1:1:\nbo", "om\n"] {
            lines.take(piece.as_bytes());
        }
        assert_eq!(journal.last_words().unwrap(), "boom (a.rs:1:1)");
        lines.take(&vec![b'x'; MAX_ENTRY * 3]);
        assert!(lines.begun.lock().len() < MAX_ENTRY);
    }
}
