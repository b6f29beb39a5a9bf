//! Looks at the lasting runtime every few seconds, from outside.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use millstream_test_support::metrics::Scrape;
use millstream_test_support::process;
use millstream_test_support::vitals::Vitals;
use millstream_test_support::wait::{Deadline, step};
use tokio::time::Instant;

/// How often.
const EVERY: Duration = Duration::from_secs(3);
/// So many scrapes in a row may go unanswered.
const UNANSWERED: u32 = 5;

/// One look.
#[derive(Clone, Copy, Debug)]
pub struct Sample {
    /// Since the start of the run.
    pub at: Duration,
    pub vitals: Vitals,
    /// Alive on the runtime's executors.
    pub tasks: f64,
    /// Of all consumers and partitions.
    pub lag: f64,
    pub in_flight: f64,
    pub in_flight_bytes: f64,
    pub opened: f64,
    pub dead_letters: f64,
    pub rebalances: f64,
    pub commits: f64,
}

/// Who is looked at.
#[derive(Clone, Debug)]
pub struct Gauge {
    pub id: u32,
    pub admin: String,
    pub start: Instant,
}

impl Gauge {
    /// Looks until told to stop.
    ///
    /// # Errors
    /// The runtime has ended or does not answer, a scrape does not account for every event, or an
    /// invariant is violated.
    pub fn watch(&self, stop: &AtomicBool) -> (Vec<Sample>, Result<()>) {
        let mut samples = Vec::new();
        let mut unanswered = 0;
        while !stop.load(Ordering::Acquire) {
            let next = Deadline::after(EVERY);
            match self.scrape() {
                Ok(scrape) => {
                    unanswered = 0;
                    match self.sample(&scrape) {
                        Ok(sample) => samples.push(sample),
                        Err(error) => return (samples, Err(error)),
                    }
                }
                Err(error) => {
                    unanswered += 1;
                    if unanswered > UNANSWERED {
                        return (samples, Err(error));
                    }
                }
            }
            while !next.passed() && !stop.load(Ordering::Acquire) {
                step();
            }
        }
        (samples, Ok(()))
    }

    fn scrape(&self) -> Result<Scrape> {
        let (status, body) = process::get(&self.admin, "/metrics")?;
        ensure!(status == 200, "/metrics answers {status}: {body}");
        Scrape::parse(&body)
    }

    fn sample(&self, scrape: &Scrape) -> Result<Sample> {
        scrape.check_accounting()?;
        let sum = |name: &str| scrape.sum(name, &[]);
        let violated = sum("millstream_invariant_violations_total");
        ensure!(violated < 0.5, "{violated} violations of invariants");
        Ok(Sample {
            at: self.start.elapsed(),
            vitals: Vitals::of(self.id).context("the lasting runtime has ended")?,
            tasks: sum("millstream_executor_tasks"),
            lag: sum("millstream_consumer_lag_events"),
            in_flight: sum("millstream_in_flight_events"),
            in_flight_bytes: sum("millstream_in_flight_bytes"),
            opened: scrape.sum("millstream_breaker_transitions_total", &[("to", "open")]),
            dead_letters: scrape.sum("millstream_dead_letters_total", &[("reason", "trap")]),
            rebalances: sum("millstream_rebalances_total"),
            commits: sum("millstream_commits_total"),
        })
    }
}
