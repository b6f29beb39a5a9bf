//! The rate of a consumer that works off a full topic, start and end left out.

use std::time::Duration;

use anyhow::{Result, ensure};
use millstream_test_support::metrics::Scrape;
use millstream_test_support::process::Running;
use tokio::time::Instant;

const PATIENCE: Duration = Duration::from_secs(600);

/// Events that a consumer has settled.
pub fn settled(scrape: &Scrape, consumer: &str) -> f64 {
    scrape.sum("millstream_events_settled_total", &[("consumer", consumer)])
}

/// Events a second between one count of settled events and another.
///
/// # Errors
/// The runtime does not get there.
pub fn rate(running: &mut Running, consumer: &str, from: f64, to: f64) -> Result<f64> {
    let mut at = |wanted: f64| -> Result<(f64, Instant)> {
        running.until_scrape("at work", PATIENCE, |scrape| {
            settled(scrape, consumer) >= wanted
        })?;
        Ok((settled(&running.scrape()?, consumer), Instant::now()))
    };
    let (first, begun) = at(from)?;
    let (last, ended) = at(to)?;
    let took = ended.duration_since(begun).as_secs_f64();
    ensure!(
        last > first && took > 0.0,
        "all was done at once: take more events"
    );
    Ok((last - first) / took)
}
