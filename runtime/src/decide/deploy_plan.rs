//! What a new configuration changes: which consumers go on, swap, start anew, begin or end.
//!
//! ```text
//! running ─┐
//!          ├─▶ by name: alike ─ keep │ plugin, config, limits, retry, breaker, rate, filter, grants ─ swap
//! wanted ──┘            anything else ─ start anew │ only here ─ add │ only there ─ remove
//! ```
//! A swap moves no partition and no position. What changes order, guarantee or where events go drains
//! first, so that nothing of the old settings is under way when the new ones begin.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::config::Consumer;

/// A consumer and the digest of its plugin.
#[derive(Clone, Debug, PartialEq)]
pub struct Version {
    pub settings: Arc<Consumer>,
    pub digest: Arc<str>,
}

/// What becomes of a consumer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    Keep,
    /// While events flow; the keys that differ.
    Swap(Vec<&'static str>),
    /// Drained and started again; the keys that differ.
    StartAnew(Vec<&'static str>),
    Add,
    Remove,
}

impl Change {
    /// One word for logs, JSON and tables.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Keep => "keep",
            Self::Swap(_) => "swap",
            Self::StartAnew(_) => "start-anew",
            Self::Add => "add",
            Self::Remove => "remove",
        }
    }

    /// The keys that differ, where that is why.
    pub fn keys(&self) -> &[&'static str] {
        match self {
            Self::Swap(keys) | Self::StartAnew(keys) => keys,
            Self::Keep | Self::Add | Self::Remove => &[],
        }
    }
}

/// A consumer's part of a deploy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    pub consumer: Arc<str>,
    pub change: Change,
}

/// The steps from what runs to what is wanted: first what ends, so that its topics and its share of
/// memory are free; then in the order of the wanted.
pub fn plan(running: &[Version], wanted: &[Version]) -> Vec<Step> {
    let names: BTreeSet<&Arc<str>> = wanted.iter().map(|one| &one.settings.name).collect();
    let ends = running
        .iter()
        .filter(|one| !names.contains(&one.settings.name))
        .map(|one| step(one, Change::Remove));
    let goes_on = wanted.iter().map(|new| {
        let old = running
            .iter()
            .find(|old| old.settings.name == new.settings.name);
        step(new, old.map_or(Change::Add, |old| change(old, new)))
    });
    ends.chain(goes_on).collect()
}

fn step(of: &Version, change: Change) -> Step {
    Step {
        consumer: of.settings.name.clone(),
        change,
    }
}

fn change(old: &Version, new: &Version) -> Change {
    let mut keys = fixed(&old.settings, &new.settings);
    let anew = !keys.is_empty();
    if old.digest != new.digest {
        keys.push("plugin");
    }
    keys.extend(swappable(&old.settings, &new.settings));
    match (keys.is_empty(), anew) {
        (true, _) => Change::Keep,
        (false, false) => Change::Swap(keys),
        (false, true) => Change::StartAnew(keys),
    }
}

/// The keys that differ and can change while events flow.
fn swappable(old: &Consumer, new: &Consumer) -> Vec<&'static str> {
    let differs = [
        ("config", old.config != new.config),
        ("limits", old.limits != new.limits),
        ("retry", old.retry != new.retry),
        (
            "circuit_breaker",
            old.circuit_breaker != new.circuit_breaker,
        ),
        ("rate", old.rate != new.rate),
        ("filter", old.filter != new.filter),
        ("deploy", old.deploy != new.deploy),
        ("capabilities", old.capabilities != new.capabilities),
        ("secrets", old.secrets != new.secrets),
    ];
    named(&differs)
}

/// The keys that differ and cannot. Taken apart, so that a new key must be put here or there.
fn fixed(old: &Consumer, new: &Consumer) -> Vec<&'static str> {
    let Consumer {
        name: _,
        enabled: _,
        // By its digest; where the file lies is of no account.
        plugin: _,
        config: _,
        limits: _,
        retry: _,
        circuit_breaker: _,
        rate: _,
        deploy: _,
        filter: _,
        capabilities: _,
        secrets: _,
        previous_names,
        group,
        topics,
        start,
        delivery,
        ordering,
        concurrency,
        batch,
        in_flight,
        commit,
        dead_letter,
        outputs,
        on_lost_position,
    } = old;
    let differs = [
        // Their replay topics are read beside its own.
        ("previous_names", *previous_names != new.previous_names),
        ("group", *group != new.group),
        ("topics", *topics != new.topics),
        ("start", *start != new.start),
        ("delivery", *delivery != new.delivery),
        ("ordering", *ordering != new.ordering),
        ("concurrency", *concurrency != new.concurrency),
        ("batch", *batch != new.batch),
        ("in_flight", *in_flight != new.in_flight),
        ("commit", *commit != new.commit),
        ("dead_letter", *dead_letter != new.dead_letter),
        ("outputs", *outputs != new.outputs),
        (
            "on_lost_position",
            *on_lost_position != new.on_lost_position,
        ),
    ];
    named(&differs)
}

