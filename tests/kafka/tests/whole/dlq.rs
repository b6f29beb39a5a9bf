//! Dead letters that come back over a topic that the runtime makes, and halted partitions that are
//! moved on, by a runtime and without one.

use anyhow::{Result, ensure};
use millstream_test_support::kafka_tools::KafkaTools;
use millstream_test_support::process::Site;
use millstream_test_support::wait::eventually;
use millstream_test_support::{kafka, plugins};

use super::broker::until_unready;
use super::setup::{self, PATIENCE};

/// The consumer `fix` of `name`'s topics with this plugin.
fn consumer(name: &str, plugin: &str, more: &str) -> Result<String> {
    Ok(format!(
        r#"
[[consumer]]
name = "fix"
group = "{name}"
plugin = '{plugin}'
topics = ["{name}-in"]
start = "beginning"
outputs = {{ default = "{name}-out" }}
{more}
"#,
        plugin = plugins::component(plugin)?.display()
    ))
}

fn values(kafka: &KafkaTools, topic: &str) -> Result<Vec<String>> {
    let mut values: Vec<_> = kafka
        .read(topic)?
        .iter()
        .map(|record| record.value_text())
        .collect();
    values.sort();
    Ok(values)
}

/// What a command that must succeed says on standard error.
fn said(site: &Site, arguments: &[&str]) -> Result<String> {
    let finished = site.command(arguments)?;
    ensure!(finished.status.success(), "{arguments:?}: {finished:?}");
    Ok(finished.stderr)
}

#[test]
fn dead_letters_come_back_over_a_topic_that_a_running_runtime_picks_up() -> Result<()> {
    let Some(kafka) = kafka::shared() else {
        return Ok(());
    };
    let _turn = setup::turn();
    let name = setup::fresh("dlq");
    let (source, out, dead) = (
        format!("{name}-in"),
        format!("{name}-out"),
        format!("{name}-dlq"),
    );
    for topic in [&source, &out, &dead] {
        kafka.create_topic(topic, 2)?;
    }
    kafka.produce(
        &source,
        &[(Some("a"), "one"), (Some("b"), "two"), (None, "three")],
    )?;
    let dead_letter = format!("dead_letter = {{ topic = \"{dead}\" }}");
    // A plugin that takes orders alone, and then one that takes anything.
    let site = setup::site(kafka.bootstrap(), &consumer(&name, "alerts", &dead_letter)?)?;
    site.start(&["--until-idle"])?.succeed(PATIENCE)?;
    let list = site.succeed(&["dlq", "list", "fix", "--reason", "rejected", "--json"])?;
    ensure!(list.lines().count() == 3, "{list}");

    let site = setup::site(
        kafka.bootstrap(),
        &consumer(&name, "hostile", &dead_letter)?,
    )?;
    let mut runtime = site.start(&[])?;
    runtime.until_ready(PATIENCE)?;
    let told = said(&site, &["dlq", "replay", "fix"])?;
    ensure!(told.contains("3 events sent back"), "{told}");
    eventually("all came out", PATIENCE, || {
        kafka.count(&out).is_ok_and(|count| count >= 3)
    })?;
    let told = said(&site, &["dlq", "replay", "fix"])?;
    ensure!(told.contains("nothing was sent back"), "{told}");
    let (ready, reasons) = runtime.get("/readyz")?;
    ensure!(ready == 200, "{reasons}");
    let logs = runtime.logs();
    ensure!(!logs.contains("WARN"), "{logs}");
    runtime.terminate()?;
    runtime.succeed(PATIENCE)?;
    ensure!(values(kafka, &out)? == ["one", "three", "two"]);
    ensure!(setup::lag(&site)? == 0, "not all is committed");
    Ok(())
}

#[test]
fn a_halted_partition_is_moved_on_by_its_runtime_and_without_one() -> Result<()> {
    let Some(kafka) = kafka::shared() else {
        return Ok(());
    };
    let _turn = setup::turn();
    let name = setup::fresh("skip");
    let (source, out) = (format!("{name}-in"), format!("{name}-out"));
    kafka.create_topic(&source, 1)?;
    kafka.create_topic(&out, 1)?;
    let events = ["a", "reject", "b", "reject", "c"].map(|value| (Some("k"), value));
    kafka.produce(&source, &events)?;
    let place = |offset: u64| format!("{source}/0@{offset}");
    let consumers = consumer(&name, "hostile", "")?;
    let site = setup::site(kafka.bootstrap(), &consumers)?;
    let mut runtime = site.start(&[])?;
    until_unready(&mut runtime, &format!("{source}/0/1 failed for good"))?;

    // A command that does not reach the runtime must not move what the runtime stands on.
    let elsewhere = setup::site(kafka.bootstrap(), &consumers)?;
    let refused = elsewhere.command(&["skip", "fix", &place(1)])?;
    ensure!(
        refused.status.code() == Some(1) && refused.stderr.contains("has members"),
        "{refused:?}"
    );
    said(&site, &["skip", "fix", &place(1)])?;
    until_unready(&mut runtime, &format!("{source}/0/3 failed for good"))?;
    runtime.scrape()?.check_accounting()?;
    runtime.terminate()?;
    runtime.succeed(PATIENCE)?;

    said(&site, &["skip", "fix", &place(3)])?;
    let mut runtime = site.start(&["--until-idle"])?;
    runtime.succeed(PATIENCE)?;
    ensure!(values(kafka, &out)? == ["a", "b", "c"]);
    ensure!(setup::lag(&site)? == 0, "not all is committed");
    Ok(())
}
