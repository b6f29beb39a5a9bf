//! Requests that are sent twice: `Idempotency-Key`, and `millstream produce` when answers are lost.
#![expect(
    clippy::unwrap_used,
    reason = "what these helpers of tests cannot do fails the test"
)]

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use millstream_test_support::process::{Answer, Running, Site, post};
use millstream_test_support::wait::{Deadline, step};
use millstream_whole_tests::events::{self, Event};
use millstream_whole_tests::setting;
use serde_json::Value;

const KILLS: usize = 8;
/// Events of a request that is sent until it is answered.
const EVENTS_EACH: usize = 20;
const PATIENCE: Duration = Duration::from_secs(120);
const LINES: (&str, &str) = ("content-type", "application/x-ndjson");
const THREE: &str = "{\"value\":\"1\",\"key\":\"a\"}\n{\"value\":\"2\"}\n{\"value\":\"3\"}\n";

/// A runtime without consumers, ready.
fn started(site: &Site) -> Running {
    let mut running = site.start(&[]).unwrap();
    running.until_ready(PATIENCE).unwrap();
    running
}

fn send(site: &Site, key: &str, lines: &str) -> Answer {
    let headers = [LINES, ("idempotency-key", key)];
    post(&site.admin(), "/topics/t", &headers, lines).unwrap()
}

/// The values of events, sorted.
fn values(events: &[Event]) -> Vec<&str> {
    let values = events.iter().filter_map(|event| event.value.as_deref());
    let mut values: Vec<&str> = values.collect();
    values.sort_unstable();
    values
}

/// An answer that is lost with the process must not cost or double events when it is asked for
/// again.
#[test]
fn a_crash_after_the_answer_changes_neither_answer_nor_events() {
    let site = setting::site("").unwrap();
    let mut running = started(&site);
    let mut answers = Vec::new();
    for round in 0..4 {
        let answer = send(&site, &format!("round {round}"), THREE);
        running.kill9().unwrap();
        assert_eq!(answer.status, 200, "{}", answer.body);
        answers.push(answer);
        running = started(&site);
        for (round, answer) in answers.iter().enumerate() {
            assert_eq!(send(&site, &format!("round {round}"), THREE), *answer);
        }
    }
    let other = send(&site, "round 0", &THREE.replace('3', "4"));
    assert_eq!(other.status, 422, "{}", other.body);
    assert!(other.body.contains("round 0"), "{}", other.body);
    let events = events::all(&site, "t").unwrap();
    let wanted: Vec<&str> = ["1"; 4]
        .into_iter()
        .chain(["2"; 4])
        .chain(["3"; 4])
        .collect();
    assert_eq!(values(&events), wanted);
    // Each answer names where its events are.
    let places: HashSet<String> = answers
        .iter()
        .flat_map(|answer| {
            let answer: Value = answer.body.parse().unwrap();
            answer["events"].as_array().unwrap().clone()
        })
        .map(|place| format!("{}/{}", place["partition"], place["offset"]))
        .collect();
    let found: HashSet<String> = events.iter().map(|event| event.place.to_string()).collect();
    assert_eq!(places, found);
    running.terminate().unwrap();
    running.succeed(PATIENCE).unwrap();
}

#[test]
fn eight_senders_of_one_request_write_it_once() {
    let site = setting::site("").unwrap();
    let _running = started(&site);
    for round in 0..5 {
        let key = format!("round {round}");
        let answers: Vec<Answer> = std::thread::scope(|scope| {
            let senders: Vec<_> = (0..8)
                .map(|_| scope.spawn(|| send(&site, &key, THREE)))
                .collect();
            let answers = senders.into_iter().map(|sender| sender.join().unwrap());
            answers.collect()
        });
        assert_eq!(answers[0].status, 200, "{}", answers[0].body);
        assert!(answers.iter().all(|answer| *answer == answers[0]));
        assert_eq!(events::all(&site, "t").unwrap().len(), 3 * (round + 1));
    }
}

/// What is refused leaves nothing behind, neither events nor its key.
#[test]
fn a_refused_request_writes_nothing_and_says_when_to_come_again() {
    let site = setting::site("").unwrap();
    let full = setting::head(&site).replace("\"64MiB\"", "\"1024TiB\"");
    site.configure(&full).unwrap();
    let mut running = started(&site);
    let refused = send(&site, "a", THREE);
    assert_eq!(refused.status, 507, "{}", refused.body);
    assert_eq!(refused.retry_after.as_deref(), Some("30"));
    assert!(refused.body.contains("min_free_disk"), "{}", refused.body);
    running.terminate().unwrap();
    running.succeed(PATIENCE).unwrap();

    let room = format!(
        "{}\n[topics.small]\nmax_event = \"1KiB\"\n",
        setting::head(&site)
    );
    site.configure(&room).unwrap();
    let _running = started(&site);
    assert_eq!(events::all(&site, "t").unwrap(), []);
    let large = format!(
        "{{\"value\":\"1\"}}\n{{\"value\":\"{}\"}}\n",
        "x".repeat(1_100)
    );
    for path in ["/topics/small", "/topics/t?partition=99"] {
        let headers = [LINES, ("idempotency-key", "a")];
        let refused = post(&site.admin(), path, &headers, &large).unwrap();
        let wanted = if path.contains("small") { 413 } else { 422 };
        assert_eq!(refused.status, wanted, "{}", refused.body);
        assert_eq!(refused.retry_after, None);
    }
    let bad = send(&site, "a", &format!("{THREE}nonsense\n"));
    assert_eq!(bad.status, 400, "{}", bad.body);
    assert_eq!(events::all(&site, "t").unwrap(), []);
    assert_eq!(events::all(&site, "small").unwrap(), []);
    assert_eq!(send(&site, "a", THREE).status, 200);
    assert_eq!(events::all(&site, "t").unwrap().len(), 3);
}

