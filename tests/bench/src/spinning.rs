//! `make wall`: a plugin that spins on each processor, beside a third consumer that works.
//!
//! ```text
//! spin-0, spin-1, … ─▶ a call that never ends, one a processor
//! work, a full topic ─▶ third ─▶ events a second, without them and beside them
//!                 GET /healthz, fifty a second ─▶ how long each answer takes
//! ```

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};
use millstream_test_support::metrics::Scrape;
use millstream_test_support::process::{self, Running, Site};
use tokio::time::Instant;

use crate::deploys::delays::Delays;
use crate::deploys::rest;
use crate::millstream::{binary, component, pause};
use crate::steady;

const PATIENCE: Duration = Duration::from_secs(300);
/// Events of one request.
const REQUEST: u64 = 5_000;
/// Between two looks at the health.
const STEP: Duration = Duration::from_millis(20);
/// How long those that spin have done so before anything is measured.
const WARM_UP: Duration = Duration::from_secs(1);

/// Measures what plugins that spin leave to others.
#[derive(clap::Args, Debug)]
pub struct Arguments {
    /// Events of the third consumer, for each figure.
    #[arg(long, default_value_t = 600_000)]
    events: u64,
    /// How often, each with a runtime of its own.
    #[arg(long, default_value_t = 3)]
    rounds: u32,
}

/// Runs all of it and prints what was seen.
///
/// # Errors
/// The runtime does not start or does not answer.
pub fn run(arguments: &Arguments) -> Result<()> {
    let cores = thread::available_parallelism()?.get();
    println!(
        "| round | events/s alone | beside {cores} that spin | kept | /healthz ms alone p50 / p99 / \
         max | beside |\n| --- | ---: | ---: | ---: | ---: | ---: |"
    );
    for round in 0..arguments.rounds {
        let (alone, beside) = play(arguments.events, cores)?;
        println!(
            "| {round} | {:.0} | {:.0} | {:.0} % | {} | {} |",
            alone.rate,
            beside.rate,
            100.0 * beside.rate / alone.rate,
            shown(&alone.health),
            shown(&beside.health)
        );
    }
    Ok(())
}

/// What was seen of a full topic.
struct Figures {
    rate: f64,
    health: Delays,
}

fn shown(delays: &Delays) -> String {
    let [half, tail, most] = [0.5, 0.99, 1.0].map(|part| delays.at(part) as f64 / 1_000.0);
    format!("{half:.1} / {tail:.1} / {most:.1}")
}

fn play(events: u64, cores: usize) -> Result<(Figures, Figures)> {
    let site = Site::with_binary(binary())?;
    site.configure(&configuration(&site, cores))?;
    let mut running = site.start(&[])?;
    running.until_ready(PATIENCE)?;
    // Caches and heaps grow in the first one.
    work(&site, &mut running, 0, events / 4, |_| Ok(()))?;
    let done = events / 4;
    let alone = work(&site, &mut running, done, events, |_| Ok(()))?;
    let beside = work(&site, &mut running, done + events, events, |running| {
        for spin in 0..cores {
            write(&site, &format!("spin-{spin}"), "{\"value\":\"spin\"}\n")?;
        }
        let spinning = |scrape: &Scrape| {
            (0..cores).all(|spin| {
                let of = format!("spin-{spin}");
                scrape.sum("millstream_in_flight_events", &[("consumer", &of)]) > 0.5
            })
        };
        running.until_scrape("spinning", PATIENCE, spinning)?;
        rest(WARM_UP);
        Ok(())
    })?;
    // Those that spin are cut off.
    running.kill9()?;
    Ok((alone, beside))
}

/// Fills the topic, does something, and lets the third consumer work.
fn work(
    site: &Site,
    running: &mut Running,
    before: u64,
    events: u64,
    prepare: impl FnOnce(&mut Running) -> Result<()>,
) -> Result<Figures> {
    pause(&site.admin(), "third", true)?;
    let line = format!("{{\"value\":\"{}\"}}\n", "x".repeat(100));
    let mut left = events;
    while left > 0 {
        let count = left.min(REQUEST);
        write(site, "work", &line.repeat(usize::try_from(count)?))?;
        left -= count;
    }
    prepare(running)?;
    let health = Health::watch(site.admin());
    pause(&site.admin(), "third", false)?;
    let part = |part: f64| before as f64 + events as f64 * part;
    let rate = steady::rate(running, "third", part(0.1), part(0.9))?;
    let health = health.finish()?;
    running.until_scrape("done", PATIENCE, |scrape| {
        steady::settled(scrape, "third") >= part(1.0)
    })?;
    Ok(Figures { rate, health })
}

fn write(site: &Site, topic: &str, lines: &str) -> Result<()> {
    let (status, said) = process::post_lines(&site.admin(), &format!("/topics/{topic}"), lines)?;
    ensure!(status == 200, "{status}: {said}");
    Ok(())
}

/// Asks for the health again and again.
struct Health {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Result<Vec<i64>>>,
}

impl Health {
    fn watch(admin: String) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let thread = thread::spawn(move || {
            let mut took = Vec::new();
            while !stopped.load(Ordering::Acquire) {
                let asked = Instant::now();
                let (status, said) = process::get(&admin, "/healthz")?;
                ensure!(status == 200, "{status}: {said}");
                took.push(i64::try_from(asked.elapsed().as_micros())?);
                rest(STEP);
            }
            Ok(took)
        });
        Self { stop, thread }
    }

    /// How long the answers took, in microseconds.
    fn finish(self) -> Result<Delays> {
        self.stop.store(true, Ordering::Release);
        let took = self.thread.join();
        let took = took.map_err(|_| anyhow!("who asks for the health panicked"))?;
        took.map(Delays::of).context("the health is not told")
    }
}

/// A call of those that spin lasts for two minutes, as long as it is measured.
fn configuration(site: &Site, cores: usize) -> String {
    let plugin = component("hostile");
    let plugin = plugin.display();
    let mut text = format!(
        r#"[broker]
kind = "embedded"
min_free_disk = "64MiB"

[admin]
listen = "{}"

[[consumer]]
name = "third"
plugin = '{plugin}'
topics = ["work"]
start = "beginning"
config = {{ init = "honest" }}
outputs = {{ default = "worked" }}

[topics]
work = {{ partitions = 4 }}
worked = {{ partitions = 4 }}
"#,
        site.admin()
    );
    for spin in 0..cores {
        text += &format!(
            r#"spin-{spin} = {{ partitions = 1 }}
"#
        );
    }
    for spin in 0..cores {
        text += &format!(
            r#"
[[consumer]]
name = "spin-{spin}"
plugin = '{plugin}'
topics = ["spin-{spin}"]
start = "beginning"
concurrency = 1
circuit_breaker = false
limits = {{ deadline = "2m", call = "2m" }}
outputs = {{ default = "spun" }}
dead_letter = {{ topic = "dlq" }}
"#
        );
    }
    text
}
