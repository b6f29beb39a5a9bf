//! `[topics.NAME]`.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::super::problem::Problem;
use super::super::resolved::{Cleanup, TopicSettings};
use super::super::section::Section;
use super::super::written::{Entry, Value};
use super::names;

/// Ten years: longer is a slip of the unit.
const MAX_AGE: Duration = Duration::from_secs(10 * 366 * 86_400);

/// Checks all topics.
pub fn topics(root: &mut Section<'_>, embedded: bool) -> BTreeMap<Arc<str>, TopicSettings> {
    let mut topics = BTreeMap::new();
    let Some(entry) = root.entry("topics") else {
        return topics;
    };
    let Value::Table(table) = &entry.node.value else {
        root.wrong_type(
            "topics",
            &entry.node,
            "a table for each topic, `[topics.NAME]`,",
        );
        return topics;
    };
    for entry in table.entries() {
        let shown = format!("`{}`", entry.key);
        names::own_topic(root.checks(), &shown, &entry.key, &entry.key_place);
        topics.insert(entry.key.as_str().into(), topic(root, entry, embedded));
    }
    topics
}

fn topic(root: &Section<'_>, entry: &Entry, embedded: bool) -> TopicSettings {
    let Value::Table(table) = &entry.node.value else {
        root.checks().report(
            Problem::error("type", format!("the topic `{}` must be a table", entry.key))
                .at(&entry.node.place)
                .label(format!("this is {}", entry.node.value.kind()))
                .hint("write `[topics.NAME]`, with the settings under it"),
        );
        return TopicSettings::default();
    };
    let mut section = Section::new(
        root.checks(),
        table,
        &entry.key_place,
        format!("topics.{}", entry.key),
        "topics.NAME".to_owned(),
    );
    let mut settings = TopicSettings {
        partitions: section.integer("partitions", 1..=10_000).map(|n| n as u32),
        cleanup: section.choice(
            "cleanup",
            &[("delete", Cleanup::Delete), ("compact", Cleanup::Compact)],
        ),
        max_event: section.size("max_event", 1 << 10..=1 << 30),
        ..TopicSettings::default()
    };
    let mut retention = section.section("retention");
    settings.retention_age = retention.duration("age", Duration::from_secs(1)..=MAX_AGE);
    settings.retention_bytes = retention.size("bytes", 1 << 10..=1 << 50);
    let kept = !retention.is_empty();
    let kept_at = retention.place();
    retention.finish();
    section.reserve(&[("schema", "schemas"), ("broker", "second broker")]);
    if settings.cleanup == Some(Cleanup::Compact) {
        if embedded {
            section.checks().report(
                Problem::error(
                    "unsupported",
                    "`cleanup = \"compact\"` is not supported by this version on the embedded broker",
                )
                .at(section.place_of("cleanup"))
                .label("this version deletes whole events by age and size alone")
                .hint("remove it, or use Kafka"),
            );
        } else if kept {
            section.checks().report(
                Problem::error("topic", "a compacted topic has no retention")
                    .at(kept_at)
                    .label("Kafka would ignore it")
                    .cause(
                        "with `cleanup = \"compact\"` the last event of each key is kept for ever",
                    )
                    .hint("remove `retention`, or set `cleanup = \"delete\"`"),
            );
        }
    }
    for inner in table.entries() {
        if inner.key != "retention" && matches!(inner.node.value, Value::Table(_)) {
            section.ignore(&inner.key);
            section.checks().report(
                Problem::error("topic-name", "the name of a topic with dots needs quotes")
                    .at(&inner.key_place)
                    .label("the dot before this makes a table of it")
                    .hint(format!("write `[topics.\"{}.{}\"]`", entry.key, inner.key)),
            );
        }
    }
    section.finish();
    settings
}
