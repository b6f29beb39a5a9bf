//! An event that takes the process with it: it ends as one dead letter, and its neighbours come out.
//!
//! No plugin can end the host, so the test does it: each time the plugin says that it hangs on the
//! event, the runtime gets SIGKILL.
#![expect(
    clippy::unwrap_used,
    reason = "what these helpers of tests cannot do fails the test"
)]

use std::collections::BTreeMap;
use std::time::Duration;

use millstream_test_support::process::{Running, Site};
use millstream_test_support::wait::{Deadline, step};
use millstream_whole_tests::events::{self, Place};
use millstream_whole_tests::setting;

const PATIENCE: Duration = Duration::from_secs(120);
const POISON: &str = "hang";
const GOOD: usize = 150;

/// A call may take long enough to be killed in.
fn consumer(name: &str, delivery: &str, ordering: &str, more: &str) -> String {
    let more = format!(
        "delivery = \"{delivery}\"\nordering = \"{ordering}\"\n\
         limits = {{ deadline = \"100s\", call = \"100s\" }}\n{more}"
    );
    setting::hostile_consumer(name, "in", &more).unwrap()
}

/// Good events of some keys in two partitions, with one poison in the midst of the first.
fn site(consumers: &str) -> Site {
    let topic = setting::topic("in", 2);
    let runtime = "[runtime]\nshutdown_timeout = \"1s\"\n";
    let site = setting::site(&format!("{topic}{consumers}")).unwrap();
    let text = std::fs::read_to_string(site.path().join("millstream.toml")).unwrap();
    site.configure(&text.replace("[runtime]\n", runtime))
        .unwrap();
    for partition in ["0", "1"] {
        let mut lines = String::new();
        for number in 0..GOOD {
            if number == GOOD / 2 && partition == "0" {
                lines.push_str(&format!("key-1\t{POISON}\n"));
            }
            lines.push_str(&format!("key-{}\tgood {number}\n", number % 7));
        }
        setting::produce(&site, "in", &lines, &["-p", partition]).unwrap();
    }
    site
}

/// Starts, and waits until the plugin hangs once more.
fn until_it_hangs(site: &Site) -> Running {
    let hangs = |log: &str| log.matches("hangs on the event").count();
    // The log of all starts.
    let before = std::fs::read_to_string(site.path().join("log.txt")).unwrap_or_default();
    let before = hangs(&before);
    let mut running = site.start(&[]).unwrap();
    let deadline = Deadline::after(PATIENCE);
    while hangs(&running.logs()) == before {
        assert!(
            running.running() && !deadline.passed(),
            "it does not hang the time after {before}:\n{}",
            running.logs()
        );
        step();
    }
    running
}

fn kill_three_times(site: &Site) {
    for _ in 0..3 {
        until_it_hangs(site).kill9().unwrap();
    }
}

/// How often each event of `in` was derived from, and the dead letters with their reasons.
fn outcomes(site: &Site) -> (BTreeMap<Place, usize>, Vec<(Place, String)>) {
    let mut derived = BTreeMap::new();
    for event in events::all(site, "derived").unwrap() {
        *derived.entry(event.source("in").unwrap()).or_default() += 1;
    }
    let dead = events::all(site, "dlq").unwrap();
    let dead = dead.iter().map(|letter| {
        let reason = letter.header("millstream-dlq-reason").unwrap();
        (letter.dead().unwrap(), reason.to_owned())
    });
    (derived, dead.collect())
}

const DEAD_LETTER: &str = "dead_letter = { topic = \"dlq\" }\n";

fn check(delivery: &str, ordering: &str) {
    // The second consumer has the same events in flight at each death, and hangs on none.
    let bystander = consumer("bystander", delivery, ordering, DEAD_LETTER).replace(
        "outputs = { default = \"derived\" }",
        "filter = { key = [\"!key-1\"] }\nconfig = { init = \"honest\" }\noutputs = { default = \"seen\" }",
    );
    let site = site(&format!(
        "{}{bystander}",
        consumer("hostile", delivery, ordering, DEAD_LETTER)
    ));
    kill_three_times(&site);
    setting::until_idle(&site).unwrap();

    let (mut derived, dead) = outcomes(&site);
    let lines = events::all(&site, "in").unwrap();
    assert_eq!(lines.len(), 2 * GOOD + 1);
    let poison = lines
        .iter()
        .find(|line| line.value.as_deref() == Some(POISON));
    let poison = poison.unwrap().place;
    assert_eq!(dead, [(poison, "crash".to_owned())]);
    for line in lines.iter().filter(|line| line.place != poison) {
        let times = derived.remove(&line.place).unwrap_or(0);
        assert!(times > 0, "lost: {line:?}");
        if delivery == "exactly-once" {
            assert_eq!(times, 1, "repeated: {line:?}");
        }
    }
    assert!(derived.is_empty(), "made up: {derived:?}");
    let all = events::without_repeats(events::all(&site, "derived").unwrap()).unwrap();
    events::check_order(&all, "in").unwrap();
    let seen = events::without_repeats(events::all(&site, "seen").unwrap()).unwrap();
    let wanted = lines
        .iter()
        .filter(|line| line.key.as_deref() != Some("key-1"));
    assert_eq!(seen.len(), wanted.count());
    setting::check_no_lag(&site).unwrap();
}

/// Without a count that outlives the process the poison would kill it for ever; one that blamed the
/// batch or the beginning of the partition would give neighbours up.
#[test]
fn an_event_of_three_deaths_is_dead_lettered_alone() {
    check("at-least-once", "partition");
    check("at-least-once", "key");
}

#[test]
fn an_event_of_three_deaths_is_dead_lettered_alone_exactly_once() {
    check("exactly-once", "partition");
    check("exactly-once", "none");
}

/// An event that is slow while runtimes are restarted would be given up if these counted as deaths.
#[test]
fn a_restart_in_order_is_no_death() {
    let site = site(&consumer(
        "hostile",
        "at-least-once",
        "partition",
        DEAD_LETTER,
    ));
    for _ in 0..4 {
        let mut running = until_it_hangs(&site);
        running.terminate().unwrap();
        running.succeed(PATIENCE).unwrap();
        // A death in between does not make them count.
        until_it_hangs(&site).kill9().unwrap();
    }
    let (_, dead) = outcomes(&site);
    assert!(dead.is_empty(), "{dead:?}");
}

#[test]
fn without_a_dead_letter_topic_the_partition_halts_at_it_and_can_be_moved_past_it() {
    let site = site(&consumer("hostile", "at-least-once", "partition", ""));
    kill_three_times(&site);
    let mut running = site.start(&[]).unwrap();
    let deadline = Deadline::after(PATIENCE);
    let body = loop {
        match running.get("/readyz") {
            Ok((503, body)) if body.contains("failed for good") => break body,
            other => assert!(!deadline.passed(), "{other:?}\n{}", running.logs()),
        }
        step();
    };
    let place = format!("in/0@{}", GOOD / 2);
    assert!(body.contains("crash") && body.contains("in/0"), "{body}");
    site.succeed(&["skip", "hostile", &place]).unwrap();
    setting::until_no_lag(&site, &mut running, PATIENCE).unwrap();
    running.terminate().unwrap();
    running.succeed(PATIENCE).unwrap();
    let (derived, _) = outcomes(&site);
    assert_eq!(derived.len(), 2 * GOOD);
}
