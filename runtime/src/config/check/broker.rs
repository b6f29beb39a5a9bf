//! `[broker]` and `[broker.properties]`.

use std::collections::BTreeMap;

use super::super::checks::Checks;
use super::super::problem::Problem;
use super::super::redact::sounds_secret;
use super::super::resolved::{Broker, Durability, Embedded, Kafka};
use super::super::secret::Secret;
use super::super::section::Section;
use super::super::written::{Entry, Value};
use super::secret;

#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Embedded,
    Kafka,
}

/// Checks the section; without it the embedded broker serves.
pub fn broker(mut section: Section<'_>) -> Broker {
    let kind = section
        .choice(
            "kind",
            &[("embedded", Kind::Embedded), ("kafka", Kind::Kafka)],
        )
        .unwrap_or(Kind::Embedded);
    let wrong_kind = section.has("kind") && kind == Kind::Embedded;
    let file = section.place_of("data_dir").file;
    let data_dir = section.text("data_dir").map_or("data", |(text, _)| text);
    let data_dir = section.checks().sources.resolve(file, data_dir);
    let durability = section
        .choice(
            "durability",
            &[("sync", Durability::Sync), ("os", Durability::Os)],
        )
        .unwrap_or(Durability::Sync);
    let min_free_disk = section
        .size("min_free_disk", 0..=1 << 50)
        .unwrap_or(1 << 30);
    let broker = match kind {
        Kind::Embedded => {
            if let Some(entry) = section.entry("properties") {
                let hint = if wrong_kind {
                    "set `kind = \"kafka\"`, or remove the properties"
                } else {
                    "add `kind = \"kafka\"` to `[broker]`"
                };
                section.checks().report(
                    Problem::error("broker", "the embedded broker has no properties")
                        .at(&entry.key_place)
                        .label("these belong to Kafka")
                        .hint(hint),
                );
            }
            Broker::Embedded(Embedded {
                data_dir,
                durability,
                min_free_disk,
            })
        }
        Kind::Kafka => {
            kafka_leaves_unused(&section);
            Broker::Kafka(Kafka {
                properties: properties(&mut section),
            })
        }
    };
    section.finish();
    broker
}

/// What means nothing on Kafka must not look as if it did.
fn kafka_leaves_unused(section: &Section<'_>) {
    for key in ["durability", "min_free_disk"] {
        if section.has(key) {
            section.checks().report(
                Problem::error("broker", format!("`{key}` belongs to the embedded broker"))
                    .at(section.place_of(key))
                    .label("Kafka's own settings decide this")
                    .hint("remove it, or set `kind = \"embedded\"`"),
            );
        }
    }
    if section.has("data_dir") {
        section.checks().report(
            Problem::warning("broker", "`data_dir` is not used on Kafka")
                .at(section.place_of("data_dir"))
                .label("will hold the state of plugins, which this version has not")
                .hint("remove it"),
        );
    }
}

/// What the runtime sets itself, with the reason.
const OWNED: [(&str, &str); 12] = [
    (
        "enable.auto.commit",
        "the runtime commits what was settled, and nothing else",
    ),
    (
        "enable.auto.offset.store",
        "the runtime commits what was settled, and nothing else",
    ),
    (
        "auto.offset.reset",
        "every assignment starts at an explicit offset; see the consumers' `start` and `on_lost_position`",
    ),
    (
        "isolation.level",
        "the runtime reads committed events alone, so that aborted ones are never processed",
    ),
    (
        "enable.idempotence",
        "without it a retry by the client could repeat or reorder derived events",
    ),
    (
        "partition.assignment.strategy",
        "the runtime hands partitions over one by one, without stopping the others",
    ),
    (
        "transactional.id",
        "it names who is fenced; the runtime derives it from group and `runtime.instance`",
    ),
    (
        "message.timeout.ms",
        "the runtime never gives up on a derived event while its source is unsettled",
    ),
    (
        "allow.auto.create.topics",
        "topics are made as `[topics.NAME]` says, never by accident",
    ),
    (
        "group.id",
        "each consumer has a group of its own; see its `group`",
    ),
    (
        "group.instance.id",
        "the runtime derives it from `runtime.instance`",
    ),
    (
        "group.protocol",
        "the runtime relies on the classic protocol",
    ),
];

