//! A consumer that goes on under another name: in the midst of its work, after a restart, and with
//! what was done to it by hand.

use std::fs;

use anyhow::{Context, Result, ensure};
use millstream_test_support::process::{Running, Site};
use millstream_whole_tests::flow::{
    PATIENCE, Producer, check_swaps, configuration, enrich, until_generation,
};
use millstream_whole_tests::{events, setting};
use serde_json::Value;

/// The consumer under another name, which had these before.
fn renamed(consumer: &str, from: &str, to: &str, before: &[&str]) -> String {
    consumer.replacen(
        &format!("name = \"{from}\""),
        &format!("name = \"{to}\"\nprevious_names = {before:?}"),
        1,
    )
}

fn report(running: &Running) -> Result<Value> {
    let (_, body) = running.get("/api/v1/consumers")?;
    let all: Value = serde_json::from_str(&body)?;
    Ok(all[0].clone())
}

/// A position that is not carried over repeats all that was, one that is read too early what was in
/// flight, and one that comes without its ranges what finished out of order.
#[test]
fn a_consumer_is_renamed_while_events_flow_and_no_event_notices() -> Result<()> {
    let site = Site::new()?;
    let more = "delivery = \"exactly-once\"\nordering = \"key\"\ncommit = { interval = \"20ms\" }";
    let first = enrich("enrich", "EUR", more)?;
    site.configure(&configuration(&site, &first))?;
    let mut running = site.start(&[])?;
    running.until_ready(PATIENCE)?;
    let producer = Producer::start(&site);
    let settled = |running: &mut Running, name: &str| {
        running.until_scrape("at work", PATIENCE, |scrape| {
            scrape.sum("millstream_events_settled_total", &[("consumer", name)]) > 500.0
        })
    };
    settled(&mut running, "enrich")?;
    let second = renamed(&first, "enrich", "second", &["enrich"]);
    site.configure(&configuration(&site, &second))?;
    until_generation(&mut running, 2)?;
    settled(&mut running, "second")?;
    let third = renamed(&first, "enrich", "third", &["second", "enrich"]);
    site.configure(&configuration(&site, &third))?;
    until_generation(&mut running, 3)?;
    settled(&mut running, "third")?;
    let lines = producer.finish()?;
    setting::until_no_lag(&site, &mut running, PATIENCE)?;
    let scrape = running.scrape()?;
    scrape.check_accounting()?;
    let consumers: Vec<_> = scrape.consumers().into_iter().collect();
    ensure!(consumers == ["third"], "series of {consumers:?}");
    running.terminate()?;
    running.succeed(PATIENCE)?;
    check_swaps(&site, "enrich-orders", lines, &["EUR".to_owned()])
}

/// A configuration with the plugin `hostile`, which forwards all that comes where it is honest.
fn hostile(site: &Site, name: &str, before: &[&str], init: &str) -> Result<()> {
    let more = format!(
        "previous_names = {before:?}\ndead_letter = {{ topic = \"dlq\" }}\n\
         config = {{ init = \"{init}\" }}\n"
    );
    let consumer = setting::hostile_consumer(name, "in", &more)?;
    let shipped = format!("{:?}", setting::hostile()?.display().to_string());
    site.configure(&format!(
        "{}\n{}{}",
        setting::head(site),
        setting::topic("in", 2),
        consumer.replace(&shipped, "\"plugin.wasm\"")
    ))
}

/// Dead letters name the consumer, and what is sent back goes by its group: both are its own still.
#[test]
fn dead_letters_and_what_was_sent_back_go_along() -> Result<()> {
    let site = Site::new()?;
    fs::copy(setting::hostile()?, site.path().join("plugin.wasm"))?;
    hostile(&site, "old", &[], "bad")?;
    let lines: String = (0..30)
        .map(|number| format!("k{number}\treject\n"))
        .collect();
    setting::produce(&site, "in", &lines, &[])?;
    setting::until_idle(&site)?;
    ensure!(events::all(&site, "derived")?.is_empty());
    site.succeed(&["dlq", "replay", "old"])?;

    hostile(&site, "new", &["old"], "honest")?;
    let listed = site.succeed(&["dlq", "list", "new", "--json"])?;
    ensure!(listed.lines().count() == 30, "{listed}");
    setting::until_idle(&site)?;
    let derived = events::all(&site, "derived")?;
    ensure!(derived.len() == 30, "{} derived", derived.len());
    for event in &derived {
        // Of its first place, and not of the topic that it came back over.
        event.source("in")?;
    }
    let again = site.command(&["dlq", "replay", "new"])?;
    ensure!(
        again.stderr.contains("nothing was sent back")
            && again.stderr.contains("30 events left out"),
        "{again:?}"
    );
    Ok(())
}

/// What an operator stopped or pinned must not come loose because somebody finds a better name.
#[test]
fn what_was_done_by_hand_holds_under_the_new_name() -> Result<()> {
    let site = Site::new()?;
    fs::copy(setting::hostile()?, site.path().join("plugin.wasm"))?;
    hostile(&site, "old", &[], "honest")?;
    let mut running = site.start(&[])?;
    running.until_ready(PATIENCE)?;
    let mut component = fs::read(setting::hostile()?)?;
    component.extend([0, 3, 1, b'x', 1]);
    let built = site.write("built.wasm", &component)?;
    site.succeed(&["deploy", "old", built.to_str().context("a path")?])?;
    site.succeed(&["pause", "old"])?;
    let before = report(&running)?;

    hostile(&site, "new", &["old"], "honest")?;
    until_generation(&mut running, 2)?;
    let check = |running: &Running| -> Result<()> {
        let now = report(running)?;
        ensure!(
            now["name"] == "new"
                && now["digest"] == before["digest"]
                && now["overrides"] == before["overrides"]
                && now["drift"] == true,
            "{before} became {now}"
        );
        Ok(())
    };
    check(&running)?;
    let lines = "{\"value\":\"anything\"}\n".repeat(10);
    let (status, answer) = running.post_lines("/topics/in", &lines)?;
    ensure!(status == 200, "{answer}");
    running.terminate()?;
    running.succeed(PATIENCE)?;
    let mut running = site.start(&[])?;
    running.until_ready(PATIENCE)?;
    check(&running)?;
    ensure!(
        events::all(&site, "derived")?.is_empty(),
        "called while it was paused"
    );
    site.succeed(&["resume", "new"])?;
    setting::until_no_lag(&site, &mut running, PATIENCE)?;
    running.terminate()?;
    running.succeed(PATIENCE)?;
    ensure!(events::all(&site, "derived")?.len() == 10);
    Ok(())
}
