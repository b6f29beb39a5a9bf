//! Writing to stdout.

use serde::Serialize;
use tokio::io::{AsyncWriteExt as _, Stdout};

use super::Failure;

/// Writes data to stdout and flushes it.
///
/// # Errors
/// [`Failure::OutputClosed`] where nobody reads any more.
pub async fn write(stdout: &mut Stdout, bytes: &[u8]) -> anyhow::Result<()> {
    let written = async {
        stdout.write_all(bytes).await?;
        stdout.flush().await
    };
    match written.await {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => {
            Err(Failure::OutputClosed.into())
        }
        Err(error) => Err(anyhow::Error::new(error).context("cannot write to stdout")),
    }
}

/// Prints a text to stdout.
///
/// # Errors
/// As [`write`].
pub async fn print(text: &str) -> anyhow::Result<()> {
    write(&mut tokio::io::stdout(), text.as_bytes()).await
}

/// Prints a value as JSON to stdout.
///
/// # Errors
/// As [`write`].
pub async fn print_json(value: &impl Serialize) -> anyhow::Result<()> {
    let mut text = serde_json::to_string_pretty(value)?;
    text.push('\n');
    print(&text).await
}
