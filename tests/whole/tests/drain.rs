//! Ends and starts: a drain under load, and a start from the compile cache.

use std::time::Duration;

use millstream_test_support::retail::Retail;
use millstream_test_support::wait::Deadline;
use millstream_whole_tests::{events, setting, shop};

const EVENTS: usize = 60_000;
const PATIENCE: Duration = Duration::from_secs(120);

/// Work in flight that a stop throws away, or positions that it does not commit, show as repeats.
#[test]
fn a_drain_under_load_repeats_and_loses_nothing() {
    let site = setting::site(&setting::shop().unwrap()).unwrap();
    let retail = Retail::load().unwrap();
    let lines: Vec<&str> = retail.lines().collect();
    let text: String = lines
        .iter()
        .cycle()
        .take(EVENTS)
        .map(|line| format!("{}\t{line}\n", shop::invoice(line).unwrap()))
        .collect();
    setting::produce(&site, "order-lines", &text, &[]).unwrap();
    let of = [("consumer", "enrich")];
    let mut stopped_early = 0;
    for _ in 0..3 {
        let mut running = site.start(&[]).unwrap();
        running
            .until_scrape("at work", PATIENCE, |scrape| {
                scrape.sum("millstream_events_settled_total", &of) > 100.0
            })
            .unwrap();
        running.terminate().unwrap();
        running.succeed(PATIENCE).unwrap();
        let rows = site.succeed(&["lag", "enrich", "--json"]).unwrap();
        let rows: serde_json::Value = serde_json::from_str(&rows).unwrap();
        let lag: u64 = rows
            .as_array()
            .unwrap()
            .iter()
            .filter_map(|row| row["lag"].as_u64())
            .sum();
        stopped_early += usize::from(lag > 0);
    }
    assert!(
        stopped_early > 0,
        "no stop came under load: the test has too few events"
    );
    setting::until_idle(&site).unwrap();

    let orders = events::all(&site, "orders").unwrap();
    let dead = events::all(&site, "order-lines.dlq").unwrap();
    let total = orders.len();
    let once = events::without_repeats(orders).unwrap();
    assert_eq!(total - once.len(), 0, "a graceful stop repeats events");
    assert_eq!(once.len() + dead.len(), EVENTS);
    events::check_order(&once, "order-lines").unwrap();
    setting::check_no_lag(&site).unwrap();
}

/// A stop must not wait for what cannot end soon: retries, and calls that run.
#[test]
fn a_drain_does_not_wait_for_retries() {
    let more = "retry = { max_attempts = 5, initial = \"1h\", max = \"1h\", max_age = \"1d\" }\n";
    let text = setting::hostile_consumer("hostile", "in", more).unwrap();
    let site = setting::site(&format!("{}{text}", setting::topic("in", 1))).unwrap();
    setting::produce(&site, "in", "k\ta\nk\tretry\nk\tb\n", &[]).unwrap();
    let mut running = site.start(&[]).unwrap();
    running
        .until_scrape("waiting for a retry", PATIENCE, |scrape| {
            scrape.sum("millstream_plugin_failures_total", &[("kind", "retry")]) > 0.0
        })
        .unwrap();
    running.terminate().unwrap();
    running.succeed(Duration::from_secs(20)).unwrap();
    let derived = events::all(&site, "derived").unwrap();
    assert_eq!(derived.len(), 1, "{derived:?}");
}

/// A cache that is never hit makes every start compile; the time is printed for people.
#[test]
fn a_second_start_takes_the_component_from_the_cache() {
    let site = setting::site("").unwrap();
    let own_cache = setting::head(&site)
        .lines()
        .map(|line| {
            if line.starts_with("cache_dir") {
                "cache_dir = \"cache\""
            } else {
                line
            }
        })
        .collect::<Vec<_>>()
        .join("\n");
    site.configure(&format!("{own_cache}\n{}", setting::shop().unwrap()))
        .unwrap();
    for (number, result) in ["miss", "hit"].into_iter().enumerate() {
        let begun = Deadline::after(PATIENCE);
        let mut running = site.start(&[]).unwrap();
        running.until_ready(PATIENCE).unwrap();
        let took = PATIENCE - begun.left();
        println!("start {number}, compile cache {result}: ready after {took:?}");
        let scrape = running.scrape().unwrap();
        let labels = [("result", result)];
        assert_eq!(scrape.sum("millstream_compile_cache_total", &labels), 2.0);
        assert_eq!(scrape.sum("millstream_compile_cache_total", &[]), 2.0);
        running.terminate().unwrap();
        running.succeed(PATIENCE).unwrap();
    }
}
