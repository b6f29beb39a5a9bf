//! Runs the cases of a folder on a component.
//!
//! ```text
//! files ─▶ cases ─▶ plugin with the case's settings ─▶ answers in each way ─┬─ the ways differ
//!                                                                          ├─ not as expected
//!                                                                          └─ passed, or updated
//! ```

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use tokio::time::Instant;

use super::answer::{Answer, Order};
use super::case::{self, Case};
use super::event;
use super::settings;
use super::ways::{self, Way};
use crate::config::{self, Consumer};
use crate::plugin::{Host, Plugin, PluginHooks};

/// Instances that a suite has at once at most: it runs one after the other.
const INSTANCES: u32 = 4;
/// Linear memory of one of them, at most; a consumer's own limit is mostly lower.
const MEMORY: u64 = 1 << 30;

/// What is run, and on what.
#[derive(Clone, Debug)]
pub struct Suite {
    /// The folder of cases.
    pub folder: PathBuf,
    pub component: PathBuf,
    pub consumer: Arc<Consumer>,
    /// Cases whose name and file lack this text are left out.
    pub only: Option<String>,
    /// Whether what came out is written into the case files.
    pub update: bool,
}

/// What came of a suite.
#[derive(Clone, Debug)]
pub struct Report {
    pub digest: String,
    pub cases: Vec<CaseReport>,
    pub took: Duration,
}

/// What came of a case.
#[derive(Clone, Debug)]
pub struct CaseReport {
    /// The file, below the suite's folder.
    pub file: PathBuf,
    pub name: String,
    pub events: usize,
    pub outcome: Outcome,
}

/// See [`CaseReport`].
#[derive(Clone, Debug)]
pub enum Outcome {
    Passed,
    /// The file says now what came out.
    Updated,
    /// It could not be run, for this reason.
    Broken(String),
    Failed(Vec<Difference>),
}

/// An event whose answer is not as it should be. The texts are JSON.
#[derive(Clone, Debug)]
pub struct Difference {
    /// From 0 on.
    pub event: usize,
    /// `topic/partition@offset`.
    pub place: String,
    /// The way whose answer differs from the one that came one by one; `None` where that one is not
    /// what is expected.
    pub way: Option<Way>,
    /// `None` where nobody has said it yet.
    pub expected: Option<String>,
    pub actual: String,
    /// What the plugin says about it.
    pub reason: Option<String>,
}

impl Report {
    /// How many cases failed or could not be run.
    pub fn failed(&self) -> usize {
        let bad =
            |case: &&CaseReport| matches!(case.outcome, Outcome::Broken(_) | Outcome::Failed(_));
        self.cases.iter().filter(bad).count()
    }
}

/// A host for suites, which keeps what it compiled in `cache`.
///
/// # Errors
/// The machine lacks what the engine needs.
pub fn host(cache: &Path) -> anyhow::Result<Arc<Host>> {
    let runtime = config::Runtime {
        instance: None,
        shutdown_timeout: Duration::ZERO,
        max_instances: INSTANCES,
        max_plugin_memory: MEMORY,
        plugin_memory: u64::from(INSTANCES) * MEMORY,
        cache_dir: cache.to_owned(),
    };
    Host::new(&runtime, PluginHooks::default())
}

