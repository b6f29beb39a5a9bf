//! Exactly once on Kafka, as a reader of committed events sees it.

use std::thread;

use anyhow::{Context, Result, ensure};
use millstream_test_support::kafka;

use super::order_lines;
use super::setup::{self, Names, PATIENCE};
use super::verify::{self, Expected};

/// Lines of the data set that are taken, and how often a runtime, or the broker, is killed.
const LINES: usize = 60_000;
const KILLS: usize = 4;

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
                .chunks(LINES / 20)
                .try_for_each(|chunk| setup::produce(kafka, &names.source, chunk))
        });
        let mut kill_all = || -> Result<()> {
            for _ in 0..KILLS {
                killed.until_scrape("at work", PATIENCE, |scrape| {
                    scrape.sum("millstream_in_flight_events", &[]) > 0.5
                        || (setup::settled(scrape) > 0
                            && scrape.sum("millstream_consumer_lag_events", &[]) < 0.5)
                })?;
                killed.kill9()?;
                killed = killed_site.start(&[])?;
                setup::until_settled(&mut lasting, 1)?;
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
