//! `counts.toml`: what an event cost when it was last recorded, and how far a count may be from it.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use millstream_test_support::workspace;

/// What records anew.
pub const COMMAND: &str = "COST_RECORD=1 make counts";

/// Of the file; the rest is written below it.
const HEAD: &str = "\
# Instructions of x86-64 an event, by part: see README.md. Written by
# COST_RECORD=1 make counts
";

/// See the module.
#[derive(Clone, Debug, PartialEq)]
pub struct Recorded {
    /// In percent, either way.
    tolerance: u64,
    counts: BTreeMap<String, u64>,
}

impl Recorded {
    /// What the file says.
    pub fn read() -> Result<Self> {
        let file = file();
        let text = std::fs::read_to_string(&file);
        let text = text.with_context(|| format!("cannot read {}", file.display()))?;
        Self::parse(&text).with_context(|| file.display().to_string())
    }

    fn parse(text: &str) -> Result<Self> {
        let table: toml::Table = text.parse()?;
        let number = |value: &toml::Value| value.as_integer().and_then(|n| u64::try_from(n).ok());
        let tolerance = table.get("tolerance").and_then(number);
        let tolerance = tolerance.context("`tolerance` is no percentage")?;
        let counts = table.get("counts").and_then(toml::Value::as_table);
        let counts = counts.context("there is no table `counts`")?;
        let counts = counts.iter().map(|(part, value)| {
            let count = number(value).filter(|count| *count > 0);
            let count = count.with_context(|| format!("`{part}` is no count"))?;
            Ok((part.clone(), count))
        });
        let counts: Result<_> = counts.collect();
        ensure!(tolerance < 100, "`tolerance` lets everything pass");
        Ok(Self {
            tolerance,
            counts: counts?,
        })
    }

    /// These counts, with the tolerance as it is.
    pub fn with(self, counts: BTreeMap<String, u64>) -> Self {
        Self { counts, ..self }
    }

    /// Puts it into the file.
    pub fn write(&self) -> Result<()> {
        let file = file();
        let written = std::fs::write(&file, self.render());
        written.with_context(|| format!("cannot write {}", file.display()))
    }

    fn render(&self) -> String {
        let mut text = format!("{HEAD}tolerance = {}\n\n[counts]\n", self.tolerance);
        for (part, count) in &self.counts {
            // Writing to a string cannot fail.
            let _ = writeln!(text, "{part} = {count}");
        }
        text
    }

    /// What is wrong with what was found, a sentence or two for each part.
    pub fn compare(&self, found: &BTreeMap<String, u64>) -> Vec<String> {
        let parts = self.counts.keys().chain(found.keys());
        let parts: std::collections::BTreeSet<_> = parts.collect();
        let wrong = |part: &String| match (self.counts.get(part), found.get(part)) {
            (Some(recorded), Some(found)) => self.differs(part, *recorded, *found),
            (None, Some(found)) => Some(format!(
                "{part}: {found} instructions an event, and nothing is recorded. Record it: {COMMAND}"
            )),
            (Some(_), None) => Some(format!(
                "{part}: recorded, and no part any more. Record anew: {COMMAND}"
            )),
            (None, None) => None,
        };
        parts.into_iter().filter_map(wrong).collect()
    }

    fn differs(&self, part: &str, recorded: u64, found: u64) -> Option<String> {
        // In whole numbers: what is exactly at the bound passes.
        if found.abs_diff(recorded) * 100 <= recorded * self.tolerance {
            return None;
        }
        let percent = (found as f64 / recorded as f64 - 1.0) * 100.0;
        let what = format!(
            "{part}: {found} instructions an event where {recorded} are expected ({percent:+.1} %, \
             allowed are {} %).",
            self.tolerance
        );
        Some(match found > recorded {
            true => format!(
                "{what} Where they are: callgrind_annotate --auto=no {}. If they are worth it, say so in the \
                 commit and record them: {COMMAND}",
                super::callgrind::dump(part).display()
            ),
            false => format!(
                "{what} It became cheaper: record it, or the next regression has that much room: \
                 {COMMAND}"
            ),
        })
    }
}

fn file() -> PathBuf {
    workspace::root().join("tests/cost/counts.toml")
}

fn recorded() -> Result<Recorded> {
    Recorded::parse("tolerance = 5\n[counts]\npath = 1000\nwall = 200\n")
}

fn found(counts: &[(&str, u64)]) -> BTreeMap<String, u64> {
    let counts = counts.iter().map(|(part, count)| ((*part).into(), *count));
    counts.collect()
}

#[test]
fn counts_within_the_tolerance_pass() -> Result<()> {
    for path in [950, 1000, 1050] {
        let wrong = recorded()?.compare(&found(&[("path", path), ("wall", 200)]));
        assert!(wrong.is_empty(), "{wrong:?}");
    }
    Ok(())
}

/// Each says which part, what was expected, by how much it is off and what to do.
#[test]
fn other_counts_are_told() -> Result<()> {
    let dearer = recorded()?.compare(&found(&[("path", 1100), ("wall", 200)]));
    let [dearer] = &dearer[..] else {
        panic!("{dearer:?}");
    };
    for part in [
        "path: 1100",
        "where 1000",
        "+10.0 %",
        "callgrind_annotate",
        COMMAND,
    ] {
        assert!(dearer.contains(part), "{part} is not in {dearer}");
    }
    let cheaper = recorded()?.compare(&found(&[("path", 1000), ("wall", 150)]));
    let [cheaper] = &cheaper[..] else {
        panic!("{cheaper:?}");
    };
    assert!(cheaper.contains("wall: 150") && cheaper.contains("-25.0 %"));
    assert!(cheaper.contains(COMMAND), "{cheaper}");
    let others = recorded()?.compare(&found(&[("path", 1000), ("read", 1)]));
    assert_eq!(others.len(), 2, "{others:?}");
    Ok(())
}

#[test]
fn what_is_written_is_read_again() -> Result<()> {
    let recorded = recorded()?;
    assert_eq!(Recorded::parse(&recorded.render())?, recorded);
    for bad in [
        "",
        "tolerance = 5",
        "tolerance = 5\n[counts]\npath = 0",
        "tolerance = 100\n[counts]",
    ] {
        assert!(Recorded::parse(bad).is_err(), "{bad}");
    }
    Ok(())
}
