//! Events that do their worst: each ends as one dead letter, and nobody else feels it.
#![expect(
    clippy::unwrap_used,
    reason = "what these helpers of tests cannot do fails the test"
)]

use std::collections::BTreeMap;
use std::time::Duration;

use millstream_test_support::plugins;
use millstream_test_support::process::{Running, Site};
use millstream_test_support::wait::{Deadline, step};
use millstream_whole_tests::events::{self, Event, Place};
use millstream_whole_tests::setting;

const PATIENCE: Duration = Duration::from_secs(120);

/// Limits that a test can wait for, and a second attempt soon.
const LIMITS: &str = "limits = { memory = \"32MiB\", deadline = \"1500ms\", call = \"2s\", output_bytes = \"1MiB\" }\n\
     retry = { max_attempts = 2, initial = \"10ms\", max = \"20ms\" }\n";
const DEAD_LETTER: &str = "dead_letter = { topic = \"dlq\" }\n";

/// What an event asks for, and the reason of its dead letter.
const POISON: [(&str, &str); 14] = [
    ("trap", "trap"),
    ("panic", "trap"),
    ("logged-trap", "trap"),
    ("exit", "trap"),
    ("spin", "deadline"),
    ("sleep", "deadline"),
    ("alloc", "memory"),
    ("garbage-span", "invalid"),
    ("too-many-outputs", "invalid"),
    ("long-reply 2", "invalid"),
    ("reserved-header", "invalid"),
    ("duplicate-failure", "invalid"),
    ("reject", "rejected"),
    ("retry", "retries-exhausted"),
];

/// One that is nothing to the hostile plugin: it reads the same topic and rejects what is no order.
fn bystander() -> String {
    format!(
        "[[consumer]]\nname = \"bystander\"\nplugin = {:?}\ntopics = [\"in\"]\nstart = \"beginning\"\n\
         outputs = {{ default = \"alerts\" }}\ndead_letter = {{ topic = \"bystander.dlq\" }}\n",
        plugins::component("alerts").unwrap().display().to_string()
    )
}

/// Good events of twenty keys, with every poison in their midst.
fn input() -> String {
    let mut lines = String::new();
    let mut add = |number: usize, value: &str| {
        lines.push_str(&format!("key-{}\t{value}\n", number % 20));
    };
    for (number, (command, _)) in POISON.iter().enumerate() {
        for good in 0..40 {
            add(number * 7 + good, &format!("good {number}/{good}"));
        }
        add(number, command);
    }
    for good in 0..40 {
        add(good, &format!("good last/{good}"));
    }
    lines
}

fn consumer(ordering: &str, more: &str) -> String {
    let more = format!("ordering = \"{ordering}\"\n{LIMITS}{more}");
    setting::hostile_consumer("hostile", "in", &more).unwrap()
}

fn check_poison(ordering: &str) {
    let text = format!(
        "{}{}\n{}",
        setting::topic("in", 2),
        consumer(ordering, DEAD_LETTER),
        bystander()
    );
    let site = setting::site(&text).unwrap();
    setting::produce(&site, "in", &input(), &[]).unwrap();
    setting::until_idle(&site).unwrap();

    let lines = events::all(&site, "in").unwrap();
    let derived = events::all(&site, "derived").unwrap();
    let dead = events::all(&site, "dlq").unwrap();
    let mut letters: BTreeMap<Place, &Event> = BTreeMap::new();
    for letter in &dead {
        let before = letters.insert(letter.dead().unwrap(), letter);
        assert!(before.is_none(), "a second dead letter: {letter:?}");
    }
    let mut forwarded: BTreeMap<Place, &Event> = BTreeMap::new();
    for event in &derived {
        let before = forwarded.insert(event.source("in").unwrap(), event);
        assert!(before.is_none(), "derived twice: {event:?}");
    }
    for line in &lines {
        let value = line.value.as_deref().unwrap();
        let Some((_, reason)) = POISON.iter().find(|(command, _)| *command == value) else {
            let event = forwarded
                .remove(&line.place)
                .unwrap_or_else(|| panic!("lost: {line:?}"));
            assert_eq!((&event.key, &event.value), (&line.key, &line.value));
            continue;
        };
        let letter = letters
            .remove(&line.place)
            .unwrap_or_else(|| panic!("no dead letter: {line:?}"));
        let header = |name: &str| letter.header(&format!("millstream-dlq-{name}")).unwrap();
        assert_eq!(header("reason"), *reason, "{letter:?}");
        assert_eq!((&letter.key, &letter.value), (&line.key, &line.value));
        let attempts = if *reason == "rejected" { "1" } else { "2" };
        assert_eq!(header("attempts"), attempts, "{letter:?}");
        assert!(!header("error").is_empty());
        let told = matches!(*reason, "rejected" | "retries-exhausted");
        assert_eq!(header("code"), if told { "told-to" } else { "" });
        match value {
            "panic" => assert!(header("error").contains("boom"), "{letter:?}"),
            "logged-trap" => assert!(header("error").contains("price is negative"), "{letter:?}"),
            _ => {}
        }
    }
    assert!(forwarded.is_empty(), "made up: {forwarded:?}");
    assert!(letters.is_empty(), "made up: {letters:?}");
    match ordering {
        "none" => {}
        _ => events::check_order(&derived, "in").unwrap(),
    }
    let rejected = events::all(&site, "bystander.dlq").unwrap();
    assert_eq!(rejected.len(), lines.len());
    setting::check_no_lag(&site).unwrap();
}

