//! A consumer that names its topics by a pattern.

use std::collections::BTreeSet;
use std::time::Duration;

use millstream_whole_tests::{events, setting};

const PATIENCE: Duration = Duration::from_secs(60);

/// A topic that appears later must be found; one that matches and is the consumer's own output would
/// make an endless loop.
#[test]
fn a_pattern_finds_topics_that_appear_later_and_never_its_own_outputs() {
    let more = "dead_letter = { topic = \"orders-dead\" }\n";
    let text = setting::hostile_consumer("all", "^orders-.*", more)
        .unwrap()
        .replace("default = \"derived\"", "default = \"orders-derived\"");
    let site = setting::site(&text).unwrap();
    setting::produce(&site, "orders-eu", "k\ta\nk\treject\n", &[]).unwrap();
    let mut running = site.start(&[]).unwrap();
    let settled = |wanted: f64| {
        move |scrape: &millstream_test_support::metrics::Scrape| {
            scrape.sum("millstream_events_settled_total", &[("consumer", "all")]) >= wanted
        }
    };
    running
        .until_scrape("done with the first topic", PATIENCE, settled(2.0))
        .unwrap();
    // Over HTTP, for a runtime holds the store.
    setting::produce(&site, "orders-us", "k\tb\nk\tc\n", &[]).unwrap();
    setting::produce(&site, "reorders-us", "k\tstranger\n", &[]).unwrap();
    running
        .until_scrape("done with the second topic", PATIENCE, settled(4.0))
        .unwrap();
    let scrape = running.scrape().unwrap();
    let read: BTreeSet<_> = scrape
        .all("millstream_events_consumed_total", &[("consumer", "all")])
        .map(|sample| sample.labels["topic"].clone())
        .collect();
    assert_eq!(
        read,
        BTreeSet::from(["orders-eu".to_owned(), "orders-us".to_owned()])
    );
    running.terminate().unwrap();
    running.succeed(PATIENCE).unwrap();

    setting::until_idle(&site).unwrap();
    let derived = events::all(&site, "orders-derived").unwrap();
    let values: BTreeSet<_> = derived
        .iter()
        .filter_map(|event| event.value.as_deref())
        .collect();
    assert_eq!(values, BTreeSet::from(["a", "b", "c"]));
    assert_eq!(derived.len(), 3);
    for event in &derived {
        assert_eq!(event.header("millstream-hops").unwrap(), "1");
    }
    assert_eq!(events::all(&site, "orders-dead").unwrap().len(), 1);
    setting::check_no_lag(&site).unwrap();
}
