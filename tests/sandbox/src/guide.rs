//! The guide of this folder and the tests say the same.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use crate::cases::DEEDS;

/// A row of the tables: case, how it ends, test.
struct Row {
    case: String,
    ends: String,
    test: String,
}

fn here() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn rows() -> Vec<Row> {
    let guide = std::fs::read_to_string(here().join("README.md")).unwrap();
    let mut rows = Vec::new();
    for line in guide.lines().filter(|line| line.starts_with("| ")) {
        let cells: Vec<&str> = line.trim_matches('|').split(" | ").map(str::trim).collect();
        if let [case, _, ends, test] = cells[..]
            && test.starts_with('`')
        {
            rows.push(Row {
                case: case.trim_matches('`').to_owned(),
                ends: ends.to_owned(),
                test: test.trim_matches('`').to_owned(),
            });
        }
    }
    rows
}

/// `file::function` of each test below `tests`.
fn tests() -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for entry in std::fs::read_dir(here().join("tests")).unwrap() {
        let path = entry.unwrap().path();
        let file = path.file_stem().unwrap().to_string_lossy().into_owned();
        let text = std::fs::read_to_string(&path).unwrap();
        for piece in text
            .split("#[tokio::test")
            .skip(1)
            .chain(text.split("#[test]").skip(1))
        {
            let name = piece
                .split_once("fn ")
                .and_then(|(_, rest)| rest.split_once('('));
            found.insert(format!("{file}::{}", name.unwrap().0));
        }
    }
    found
}

/// Tests that show what works, which is no case.
const HONEST: [&str; 9] = [
    "answers::answers_that_break_a_rule_fail_whole",
    "calls::events_pass_through",
    "calls::remedies_arrive",
    "calls::neighbours_are_untouched",
    "calls::growth_is_seen",
    "handmade::a_handmade_plugin_works",
    "load::inspection_names_what_a_component_needs",
    "load::a_cache_that_cannot_be_written_is_done_without",
    "surroundings::properties_tell_who_runs",
];

/// Deeds that have a test of their own besides the one that runs all of them.
const AGAIN: [&str; 4] = [
    "calls::a_trap_says_what_the_plugin_said_last",
    "calls::spinning_and_sleeping_end_at_the_deadline",
    "calls::a_hungry_plugin_fails_by_its_memory",
    "surroundings::the_sandbox_is_empty",
];

#[test]
fn each_case_names_its_test_and_each_test_has_a_case() {
    let tests = tests();
    let rows = rows();
    assert!(rows.len() >= 50, "only {} cases", rows.len());
    let named: BTreeSet<String> = rows.iter().map(|row| row.test.clone()).collect();
    for row in &rows {
        assert!(
            tests.contains(&row.test),
            "{}: there is no {}",
            row.case,
            row.test
        );
        let known = [
            "trap", "deadline", "memory", "invalid", "taken", "load", "start",
        ];
        assert!(
            row.ends.split(", ").all(|ends| known.contains(&ends)),
            "{}",
            row.case
        );
    }
    for test in tests {
        // What is granted is no attack; its own table says what it asks.
        let granted = test.starts_with("capabilities::");
        let listed = granted || HONEST.contains(&&*test) || AGAIN.contains(&&*test);
        assert!(
            listed || named.contains(&test),
            "the guide has no case for {test}"
        );
    }
}

#[test]
fn the_deeds_are_those_of_the_guide() {
    let of_guide: BTreeMap<String, String> = rows()
        .into_iter()
        .filter(|row| row.test.starts_with("deeds::"))
        .map(|row| (row.case, row.ends))
        .collect();
    let run: BTreeMap<String, String> = DEEDS
        .iter()
        .map(|case| (case.command.to_owned(), case.ends.name().to_owned()))
        .collect();
    assert_eq!(of_guide, run);
    assert_eq!(DEEDS.len(), run.len(), "a deed is listed twice");
}
