//! A broker that crashes under a runtime at work.

use anyhow::{Result, ensure};
use millstream_test_support::kafka;
use millstream_test_support::process::Running;
use millstream_test_support::wait::eventually;

use super::order_lines;
use super::setup::{self, Names, PATIENCE};
use super::verify::{self, Expected};

const LINES: usize = 60_000;

#[test]
fn a_crash_of_the_broker_is_told_outlasted_and_loses_nothing() -> Result<()> {
    let Some(mut node) = kafka::own() else {
        return Ok(());
    };
    let _turn = setup::turn();
    let lines = order_lines::some(LINES)?;
    let expected = Expected::of(&lines);
    let (before, after) = lines.split_at(lines.len() / 2);
    let names = Names::fresh("crash");
    names.create(node.tools())?;
    setup::produce(node.tools(), &names.source, before)?;

    let consumer = names.consumer(&format!("[\"{}\"]", names.source), "")?;
    let site = setup::site(node.bootstrap(), &consumer)?;
    let mut runtime = site.start(&[])?;
    setup::until_settled(&mut runtime, before.len() as u64 / 4)?;
    node.kill9()?;
    until_unready(&mut runtime, "the broker is out of reach")?;
    let scrape = runtime.scrape()?;
    scrape.check_accounting()?;
    ensure!(
        scrape.value("millstream_broker_up", &[]) == Some(0.0),
        "broker_up does not tell the outage"
    );
    let (alive, said) = runtime.get("/healthz")?;
    ensure!(alive == 200, "an outage is no reason to restart: {said}");

    node.restart()?;
    runtime.until_ready(PATIENCE)?;
    setup::produce(node.tools(), &names.source, after)?;
    setup::until_done(&mut runtime)?;
    ensure!(runtime.scrape()?.value("millstream_broker_up", &[]) == Some(1.0));
    runtime.terminate()?;
    runtime.succeed(PATIENCE)?;

    let tools = node.tools();
    let repeats = verify::derived(&tools.read(&names.orders)?, &expected.orders)?;
    eprintln!("{repeats} derived events came twice");
    verify::derived(&tools.read(&names.large)?, &expected.large)?;
    ensure!(setup::lag(&site)? == 0, "not all is committed");
    Ok(())
}

/// Waits until `/readyz` says no, for this reason.
pub fn until_unready(runtime: &mut Running, reason: &str) -> Result<()> {
    eventually(
        &format!("/readyz says: {reason}"),
        PATIENCE,
        || matches!(runtime.get("/readyz"), Ok((503, said)) if said.contains(reason)),
    )
}