#[test]
fn poison_ends_alone_with_order_by_partition() {
    check_poison("partition");
}

#[test]
fn poison_ends_alone_with_order_by_key() {
    check_poison("key");
}

#[test]
fn poison_ends_alone_without_order() {
    check_poison("none");
}

/// Waits for the number of events that a consumer has settled in these ways.
fn until_settled(running: &mut Running, consumer: &str, outcome: &str, wanted: f64) {
    let what = format!("at {wanted} events {outcome}");
    running
        .until_scrape(&what, PATIENCE, |scrape| {
            let labels = [("consumer", consumer), ("outcome", outcome)];
            scrape.sum("millstream_events_settled_total", &labels) >= wanted
        })
        .unwrap();
}

/// Waits until `/readyz` says no, for a reason with these words.
fn until_not_ready(running: &mut Running, words: &str) -> String {
    let deadline = Deadline::after(PATIENCE);
    loop {
        match running.get("/readyz") {
            Ok((503, body)) if body.contains(words) => return body,
            other => assert!(!deadline.passed(), "{other:?}\n{}", running.logs()),
        }
        step();
    }
}

fn produce_to(site: &Site, partition: &str, values: &[&str]) {
    let lines: String = values.iter().map(|value| format!("k\t{value}\n")).collect();
    setting::produce(site, "in", &lines, &["-p", partition]).unwrap();
}

