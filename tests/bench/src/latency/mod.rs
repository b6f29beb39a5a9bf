//! How long an event takes from its producer to a reader of what is derived from it.
//!
//! ```text
//! producer, so many a second ─▶ input ─▶ contender ─▶ output ─▶ reader: now − when this bid was sent
//!      └ notes when               └───── straight ───────────▶┘
//! ```
//! One clock: producer and reader are threads of this process, and a bid says which one it is. Straight,
//! the same reader reads the input: what the broker, the way to it and the reader take by themselves.

mod disk;
mod due;
mod embedded;
pub mod kafka;

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};
use millstream_test_support::kafka::KafkaNode;
use serde::Serialize;
use tokio::time::Instant;

use crate::contender::{Contender, Durability};

/// How long events may take altogether.
const PATIENCE: Duration = Duration::from_secs(60);
/// What is sent before anything counts: clients, caches and the plugin become warm.
const WARM_UP: Duration = Duration::from_secs(5);
/// How often a producer sends what is due.
const STEP: Duration = Duration::from_millis(1);

/// The way of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Route {
    /// Into a plain file, synced: what the disk itself takes.
    Disk,
    /// Through Kafka.
    StraightKafka,
    /// Through the embedded broker.
    StraightEmbedded(Durability),
    Through(Contender),
}

impl Route {
    /// The ways to measure for these contenders, each behind what it is to be compared with.
    pub fn all(contenders: &[Contender]) -> Vec<Self> {
        let mut routes = Vec::new();
        for contender in contenders {
            let before = match contender.durability() {
                None => vec![Self::StraightKafka],
                Some(durability) => vec![Self::Disk, Self::StraightEmbedded(durability)],
            };
            for route in before.into_iter().chain([Self::Through(*contender)]) {
                if !routes.contains(&route) {
                    routes.push(route);
                }
            }
        }
        routes
    }

    /// Its name in a table.
    pub fn name(self) -> &'static str {
        match self {
            Self::Disk => "append and sync of a file",
            Self::StraightKafka => "straight through Kafka",
            Self::StraightEmbedded(Durability::Sync) => "straight through the embedded broker",
            Self::StraightEmbedded(Durability::Os) => {
                "straight through the embedded broker, durability os"
            }
            Self::Through(contender) => contender.name(),
        }
    }

    /// Its name in a topic's.
    fn topic(self) -> &'static str {
        match self {
            Self::Disk => "disk",
            Self::StraightKafka => "straight",
            Self::StraightEmbedded(Durability::Sync) => "straight-embedded",
            Self::StraightEmbedded(Durability::Os) => "straight-embedded-os",
            Self::Through(contender) => contender.name(),
        }
    }

    /// The contender, where there is one.
    pub fn contender(self) -> Option<Contender> {
        match self {
            Self::Through(contender) => Some(contender),
            _ => None,
        }
    }
}

/// What is measured.
pub struct Plan<'a> {
    pub route: Route,
    pub run: u32,
    /// Events a second.
    pub rate: u32,
    pub seconds: u32,
    pub seed: u64,
    pub folder: &'a Path,
}

impl Plan<'_> {
    /// A name that no other plan has.
    pub fn name(&self) -> String {
        format!("{}-{}-{}", self.route.topic(), self.rate, self.run)
    }

    /// Events that are sent before anything counts.
    fn warm_up(&self) -> u64 {
        u64::from(self.rate) * WARM_UP.as_secs()
    }

    /// Events that are sent, those included.
    fn events(&self) -> u64 {
        self.warm_up() + u64::from(self.rate) * u64::from(self.seconds)
    }
}

/// How long events took, in milliseconds.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Delays {
    pub p50: f64,
    pub p99: f64,
    pub p999: f64,
    pub max: f64,
}

