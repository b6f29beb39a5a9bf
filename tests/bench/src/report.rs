//! Medians, ratios, a table for people and a file for machines.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::Serialize;

use crate::contender::Contender;
use crate::measure::Figures;
use crate::query::Query;

/// Every run, and on what it ran.
#[derive(Debug, Default)]
pub struct Report {
    runs: Vec<(Query, Contender, Figures)>,
}

/// The medians of a contender on a query.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Medians {
    pub events_per_second: f64,
    pub cpu_seconds_per_million: f64,
    pub max_resident_mib: f64,
}

/// Where it ran: figures are nothing without it.
#[derive(Debug, Serialize)]
struct Host {
    processor: String,
    processors: usize,
    memory_mib: u64,
    kernel: String,
}

impl Report {
    /// Adds a run.
    pub fn add(&mut self, query: Query, contender: Contender, figures: Figures) {
        self.runs.push((query, contender, figures));
    }

    /// The medians of a contender; `None` where it did not run.
    pub fn medians(&self, query: Query, contender: Contender) -> Option<Medians> {
        let runs: Vec<&Figures> = self
            .runs
            .iter()
            .filter(|(q, c, _)| *q == query && *c == contender)
            .map(|(.., figures)| figures)
            .collect();
        let of = |figure: fn(&Figures) -> f64| median(runs.iter().map(|f| figure(f)).collect());
        Some(Medians {
            events_per_second: of(|f| f.events_per_second)?,
            cpu_seconds_per_million: of(|f| f.cpu_seconds_per_million)?,
            max_resident_mib: of(|f| f.max_resident_mib)?,
        })
    }

    /// The table that `make bench` prints.
    pub fn table(&self, queries: &[Query], contenders: &[Contender]) -> String {
        let mut table = String::from(
            "| query | contender | events/s | CPU s a million | max RSS MiB | events/s ÷ bound | CPU ÷ bound |\n\
             | --- | --- | ---: | ---: | ---: | ---: | ---: |\n",
        );
        for query in queries {
            for contender in contenders {
                let Some(medians) = self.medians(*query, *contender) else {
                    continue;
                };
                let ratio = |of: fn(&Medians) -> f64| {
                    self.medians(*query, Contender::Bound)
                        .map_or("–".to_owned(), |b| {
                            format!("{:.2}", of(&medians) / of(&b))
                        })
                };
                table.push_str(&format!(
                    "| {} | {} | {:.0} | {:.2} | {:.0} | {} | {} |\n",
                    query.name(),
                    contender.name(),
                    medians.events_per_second,
                    medians.cpu_seconds_per_million,
                    medians.max_resident_mib,
                    ratio(|m| m.events_per_second),
                    ratio(|m| m.cpu_seconds_per_million),
                ));
            }
        }
        table
    }

    /// Puts the table and its circumstances between the markers of a page.
    ///
    /// # Errors
    /// The page cannot be read or written, or has no markers.
    pub fn record(&self, page: &Path, circumstances: &str, table: &str) -> Result<()> {
        let text =
            fs::read_to_string(page).with_context(|| format!("cannot read {}", page.display()))?;
        let host = host();
        let block = format!(
            "{} with {} processors, {} MiB of memory, Linux {}; {circumstances}. \
             Of all processor time during the runs {:.0} % went to programs that are none of the \
             contenders, the broker or the benchmark.\n\n{table}",
            host.processor,
            host.processors,
            host.memory_mib,
            host.kernel,
            self.others_share() * 100.0,
        );
        let filled = between_markers(&text, &block).context("the page has no markers")?;
        fs::write(page, filled).with_context(|| format!("cannot write {}", page.display()))
    }

    /// The part of the machine's work that spoils a comparison.
    fn others_share(&self) -> f64 {
        let sum = |of: fn(&Figures) -> f64| self.runs.iter().map(|(.., f)| of(f)).sum::<f64>();
        let (others, machine) = (
            sum(|f| f.others_cpu_seconds),
            sum(|f| f.machine_cpu_seconds),
        );
        if machine > 0.0 { others / machine } else { 0.0 }
    }