/// A halt that went on with the next event would lose the one that it halted at; one that ended the
/// process would stop everyone.
#[test]
fn without_a_dead_letter_topic_the_partition_halts_and_others_go_on() {
    for ordering in ["partition", "key", "none"] {
        let text = format!(
            "{}{}\n{}",
            setting::topic("in", 3),
            consumer(ordering, ""),
            bystander()
        );
        let site = setting::site(&text).unwrap();
        produce_to(&site, "0", &["a0", "b0", "c0"]);
        produce_to(&site, "1", &["a1", "b1", "reject"]);
        produce_to(&site, "2", &["a2", "b2"]);
        let mut running = site.start(&[]).unwrap();
        let body = until_not_ready(&mut running, "halted");
        assert!(body.contains("in/1") && body.contains("told-to"), "{body}");
        until_settled(&mut running, "hostile", "ok", 7.0);
        // What comes later: only the halted partition stands.
        produce_to(&site, "1", &["late1"]);
        produce_to(&site, "0", &["late0"]);
        produce_to(&site, "2", &["late2"]);
        until_settled(&mut running, "hostile", "ok", 9.0);
        until_settled(&mut running, "bystander", "dead_lettered", 11.0);
        let halted = ("millstream_halted_partitions", [("consumer", "hostile")]);
        let lag = (
            "millstream_consumer_lag_events",
            [("consumer", "bystander")],
        );
        // Both are gauges that a tick brings up to date.
        running
            .until_scrape(
                "one partition halted, no lag beside it",
                PATIENCE,
                |scrape| {
                    scrape.value(halted.0, &halted.1) == Some(1.0)
                        && scrape.sum(lag.0, &lag.1) < 0.5
                },
            )
            .unwrap();
        let scrape = running.scrape().unwrap();
        scrape.check_accounting().unwrap();
        let lag: serde_json::Value =
            serde_json::from_str(&site.succeed(&["lag", "hostile", "--json"]).unwrap()).unwrap();
        let states: Vec<_> = lag
            .as_array()
            .unwrap()
            .iter()
            .map(|row| {
                (
                    row["partition"].as_u64().unwrap(),
                    row["state"].as_str().unwrap(),
                )
            })
            .collect();
        assert_eq!(states, [(0, "running"), (1, "halted"), (2, "running")]);
        assert_eq!(running.get("/healthz").unwrap().0, 200);
        assert!(running.running());
        running.terminate().unwrap();
        running.succeed(PATIENCE).unwrap();

        let mut values: Vec<_> = events::all(&site, "derived")
            .unwrap()
            .into_iter()
            .filter_map(|event| event.value)
            .collect();
        values.sort();
        assert_eq!(
            values,
            ["a0", "a1", "a2", "b0", "b1", "b2", "c0", "late0", "late2"],
            "{ordering}"
        );
        // Idle is what a halted partition is not.
        let mut again = site
            .start(&["--until-idle", "--idle-timeout", "1s"])
            .unwrap();
        let status = again.wait(PATIENCE).unwrap();
        assert_eq!(status.code(), Some(1), "{}", again.logs());
        assert!(again.logs().contains("halted"), "{}", again.logs());
    }
}

/// Attempts that are not counted, or counted twice, and retries that lose or repeat their
/// neighbours show here. In order an event fails alone, and its attempts count while the breaker
/// opens; without order several fail by turns, and what the breaker then keeps is called once more.
#[test]
fn a_retry_succeeds_after_its_backoff() {
    for (ordering, breaker) in [
        ("partition", ""),
        ("key", ""),
        ("none", "circuit_breaker = false\n"),
    ] {
        let more = format!(
            "ordering = \"{ordering}\"\nretry = {{ max_attempts = 5, initial = \"20ms\", max = \"50ms\" }}\n{breaker}{DEAD_LETTER}"
        );
        let text = setting::hostile_consumer("hostile", "in", &more).unwrap();
        let site = setting::site(&format!("{}{text}", setting::topic("in", 1))).unwrap();
        let values = [
            "a",
            "b",
            "retry-until 3",
            "c",
            "retry-until 5",
            "d",
            "retry-until 2",
            "e",
        ];
        produce_to(&site, "0", &values);
        let mut running = site.start(&[]).unwrap();
        until_settled(&mut running, "hostile", "ok", 8.0);
        let scrape = running.scrape().unwrap();
        let of = [("consumer", "hostile")];
        assert_eq!(scrape.sum("millstream_retries_total", &of), 7.0);
        let failures = [("consumer", "hostile"), ("kind", "retry")];
        assert_eq!(
            scrape.sum("millstream_plugin_failures_total", &failures),
            7.0
        );
        assert_eq!(scrape.sum("millstream_dead_letters_total", &of), 0.0);
        running.terminate().unwrap();
        running.succeed(PATIENCE).unwrap();
        let derived = events::all(&site, "derived").unwrap();
        let mut got: Vec<_> = derived
            .iter()
            .map(|event| event.value.clone().unwrap())
            .collect();
        if ordering == "none" {
            got.sort_by_key(|value| values.iter().position(|wanted| wanted == value));
        }
        assert_eq!(got, values, "{ordering}");
    }
}

