//! The budget of what is in flight, with events of a byte and of ten megabytes, with one partition
//! and with hundreds, before a consumer that is slow.
#![expect(
    clippy::unwrap_used,
    reason = "what these helpers of tests cannot do fails the test"
)]

use std::thread;
use std::time::Duration;

use millstream_test_support::budget::{self, LOADS};
use millstream_test_support::metrics::Scrape;
use millstream_test_support::process::{self, Site};
use millstream_whole_tests::setting;

const PATIENCE: Duration = Duration::from_secs(120);

/// A second event of ten megabytes beside the first, or an event of each of many partitions, would
/// be more than the operator allowed.
#[test]
fn what_is_in_flight_stays_within_the_budget() {
    let mut text = String::new();
    for load in &LOADS {
        text += &setting::topic(load.name, load.partitions);
    }
    for load in &LOADS {
        let consumer = setting::hostile_consumer(load.name, load.name, load.more).unwrap();
        text += &consumer.replace("default = \"derived\"", "default = false");
    }
    let site = setting::site(&text).unwrap();
    for load in LOADS.iter().filter(|load| !load.is_large()) {
        let value = load.value();
        let lines: String = (0..load.events)
            .map(|key| format!("{key}\t{value}\n"))
            .collect();
        setting::produce(&site, load.name, &lines, &[]).unwrap();
    }
    let mut running = site.start(&[]).unwrap();
    running.until_ready(PATIENCE).unwrap();
    thread::scope(|scope| {
        scope.spawn(|| produce_large(&site));
        budget::check(&running, PATIENCE).unwrap();
    });
    running.terminate().unwrap();
    running.succeed(PATIENCE).unwrap();
}

fn produce_large(site: &Site) {
    for load in LOADS.iter().filter(|load| load.is_large()) {
        let value = load.value();
        for key in 0..load.events {
            let path = format!("/topics/{}?key={key}", load.name);
            let kind = ("content-type", "application/octet-stream");
            let answer = process::post(&site.admin(), &path, &[kind], &value).unwrap();
            assert_eq!(answer.status, 200, "{}", answer.body);
        }
    }
}

fn settled(scrape: &Scrape, consumer: &str) -> f64 {
    let of = [("consumer", consumer)];
    scrape.sum("millstream_events_settled_total", &of)
}

const PARTITIONS: u32 = 30;
/// Behind the head of each.
const BEHIND: usize = 400;

/// The events of a partition: all but one partition stand at an event that is tried again in ten
/// minutes, and each has more behind it than its part of the budget.
fn events_of(partition: u32) -> String {
    let head = if partition == 7 { "good" } else { "retry" };
    let values = std::iter::once(head).chain(std::iter::repeat_n("good", BEHIND));
    let line =
        |value| format!("{{\"topic\":\"in\",\"partition\":{partition},\"value\":\"{value}\"}}\n");
    values.map(line).collect()
}

/// What stuck partitions hold beyond their part would reach the high mark and stop everything.
#[test]
fn partitions_that_stand_still_leave_room_for_the_one_that_flows() {
    let more = "ordering = \"partition\"\nin_flight = { max_events = 1000 }\ncircuit_breaker = false\n\
                retry = { max_attempts = 100, initial = \"10m\", max = \"10m\" }\n";
    let consumer = setting::hostile_consumer("stuck", "in", more).unwrap();
    let site = setting::site(&format!("{}{consumer}", setting::topic("in", PARTITIONS))).unwrap();
    let mut running = site.start(&[]).unwrap();
    running.until_ready(PATIENCE).unwrap();
    let lines: String = (0..PARTITIONS).map(events_of).collect();
    let (status, body) = running.post_lines("/api/v1/produce", &lines).unwrap();
    assert_eq!(status, 200, "{body}");

    let mut most = 0.0_f64;
    let flows = running.until_scrape("through the partition that flows", PATIENCE, |scrape| {
        let in_flight = scrape.sum("millstream_in_flight_events", &[]);
        most = most.max(in_flight);
        settled(scrape, "stuck") > BEHIND as f64
    });
    println!("{most} events in flight at most");
    flows.unwrap();
    assert!(most <= 1_000.0, "{most} events in flight");
    running.terminate().unwrap();
    running.succeed(PATIENCE).unwrap();
}
