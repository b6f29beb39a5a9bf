//! Logs: structured lines on stderr, as text or JSON.

use std::io::{self, IsTerminal as _};
use std::sync::OnceLock;

use indicatif::MultiProgress;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

/// How log lines look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// A JSON object a line, for collectors.
    Json,
}

/// The live lines on the terminal, which log lines must not cut through.
static LIVE: OnceLock<MultiProgress> = OnceLock::new();

/// The live lines of this process; log lines go above them.
pub fn live() -> &'static MultiProgress {
    LIVE.get_or_init(MultiProgress::new)
}

/// Starts logging to stderr. A second call in one process does nothing.
///
/// `level` is a level (`info`) or a list of directives (`warn,millstream::broker=debug`).
///
/// # Errors
/// A level that is none.
pub fn start(level: &str, format: LogFormat, color: bool) -> Result<(), String> {
    let filter = filter(level)?;
    let color = color && io::stderr().is_terminal();
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(AboveLive)
        .with_ansi(color && format == LogFormat::Text);
    // An error here means that logging was started already, by a test's harness for instance.
    let _ = match format {
        LogFormat::Text => builder.try_init(),
        LogFormat::Json => builder
            .json()
            .flatten_event(true)
            .with_current_span(false)
            .try_init(),
    };
    Ok(())
}

fn filter(level: &str) -> Result<EnvFilter, String> {
    // A level alone means the runtime's own lines: a compiler inside tells thousands more.
    let own = ["debug", "trace"]
        .iter()
        .any(|own| level.eq_ignore_ascii_case(own));
    let directives = match own {
        true => format!("info,millstream={level}"),
        false => level.to_owned(),
    };
    EnvFilter::try_new(directives).map_err(|error| {
        format!("`{level}` is not a log level ({error}): use error, warn, info, debug or trace")
    })
}

/// Writes to stderr, above the live lines if there are any.
struct AboveLive;

impl io::Write for AboveLive {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let write = || io::Write::write_all(&mut io::stderr(), line);
        match LIVE.get() {
            Some(live) => live.suspend(write)?,
            None => write()?,
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        io::Write::flush(&mut io::stderr())
    }
}

impl<'a> MakeWriter<'a> for AboveLive {
    type Writer = AboveLive;

    fn make_writer(&'a self) -> Self::Writer {
        AboveLive
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_and_directives_are_taken_and_nonsense_is_not() {
        for level in ["info", "WARN", "off", "warn,millstream::broker=debug"] {
            assert!(filter(level).is_ok(), "{level}");
        }
        for level in ["millstream=loud", "info,=", "a=b=c"] {
            assert!(filter(level).is_err(), "{level}");
        }
    }

    /// Whoever looks for a fault of the runtime would drown in lines of its compiler.
    #[test]
    fn a_level_below_info_is_about_the_runtime_alone() {
        let shown = filter("DEBUG").expect("a level").to_string();
        assert!(
            shown.contains("millstream=debug") && shown.contains("info"),
            "{shown}"
        );
    }
}