impl Delays {
    /// Of microseconds, in the order in which they were seen; those of the warm-up do not count.
    fn of(mut seen: Vec<u64>, plan: &Plan<'_>) -> Result<Self> {
        let mut counted = seen.split_off(usize::try_from(plan.warm_up())?);
        counted.sort_unstable();
        Ok(Self::of_sorted(&counted))
    }

    fn of_sorted(delays: &[u64]) -> Self {
        let at = |quantile: f64| {
            let last = delays.len().saturating_sub(1);
            let index = (last as f64 * quantile).round() as usize;
            delays.get(index).copied().unwrap_or_default() as f64 / 1000.0
        };
        Self {
            p50: at(0.5),
            p99: at(0.99),
            p999: at(0.999),
            max: at(1.0),
        }
    }
}

/// When each bid was sent, in microseconds since `begun`.
struct Sent {
    begun: Instant,
    at: Vec<AtomicU64>,
}

impl Sent {
    /// For so many bids.
    fn new(events: u64) -> Self {
        Self {
            begun: Instant::now(),
            at: (0..events).map(|_| AtomicU64::new(0)).collect(),
        }
    }

    fn now(&self) -> u64 {
        u64::try_from(self.begun.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    /// Notes when a bid was sent.
    fn note(&self, number: u64, at: u64) -> Result<()> {
        let slot = self.at.get(usize::try_from(number)?);
        slot.context("too many")?.store(at, Ordering::Release);
        Ok(())
    }

    /// How long ago it was.
    fn since(&self, number: u64) -> Result<u64> {
        let slot = self.at.get(usize::try_from(number)?);
        let at = slot.context("not sent")?.load(Ordering::Acquire);
        Ok(self.now().saturating_sub(at))
    }
}

/// Sends events at a steady rate and reads what comes out.
///
/// # Errors
/// The contender cannot be started, or not every event comes out.
pub fn measure(node: Option<&KafkaNode>, plan: &Plan<'_>) -> Result<Delays> {
    let node = || node.context("there is no Kafka");
    match plan.route {
        Route::Disk => disk::measure(plan),
        Route::StraightEmbedded(durability) => embedded::measure(plan, durability),
        Route::StraightKafka => kafka::measure(node()?, plan),
        Route::Through(contender) => match contender.durability() {
            Some(durability) => embedded::measure(plan, durability),
            None => kafka::measure(node()?, plan),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An index that is off by one would take the worst delay for the 99th percentile of few.
    #[test]
    fn a_quantile_is_what_this_part_of_all_did_not_exceed() {
        let delays: Vec<u64> = (1..=101).map(|n| n * 1000).collect();
        let delays = Delays::of_sorted(&delays);
        let shown = [delays.p50, delays.p99, delays.max];
        assert_eq!(shown.map(|ms| ms.round() as u64), [51, 100, 101]);
    }

    #[test]
    fn what_was_sent_while_warming_up_does_not_count() {
        let plan = Plan {
            route: Route::Disk,
            run: 0,
            rate: 1,
            seconds: 2,
            seed: 0,
            folder: Path::new(""),
        };
        assert_eq!(plan.events(), 7);
        let delays = Delays::of(vec![9, 9, 9, 9, 9, 2_000, 1_000], &plan).unwrap();
        assert_eq!((delays.p50, delays.max), (2.0, 2.0));
    }

    #[test]
    fn a_contender_stands_behind_what_it_is_compared_with_and_nothing_is_measured_twice() {
        let routes = Route::all(&[
            Contender::Millstream,
            Contender::Embedded,
            Contender::ExactlyOnce,
            Contender::EmbeddedOs,
        ]);
        let wanted = [
            Route::StraightKafka,
            Route::Through(Contender::Millstream),
            Route::Disk,
            Route::StraightEmbedded(Durability::Sync),
            Route::Through(Contender::Embedded),
            Route::Through(Contender::ExactlyOnce),
            Route::StraightEmbedded(Durability::Os),
            Route::Through(Contender::EmbeddedOs),
        ];
        assert_eq!(routes, wanted);
    }
}
