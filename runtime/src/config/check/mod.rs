//! From the written tree to values that the rest of the runtime can trust.
//!
//! ```text
//! Written ─▶ runtime, broker, topics, admin ─┐
//!        └─▶ each [[consumer]] ─▶ drafts ────┴▶ crossing (names, groups, topics, cycles) ─▶ Config
//! ```
//! A check that fails reports and goes on with a default, so that one run finds everything.

mod admin;
mod admin_tls;
mod breaker;
mod broker;
mod budget;
mod capabilities;
mod config;
mod consumer;
mod crossing;
mod deploy;
mod filter;
mod later;
mod limits;
mod names;
mod outputs;
mod plugin;
mod registries;
mod retry;
mod runtime;
mod secret;
mod start;
mod topics;

use std::path::Path;
use std::sync::Arc;

use super::checks::Checks;
use super::include::Written;
use super::problem::{Place, Problem};
use super::resolved::{Broker, Config, Consumer, Runtime};
use super::section::Section;
use super::written::{Table, Value};
use registries::Registries;

/// What the checks made of the files; to be used only if they reported no error.
pub struct Checked {
    pub config: Config,
    /// Where each consumer of the configuration names its plugin.
    pub plugins: Vec<Place>,
}

/// Checks everything.
pub fn check(file: &Path, written: &Written, checks: &Checks<'_>) -> Checked {
    let start = Place {
        file: 0,
        span: 0..0,
    };
    let mut root = Section::new(checks, &written.main, &start, String::new(), String::new());
    // Read before: the files that it names are part of `written`.
    root.node("include");
    let runtime = runtime::runtime(root.section("runtime"));
    let broker = broker::broker(root.section("broker"));
    let embedded = matches!(broker, Broker::Embedded(_));
    let topics = topics::topics(&mut root, embedded);
    let admin = admin::admin(root.section("admin"), root.section("metrics"));
    let registries = registries::registries(&mut root);
    root.reserve(&[
        ("brokers", "second broker"),
        ("state", "state for plugins"),
        ("schema", "schemas"),
    ]);
    let mut drafts = Vec::new();
    let included = written.included.iter();
    let included = included.map(|included| (&included.consumer, &included.place));
    for (table, place) in consumers(&mut root).into_iter().chain(included) {
        drafts.push(consumer::consumer(
            checks,
            table,
            place,
            &runtime,
            &registries,
        ));
    }
    if drafts.is_empty() && !written.partial && !root.has("consumer") {
        checks.report(
            Problem::warning("no-consumer", "the configuration has no consumer")
                .at(&start)
                .label("`[[consumer]]` is missing"),
        );
    }
    root.finish();
    crossing::crossing(checks, &drafts, &runtime, &topics);
    let plugins = drafts.iter().map(|draft| draft.plugin.clone()).collect();
    let consumers = drafts
        .into_iter()
        .map(|draft| Arc::new(draft.consumer))
        .collect();
    let config = Config {
        file: file.to_path_buf(),
        fingerprint: checks.sources.fingerprint(),
        runtime,
        broker,
        topics,
        admin,
        registries: Arc::new(registries),
        consumers,
    };
    Checked { config, plugins }
}

/// Checks a consumer by itself, in a text that holds nothing else.
pub fn alone(checks: &Checks<'_>, table: &Table, place: &Place, runtime: &Runtime) -> Consumer {
    consumer::consumer(checks, table, place, runtime, &Registries::default()).consumer
}

/// The tables of `[[consumer]]` in the main file.
fn consumers<'a>(root: &mut Section<'a>) -> Vec<(&'a Table, &'a Place)> {
    let Some(entry) = root.entry("consumer") else {
        return Vec::new();
    };
    let Value::List(nodes) = &entry.node.value else {
        root.checks().report(
            Problem::error("type", "consumers are written as `[[consumer]]`")
                .at(&entry.key_place)
                .label(format!("this is {}", entry.node.value.kind()))
                .hint("double the brackets: there can be several"),
        );
        return Vec::new();
    };
    let mut tables = Vec::new();
    for node in nodes {
        match &node.value {
            Value::Table(table) => tables.push((table, &node.place)),
            _ => root.wrong_type("consumer", node, "a list of tables"),
        }
    }
    tables
}
