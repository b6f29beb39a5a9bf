//! Deploys while events flow: by a saved file, a swapped symlink, SIGHUP and HTTP.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use millstream_test_support::metrics::Scrape;
use millstream_test_support::plugins;
use millstream_test_support::process::{Answer, Running, Site, post, post_lines};
use millstream_whole_tests::{events, setting};

const PATIENCE: Duration = Duration::from_secs(120);
const PARTITIONS: usize = 4;
const DEPLOYS: usize = 8;
/// Events in one request.
const CHUNK: usize = 100;

/// The shop's plugin, which writes its `currency` into all that it derives.
fn enrich(name: &str, currency: &str, more: &str) -> Result<String> {
    Ok(format!(
        "[[consumer]]\nname = \"{name}\"\nplugin = {:?}\ntopics = [\"order-lines\"]\n\
         start = \"beginning\"\nconfig = {{ currency = \"{currency}\", alert_above = 1000000000 }}\n\
         outputs = {{ default = \"{name}-orders\", alerts = \"{name}-alerts\" }}\n{more}\n",
        plugins::component("enrich")?.display().to_string(),
    ))
}

fn configuration(site: &Site, consumers: &str) -> String {
    let topics = setting::topic("order-lines", PARTITIONS as u32);
    format!("{}\n{topics}{consumers}", setting::head(site))
}

fn generations(scrape: &Scrape) -> f64 {
    scrape.sum("millstream_config_generation", &[])
}

fn until_generation(running: &mut Running, number: usize) -> Result<()> {
    let what = format!("at configuration {number}");
    running.until_scrape(&what, PATIENCE, |scrape| {
        generations(scrape) >= number as f64
    })
}

fn line(number: usize) -> String {
    let value = format!(
        r#"{{\"invoice\":\"{}\",\"sku\":\"{number}\",\"description\":\"\",\"quantity\":1,\"ts\":\"\",\"unit_price\":1,\"customer\":null,\"country\":\"\"}}"#,
        500_000 + number % 97
    );
    format!("{{\"key\":\"k{}\",\"value\":\"{value}\"}}\n", number % 97)
}

/// Writes events until it is told to stop, and says how many.
struct Producer {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Result<usize>>,
}

