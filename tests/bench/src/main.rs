//! `make bench`: Millstream beside a bare librdkafka loop and beside what people use today.
//!
//! ```text
//! events by seed ─▶ topic ─▶ contender (a process) ─▶ topic ─▶ tally == independent calculation
//!                              │ watched from outside: commits, processor time, memory
//!                              └ contenders alternate; medians, ratios ─▶ table, results/*.json, *.svg
//! ```

mod bid;
mod bound;
mod caller;
mod chart;
mod comparison;
mod contender;
mod deliveries;
mod deploys;
mod embedded;
mod flame;
mod growth;
mod host;
mod input;
mod install;
mod late_server;
mod latency;
mod librdkafka;
mod measure;
mod millstream;
mod order;
mod peers;
mod profile;
mod progress;
mod report;
mod spinning;
mod steady;
mod table;
mod topics;
mod waiting;
mod workload;

use std::cell::Cell;
use std::path::PathBuf;
use std::process::ExitCode;
use std::str::FromStr;

use anyhow::{Context, Result, ensure};
use clap::{Parser, Subcommand};
use millstream_test_support::kafka::{KafkaNode, Options};
use millstream_test_support::workspace;
use serde_json::json;

use crate::comparison::Comparison;
use crate::contender::Contender;
use crate::report::Report;
use crate::table::Part;
use crate::workload::Workload;

/// Compares Millstream with a bare librdkafka loop and with its peers on one Kafka, which it starts
/// itself.
#[derive(Parser, Debug)]
struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
    /// Events of a run; workloads of larger events take fewer.
    #[arg(long, default_value_t = 2_000_000)]
    events: u64,
    /// Runs of each contender on each workload; figures are their medians.
    #[arg(long, default_value_t = 3)]
    runs: u32,
    /// Seed of the events.
    #[arg(long, default_value_t = 22)]
    seed: u64,
    #[arg(long, value_enum, value_delimiter = ',', default_value = "q0,q22")]
    workloads: Vec<Workload>,
    #[arg(
        long,
        value_enum,
        value_delimiter = ',',
        default_value = "bound,bound-headers,millstream,exactly-once,fields,embedded,kafka-streams,connect,connect-wasm,python"
    )]
    contenders: Vec<Contender>,
    /// Measure the time from produce to derived event instead, at each of these rates: events a
    /// second, or "half" for half of what the slowest contender manages.
    #[arg(long, value_name = "RATE", value_delimiter = ',')]
    latency: Vec<Rate>,
    /// Sample each contender once instead (the bound, or Millstream on Kafka), and write flame graphs to
    /// this folder.
    #[arg(long, value_name = "FOLDER")]
    profile: Option<PathBuf>,
    /// For how long, with --latency.
    #[arg(long, default_value_t = 20)]
    seconds: u32,
    /// Install the contenders and do no more.
    #[arg(long)]
    install: bool,
    /// Keep the figures as tests/bench/results/NAME.json and .svg, and put them into
    /// tests/bench/README.md.
    #[arg(long, value_name = "NAME")]
    record: Option<String>,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// The bare loop itself; the comparison starts it as a process of its own.
    #[command(hide = true)]
    Bound(bound::Task),
    Deploys(deploys::Arguments),
    Growth(growth::Arguments),
    Spinning(spinning::Arguments),
    Waiting(waiting::Arguments),
}

/// A rate of events.
#[derive(Clone, Copy, Debug)]
enum Rate {
    EventsASecond(u32),
    Half,
}

