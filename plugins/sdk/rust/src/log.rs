//! Structured logging through the runtime, which adds the consumer, the event's position and its
//! trace.
//!
//! ```
//! use millstream_plugin::prelude::*;
//! use millstream_plugin::log::{Level, entry};
//!
//! fn handle(event: Event<'_>, _out: &mut Outbox) -> Result {
//!     info!("{} bytes", event.text()?.len());
//!     entry(Level::Warn).field("kind", "odd").write("unusual");
//!     Ok(())
//! }
//!
//! let run = Harness::function(handle).run([TestEvent::text("abc")]);
//! assert_eq!(run.logs(), [(Level::Info, "3 bytes".into()), (Level::Warn, "unusual kind=odd".into())]);
//! ```

use std::cell::Cell;
use std::fmt::{self, Display};

use crate::host;

/// How grave an entry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Level {
    Trace,
    Debug,
    Info,
    Warn,
    Error,
}

thread_local! {
    /// What the runtime answered in this call, two bits a level: asked, enabled.
    static ASKED: Cell<u16> = const { Cell::new(0) };
}

/// The answers hold for one call only; the operator may change the level at any time.
pub(crate) fn forget_levels() {
    ASKED.set(0);
}

/// Whether entries of this level are kept. The macros ask before they format anything.
pub fn enabled(level: Level) -> bool {
    let shift = level as u16 * 2;
    let asked = ASKED.get();
    if asked >> shift & 1 == 1 {
        return asked >> shift & 2 == 2;
    }
    let enabled = host::log_enabled(level);
    ASKED.set(asked | (1 | u16::from(enabled) << 1) << shift);
    enabled
}

/// Writes an entry about the current event. Up to 8 KiB an entry and 1,000 entries a second a
/// consumer are kept; the rest is counted and dropped.
pub fn write(level: Level, message: fmt::Arguments<'_>) {
    entry(level).write(message);
}

/// An entry with fields, written by [`Entry::write`].
pub fn entry(level: Level) -> Entry {
    Entry {
        level,
        enabled: enabled(level),
        fields: Vec::new(),
    }
}

/// A log entry under construction, from [`entry`].
#[derive(Clone, Debug)]
#[must_use = "nothing is logged before `write`"]
pub struct Entry {
    level: Level,
    enabled: bool,
    fields: Vec<(&'static str, String)>,
}

impl Entry {
    /// Adds a field.
    pub fn field(mut self, name: &'static str, value: impl Display) -> Self {
        if self.enabled {
            self.fields.push((name, value.to_string()));
        }
        self
    }

    /// Writes the entry.
    pub fn write(self, message: impl Display) {
        if self.enabled {
            let message = message.to_string();
            host::log_write(self.level, host::current_event(), &message, &self.fields);
        }
    }
}

/// Logs at the level trace; arguments as for [`format!`].
#[macro_export]
macro_rules! trace {
    ($($message:tt)+) => { $crate::__log!(Trace, $($message)+) };
}

/// Logs at the level debug; arguments as for [`format!`].
#[macro_export]
macro_rules! debug {
    ($($message:tt)+) => { $crate::__log!(Debug, $($message)+) };
}

/// Logs at the level info; arguments as for [`format!`].
#[macro_export]
macro_rules! info {
    ($($message:tt)+) => { $crate::__log!(Info, $($message)+) };
}

/// Logs at the level warn; arguments as for [`format!`].
#[macro_export]
macro_rules! warn {
    ($($message:tt)+) => { $crate::__log!(Warn, $($message)+) };
}

/// Logs at the level error; arguments as for [`format!`].
#[macro_export]
macro_rules! error {
    ($($message:tt)+) => { $crate::__log!(Error, $($message)+) };
}

#[doc(hidden)]
#[macro_export]
macro_rules! __log {
    ($level:ident, $($message:tt)+) => {
        if $crate::log::enabled($crate::log::Level::$level) {
            $crate::log::write($crate::log::Level::$level, ::core::format_args!($($message)+));
        }
    };
}
