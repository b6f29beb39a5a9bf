//! SIGKILL at random moments while events come in over HTTP, under each guarantee.
#![expect(
    clippy::unwrap_used,
    reason = "what these helpers of tests cannot do fails the test"
)]

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use millstream_test_support::process::{Running, Site, post_lines};
use millstream_test_support::retail::Retail;
use millstream_test_support::wait::{Deadline, step};
use millstream_whole_tests::events::{self, Place};
use millstream_whole_tests::setting;
use millstream_whole_tests::shop::{self, Expected};
use serde_json::{Value, json};

const KILLS: usize = 20;
/// What a consumer holds unsettled, and what it settles between two commits, unless told otherwise.
const IN_FLIGHT: usize = 20_000;
/// Lines of one request.
const REQUEST: usize = 500;
/// How often the shipped sample is taken, where the full data set is not there.
const SAMPLES: usize = 10;
/// No part of the test may take longer.
const PATIENCE: Duration = Duration::from_secs(600);

/// Produces all lines in order, each request until it is acknowledged, and returns where the lines
/// were said to be. A request that the crash cut off may have been taken: it is sent again.
fn produce(
    admin: &str,
    lines: &[String],
    acknowledged: &AtomicUsize,
    stop: &AtomicBool,
) -> Vec<(Place, usize)> {
    let mut places = Vec::with_capacity(lines.len());
    for (number, request) in lines.chunks(REQUEST).enumerate() {
        let mut body = String::new();
        for line in request {
            let event = json!({"key": shop::invoice(line).unwrap(), "value": line});
            body.push_str(&event.to_string());
            body.push('\n');
        }
        let deadline = Deadline::after(PATIENCE);
        let answer = loop {
            assert!(
                !deadline.passed() && !stop.load(Ordering::Relaxed),
                "nobody takes the lines"
            );
            match post_lines(admin, "/topics/order-lines", &body) {
                Ok((200, answer)) => break answer,
                // Down, or up and not taking events yet.
                Ok((503, _)) | Err(_) => step(),
                Ok((status, answer)) => panic!("{status}: {answer}"),
            }
        };
        let answer: Value = answer.parse().unwrap();
        let events = answer["events"].as_array().unwrap();
        assert_eq!(events.len(), request.len());
        for (index, event) in events.iter().enumerate() {
            let place = Place {
                partition: event["partition"].as_u64().unwrap(),
                offset: event["offset"].as_u64().unwrap(),
            };
            places.push((place, number * REQUEST + index));
        }
        acknowledged.store(places.len(), Ordering::Relaxed);
    }
    places
}

/// Waits for a random moment: once so much was acknowledged, and a while longer.
fn until_moment(running: &mut Running, acknowledged: &AtomicUsize, wanted: usize, more: Duration) {
    let deadline = Deadline::after(PATIENCE);
    while acknowledged.load(Ordering::Relaxed) < wanted {
        assert!(running.running(), "it ended by itself:\n{}", running.logs());
        assert!(
            !deadline.passed(),
            "it takes no events:\n{}",
            running.logs()
        );
        step();
    }
    let moment = Deadline::after(more);
    while !moment.passed() {
        step();
    }
}

/// A run with its crashes: the lines that were produced, and where each was said to be.
struct Crashed {
    site: Site,
    lines: Arc<Vec<String>>,
    places: Vec<(Place, usize)>,
}

/// Produces lines while a runtime is killed so often, at moments by a seed, and started again; then
/// lets it finish.
fn crash(config: &str, lines: Vec<String>, kills: usize) -> Crashed {
    let seed = std::env::var("MILLSTREAM_TEST_SEED")
        .ok()
        .and_then(|seed| seed.parse().ok())
        .unwrap_or_else(|| fastrand::u64(..));
    println!("MILLSTREAM_TEST_SEED={seed} repeats these moments");
    let mut random = fastrand::Rng::with_seed(seed);
    let lines = Arc::new(lines);
    let site = setting::site(config).unwrap();
    // The first start makes the store; the crashes come after it is ready.
    let mut running = site.start(&[]).unwrap();
    running.until_ready(PATIENCE).unwrap();

    let acknowledged = Arc::new(AtomicUsize::new(0));
    let stop = Arc::new(AtomicBool::new(false));
    let producer = std::thread::spawn({
        let (admin, lines) = (site.admin(), lines.clone());
        let (acknowledged, stop) = (acknowledged.clone(), stop.clone());
        move || produce(&admin, &lines, &acknowledged, &stop)
    });
    let mut moments: Vec<usize> = (0..kills).map(|_| random.usize(..lines.len())).collect();
    moments.sort_unstable();
    for (number, moment) in moments.into_iter().enumerate() {
        let more = Duration::from_millis(random.u64(..200));
        until_moment(&mut running, &acknowledged, moment, more);
        running.kill9().unwrap();
        println!(
            "kill {number} with {} acknowledged",
            acknowledged.load(Ordering::Relaxed)
        );
        running = site.start(&[]).unwrap();
    }
    running.until_ready(PATIENCE).unwrap();
    let places = match producer.join() {
        Ok(places) => places,
        Err(panic) => {
            stop.store(true, Ordering::Relaxed);
            println!("{}", running.logs());
            std::panic::resume_unwind(panic);
        }
    };
    running.terminate().unwrap();
    running.succeed(Duration::from_secs(60)).unwrap();
    setting::until_idle(&site).unwrap();
    Crashed {
        site,
        lines,
        places,
    }
}

