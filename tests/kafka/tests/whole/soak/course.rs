//! One run on one broker: a minute's trouble after another while lines flow, and what came of it.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use millstream_test_support::kafka_tools::KafkaRecord;
use millstream_test_support::metrics::Scrape;
use millstream_test_support::process::{Running, Site};
use millstream_test_support::wait::{Deadline, step};
use tokio::time::Instant;

use super::super::order_lines::{self, Line};
use super::super::outcome::Outcome;
use super::super::setup::PATIENCE;
use super::super::verify::{Expected, Promise};
use super::feeder::{self, Fed};
use super::gauge::{Gauge, Sample};
use super::stage::{self, Stage, VISITS};

/// So many calls after the last the plugin's outage ends, each this long after the one before.
const CALLS_DOWN: u64 = 10;
const DOWN_MS: u64 = 200;
/// Events of a topic that comes and goes.
const VISIT: usize = 20;

/// A run and what was seen of it.
#[derive(Debug, Default)]
pub struct Course {
    pub broker: &'static str,
    pub samples: Vec<Sample>,
    /// The end of each minute, and how many lines had been fed by then.
    pub minutes: Vec<(Duration, usize)>,
    /// Lines that were fed in all.
    pub lines: usize,
    pub outcomes: Vec<Outcome>,
    /// What ended it early, or was wrong at the end.
    pub failed: Option<String>,
    /// Of the lasting runtime.
    pub logs: String,
}

/// Plays so many minutes on a broker.
pub fn run(stage: Stage, minutes: u32) -> Course {
    let mut course = Course {
        broker: stage.broker,
        ..Course::default()
    };
    if let Err(error) = course.play(&stage, minutes) {
        course.failed = Some(format!("{error:#}"));
    }
    course
}

impl Course {
    fn play(&mut self, stage: &Stage, minutes: u32) -> Result<()> {
        let lines = order_lines::mixed()?;
        let mut lasting = stage.site.start(&[])?;
        let lived = self.live(stage, &lines, &mut lasting, minutes);
        self.logs = lasting.logs();
        let fed = lived?;
        lasting.terminate()?;
        lasting.succeed(PATIENCE)?;
        self.lines = fed.lines.into_inner();
        self.compare(stage, &lines)?;
        sides(stage, fed.sides.into_inner(), minutes as usize)
    }

    /// From the first event until all are settled.
    fn live(
        &mut self,
        stage: &Stage,
        lines: &[Line],
        lasting: &mut Running,
        minutes: u32,
    ) -> Result<Fed> {
        lasting.until_ready(PATIENCE)?;
        until_done(lasting, stage.partitions)?;
        let gauge = Gauge {
            id: lasting.id(),
            admin: stage.site.admin(),
            start: Instant::now(),
        };
        let fed = Fed::default();
        let (fed_enough, seen_enough) = (AtomicBool::new(false), AtomicBool::new(false));
        let (samples, done) = thread::scope(|scope| {
            let feeder = scope.spawn(|| feeder::feed(&stage.source, lines, &fed, &fed_enough));
            let watcher = scope.spawn(|| gauge.watch(&seen_enough));
            let all_well = || !feeder.is_finished() && !watcher.is_finished();
            let mut played = Ok(());
            for number in 1..=minutes {
                let minute = Deadline::after(Duration::from_secs(60));
                let trouble = trouble(stage, lasting, number);
                played = trouble.with_context(|| format!("minute {number}"));
                while played.is_ok() && all_well() && !minute.passed() {
                    step();
                }
                let lines = fed.lines.load(Ordering::Acquire);
                self.minutes.push((gauge.start.elapsed(), lines));
                if played.is_err() || !all_well() {
                    break;
                }
            }
            fed_enough.store(true, Ordering::Release);
            let fed = feeder.join().ok().context("the feeder panicked");
            let done = played.and_then(|()| until_done(lasting, stage.partitions));
            seen_enough.store(true, Ordering::Release);
            let (samples, watched) = match watcher.join() {
                Ok(watched) => watched,
                Err(_) => (Vec::new(), Err(anyhow::anyhow!("the gauge panicked"))),
            };
            (samples, watched.and(fed.and_then(|fed| fed)).and(done))
        });
        self.samples = samples;
        done.map(|()| fed)
    }

    /// What the topics hold against what must come of the lines.
    fn compare(&mut self, stage: &Stage, lines: &[Line]) -> Result<()> {
        let expected = Expected::of(&feeder::cycle(lines, 0, self.lines));
        for consumer in &stage.consumers {
            let (promise, names) = (consumer.promise, &consumer.names);
            let name = promise.delivery();
            let topics = [&names.orders, &names.large, &names.dead_letters];
            let read = topics.map(|topic| stage.read(topic));
            let read = read.into_iter().collect::<Result<Vec<_>>>()?;
            let outcome = promise
                .kept_in(&read, name, &expected)
                .with_context(|| format!("{name} is not kept"))?;
            self.outcomes.push(outcome);
        }
        Ok(())
    }
}

