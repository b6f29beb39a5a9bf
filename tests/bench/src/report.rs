//! All that was measured: medians and spreads of it, and a file for machines.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Error, Result};
use serde::Serialize;
use serde_json::{Value, json};

use crate::contender::Contender;
use crate::host::Host;
use crate::latency::{Delays, Route};
use crate::measure::Figures;
use crate::workload::Workload;

/// Every run, and on what it ran.
#[derive(Debug, Default)]
pub struct Report {
    runs: Vec<(Workload, Contender, Figures)>,
    delays: Vec<(u32, Route, Delays)>,
    left_out: Vec<(Contender, String)>,
}

/// What several runs showed of one figure.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Spread {
    pub median: f64,
    pub min: f64,
    pub max: f64,
}

impl Spread {
    /// Of these values; `None` where there is none.
    pub fn of(mut values: Vec<f64>) -> Option<Self> {
        values.sort_by(f64::total_cmp);
        let middle = values.len() / 2;
        let median = if values.len() % 2 == 1 {
            *values.get(middle)?
        } else {
            (values.get(middle.checked_sub(1)?)? + values.get(middle)?) / 2.0
        };
        Some(Self {
            median,
            min: *values.first()?,
            max: *values.last()?,
        })
    }
}

/// The figures of a contender on a workload, over its runs.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Summary {
    pub events_per_second: Spread,
    pub second_half_events_per_second: Spread,
    pub cpu_seconds_per_million: Spread,
    pub second_half_cpu_seconds_per_million: Spread,
    pub all_cpu_seconds_per_million: Spread,
    pub max_resident_mib: Spread,
}

impl Report {
    /// Adds a run.
    pub fn add(&mut self, workload: Workload, contender: Contender, figures: Figures) {
        self.runs.push((workload, contender, figures));
    }

    /// Adds the delays of a run at a rate.
    pub fn add_delays(&mut self, rate: u32, route: Route, delays: Delays) {
        self.delays.push((rate, route, delays));
    }

    /// Notes, loudly, that a contender is missing or failed, and why.
    pub fn leave_out(&mut self, contender: Contender, why: &Error) {
        eprintln!("\n*** LEFT OUT: {}: {why:#}\n", contender.name());
        self.left_out.push((contender, format!("{why:#}")));
    }

    /// The contenders that are missing.
    pub fn left_out(&self) -> &[(Contender, String)] {
        &self.left_out
    }

    /// The workloads and contenders that were measured, in the order of their first runs.
    pub fn pairs(&self) -> Vec<(Workload, Contender)> {
        let mut pairs = Vec::new();
        for (workload, contender, _) in &self.runs {
            if !pairs.contains(&(*workload, *contender)) {
                pairs.push((*workload, *contender));
            }
        }
        pairs
    }

    /// The rates and ways whose delays were measured, in the order of their first runs.
    pub fn delayed(&self) -> Vec<(u32, Route)> {
        let mut pairs = Vec::new();
        for (rate, route, _) in &self.delays {
            if !pairs.contains(&(*rate, *route)) {
                pairs.push((*rate, *route));
            }
        }
        pairs
    }

    /// One figure of the delays of a way at a rate, over its runs.
    pub fn delay(&self, rate: u32, route: Route, of: fn(&Delays) -> f64) -> Option<Spread> {
        let found = self.delays.iter();
        let found = found.filter(|(r, way, _)| *r == rate && *way == route);
        Spread::of(found.map(|(.., delays)| of(delays)).collect())
    }