fn properties(section: &mut Section<'_>) -> BTreeMap<String, Secret> {
    let checks = section.checks();
    let mut properties = BTreeMap::new();
    let mut servers = false;
    if let Some(entry) = section.entry("properties") {
        let Value::Table(table) = &entry.node.value else {
            section.wrong_type("properties", &entry.node, "a table");
            return properties;
        };
        for entry in table.entries() {
            servers |= matches!(&*entry.key, "bootstrap.servers" | "metadata.broker.list");
            if let Some(value) = property(checks, entry) {
                properties.insert(entry.key.clone(), value);
            }
        }
        // One mistake, one problem: dots without quotes were reported as such.
        servers |= ["bootstrap", "metadata"]
            .iter()
            .any(|key| table.get(key).is_some());
    }
    if !servers {
        checks.report(
            Problem::error("missing", "Kafka's address is missing")
                .at(section.place())
                .label("`\"bootstrap.servers\"` is not among the properties")
                .hint("add `[broker.properties]` with `\"bootstrap.servers\" = \"HOST:9092\"`"),
        );
    }
    properties
}

fn property(checks: &Checks<'_>, entry: &Entry) -> Option<Secret> {
    let key = &*entry.key;
    if let Some((_, reason)) = OWNED.iter().find(|(name, _)| *name == key) {
        checks.report(
            Problem::error(
                "owned",
                format!("the property `{key}` is the runtime's own"),
            )
            .at(&entry.key_place)
            .label("cannot be set")
            .cause(*reason)
            .hint("remove it"),
        );
        return None;
    }
    let value = match &entry.node.value {
        Value::Text(text) if text.failed => return None,
        Value::Text(text) => text.value.clone(),
        Value::Integer(number) => number.to_string(),
        Value::Float(number) => number.to_string(),
        Value::Boolean(value) => value.to_string(),
        Value::Table(table) if secret::is_reference(table) => {
            let value = secret::secret(checks, &format!("the property `{key}`"), &entry.node)?;
            encryption(checks, entry, value.reveal());
            return Some(value);
        }
        Value::Table(_) => {
            checks.report(
                Problem::error("property", format!("`{key}` is not the name of a property"))
                    .at(&entry.key_place)
                    .label("an unquoted dot makes a table of it")
                    .hint(
                        "put librdkafka's name in quotes: `\"bootstrap.servers\" = \"HOST:9092\"`",
                    ),
            );
            return None;
        }
        other => {
            checks.report(
                Problem::error("type", format!("the property `{key}` must be a string"))
                    .at(&entry.node.place)
                    .label(format!("this is {}", other.kind()))
                    .hint("several values are one string with commas between them"),
            );
            return None;
        }
    };
    if key == "bootstrap.servers" && value.trim().is_empty() {
        checks.report(
            Problem::error("property", "`bootstrap.servers` names no server")
                .at(&entry.node.place)
                .label("empty")
                .hint("write HOST:PORT, several with commas between them"),
        );
    }
    encryption(checks, entry, &value);
    if !sounds_secret(key) {
        return Some(Secret::open(value));
    }
    let from_environment = matches!(&entry.node.value, Value::Text(text) if text.written.is_some());
    if !from_environment {
        checks.report(
            Problem::warning("secret", format!("`{key}` stands in the open"))
                .at(&entry.node.place)
                .label("everyone who reads this file knows it")
                .hint("write `{ file = \"…\" }` or `{ env = \"NAME\" }` in its place"),
        );
    }
    Some(Secret::new(value))
}

/// The bundled client is built without TLS; a connection that silently went without would be worse
/// than none.
fn encryption(checks: &Checks<'_>, entry: &Entry, value: &str) {
    let key = &*entry.key;
    let lower = value.trim().to_ascii_lowercase();
    let refused = match key {
        "security.protocol" => lower == "ssl" || lower == "sasl_ssl",
        "sasl.mechanism" | "sasl.mechanisms" => !lower.is_empty() && lower != "plain",
        _ => {
            key.starts_with("ssl.")
                || key == "enable.ssl.certificate.verification"
                || key.starts_with("https.")
                || key.starts_with("sasl.oauthbearer.")
                || key.starts_with("sasl.kerberos.")
        }
    };
    if refused {
        checks.report(
            Problem::error(
                "unsupported",
                format!("the property `{key}` asks for what is not supported by this version"),
            )
            .at(&entry.key_place)
            .label("this version speaks to Kafka without TLS")
            .cause("of `security.protocol` only plaintext and sasl_plaintext work, of SASL's mechanisms only PLAIN")
            .hint("use a listener without TLS, or a local proxy that adds it"),
        );
    }
}
