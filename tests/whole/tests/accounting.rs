//! Every event is accounted for in every scrape: consumed = settled by outcome + in flight.

use std::time::Duration;

use millstream_test_support::metrics::{Scrape, promtool_accepts};
use millstream_test_support::wait::{Deadline, step};
use millstream_whole_tests::{events, setting};

const EVENTS: usize = 30_000;
const PATIENCE: Duration = Duration::from_secs(240);

/// What the events ask for, in turn. Traps cost an instance each, so they are few.
fn value(number: usize) -> &'static str {
    match number {
        n if n % 3_001 == 11 => "trap",
        n if n % 1_009 == 5 => "garbage-span",
        n if n % 97 == 3 => "reject",
        n if n % 211 == 7 => "retry",
        n if n % 101 == 9 => "retry-until 2",
        n if n % 13 == 0 => "drop",
        n if n % 41 == 2 => "last",
        _ => "good",
    }
}

/// The outcome that an event must be counted under. `filtered` are those of the key `other`.
fn outcome(number: usize) -> &'static str {
    if filtered(number) {
        return "filtered";
    }
    match value(number) {
        "trap" | "garbage-span" | "reject" | "retry" => "dead_lettered",
        "drop" => "dropped",
        _ => "ok",
    }
}

fn filtered(number: usize) -> bool {
    number % 10 == 4
}

/// An event that is counted twice, or between two counters while a scrape comes, shows here.
#[test]
fn consumed_is_settled_and_in_flight_in_every_scrape() {
    let mut text = setting::topic("in", 4);
    for ordering in ["partition", "key", "none"] {
        // Without the breaker, which would hold events that fail for good at the head of every
        // partition at once.
        let more = format!(
            "ordering = \"{ordering}\"\nfilter = {{ key = [\"!other\"] }}\n\
             retry = {{ max_attempts = 2, initial = \"5ms\", max = \"10ms\" }}\n\
             circuit_breaker = false\nlimits = {{ memory = \"32MiB\" }}\ndead_letter = {{ topic = \"dlq-{ordering}\" }}\n"
        );
        let consumer = setting::hostile_consumer(ordering, "in", &more).unwrap();
        text += &consumer.replace("\"derived\"", &format!("\"derived-{ordering}\""));
    }
    let site = setting::site(&text).unwrap();
    let lines: String = (0..EVENTS)
        .map(|number| {
            let key = if filtered(number) {
                "other".to_owned()
            } else {
                format!("k{}", number % 50)
            };
            format!("{key}\t{}\n", value(number))
        })
        .collect();
    setting::produce(&site, "in", &lines, &[]).unwrap();

    let mut running = site.start(&[]).unwrap();
    let deadline = Deadline::after(PATIENCE);
    let (mut scrapes, mut under_load) = (0, 0);
    let done = |scrape: &Scrape| {
        let settled = scrape.sum("millstream_events_settled_total", &[]);
        settled >= (3 * EVENTS) as f64 && scrape.sum("millstream_in_flight_events", &[]) == 0.0
    };
    let last = loop {
        assert!(running.running(), "{}", running.logs());
        assert!(!deadline.passed(), "it does not end:\n{}", running.logs());
        // The interface is not there yet in the first moments.
        let Ok(scrape) = running.scrape() else {
            step();
            continue;
        };
        scrape.check_accounting().unwrap();
        scrapes += 1;
        under_load += u32::from(scrape.sum("millstream_in_flight_events", &[]) > 0.0);
        if done(&scrape) {
            break scrape;
        }
    };
    println!("{scrapes} scrapes, {under_load} of them with events in flight");
    assert!(under_load > 0, "no scrape came while events were in flight");

    for consumer in ["partition", "key", "none"] {
        let of = [("consumer", consumer)];
        assert_eq!(
            last.sum("millstream_events_consumed_total", &of),
            EVENTS as f64
        );
        for wanted in ["ok", "filtered", "dropped", "dead_lettered", "abandoned"] {
            let expected = (0..EVENTS)
                .filter(|number| outcome(*number) == wanted)
                .count();
            let labels = [("consumer", consumer), ("outcome", wanted)];
            let counted = last.sum("millstream_events_settled_total", &labels);
            assert_eq!(counted, expected as f64, "{consumer}, {wanted}");
        }
        let dead = events::all(&site, &format!("dlq-{consumer}"))
            .unwrap()
            .len();
        assert_eq!(last.sum("millstream_dead_letters_total", &of), dead as f64);
        let derived = events::all(&site, &format!("derived-{consumer}"))
            .unwrap()
            .len();
        assert_eq!(
            last.sum("millstream_events_produced_total", &of),
            derived as f64
        );
        for (reason, command) in [
            ("trap", "trap"),
            ("invalid", "garbage-span"),
            ("rejected", "reject"),
            ("retries-exhausted", "retry"),
        ] {
            let asked = |number: &usize| value(*number) == command && !filtered(*number);
            let labels = [("consumer", consumer), ("reason", reason)];
            let counted = last.sum("millstream_dead_letters_total", &labels);
            assert_eq!(
                counted,
                (0..EVENTS).filter(asked).count() as f64,
                "{consumer}, {reason}"
            );
        }
    }
    assert_eq!(last.sum("millstream_invariant_violations_total", &[]), 0.0);

    let (status, body) = running.get("/metrics").unwrap();
    assert_eq!(status, 200);
    promtool_accepts(&body).unwrap();
    for name in [
        "consumed_bytes_total",
        "produced_bytes_total",
        "plugin_failures_total",
        "retries_total",
        "plugin_instantiations_total",
        "commits_total",
        "rebalances_total",
        "deploys_total",
        "compile_cache_total",
        "plugin_call_duration_seconds_bucket",
        "event_processing_seconds_bucket",
        "event_latency_seconds_bucket",
        "commit_duration_seconds_bucket",
        "batch_events_bucket",
        "plugin_init_duration_seconds_bucket",
        "consumer_lag_events",
        "consumer_lag_seconds",
        "last_settled_timestamp_seconds",
        "in_flight_bytes",
        "assigned_partitions",
        "halted_partitions",
        "plugin_instances",
        "plugin_memory_bytes",
        "plugin_memory_limit_bytes",
        "plugin_info",
        "build_info",
        "broker_up",
        "store_bytes",
        "store_free_bytes",
        "config_generation",
        "config_last_reload_successful",
        "config_last_reload_timestamp_seconds",
    ] {
        let name = format!("millstream_{name}");
        assert!(last.all(&name, &[]).next().is_some(), "no {name}");
    }
    running.terminate().unwrap();
    running.succeed(Duration::from_secs(60)).unwrap();
}
