//! `make growth`: what an event costs, and how much memory, as one thing grows at a time.
//!
//! ```text
//! base: 4 partitions, 1 consumer that passes events on, a lane a partition, a million events
//!   Kafka:    1 … 500 partitions │ 10,000 … events that wait
//!   embedded: 1 … 100 consumers that filter all away │ 1, 10 that pass │ 1, 8, 64 lanes │ starts
//! ```

mod course;
mod point;
mod report;
mod start;

use anyhow::{Context, Result, ensure};
use clap::ValueEnum as _;
use serde_json::json;

use crate::deploys::Ground;
use crate::host::Host;
use crate::table::{self, Part, thousands};
use crate::workload::Workload;
use crate::{kafka_node, millstream};
use course::Bench;
use point::{Factor, Sizes, points};
use report::Growth;

/// Measures what an event costs as partitions, consumers, lanes and backlog grow.
#[derive(clap::Args, Debug)]
pub struct Arguments {
    /// Events of a point where they are not what is varied.
    #[arg(long, default_value_t = 1_000_000)]
    events: u64,
    /// Runs of each point; figures are their medians.
    #[arg(long, default_value_t = 1)]
    runs: u32,
    /// Seed of the events.
    #[arg(long, default_value_t = 22)]
    seed: u64,
    /// What is varied; all of it without this.
    #[arg(long, value_enum, value_delimiter = ',')]
    factors: Vec<Factor>,
    #[command(flatten)]
    sizes: Sizes,
    /// Keep the figures as tests/bench/results/NAME-growth.json, and put them into
    /// tests/bench/README.md.
    #[arg(long, value_name = "NAME")]
    record: Option<String>,
}

/// Measures all points and prints the tables.
///
/// # Errors
/// A runtime fails, or writes something else than it should.
pub fn run(arguments: &Arguments) -> Result<()> {
    millstream::check(&[Workload::Q0], millstream::Kind::default())?;
    let factors = match arguments.factors.is_empty() {
        true => Factor::value_variants(),
        false => &arguments.factors,
    };
    let of = |factor: &Factor| points(*factor, &arguments.sizes, arguments.events);
    let points: Vec<_> = factors.iter().flat_map(of).collect();
    let on_kafka = points.iter().any(|point| point.ground == Ground::Kafka);
    let node = on_kafka.then(kafka_node).transpose()?;
    let folder = tempfile::Builder::new()
        .prefix("millstream-bench-")
        .tempdir()
        .context("cannot make a folder")?;
    let bench = Bench {
        node: node.as_ref(),
        folder: folder.path(),
        seed: arguments.seed,
    };
    let mut growth = Growth::default();
    for point in points {
        let measure = |run| bench.measure(&point, run);
        let runs = (0..arguments.runs).map(measure).collect::<Result<_>>()?;
        eprintln!("{}: {runs:?}", point.name());
        growth.add(point, runs);
    }
    drop(node);
    if factors.contains(&Factor::Start) {
        for consumers in &arguments.sizes.starting {
            let measure = |_| start::measure(folder.path(), *consumers);
            let runs = (0..arguments.runs).map(measure).collect::<Result<_>>()?;
            eprintln!("{consumers} consumers start: {runs:?}");
            growth.add_starts(*consumers, runs);
        }
    }
    keep(arguments, &growth)
}

/// Prints the tables, and writes what is to be kept.
fn keep(arguments: &Arguments, growth: &Growth) -> Result<()> {
    let tables = growth.tables();
    println!("{tables}");
    let name = arguments.record.as_deref().unwrap_or("latest");
    ensure!(!name.contains('/'), "a name is no path");
    let name = format!("{name}-growth");
    let figures = json!({
        "asked": { "events": arguments.events, "runs": arguments.runs, "seed": arguments.seed },
        "host": Host::here(),
        "version": millstream::version(),
        "others_share": growth.others_share(),
        "growth": growth.json(),
    });
    crate::report::write(&table::folder().join("results"), &name, &figures)?;
    eprintln!("all figures: tests/bench/results/{name}.json");
    if arguments.record.is_some() {
        Part::GROWTH.record(&format!(
            "{} events where they are not what is varied, median of {}; every run in \
             `results/{name}.json`. {} {}.\n\n{tables}",
            thousands(arguments.events as f64),
            arguments.runs,
            table::machine(growth.others_share()),
            millstream::version(),
        ))?;
    }
    Ok(())
}
