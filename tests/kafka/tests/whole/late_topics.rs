//! Topics that appear while a runtime runs.

use anyhow::{Result, ensure};
use millstream_test_support::kafka;

use super::broker::until_unready;
use super::order_lines;
use super::setup::{self, Names, PARTITIONS, PATIENCE};
use super::verify::{self, Expected};

#[test]
fn a_missing_topic_is_waited_for_and_readyz_says_so() -> Result<()> {
    let Some(kafka) = kafka::shared() else {
        return Ok(());
    };
    let lines = order_lines::some(500)?;
    let names = Names::fresh("missing");
    names.create_outputs(kafka)?;
    let consumer = names.consumer(&format!("[\"{}\"]", names.source), "")?;
    let site = setup::site(kafka.bootstrap(), &consumer)?;
    let mut runtime = site.start(&[])?;
    until_unready(&mut runtime, "does one of its topics exist?")?;

    kafka.create_topic(&names.source, PARTITIONS)?;
    runtime.until_ready(PATIENCE)?;
    setup::produce(kafka, &names.source, &lines)?;
    setup::until_settled(&mut runtime, lines.len() as u64)?;
    runtime.terminate()?;
    runtime.succeed(PATIENCE)?;
    let repeats = verify::derived(&kafka.read(&names.orders)?, &Expected::of(&lines).orders)?;
    ensure!(repeats == 0, "{repeats} repeats though nothing failed");
    Ok(())
}

/// What is in the topic before the runtime has seen it counts too: it starts at its beginning.
#[test]
fn a_topic_that_a_pattern_means_is_read_from_its_beginning_once_it_appears() -> Result<()> {
    let Some(kafka) = kafka::shared() else {
        return Ok(());
    };
    let lines = order_lines::some(1000)?;
    let names = Names::fresh("pattern");
    let (early, late) = (
        format!("{}-eu", names.source),
        format!("{}-us", names.source),
    );
    names.create_outputs(kafka)?;
    kafka.create_topic(&early, 1)?;
    let (first, second) = lines.split_at(lines.len() / 2);
    setup::produce(kafka, &early, first)?;

    // The pattern means the outputs too, which are not to be read.
    let consumer = names.consumer(&format!("['^{}-.*']", names.group), "")?;
    let site = setup::site(kafka.bootstrap(), &consumer)?;
    let mut runtime = site.start(&[])?;
    setup::until_settled(&mut runtime, first.len() as u64)?;
    kafka.create_topic(&late, 2)?;
    setup::produce(kafka, &late, second)?;
    setup::until_settled(&mut runtime, lines.len() as u64)?;
    let assigned = runtime.scrape()?.sum("millstream_assigned_partitions", &[]);
    ensure!(
        (2.5..3.5).contains(&assigned),
        "{assigned} partitions, not 3"
    );
    runtime.terminate()?;
    runtime.succeed(PATIENCE)?;

    let records = kafka.read(&names.orders)?;
    for (topic, lines) in [(&early, first), (&late, second)] {
        let from = |source: String| source.starts_with(&format!("{topic}/"));
        let of_topic: Vec<_> = records
            .iter()
            .filter(|record| record.header("millstream-source").is_some_and(from))
            .cloned()
            .collect();
        let repeats = verify::derived(&of_topic, &Expected::of(lines).orders)?;
        ensure!(repeats == 0, "{repeats} repeats though nothing failed");
    }
    Ok(())
}
