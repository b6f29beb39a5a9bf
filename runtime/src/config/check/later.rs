//! Keys whose feature a later version brings: read and checked, and refused if they ask for it.
//!
//! Accepting one in silence would promise a protection that is not there.

use super::super::section::Section;
use super::super::written::Value;
use super::secret;

/// Checks all of them in a consumer.
pub fn later(consumer: &mut Section<'_>) {
    capabilities(consumer);
    secrets(consumer);
    consumer.texts("previous_names", "a list of names");
    refuse(consumer, "previous_names", "renaming of consumers");
    consumer.reserve(&[
        ("broker", "second broker"),
        ("state", "state for plugins"),
        ("timers", "timers"),
        ("schema", "schemas"),
        ("deduplicate", "deduplication"),
        ("priority", "priorities"),
    ]);
}

fn capabilities(consumer: &mut Section<'_>) {
    let mut section = consumer.section("capabilities");
    for key in ["clock", "random"] {
        section.boolean(key);
        refuse(&section, key, "capabilities");
    }
    for key in ["http", "env"] {
        section.texts(key, "a list of strings");
        refuse(&section, key, "capabilities");
    }
    section.node("state");
    refuse(&section, "state", "capabilities");
    section.finish();
}

fn secrets(consumer: &mut Section<'_>) {
    if let Some(node) = consumer.node("secrets") {
        match &node.value {
            Value::Table(table) => {
                for entry in table.entries() {
                    let shown = format!("`secrets.{}`", entry.key);
                    secret::reference(consumer.checks(), &shown, &entry.node);
                }
            }
            _ => consumer.wrong_type("secrets", node, "a table"),
        }
    }
    refuse(consumer, "secrets", "secrets for plugins");
}

/// Refuses a key unless its value asks for nothing.
fn refuse(section: &Section<'_>, key: &str, what: &str) {
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
