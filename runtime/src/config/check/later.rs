//! Keys whose feature a later version brings: read and checked, and refused if they ask for it.
//!
//! Accepting one in silence would promise a protection that is not there.

use std::time::Duration;

use super::super::section::Section;
use super::super::written::Value;

const DAY: Duration = Duration::from_secs(86_400);

/// Checks all of them in a consumer.
pub fn later(consumer: &mut Section<'_>) {
    deploy(consumer);
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

fn deploy(consumer: &mut Section<'_>) {
    let mut section = consumer.section("deploy");
    section.integer("shadow", 0..=1_000_000);
    section.duration("probation", Duration::ZERO..=DAY);
    section.number("max_failure_ratio", 0.0..=1.0);
    section.integer("state_version", 0..=u64::from(u32::MAX));
    section.finish();
    refuse(consumer, "deploy", "shadow run or probation");
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