/// The lines of the data set, so often.
fn lines(retail: &Retail, times: usize) -> Vec<String> {
    (0..times)
        .flat_map(|_| retail.lines().map(str::to_owned))
        .collect()
}

/// What was acknowledged and then lost, a position that claims unsettled events, or a store that
/// does not recover shows here.
#[test]
fn nothing_acknowledged_is_lost_in_twenty_crashes() {
    at_least_once(KILLS);
}

#[test]
#[ignore = "long: a hundred crashes; make faults"]
fn nothing_acknowledged_is_lost_in_a_hundred_crashes() {
    at_least_once(many_kills());
}

/// `MILLSTREAM_TEST_KILLS`, or a hundred.
fn many_kills() -> usize {
    let kills = std::env::var("MILLSTREAM_TEST_KILLS").ok();
    kills.and_then(|kills| kills.parse().ok()).unwrap_or(100)
}

/// An event that was in its call, alone, at the last of three deaths is given up as `crash`. Kills at
/// random moments can bring that about; but most of a trial is waiting for the disk, and a kill then
/// blames nobody.
fn check_given_up(given_up: usize, kills: usize) {
    println!("{given_up} events given up as crash");
    assert!(
        given_up <= kills / 20,
        "{given_up} given up in {kills} crashes"
    );
}

fn at_least_once(kills: usize) {
    let retail = Retail::load().unwrap();
    let times = if retail.full { 1 } else { SAMPLES };
    let Crashed {
        site,
        lines,
        places,
    } = crash(&setting::shop().unwrap(), lines(&retail, times), kills);

    // Every acknowledged line is where it was said to be.
    let stored = events::all(&site, "order-lines").unwrap();
    let by_place: BTreeMap<Place, &events::Event> =
        stored.iter().map(|event| (event.place, event)).collect();
    for (place, line) in &places {
        let event = by_place
            .get(place)
            .unwrap_or_else(|| panic!("{place} was acknowledged and is gone"));
        assert_eq!(
            event.value.as_deref(),
            Some(lines[*line].as_str()),
            "{place}"
        );
    }
    let said: HashSet<Place> = places.iter().map(|(place, _)| *place).collect();
    assert_eq!(
        said.len(),
        lines.len(),
        "two lines were acknowledged at one place"
    );
    println!("{} lines, {} in the topic", lines.len(), stored.len());

    // Every line of the topic was derived from or dead-lettered; repeats say the same.
    let written = events::all(&site, "orders").unwrap();
    let total = written.len();
    let mut wanted = 0;
    for order in &written {
        wanted += shop::rules(&order.json().unwrap()).unwrap().len();
    }
    let orders = events::without_repeats(written).unwrap();
    println!("{} orders, {} repeats", orders.len(), total - orders.len());
    // A crash repeats what was not committed yet: at most what may be in flight and settled since.
    assert!(
        total - orders.len() <= kills * IN_FLIGHT,
        "more repeats than were in flight"
    );
    events::check_order(&orders, "order-lines").unwrap();
    let mut enriched = BTreeMap::new();
    for order in &orders {
        enriched.insert(order.source("order-lines").unwrap(), order);
    }
    let letters = events::all(&site, "order-lines.dlq").unwrap();
    let (given_up, rejected): (Vec<_>, Vec<_>) = letters
        .iter()
        .partition(|letter| letter.header("millstream-dlq-reason").unwrap() == "crash");
    let places_of = |letters: Vec<&events::Event>| -> HashSet<Place> {
        letters
            .iter()
            .map(|letter| letter.dead().unwrap())
            .collect()
    };
    let (given_up, dead) = (places_of(given_up), places_of(rejected));
    check_given_up(given_up.len(), kills);
    for (place, line) in &by_place {
        if given_up.contains(place) {
            enriched.remove(place);
            continue;
        }
        match shop::expected(line.value.as_deref().unwrap(), 10_000).unwrap() {
            Expected::Enriched(wanted, _) => {
                let order = enriched
                    .remove(place)
                    .unwrap_or_else(|| panic!("lost: {line:?}"));
                assert_eq!(order.json().unwrap(), wanted);
                assert!(!dead.contains(place), "both derived and dead: {line:?}");
            }
            Expected::Rejected(_) => assert!(dead.contains(place), "lost: {line:?}"),
        }
    }
    assert!(enriched.is_empty(), "made up: {enriched:?}");

    // The second consumer read repeats too: each of its sources is an event of its own.
    let alerts = events::without_repeats(events::all(&site, "order-alerts").unwrap()).unwrap();
    assert_eq!(alerts.len(), wanted);
    events::check_order(&alerts, "orders").unwrap();
    setting::check_no_lag(&site).unwrap();
}

