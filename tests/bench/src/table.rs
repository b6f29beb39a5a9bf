//! The report as tables of a page.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};
use millstream_test_support::workspace;

use crate::contender::Contender;
use crate::host::Host;
use crate::report::{Report, Spread, Summary};

/// The table of the workloads; empty where none was measured.
pub fn figures(report: &Report) -> String {
    let pairs = report.pairs();
    if pairs.is_empty() {
        return String::new();
    }
    let mut table = String::from(
        "| workload | contender | events/s | second half | CPU s a million | second half | with its broker | max RSS MiB | events/s ÷ bound | CPU ÷ bound |\n\
         | --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |\n",
    );
    for (workload, contender) in pairs {
        let Some(summary) = report.summary(workload, contender) else {
            continue;
        };
        let bound = report.summary(workload, Contender::Bound);
        let ratio = |of: fn(&Summary) -> Spread| {
            bound.map_or("–".to_owned(), |bound| {
                format!("{:.2}", of(&summary).median / of(&bound).median)
            })
        };
        table.push_str(&format!(
            "| {} | {} | {} | {} | {} | {:.2} | {:.2} | {:.0} | {} | {} |\n",
            workload.name(),
            contender.name(),
            spread(summary.events_per_second, thousands),
            thousands(summary.second_half_events_per_second.median),
            spread(summary.cpu_seconds_per_million, |cpu| format!("{cpu:.2}")),
            summary.second_half_cpu_seconds_per_million.median,
            summary.all_cpu_seconds_per_million.median,
            summary.max_resident_mib.median,
            ratio(|s| s.events_per_second),
            ratio(|s| s.cpu_seconds_per_million),
        ));
    }
    table
}

/// The table of the delays; empty where none was measured.
pub fn delays(report: &Report) -> String {
    let pairs = report.delayed();
    if pairs.is_empty() {
        return String::new();
    }
    let mut table = String::from(
        "| events/s | contender | p50 ms | p99 ms | p99.9 ms | max ms |\n\
         | ---: | --- | ---: | ---: | ---: | ---: |\n",
    );
    for (rate, route) in pairs {
        let shown = |of| {
            let delay = report.delay(rate, route, of);
            delay.map_or_else(String::new, |delay| spread(delay, |ms| format!("{ms:.1}")))
        };
        table.push_str(&format!(
            "| {} | {} | {} | {} | {} | {} |\n",
            thousands(f64::from(rate)),
            route.name(),
            shown(|d| d.p50),
            shown(|d| d.p99),
            shown(|d| d.p999),
            shown(|d| d.max),
        ));
    }
    table
}

/// The machine, and which part of its work went to programs that are no part of what was measured.
pub fn machine(others_share: Option<f64>) -> String {
    let host = Host::here();
    let mut text = format!(
        "{} with {} processors, {} MiB of memory, Linux {}; Kafka {} on Java {}.",
        host.processor, host.processors, host.memory_mib, host.kernel, host.kafka, host.java
    );
    if let Some(share) = others_share {
        text.push_str(&format!(
            " Of all processor time during the runs {:.0} % went to programs that are none of the \
             contenders, the broker or the benchmark.",
            share * 100.0
        ));
    }
    text
}

/// The machine, the versions, and what is missing.
pub fn circumstances(report: &Report) -> String {
    let measured = !report.pairs().is_empty();
    let mut text = machine(measured.then(|| report.others_share()));
    let versions = report.versions();
    let mut shown: Vec<&str> = Vec::new();
    for (_, version) in &versions {
        if !version.is_empty() && !shown.contains(&version.as_str()) {
            shown.push(version);
        }
    }
    if !shown.is_empty() {
        text.push_str(&format!(" Versions: {}.", shown.join("; ")));
    }
    let mut missing: Vec<&str> = Vec::new();
    for (contender, _) in report.left_out() {
        if !missing.contains(&contender.name()) {
            missing.push(contender.name());
        }
    }
    if !missing.is_empty() {
        text.push_str(&format!(" Left out or failed: {}.", missing.join(", ")));
    }
    text
}

