//! The shipped sample through two plugins, against a calculation of its own.
//!
//! ```text
//! order-lines ─▶ enrich ─┬▶ orders ─▶ alerts ─▶ order-alerts
//!                        ├▶ large-orders
//!                        └▶ order-lines.dlq
//! ```

use std::collections::BTreeMap;
use std::fs;

use millstream_test_support::{retail, workspace};
use millstream_whole_tests::events::{self, Event, Place};
use millstream_whole_tests::setting;
use millstream_whole_tests::shop::{self, Expected};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

/// The lines of the topic by their place, as they were produced.
fn by_place(lines: &[Event]) -> BTreeMap<Place, &Event> {
    lines.iter().map(|event| (event.place, event)).collect()
}

/// A derived event that is missing, made twice, wrong by a penny, or out of order shows here.
#[test]
fn the_sample_is_enriched_as_calculated() {
    let site = setting::site(&setting::shop().unwrap()).unwrap();
    let sample = fs::read_to_string(workspace::root().join(retail::sample().unwrap())).unwrap();
    let mut input: Vec<(String, String)> = sample
        .lines()
        .map(|line| (shop::invoice(line).unwrap().to_owned(), line.to_owned()))
        .collect();
    let sold = r#"{"invoice": "7", "sku": "1", "description": "", "quantity": 3, "ts": "", "unit_price": 0.001, "customer": null, "country": ""}"#;
    input.insert(1_000, ("7".into(), sold.into()));
    input.insert(2_000, ("7".into(), "not json".into()));
    input.push(("7".into(), "{\"invoice\": ".into()));
    let text: String = input.iter().map(|(k, v)| format!("{k}\t{v}\n")).collect();
    setting::produce(&site, "order-lines", &text, &["-H", "shop=uk"]).unwrap();
    setting::until_idle(&site).unwrap();

    let lines = events::all(&site, "order-lines").unwrap();
    let places = by_place(&lines);
    let orders = events::all(&site, "orders").unwrap();
    let large = events::all(&site, "large-orders").unwrap();
    let dead = events::all(&site, "order-lines.dlq").unwrap();
    let alerts = events::all(&site, "order-alerts").unwrap();

    // What was produced is in the topic, each key in the order of the file.
    let mut stored: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for event in &lines {
        let key = event.key.as_deref().unwrap();
        stored
            .entry(key)
            .or_default()
            .push(event.value.as_deref().unwrap());
    }
    let mut written: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for (key, value) in &input {
        written.entry(key).or_default().push(value);
    }
    assert_eq!(stored, written);

    let mut enriched = BTreeMap::new();
    for event in &orders {
        let before = enriched.insert(event.source("order-lines").unwrap(), event);
        assert!(before.is_none(), "derived twice: {event:?}");
    }
    let mut big: BTreeMap<Place, &Event> = BTreeMap::new();
    for event in &large {
        assert!(
            big.insert(event.source("order-lines").unwrap(), event)
                .is_none()
        );
    }
    let mut rejected: BTreeMap<Place, &Event> = BTreeMap::new();
    for event in &dead {
        assert!(rejected.insert(event.dead().unwrap(), event).is_none());
    }
    for (place, line) in &places {
        let value = line.value.as_deref().unwrap();
        match shop::expected(value, 10_000).unwrap() {
            Expected::Enriched(wanted, is_large) => {
                let event = enriched
                    .remove(place)
                    .unwrap_or_else(|| panic!("lost: {line:?}"));
                assert_eq!(event.json().unwrap(), wanted);
                assert_eq!((&event.key, event.timestamp), (&line.key, line.timestamp));
                assert_eq!(event.header("shop").unwrap(), "uk");
                let big = big.remove(place);
                assert_eq!(big.is_some(), is_large, "{line:?}");
                if let Some(big) = big {
                    assert_eq!(big.json().unwrap(), wanted);
                    assert_eq!(big.header("severity").unwrap(), "high");
                }
            }
            Expected::Rejected(code) => {
                let letter = rejected
                    .remove(place)
                    .unwrap_or_else(|| panic!("lost: {line:?}"));
                assert_eq!((&letter.key, &letter.value), (&line.key, &line.value));
                assert_eq!(letter.timestamp, line.timestamp);
                assert_eq!(letter.header("shop").unwrap(), "uk");
                for (name, wanted) in [
                    ("consumer", "enrich"),
                    ("topic", "order-lines"),
                    ("reason", "rejected"),
                    ("code", code),
                    ("attempts", "1"),
                    ("count", "1"),
                    ("timestamp", &line.timestamp.to_string()),
                ] {
                    let name = format!("millstream-dlq-{name}");
                    assert_eq!(letter.header(&name).unwrap(), wanted, "{name} of {line:?}");
                }
                assert!(!letter.header("millstream-dlq-error").unwrap().is_empty());
                let digest = letter.header("millstream-dlq-plugin-digest").unwrap();
                assert_eq!(digest.strip_prefix("sha256:").map(str::len), Some(64));
                let seen: i64 = letter
                    .header("millstream-dlq-first-seen")
                    .unwrap()
                    .parse()
                    .unwrap();
                assert!(seen >= line.timestamp);
            }
        }
    }
    assert!(enriched.is_empty(), "made up: {enriched:?}");
    assert!(big.is_empty(), "made up: {big:?}");
    assert!(rejected.is_empty(), "made up: {rejected:?}");
    assert_eq!(dead.len(), 6);

    // The second consumer, on what the first one made.
    let mut wanted = Vec::new();
    for order in &orders {
        for rule in shop::rules(&order.json().unwrap()).unwrap() {
            wanted.push((order.place, rule.to_owned()));
        }
    }
    let mut found = Vec::new();
    for alert in &alerts {
        let rule = alert.header("alert-rule").unwrap().to_owned();
        assert_eq!(alert.json().unwrap()["rule"], rule);
        found.push((alert.source("orders").unwrap(), rule));
    }
    let order_of_rules = |rule: &str| usize::from(rule == "bulk-quantity");
    found.sort_by_key(|(place, rule)| (*place, order_of_rules(rule)));
    assert!(!wanted.is_empty());
    assert_eq!(found, wanted);

    events::check_order(&orders, "order-lines").unwrap();
    events::check_order(&large, "order-lines").unwrap();
    events::check_order(&alerts, "orders").unwrap();
    setting::check_no_lag(&site).unwrap();
}

