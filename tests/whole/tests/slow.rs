//! A slow plugin, and a topic full of events that wait for it.

use std::time::Duration;

use millstream_test_support::wait::{Deadline, step};
use millstream_whole_tests::setting;

/// Events that wait.
const EVENTS: usize = 1_000_000;
/// What the consumer may hold.
const IN_FLIGHT_EVENTS: u64 = 5_000;
const IN_FLIGHT_BYTES: u64 = 4 << 20;
const INSTANCES: u64 = 2;
const INSTANCE_MEMORY: u64 = 16 << 20;
/// The store holds its cache and the memtable that it writes out.
const STORE: u64 = (64 + 32) << 20;
/// The program itself: code, wasmtime, allocator, threads.
const PROGRAM: u64 = 64 << 20;
/// Events in flight are held as fetched, as packed for the call and as answered.
const COPIES: u64 = 3;
const BOUND: u64 = COPIES * IN_FLIGHT_BYTES + INSTANCES * INSTANCE_MEMORY + STORE + PROGRAM;
/// Bytes that each event carries, so that holding all of them would not stay unnoticed.
const PADDING: usize = 250;
/// How long it is watched.
const WATCHED: Duration = Duration::from_secs(12);

/// A queue without a limit, a poll loop that the plugin holds up, or a health check on the threads
/// of the data plane shows here.
#[test]
fn a_slow_plugin_costs_no_memory_and_no_health() {
    let more = format!(
        "concurrency = {INSTANCES}\nin_flight = {{ max_events = {IN_FLIGHT_EVENTS}, max_bytes = \"4MiB\" }}\n\
         limits = {{ memory = \"16MiB\", deadline = \"10s\" }}\n\
         batch = {{ max_events = 16, max_bytes = \"1MiB\" }}\n"
    );
    let consumer = setting::hostile_consumer("slow", "in", &more).unwrap();
    let site = setting::site(&format!("{}{consumer}", setting::topic("in", 4))).unwrap();
    let lines: String = (0..EVENTS)
        .map(|number| format!("{number}\tbusy 20\n"))
        .collect();
    let padding = format!("padding={}", "x".repeat(PADDING));
    setting::produce(&site, "in", &lines, &["-H", &padding]).unwrap();
    drop(lines);
    assert!(
        (EVENTS * PADDING) as u64 > BOUND,
        "holding everything would not be noticed"
    );

    let mut running = site.start(&[]).unwrap();
    running.until_ready(Duration::from_secs(60)).unwrap();
    let of = [("consumer", "slow")];
    let settled = |scrape: &millstream_test_support::metrics::Scrape| {
        scrape.sum("millstream_events_settled_total", &of)
    };
    let first = running.scrape().unwrap();
    let rebalances = first.sum("millstream_rebalances_total", &of);
    let deadline = Deadline::after(WATCHED);
    let (mut scrapes, mut most) = (0_u32, 0.0_f64);
    let mut slowest = Duration::ZERO;
    while !deadline.passed() {
        let asked = Deadline::after(Duration::from_secs(2));
        let (status, body) = running.get("/healthz").unwrap();
        let took = Duration::from_secs(2) - asked.left();
        assert_eq!(status, 200, "{body}");
        assert!(!asked.passed(), "/healthz took more than two seconds");
        slowest = slowest.max(took);
        let scrape = running.scrape().unwrap();
        let events = scrape.sum("millstream_in_flight_events", &of);
        let bytes = scrape.sum("millstream_in_flight_bytes", &of);
        assert!(
            events <= IN_FLIGHT_EVENTS as f64,
            "{events} events in flight"
        );
        assert!(bytes <= IN_FLIGHT_BYTES as f64, "{bytes} bytes in flight");
        assert_eq!(scrape.sum("millstream_assigned_partitions", &of), 4.0);
        assert_eq!(scrape.sum("millstream_rebalances_total", &of), rebalances);
        scrape.check_accounting().unwrap();
        most = most.max(events);
        scrapes += 1;
        step();
    }
    let last = running.scrape().unwrap();
    let peak = running.peak_resident().unwrap();
    println!(
        "{scrapes} scrapes, {most} events in flight at most, peak {} MiB of {} MiB, /healthz within {slowest:?}, {} settled",
        peak >> 20,
        BOUND >> 20,
        settled(&last)
    );
    assert!(most > 0.0, "nothing was in flight: the test saw no load");
    assert!(settled(&last) > 0.0, "the slow plugin makes no progress");
    assert!(
        settled(&last) < EVENTS as f64,
        "the plugin was not slow: nothing waited"
    );
    assert!(
        peak <= BOUND,
        "{peak} bytes were resident; the budget allows {BOUND}"
    );
    running.terminate().unwrap();
    running.succeed(Duration::from_secs(60)).unwrap();
}
