//! Consumers that go on under another name: after a SIGKILL, and while others still have the old one.

use std::thread;

use anyhow::{Context, Result, ensure};
use millstream_test_support::kafka;
use millstream_test_support::process::{Running, Site};

use super::order_lines;
use super::setup::{self, Names, PATIENCE};
use super::verify::{self, Expected, Promise};

const LINES: usize = 40_000;

/// The consumer of these topics under a name of its own, in the group that goes with the name.
fn consumer(names: &Names, name: &str, before: &[&str], more: &str) -> Result<String> {
    let source = format!("[\"{}\"]", names.source);
    let consumer = names.consumer_called(name, &source, more)?;
    let group = format!("group = \"{}\"", names.group);
    Ok(consumer.replacen(&group, &format!("previous_names = {before:?}"), 1))
}

fn until_settled(runtime: &mut Running, name: &str, count: f64) -> Result<()> {
    runtime.until_scrape(&format!("{name} at work"), PATIENCE, |scrape| {
        scrape.sum("millstream_events_settled_total", &[("consumer", name)]) >= count
    })
}

fn until_done(site: &Site, runtime: &mut Running) -> Result<()> {
    runtime.until_scrape("all settled", PATIENCE, |_| {
        setup::lag(site).is_ok_and(|lag| lag == 0)
    })?;
    runtime.terminate()?;
    runtime.succeed(PATIENCE)
}

/// A transaction that the old name left open and that takes effect after the new one began, or a
/// position that is read while one is under way, repeats or loses events here.
#[test]
fn a_runtime_that_was_killed_goes_on_under_another_name_exactly_once() -> Result<()> {
    let Some(kafka) = kafka::shared() else {
        return Ok(());
    };
    let _turn = setup::turn();
    let lines = order_lines::some(LINES)?;
    let expected = Expected::of(&lines);
    let names = Names::fresh("rename-eos");
    names.create(kafka)?;
    let called = |number: usize| format!("{}-{number}", names.group);
    let configured = |number: usize, before: &[&str]| {
        let more =
            "ordering = \"key\"\ndelivery = \"exactly-once\"\nin_flight = { max_events = 4000 }";
        let consumer = consumer(&names, &called(number), before, more)?;
        let identity = format!("[runtime]\ninstance = \"{}\"\n", names.group);
        setup::site(kafka.bootstrap(), &format!("{identity}{consumer}"))
    };
    let first_site = configured(1, &[])?;
    let mut first = first_site.start(&[])?;
    let last_site = configured(3, &[&called(2), &called(1)])?;
    let mut last = thread::scope(|scope| -> Result<Running> {
        let producer = scope.spawn(|| {
            lines
                .chunks(LINES / 20)
                .try_for_each(|chunk| setup::produce(kafka, &names.source, chunk))
        });
        let mut go_on = || -> Result<Running> {
            until_settled(&mut first, &called(1), 2_000.0)?;
            first.kill9()?;
            let second_site = configured(2, &[&called(1)])?;
            let mut second = second_site.start(&[])?;
            until_settled(&mut second, &called(2), 2_000.0)?;
            // In order, and by a file that says another name.
            second.terminate()?;
            second.succeed(PATIENCE)?;
            last_site.start(&[])
        };
        let last = go_on();
        producer.join().ok().context("the producer panicked")??;
        last
    })?;
    until_done(&last_site, &mut last)?;
    let promise = Promise::Exactly;
    promise.derived(
        &kafka.read_committed_to_mark(&names.orders)?,
        &expected.orders,
    )?;
    promise.derived(
        &kafka.read_committed_to_mark(&names.large)?,
        &expected.large,
    )?;
    Ok(())
}

