//! A runtime at a point of growth: it stands while its topic is filled, then works it off.
//!
//! ```text
//! start ─▶ ready ─▶ paused ─▶ the topic is filled ─▶ resumed ─▶ all groups are at its end ─▶ checked
//!                               └ embedded: ended and                │
//!                                 started again, still paused        └ processor time, clock
//! ```
//! So start-up and filling are in none of its figures; the memory at most is that of the process which
//! worked.

use std::path::Path;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail, ensure};
use millstream_test_support::kafka::KafkaNode;
use millstream_test_support::metrics::Scrape;
use millstream_test_support::process::get;
use millstream_test_support::wait::Deadline;
use serde::Serialize;
use tokio::time::Instant;

use super::point::Point;
use crate::comparison::PARTITIONS;
use crate::contender::{Contender, Durability, Job, Launch, Started};
use crate::deploys::{Ground, rest};
use crate::input::Input;
use crate::measure::{machine_cpu, process_cpu};
use crate::progress::Progress;
use crate::workload::{Step, Tally, Workload, expected};
use crate::{embedded, millstream, topics};

const PATIENCE: Duration = Duration::from_secs(1_800);
/// Between two looks at a group, at least.
const STEP: Duration = Duration::from_millis(20);

/// What a run of a point showed. Events count once, however many consumers there are.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Figures {
    /// Of the runtime, while it worked.
    pub cpu_seconds_per_million: f64,
    pub nanoseconds_per_event_and_consumer: f64,
    /// From the moment when the last consumer was told to go on to the last commit.
    pub events_per_second: f64,
    /// Events that cross into the plugin in one call; none where nothing does.
    pub events_per_call: f64,
    /// Resident before it worked.
    pub ready_mib: f64,
    /// Resident at most.
    pub max_resident_mib: f64,
    /// Processor time of programs that are no part of it, and of the whole machine, in seconds.
    pub others_cpu_seconds: f64,
    pub machine_cpu_seconds: f64,
}

/// Where points are measured.
pub struct Bench<'a> {
    /// `None` where no point is on Kafka.
    pub node: Option<&'a KafkaNode>,
    pub folder: &'a Path,
    pub seed: u64,
}

/// A runtime that stands, and what it has cost in all its work so far.
struct Stage<'a> {
    job: &'a Job<'a>,
    started: Started,
    admin: String,
    seconds: f64,
    cpu: f64,
    others: f64,
    machine: f64,
    /// The processes whose work is none of others'.
    broker: Option<u32>,
}

impl Bench<'_> {
    /// Measures a point once.
    ///
    /// # Errors
    /// The runtime fails, or writes something else than it should.
    pub fn measure(&self, point: &Point, run: u32) -> Result<Figures> {
        let name = format!("{}-{run}", point.name());
        let folder = self.folder.join(&name);
        std::fs::create_dir(&folder).context("cannot make a folder")?;
        let (input, output) = (format!("{name}-in"), format!("{name}-out"));
        let job = Job {
            workload: Workload::Q0,
            bootstrap: self.node.map_or("", KafkaNode::bootstrap),
            groups: (0..point.consumers)
                .map(|number| format!("{name}-{number}"))
                .collect(),
            input: &input,
            output: &output,
            partitions: point.partitions,
            events: point.events,
            seed: self.seed,
            folder: &folder,
        };
        let figures = match point.ground {
            Ground::Kafka => self.on_kafka(point, &job),
            Ground::Embedded => self.embedded(point, &job),
        };
        let log = || std::fs::read_to_string(Contender::Millstream.log(&folder));
        let figures = figures.with_context(|| format!("{name}: {}", log().unwrap_or_default()))?;
        // A store of a million events is large, and the next point has its own.
        std::fs::remove_dir_all(&folder).context("cannot remove a folder")?;
        Ok(figures)
    }

    fn on_kafka(&self, point: &Point, job: &Job<'_>) -> Result<Figures> {
        let node = self.node.context("there is no Kafka")?;
        let kafka = node.tools();
        kafka.create_topic(job.input, point.partitions)?;
        kafka.create_topic(job.output, PARTITIONS)?;
        let settings = point.settings();
        let launch = millstream::launch(job, millstream::Kind::with(&settings))?;
        let mut stage = Stage::start(job, launch, node.id())?;
        stage.pause(true)?;
        let ready = stage.resident()?;
        for round in 1..=point.rounds {
            topics::fill(kafka, job.input, input(point), job.seed, point.events)?;
            let progress = |job: &Job<'_>| Progress::on_kafka(kafka, job);
            stage.work(point.events * round, progress)?;
            if round < point.rounds {
                stage.pause(true)?;
            }
        }
        let figures = stage.end(point, ready)?;
        let written = topics::tally(kafka, job.output, Step::Pass)?;
        check(point, job, written)?;
        kafka.delete_topic(job.input)?;
        kafka.delete_topic(job.output)?;
        Ok(figures)
    }

    fn embedded(&self, point: &Point, job: &Job<'_>) -> Result<Figures> {
        let launch = || {
            let settings = point.settings();
            let consumers = millstream::consumers(job, millstream::Kind::with(&settings));
            millstream::run(&embedded::broker(job, Durability::Sync), &consumers, job)
        };
        // A pause by hand holds over a restart.
        let mut stage = Stage::start(job, launch()?, None)?;
        stage.pause(true)?;
        embedded::write(&stage.admin, job.input, input(point), job.seed, job.events)?;
        stage.drain()?;
        let mut stage = Stage::start(job, launch()?, None)?;
        let ready = stage.resident()?;
        let admin = stage.admin.clone();
        stage.work(job.events, |job| {
            Ok(Progress::Embedded {
                admin: admin.clone(),
                groups: job.groups.clone(),
            })
        })?;
        let figures = stage.end(point, ready)?;
        check(point, job, embedded::tally(job)?)?;
        Ok(figures)
    }
}