/// `1,234,567`.
pub fn thousands(number: f64) -> String {
    let digits = format!("{number:.0}");
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A median, with what its runs lay between where there were several.
pub fn spread(spread: Spread, shown: impl Fn(f64) -> String) -> String {
    let median = shown(spread.median);
    if spread.min < spread.max {
        format!("{median} ({}–{})", shown(spread.min), shown(spread.max))
    } else {
        median
    }
}

/// A part of this folder's page that a command fills.
#[derive(Clone, Copy, Debug)]
pub struct Part {
    name: &'static str,
    /// The target of the Makefile.
    command: &'static str,
}

impl Part {
    pub const FIGURES: Self = Self::of("figures", "bench");
    pub const DELAYS: Self = Self::of("delays", "bench");
    pub const GROWTH: Self = Self::of("growth", "growth");
    pub const WAITING: Self = Self::of("waiting", "waiting");

    /// A part by its name and by the target that fills it.
    const fn of(name: &'static str, command: &'static str) -> Self {
        Self { name, command }
    }

    /// Puts a block between its markers.
    ///
    /// # Errors
    /// The page cannot be read or written, or has no such markers.
    pub fn record(self, block: &str) -> Result<()> {
        let page = page();
        let text =
            fs::read_to_string(&page).with_context(|| format!("cannot read {}", page.display()))?;
        let filled = between_markers(&text, self, block)
            .with_context(|| format!("the page has no markers for {}", self.name))?;
        fs::write(&page, filled).with_context(|| format!("cannot write {}", page.display()))
    }
}

/// Where the page is.
fn page() -> PathBuf {
    folder().join("README.md")
}

/// The folder of the benchmark.
pub fn folder() -> PathBuf {
    workspace::root().join("tests/bench")
}

fn between_markers(page: &str, part: Part, block: &str) -> Option<String> {
    let Part { name, command } = part;
    let begin = format!("<!-- {name}: filled by make {command} RECORD=NAME -->");
    let end = format!("<!-- end of {name} -->");
    let (before, rest) = page.split_once(&begin)?;
    let (_, after) = rest.split_once(&end)?;
    Some(format!("{before}{begin}\n{block}\n{end}{after}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measure::Figures;
    use crate::workload::Workload;

    fn runs(rate: f64, cpu: f64) -> Figures {
        Figures {
            events_per_second: rate,
            second_half_events_per_second: rate,
            cpu_seconds_per_million: cpu,
            second_half_cpu_seconds_per_million: cpu,
            all_cpu_seconds_per_million: cpu + 1.0,
            max_resident_mib: 100.0,
            ..Figures::default()
        }
    }

    #[test]
    fn recording_twice_keeps_one_table_and_the_rest_of_the_page() {
        let markers = (
            "<!-- figures: filled by make bench RECORD=NAME -->",
            "<!-- end of figures -->",
        );
        let page = format!("# Title\n{}\n{}\nmore\n", markers.0, markers.1);
        let once = between_markers(&page, Part::FIGURES, "| 1 |").unwrap();
        let twice = between_markers(&once, Part::FIGURES, "| 2 |").unwrap();
        assert_eq!(
            twice,
            format!("# Title\n{}\n| 2 |\n{}\nmore\n", markers.0, markers.1)
        );
        assert!(between_markers("no markers", Part::FIGURES, "x").is_none());
    }

    #[test]
    fn the_page_has_its_markers() {
        let text = fs::read_to_string(page()).unwrap();
        for part in [Part::FIGURES, Part::DELAYS, Part::GROWTH, Part::WAITING] {
            assert!(between_markers(&text, part, "x").is_some(), "{part:?}");
        }
    }

    #[test]
    fn ratios_are_to_the_bound_of_the_same_workload() {
        let mut report = Report::default();
        report.add(Workload::Q0, Contender::Bound, runs(1000.0, 1.0));
        report.add(Workload::Q22, Contender::Bound, runs(5000.0, 2.0));
        report.add(Workload::Q22, Contender::Millstream, runs(4000.0, 3.0));
        report.add(Workload::Q22, Contender::Millstream, runs(3000.0, 3.0));
        let table = figures(&report);
        let row = "| q22 | millstream | 3,500 (3,000–4,000) | 3,500 | 3.00 | 3.00 | 4.00 | 100 | 0.70 | 1.50 |";
        assert!(table.contains(row), "{table}");
    }

    #[test]
    fn thousands_are_told_apart() {
        for (number, text) in [
            (0.0, "0"),
            (999.6, "1,000"),
            (12.0, "12"),
            (1234567.0, "1,234,567"),
        ] {
            assert_eq!(thousands(number), text);
        }
    }
}