/// A consumer further down, or another program, recognizes repeats and follows a trace by these.
#[test]
fn derived_events_carry_their_origin() {
    let site = setting::site(&setting::shop().unwrap()).unwrap();
    let line = r#"{"invoice": "536365", "sku": "1", "description": "LAMP", "quantity": 2000, "ts": "2010-12-01", "unit_price": 2.55, "customer": null, "country": "France"}"#;
    let text = format!("536365\t{line}\n");
    let parent = format!("traceparent=00-{TRACE}-00f067aa0ba902b7-01");
    let traced = [
        "-H",
        &parent,
        "-H",
        "tracestate=vendor=1",
        "-H",
        "baggage=shop=uk",
        "-H",
        "correlation-id=basket-7",
        "-H",
        "millstream-hops=3",
        "-H",
        "millstream-id=forged",
        "-H",
        "ce_id=1",
        "-H",
        "ce_source=shop",
        "-H",
        "ce_time=2020-01-01T00:00:00Z",
        "-H",
        "ce_type=OrderLine",
    ];
    setting::produce(&site, "order-lines", &text, &traced).unwrap();
    setting::produce(&site, "order-lines", &text, &[]).unwrap();
    setting::until_idle(&site).unwrap();

    let lines = events::all(&site, "order-lines").unwrap();
    let orders = events::all(&site, "orders").unwrap();
    let large = events::all(&site, "large-orders").unwrap();
    let alerts = events::all(&site, "order-alerts").unwrap();
    assert_eq!(
        (lines.len(), orders.len(), large.len(), alerts.len()),
        (2, 2, 2, 4)
    );
    for (line, (order, large)) in lines.iter().zip(orders.iter().zip(&large)) {
        let source = format!("order-lines/{}", line.place);
        for (event, number) in [(order, 0), (large, 1)] {
            assert_eq!(event.header("millstream-source").unwrap(), source);
            assert_eq!(
                event.header("millstream-id").unwrap(),
                format!("{source}/{number}")
            );
        }
        let first = &alerts
            .iter()
            .filter(|alert| alert.source("orders").unwrap() == order.place);
        let first: Vec<_> = first.clone().collect();
        assert_eq!(first.len(), 2);
        let correlation = order.header("correlation-id").unwrap();
        assert_eq!(large.header("correlation-id").unwrap(), correlation);
        for (number, alert) in first.iter().enumerate() {
            assert_eq!(
                alert.header("millstream-id").unwrap(),
                format!("orders/{}/{number}", order.place)
            );
            assert_eq!(alert.header("correlation-id").unwrap(), correlation);
        }
    }
    let plain = orders
        .iter()
        .find(|order| !order.has("traceparent"))
        .unwrap();
    let traced = orders
        .iter()
        .find(|order| order.has("traceparent"))
        .unwrap();
    assert_eq!(plain.header("millstream-hops").unwrap(), "1");
    assert!(!plain.has("ce_id"));
    assert_eq!(traced.header("millstream-hops").unwrap(), "4");
    assert_eq!(traced.header("correlation-id").unwrap(), "basket-7");
    assert_eq!(traced.header("tracestate").unwrap(), "vendor=1");
    assert_eq!(traced.header("baggage").unwrap(), "shop=uk");
    let id = traced.header("millstream-id").unwrap();
    assert_eq!(traced.header("ce_id").unwrap(), id);
    assert_eq!(traced.header("ce_source").unwrap(), "millstream/enrich");
    assert_eq!(traced.header("ce_type").unwrap(), "OrderLine");
    assert_ne!(traced.header("ce_time").unwrap(), "2020-01-01T00:00:00Z");
    let parts = |event: &Event| {
        let parent = event.header("traceparent").unwrap().to_owned();
        let parts: Vec<String> = parent.split('-').map(str::to_owned).collect();
        (parts[1].clone(), parts[2].clone())
    };
    let (trace, span) = parts(traced);
    assert_eq!(trace, TRACE);
    assert_ne!(span, "00f067aa0ba902b7");
    let alert = alerts
        .iter()
        .find(|alert| alert.has("traceparent"))
        .unwrap();
    assert_eq!(parts(alert).0, TRACE);
    assert_ne!(parts(alert).1, span);
    assert_eq!(alert.header("millstream-hops").unwrap(), "5");
    assert_eq!(alert.header("ce_source").unwrap(), "millstream/alerts");
}

/// Events that breed more events would fill the disk; past `limits.hops` they end.
#[test]
fn a_loop_of_topics_ends_at_the_hop_limit() {
    let more = "limits = { hops = 3 }\ndead_letter = { topic = \"dlq\" }\n";
    let forward = setting::hostile_consumer("there", "derived-back", more).unwrap();
    let back = setting::hostile_consumer("back", "derived", more)
        .unwrap()
        .replace("default = \"derived\"", "default = \"derived-back\"");
    let site = setting::site(&format!("{forward}\n{back}")).unwrap();
    setting::produce(&site, "derived-back", "k\tround\n", &[]).unwrap();
    setting::until_idle(&site).unwrap();
    let dead = events::all(&site, "dlq").unwrap();
    assert_eq!(dead.len(), 1, "{dead:?}");
    assert_eq!(dead[0].header("millstream-dlq-reason").unwrap(), "hops");
    let there = events::all(&site, "derived").unwrap().len();
    let back = events::all(&site, "derived-back").unwrap().len();
    assert_eq!(there + back, 5);
}
