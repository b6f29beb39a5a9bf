//! Rules for dependencies that need no tool: they hold wherever the tests run. The lists are those of
//! `deny.toml`; what only `cargo deny` can do (advisories, texts of licences) is left to it.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use millstream_test_support::workspace;
use serde_json::Value;

/// Name, version and source of each package in `Cargo.lock`.
fn locked(lock: &str) -> Vec<(&str, &str, Option<&str>)> {
    lock.split("[[package]]").skip(1).map(package).collect()
}

fn package(text: &str) -> (&str, &str, Option<&str>) {
    let field = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name));
        line.and_then(|rest| rest.strip_prefix(" = \"")?.strip_suffix('"'))
    };
    (
        field("name").unwrap_or_default(),
        field("version").unwrap_or_default(),
        field("source"),
    )
}

fn read(file: &str) -> String {
    std::fs::read_to_string(workspace::root().join(file)).unwrap()
}

/// The entries of a list of `deny.toml`: a string each, or the `crate` of a table.
fn list(rules: &str, name: &str) -> Vec<String> {
    let begin = format!("\n{name} = [\n");
    let (_, rest) = rules.split_once(&begin).expect("the list is there");
    let (entries, _) = rest.split_once("\n]").expect("the list ends");
    let first = |line: &str| line.split('"').nth(1).map(str::to_owned);
    let entries: Vec<_> = entries.lines().filter_map(first).collect();
    assert!(!entries.is_empty(), "{name} is empty");
    entries
}

fn numbers(version: &str) -> Vec<u64> {
    let plain = version.split(['+', '-']).next().unwrap_or_default();
    plain.split('.').map(|n| n.parse().unwrap()).collect()
}

/// Banned crates, and versions of others that are too old: wasmtime below its fixed release.
#[test]
fn no_banned_crate_is_locked() {
    let (lock, rules) = (read("Cargo.lock"), read("deny.toml"));
    let locked = locked(&lock);
    for ban in list(&rules, "deny") {
        let (name, below) = match ban.split_once(":<") {
            Some((name, below)) => (name, Some(numbers(below))),
            None => (ban.as_str(), None),
        };
        let found = locked.iter().filter(|(locked, ..)| *locked == name);
        let versions: Vec<&str> = found.map(|(_, version, _)| *version).collect();
        match below {
            Some(below) => {
                assert!(!versions.is_empty(), "{name} is not locked at all");
                for version in versions {
                    assert!(
                        numbers(version) >= below,
                        "{name} {version}: {ban} is banned"
                    );
                }
            }
            None => assert!(versions.is_empty(), "{name} is banned"),
        }
    }
}

/// 36 advisories were fixed between 48.0.0 and 48.0.8: the rule itself must not be lowered.
#[test]
fn wasmtime_is_no_older_than_its_fixed_release() {
    let bans = list(&read("deny.toml"), "deny");
    for name in ["wasmtime", "wasmtime-wasi"] {
        let ban = bans
            .iter()
            .find_map(|ban| ban.strip_prefix(&format!("{name}:<")));
        let below = numbers(ban.expect("wasmtime is bounded"));
        assert!(below >= vec![48, 0, 8], "{name} may be {below:?}");
    }
}

/// A second version of a crate is twice the code to build and to trust: one that is not listed is a
/// decision, and one that is listed without need hides the next.
#[test]
fn duplicates_are_those_that_are_listed() {
    let (lock, rules) = (read("Cargo.lock"), read("deny.toml"));
    let mut versions: BTreeMap<&str, u32> = BTreeMap::new();
    for (name, ..) in locked(&lock) {
        *versions.entry(name).or_default() += 1;
    }
    let duplicates = versions.iter().filter(|(_, count)| **count > 1);
    let duplicates: BTreeSet<_> = duplicates.map(|(name, _)| (*name).to_owned()).collect();
    let listed: BTreeSet<_> = list(&rules, "skip").into_iter().collect();
    assert_eq!(duplicates, listed, "locked twice, and listed in deny.toml");
}

