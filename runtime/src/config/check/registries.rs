//! `[registries."HOST"]`: how hosts are spoken to that plugins are fetched from.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::super::origin::{is_loopback, registry_host};
use super::super::problem::Problem;
use super::super::resolved::{Credentials, Registry};
use super::super::section::Section;
use super::super::written::{Entry, Value};
use super::secret;
use crate::tls;

/// By `host` or `host:port`, lower case.
pub type Registries = BTreeMap<Arc<str>, Registry>;

/// Checks all of them.
pub fn registries(root: &mut Section<'_>) -> Registries {
    let mut registries = Registries::new();
    let Some(entry) = root.entry("registries") else {
        return registries;
    };
    let Value::Table(table) = &entry.node.value else {
        root.wrong_type(
            "registries",
            &entry.node,
            "a table for each host, `[registries.\"HOST\"]`,",
        );
        return registries;
    };
    for entry in table.entries() {
        let name = entry.key.to_ascii_lowercase();
        // The port that https implies is left out of what is looked up.
        let name = name.strip_suffix(":443").unwrap_or(&name);
        if let Some(registry) = registry(root, entry, name) {
            registries.insert(name.into(), registry);
        }
    }
    registries
}

fn registry(root: &Section<'_>, entry: &Entry, name: &str) -> Option<Registry> {
    let Some(host) = registry_host(name) else {
        root.checks().report(
            Problem::error("host", format!("`{}` is not the name of a host", entry.key))
                .at(&entry.key_place)
                .label("write HOST or HOST:PORT: no scheme, no path"),
        );
        return None;
    };
    let Value::Table(table) = &entry.node.value else {
        root.checks().report(
            Problem::error(
                "type",
                format!("the registry `{}` must be a table", entry.key),
            )
            .at(&entry.node.place)
            .label(format!("this is {}", entry.node.value.kind()))
            .hint("write `[registries.\"HOST\"]`, with the settings under it"),
        );
        return None;
    };
    let mut section = Section::new(
        root.checks(),
        table,
        &entry.key_place,
        format!("registries.{}", entry.key),
        "registries.NAME".to_owned(),
    );
    let credentials = credentials(&mut section);
    let ca = section.text("ca").map(|(path, node)| {
        let path = section.checks().sources.resolve(node.place.file, path);
        if let Err(cause) = tls::chain(&path) {
            section.checks().report(
                Problem::error("ca", format!("{} cannot be used", section.shown("ca")))
                    .at(&node.place)
                    .label("certificates as PEM are expected")
                    .cause(cause),
            );
        }
        path
    });
    let plain_http = section.boolean("plain_http");
    if plain_http == Some(true) && credentials.is_some() && !is_loopback(&host) {
        section.checks().report(
            Problem::error("registry", "credentials do not go over plain HTTP")
                .at(section.place_of("plain_http"))
                .label("anybody on the way could read them")
                .hint("remove `plain_http`, or the credentials"),
        );
    }
    section.finish();
    Some(Registry {
        credentials,
        ca,
        plain_http,
    })
}

fn credentials(section: &mut Section<'_>) -> Option<Credentials> {
    let username = section.text("username").map(|(text, _)| text.to_owned());
    let mut secret = |key| {
        let shown = section.shown(key);
        let node = section.node(key)?;
        secret::secret(section.checks(), &shown, node)
    };
    let (password, token) = (secret("password"), secret("token"));
    let wrong = |key: &str, label: &str| {
        section.checks().report(
            Problem::error("registry", "a host is given one kind of credentials")
                .at(section.place_of(key))
                .label(label)
                .hint("write `username` and `password`, or `token`"),
        );
    };
    match (section.has("username"), section.has("password")) {
        (true, false) => wrong("username", "`password` is missing"),
        (false, true) => wrong("password", "`username` is missing"),
        (true, true) if section.has("token") => wrong("token", "`username` is there, too"),
        _ => {}
    }
    match (username, password, token) {
        (Some(username), Some(password), None) => Some(Credentials::Basic { username, password }),
        (None, None, Some(token)) => Some(Credentials::Bearer(token)),
        _ => None,
    }
}
