//! What the minutes were, for people, and what is wrong with them.

use std::fmt::Write as _;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};
use millstream_test_support::workspace;

use super::super::outcome;
use super::course::Course;
use super::feeder::A_SECOND;
use super::gauge::Sample;
use super::judge::{self, Change, Tolerance, median};

const MEBIBYTE: f64 = (1 << 20) as f64;

/// What must stay flat: its name, how it is read, and by how much a median may be above the other.
///
/// - Memory: an allocator keeps what it once needed, and the embedded store fills and empties its
///   memtables, so that medians of a sound run differ by a few percent. A leak of 100 bytes an event
///   passes this within half an hour at the rate of the feeder, as it works on each line three times.
/// - Handles: the scrape's own connection, and files that the store opens and closes as it compacts.
/// - Threads: those of tokio for blocking work come with it and go after ten idle seconds.
/// - Tasks: those of the connections that are being served, and of calls under way.
type Flat = (&'static str, fn(&Sample) -> f64, Tolerance);
const FLAT: [Flat; 4] = [
    (
        "memory resident, MiB",
        |sample| sample.vitals.resident as f64 / MEBIBYTE,
        Tolerance {
            share: 0.05,
            least: 8.0,
        },
    ),
    (
        "open handles",
        |sample| sample.vitals.handles as f64,
        Tolerance {
            share: 0.05,
            least: 4.0,
        },
    ),
    (
        "threads",
        |sample| sample.vitals.threads as f64,
        Tolerance {
            share: 0.0,
            least: 2.0,
        },
    ),
    (
        "tasks of the executors",
        |sample| sample.tasks,
        Tolerance {
            share: 0.0,
            least: 4.0,
        },
    ),
];

impl Course {
    /// What is wrong with it.
    pub fn faults(&self) -> Vec<String> {
        let mut faults: Vec<String> = self.failed.iter().cloned().collect();
        for (what, change) in self.changes() {
            match change {
                Some(change) if change.is_flat() => {}
                Some(change) => faults.push(format!(
                    "{what} grow: {:.1}, then {:.1}",
                    change.before, change.after
                )),
                None => faults.push(format!("{what}: too few looks to judge")),
            }
        }
        for (number, minute) in self.by_minute() {
            let least = minute.iter().map(|sample| sample.lag).reduce(f64::min);
            if least.is_some_and(|least| least > A_SECOND) {
                faults.push(format!("the lag does not come back in minute {number}"));
            }
        }
        faults
    }

    fn changes(&self) -> Vec<(&'static str, Option<Change>)> {
        let warm_up = judge::warm_up(self.minutes.len() as u32);
        let warm = self.samples.iter().filter(|sample| sample.at >= warm_up);
        let warm: Vec<&Sample> = warm.collect();
        let change = |(what, figure, tolerance): Flat| {
            let figures: Vec<f64> = warm.iter().map(|sample| figure(sample)).collect();
            (what, Change::of(&figures, tolerance))
        };
        FLAT.map(change).into()
    }

    /// The looks of each minute.
    fn by_minute(&self) -> Vec<(usize, &[Sample])> {
        let mut from = 0;
        let mut minutes = Vec::new();
        for (index, (end, _)) in self.minutes.iter().enumerate() {
            let to = self.samples.partition_point(|sample| sample.at < *end);
            minutes.push((index + 1, &self.samples[from..to.max(from)]));
            from = to.max(from);
        }
        minutes
    }
}

/// The report in Markdown.
pub fn written(minutes: u32, courses: &[Course]) -> String {
    let mut text = format!("# A soak of {minutes} minutes\n");
    for course in courses {
        text += &one(course);
    }
    text
}

// Writing to a string cannot fail: each result is let go.
fn one(course: &Course) -> String {
    let mut text = format!("\n## {}\n", course.broker);
    let faults = course.faults();
    let verdict = if faults.is_empty() {
        "holds".to_owned()
    } else {
        format!("does not hold: {}", faults.join("; "))
    };
    let _ = writeln!(text, "**Verdict:** {verdict}\n");
    text += "| minute | lines | memory, MiB | handles | threads | tasks | processor | lag, least | lag, most | in flight, most | its KiB | breaker opened | dead letters | rebalances | commits |\n\
             | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |\n";
    let mut before: Option<&Sample> = None;
    let mut lines_before = 0;
    for (number, samples) in course.by_minute() {
        let lines = course
            .minutes
            .get(number - 1)
            .map_or(0, |(_, lines)| *lines);
        let (Some(first), Some(last)) = (samples.first(), samples.last()) else {
            continue;
        };
        let since = before.unwrap_or(first);
        let middle = |figure: fn(&Sample) -> f64| {
            let figures: Vec<f64> = samples.iter().map(figure).collect();
            median(&figures).unwrap_or_default()
        };
        let most = |figure: fn(&Sample) -> f64| samples.iter().map(figure).fold(0.0, f64::max);
        let least = samples
            .iter()
            .map(|sample| sample.lag)
            .fold(f64::MAX, f64::min);
        let [memory, handles, threads, tasks] = FLAT.map(|(_, figure, _)| middle(figure));
        let _ = writeln!(
            text,
            "| {number} | {} | {memory:.1} | {handles} | {threads} | {tasks} | {:.0} % | {least} | {} | {} | {:.0} | {} | {} | {} | {} |",
            lines - lines_before,
            share(since, last) * 100.0,
            most(|sample| sample.lag),
            most(|sample| sample.in_flight),
            most(|sample| sample.in_flight_bytes) / 1024.0,
            last.opened - since.opened,
            last.dead_letters - since.dead_letters,
            last.rebalances - since.rebalances,
            last.commits - since.commits,
        );
        before = Some(last);
        lines_before = lines;
    }
    let warm_up = judge::warm_up(course.minutes.len() as u32);
    let _ = writeln!(
        text,
        "\nEach figure is the median of its minute, a look every three seconds; the processor's is of one. \
         Medians after a warm-up of {} s:\n\n\
         | what | second third | last third | growth allowed |\n| --- | --- | --- | --- |",
        warm_up.as_secs()
    );
    for (what, change) in course.changes() {
        if let Some(change) = change {
            let Change {
                before,
                after,
                allowed,
            } = change;
            let _ = writeln!(text, "| {what} | {before:.1} | {after:.1} | {allowed:.1} |");
        }
    }
    let _ = writeln!(
        text,
        "\n{} looks, each accounting for every event. {} lines to each consumer:\n\n{}",
        course.samples.len(),
        course.lines,
        outcome::table(&course.outcomes).trim_end()
    );
    text
}

/// Of one processor, between two looks.
fn share(from: &Sample, to: &Sample) -> f64 {
    let time = to.at.saturating_sub(from.at).max(Duration::from_millis(1));
    let used = to.vitals.cpu.saturating_sub(from.vitals.cpu);
    used.as_secs_f64() / time.as_secs_f64()
}

/// Writes a file into the build's folder for soaks, and returns where it is.
pub fn keep(name: &str, text: &str) -> Result<PathBuf> {
    let folder = workspace::target_dir().join("soak");
    fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let path = folder.join(name);
    fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
    Ok(path)
}
