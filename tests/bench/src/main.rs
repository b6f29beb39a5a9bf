//! `make bench`: Millstream beside a bare librdkafka loop.
//!
//! ```text
//! bids by seed ─▶ topic ─▶ contender (a process) ─▶ topic ─▶ tally == independent calculation
//!                             │ watched from outside: commits, processor time, memory
//!                             └ contenders alternate; medians, ratios ─▶ table, results/*.json
//! ```

mod bid;
mod bound;
mod contender;
mod deliveries;
mod librdkafka;
mod measure;
mod query;
mod report;
mod topics;

use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};
use millstream_test_support::kafka::{KafkaNode, Options};
use millstream_test_support::workspace;

use crate::bid::Bids;
use crate::contender::{Contender, Job};
use crate::query::{Query, expected};
use crate::report::Report;

const PARTITIONS: u32 = 4;

/// Compares Millstream with a bare librdkafka loop on one Kafka, which it starts itself.
#[derive(Parser, Debug)]
struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
    /// Events of a run.
    #[arg(long, default_value_t = 2_000_000)]
    events: u64,
    /// Runs of each contender on each query; figures are their medians.
    #[arg(long, default_value_t = 3)]
    runs: u32,
    /// Seed of the events.
    #[arg(long, default_value_t = 22)]
    seed: u64,
    #[arg(long, value_enum, value_delimiter = ',', default_value = "q0,q22")]
    queries: Vec<Query>,
    #[arg(
        long,
        value_enum,
        value_delimiter = ',',
        default_value = "bound,millstream,exactly-once"
    )]
    contenders: Vec<Contender>,
    /// Keep the figures as tests/bench/results/NAME.json and put them into tests/bench/README.md.
    #[arg(long, value_name = "NAME")]
    record: Option<String>,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// The bare loop itself; the comparison starts it as a process of its own.
    #[command(hide = true)]
    Bound(bound::Task),
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let result = match &arguments.command {
        Some(Command::Bound(task)) => bound::run(task),
        None => compare(&arguments),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn compare(arguments: &Arguments) -> Result<()> {
    for contender in &arguments.contenders {
        contender.check(&arguments.queries)?;
    }
    let bids = || Bids::new(arguments.seed, arguments.events);
    let node = KafkaNode::start_with(Options {
        heap: 1024,
        quick: false,
        properties: vec!["log.segment.bytes=268435456".to_owned()],
    })?;
    let kafka = node.tools();
    let broker = node.id().context("Kafka is not running")?;
    kafka.create_topic("bids", PARTITIONS)?;
    eprintln!("writing {} bids", arguments.events);
    topics::fill(kafka, "bids", bids())?;

    let folder = tempfile_folder()?;
    let mut report = Report::default();
    for run in 0..arguments.runs {
        for query in &arguments.queries {
            let expected = expected(*query, bids());
            // Whoever goes first meets a colder machine: they take turns.
            let mut order = arguments.contenders.clone();
            if run % 2 == 1 {
                order.reverse();
            }
            for contender in order {
                let name = format!("{}-{}-{run}", contender.name(), query.name());
                kafka.create_topic(&name, PARTITIONS)?;
                let job = Job {
                    query: *query,
                    bootstrap: node.bootstrap(),
                    group: &name,
                    input: "bids",
                    output: &name,
                    partitions: PARTITIONS.try_into()?,
                    events: arguments.events,
                    folder: folder.path(),
                };
                let figures = measure::measure(kafka, broker, contender, &job, expected)
                    .with_context(|| name.clone())?;
                kafka.delete_topic(&name)?;
                eprintln!(
                    "{name}: {:.0} events/s, {:.2} CPU s a million, {:.0} MiB; \
                     Kafka {:.1} CPU s, others {:.1} CPU s",
                    figures.events_per_second,
                    figures.cpu_seconds_per_million,
                    figures.max_resident_mib,
                    figures.broker_cpu_seconds,
                    figures.others_cpu_seconds
                );
                report.add(*query, contender, figures);
            }
        }
    }
    let table = report.table(&arguments.queries, &arguments.contenders);
    println!("{table}");
    let bench = workspace::root().join("tests/bench");
    let name = arguments.record.as_deref().unwrap_or("latest");
    let path = report.save(
        &bench.join("results"),
        name,
        arguments.events,
        arguments.seed,
    )?;
    let shown = path.strip_prefix(workspace::root()).unwrap_or(&path);
    eprintln!("all figures: {}", shown.display());
    if arguments.record.is_some() {
        let circumstances = format!(
            "{} events a run, median of {}; every run in `results/{name}.json`",
            arguments.events, arguments.runs
        );
        report.record(&bench.join("README.md"), &circumstances, &table)?;
    }
    Ok(())
}

fn tempfile_folder() -> Result<tempfile::TempDir> {
    tempfile::Builder::new()
        .prefix("millstream-bench-")
        .tempdir()
        .context("cannot make a folder for the contenders")
}
