//! The budget of what is in flight on Kafka: tiny and huge events, one partition and hundreds, and a
//! broker that is slow to answer.

use std::time::Duration;

use anyhow::{Result, ensure};
use millstream_test_support::budget::{self, LOADS};
use millstream_test_support::{cluster, kafka, plugins};

use super::setup::{self, PATIENCE};

/// A consumer of the plugin `hostile` in a group of its own.
fn hostile(name: &str, source: &str, output: &str, more: &str) -> Result<String> {
    let plugin = plugins::component("hostile")?;
    let plugin = plugin.display();
    Ok(format!(
        "\n[[consumer]]\nname = \"{name}\"\ngroup = \"{}\"\nplugin = '{plugin}'\n\
         topics = [\"{source}\"]\nstart = \"beginning\"\n\
         outputs = {{ default = {output}, alerts = false }}\n{more}",
        setup::fresh(name)
    ))
}

/// What librdkafka fetches ahead is not bounded by events of ten megabytes, but by a guess; the
/// consumer's budget, and the memory of the process, must hold all the same.
#[test]
fn what_is_in_flight_stays_within_the_budget() -> Result<()> {
    // Of its own: a thousand new partitions have no leader for a while, and who lists topics meanwhile
    // is refused.
    let Some(node) = kafka::own() else {
        return Ok(());
    };
    let kafka = node.tools();
    let _turn = setup::turn();
    let mut consumers = String::new();
    for load in &LOADS {
        let topic = setup::fresh(load.name);
        let largest = [("max.message.bytes", "12000000")];
        kafka.create_topic_with(&topic, load.partitions, &largest)?;
        let value = load.value();
        let keys: Vec<_> = (0..load.events).map(|key| key.to_string()).collect();
        let events: Vec<_> = keys.iter().map(|key| (Some(&**key), &*value)).collect();
        kafka.produce(&topic, &events)?;
        consumers += &hostile(load.name, &topic, "false", load.more)?;
    }
    let site = setup::site(kafka.bootstrap(), &consumers)?;
    let mut running = site.start(&[])?;
    running.until_ready(PATIENCE)?;
    budget::check(&running, PATIENCE)?;
    println!("{} MiB resident at most", running.peak_resident()? >> 20);
    running.terminate()?;
    running.succeed(PATIENCE)
}

const IN_FLIGHT: f64 = 500.0;
const EVENTS: usize = 5_000;

/// A broker that takes its time acknowledges less than is fetched: what waits for it must stop the
/// fetching, not pile up.
#[test]
fn a_slow_broker_makes_the_consumer_wait() -> Result<()> {
    let _turn = setup::turn();
    let Some(cluster) = cluster::with(1, &[]) else {
        return Ok(());
    };
    let names = (setup::fresh("slow-in"), setup::fresh("slow-out"));
    for topic in [&names.0, &names.1] {
        cluster.tools().create_topic(topic, 4)?;
    }
    let keys: Vec<_> = (0..EVENTS).map(|key| key.to_string()).collect();
    let events: Vec<_> = keys.iter().map(|key| (Some(&**key), "forward")).collect();
    cluster.tools().produce(&names.0, &events)?;
    let proxy = &cluster.proxies()[0];
    proxy.delay(Duration::from_millis(150));
    let more = format!("in_flight = {{ max_events = {IN_FLIGHT} }}\n");
    let consumer = hostile("slow", &names.0, &format!("\"{}\"", names.1), &more)?;
    let site = setup::site(&cluster.bootstrap(), &consumer)?;
    let mut running = site.start(&[])?;
    let mut most = 0.0_f64;
    let mut unaccounted = None;
    running.until_scrape("done", PATIENCE, |scrape| {
        most = most.max(scrape.sum("millstream_in_flight_events", &[]));
        unaccounted = scrape.check_accounting().err();
        let settled = scrape.sum("millstream_events_settled_total", &[("outcome", "ok")]);
        unaccounted.is_some() || settled >= EVENTS as f64
    })?;
    unaccounted.map_or(Ok(()), Err)?;
    println!("{most} events in flight at most");
    ensure!(most <= IN_FLIGHT, "{most} events in flight");
    running.terminate()?;
    running.succeed(PATIENCE)?;
    let out = cluster.tools().count(&names.1)?;
    ensure!(out == EVENTS as u64, "{out} events came out");
    Ok(())
}
