//! `millstream:plugin/log`: structured entries.

use tracing::Level as Severity;

use super::bindings::millstream::plugin::log::{Field, Host, Level};
use crate::plugin::journal::{Journal, MAX_ENTRY, cut};
use crate::plugin::state::State;

impl Host for State {
    fn enabled(&mut self, level: Level) -> bool {
        Journal::enabled(severity(level))
    }

    fn write(&mut self, level: Level, event: Option<u32>, message: String, fields: Vec<Field>) {
        let offset = event.and_then(|index| self.call.offset(index));
        self.journal
            .entry(severity(level), offset, &message, &flat(&fields));
    }
}

fn severity(level: Level) -> Severity {
    match level {
        Level::Trace => Severity::TRACE,
        Level::Debug => Severity::DEBUG,
        Level::Info => Severity::INFO,
        Level::Warn => Severity::WARN,
        Level::Error => Severity::ERROR,
    }
}

/// `name="value" …`; the names of a log's own fields are fixed at compile time, a plugin's are not.
fn flat(fields: &[Field]) -> String {
    let mut text = String::new();
    for Field { name, value } in fields {
        if !text.is_empty() {
            text.push(' ');
        }
        // Before it is escaped: a character may become five, of mebibytes that a guest hands over.
        text.push_str(cut(name, MAX_ENTRY));
        text.push('=');
        text.push_str(&format!("{:?}", cut(value, MAX_ENTRY)));
        if text.len() > MAX_ENTRY {
            break;
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A value with a line break must not look like another entry of the log.
    #[test]
    fn fields_stay_on_one_line() {
        let fields = [
            Field {
                name: "a".into(),
                value: "x\ny".into(),
            },
            Field {
                name: "b".into(),
                value: "1".into(),
            },
        ];
        assert_eq!(flat(&fields), r#"a="x\ny" b="1""#);
    }
}