/// The shop under another guarantee, with dead letters and a second consumer behind the first.
fn delivering(guarantee: &str) -> String {
    let delivery = format!("[[consumer]]\ndelivery = \"{guarantee}\"\n");
    setting::shop()
        .unwrap()
        .replace("[[consumer]]\n", &delivery)
}

/// Sources of the derived events and dead letters of `enrich`, each as often as it was written.
fn outcomes(site: &Site) -> BTreeMap<Place, usize> {
    let mut outcomes = BTreeMap::new();
    for order in events::all(site, "orders").unwrap() {
        *outcomes
            .entry(order.source("order-lines").unwrap())
            .or_default() += 1;
    }
    for letter in events::all(site, "order-lines.dlq").unwrap() {
        *outcomes.entry(letter.dead().unwrap()).or_default() += 1;
    }
    outcomes
}

/// Part of the data, so that the guarantees take their turns in reasonable time, and that between two
/// kills something comes to pass.
const LINES_A_KILL: usize = 6_000;
const SOME_KILLS: usize = 10;

fn some_lines(kills: usize) -> Vec<String> {
    let retail = Retail::load().unwrap();
    let times = if retail.full { 1 } else { SAMPLES };
    let mut some = lines(&retail, times);
    some.truncate(LINES_A_KILL * kills);
    some
}

/// A position that moved before or after what follows from its events, instead of with it, would
/// leave one out or write one twice.
#[test]
fn exactly_once_nothing_is_lost_or_repeated_in_ten_crashes() {
    exactly_once(SOME_KILLS);
}

#[test]
#[ignore = "long: a hundred crashes; make faults"]
fn exactly_once_nothing_is_lost_or_repeated_in_a_hundred_crashes() {
    exactly_once(many_kills());
}

fn exactly_once(kills: usize) {
    let crashed = crash(&delivering("exactly-once"), some_lines(kills), kills);
    let site = &crashed.site;
    let stored = events::all(site, "order-lines").unwrap();
    assert!(stored.len() >= crashed.lines.len() && crashed.places.len() == crashed.lines.len());
    println!("{} lines in the topic", stored.len());
    let outcomes = outcomes(site);
    for line in &stored {
        assert_eq!(outcomes.get(&line.place), Some(&1), "{line:?}");
    }
    assert_eq!(outcomes.len(), stored.len());
    let orders = events::all(site, "orders").unwrap();
    events::check_order(&orders, "order-lines").unwrap();
    let mut wanted = 0;
    for order in &orders {
        wanted += shop::rules(&order.json().unwrap()).unwrap().len();
    }
    let alerts = events::all(site, "order-alerts").unwrap();
    assert_eq!(alerts.len(), wanted, "the second consumer lost or repeated");
    setting::check_no_lag(site).unwrap();
}

/// A call before its position is durable would repeat an event; one that is never made for what was
/// claimed would lose far more than crashes can.
#[test]
fn at_most_once_nothing_is_repeated_in_ten_crashes() {
    at_most_once(SOME_KILLS);
}

#[test]
#[ignore = "long: a hundred crashes; make faults"]
fn at_most_once_nothing_is_repeated_in_a_hundred_crashes() {
    at_most_once(many_kills());
}

fn at_most_once(kills: usize) {
    let crashed = crash(&delivering("at-most-once"), some_lines(kills), kills);
    let site = &crashed.site;
    let stored = events::all(site, "order-lines").unwrap();
    let outcomes = outcomes(site);
    let repeated = outcomes.iter().find(|(_, times)| **times > 1);
    assert!(repeated.is_none(), "{repeated:?} is repeated");
    let lost = stored.len() - outcomes.len();
    println!("{} lines, {lost} lost in {kills} crashes", stored.len());
    assert!(
        lost <= kills * IN_FLIGHT,
        "{lost} lost, more than were in flight"
    );
    assert!(
        outcomes.len() > stored.len() / 2,
        "{lost} lost of {}",
        stored.len()
    );
    setting::check_no_lag(site).unwrap();
}
