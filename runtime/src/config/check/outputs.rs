//! `outputs` and `dead_letter` of a consumer: where it writes to.

use std::sync::Arc;

use super::super::checks::Checks;
use super::super::problem::{Place, Problem};
use super::super::resolved::{DeadLetter, Output};
use super::super::section::Section;
use super::super::written::{Entry, Text, Value};
use super::names;

/// Checks the outputs; the places are those of their topics.
pub fn outputs(consumer: &mut Section<'_>) -> (Vec<Output>, Vec<Place>) {
    let mut outputs = Vec::new();
    let mut places = Vec::new();
    let Some(entry) = consumer.entry("outputs") else {
        return (outputs, places);
    };
    let Value::Table(table) = &entry.node.value else {
        consumer.wrong_type(
            "outputs",
            &entry.node,
            "a table of names and topics, `{ default = \"…\" }`,",
        );
        return (outputs, places);
    };
    if table.entries().is_empty() {
        consumer.checks().report(
            Problem::error("outputs", "`outputs` names no output")
                .at(&entry.node.place)
                .label("empty")
                .hint(
                    "add `default = \"TOPIC\"`; or remove `outputs` if the plugin writes nothing",
                ),
        );
    }
    for entry in table.entries() {
        let shown = format!("`outputs.{}`", entry.key);
        names::label(consumer.checks(), &shown, &entry.key, &entry.key_place);
        if let Some((output, place)) = output(consumer.checks(), entry, &shown) {
            outputs.push(output);
            places.push(place);
        }
    }
    (outputs, places)
}

fn output(checks: &Checks<'_>, entry: &Entry, shown: &str) -> Option<(Output, Place)> {
    let node = &entry.node;
    let name: Arc<str> = entry.key.as_str().into();
    let (topic, partitions, place) = match &node.value {
        Value::Boolean(false) => (None, None, node.place.clone()),
        Value::Text(Text { failed: true, .. }) => return None,
        Value::Text(text) => {
            if !names::own_topic(checks, shown, &text.value, &node.place) {
                return None;
            }
            (Some(&*text.value), None, node.place.clone())
        }
        Value::Table(table) => {
            let mut section = Section::new(
                checks,
                table,
                &entry.key_place,
                format!("outputs.{}", entry.key),
                "consumer.outputs.NAME".to_owned(),
            );
            let topic = section.text("topic");
            let partitions = section.integer("partitions", 1..=10_000);
            section.reserve(&[("broker", "second broker"), ("schema", "schemas")]);
            if !section.has("topic") {
                section.missing("topic", "this output goes nowhere", "add `topic = \"…\"`");
            }
            section.finish();
            let (topic, node) = topic?;
            if !names::own_topic(checks, &format!("the topic of {shown}"), topic, &node.place) {
                return None;
            }
            (Some(topic), partitions, node.place.clone())
        }
        other => {
            let label = match other {
                Value::Boolean(true) => "true says nothing",
                other => other.kind(),
            };
            checks.report(
                Problem::error(
                    "outputs",
                    format!("{shown} must be a topic, or false to discard"),
                )
                .at(&node.place)
                .label(label)
                .hint("write \"TOPIC\", or `{ topic = \"…\", partitions = 4 }`"),
            );
            return None;
        }
    };
    let output = Output {
        name,
        topic: topic.map(Into::into),
        partitions: partitions.map(|number| number as u32),
    };
    Some((output, place))
}

/// Checks the dead-letter topic; the place is that of the topic.
pub fn dead_letter(consumer: &mut Section<'_>) -> (Option<DeadLetter>, Place) {
    if !consumer.has("dead_letter") {
        consumer.section("dead_letter");
        return (None, consumer.place().clone());
    }
    let mut section = consumer.section("dead_letter");
    let topic = section.text("topic");
    let max_ratio = section.number("max_ratio", 0.0..=1.0);
    if !section.has("topic") && is_table(consumer) {
        section.missing(
            "topic",
            "dead letters go nowhere",
            "add `topic = \"…\"`; or remove `dead_letter` to halt at an event that fails for good",
        );
    }
    section.finish();
    let Some((topic, node)) = topic else {
        return (None, consumer.place().clone());
    };
    let valid = names::own_topic(consumer.checks(), "`dead_letter.topic`", topic, &node.place);
    let dead_letter = valid.then(|| DeadLetter {
        topic: topic.into(),
        max_ratio,
    });
    (dead_letter, node.place.clone())
}

fn is_table(consumer: &mut Section<'_>) -> bool {
    matches!(
        consumer.node("dead_letter").map(|node| &node.value),
        Some(Value::Table(_))
    )
}