/// What goes wrong in each minute: an outage, a poison event, a rebalance.
fn trouble(stage: &Stage, lasting: &mut Running, number: u32) -> Result<()> {
    let scrape = lasting.scrape()?;
    let calls = scrape.sum(
        "millstream_plugin_call_duration_seconds_count",
        &[("consumer", "outage")],
    );
    let before = opened(&scrape);
    let down = format!("unavailable-for {} {DOWN_MS}", calls as u64 + CALLS_DOWN);
    stage
        .source
        .produce(&[(&stage.source.outage, "down", &down)])?;
    let closed = [("consumer", "outage"), ("state", "closed")];
    lasting.until_scrape("through the outage", PATIENCE, |scrape| {
        opened(scrape) > before && scrape.sum("millstream_breaker_state", &closed) > 0.5
    })?;

    let letters = [("consumer", "poison"), ("reason", "trap")];
    let before = scrape.sum("millstream_dead_letters_total", &letters);
    stage
        .source
        .produce(&[(&stage.source.poison, "poison", "trap")])?;
    lasting.until_scrape("rid of the poison", PATIENCE, |scrape| {
        scrape.sum("millstream_dead_letters_total", &letters) > before
    })?;

    match &stage.visitor {
        Some(site) => join_and_leave(site, lasting, stage.partitions),
        None => topic_comes_and_goes(stage, lasting, number),
    }
}

fn opened(scrape: &Scrape) -> f64 {
    let of = [("consumer", "outage"), ("to", "open")];
    scrape.sum("millstream_breaker_transitions_total", &of)
}

/// A second runtime takes its part of the partitions, works on them, and leaves.
fn join_and_leave(site: &Site, lasting: &mut Running, partitions: f64) -> Result<()> {
    let mut visitor = site.start(&[])?;
    visitor.until_ready(PATIENCE)?;
    let mut unaccounted = None;
    visitor.until_scrape("at work on its part", PATIENCE, |scrape| {
        unaccounted = unaccounted.take().or(scrape.check_accounting().err());
        unaccounted.is_some()
            || [Promise::AtMost, Promise::AtLeast, Promise::Exactly]
                .iter()
                .all(|promise| {
                    let of = [("consumer", promise.delivery()), ("outcome", "ok")];
                    scrape.sum("millstream_events_settled_total", &of) > 0.5
                })
    })?;
    unaccounted.map_or(Ok(()), Err)?;
    visitor.terminate()?;
    visitor.succeed(PATIENCE)?;
    lasting.until_scrape("alone with all partitions", PATIENCE, |scrape| {
        assigned(scrape) >= partitions
    })
}

/// A topic is made, read and deleted: partitions are assigned and taken away.
fn topic_comes_and_goes(stage: &Stage, lasting: &mut Running, number: u32) -> Result<()> {
    let topic = format!("visit-{number}");
    let done = [("consumer", VISITS), ("outcome", "ok")];
    let settled = |scrape: &Scrape| scrape.sum("millstream_events_settled_total", &done);
    let before = settled(&lasting.scrape()?);
    stage
        .site
        .succeed(&["topics", "create", &topic, "--partitions", "2"])?;
    stage.source.produce(&[(&*topic, "visit", "good"); VISIT])?;
    lasting.until_scrape("through the visit", PATIENCE, |scrape| {
        settled(scrape) > before + VISIT as f64 - 0.5
    })?;
    stage.site.succeed(&["topics", "delete", &topic])?;
    lasting.until_scrape("rid of the visit", PATIENCE, |scrape| {
        assigned(scrape) <= stage.partitions
    })
}

fn assigned(scrape: &Scrape) -> f64 {
    scrape.sum("millstream_assigned_partitions", &[])
}

/// Waits until a runtime that has all partitions has nothing left to do.
fn until_done(runtime: &mut Running, partitions: f64) -> Result<()> {
    runtime.until_scrape("done with everything", PATIENCE, |scrape| {
        assigned(scrape) >= partitions
            && scrape.sum("millstream_consumer_lag_events", &[]) < 0.5
            && scrape.sum("millstream_in_flight_events", &[]) < 0.5
    })
}

/// Whether each event of the side consumers came out, and each poison event is one dead letter.
fn sides(stage: &Stage, fed: usize, minutes: usize) -> Result<()> {
    let (outage, poison) = (&stage.source.outage, &stage.source.poison);
    for (side, wanted) in [(outage, fed + minutes), (poison, fed)] {
        let records = stage.read(&stage::derived(side))?;
        let sources: HashSet<_> = (records.iter())
            .map(|record| record.header("millstream-source"))
            .collect();
        let found = sources.len();
        ensure!(
            found == wanted,
            "{side}: {found} of {wanted} events came out"
        );
    }
    let letters = stage.read(&stage::dead(poison))?;
    let is_trap =
        |record: &&KafkaRecord| record.header("millstream-dlq-reason").as_deref() == Some("trap");
    if letters.len() != minutes || letters.iter().filter(is_trap).count() != minutes {
        bail!("{} dead letters for {minutes} traps", letters.len());
    }
    let none = stage.read(&stage::dead(outage))?.len();
    ensure!(none == 0, "an outage left {none} dead letters");
    Ok(())
}