    /// Writes everything to a file of `folder` and returns its path.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn save(&self, folder: &Path, name: &str, events: u64, seed: u64) -> Result<PathBuf> {
        let runs: Vec<_> = self
            .runs
            .iter()
            .map(|(query, contender, figures)| {
                serde_json::json!({
                    "query": query.name(),
                    "contender": contender.name(),
                    "figures": figures,
                })
            })
            .collect();
        let mut pairs: Vec<(Query, Contender)> = Vec::new();
        for (query, contender, _) in &self.runs {
            if !pairs.contains(&(*query, *contender)) {
                pairs.push((*query, *contender));
            }
        }
        let medians: Vec<_> = pairs
            .iter()
            .map(|(query, contender)| {
                serde_json::json!({
                    "query": query.name(),
                    "contender": contender.name(),
                    "medians": self.medians(*query, *contender),
                })
            })
            .collect();
        let report = serde_json::json!({
            "events": events,
            "seed": seed,
            "host": host(),
            "medians": medians,
            "runs": runs,
        });
        fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
        let path = folder.join(format!("{name}.json"));
        let text = serde_json::to_string_pretty(&report)? + "\n";
        fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
        Ok(path)
    }
}

const BEGIN: &str = "<!-- figures: filled by make bench RECORD=NAME -->";
const END: &str = "<!-- end of figures -->";

fn between_markers(page: &str, block: &str) -> Option<String> {
    let (before, rest) = page.split_once(BEGIN)?;
    let (_, after) = rest.split_once(END)?;
    Some(format!("{before}{BEGIN}\n{block}\n{END}{after}"))
}

fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    if values.len() % 2 == 1 {
        values.get(middle).copied()
    } else {
        Some((values.get(middle.checked_sub(1)?)? + values.get(middle)?) / 2.0)
    }
}

fn host() -> Host {
    let field = |file: &str, name: &str| {
        let text = fs::read_to_string(file).unwrap_or_default();
        let line = text.lines().find(|line| line.starts_with(name));
        let value = line.and_then(|line| line.split_once(':'));
        value.map_or(String::new(), |(_, value)| value.trim().to_owned())
    };
    let memory = field("/proc/meminfo", "MemTotal");
    let kibibytes: u64 = memory
        .split_whitespace()
        .next()
        .and_then(|n| n.parse().ok())
        .unwrap_or(0);
    Host {
        processor: field("/proc/cpuinfo", "model name"),
        processors: std::thread::available_parallelism().map_or(0, usize::from),
        memory_mib: kibibytes / 1024,
        kernel: fs::read_to_string("/proc/sys/kernel/osrelease")
            .unwrap_or_default()
            .trim()
            .to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figures(rate: f64, cpu: f64) -> Figures {
        Figures {
            events_per_second: rate,
            cpu_seconds_per_million: cpu,
            max_resident_mib: 100.0,
            seconds: 1.0,
            broker_cpu_seconds: 1.0,
            others_cpu_seconds: 0.0,
            machine_cpu_seconds: 3.0,
        }
    }

    #[test]
    fn the_median_is_the_middle() {
        assert_eq!(median(vec![3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(vec![4.0, 1.0]), Some(2.5));
        assert_eq!(median(Vec::new()), None);
    }

    #[test]
    fn recording_twice_keeps_one_table_and_the_rest_of_the_page() {
        let page = format!("# Title\n{BEGIN}\n{END}\nmore\n");
        let once = between_markers(&page, "| 1 |").unwrap();
        let twice = between_markers(&once, "| 2 |").unwrap();
        assert_eq!(twice, format!("# Title\n{BEGIN}\n| 2 |\n{END}\nmore\n"));
        assert!(between_markers("no markers", "x").is_none());
    }

    #[test]
    fn the_page_has_its_markers() {
        let page = millstream_test_support::workspace::root().join("tests/bench/README.md");
        assert!(between_markers(&fs::read_to_string(page).unwrap(), "x").is_some());
    }

    #[test]
    fn ratios_are_to_the_bound_of_the_same_query() {
        let mut report = Report::default();
        report.add(Query::Q0, Contender::Bound, figures(1000.0, 1.0));
        report.add(Query::Q22, Contender::Bound, figures(500.0, 2.0));
        report.add(Query::Q22, Contender::Millstream, figures(400.0, 3.0));
        let table = report.table(&[Query::Q22], &[Contender::Bound, Contender::Millstream]);
        assert!(
            table.contains("| q22 | millstream | 400 | 3.00 | 100 | 0.80 | 1.50 |"),
            "{table}"
        );
    }
}