impl Producer {
    fn start(site: &Site) -> Self {
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

    fn finish(self) -> Result<usize> {
        self.stop.store(true, Ordering::Release);
        self.thread
            .join()
            .map_err(|_| anyhow::anyhow!("panicked"))?
    }
}

/// What is answered to the wish to reload.
fn reload(site: &Site) -> Result<Answer> {
    let json = ("content-type", "application/json");
    post(&site.admin(), "/-/reload", &[json], "")
}

fn until_settled(running: &mut Running, consumer: &str, events: usize) -> Result<()> {
    running.until_scrape("done", PATIENCE, |scrape| {
        scrape.sum("millstream_events_settled_total", &[("consumer", consumer)]) >= events as f64
    })
}

/// Of all derived events each line came once, each partition in order, and each partition went from
/// one currency to the next and never back.
fn check_swaps(site: &Site, topic: &str, lines: usize, currencies: &[String]) -> Result<()> {
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

/// A swap that loses what is in flight, makes a call with the old version after the new one took
/// over, or lets the group rebalance, shows here.
#[test]
fn versions_are_swapped_by_saving_the_file_and_no_event_notices() -> Result<()> {
    let site = Site::new()?;
    let currencies: Vec<String> = (0..=DEPLOYS).map(|n| format!("CU{n}")).collect();
    let save =
        |currency: &str| site.configure(&configuration(&site, &enrich("enrich", currency, "")?));
    save(&currencies[0])?;
    let mut running = site.start(&[])?;
    running.until_ready(PATIENCE)?;
    let producer = Producer::start(&site);
    for (number, currency) in currencies.iter().enumerate().skip(1) {
        let before = running
            .scrape()?
            .sum("millstream_events_settled_total", &[]);
        save(currency)?;
        until_generation(&mut running, number + 1)?;
        running.until_scrape("going on", PATIENCE, |scrape| {
            scrape.sum("millstream_events_settled_total", &[]) > before
        })?;
    }
    let lines = producer.finish()?;
    until_settled(&mut running, "enrich", lines)?;
    let scrape = running.scrape()?;
    scrape.check_accounting()?;
    ensure!(scrape.sum("millstream_deploys_total", &[("result", "ok")]) == 1.0 + DEPLOYS as f64);
    let assigned = running.logs().matches("partition assigned").count();
    // Its own topic, and nothing else: a rebalance would assign anew.
    ensure!(assigned == PARTITIONS, "{assigned} assignments");
    running.terminate()?;
    running.succeed(PATIENCE)?;
    check_swaps(&site, "enrich-orders", lines, &currencies)
}

/// What changes the guarantee drains first: nothing of the old settings is under way when the new
/// ones begin.
#[test]
fn consumers_are_added_removed_and_started_anew() -> Result<()> {
    let site = Site::new()?;
    let both = |more: &str| {
        let consumers = enrich("first", "EUR", more)? + &enrich("second", "EUR", "")?;
        site.configure(&configuration(&site, &consumers))
    };
    site.configure(&configuration(&site, &enrich("first", "EUR", "")?))?;
    let mut running = site.start(&[])?;
    running.until_ready(PATIENCE)?;
    let producer = Producer::start(&site);
    both("")?;
    until_generation(&mut running, 2)?;
    both("delivery = \"exactly-once\"\ncommit = { interval = \"5ms\" }")?;
    until_generation(&mut running, 3)?;
    both("ordering = \"key\"")?;
    until_generation(&mut running, 4)?;
    let lines = producer.finish()?;
    for consumer in ["first", "second"] {
        until_settled(&mut running, consumer, lines)?;
    }
    site.configure(&configuration(&site, &enrich("second", "EUR", "")?))?;
    until_generation(&mut running, 5)?;
    let (_, consumers) = running.get("/api/v1/consumers")?;
    ensure!(
        !consumers.contains("\"first\"") && consumers.contains("\"second\""),
        "{consumers}"
    );
    let (_, metrics) = running.get("/metrics")?;
    ensure!(
        !metrics.contains("\"first\"") && metrics.contains("\"second\""),
        "figures of a consumer that is gone stay: {metrics}"
    );
    running.terminate()?;
    running.succeed(PATIENCE)?;
    for topic in ["first-orders", "second-orders"] {
        check_swaps(&site, topic, lines, &["EUR".to_owned()])?;
    }
    Ok(())
}

/// An operator who saves a mistake must find all goes on, and where the mistakes are.
#[test]
fn a_bad_file_changes_nothing_and_says_all_that_is_wrong() -> Result<()> {
    let site = Site::new()?;
    let good = configuration(&site, &enrich("enrich", "EUR", "")?);
    site.configure(&good)?;
    let mut running = site.start(&[])?;
    running.until_ready(PATIENCE)?;
    let bad = good.replace("ordering", "") + "orderign = \"key\"\nconcurrency = 0\n";
    site.configure(&bad)?;
    let successful = |scrape: &Scrape| scrape.sum("millstream_config_last_reload_successful", &[]);
    running.until_scrape("refusing", PATIENCE, |scrape| successful(scrape) == 0.0)?;
    let answer = reload(&site)?;
    ensure!(answer.status == 422, "{answer:?}");
    for wrong in ["orderign", "concurrency", "millstream.toml"] {
        ensure!(
            answer.body.contains(wrong),
            "{wrong} is not in {}",
            answer.body
        );
    }
    // A plugin that is none is found before anything changes, too.
    site.write("none.wasm", b"no component")?;
    site.configure(&configuration(
        &site,
        &enrich("enrich", "USD", "")?.replace(
            &format!("{:?}", plugins::component("enrich")?.display().to_string()),
            "\"none.wasm\"",
        ),
    ))?;
    let answer = reload(&site)?;
    ensure!(
        answer.status == 422 && answer.body.contains("none.wasm"),
        "{answer:?}"
    );
    let (status, answer) = running.post_lines("/topics/order-lines", &line(1))?;
    ensure!(status == 200, "{answer}");
    until_settled(&mut running, "enrich", 1)?;
    ensure!(generations(&running.scrape()?) == 1.0);

    site.configure(&good)?;
    running.hang_up()?;
    running.until_scrape("mended", PATIENCE, |scrape| successful(scrape) == 1.0)?;
    running.terminate()?;
    running.succeed(PATIENCE)?;
    check_swaps(&site, "enrich-orders", 1, &["EUR".to_owned()])
}

/// Puts a plugin into the site that does what `enrich` does; each `build` has another digest.
fn build(site: &Site, build: u8) -> Result<()> {
    let mut component = fs::read(plugins::component("enrich")?)?;
    // A custom section of one byte behind its name of one letter.
    component.extend([0, 3, 1, b'x', build]);
    let staged = site.write("staged.wasm", &component)?;
    fs::rename(staged, site.path().join("built.wasm"))?;
    Ok(())
}

fn until_version(running: &mut Running, generation: &str) -> Result<()> {
    let what = format!("at generation {generation}");
    running.until_scrape(&what, PATIENCE, |scrape| {
        scrape.sum("millstream_plugin_info", &[("generation", generation)]) > 0.5
    })
}

/// A plugin that was built anew keeps its path: a comparison of configurations alone sees no change,
/// and neither does whoever watches the configuration's files.
#[test]
fn a_plugin_built_anew_is_deployed_when_asked_or_by_itself_with_watch() -> Result<()> {
    let site = Site::new()?;
    build(&site, 1)?;
    let shipped = format!("{:?}", plugins::component("enrich")?.display().to_string());
    let consumer = enrich("enrich", "EUR", "")?.replace(&shipped, "\"built.wasm\"");
    site.configure(&configuration(&site, &consumer))?;
    let mut running = site.start(&[])?;
    running.until_ready(PATIENCE)?;
    build(&site, 2)?;
    running.hang_up()?;
    until_version(&mut running, "2")?;
    build(&site, 3)?;
    let answer = reload(&site)?;
    ensure!(
        answer.status == 200 && answer.body.contains("plugin"),
        "{answer:?}"
    );
    until_version(&mut running, "3")?;
    running.post_lines("/topics/order-lines", &line(1))?;
    until_settled(&mut running, "enrich", 1)?;
    running.terminate()?;
    running.succeed(PATIENCE)?;

    let mut watching = site.start(&["--watch"])?;
    watching.until_ready(PATIENCE)?;
    for (number, generation) in [(4, "2"), (5, "3")] {
        build(&site, number)?;
        until_version(&mut watching, generation)?;
    }
    watching.terminate()?;
    watching.succeed(PATIENCE)
}

/// Who writes a file in place empties it first: what reads it then would find no consumer, and remove
/// all of them.
#[test]
fn a_file_that_is_being_written_removes_nobody() -> Result<()> {
    let site = Site::new()?;
    let text = configuration(&site, &enrich("enrich", "EUR", "")?);
    site.configure(&text)?;
    let mut running = site.start(&[])?;
    running.until_ready(PATIENCE)?;
    let file = site.path().join("millstream.toml");
    fs::write(&file, "")?;
    let answer = thread::scope(|scope| {
        let asked = scope.spawn(|| reload(&site));
        // Answered by the same listener behind it, so the reload has begun.
        running.get("/healthz")?;
        site.configure(&text)?;
        asked
            .join()
            .map_err(|_| anyhow::anyhow!("the request panicked"))?
    })?;
    ensure!(
        answer.status == 200 && !answer.body.contains("remove"),
        "{answer:?}"
    );
    running.terminate()?;
    running.succeed(PATIENCE)
}

/// Kubernetes swaps a symlink to a folder; the file's own name never changes.
#[test]
fn a_swapped_symlink_is_a_new_file() -> Result<()> {
    let site = Site::new()?;
    let put = |version: &str, currency: &str| -> Result<()> {
        let text = configuration(&site, &enrich("enrich", currency, "")?);
        site.write(&format!("{version}/millstream.toml"), text.as_bytes())?;
        let staged = site.path().join("..data_tmp");
        std::os::unix::fs::symlink(version, &staged)?;
        std::fs::rename(&staged, site.path().join("..data"))?;
        Ok(())
    };
    put("..one", "EUR")?;
    std::os::unix::fs::symlink(
        Path::new("..data/millstream.toml"),
        site.path().join("millstream.toml"),
    )?;
    let mut running = site.start(&[])?;
    running.until_ready(PATIENCE)?;
    put("..two", "USD")?;
    until_generation(&mut running, 2)?;
    running.post_lines("/topics/order-lines", &line(1))?;
    until_settled(&mut running, "enrich", 1)?;
    running.terminate()?;
    running.succeed(PATIENCE)?;
    let orders = events::all(&site, "enrich-orders")?;
    ensure!(orders[0].json()?["currency"] == "USD", "{orders:?}");
    Ok(())
}
