//! `[[consumer]]`.

use std::collections::BTreeSet;
use std::sync::Arc;

use regex::Regex;

use super::super::checks::Checks;
use super::super::problem::{Place, Problem};
use super::super::resolved::{Consumer, Delivery, OnLostPosition, Ordering, Runtime, TopicPattern};
use super::super::section::Section;
use super::super::written::{Table, Value};
use super::registries::Registries;
use super::{
    breaker, budget, capabilities, config, deploy, filter, later, limits, names, outputs, plugin,
    retry, start,
};

/// A consumer and where it says what; to be checked against the others.
pub struct Draft {
    pub consumer: Consumer,
    pub name: Place,
    /// Beside the previous names.
    pub previous_names: Vec<Place>,
    pub group: Place,
    pub plugin: Place,
    /// `None` where it is not written.
    pub concurrency: Option<Place>,
    /// Beside the outputs.
    pub outputs: Vec<Place>,
    pub dead_letter: Place,
}

/// Checks one consumer by itself.
pub fn consumer(
    checks: &Checks<'_>,
    table: &Table,
    place: &Place,
    runtime: &Runtime,
    registries: &Registries,
) -> Draft {
    let mut section = Section::new(checks, table, place, String::new(), "consumer".to_owned());
    let name = name(&mut section);
    let (previous_names, previous_places) = previous_names(&mut section);
    let group = group(&mut section, &name);
    let enabled = section.boolean("enabled").unwrap_or(true);
    let (plugin, plugin_place) = plugin::plugin(&mut section, enabled, runtime, registries);
    let topics = topics(&mut section);
    let start = start::start(&mut section);
    let delivery = delivery(&mut section);
    let ordering = section
        .choice(
            "ordering",
            &[
                ("partition", Ordering::Partition),
                ("key", Ordering::Key),
                ("none", Ordering::None),
            ],
        )
        .unwrap_or(Ordering::Partition);
    let cores = std::thread::available_parallelism().map_or(1, |cores| cores.get() as u64);
    let most = u64::from(runtime.max_instances);
    let concurrency = section
        .integer("concurrency", 1..=most)
        .unwrap_or_else(|| cores.min(most)) as u32;
    let filter = filter::filter(&mut section);
    let budget = budget::budget(&mut section, delivery);
    let limits = limits::limits(section.section("limits"), runtime, &budget.batch);
    let retry = retry::retry(section.section("retry"));
    let circuit_breaker = breaker::circuit_breaker(&mut section);
    let rate = breaker::rate(&mut section);
    let deploy = deploy::deploy(&mut section);
    let (dead_letter, dead_letter_place) = outputs::dead_letter(&mut section);
    let config = config::config(&mut section);
    let (outputs, output_places) = outputs::outputs(&mut section);
    let on_lost_position = section
        .choice(
            "on_lost_position",
            &[
                ("stop", OnLostPosition::Stop),
                ("beginning", OnLostPosition::Beginning),
                ("end", OnLostPosition::End),
            ],
        )
        .unwrap_or_default();
    let (capabilities, secrets) = capabilities::capabilities(&mut section, enabled);
    later::later(&mut section);
    let draft = Draft {
        name: section.place_of("name").clone(),
        previous_names: previous_places,
        group: section.place_of("group").clone(),
        concurrency: section
            .has("concurrency")
            .then(|| section.place_of("concurrency").clone()),
        plugin: plugin_place,
        outputs: output_places,
        dead_letter: dead_letter_place,
        consumer: Consumer {
            name,
            previous_names,
            group,
            enabled,
            plugin,
            topics,
            start,
            delivery,
            ordering,
            concurrency,
            filter,
            batch: budget.batch,
            in_flight: budget.in_flight,
            commit: budget.commit,
            limits,
            retry,
            circuit_breaker,
            rate,
            deploy,
            dead_letter,
            config,
            outputs,
            on_lost_position,
            capabilities,
            secrets,
        },
    };
    section.finish();
    draft
}

/// Empty where it is missing or wrong.
fn name(section: &mut Section<'_>) -> Arc<str> {
    if !section.has("name") {
        section.missing(
            "name",
            "this consumer has no name",
            "add `name = \"…\"`; group, metrics and commands go by it",
        );
    }
    section
        .text("name")
        .filter(|(name, node)| names::label(section.checks(), "`name`", name, &node.place))
        .map_or_else(|| "".into(), |(name, _)| name.into())
}

/// With their places.
fn previous_names(section: &mut Section<'_>) -> (Vec<Arc<str>>, Vec<Place>) {
    let checks = section.checks();
    let written = section.texts("previous_names", "a list of names");
    let valid = written
        .unwrap_or_default()
        .into_iter()
        .filter(|(name, node)| {
            names::label(checks, "an entry of `previous_names`", name, &node.place)
        });
    valid
        .map(|(name, node)| (name.into(), node.place.clone()))
        .unzip()
}

fn group(section: &mut Section<'_>, name: &str) -> Arc<str> {
    section
        .text("group")
        .filter(|(group, node)| names::group(section.checks(), group, &node.place))
        .map_or_else(|| Consumer::default_group(name), |(group, _)| group.into())
}

fn topics(section: &mut Section<'_>) -> Vec<TopicPattern> {
    let checks = section.checks();
    if !section.has("topics") {
        section.missing(
            "topics",
            "this consumer reads nothing",
            "add `topics = [\"…\"]`",
        );
    }
    let mut topics = Vec::new();
    let mut texts = BTreeSet::new();
    let entries = section.texts("topics", "a list of topics");
    if entries.as_ref().is_some_and(Vec::is_empty) && is_empty_list(section) {
        checks.report(
            Problem::error("topics", "`topics` names no topic")
                .at(section.place_of("topics"))
                .label("empty")
                .hint("to stop a consumer for a while set `enabled = false`"),
        );
    }
    for (text, node) in entries.unwrap_or_default() {
        if !texts.insert(text) {
            checks.report(
                Problem::error("topics", "a topic is named twice")
                    .at(&node.place)
                    .label("stands in the list already"),
            );
            continue;
        }
        let topic = if text.starts_with('^') {
            pattern(checks, text, &node.place)
        } else if names::topic(checks, "an entry of `topics`", text, &node.place) {
            Some(TopicPattern::Name(text.into()))
        } else {
            None
        };
        topics.extend(topic);
    }
    topics
}

fn is_empty_list(section: &Section<'_>) -> bool {
    section
        .get("topics")
        .is_some_and(|entry| matches!(&entry.node.value, Value::List(list) if list.is_empty()))
}

fn pattern(checks: &Checks<'_>, text: &str, place: &Place) -> Option<TopicPattern> {
    match Regex::new(text) {
        Ok(pattern) => Some(TopicPattern::Pattern(pattern)),
        Err(error) => {
            // The last line says what is wrong; those before draw the pattern once more.
            let cause = error.to_string();
            let cause = cause.lines().last().unwrap_or_default();
            checks.report(
                Problem::error("pattern", "a pattern of `topics` is not a regular expression")
                    .at(place)
                    .label("cannot be read")
                    .cause(cause.trim_start_matches("error: "))
                    .hint("an entry that begins with `^` is a regular expression; in TOML single quotes keep its backslashes"),
            );
            None
        }
    }
}

fn delivery(section: &mut Section<'_>) -> Delivery {
    let choices = [
        ("at-most-once", Delivery::AtMostOnce),
        ("at-least-once", Delivery::AtLeastOnce),
        ("exactly-once", Delivery::ExactlyOnce),
    ];
    section
        .choice("delivery", &choices)
        .unwrap_or(Delivery::AtLeastOnce)
}
