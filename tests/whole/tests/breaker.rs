//! The circuit breaker, the share of dead letters that stops a consumer, and its rate.
#![expect(
    clippy::unwrap_used,
    reason = "what these helpers of tests cannot do fails the test"
)]

use std::time::Duration;

use millstream_test_support::metrics::Scrape;
use millstream_test_support::process::{Running, Site};
use millstream_test_support::wait::Deadline;
use millstream_whole_tests::{events, setting};

const PATIENCE: Duration = Duration::from_secs(120);
const NAME: (&str, &str) = ("consumer", "hostile");
const RETRY: &str = "retry = { max_attempts = 2, initial = \"10ms\", max = \"20ms\" }\n";
const DEAD_LETTER: &str = "dead_letter = { topic = \"dlq\" }\n";

/// One instance: it counts its calls, and what it answers depends on that.
fn site(partitions: u32, more: &str) -> Site {
    let more = format!("concurrency = 1\n{more}");
    let consumer = setting::hostile_consumer("hostile", "in", &more).unwrap();
    setting::site(&format!("{}{consumer}", setting::topic("in", partitions))).unwrap()
}

fn produce(site: &Site, count: usize, command: &str) {
    let lines: String = (0..count)
        .map(|number| format!("key-{number}\t{command}\n"))
        .collect();
    setting::produce(site, "in", &lines, &[]).unwrap();
}

fn settled(scrape: &Scrape, outcome: &str) -> f64 {
    scrape.sum(
        "millstream_events_settled_total",
        &[NAME, ("outcome", outcome)],
    )
}

fn until(running: &mut Running, what: &str, condition: impl Fn(&Scrape) -> bool) -> Scrape {
    running.until_scrape(what, PATIENCE, condition).unwrap();
    running.scrape().unwrap()
}

fn opened(scrape: &Scrape) -> f64 {
    scrape.sum(
        "millstream_breaker_transitions_total",
        &[NAME, ("to", "open")],
    )
}

fn is(scrape: &Scrape, state: &str) -> bool {
    let Some(value) = scrape.value("millstream_breaker_state", &[NAME, ("state", state)]) else {
        // The consumer is not loaded yet.
        return false;
    };
    let all = scrape.sum("millstream_breaker_state", &[NAME]);
    assert_eq!(all, 1.0, "breaker_state is not one-hot");
    value == 1.0
}

fn calls(scrape: &Scrape) -> f64 {
    scrape.sum("millstream_plugin_call_duration_seconds_count", &[NAME])
}

/// Each event would have run out of its two attempts long before the outage ends.
#[test]
fn an_outage_drains_nothing_and_everything_comes_out_afterwards() {
    for ordering in ["partition", "key", "none"] {
        let more = format!(
            "ordering = \"{ordering}\"\n{RETRY}{DEAD_LETTER}\
             circuit_breaker = {{ open_for = \"50ms\", probes = 2 }}\n"
        );
        let site = site(4, &more);
        produce(&site, 60, "retry-until-call 25");
        let mut running = site.start(&[]).unwrap();
        let scrape = until(&mut running, "all events settled", |scrape| {
            settled(scrape, "ok") >= 60.0 && is(scrape, "closed")
        });
        assert_eq!(settled(&scrape, "dead_lettered"), 0.0, "{ordering}");
        assert!(opened(&scrape) >= 3.0, "{ordering}: {}", opened(&scrape));
        let paused = [NAME, ("reason", "breaker")];
        assert!(scrape.sum("millstream_paused_seconds_total", &paused) > 0.0);
        scrape.check_accounting().unwrap();
        running.terminate().unwrap();
        running.succeed(PATIENCE).unwrap();
        let derived = events::all(&site, "derived").unwrap();
        assert_eq!(derived.len(), 60, "{ordering}");
        if ordering != "none" {
            events::check_order(&derived, "in").unwrap();
        }
    }
}

/// With the hour of `open_for` nothing would come out: the plugin's own time must hold.
#[test]
fn unavailable_opens_at_once_for_the_plugins_own_time_and_probes_close_it() {
    let more =
        format!("{RETRY}{DEAD_LETTER}circuit_breaker = {{ open_for = \"1h\", probes = 2 }}\n");
    let site = site(1, &more);
    let commands = ["a", "unavailable-for 5 100", "b", "c", "d"];
    let lines: String = commands.map(|command| format!("k\t{command}\n")).concat();
    setting::produce(&site, "in", &lines, &[]).unwrap();
    let mut running = site.start(&[]).unwrap();
    let scrape = until(&mut running, "all events settled", |scrape| {
        settled(scrape, "ok") >= 5.0
    });
    assert!(is(&scrape, "closed"));
    // The second, third and fourth call each said so.
    assert_eq!(opened(&scrape), 3.0);
    assert_eq!(scrape.sum("millstream_retries_total", &[NAME]), 0.0);
    running.terminate().unwrap();
    running.succeed(PATIENCE).unwrap();
}

