//! What the runs showed, for people.

use std::fmt::Write as _;
use std::time::Duration;

use anyhow::{Context, Result};

use super::check::Found;
use super::delays::Delays;
use super::stage::Stage;
use super::watcher::Watcher;
use super::window::Window;
use super::{Delivery, Ground};

/// How long files must be left alone before they are read.
const QUIET: Duration = Duration::from_millis(200);

/// From the save of versions to the first event that each made, as a reader sees it, in milliseconds.
pub struct FirstEvents {
    took: Delays,
    /// Versions of which no event was seen: another was saved before they could take over.
    pub unseen: usize,
}

impl FirstEvents {
    /// Of all versions so far but the two that the stage starts with.
    ///
    /// # Errors
    /// A time is out of range.
    pub fn of(stage: &Stage, watcher: &Watcher) -> Result<Self> {
        Self::since(stage, watcher, 2)
    }

    /// Of all versions from this one on.
    ///
    /// # Errors
    /// A time is out of range.
    pub fn since(stage: &Stage, watcher: &Watcher, first: usize) -> Result<Self> {
        let mut took = Vec::new();
        let mut unseen = 0;
        for version in first..stage.versions() {
            let saved = stage.saved(version).context("not saved")?;
            match watcher.first(version) {
                Some(seen) => {
                    let after = seen.duration_since(saved).saturating_sub(QUIET);
                    took.push(i64::try_from(after.as_millis())?);
                }
                None => unseen += 1,
            }
        }
        eprintln!("from save to first event − 200 ms: {took:?} ms");
        Ok(Self {
            took: Delays::of(took),
            unseen,
        })
    }

    fn shown(&self) -> String {
        format!("{} / {}", self.took.at(0.5), self.took.at(1.0))
    }
}

/// One broker and one guarantee.
pub struct Course {
    pub ground: Ground,
    pub delivery: Delivery,
    /// Events a second that the runtime takes from a full topic.
    pub most: f64,
    /// Events a second that were fed.
    pub rate: f64,
    pub without: [Window; 2],
    pub during: Window,
    /// Of the versions of the window with deploys, and of those in calm.
    pub under_load: FirstEvents,
    pub cached: FirstEvents,
    pub fresh: FirstEvents,
    /// That took effect, the first version and those in calm included.
    pub deploys: u64,
    pub events: u64,
    pub found: Found,
}

impl Course {
    /// All of it in a few lines.
    pub fn summary(&self) -> String {
        let mut text = String::new();
        let [before, behind] = &self.without;
        // Writing to a string cannot fail.
        for (name, window) in [
            ("before", before),
            ("deploys", &self.during),
            ("behind", behind),
        ] {
            let _ = writeln!(
                text,
                "{name:>8}: {:.0} events/s, {:.0} in the lowest second, lag {:.0}; p50 / p99 / max \
                 {} / {} / {} ms; runtime {:.0} %, others {:.0} % of the processors",
                window.rate(),
                window.lowest(),
                window.lag,
                window.delays.at(0.5),
                window.delays.at(0.99),
                window.delays.at(1.0),
                window.runtime * 100.0,
                window.others * 100.0,
            );
        }
        let _ = write!(
            text,
            "{} deploys; of those under load {} made no event before the next; {} events: {:?}",
            self.deploys, self.under_load.unseen, self.events, self.found
        );
        text
    }

    /// The rate with deploys as a part of that without.
    fn kept(&self) -> f64 {
        let [before, behind] = &self.without;
        self.during.rate() * 2.0 / (before.rate() + behind.rate())
    }

    /// The 99th percentile without deploys: the mean of both windows.
    fn tail(&self) -> f64 {
        let [before, behind] = &self.without;
        (before.delays.at(0.99) + behind.delays.at(0.99)) as f64 / 2.0
    }
}

/// A row for each course.
pub fn table(courses: &[Course]) -> String {
    let mut text = "| broker, guarantee | fed a second (most) | events | lost, twice, reordered, of an \
                    older version | rate with deploys | lowest second without / with | p99 ms without \
                    / with | save to first event − 200 ms, half / worst: cached | fresh | under load | \
                    others' share |\n| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |\n"
        .to_owned();
    for course in courses {
        let Found {
            lost,
            twice,
            reordered,
            back,
        } = course.found;
        let [before, behind] = &course.without;
        let others = [before, &course.during, behind]
            .map(|window| window.others)
            .into_iter()
            .fold(0.0, f64::max);
        let lowest = before.lowest().min(behind.lowest());
        // Writing to a string cannot fail.
        let _ = writeln!(
            text,
            "| {:?}, {} | {:.0} ({:.0}) | {} | {lost}, {twice}, {reordered}, {back} | {:.1} % | \
             {lowest:.0} / {:.0} | {:.0} / {} | {} | {} | {} | {:.0} % |",
            course.ground,
            course.delivery.name(),
            course.rate,
            course.most,
            course.events,
            course.kept() * 100.0,
            course.during.lowest(),
            course.tail(),
            course.during.delays.at(0.99),
            course.cached.shown(),
            course.fresh.shown(),
            course.under_load.shown(),
            others * 100.0,
        );
    }
    text
}
