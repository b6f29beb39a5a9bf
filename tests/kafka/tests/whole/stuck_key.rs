//! One key that does not get on, with `ordering = "key"`: what is settled above it stays settled.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use millstream_test_support::process::Site;
use millstream_test_support::wait::eventually;
use millstream_test_support::{kafka, plugins};

use super::setup::{self, PATIENCE};

/// Events of other keys behind the stuck one.
const OTHERS: usize = 300;

#[test]
fn what_was_settled_above_a_stuck_key_is_not_processed_again_after_a_crash() -> Result<()> {
    let Some(kafka) = kafka::shared() else {
        return Ok(());
    };
    let (group, source, out) = (
        setup::fresh("stuck"),
        setup::fresh("stuck-in"),
        setup::fresh("stuck-out"),
    );
    kafka.create_topic(&source, 1)?;
    kafka.create_topic(&out, 1)?;
    let keys: Vec<String> = (0..OTHERS).map(|n| format!("key-{n}")).collect();
    let mut events = vec![(Some("stuck"), "retry"), (Some("stuck"), "behind")];
    events.extend(keys.iter().map(|key| (Some(key.as_str()), "forward")));
    kafka.produce(&source, &events)?;

    let site = setup::site(
        kafka.bootstrap(),
        &format!(
            r#"
[[consumer]]
name = "hostile"
group = "{group}"
plugin = '{plugin}'
topics = ["{source}"]
start = "beginning"
ordering = "key"
outputs = {{ default = "{out}", alerts = false }}
retry = {{ max_attempts = 100, initial = "10m", max = "10m" }}
"#,
            plugin = plugins::component("hostile")?.display()
        ),
    )?;

    let mut runtime = site.start(&[])?;
    until_two_are_left(&site)?;
    ensure!(position(&site)? == 0, "a position passed the stuck event");
    runtime.kill9()?;
    ensure!(
        kafka.count(&out)? == OTHERS as u64,
        "not all others came out"
    );

    // The second life takes up the two events of the key alone, and what comes behind all of them.
    kafka.produce(&source, &[(Some("late"), "forward")])?;
    let mut runtime = site.start(&[])?;
    eventually("the late event comes out", PATIENCE, || {
        kafka.count(&out).is_ok_and(|count| count > OTHERS as u64)
    })?;
    until_two_are_left(&site)?;
    let scrape = runtime.scrape()?;
    scrape.check_accounting()?;
    let consumed = scrape.sum("millstream_events_consumed_total", &[]);
    ensure!(
        (2.5..3.5).contains(&consumed),
        "{consumed} events were consumed again, not 3"
    );
    runtime.terminate()?;
    runtime.succeed(PATIENCE)?;

    let mut outcomes: BTreeMap<String, usize> = BTreeMap::new();
    for record in kafka.read(&out)? {
        *outcomes.entry(record.key_text()).or_default() += 1;
    }
    let twice = outcomes.iter().find(|(_, count)| **count > 1);
    ensure!(twice.is_none(), "processed again: {twice:?}");
    ensure!(
        outcomes.len() == OTHERS + 1 && !outcomes.contains_key("stuck"),
        "{} keys came out",
        outcomes.len()
    );
    Ok(())
}

/// Waits until all but the two events of the stuck key are settled, and that is committed.
fn until_two_are_left(site: &Site) -> Result<()> {
    eventually("only the stuck key is left", PATIENCE, || {
        setup::lag(site).is_ok_and(|lag| lag == 2)
    })
}

fn position(site: &Site) -> Result<u64> {
    let rows = site.succeed(&["lag", "--output", "json"])?;
    let rows: serde_json::Value = serde_json::from_str(&rows).context(rows)?;
    rows[0]["position"].as_u64().context("no position")
}
