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
mod deploys;
mod flame;
mod latency;
mod librdkafka;
mod measure;
mod profile;
mod query;
mod report;
mod spinning;
mod topics;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, ensure};
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
        default_value = "bound,millstream,exactly-once,exactly-once-wide"
    )]
    contenders: Vec<Contender>,
    /// Measure the time from produce to derived event instead, at so many events a second.
    #[arg(long, value_name = "EVENTS_A_SECOND")]
    latency: Option<u32>,
    /// Sample each contender once instead, and write flame graphs and tables to this folder.
    #[arg(long, value_name = "FOLDER")]
    profile: Option<PathBuf>,
    /// For how long, with --latency.
    #[arg(long, default_value_t = 20)]
    seconds: u32,
    /// A property of librdkafka for the runtime, such as debug=eos; may be given again.
    #[arg(long, value_name = "NAME=VALUE")]
    property: Vec<String>,
    /// Keep the figures as tests/bench/results/NAME.json and put them into tests/bench/README.md.
    #[arg(long, value_name = "NAME")]
    record: Option<String>,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// The bare loop itself; the comparison starts it as a process of its own.
    #[command(hide = true)]
    Bound(bound::Task),
    Deploys(deploys::Arguments),
    Spinning(spinning::Arguments),
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let result = match (&arguments.command, arguments.latency) {
        (Some(Command::Bound(task)), _) => bound::run(task),
        (Some(Command::Deploys(arguments)), _) => deploys::run(arguments),
        (Some(Command::Spinning(arguments)), _) => spinning::run(arguments),
        (None, Some(rate)) => delays(&arguments, rate),
        (None, None) => match &arguments.profile {
            Some(folder) => sample(&arguments, folder),
            None => compare(&arguments),
        },
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
    let node = kafka_node()?;
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
                    properties: &arguments.property,
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

/// Samples each contender on each query, and prints where the time of an event goes.
fn sample(arguments: &Arguments, folder: &Path) -> Result<()> {
    profile::check()?;
    for contender in &arguments.contenders {
        contender.check(&arguments.queries)?;
    }
    let node = kafka_node()?;
    let kafka = node.tools();
    kafka.create_topic("bids", PARTITIONS)?;
    topics::fill(kafka, "bids", Bids::new(arguments.seed, arguments.events))?;
    let work = tempfile_folder()?;
    let folder = &std::path::absolute(folder)?;
    fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    for query in &arguments.queries {
        for contender in &arguments.contenders {
            let name = format!("{}-{}", contender.name(), query.name());
            kafka.create_topic(&name, PARTITIONS)?;
            let job = Job {
                query: *query,
                bootstrap: node.bootstrap(),
                group: &name,
                input: "bids",
                output: &name,
                partitions: PARTITIONS.try_into()?,
                events: arguments.events,
                folder: work.path(),
                properties: &arguments.property,
            };
            let samples = folder.join(format!("{name}.data"));
            let (status, _) = contender.start_sampled(&job, &samples)?.wait_for_cpu()?;
            let log = fs::read_to_string(contender.log(work.path())).unwrap_or_default();
            ensure!(status.success(), "{name} ended with {status}:\n{log}");
            kafka.delete_topic(&name)?;
            let flame = folder.join(format!("{name}.svg"));
            let profile = profile::read(&samples, &flame, &name)?;
            println!(
                "{name}: {}\n\n{}",
                flame.display(),
                profile.table(arguments.events)
            );
        }
    }
    Ok(())
}

/// Prints how long events take at a steady rate, straight through Kafka and through each contender.
fn delays(arguments: &Arguments, rate: u32) -> Result<()> {
    let node = kafka_node()?;
    let folder = tempfile_folder()?;
    println!(
        "{rate} events/s for {} s, one q0 consumer; milliseconds from produce to reader\n\n\
         | contender | p50 | p99 | p99.9 | max |\n| --- | ---: | ---: | ---: | ---: |",
        arguments.seconds
    );
    for run in 0..arguments.runs {
        let contenders = arguments.contenders.iter().copied();
        let through = contenders.filter(|contender| *contender != Contender::Bound);
        for contender in [None].into_iter().chain(through.map(Some)) {
            let name = contender.map_or("straight", Contender::name);
            let plan = latency::Plan {
                contender,
                topic: format!("{name}-{run}"),
                partitions: PARTITIONS,
                rate,
                seconds: arguments.seconds,
                seed: arguments.seed,
                folder: folder.path(),
                properties: &arguments.property,
            };
            let delays = latency::measure(node.tools(), node.bootstrap(), &plan)?;
            println!(
                "| {name} | {} | {} | {} | {} |",
                delays.at(0.5),
                delays.at(0.99),
                delays.at(0.999),
                delays.at(1.0)
            );
        }
    }
    Ok(())
}

fn kafka_node() -> Result<KafkaNode> {
    KafkaNode::start_with(Options {
        heap: 1024,
        quick: false,
        properties: vec!["log.segment.bytes=268435456".to_owned()],
    })
}

fn tempfile_folder() -> Result<tempfile::TempDir> {
    tempfile::Builder::new()
        .prefix("millstream-bench-")
        .tempdir()
        .context("cannot make a folder for the contenders")
}