/// A plugin may answer less than its batch: the rest comes again, in order, and no attempt counts.
#[test]
fn what_a_plugin_leaves_over_comes_again() {
    for ordering in ["partition", "key", "none"] {
        let text = format!(
            "{}{}",
            setting::topic("in", 1),
            consumer(ordering, DEAD_LETTER)
        );
        let site = setting::site(&text).unwrap();
        let mut lines = String::new();
        for number in 0..600 {
            let value = if number % 5 == 2 { "last" } else { "good" };
            lines.push_str(&format!("key-{}\t{value} {number}\n", number % 7));
        }
        setting::produce(&site, "in", &lines, &[]).unwrap();
        setting::until_idle(&site).unwrap();
        let derived = events::all(&site, "derived").unwrap();
        let sources: Vec<_> = derived
            .iter()
            .map(|event| event.source("in").unwrap().offset)
            .collect();
        let mut sorted = sources.clone();
        sorted.sort_unstable();
        assert_eq!(sorted, (0..600).collect::<Vec<_>>(), "{ordering}");
        if ordering != "none" {
            events::check_order(&derived, "in").unwrap();
        }
        assert!(events::all(&site, "dlq").unwrap().is_empty());
    }
}

/// `halt` means that going on would do harm: no later event may be called, and nothing is lost.
#[test]
fn a_plugin_can_stop_its_consumer_and_no_other() {
    for ordering in ["partition", "key", "none"] {
        let text = format!(
            "{}{}\n{}",
            setting::topic("in", 1),
            consumer(ordering, DEAD_LETTER),
            bystander()
        );
        let site = setting::site(&text).unwrap();
        produce_to(&site, "0", &["a", "b", "halt", "c"]);
        let mut running = site.start(&[]).unwrap();
        let body = until_not_ready(&mut running, "stopped");
        assert!(body.contains("the event asked for it"), "{body}");
        produce_to(&site, "0", &["d"]);
        until_settled(&mut running, "bystander", "dead_lettered", 5.0);
        assert_eq!(running.get("/healthz").unwrap().0, 200);
        running.scrape().unwrap().check_accounting().unwrap();
        running.terminate().unwrap();
        running.succeed(PATIENCE).unwrap();
        let derived = events::all(&site, "derived").unwrap();
        let values: Vec<_> = derived
            .iter()
            .map(|event| event.value.as_deref().unwrap())
            .collect();
        assert_eq!(values, ["a", "b"], "{ordering}");
        assert!(events::all(&site, "dlq").unwrap().is_empty());
        let lag: serde_json::Value =
            serde_json::from_str(&site.succeed(&["lag", "hostile", "--json"]).unwrap()).unwrap();
        assert_eq!(
            (&lag[0]["position"], &lag[0]["lag"]),
            (&2.into(), &3.into())
        );
    }
}

/// An outage of what a plugin depends on must not drain its topic into the dead letters.
#[test]
fn unavailable_waits_and_burns_no_attempt() {
    for ordering in ["partition", "key", "none"] {
        // One instance: it counts its calls, and answers from the twelfth on.
        let more = format!(
            "ordering = \"{ordering}\"\nconcurrency = 1\n\
             circuit_breaker = {{ open_for = \"10ms\" }}\n\
             retry = {{ max_attempts = 2, initial = \"5ms\", max = \"10ms\" }}\n{DEAD_LETTER}"
        );
        let text = setting::hostile_consumer("hostile", "in", &more).unwrap();
        let site = setting::site(&format!("{}{text}", setting::topic("in", 1))).unwrap();
        produce_to(&site, "0", &["a", "unavailable-until-call 12", "b", "c"]);
        let mut running = site.start(&[]).unwrap();
        until_settled(&mut running, "hostile", "ok", 4.0);
        let scrape = running.scrape().unwrap();
        let of = [("consumer", "hostile")];
        let unavailable = [("consumer", "hostile"), ("kind", "unavailable")];
        assert!(scrape.sum("millstream_plugin_failures_total", &unavailable) >= 2.0);
        assert_eq!(
            scrape.sum("millstream_retries_total", &of),
            0.0,
            "an attempt was counted"
        );
        assert_eq!(scrape.sum("millstream_dead_letters_total", &of), 0.0);
        running.terminate().unwrap();
        running.succeed(PATIENCE).unwrap();
        let derived = events::all(&site, "derived").unwrap();
        let mut sources: Vec<_> = derived
            .iter()
            .map(|event| event.source("in").unwrap().offset)
            .collect();
        if ordering == "none" {
            sources.sort_unstable();
        }
        assert_eq!(sources, [0, 1, 2, 3], "{ordering}");
    }
}