/// Runs all cases.
///
/// # Errors
/// The component is no plugin, or the folder cannot be read. A case that fails is no error here.
pub async fn run(suite: &Suite, host: &Arc<Host>) -> anyhow::Result<Report> {
    let begun = Instant::now();
    let folder = suite.folder.clone();
    let files = tokio::task::spawn_blocking(move || case::files(&folder)).await?;
    let files = files.or_else(|error| match error.kind() {
        std::io::ErrorKind::NotFound => Ok(Vec::new()),
        _ => Err(error),
    });
    let files = files.with_context(|| format!("cannot read {}", suite.folder.display()))?;
    let mut plugins = Plugins {
        suite,
        host,
        loaded: BTreeMap::new(),
    };
    // Also where there is no case: a component that is no plugin is to be told.
    let digest = plugins.of(&suite.consumer).await?.info().digest.to_string();
    let mut cases = Vec::new();
    for path in files {
        let file = path.strip_prefix(&suite.folder).unwrap_or(&path).to_owned();
        let stem = file.with_extension("").display().to_string();
        let read = {
            let path = path.clone();
            tokio::task::spawn_blocking(move || case::read(&path)).await?
        };
        let (text, case) = match read.and_then(|text| Ok((Case::parse(&text, &stem)?, text))) {
            Ok((case, text)) => (text, case),
            Err(reason) if suite.wants(&stem, &file) => {
                cases.push(CaseReport {
                    file,
                    name: stem,
                    events: 0,
                    outcome: Outcome::Broken(reason),
                });
                continue;
            }
            Err(_) => continue,
        };
        if !suite.wants(&case.name, &file) {
            continue;
        }
        let consumer = settings::of_case(&suite.consumer, &suite.component, &case);
        let plugin = plugins.of(&consumer).await?;
        cases.push(CaseReport {
            file,
            events: case.input.len(),
            outcome: run_case(suite, &*plugin, &consumer, &case, &path, &text).await?,
            name: case.name,
        });
    }
    Ok(Report {
        digest,
        cases,
        took: begun.elapsed(),
    })
}

impl Suite {
    fn wants(&self, name: &str, file: &Path) -> bool {
        let only = self.only.as_deref().unwrap_or_default();
        name.contains(only) || file.display().to_string().contains(only)
    }
}

/// The component, loaded once for each kind of settings.
struct Plugins<'a> {
    suite: &'a Suite,
    host: &'a Arc<Host>,
    loaded: BTreeMap<Init, Arc<dyn Plugin>>,
}

/// What `init` gets: the config, and names of outputs.
type Init = (Arc<str>, Vec<Arc<str>>);

impl Plugins<'_> {
    async fn of(&mut self, consumer: &Consumer) -> anyhow::Result<Arc<dyn Plugin>> {
        let outputs = consumer.outputs.iter().map(|output| output.name.clone());
        let key = (consumer.config.clone(), outputs.collect());
        if let Some(plugin) = self.loaded.get(&key) {
            return Ok(plugin.clone());
        }
        let mut consumer = consumer.clone();
        consumer.plugin.path.clone_from(&self.suite.component);
        consumer.plugin.sha256 = None;
        consumer.plugin.remote = None;
        let loaded = self.host.load(&consumer, 1).await.map_err(|error| {
            let remedy = error.remedy();
            anyhow::anyhow!("{error}\n  hint: {remedy}")
        })?;
        self.loaded.insert(key, loaded.clone());
        Ok(loaded)
    }
}

async fn run_case(
    suite: &Suite,
    plugin: &dyn Plugin,
    consumer: &Consumer,
    case: &Case,
    path: &Path,
    text: &str,
) -> anyhow::Result<Outcome> {
    let mut came = Vec::new();
    for way in Way::ALL {
        match ways::answers(plugin, consumer, &case.input, way).await {
            Ok(answers) => came.push((way, answers)),
            Err(error) => return Ok(Outcome::Broken(error.to_string())),
        }
    }
    let Some(((_, answers), others)) = came.split_first() else {
        return Ok(Outcome::Passed);
    };
    let differing: Vec<_> = others
        .iter()
        .flat_map(|(way, others)| between(case, answers, *way, others))
        .collect();
    if !differing.is_empty() {
        return Ok(Outcome::Failed(differing));
    }
    let unexpected = unexpected(case, answers);
    if unexpected.is_empty() {
        return Ok(Outcome::Passed);
    }
    if !suite.update {
        return Ok(Outcome::Failed(unexpected));
    }
    let wanted: Vec<_> = (0..answers.len())
        .map(|index| update(case, &answers[index], index))
        .collect();
    let updated = Case::with_expected(text, &wanted).map_err(anyhow::Error::msg)?;
    let file = path.to_owned();
    let written = tokio::task::spawn_blocking(move || fs::write(file, updated)).await?;
    written.with_context(|| format!("cannot write {}", path.display()))?;
    Ok(Outcome::Updated)
}