fn named(differs: &[(&'static str, bool)]) -> Vec<&'static str> {
    let of = |(key, differs): &(&'static str, bool)| differs.then_some(*key);
    differs.iter().filter_map(of).collect()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::{self, Problems};

    const BASE: &str = "[[consumer]]\nname = \"enrich\"\nplugin = \"plugin.wasm\"\n\
                        topics = [\"orders\"]\noutputs = { default = \"enriched\" }\n";

    fn consumers(text: &str) -> Result<Vec<Arc<Consumer>>, Problems> {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("millstream.toml");
        std::fs::write(&file, text).unwrap();
        let loaded = config::load_without_plugins(Path::new(&file), &|_| None)?;
        Ok(loaded.config.consumers)
    }

    fn versions(text: &str, digest: &str) -> Vec<Version> {
        let version = |settings: Arc<Consumer>| Version {
            settings,
            digest: digest.into(),
        };
        consumers(text).unwrap().into_iter().map(version).collect()
    }

    fn change_of(line: &str, digest: &str) -> Change {
        let steps = plan(
            &versions(BASE, "a"),
            &versions(&format!("{BASE}{line}\n"), digest),
        );
        assert_eq!(steps.len(), 1, "{steps:?}");
        steps[0].change.clone()
    }

    #[test]
    fn what_says_nothing_new_changes_nothing() {
        assert_eq!(change_of("", "a"), Change::Keep);
        assert_eq!(
            change_of("concurrency = 1", "a"),
            change_of("concurrency = 1", "a")
        );
        assert_eq!(change_of("delivery = \"at-least-once\"", "a"), Change::Keep);
    }

    #[test]
    fn what_keeps_order_and_guarantee_is_swapped() {
        assert_eq!(change_of("", "b"), Change::Swap(vec!["plugin"]));
        for (key, line) in [
            ("config", "config = { currency = \"EUR\" }"),
            ("limits", "limits = { deadline = \"2s\" }"),
            ("retry", "retry = { max_attempts = 2 }"),
            ("circuit_breaker", "circuit_breaker = false"),
            ("rate", "rate = \"10/s\""),
            ("deploy", "deploy = { probation = \"30s\" }"),
            ("filter", "filter = { key = [\"a*\"] }"),
            ("capabilities", "capabilities = { clock = true }"),
            (
                "secrets",
                "secrets = { key = { file = \"millstream.toml\" } }",
            ),
        ] {
            assert_eq!(change_of(line, "a"), Change::Swap(vec![key]));
            assert_eq!(change_of(line, "b"), Change::Swap(vec!["plugin", key]));
        }
    }

    #[test]
    fn what_changes_order_or_guarantee_starts_anew() {
        for (key, line) in [
            ("previous_names", "previous_names = [\"old\"]"),
            ("group", "group = \"other\""),
            ("start", "start = \"end\""),
            ("delivery", "delivery = \"at-most-once\""),
            ("ordering", "ordering = \"key\""),
            ("in_flight", "in_flight = { max_events = 500 }"),
            ("commit", "commit = { interval = \"1s\" }"),
            ("dead_letter", "dead_letter = { topic = \"dead\" }"),
            ("on_lost_position", "on_lost_position = \"end\""),
        ] {
            assert_eq!(change_of(line, "a"), Change::StartAnew(vec![key]));
            assert_eq!(change_of(line, "b"), Change::StartAnew(vec![key, "plugin"]));
        }
    }

    #[test]
    fn what_ends_comes_before_what_begins() {
        let other = BASE.replace("\"enrich\"", "\"other\"");
        let steps = plan(&versions(BASE, "a"), &versions(&other, "a"));
        let steps: Vec<_> = steps
            .iter()
            .map(|step| (&*step.consumer, step.change.name()))
            .collect();
        assert_eq!(steps, [("enrich", "remove"), ("other", "add")]);
    }
}
