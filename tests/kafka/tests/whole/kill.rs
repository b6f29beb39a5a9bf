//! Runtimes that come and go, one of them by SIGKILL, while order lines flow.

use std::thread;

use anyhow::{Context, Result, ensure};
use millstream_test_support::kafka;
use millstream_test_support::kafka_tools::KafkaTools;
use millstream_test_support::process::Running;

use super::order_lines::{self, Line};
use super::setup::{self, Names, PATIENCE};
use super::verify::{self, Expected};

/// `in_flight.max_events` and `commit.max_events`: a runtime that is killed leaves to be repeated
/// what was in flight, and what was settled since the last two commits began.
const IN_FLIGHT: u64 = 4000;
const COMMIT: u64 = 1000;

/// So many events after more have come, a runtime is in the midst of its work.
const STRIDE: u64 = 5000;

/// One third is there at the start, and the others come while runtimes are killed and taken away.
#[test]
fn a_killed_an_added_and_a_removed_runtime_lose_nothing_and_keep_order() -> Result<()> {
    let Some(kafka) = kafka::shared() else {
        return Ok(());
    };
    let _turn = setup::turn();
    let lines = order_lines::all()?;
    let expected = Expected::of(&lines);
    let (first, rest) = lines.split_at(lines.len() / 3);
    let (second, third) = rest.split_at(rest.len() / 2);
    let names = Names::fresh("kill");
    names.create(kafka)?;
    setup::produce(kafka, &names.source, first)?;

    let consumer = names.consumer(
        &format!("[\"{}\"]", names.source),
        &format!(
            "ordering = \"key\"\nin_flight = {{ max_events = {IN_FLIGHT} }}\n\
             commit = {{ max_events = {COMMIT} }}"
        ),
    )?;
    let site = || setup::site(kafka.bootstrap(), &consumer);
    let (killed_site, lasting_site, removed_site) = (site()?, site()?, site()?);
    let mut killed = killed_site.start(&[])?;
    let mut lasting = lasting_site.start(&[])?;
    setup::until_settled(&mut killed, 1)?;
    setup::until_settled(&mut lasting, 1)?;

    let mut removed = removed_site.start(&[])?;
    in_the_midst(kafka, &names, second, &mut killed, Running::kill9)?;
    setup::until_settled(&mut removed, 1)?;
    in_the_midst(kafka, &names, third, &mut removed, |removed| {
        removed.terminate()?;
        removed.succeed(PATIENCE)
    })?;
    setup::until_done(&mut lasting)?;
    lasting.terminate()?;
    lasting.succeed(PATIENCE)?;
    ensure!(setup::lag(&lasting_site)? == 0, "not all is committed");

    let repeats = verify::derived(&kafka.read(&names.orders)?, &expected.orders)?;
    eprintln!("{repeats} derived events came twice");
    ensure!(
        repeats <= IN_FLIGHT + 2 * COMMIT,
        "{repeats} repeats, though only {IN_FLIGHT} events were in flight in what was killed"
    );
    verify::derived(&kafka.read(&names.large)?, &expected.large)?;
    verify::dead_letters(
        &kafka.read(&names.dead_letters)?,
        "enrich",
        &expected.dead_letters,
    )?;
    Ok(())
}

/// Produces lines and, while they come and a runtime works on them, does something to it.
fn in_the_midst(
    kafka: &KafkaTools,
    names: &Names,
    lines: &[Line],
    runtime: &mut Running,
    deed: impl FnOnce(&mut Running) -> Result<()>,
) -> Result<()> {
    let before = setup::settled(&runtime.scrape()?);
    thread::scope(|scope| {
        let producer = scope.spawn(|| setup::produce(kafka, &names.source, lines));
        let met = runtime.until_scrape("in the midst of its work", PATIENCE, |scrape| {
            setup::settled(scrape) >= before + STRIDE
                && scrape.sum("millstream_in_flight_events", &[]) > 0.5
        });
        let done = met.and_then(|()| deed(runtime));
        let produced = producer.join().ok().context("the producer panicked")?;
        done.and(produced)
    })
}