/// The events of a point.
fn input(point: &Point) -> Input {
    match point.filters() {
        true => Input::ClassedBids,
        false => Input::Bids,
    }
}

/// Each event came out as often as it should.
fn check(point: &Point, job: &Job<'_>, written: Tally) -> Result<()> {
    let wanted = match point.filters() {
        true => Tally::default(),
        false => {
            let times = point.rounds * u64::from(point.consumers);
            expected(job.workload, job.seed, job.events)?.times(times)
        }
    };
    ensure!(
        written == wanted,
        "{written:?} was written, but {wanted:?} was expected"
    );
    Ok(())
}

impl<'a> Stage<'a> {
    fn start(job: &'a Job<'a>, launch: Launch, broker: Option<u32>) -> Result<Self> {
        let started = Contender::Millstream.start(job, launch)?;
        let admin = started.admin.clone().context("no interface")?;
        millstream::until_ready(&admin)?;
        Ok(Self {
            job,
            started,
            admin,
            seconds: 0.0,
            cpu: 0.0,
            others: 0.0,
            machine: 0.0,
            broker,
        })
    }

    /// All of them as nearly at once as requests can be.
    fn pause(&self, paused: bool) -> Result<()> {
        let names = millstream::names(self.job);
        thread::scope(|scope| {
            let asking: Vec<_> = names
                .iter()
                .map(|name| scope.spawn(|| millstream::pause(&self.admin, name, paused)))
                .collect();
            asking
                .into_iter()
                .try_for_each(|one| one.join().map_err(|_| anyhow!("a request panicked"))?)
        })
    }

    fn resident(&self) -> Result<f64> {
        let bytes = self.started.process.resident().context("it has ended")?;
        Ok(bytes as f64 / 1_048_576.0)
    }

    /// Lets it go on until each group has settled so many events.
    fn work(&mut self, until: u64, progress: impl Fn(&Job<'a>) -> Result<Progress>) -> Result<()> {
        // One group after the other: a look at all of them, again and again, would be work too.
        let alone = |group: &String| {
            progress(&Job {
                groups: vec![group.clone()],
                ..self.job.clone()
            })
        };
        let mut working = self
            .job
            .groups
            .iter()
            .map(alone)
            .collect::<Result<Vec<_>>>()?;
        let (cpu, own, machine) = self.used()?;
        self.pause(false)?;
        let begun = Instant::now();
        let deadline = Deadline::after(PATIENCE);
        while let Some(group) = working.last() {
            let asked = Instant::now();
            let stands = group.committed();
            let took = asked.elapsed();
            if stands >= until {
                working.pop();
                continue;
            }
            if !self.started.process.running() || deadline.passed() {
                bail!("a group stands at {stands} of {until} events");
            }
            // With many partitions a look is work for the broker: a fifth of the time at most.
            rest((took * 4).max(STEP));
        }
        self.seconds += begun.elapsed().as_secs_f64();
        let (cpu_now, own_now, machine_now) = self.used()?;
        self.cpu += cpu_now - cpu;
        self.machine += machine_now - machine;
        self.others += (machine_now - machine - (own_now - own)).max(0.0);
        Ok(())
    }

    /// Processor time so far: the runtime's, that of all that takes part, the machine's.
    fn used(&self) -> Result<(f64, f64, f64)> {
        let runtime = process_cpu(self.started.process.id())?;
        let broker = self.broker.map_or(Ok(0.0), process_cpu)?;
        let own = process_cpu(std::process::id())?;
        Ok((runtime, runtime + broker + own, machine_cpu()?))
    }

    /// Ends it in order.
    fn drain(&mut self) -> Result<()> {
        let process = &mut self.started.process;
        process.terminate()?;
        let status = process.wait(PATIENCE)?;
        ensure!(status.success(), "the runtime ended with {status}");
        Ok(())
    }

    fn end(mut self, point: &Point, ready_mib: f64) -> Result<Figures> {
        let (_, metrics) = get(&self.admin, "/metrics")?;
        let outcome = if point.filters() { "filtered" } else { "ok" };
        let metrics = Scrape::parse(&metrics)?;
        let settled = metrics.sum("millstream_events_settled_total", &[("outcome", outcome)]);
        let called = metrics.sum("millstream_batch_events_sum", &[]);
        let calls = metrics.sum("millstream_batch_events_count", &[]);
        let handled = point.handled();
        ensure!(
            settled as u64 == handled,
            "{settled} events were {outcome}, not {handled}"
        );
        let most = self.started.process.high_water().context("it has ended")?;
        self.drain()?;
        let events = (point.events * point.rounds) as f64;
        Ok(Figures {
            cpu_seconds_per_million: self.cpu * 1e6 / events,
            nanoseconds_per_event_and_consumer: self.cpu * 1e9 / handled as f64,
            events_per_second: events / self.seconds,
            events_per_call: called / calls.max(1.0),
            ready_mib,
            max_resident_mib: most as f64 / 1_048_576.0,
            others_cpu_seconds: self.others,
            machine_cpu_seconds: self.machine,
        })
    }
}
