//! Order lines that flow into the shop's plugin while something happens to its consumer, and what
//! must have come out in the end.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use millstream_test_support::metrics::Scrape;
use millstream_test_support::plugins;
use millstream_test_support::process::{Running, Site, post_lines};

use crate::{events, setting};

/// How long anything may take on a machine with much else to do.
pub const PATIENCE: Duration = Duration::from_secs(120);
/// Partitions of `order-lines`.
pub const PARTITIONS: usize = 4;
/// Events in one request.
const CHUNK: usize = 100;

/// The shop's plugin, which writes its `currency` into all that it derives.
///
/// # Errors
/// The plugin does not compile.
pub fn enrich(name: &str, currency: &str, more: &str) -> Result<String> {
    Ok(format!(
        "[[consumer]]\nname = \"{name}\"\nplugin = {:?}\ntopics = [\"order-lines\"]\n\
         start = \"beginning\"\nconfig = {{ currency = \"{currency}\", alert_above = 1000000000 }}\n\
         outputs = {{ default = \"{name}-orders\", alerts = \"{name}-alerts\" }}\n{more}\n",
        plugins::component("enrich")?.display().to_string(),
    ))
}

/// A site's configuration with these consumers of `order-lines`.
pub fn configuration(site: &Site, consumers: &str) -> String {
    let topics = setting::topic("order-lines", PARTITIONS as u32);
    format!("{}\n{topics}{consumers}", setting::head(site))
}

/// The number of the configuration that applies.
pub fn generations(scrape: &Scrape) -> f64 {
    scrape.sum("millstream_config_generation", &[])
}

/// Waits until so many configurations have been applied.
///
/// # Errors
/// The runtime ended, or it does not come to that.
pub fn until_generation(running: &mut Running, number: usize) -> Result<()> {
    let what = format!("at configuration {number}");
    running.until_scrape(&what, PATIENCE, |scrape| {
        generations(scrape) >= number as f64
    })
}

/// A line of JSON for the request that produces it.
pub fn line(number: usize) -> String {
    let value = format!(
        r#"{{\"invoice\":\"{}\",\"sku\":\"{number}\",\"description\":\"\",\"quantity\":1,\"ts\":\"\",\"unit_price\":1,\"customer\":null,\"country\":\"\"}}"#,
        500_000 + number % 97
    );
    format!("{{\"key\":\"k{}\",\"value\":\"{value}\"}}\n", number % 97)
}

/// Writes events until it is told to stop, and says how many.
pub struct Producer {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Result<usize>>,
}

impl Producer {
    /// Begins to write to the runtime of this site.
    pub fn start(site: &Site) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (stopped, admin) = (stop.clone(), site.admin());
        let thread = thread::spawn(move || {
            let mut written = 0;
            while !stopped.load(Ordering::Acquire) {
                let lines: String = (written..written + CHUNK).map(line).collect();
                let (status, answer) = post_lines(&admin, "/topics/order-lines", &lines)?;
                ensure!(status == 200, "{status}: {answer}");
                written += CHUNK;
            }
            Ok(written)
        });
        Self { stop, thread }
    }

    /// Ends it; how many events were acknowledged.
    ///
    /// # Errors
    /// One was not.
    pub fn finish(self) -> Result<usize> {
        self.stop.store(true, Ordering::Release);
        self.thread
            .join()
            .map_err(|_| anyhow::anyhow!("panicked"))?
    }
}

/// Waits until a consumer has settled so many events.
///
/// # Errors
/// As [`until_generation`].
pub fn until_settled(running: &mut Running, consumer: &str, events: usize) -> Result<()> {
    running.until_scrape("done", PATIENCE, |scrape| {
        scrape.sum("millstream_events_settled_total", &[("consumer", consumer)]) >= events as f64
    })
}

/// Of all derived events each line came once, each partition in order, and each partition went from
/// one currency to the next and never back.
///
/// # Errors
/// Which event is missing, there twice, or not in its place.
pub fn check_swaps(site: &Site, topic: &str, lines: usize, currencies: &[String]) -> Result<()> {
    let mut seen: BTreeMap<u64, Vec<(u64, usize)>> = BTreeMap::new();
    let mut last: BTreeMap<String, u64> = BTreeMap::new();
    for event in events::all(site, topic)? {
        let source = event.source("order-lines")?;
        let key = event.key.clone().context("no key")?;
        let before = last.insert(key, source.offset);
        ensure!(before < Some(source.offset), "out of order: {event:?}");
        let currency = event.json()?["currency"].as_str().map(str::to_owned);
        let version = currencies
            .iter()
            .position(|known| Some(known) == currency.as_ref());
        seen.entry(source.partition)
            .or_default()
            .push((source.offset, version.context("an unknown currency")?));
    }
    let derived: usize = seen.values().map(Vec::len).sum();
    ensure!(derived == lines, "{derived} events of {lines} lines");
    for (partition, events) in &mut seen {
        events.sort_unstable();
        for (expected, (offset, _)) in (0..).zip(events.iter()) {
            ensure!(
                *offset == expected,
                "{partition}/{expected} is missing or there twice"
            );
        }
        let versions = events.iter().map(|(_, version)| version);
        ensure!(
            versions.is_sorted(),
            "{partition} went back to an older version"
        );
    }
    Ok(())
}