/// A new name that reads what the old one committed before its last transaction took effect repeats
/// the events of that transaction, and one that goes on behind an aborted one loses them.
#[test]
fn a_running_runtime_goes_on_under_other_names_exactly_once() -> Result<()> {
    let Some(kafka) = kafka::shared() else {
        return Ok(());
    };
    let _turn = setup::turn();
    let lines = order_lines::all()?;
    let names = Names::fresh("rename-live");
    names.create(kafka)?;
    let called = |number: usize| format!("{}-{number}", names.group);
    let configured = |number: usize| {
        let before: Vec<_> = (1..number).rev().map(called).collect();
        let before: Vec<_> = before.iter().map(String::as_str).collect();
        let more = "ordering = \"key\"\ndelivery = \"exactly-once\"";
        consumer(&names, &called(number), &before, more)
    };
    let site = setup::site(kafka.bootstrap(), &configured(1)?)?;
    let mut runtime = site.start(&[])?;
    // Lines flow all the time: each name begins and ends amid them.
    let mut chunks = lines.chunks(200);
    let mut taken = 0;
    for number in 1..=4 {
        if number > 1 {
            setup::configure(&site, &configured(number)?)?;
        }
        let name = called(number);
        loop {
            let chunk = chunks.next().context("all lines were taken before")?;
            setup::produce(kafka, &names.source, chunk)?;
            taken += chunk.len();
            let scrape = runtime.scrape()?;
            if scrape.sum("millstream_events_settled_total", &[("consumer", &name)]) >= 2_000.0 {
                break;
            }
        }
    }
    let expected = Expected::of(&lines[..taken]);
    until_done(&site, &mut runtime)?;
    let promise = Promise::Exactly;
    for (topic, expected) in [
        (&names.orders, &expected.orders),
        (&names.large, &expected.large),
    ] {
        promise.derived(&kafka.read_committed_to_mark(topic)?, expected)?;
    }
    Ok(())
}

/// Who begins while another runtime works on in the old name does its work a second time.
#[test]
fn the_new_name_waits_until_nobody_has_the_old_one() -> Result<()> {
    let Some(kafka) = kafka::shared() else {
        return Ok(());
    };
    let _turn = setup::turn();
    let lines = order_lines::some(LINES)?;
    let expected = Expected::of(&lines);
    let names = Names::fresh("rename-wait");
    names.create(kafka)?;
    let third = lines.len() / 3;
    let (before, rest) = lines.split_at(third);
    let (meanwhile, behind) = rest.split_at(third);
    setup::produce(kafka, &names.source, before)?;
    let (old, new) = (
        format!("{}-old", names.group),
        format!("{}-new", names.group),
    );
    let more = "ordering = \"key\"";
    let old_text = consumer(&names, &old, &[], more)?;
    let new_text = consumer(&names, &new, &[&old], more)?;
    let lasting_site = setup::site(kafka.bootstrap(), &old_text)?;
    let changed_site = setup::site(kafka.bootstrap(), &old_text)?;
    let mut lasting = lasting_site.start(&[])?;
    let mut changed = changed_site.start(&[])?;
    for runtime in [&mut lasting, &mut changed] {
        runtime.until_scrape("a member of the old group", PATIENCE, |scrape| {
            scrape.sum("millstream_assigned_partitions", &[("consumer", &old)]) >= 1.0
        })?;
    }

    // By saving the file, in one of both.
    let rename = |site: &Site| -> Result<()> {
        let file = site.path().join("millstream.toml");
        let text = std::fs::read_to_string(&file)?;
        site.configure(&text.replace(old_text.trim(), new_text.trim()))
    };
    rename(&changed_site)?;
    millstream_test_support::wait::eventually("it says whom it waits for", PATIENCE, || {
        changed.logs().contains("nothing is consumed yet")
    })?;
    setup::produce(kafka, &names.source, meanwhile)?;
    lasting.until_scrape("done with what came meanwhile", PATIENCE, |_| {
        setup::lag(&lasting_site).is_ok_and(|lag| lag == 0)
    })?;
    let scrape = changed.scrape()?;
    let done = scrape.sum("millstream_events_consumed_total", &[("consumer", &new)]);
    ensure!(
        done == 0.0,
        "{done} events were consumed before the old name was free"
    );
    rename(&lasting_site)?;
    setup::produce(kafka, &names.source, behind)?;
    changed.until_scrape("all settled", PATIENCE, |_| {
        setup::lag(&changed_site).is_ok_and(|lag| lag == 0)
    })?;
    for runtime in [&mut changed, &mut lasting] {
        runtime.terminate()?;
        runtime.succeed(PATIENCE)?;
    }
    // Both drained in order: even at least once nothing comes twice.
    let repeats = verify::derived(&kafka.read(&names.orders)?, &expected.orders)?;
    ensure!(repeats == 0, "{repeats} events came twice");
    Ok(())
}