/// What a case is to expect of an event from now on: what is as expected stays in its author's words.
fn update(case: &Case, answer: &Answer, index: usize) -> String {
    let expected = case.expected[index].as_ref();
    if expected.is_some_and(|expected| answer.meets(expected)) {
        return case.written[index].clone();
    }
    let answer = answer.clone().with_reason_like(expected);
    answer.text(&case.input[index], Order::Written)
}

/// Where a way's answers are other ones than those that came one by one.
fn between(case: &Case, answers: &[Answer], way: Way, others: &[Answer]) -> Vec<Difference> {
    let events = case.input.iter().zip(answers.iter().zip(others));
    let differing = events
        .enumerate()
        .filter_map(|(event, (source, (one, other)))| {
            let bare = |answer: &Answer| answer.clone().with_reason_like(None);
            (bare(one) != bare(other)).then(|| Difference {
                event,
                place: event::place(source),
                way: Some(way),
                expected: Some(bare(one).text(source, Order::Written)),
                actual: bare(other).text(source, Order::Written),
                reason: other.reason().map(str::to_owned),
            })
        });
    differing.collect()
}

/// Where the answers are not what the case expects.
fn unexpected(case: &Case, answers: &[Answer]) -> Vec<Difference> {
    let events = case.input.iter().zip(answers.iter().zip(&case.expected));
    let differing = events
        .enumerate()
        .filter_map(|(event, (source, (answer, expected)))| {
            if expected
                .as_ref()
                .is_some_and(|expected| answer.meets(expected))
            {
                return None;
            }
            let actual = answer.clone().with_reason_like(expected.as_ref());
            Some(Difference {
                event,
                place: event::place(source),
                way: None,
                expected: expected.as_ref().map(|one| one.text(source, Order::Sorted)),
                actual: actual.text(source, Order::Sorted),
                reason: answer.reason().map(str::to_owned),
            })
        });
    differing.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const CASE: &str = r#"{"input":[{"value":"a"},{"value":"b"}],
        "expected":["dropped",{"failed":"reject","code":"c"}]}"#;

    fn answers(second: &str) -> (Case, Vec<Answer>) {
        let text = CASE.replace(r#"{"failed":"reject","code":"c"}"#, second);
        let other = Case::parse(&text, "c").expect("a case");
        let answers = other.expected.into_iter().flatten().collect();
        (Case::parse(CASE, "c").expect("a case"), answers)
    }

    #[test]
    fn only_what_differs_is_told() {
        let (case, same) = answers(r#"{"failed":"reject","code":"c","reason":"because"}"#);
        assert!(unexpected(&case, &same).is_empty());
        let (case, other) = answers(r#"{"failed":"trap","reason":"boom"}"#);
        let found = unexpected(&case, &other);
        assert_eq!((found.len(), found[0].event), (1, 1));
        assert_eq!(found[0].place, "input/0@1");
        assert_eq!(found[0].actual, r#"{"failed":"trap"}"#);
        assert_eq!(found[0].reason.as_deref(), Some("boom"));
        let ways = between(&case, &same, Way::Batch, &other);
        assert_eq!((ways.len(), ways[0].way), (1, Some(Way::Batch)));
    }

    #[test]
    fn an_update_keeps_the_words_of_what_is_as_expected() {
        let (case, other) = answers(r#"{"failed":"trap","reason":"boom"}"#);
        assert_eq!(update(&case, &other[0], 0), "\"dropped\"");
        assert_eq!(update(&case, &other[1], 1), r#"{"failed":"trap"}"#);
        let text = r#"{"input":[{"value":"a"}],
            "expected":[{"outputs":[{"output":"x","value":"{ \"a\": 1 }"}]}]}"#;
        let case = Case::parse(text, "c").expect("a case");
        let answer = case.expected[0].clone().expect("an answer");
        assert!(update(&case, &answer, 0).contains(r#""value":"{ \"a\": 1 }""#));
    }

    /// The text of a trap may hold an address.
    #[test]
    fn ways_that_differ_in_a_reason_alone_agree() {
        let (case, one) = answers(r#"{"failed":"trap","reason":"at 0x1"}"#);
        let (_, other) = answers(r#"{"failed":"trap","reason":"at 0x2"}"#);
        assert!(between(&case, &one, Way::Fresh, &other).is_empty());
    }
}
