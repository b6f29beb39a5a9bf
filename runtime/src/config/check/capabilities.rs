//! `capabilities` and `secrets` of a consumer.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::super::capabilities::{Capabilities, SecretSource};
use super::super::destination::Destination;
use super::super::problem::Problem;
use super::super::redact::is_variable_name;
use super::super::section::Section;
use super::super::written::{Node, Value};
use super::secret::{self, Reference};
use super::{later, names};

/// Hosts, variables or secrets of one consumer.
const MOST: usize = 256;

/// The secrets of a consumer by name.
pub type Secrets = BTreeMap<Arc<str>, SecretSource>;

/// Checks both. What a consumer that is not `enabled` refers to need not be there.
pub fn capabilities(consumer: &mut Section<'_>, enabled: bool) -> (Capabilities, Secrets) {
    let mut section = consumer.section("capabilities");
    let capabilities = Capabilities {
        http: http(&mut section),
        env: env(&mut section, enabled),
        clock: section.boolean("clock").unwrap_or(false),
        random: section.boolean("random").unwrap_or(false),
        secrets: section.boolean("secrets").unwrap_or(false),
    };
    section.node("state");
    later::refuse(&section, "state", "state for plugins");
    section.finish();
    let secrets = secrets(consumer, enabled);
    if !secrets.is_empty() && !capabilities.secrets {
        let granted = Capabilities {
            secrets: true,
            ..capabilities.clone()
        };
        consumer.checks().report(
            Problem::warning("secrets", "the plugin may not read its secrets")
                .at(consumer.place_of("secrets"))
                .label("the capability `secrets` is not granted")
                .hint(format!("write `{}`", granted.to_toml())),
        );
    }
    (capabilities, secrets)
}

fn http(section: &mut Section<'_>) -> Vec<Destination> {
    let mut destinations: Vec<Destination> = Vec::new();
    for (text, node) in texts(section, "http", "a list of hosts") {
        match Destination::parse(text) {
            Ok(destination) if destinations.contains(&destination) => twice(section, "http", node),
            Ok(destination) => destinations.push(destination),
            Err(mistake) => section.checks().report(
                Problem::error("host", "an entry of `capabilities.http` is no host")
                    .at(&node.place)
                    .label(mistake.describe())
                    .hint("write \"api.example.com:443\"; without a port it is 443 for https and 80 for http"),
            ),
        }
    }
    destinations
}

fn env(section: &mut Section<'_>, enabled: bool) -> Vec<Arc<str>> {
    let mut variables: Vec<Arc<str>> = Vec::new();
    let checks = section.checks();
    for (name, node) in texts(section, "env", "a list of names") {
        if !is_variable_name(name) {
            checks.report(
                Problem::error(
                    "variable",
                    "an entry of `capabilities.env` must name an environment variable",
                )
                .at(&node.place)
                .label("letters, digits and `_` make a name"),
            );
        } else if variables.iter().any(|known| **known == *name) {
            twice(section, "env", node);
        } else {
            if enabled && (checks.environment)(name).is_none() {
                checks.report(
                    Problem::warning(
                        "environment",
                        format!("the environment variable {name} is not set"),
                    )
                    .at(&node.place)
                    .label("the plugin will not see it"),
                );
            }
            variables.push(name.into());
        }
    }
    variables
}

fn texts<'a>(
    section: &mut Section<'a>,
    key: &'static str,
    wanted: &str,
) -> Vec<(&'a str, &'a Node)> {
    let texts = section.texts(key, wanted).unwrap_or_default();
    if texts.len() > MOST {
        too_many(section, key);
        return Vec::new();
    }
    texts
}

fn too_many(section: &Section<'_>, key: &str) {
    section.checks().report(
        Problem::error(
            "range",
            format!("{} has more than {MOST} entries", section.shown(key)),
        )
        .at(section.place_of(key))
        .label("too many"),
    );
}

fn twice(section: &Section<'_>, key: &str, node: &Node) {
    section.checks().report(
        Problem::error(
            "twice",
            format!("an entry of {} stands there twice", section.shown(key)),
        )
        .at(&node.place)
        .label("stands in the list already"),
    );
}

fn secrets(consumer: &mut Section<'_>, enabled: bool) -> Secrets {
    let mut secrets = Secrets::new();
    let Some(node) = consumer.node("secrets") else {
        return secrets;
    };
    let Value::Table(table) = &node.value else {
        consumer.wrong_type("secrets", node, "a table");
        return secrets;
    };
    if table.entries().len() > MOST {
        too_many(consumer, "secrets");
        return secrets;
    }
    let checks = consumer.checks();
    for entry in table.entries() {
        let shown = format!("`secrets.{}`", entry.key);
        let named = names::label(checks, "a name of `secrets`", &entry.key, &entry.key_place);
        let source = match secret::reference(checks, &shown, &entry.node) {
            Some(Reference::Environment(name)) => SecretSource::Environment(name.to_owned()),
            Some(Reference::File(path)) => {
                SecretSource::File(checks.sources.resolve(entry.node.place.file, path))
            }
            None => continue,
        };
        // Read now, so that a missing one is found before an event needs it.
        if enabled {
            secret::secret(checks, &shown, &entry.node);
        }
        if named {
            secrets.insert(entry.key.as_str().into(), source);
        }
    }
    secrets
}
