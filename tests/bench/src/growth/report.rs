//! What growth showed: a table a person reads, and figures for machines.

use serde_json::{Value, json};

use super::course::Figures;
use super::point::{Factor, Point};
use super::start;
use crate::deploys::Ground;
use crate::report::Spread;
use crate::table::{spread, thousands};

/// All runs of all points.
#[derive(Debug, Default)]
pub struct Growth {
    points: Vec<(Point, Vec<Figures>)>,
    /// By consumers: those that compile and those that do not.
    starts: Vec<(u32, Vec<[start::Figures; 2]>)>,
}

impl Growth {
    /// Adds the runs of a point.
    pub fn add(&mut self, point: Point, runs: Vec<Figures>) {
        self.points.push((point, runs));
    }

    /// Adds the starts of so many consumers.
    pub fn add_starts(&mut self, consumers: u32, runs: Vec<[start::Figures; 2]>) {
        self.starts.push((consumers, runs));
    }

    /// The part of the machine's work that was none of ours.
    pub fn others_share(&self) -> Option<f64> {
        let runs = || self.points.iter().flat_map(|(_, runs)| runs);
        let machine: f64 = runs().map(|run| run.machine_cpu_seconds).sum();
        let others: f64 = runs().map(|run| run.others_cpu_seconds).sum();
        (machine > 0.0).then(|| others / machine)
    }

    /// The tables; each only where something of it was measured.
    pub fn tables(&self) -> String {
        let mut text = String::new();
        if !self.points.is_empty() {
            text.push_str(
                "| factor | size | broker | events | CPU s a million | ns an event and consumer | events/s | events a call | MiB before | MiB at most |\n\
                 | --- | --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |\n",
            );
        }
        for (point, runs) in &self.points {
            text.push_str(&row(point, runs));
        }
        if !self.starts.is_empty() {
            text.push_str(
                "\n| consumers that start | plugin | ms until ready | CPU s | MiB when ready |\n\
                 | ---: | --- | ---: | ---: | ---: |\n",
            );
        }
        for (consumers, runs) in &self.starts {
            for (index, plugin) in ["to be compiled", "in the cache"].into_iter().enumerate() {
                let shown = |of: fn(&start::Figures) -> f64, digits| {
                    let values = runs.iter().map(|run| of(&run[index])).collect();
                    shown(values, digits)
                };
                text.push_str(&format!(
                    "| {consumers} | {plugin} | {} | {} | {} |\n",
                    shown(|f| f.seconds * 1e3, 0),
                    shown(|f| f.cpu_seconds, 2),
                    shown(|f| f.resident_mib, 0),
                ));
            }
        }
        text
    }

    /// All of it.
    pub fn json(&self) -> Value {
        let points = self.points.iter().map(|(point, runs)| {
            json!({
                "factor": point.factor.name(),
                "size": point.size(),
                "broker": broker(point),
                "partitions": point.partitions,
                "consumers": point.consumers,
                "events": point.events,
                "rounds": point.rounds,
                "runs": runs,
            })
        });
        let starts = self.starts.iter().map(|(consumers, runs)| {
            let of = |index: usize| runs.iter().map(|run| run[index]).collect::<Vec<_>>();
            json!({ "consumers": consumers, "compiled": of(0), "cached": of(1) })
        });
        json!({
            "points": points.collect::<Vec<_>>(),
            "starts": starts.collect::<Vec<_>>(),
        })
    }
}

fn row(point: &Point, runs: &[Figures]) -> String {
    let shown = |of: fn(&Figures) -> f64, digits| shown(runs.iter().map(of).collect(), digits);
    let events = match point.rounds {
        1 => thousands(point.events as f64),
        rounds => format!("{rounds} × {}", thousands(point.events as f64)),
    };
    let factor = match point.factor {
        Factor::Filtering => "consumers that filter",
        Factor::Passing => "consumers that pass",
        factor => factor.name(),
    };
    format!(
        "| {factor} | {} | {} | {events} | {} | {} | {} | {} | {} | {} |\n",
        point.size(),
        broker(point),
        shown(|f| f.cpu_seconds_per_million, 2),
        shown(|f| f.nanoseconds_per_event_and_consumer, 0),
        shown(|f| f.events_per_second, 0),
        shown(|f| f.events_per_call, 1),
        shown(|f| f.ready_mib, 0),
        shown(|f| f.max_resident_mib, 0),
    )
}

fn broker(point: &Point) -> &'static str {
    match point.ground {
        Ground::Kafka => "Kafka",
        Ground::Embedded => "embedded",
    }
}

/// A figure over its runs.
fn shown(values: Vec<f64>, digits: usize) -> String {
    let number = |value: f64| match digits {
        0 => thousands(value),
        _ => format!("{value:.digits$}"),
    };
    Spread::of(values).map_or_else(String::new, |values| spread(values, number))
}

#[cfg(test)]
mod tests {
    use super::super::point::{Sizes, points};
    use super::*;

    #[test]
    fn a_row_names_its_point_and_shows_medians_of_its_runs() {
        let sizes = Sizes {
            partitions: Vec::new(),
            backlogs: vec![10_000],
            filtering: vec![100],
            passing: Vec::new(),
            starting: Vec::new(),
        };
        let runs = [2.0, 4.0, 3.0].map(|cpu| Figures {
            cpu_seconds_per_million: cpu,
            nanoseconds_per_event_and_consumer: 3_000.0,
            events_per_second: 1234.5,
            events_per_call: 7.0,
            ready_mib: 40.0,
            max_resident_mib: 80.0,
            others_cpu_seconds: 1.0,
            machine_cpu_seconds: 4.0,
        });
        let mut growth = Growth::default();
        assert_eq!(growth.tables(), "");
        assert_eq!(growth.others_share(), None);
        for factor in [Factor::Backlog, Factor::Filtering] {
            for point in points(factor, &sizes, 1_000_000) {
                growth.add(point, runs.to_vec());
            }
        }
        growth.add_starts(10, vec![[start::Figures::default(); 2]]);
        let tables = growth.tables();
        for row in [
            "| backlog | 10,000 | Kafka | 20 × 10,000 | 3.00 (2.00–4.00) | 3,000 | 1,234 | 7.0 | 40 | 80 |",
            "| consumers that filter | 100 | embedded | 1,000,000 | 3.00 (2.00–4.00) | 3,000 |",
            "| 10 | in the cache | 0 | 0.00 | 0 |",
        ] {
            assert!(tables.contains(row), "{tables}");
        }
        assert_eq!(growth.others_share(), Some(0.25));
        assert_eq!(growth.json()["points"][1]["consumers"], 100);
    }
}