#[test]
fn while_it_is_open_no_call_is_made_nothing_is_fetched_and_everyone_is_told() {
    let site = site(2, DEAD_LETTER);
    produce(&site, 20, "unavailable-for 1000000 3600000");
    let mut running = site.start(&[]).unwrap();
    let first = until(&mut running, "the breaker open", |scrape| {
        is(scrape, "open")
    });
    let paused = [NAME, ("reason", "breaker")];
    let last = until(&mut running, "a second of standing still", |scrape| {
        scrape.sum("millstream_paused_seconds_total", &paused) >= 2.0
    });
    assert_eq!(
        calls(&last),
        calls(&first),
        "a call while the breaker was open"
    );
    assert_eq!(opened(&last), 1.0);
    assert_eq!(settled(&last, "dead_lettered"), 0.0);

    let (status, body) = running.get("/readyz").unwrap();
    assert_eq!(status, 200, "an open breaker is no reason: {body}");
    assert!(body.contains("circuit breaker is open"), "{body}");
    let (_, body) = running.get("/api/v1/consumers").unwrap();
    let reports: serde_json::Value = serde_json::from_str(&body).unwrap();
    assert_eq!(reports[0]["breaker"], "open", "{body}");
    let rows = site.succeed(&["lag", "--json"]).unwrap();
    let rows: serde_json::Value = serde_json::from_str(&rows).unwrap();
    assert_eq!(rows[0]["breaker"], "open", "{rows}");
    let reason = rows[0]["reason"].as_str().unwrap();
    assert!(reason.contains("the event asked for it"), "{reason}");
    running.terminate().unwrap();
    running.succeed(PATIENCE).unwrap();
}

/// Several events that fail for good, with nothing else to try, are an outage to the breaker: without
/// this the topic stands until the plugin is mended.
#[test]
fn an_event_that_the_breaker_keeps_can_be_skipped_and_nothing_else() {
    for ordering in ["partition", "key"] {
        let more = format!(
            "ordering = \"{ordering}\"\n{RETRY}{DEAD_LETTER}circuit_breaker = {{ open_for = \"1h\" }}\n"
        );
        let site = site(2, &more);
        for partition in ["0", "1"] {
            let lines = "a\tretry\na\tgood\n";
            setting::produce(&site, "in", lines, &["-p", partition]).unwrap();
        }
        let mut running = site.start(&[]).unwrap();
        until(&mut running, "open", |scrape| {
            is(scrape, "open") && calls(scrape) >= 3.0
        });
        // Not yet called, behind an event that stays, and no event at all.
        for place in ["in/0@1", "in/1@9"] {
            let failed = setting::fail(&site, 1, &["skip", "hostile", place]).unwrap();
            assert!(failed.stderr.contains("not halted"), "{failed:?}");
        }
        for place in ["in/0@0", "in/1@0"] {
            let skipped = site.command(&["skip", "hostile", place]).unwrap();
            let logs = running.logs();
            assert!(skipped.status.success(), "{skipped:?}\n{logs}");
        }
        let scrape = until(&mut running, "taken up again", |scrape| {
            scrape.value("millstream_assigned_partitions", &[NAME]) == Some(2.0)
                && scrape.value("millstream_halted_partitions", &[NAME]) == Some(0.0)
        });
        assert!(is(&scrape, "open"), "a skip is no success");
        let skipped = [NAME, ("topic", "in"), ("reason", "skipped")];
        let skipped = scrape.value("millstream_events_skipped_total", &skipped);
        assert_eq!(skipped, Some(2.0));
        scrape.check_accounting().unwrap();
        running.terminate().unwrap();
        running.succeed(PATIENCE).unwrap();
        let rows = site.succeed(&["lag", "--json"]).unwrap();
        let rows: serde_json::Value = serde_json::from_str(&rows).unwrap();
        for row in rows.as_array().unwrap() {
            assert_eq!(row["position"], 1, "{ordering}: {row}");
        }
        assert!(events::all(&site, "dlq").unwrap().is_empty());
    }
}

#[test]
fn a_breaker_that_stays_open_ends_until_idle_with_the_reason() {
    let site = site(1, DEAD_LETTER);
    produce(&site, 3, "unavailable-for 1000000 3600000");
    let idle = ["run", "--until-idle", "--idle-timeout", "1s"];
    let finished = setting::fail(&site, 1, &idle).unwrap();
    assert!(
        finished.stderr.contains("circuit breaker is open"),
        "{finished:?}"
    );
}

#[test]
fn a_consumer_that_rejects_nearly_everything_stops_and_says_what_to_do() {
    let more = "dead_letter = { topic = \"dlq\", max_ratio = 0.5 }\n";
    let site = site(1, more);
    produce(&site, 10, "good");
    produce(&site, 3_000, "reject");
    let mut running = site.start(&[]).unwrap();
    let deadline = Deadline::after(PATIENCE);
    let body = loop {
        match running.get("/readyz") {
            Ok((503, body)) if body.contains("stopped") => break body,
            other => assert!(!deadline.passed(), "{other:?}\n{}", running.logs()),
        }
        millstream_test_support::wait::step();
    };
    assert!(body.contains("dead_letter.max_ratio"), "{body}");
    assert!(body.contains("mend the plugin"), "{body}");
    running.terminate().unwrap();
    running.succeed(PATIENCE).unwrap();
    let dead = events::all(&site, "dlq").unwrap().len();
    assert!((20..1_000).contains(&dead), "{dead} dead letters");
}

/// Twice the ceiling between any two scrapes would show, whatever the machine is busy with.
#[test]
fn the_rate_holds() {
    let site = site(2, "rate = \"200/s\"\n");
    produce(&site, 5_000, "good");
    let mut running = site.start(&[]).unwrap();
    let watched = Deadline::after(PATIENCE);
    let first = until(&mut running, "the first events", |scrape| {
        settled(scrape, "ok") > 0.0
    });
    let from = watched.left();
    let last = until(&mut running, "600 events", |scrape| {
        settled(scrape, "ok") >= 600.0
    });
    let took = (from - watched.left()).as_secs_f64();
    let events = settled(&last, "ok") - settled(&first, "ok");
    // What was settled between the scrape and the look at the clock, and one full bucket.
    let most = 1.5 * 200.0 * took + 100.0;
    assert!(events <= most, "{events} events in {took} s");
    running.terminate().unwrap();
    running.succeed(PATIENCE).unwrap();
}