/// Sends requests one after the other, each until it is answered, and returns how many.
fn send_until(site: &Site, sender: usize, stop: &AtomicBool) -> usize {
    for number in 0.. {
        if stop.load(Ordering::Relaxed) {
            return number;
        }
        let name = format!("{sender}-{number}");
        let lines: String = (0..EVENTS_EACH)
            .map(|line| format!("{{\"value\":\"{name}-{line}\"}}\n"))
            .collect();
        let deadline = Deadline::after(PATIENCE);
        let headers = [LINES, ("idempotency-key", &name)];
        loop {
            match post(&site.admin(), "/topics/t", &headers, &lines) {
                Ok(answer) if answer.status == 200 => break,
                Ok(answer) => assert_eq!(answer.status, 503, "{}", answer.body),
                // Killed: whether it was written is not known.
                Err(_) => step(),
            }
            assert!(!deadline.passed(), "nobody takes request {name}");
        }
    }
    0
}

/// A kill between the events and their key, in either order, would double or lose them.
#[test]
fn requests_that_are_sent_until_they_are_answered_are_written_once() {
    let seed = std::env::var("MILLSTREAM_TEST_SEED")
        .ok()
        .and_then(|seed| seed.parse().ok())
        .unwrap_or_else(|| fastrand::u64(..));
    println!("MILLSTREAM_TEST_SEED={seed} repeats these moments");
    let mut random = fastrand::Rng::with_seed(seed);
    let site = setting::site("").unwrap();
    let mut running = started(&site);
    let stop = AtomicBool::new(false);
    let requests: usize = std::thread::scope(|scope| {
        let (site, stop) = (&site, &stop);
        let senders: Vec<_> = (0..4)
            .map(|sender| scope.spawn(move || send_until(site, sender, stop)))
            .collect();
        for _ in 0..KILLS {
            let moment = Deadline::after(Duration::from_millis(random.u64(1..200)));
            while !moment.passed() {
                step();
            }
            running.kill9().unwrap();
            running = started(site);
        }
        stop.store(true, Ordering::Relaxed);
        let counts = senders.into_iter().map(|sender| sender.join().unwrap());
        counts.sum()
    });
    let events = events::all(&site, "t").unwrap();
    let values = values(&events);
    let distinct: HashSet<&str> = values.iter().copied().collect();
    assert_eq!(distinct.len(), values.len(), "events are there twice");
    assert_eq!(values.len(), requests * EVENTS_EACH, "events are lost");
    println!("{requests} requests, {KILLS} kills");
}

/// Every event that `t` is said to hold.
fn held(site: &Site) -> u64 {
    let Ok(topics) = site.succeed(&["topics", "--json"]) else {
        return 0;
    };
    let topics: Value = topics.parse().unwrap();
    let partitions = topics.as_array().unwrap().iter();
    let partitions = partitions.filter_map(|topic| topic["partitions"].as_array());
    partitions.flatten().filter_map(|p| p["end"].as_u64()).sum()
}

/// The command goes on when the runtime is back, and what was written without an answer is not
/// written again.
#[test]
fn produce_survives_crashes_of_the_runtime_and_doubles_nothing() {
    const EVENTS: usize = 200_000;
    let site = setting::site("").unwrap();
    let mut running = started(&site);
    let input: String = (0..EVENTS).map(|n| format!("{n:06}\n")).collect();
    std::thread::scope(|scope| {
        let command = scope.spawn(|| setting::command_with_input(&site, &["produce", "t"], &input));
        for wanted in [EVENTS / 10, EVENTS / 2] {
            let deadline = Deadline::after(PATIENCE);
            while held(&site) < wanted as u64 {
                assert!(
                    !deadline.passed(),
                    "it takes no events:\n{}",
                    running.logs()
                );
                step();
            }
            running.kill9().unwrap();
            running = started(&site);
        }
        let finished = command.join().unwrap().unwrap();
        assert!(finished.status.success(), "{}", finished.stderr);
    });
    let events = events::all(&site, "t").unwrap();
    let expected: Vec<String> = (0..EVENTS).map(|n| format!("{n:06}")).collect();
    assert!(values(&events) == expected, "{} events", events.len());
}

/// Kafka has no place for a key beside the events: to take one would promise what does not hold.
#[test]
fn on_kafka_a_key_is_refused_and_an_absent_cluster_is_waited_for() {
    let site = Site::new().unwrap();
    // Nothing listens on port 1.
    let text = format!(
        "[broker]\nkind = \"kafka\"\n[broker.properties]\n\
         \"bootstrap.servers\" = \"127.0.0.1:1\"\n\n[admin]\nlisten = \"{}\"\n",
        site.admin()
    );
    site.configure(&text).unwrap();
    let running = site.start(&[]).unwrap();
    let deadline = Deadline::after(PATIENCE);
    while running.get("/healthz").is_err() {
        assert!(!deadline.passed(), "{}", running.logs());
        step();
    }
    let refused = send(&site, "a", THREE);
    assert_eq!(refused.status, 501, "{}", refused.body);
    assert!(refused.body.contains("Idempotency-Key"), "{}", refused.body);
    let absent = post(&site.admin(), "/topics/t", &[LINES], THREE).unwrap();
    assert_eq!(absent.status, 503, "{}", absent.body);
    assert_eq!(absent.retry_after.as_deref(), Some("1"));
}
