//! What the rounds were, for people.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};
use millstream_test_support::workspace;

use super::super::outcome::{self, Outcome};
use super::fault::Fault;

/// One round.
#[derive(Clone, Copy, Debug)]
pub struct Round {
    pub fault: Fault,
    /// Lines that came in while it lasted.
    pub lines: usize,
    /// From the end of the fault until everything was settled.
    pub recovery: Duration,
}

/// The report in Markdown.
pub fn written(seed: u64, nodes: usize, rounds: &[Round], outcomes: &[Outcome]) -> String {
    let mut by_fault: BTreeMap<String, Vec<Round>> = BTreeMap::new();
    for round in rounds {
        by_fault
            .entry(round.fault.to_string())
            .or_default()
            .push(*round);
    }
    let lines: usize = rounds.iter().map(|round| round.lines).sum();
    let mut text = format!(
        "{} rounds on {nodes} nodes, seed {seed}, {lines} lines to each consumer.\n\n\
         | fault | rounds | lines | recovery, longest |\n| --- | --- | --- | --- |\n",
        rounds.len()
    );
    for (fault, rounds) in by_fault {
        let longest = rounds.iter().map(|round| round.recovery).max();
        // Writing to a string cannot fail.
        let _ = writeln!(
            text,
            "| {fault} | {} | {} | {:.1} s |",
            rounds.len(),
            rounds.iter().map(|round| round.lines).sum::<usize>(),
            longest.unwrap_or_default().as_secs_f64()
        );
    }
    text.push('\n');
    text += &outcome::table(outcomes);
    text
}

/// Writes a file into the build's folder for faults, and returns where it is.
pub fn keep(name: &str, text: &str) -> Result<PathBuf> {
    let folder = workspace::target_dir().join("faults");
    fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let path = folder.join(name);
    fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
    Ok(path)
}
