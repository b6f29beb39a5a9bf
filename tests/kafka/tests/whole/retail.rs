//! The main job: every order line through two runtimes of one configuration.

use anyhow::{Context, Result, ensure};
use millstream_test_support::kafka;
use millstream_test_support::kafka_tools::KafkaTools;
use millstream_test_support::process::Running;

use super::order_lines;
use super::setup::{self, Names, PATIENCE};
use super::verify::{self, Expected};

#[test]
fn two_runtimes_share_all_order_lines_and_each_comes_out_once_as_calculated() -> Result<()> {
    let Some(kafka) = kafka::shared() else {
        return Ok(());
    };
    let _turn = setup::turn();
    let lines = order_lines::all()?;
    let expected = Expected::of(&lines);
    let names = Names::fresh("retail");
    names.create(kafka)?;
    setup::produce(kafka, &names.source, &lines)?;

    let consumer = names.consumer(&format!("[\"{}\"]", names.source), "")?;
    let sites = [
        setup::site(kafka.bootstrap(), &consumer)?,
        setup::site(kafka.bootstrap(), &consumer)?,
    ];
    let mut runtimes = Vec::new();
    for site in &sites {
        runtimes.push(site.start(&["--until-idle", "--output", "json"])?);
    }
    let mut consumed = Vec::new();
    for runtime in &mut runtimes {
        runtime.succeed(PATIENCE)?;
        consumed.push(summary(runtime)?);
    }
    ensure!(
        consumed.iter().all(|one| one.done > 0),
        "one runtime had nothing to do: {consumed:?}"
    );
    let done: u64 = consumed.iter().map(|one| one.done).sum();
    ensure!(
        done == lines.len() as u64,
        "{done} of {} events settled: {consumed:?}",
        lines.len()
    );

    let repeats = verify::derived(&kafka.read(&names.orders)?, &expected.orders)?
        + verify::derived(&kafka.read_committed(&names.large)?, &expected.large)?
        + verify::dead_letters(
            &kafka.read(&names.dead_letters)?,
            "enrich",
            &expected.dead_letters,
        )?;
    ensure!(repeats == 0, "{repeats} repeats though nothing failed");
    ensure!(setup::lag(&sites[0])? == 0, "`lag` shows events to go");
    kafka_sees_no_lag(kafka, &names)
}

/// What a run says of itself at its end.
#[derive(Debug)]
struct Summary {
    done: u64,
}

fn summary(runtime: &Running) -> Result<Summary> {
    let text = runtime.stdout();
    let json: serde_json::Value = serde_json::from_str(&text).context(text)?;
    let settled = &json["consumers"][0]["settled"];
    let count = |outcome: &str| settled[outcome].as_u64().unwrap_or(0);
    Ok(Summary {
        done: count("ok") + count("dead_lettered"),
    })
}

/// Kafka's own tool finds each partition committed to its end.
pub fn kafka_sees_no_lag(kafka: &KafkaTools, names: &Names) -> Result<()> {
    let shown = kafka.tool(
        "org.apache.kafka.tools.consumer.group.ConsumerGroupCommand",
        &["--describe", "--group", &names.group],
    )?;
    // GROUP TOPIC PARTITION CURRENT-OFFSET LOG-END-OFFSET LAG …
    let lags: Vec<&str> = shown
        .lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>())
        .filter(|fields| fields.get(1) == Some(&names.source.as_str()))
        .filter_map(|fields| fields.get(5).copied())
        .collect();
    ensure!(
        lags.len() == setup::PARTITIONS as usize && lags.iter().all(|lag| *lag == "0"),
        "Kafka sees another position:\n{shown}"
    );
    Ok(())
}
