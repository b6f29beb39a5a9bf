//! A configuration is refused with problems that can be shown, or it keeps the rules and means the
//! same when it is written out and read again.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use millstream::config::{self, Config, TopicPattern, show};
use millstream_fuzz_tests::{fuzz, mutated_text};
use proptest::prelude::*;

const WORDS: &[&[u8]] = &[
    b"[[consumer]]\n",
    b"name = \"a\"\n",
    b"0",
    b"-1",
    b"99999999999999999999",
    b"\"${env:SET}\"",
    b"\"${env:\"",
    b"\"10ms\"",
    b"\"1GiB\"",
    b"\"0\"",
    b"\"^.*\"",
    b"true",
    b"[]",
    b"{}",
    b"nan",
    b"inf",
    b"\"\"",
    b"\"\\u0000\"",
    b"concurrency = 3\n",
    b"limits = { memory = \"1\" }\n",
    b"ordering = \"key\"\n",
    b"delivery = \"exactly-once\"\n",
    b"1979-05-27",
];

fn texts(folder: &str, found: &mut Vec<String>) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
    let mut paths: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|e| e.unwrap().path())
        .collect();
    paths.sort();
    let files = paths
        .iter()
        .filter(|path| path.extension().is_some_and(|e| e == "toml"));
    found.extend(files.filter_map(|path| fs::read_to_string(path).ok()));
}

fn environment(name: &str) -> Option<String> {
    (name == "SET").then(|| "5".to_owned())
}

fn is_topic(name: &str) -> bool {
    let known = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    (1..=249).contains(&name.len()) && name.chars().all(known)
}

/// Rules that the rest of the runtime relies on.
fn sound(config: &Config) -> Result<(), TestCaseError> {
    let mut names = BTreeSet::new();
    let mut groups = BTreeSet::new();
    for consumer in &config.consumers {
        prop_assert!(!consumer.name.is_empty() && names.insert(consumer.name.clone()));
        prop_assert!(groups.insert(consumer.group.clone()), "a group twice");
        prop_assert!(consumer.concurrency >= 1 && !consumer.topics.is_empty());
        prop_assert!(consumer.batch.max_events >= 1 && consumer.batch.max_bytes >= 1);
        prop_assert!(consumer.in_flight.max_events >= consumer.batch.max_events);
        let limits = &consumer.limits;
        prop_assert!(limits.memory >= 1 && !limits.deadline.is_zero() && !limits.init.is_zero());
        prop_assert!(limits.call >= limits.deadline);
        let retry = &consumer.retry;
        prop_assert!(retry.max_attempts >= 1 && retry.factor.is_finite() && retry.factor >= 1.0);
        prop_assert!(retry.initial <= retry.max);
        for condition in &consumer.filter.conditions {
            prop_assert!(!condition.values.is_empty());
        }
        let ratio = consumer
            .dead_letter
            .as_ref()
            .and_then(|letters| letters.max_ratio);
        prop_assert!(ratio.is_none_or(|ratio| ratio > 0.0 && ratio <= 1.0));
        let written = consumer
            .outputs
            .iter()
            .filter_map(|output| output.topic.as_ref());
        let letters = consumer.dead_letter.as_ref().map(|letters| &letters.topic);
        for topic in written.chain(letters) {
            prop_assert!(is_topic(topic), "{topic:?}");
            let named = |pattern: &TopicPattern| matches!(pattern, TopicPattern::Name(name) if name == topic);
            prop_assert!(
                !consumer.topics.iter().any(named),
                "it reads what it writes: {topic}"
            );
        }
        let settings: serde_json::Value = serde_json::from_str(&consumer.config).unwrap();
        prop_assert!(settings.is_object());
    }
    Ok(())
}

#[test]
fn configurations_are_refused_readably_or_mean_what_they_say() {
    let mut corpus = Vec::new();
    texts("../../config", &mut corpus);
    texts("../config/bad", &mut corpus);
    corpus.push("[[consumer]]\nname = \"a\"\nplugin = \"p.wasm\"\ntopics = [\"t\"]\n".into());
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("millstream.toml");
    let again = folder.path().join("again.toml");
    let inputs = mutated_text(corpus, WORDS);
    fuzz("configuration", 300, &inputs, |text| {
        fs::write(&file, &text).unwrap();
        let config = match config::load_without_plugins(&file, &environment) {
            Ok(loaded) => loaded.config,
            Err(problems) => {
                prop_assert!(problems.errors() > 0);
                prop_assert!(!problems.render(false).is_empty());
                prop_assert!(problems.to_json().is_array());
                return Ok(());
            }
        };
        sound(&config)?;
        let shown = show::resolved_toml(&config).expect("it can be written");
        if shown.contains("***") {
            // Secrets are blanked, and what is blank is no secret.
            return Ok(());
        }
        fs::write(&again, &shown).unwrap();
        match config::load_without_plugins(&again, &environment) {
            Ok(loaded) => {
                prop_assert_eq!(show::resolved(&loaded.config), show::resolved(&config));
            }
            Err(problems) => {
                let text = format!(
                    "{shown}
{}",
                    problems.render(false)
                );
                return Err(TestCaseError::fail(text));
            }
        }
        Ok(())
    });
}
