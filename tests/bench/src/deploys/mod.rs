//! `make deploys`: what a deploy costs the events that flow meanwhile.
//!
//! ```text
//! feeder, half of what the runtime can take ─▶ lines ─▶ runtime ─▶ orders ─▶ check: once, in order
//!                                                       ▲    └────▶ large ─▶ watcher: delays, and
//!                  a new version saved each second ─────┘                    when a version shows
//! ```
//! Windows without deploys stand before and behind the one with them. The version is the currency
//! that the plugin writes, so that a reader sees which one made an event.

pub mod check;
pub mod delays;
mod feeder;
mod report;
mod stage;
mod watcher;
mod window;

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::ValueEnum;
use millstream_test_support::wait::Deadline;
use tokio::time::Instant;

use feeder::Feeder;
pub use feeder::rest;
use report::{Course, FirstEvents};
use stage::{Build, Stage};
use watcher::Watcher;
use window::Window;

/// Events of the backlog by which the most that a runtime can take is found.
const BACKLOG: u64 = 400_000;
/// What is fed before anything counts.
const WARM_UP: Duration = Duration::from_secs(8);
/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(300);
/// Events a second while it is measured how soon a version handles its first.
const CALM: f64 = 10_000.0;
/// How often this is measured for each kind of component.
const FIRSTS: usize = 20;

/// Where events are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Ground {
    Embedded,
    Kafka,
}

/// The guarantee of the consumer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Delivery {
    AtLeastOnce,
    ExactlyOnce,
}

impl Delivery {
    /// As the configuration has it.
    pub fn name(self) -> &'static str {
        match self {
            Self::AtLeastOnce => "at-least-once",
            Self::ExactlyOnce => "exactly-once",
        }
    }
}

/// Measures deploys under load on both brokers.
#[derive(clap::Args, Debug)]
pub struct Arguments {
    /// Deploys, one a second.
    #[arg(long, default_value_t = 100)]
    deploys: u32,
    /// Seconds without deploys, before as behind.
    #[arg(long, default_value_t = 40)]
    seconds: u32,
    #[arg(
        long,
        value_enum,
        value_delimiter = ',',
        default_value = "embedded,kafka"
    )]
    grounds: Vec<Ground>,
    #[arg(
        long,
        value_enum,
        value_delimiter = ',',
        default_value = "at-least-once,exactly-once"
    )]
    deliveries: Vec<Delivery>,
    /// Events a second, where it is not to be half of the most.
    #[arg(long)]
    rate: Option<f64>,
}

/// Runs all of it and prints what was seen.
///
/// # Errors
/// A broker or a runtime does not start, or an event does not come out.
pub fn run(arguments: &Arguments) -> Result<()> {
    let mut courses = Vec::new();
    for ground in &arguments.grounds {
        for delivery in &arguments.deliveries {
            let course = play(arguments, *ground, *delivery)
                .with_context(|| format!("{ground:?}, {}", delivery.name()))?;
            eprintln!("{}", course.summary());
            courses.push(course);
        }
    }
    println!("{}", report::table(&courses));
    Ok(())
}

fn play(arguments: &Arguments, ground: Ground, delivery: Delivery) -> Result<Course> {
    let mut stage = Stage::start(ground, delivery)?;
    // From the beginning, so that it has caught up when delays count.
    let watcher = Watcher::start(stage.way())?;
    let most = most(&mut stage)?;
    let mut fed = BACKLOG;
    let mut rate = arguments.rate.unwrap_or(most / 2.0);
    eprintln!(
        "{ground:?}, {}: {most:.0} events/s at most",
        delivery.name()
    );

    // Half of the most by a full topic may be more than can be fed and read beside it.
    let (feeder, before) = loop {
        let feeder = Feeder::start(stage.way(), fed, rate);
        let warm = Deadline::after(WARM_UP);
        while !warm.passed() {
            millstream_test_support::wait::step();
        }
        let window = Window::of(&mut stage, &watcher, arguments.seconds, |_, _| Ok(()))?;
        if window.rate() > rate * 0.97 && window.lag < rate {
            break (feeder, window);
        }
        eprintln!(
            "{rate:.0} events/s are too many: {:.0} were settled, {:.0} wait",
            window.rate(),
            window.lag
        );
        fed = feeder.finish()?;
        stage.until_settled(fed, PATIENCE)?;
        rate *= 0.75;
    };
    let during = Window::of(&mut stage, &watcher, arguments.deploys, |stage, _| {
        stage.deploy(Build::Cached)
    })?;
    let behind = Window::of(&mut stage, &watcher, arguments.seconds, |_, _| Ok(()))?;
    fed = feeder.finish()?;
    stage.until_settled(fed, PATIENCE)?;
    let under_load = FirstEvents::of(&stage, &watcher)?;

    let mut firsts = Vec::new();
    let feeder = Feeder::start(stage.way(), fed, CALM);
    // A feeder that has just begun has no event yet for a new version.
    stage.until_settled(fed + CALM as u64, PATIENCE)?;
    for build in [Build::Cached, Build::Fresh] {
        let first = stage.versions();
        for _ in 0..FIRSTS {
            let generation = stage.generation()?;
            stage.deploy(build)?;
            until_seen(&watcher, stage.versions() - 1)?;
            // The next save is not to wait until this one is written down.
            stage.until_generation(generation + 1)?;
        }
        firsts.push(FirstEvents::since(&stage, &watcher, first)?);
    }
    fed = feeder.finish()?;
    stage.until_settled(fed, PATIENCE)?;
    watcher.finish()?;
    let (deploys, failed) = stage.deploys()?;
    ensure!(failed < 0.5, "{failed} deploys failed");
    let found = check::check(&stage, fed)?;
    let fresh = firsts.pop().context("nothing was deployed fresh")?;
    let cached = firsts
        .pop()
        .context("nothing was deployed from the cache")?;
    let course = Course {
        ground,
        delivery,
        most,
        rate,
        without: [before, behind],
        during,
        under_load,
        cached,
        fresh,
        deploys: deploys as u64,
        events: fed,
        found,
    };
    stage.end()?;
    Ok(course)
}

/// Events a second out of a full topic, start and end left out.
fn most(stage: &mut Stage) -> Result<f64> {
    stage.pause(true)?;
    stage.way().fill(BACKLOG)?;
    stage.pause(false)?;
    let at = |stage: &mut Stage, part: f64| -> Result<(f64, Instant)> {
        stage.until_settled((BACKLOG as f64 * part) as u64, PATIENCE)?;
        Ok((stage.settled()?, Instant::now()))
    };
    let (first, begun) = at(stage, 0.2)?;
    let (last, ended) = at(stage, 0.9)?;
    let took = ended.duration_since(begun).as_secs_f64();
    ensure!(last > first && took > 0.0, "all was settled at once");
    stage.until_settled(BACKLOG, PATIENCE)?;
    Ok((last - first) / took)
}

fn until_seen(watcher: &Watcher, version: usize) -> Result<()> {
    let what = format!("an event of version {version}");
    millstream_test_support::wait::eventually(&what, PATIENCE, || watcher.first(version).is_some())
}
