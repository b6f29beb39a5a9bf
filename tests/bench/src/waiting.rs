//! `make waiting`: order by key with a plugin that waits for another service.
//!
//! ```text
//! a full topic, many keys ─▶ runtime, ordering = "key" ─▶ a request an event ─▶ a server that answers
//!                              concurrency = 64, or 1                            after a millisecond
//! out ─▶ check: each event once, each key in order
//! ```
//! Millstream alone, on its embedded broker: what is asked is how well waiting is spread, and no broker
//! has a part in that.

use std::thread;
use std::time::Duration;

use anyhow::{Result, anyhow, ensure};
use millstream_test_support::process::Site;
use serde::Serialize;
use serde_json::json;
use tokio::time::Instant;

use crate::caller::Caller;
use crate::deploys::check::{Found, check_embedded};
use crate::host::Host;
use crate::input::Input;
use crate::late_server::LateServer;
use crate::measure::{machine_cpu, process_cpu};
use crate::millstream::{binary, component, pause, version};
use crate::report::Spread;
use crate::table::{self, Part, spread, thousands};
use crate::{embedded, steady};

const PATIENCE: Duration = Duration::from_secs(600);
const CONSUMER: &str = "waiting";
const PARTITIONS: u32 = 4;
/// Instances at work at once: as many requests as a consumer may have under way.
const WIDE: u32 = 64;

/// Measures how well order by key spreads the waiting of a plugin.
#[derive(clap::Args, Debug)]
pub struct Arguments {
    /// Events with 64 instances; a fortieth of them with one.
    #[arg(long, default_value_t = 400_000)]
    events: u64,
    /// How often; figures are medians.
    #[arg(long, default_value_t = 3)]
    runs: u32,
    /// Seed of the events.
    #[arg(long, default_value_t = 22)]
    seed: u64,
    /// Keep the figures as tests/bench/results/NAME-waiting.json, and put them into
    /// tests/bench/README.md.
    #[arg(long, value_name = "NAME")]
    record: Option<String>,
}

/// Who asks the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
enum Asker {
    /// The runtime, with so many instances.
    Runtime(u32),
    /// So many threads that do nothing else: what the server and the machine allow.
    Threads(u32),
}

/// What a run showed.
#[derive(Clone, Copy, Debug, Serialize)]
struct Figures {
    events_per_second: f64,
    /// All that reached the server: more than events where calls were repeated.
    requests: u64,
    /// The most requests that the server had at once.
    at_once: usize,
    /// Of the runtime an event; none of threads, which share a process with the server.
    cpu_microseconds: Option<f64>,
}

type Runs = Vec<(Asker, Vec<Figures>)>;

/// Runs all of it and prints what was seen.
///
/// # Errors
/// The runtime fails, or an event is lost, comes twice or out of order.
pub fn run(arguments: &Arguments) -> Result<()> {
    let single = (arguments.events / 40).max(10);
    let mut all: Runs = [
        Asker::Threads(1),
        Asker::Runtime(1),
        Asker::Threads(WIDE),
        Asker::Runtime(WIDE),
    ]
    .map(|asker| (asker, Vec::new()))
    .to_vec();
    let (mut others, mut machine) = (0.0, 0.0);
    for _ in 0..arguments.runs {
        for (asker, runs) in &mut all {
            let before = (machine_cpu()?, process_cpu(std::process::id())?);
            let events = match asker {
                Asker::Runtime(1) | Asker::Threads(1) => single,
                _ => arguments.events,
            };
            let (figures, runtime) = match asker {
                Asker::Runtime(instances) => play(*instances, events, arguments.seed)?,
                Asker::Threads(threads) => (ask(*threads, events)?, 0.0),
            };
            let worked = machine_cpu()? - before.0;
            let ours = process_cpu(std::process::id())? - before.1 + runtime;
            machine += worked;
            others += (worked - ours).max(0.0);
            eprintln!("{asker:?}: {figures:?}");
            runs.push(figures);
        }
    }
    let share = (machine > 0.0).then(|| others / machine);
    keep(arguments, &all, share)
}

/// Lets the runtime work off a full topic; also the processor time of its whole life.
fn play(instances: u32, events: u64, seed: u64) -> Result<(Figures, f64)> {
    let server = LateServer::start()?;
    let site = Site::with_binary(binary())?;
    site.configure(&configuration(&site, &server, instances))?;
    let mut running = site.start(&[])?;
    running.until_ready(PATIENCE)?;
    pause(&site.admin(), CONSUMER, true)?;
    embedded::write(&site.admin(), "in", Input::Sized(100), seed, events)?;
    let before = process_cpu(running.id())?;
    pause(&site.admin(), CONSUMER, false)?;
    let part = |part: f64| events as f64 * part;
    let events_per_second = steady::rate(&mut running, CONSUMER, part(0.1), part(0.9))?;
    running.until_scrape("done", PATIENCE, |scrape| {
        steady::settled(scrape, CONSUMER) >= part(1.0)
    })?;
    let cpu = process_cpu(running.id())? - before;
    let found = check_embedded(&site.admin(), "out", PARTITIONS, events)?;
    ensure!(found == Found::default(), "{found:?}");
    // A call that misses its deadline, on a machine that is busy with else, asks again.
    let requests = server.requests() as u64;
    ensure!(
        requests >= events,
        "{requests} requests for {events} events"
    );
    running.terminate()?;
    let (status, whole) = running.process().wait_for_cpu()?;
    ensure!(status.success(), "the runtime ended with {status}");
    let figures = Figures {
        events_per_second,
        requests,
        at_once: server.most_at_once(),
        cpu_microseconds: Some(cpu * 1e6 / events as f64),
    };
    Ok((figures, whole.as_secs_f64()))
}