#[test]
fn every_dependency_comes_from_crates_io() {
    let lock = read("Cargo.lock");
    for (name, version, source) in locked(&lock) {
        if let Some(source) = source {
            assert_eq!(
                source, "registry+https://github.com/rust-lang/crates.io-index",
                "{name} {version} comes from elsewhere"
            );
        }
    }
}

/// Whether an expression of licences (SPDX, or the older `A/B`) can be kept with those allowed.
fn permits(expression: &str, allowed: &BTreeSet<String>) -> bool {
    let spaced = expression
        .replace('/', " OR ")
        .replace('(', " ( ")
        .replace(')', " ) ");
    let words: Vec<&str> = spaced.split_whitespace().collect();
    let mut rest = &words[..];
    let result = any_of(&mut rest, allowed);
    result && rest.is_empty()
}

fn any_of(words: &mut &[&str], allowed: &BTreeSet<String>) -> bool {
    let mut result = all_of(words, allowed);
    while let [first, rest @ ..] = *words
        && *first == "OR"
    {
        *words = rest;
        result |= all_of(words, allowed);
    }
    result
}

fn all_of(words: &mut &[&str], allowed: &BTreeSet<String>) -> bool {
    let mut result = one(words, allowed);
    while let [first, rest @ ..] = *words
        && *first == "AND"
    {
        *words = rest;
        result &= one(words, allowed);
    }
    result
}

fn one(words: &mut &[&str], allowed: &BTreeSet<String>) -> bool {
    match *words {
        ["(", rest @ ..] => {
            *words = rest;
            let result = any_of(words, allowed);
            if let [")", rest @ ..] = *words {
                *words = rest;
            }
            result
        }
        [licence, "WITH", exception, rest @ ..] => {
            *words = rest;
            allowed.contains(&format!("{licence} WITH {exception}"))
        }
        [licence, rest @ ..] => {
            *words = rest;
            allowed.contains(*licence)
        }
        [] => false,
    }
}

#[test]
fn expressions_of_licences_are_understood() {
    let allowed: BTreeSet<String> = ["MIT", "ISC", "Apache-2.0 WITH LLVM-exception"]
        .map(str::to_owned)
        .into();
    for good in [
        "MIT",
        "GPL-3.0 OR MIT",
        "GPL-3.0/MIT",
        "MIT AND ISC",
        "(GPL-3.0 OR MIT) AND ISC",
        "Apache-2.0 WITH LLVM-exception OR GPL-3.0",
    ] {
        assert!(permits(good, &allowed), "{good}");
    }
    for bad in [
        "",
        "GPL-3.0",
        "MIT AND GPL-3.0",
        "Apache-2.0",
        "(MIT OR ISC) AND GPL-3.0",
        "MIT ISC",
    ] {
        assert!(!permits(bad, &allowed), "{bad}");
    }
}

/// What is linked must be ours to give away.
#[test]
fn every_licence_is_on_the_list() {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    // For this system alone: crates of others need not be here.
    let output = Command::new(cargo)
        .args(["metadata", "--format-version", "1", "--offline", "--locked"])
        .args(["--filter-platform", "x86_64-unknown-linux-gnu"])
        .current_dir(workspace::root())
        .output()
        .unwrap();
    let words = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "cargo metadata: {words}");
    let metadata: Value = serde_json::from_slice(&output.stdout).unwrap();
    let allowed: BTreeSet<String> = list(&read("deny.toml"), "allow").into_iter().collect();
    let packages = metadata["packages"].as_array().unwrap();
    assert!(packages.len() > 200, "only {} packages", packages.len());
    let wrong = packages.iter().filter(|package| {
        let licence = package["license"].as_str().unwrap_or_default();
        !permits(licence, &allowed)
    });
    let wrong: Vec<_> = wrong
        .map(|package| format!("{} {}", package["name"], package["license"]))
        .collect();
    assert!(wrong.is_empty(), "not on the list of deny.toml: {wrong:#?}");
}
