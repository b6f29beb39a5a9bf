//! Exactly once on Kafka, as a reader of committed events sees it.

use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use millstream_test_support::kafka;
use millstream_test_support::kafka_tools::KafkaTools;
use millstream_test_support::wait::Deadline;

use super::order_lines;
use super::setup::{self, Names, PATIENCE};
use super::verify::{self, Expected};

/// Lines of the data set that are taken, and how often a runtime, or the broker, is killed.
const LINES: usize = 60_000;
const KILLS: usize = 4;

/// For how long events come, one after the other: past the age at which a producer that lost a
/// connection is replaced.
const CALM: Duration = Duration::from_secs(8);

/// A transaction that is written again though it took effect, a position outside of its
/// transaction, or one that a zombie ends would lose or repeat an event here.
#[test]
fn killed_runtimes_lose_and_repeat_nothing() -> Result<()> {
    let Some(kafka) = kafka::shared() else {
        return Ok(());
    };
    let _turn = setup::turn();
    let lines = order_lines::some(LINES)?;
    let expected = Expected::of(&lines);
    let names = Names::fresh("eos");
    names.create(kafka)?;

    let consumer = names.consumer(
        &format!("[\"{}\"]", names.source),
        "ordering = \"key\"\ndelivery = \"exactly-once\"\nin_flight = { max_events = 4000 }",
    )?;
    // A runtime with an identity takes its predecessor's place at once.
    let site = |instance: &str| {
        let identity = format!("[runtime]\ninstance = \"{}-{instance}\"\n", names.group);
        setup::site(kafka.bootstrap(), &format!("{identity}{consumer}"))
    };
    let (killed_site, lasting_site) = (site("killed")?, site("lasting")?);
    let mut killed = killed_site.start(&[])?;
    let mut lasting = lasting_site.start(&[])?;
    thread::scope(|scope| -> Result<()> {
        let producer = scope.spawn(|| {
            lines
                .chunks(lines.len() / 20)
                .try_for_each(|chunk| setup::produce(kafka, &names.source, chunk))
        });
        let mut kill_all = || -> Result<()> {
            for _ in 0..KILLS {
                // Or there is nothing left to work on.
                killed.until_scrape("at work", PATIENCE, |scrape| {
                    scrape.sum("millstream_in_flight_events", &[]) > 0.5
                        || setup::lag(&killed_site).is_ok_and(|lag| lag == 0)
                })?;
                killed.kill9()?;
                killed = killed_site.start(&[])?;
                lasting.until_scrape("a member", PATIENCE, |scrape| {
                    scrape.sum("millstream_assigned_partitions", &[]) > 0.5
                })?;
            }
            Ok(())
        };
        let done = kill_all();
        let produced = producer.join().ok().context("the producer panicked")?;
        done.and(produced)
    })?;
    lasting.until_scrape("all settled", PATIENCE, |_| {
        setup::lag(&lasting_site).is_ok_and(|lag| lag == 0)
    })?;
    for runtime in [&mut killed, &mut lasting] {
        runtime.terminate()?;
        runtime.succeed(PATIENCE)?;
    }
    ensure!(setup::lag(&lasting_site)? == 0, "not all is committed");
    let repeats = verify::derived(&kafka.read_committed(&names.orders)?, &expected.orders)?
        + verify::derived(&kafka.read_committed(&names.large)?, &expected.large)?
        + verify::dead_letters(
            &kafka.read_committed(&names.dead_letters)?,
            "enrich",
            &expected.dead_letters,
        )?;
    ensure!(repeats == 0, "{repeats} events came twice");
    Ok(())
}

/// A producer that is replaced though nothing failed, such as for the connection that librdkafka
/// leaves by itself, pauses its consumer's output each time.
#[test]
fn one_producer_lasts_as_long_as_nothing_fails() -> Result<()> {
    let Some(kafka) = kafka::shared() else {
        return Ok(());
    };
    let lines = order_lines::some(100)?;
    let (first, second) = lines.split_at(1);
    let names = Names::fresh("eos-calm");
    names.create(kafka)?;
    let consumer = names.consumer(
        &format!("[\"{}\"]", names.source),
        "delivery = \"exactly-once\"",
    )?;
    let identity = format!("[runtime]\ninstance = \"{}\"\n", names.group);
    let site = setup::site(kafka.bootstrap(), &format!("{identity}{consumer}"))?;
    let mut runtime = site.start(&[])?;
    setup::produce(kafka, &names.source, first)?;
    runtime.until_scrape("committed", PATIENCE, |_| {
        setup::lag(&site).is_ok_and(|lag| lag == 0)
    })?;
    let before = producer(kafka, &names.group)?;

    let calm = Deadline::after(CALM);
    let mut settled = first.len() as u64;
    for line in second.chunks(1).cycle() {
        setup::produce(kafka, &names.source, line)?;
        settled += 1;
        setup::until_settled(&mut runtime, settled)?;
        if calm.passed() {
            break;
        }
    }
    let after = producer(kafka, &names.group)?;
    runtime.terminate()?;
    runtime.succeed(PATIENCE)?;
    ensure!(
        before == after,
        "the producer (id, epoch) {before:?} was replaced by {after:?}"
    );
    Ok(())
}

/// Id and epoch of the producer that writes for a group, as the broker knows them: each registration
/// raises the epoch.
fn producer(kafka: &KafkaTools, group: &str) -> Result<(String, String)> {
    const TOOL: &str = "org.apache.kafka.tools.TransactionsCommand";
    let listed = kafka.tool(TOOL, &["list"])?;
    let prefix = format!("millstream.{group}.");
    let id = (listed.split_whitespace())
        .find(|word| word.starts_with(&prefix))
        .with_context(|| format!("no transactional id begins with {prefix}: {listed}"))?;
    let described = kafka.tool(TOOL, &["describe", "--transactional-id", id])?;
    let mut rows = described.lines().map(str::split_whitespace);
    let (names, row) = (rows.next(), rows.next());
    let row: Vec<_> = names
        .into_iter()
        .flatten()
        .zip(row.into_iter().flatten())
        .collect();
    let column = |name| {
        let found = row.iter().find(|(column, _)| *column == name);
        let (_, value) = found.with_context(|| format!("no {name} in {described}"))?;
        anyhow::Ok((*value).to_owned())
    };
    Ok((column("ProducerId")?, column("ProducerEpoch")?))
}