    /// The figures of a contender; `None` where it did not run.
    pub fn summary(&self, workload: Workload, contender: Contender) -> Option<Summary> {
        let runs = self.runs.iter();
        let runs: Vec<&Figures> = runs
            .filter(|(w, c, _)| *w == workload && *c == contender)
            .map(|(.., figures)| figures)
            .collect();
        let of = |figure: fn(&Figures) -> f64| Spread::of(runs.iter().map(|f| figure(f)).collect());
        Some(Summary {
            events_per_second: of(|f| f.events_per_second)?,
            second_half_events_per_second: of(|f| f.second_half_events_per_second)?,
            cpu_seconds_per_million: of(|f| f.cpu_seconds_per_million)?,
            second_half_cpu_seconds_per_million: of(|f| f.second_half_cpu_seconds_per_million)?,
            all_cpu_seconds_per_million: of(|f| f.all_cpu_seconds_per_million)?,
            max_resident_mib: of(|f| f.max_resident_mib)?,
        })
    }

    /// The part of the machine's work that spoils a comparison.
    pub fn others_share(&self) -> f64 {
        let sum = |of: fn(&Figures) -> f64| self.runs.iter().map(|(.., f)| of(f)).sum::<f64>();
        let (others, machine) = (
            sum(|f| f.others_cpu_seconds),
            sum(|f| f.machine_cpu_seconds),
        );
        if machine > 0.0 { others / machine } else { 0.0 }
    }

    /// What each contender that ran is made of.
    pub fn versions(&self) -> Vec<(Contender, String)> {
        let mut versions: Vec<(Contender, String)> = Vec::new();
        let ran = self.pairs().into_iter().map(|(_, contender)| contender);
        let delayed = self.delayed().into_iter();
        let delayed = delayed.filter_map(|(_, route)| route.contender());
        for contender in ran.chain(delayed) {
            if !versions.iter().any(|(known, _)| *known == contender) {
                versions.push((contender, contender.version()));
            }
        }
        versions
    }

    /// Writes everything to a file of `folder` and returns its path.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn save(&self, folder: &Path, name: &str, asked: &Value) -> Result<PathBuf> {
        let each = |of: &dyn Fn(Workload, Contender) -> Value| -> Vec<Value> {
            let pairs = self.pairs().into_iter();
            pairs
                .map(|(workload, contender)| of(workload, contender))
                .collect()
        };
        let summaries = each(&|workload, contender| {
            json!({
                "workload": workload.name(),
                "contender": contender.name(),
                "figures": self.summary(workload, contender),
            })
        });
        let runs = self.runs.iter().map(|(workload, contender, figures)| {
            json!({
                "workload": workload.name(),
                "contender": contender.name(),
                "figures": figures,
            })
        });
        let delays = self.delays.iter().map(|(rate, route, delays)| {
            json!({
                "events_per_second": rate,
                "contender": route.name(),
                "milliseconds": delays,
            })
        });
        let by_name = |list: &[(Contender, String)]| -> Value {
            let list = list.iter();
            list.map(|(contender, text)| (contender.name().to_owned(), json!(text)))
                .collect::<serde_json::Map<_, _>>()
                .into()
        };
        let report = json!({
            "asked": asked,
            "host": Host::here(),
            "others_share": self.others_share(),
            "versions": by_name(&self.versions()),
            "left_out": by_name(&self.left_out),
            "summaries": summaries,
            "runs": runs.collect::<Vec<_>>(),
            "delays": delays.collect::<Vec<_>>(),
        });
        write(folder, name, &report)
    }
}

/// Writes figures for machines to a file of `folder` and returns its path.
///
/// # Errors
/// The file cannot be written.
pub fn write(folder: &Path, name: &str, figures: &Value) -> Result<PathBuf> {
    fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let path = folder.join(format!("{name}.json"));
    let text = serde_json::to_string_pretty(figures)? + "\n";
    fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle() {
        let spread = Spread::of(vec![3.0, 1.0, 2.0]).unwrap();
        assert_eq!((spread.median, spread.min, spread.max), (2.0, 1.0, 3.0));
        assert_eq!(Spread::of(vec![4.0, 1.0]).unwrap().median, 2.5);
        assert_eq!(Spread::of(Vec::new()), None);
    }
}
