//! The configuration for Kafka that is shipped, as it stands.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use millstream_test_support::kafka;
use millstream_test_support::process::Site;
use millstream_test_support::{plugins, workspace};

use super::order_lines::{self, Becomes};
use super::setup::{self, PARTITIONS};
use super::verify::{self, Expected};

/// A broker of its own: the file names its topics and groups.
#[test]
fn the_shipped_configuration_runs_its_pipeline_on_kafka() -> Result<()> {
    let Some(node) = kafka::own() else {
        return Ok(());
    };
    let _turn = setup::turn();
    let mut lines = order_lines::some(10_000)?;
    lines.extend(order_lines::strangers());
    let mut site = site()?;
    site.set("KAFKA_BROKERS", node.bootstrap());
    let run = ["run", "config/kafka.toml", "--until-idle"];

    // The first run makes the topics; the second finds events in them.
    site.succeed(&[
        "run",
        "config/kafka.toml",
        "--until-idle",
        "--idle-timeout",
        "60s",
    ])?;
    ensure!(
        node.tools().ends("order-lines")?.len() == PARTITIONS as usize,
        "the topics are not as the file says"
    );
    setup::produce(node.tools(), "order-lines", &lines)?;
    site.succeed(&run)?;

    let expected = Expected::of(&lines);
    let repeats = verify::derived(&node.tools().read("orders")?, &expected.orders)?
        + verify::derived(&node.tools().read("large-orders")?, &expected.large)?
        + verify::dead_letters(
            &node.tools().read("order-lines.dlq")?,
            "enrich",
            &expected.dead_letters,
        )?;
    ensure!(repeats == 0, "{repeats} repeats though nothing failed");
    let mut rules: BTreeMap<String, usize> = BTreeMap::new();
    for alert in node.tools().read("order-alerts")? {
        let rule = alert
            .header("alert-rule")
            .context("an alert without a rule")?;
        *rules.entry(rule).or_default() += 1;
    }
    let wanted = rules_broken(lines.iter().map(|line| &line.becomes))?;
    ensure!(rules == wanted, "{rules:?} are not {wanted:?}");
    Ok(())
}

/// The file in a tree like the project's. `[admin]` is added: the default port may be taken.
fn site() -> Result<Site> {
    plugins::component("enrich")?;
    let site = Site::new()?;
    let shipped = std::fs::read_to_string(workspace::root().join("config/kafka.toml"))?;
    let text = format!("{shipped}\n[admin]\nlisten = \"{}\"\n", site.admin());
    site.write("config/kafka.toml", text.as_bytes())?;
    std::os::unix::fs::symlink(workspace::target_dir(), site.path().join("target"))?;
    Ok(site)
}

/// How many lines break each rule, by the README of `alerts`.
fn rules_broken<'a>(lines: impl Iterator<Item = &'a Becomes>) -> Result<BTreeMap<String, usize>> {
    let mut rules: BTreeMap<String, usize> = BTreeMap::new();
    for line in lines {
        let Becomes::Order { value, .. } = line else {
            continue;
        };
        let line: serde_json::Value = serde_json::from_str(value)?;
        let number = |name: &str| line[name].as_i64().context("not a number");
        let (total, quantity) = (number("total_minor")?, number("quantity")?);
        let broken = [
            ("large-sale", line["kind"] == "sale" && total >= 100_000),
            (
                "large-cancellation",
                line["kind"] == "cancellation" && total <= -100_000,
            ),
            (
                "given-away",
                line["kind"] == "sale" && total == 0 && quantity >= 10,
            ),
            ("bulk-quantity", quantity.abs() >= 1000),
        ];
        for (rule, _) in broken.iter().filter(|(_, broken)| *broken) {
            *rules.entry((*rule).to_owned()).or_default() += 1;
        }
    }
    Ok(rules)
}