impl FromStr for Rate {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "half" => Ok(Self::Half),
            number => number
                .parse()
                .map(Self::EventsASecond)
                .map_err(|error| format!("{error}; a rate is a number or \"half\"")),
        }
    }
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let result = match &arguments.command {
        Some(Command::Bound(task)) => bound::run(task),
        Some(Command::Deploys(arguments)) => deploys::run(arguments),
        Some(Command::Growth(arguments)) => growth::run(arguments),
        Some(Command::Spinning(arguments)) => spinning::run(arguments),
        Some(Command::Waiting(arguments)) => waiting::run(arguments),
        None => run(&arguments),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<()> {
    let mut report = Report::default();
    let contenders = prepare(arguments, &mut report)?;
    if arguments.install {
        return Ok(());
    }
    let node = needs_kafka(arguments, &contenders)
        .then(kafka_node)
        .transpose()?;
    let folder = tempfile::Builder::new()
        .prefix("millstream-bench-")
        .tempdir()
        .context("cannot make a folder for the contenders")?;
    let comparison = Comparison {
        node: node.as_ref(),
        folder: folder.path(),
        contenders: &contenders,
        runs: arguments.runs,
        seed: arguments.seed,
        warm: Cell::new(false),
    };
    if let Some(folder) = &arguments.profile {
        return profile::run(&comparison, &arguments.workloads, arguments.events, folder);
    }
    if arguments.latency.is_empty() {
        for workload in &arguments.workloads {
            comparison.compare(*workload, arguments.events, &mut report)?;
        }
    } else {
        delays(arguments, &comparison, &mut report)?;
    }
    keep(arguments, &report)
}

/// Delays on embedded brokers alone need none, and are better measured without one.
fn needs_kafka(arguments: &Arguments, contenders: &[Contender]) -> bool {
    let half = |rate: &Rate| matches!(rate, Rate::Half);
    let on_kafka = |contender: &Contender| contender.durability().is_none();
    let delays = !arguments.latency.is_empty() && arguments.profile.is_none();
    !delays || arguments.latency.iter().any(half) || contenders.iter().any(on_kafka)
}

/// A node that is set up for steady work.
fn kafka_node() -> Result<KafkaNode> {
    KafkaNode::start_with(Options {
        heap: 1024,
        quick: false,
        properties: vec!["log.segment.bytes=268435456".to_owned()],
    })
}

/// Installs the contenders; those of others may be missing, loudly.
fn prepare(arguments: &Arguments, report: &mut Report) -> Result<Vec<Contender>> {
    let mut ready = Vec::new();
    for contender in &arguments.contenders {
        match contender.prepare(&arguments.workloads) {
            Ok(()) => ready.push(*contender),
            Err(why) if contender.is_peer() => report.leave_out(*contender, &why),
            Err(why) => return Err(why),
        }
    }
    Ok(ready)
}

fn delays(arguments: &Arguments, comparison: &Comparison<'_>, report: &mut Report) -> Result<()> {
    for rate in &arguments.latency {
        let rate = match rate {
            Rate::EventsASecond(rate) => *rate,
            Rate::Half => {
                let mut maxima = Report::default();
                comparison.compare(Workload::Q0, arguments.events, &mut maxima)?;
                half(&maxima).context("no contender to take half of")?
            }
        };
        comparison.delays(rate, arguments.seconds, report)?;
    }
    Ok(())
}

/// Half of the events a second that the slowest contender managed, so that all can follow.
fn half(maxima: &Report) -> Option<u32> {
    let medians = maxima
        .pairs()
        .into_iter()
        .filter_map(|(workload, contender)| {
            let summary = maxima.summary(workload, contender)?;
            Some(summary.events_per_second.median)
        });
    let slowest = medians.min_by(f64::total_cmp)?;
    Some((slowest / 2.0) as u32)
}

/// Prints the tables, and writes what is to be kept.
fn keep(arguments: &Arguments, report: &Report) -> Result<()> {
    let (figures, delays) = (table::figures(report), table::delays(report));
    println!("{figures}{delays}");
    let results = table::folder().join("results");
    let name = arguments.record.as_deref().unwrap_or("latest");
    ensure!(!name.contains('/'), "a name is no path");
    let asked = json!({
        "events": arguments.events,
        "runs": arguments.runs,
        "seed": arguments.seed,
        "seconds": arguments.seconds,
    });
    let path = report.save(&results, name, &asked)?;
    let circumstances = table::circumstances(report);
    let events = table::thousands(arguments.events as f64);
    let mut length = format!("{events} events a run, median of {}", arguments.runs);
    if figures.is_empty() {
        length = format!(
            "{} s at each rate, median of {}",
            arguments.seconds, arguments.runs
        );
    } else {
        let svg = chart::draw(report, &format!("{length}. {circumstances}"));
        let picture = results.join(format!("{name}.svg"));
        std::fs::write(&picture, svg)
            .with_context(|| format!("cannot write {}", picture.display()))?;
    }
    let shown = path.strip_prefix(workspace::root()).unwrap_or(&path);
    eprintln!("all figures: {}", shown.display());
    if arguments.record.is_some() {
        let begin = format!("{length}; every run in `results/{name}.json`. {circumstances}");
        if figures.is_empty() {
            Part::DELAYS.record(&format!("{begin}\n\n{delays}"))?;
        } else {
            let picture = format!("![the table as a picture](results/{name}.svg)");
            let block = format!("{picture}\n\n{begin}\n\n{figures}");
            Part::FIGURES.record(&block)?;
        }
    }
    Ok(())
}