/// Lets threads ask, each with a connection of its own.
fn ask(threads: u32, events: u64) -> Result<Figures> {
    let server = LateServer::start()?;
    let each = (events / u64::from(threads)).max(1);
    let begun = Instant::now();
    thread::scope(|scope| {
        let asking = || -> Result<()> {
            let caller = Caller::new(&server.address());
            for _ in 0..each {
                let (status, _) = caller.get("/")?;
                ensure!(status == 200, "{status}");
            }
            Ok(())
        };
        let asking: Vec<_> = (0..threads).map(|_| scope.spawn(asking)).collect();
        asking
            .into_iter()
            .try_for_each(|one| one.join().map_err(|_| anyhow!("a thread panicked"))?)
    })?;
    Ok(Figures {
        events_per_second: (each * u64::from(threads)) as f64 / begun.elapsed().as_secs_f64(),
        requests: server.requests() as u64,
        at_once: server.most_at_once(),
        cpu_microseconds: None,
    })
}

fn configuration(site: &Site, server: &LateServer, instances: u32) -> String {
    format!(
        r#"[broker]
kind = "embedded"
min_free_disk = "64MiB"

[admin]
listen = "{admin}"

[topics]
in = {{ partitions = {PARTITIONS} }}
out = {{ partitions = {PARTITIONS} }}

[[consumer]]
name = "{CONSUMER}"
plugin = '{plugin}'
topics = ["in"]
start = "beginning"
ordering = "key"
concurrency = {instances}
capabilities = {{ http = ["{address}"] }}
config = {{ url = "{url}" }}
limits = {{ memory = "16MiB" }}
outputs = {{ default = "out" }}
"#,
        admin = site.admin(),
        plugin = component("millstream_bench_waiting").display(),
        address = server.address(),
        url = server.url(),
    )
}

/// Prints the table, and writes what is to be kept.
fn keep(arguments: &Arguments, all: &Runs, others_share: Option<f64>) -> Result<()> {
    let table = table(all);
    println!("{table}");
    let name = arguments.record.as_deref().unwrap_or("latest");
    ensure!(!name.contains('/'), "a name is no path");
    let name = format!("{name}-waiting");
    let runs = all
        .iter()
        .map(|(asker, runs)| json!({ "asker": asker, "runs": runs }));
    let figures = json!({
        "asked": { "events": arguments.events, "runs": arguments.runs, "seed": arguments.seed },
        "host": Host::here(),
        "version": version(),
        "others_share": others_share,
        "waiting": runs.collect::<Vec<_>>(),
    });
    crate::report::write(&table::folder().join("results"), &name, &figures)?;
    eprintln!("all figures: tests/bench/results/{name}.json");
    if arguments.record.is_some() {
        Part::WAITING.record(&format!(
            "{} events, median of {}; every run in `results/{name}.json`. {} {}.\n\n{table}",
            thousands(arguments.events as f64),
            arguments.runs,
            table::machine(others_share),
            version(),
        ))?;
    }
    Ok(())
}

fn table(all: &Runs) -> String {
    let rate = |wanted: Asker| {
        let (_, runs) = all.iter().find(|(asker, _)| *asker == wanted)?;
        Spread::of(runs.iter().map(|run| run.events_per_second).collect())
    };
    let mut text = String::from(
        "| who asks | events/s | requests at once | µs of processor an event | ÷ one of its kind |\n\
         | --- | ---: | ---: | ---: | ---: |\n",
    );
    for (asker, runs) in all {
        let (name, one) = match asker {
            Asker::Runtime(1) => ("Millstream, 1 instance".to_owned(), Asker::Runtime(1)),
            Asker::Runtime(count) => (format!("Millstream, {count} instances"), Asker::Runtime(1)),
            Asker::Threads(1) => ("1 thread".to_owned(), Asker::Threads(1)),
            Asker::Threads(count) => (format!("{count} threads"), Asker::Threads(1)),
        };
        let Some(events) = rate(*asker) else {
            continue;
        };
        let ratio = rate(one).map_or(0.0, |one| events.median / one.median);
        let cpu = Spread::of(runs.iter().filter_map(|run| run.cpu_microseconds).collect());
        text.push_str(&format!(
            "| {name} | {} | {} | {} | {ratio:.1} |\n",
            spread(events, thousands),
            runs.iter().map(|run| run.at_once).max().unwrap_or_default(),
            cpu.map_or("–".to_owned(), |cpu| spread(cpu, |cpu| format!(
                "{cpu:.0}"
            ))),
        ));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ratios_are_to_one_of_the_same_kind() {
        let runs = |rates: &[f64], cpu_microseconds| {
            let figures = |rate: &f64| Figures {
                events_per_second: *rate,
                requests: 1,
                at_once: 3,
                cpu_microseconds,
            };
            rates.iter().map(figures).collect::<Vec<_>>()
        };
        let table = table(&vec![
            (Asker::Threads(1), runs(&[900.0], None)),
            (Asker::Runtime(1), runs(&[800.0, 600.0, 700.0], Some(90.0))),
            (Asker::Runtime(64), runs(&[35_000.0], Some(50.0))),
        ]);
        for row in [
            "| 1 thread | 900 | 3 | – | 1.0 |",
            "| Millstream, 1 instance | 700 (600–800) | 3 | 90 | 1.0 |",
            "| Millstream, 64 instances | 35,000 | 3 | 50 | 50.0 |",
        ] {
            assert!(table.contains(row), "{table}");
        }
    }
}
