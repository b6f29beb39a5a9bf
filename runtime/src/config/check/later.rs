//! Keys whose feature a later version brings: read and checked, and refused if they ask for it.
//!
//! Accepting one in silence would promise a protection that is not there.

use super::super::section::Section;
use super::super::written::Value;

/// Checks all of them in a consumer.
pub fn later(consumer: &mut Section<'_>) {
    consumer.reserve(&[
        ("broker", "second broker"),
        ("state", "state for plugins"),
        ("timers", "timers"),
        ("schema", "schemas"),
        ("deduplicate", "deduplication"),
        ("priority", "priorities"),
    ]);
}

/// Refuses a key unless its value asks for nothing.
pub fn refuse(section: &Section<'_>, key: &str, what: &str) {
    if let Some(entry) = section.get(key)
        && asks(&entry.node.value)
    {
        section.unsupported(key, &entry.key_place, what);
    }
}

fn asks(value: &Value) -> bool {
    match value {
        Value::Boolean(value) => *value,
        Value::List(nodes) => !nodes.is_empty(),
        Value::Table(table) => !table.entries().is_empty(),
        _ => true,
    }
}
