//! `millstream lag`: how far each consumer is.
//!
//! ```text
//! positions of the groups ─┐
//! ends of the topics ──────┼─▶ a row a consumer and partition
//! the running runtime ─────┘    (state, if one answers)
//! ```

use std::process::ExitCode;

use serde::Serialize;

use super::table::Table;
use super::{Context, OutputFormat, connect, terminal};
use crate::admin::ConsumerReport;
use crate::broker::{PartitionInfo, Topics};
use crate::config::{Config, Consumer, Start};
use crate::decide::offsets::Progress;
use crate::event::TopicPartition;

/// Why a partition is slower than others.
const ON_TRIAL: &str = "a process died with some of its events in flight; they run one at a time";

#[derive(Debug, clap::Args)]
pub struct Args {
    /// These consumers alone
    consumers: Vec<String>,
}

/// A row of the table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct Row {
    consumer: String,
    group: String,
    topic: String,
    partition: u32,
    /// The offset below which everything is settled and committed; `null` before the first commit.
    position: Option<u64>,
    end: u64,
    lag: u64,
    state: String,
    /// `open` or `half_open`; left out while it is closed.
    #[serde(skip_serializing_if = "Option::is_none")]
    breaker: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    /// What was done by hand and holds: `deploy`, `rollback`, `pause`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    overrides: Vec<String>,
}

/// Prints the table.
///
/// # Errors
/// No such consumer, or the broker fails.
pub async fn run(args: Args, context: &Context) -> anyhow::Result<ExitCode> {
    let config = connect::load(context)?;
    for name in &args.consumers {
        super::consumer(&config, name)?;
    }
    let reports: Option<Vec<ConsumerReport>> = match connect::running(&config).await? {
        Some(remote) => Some(remote.get("/api/v1/consumers".to_owned()).await?),
        None => None,
    };
    let connection = connect::connect(&config).await?;
    let rows = rows(&args, &config, &*connection.topics, reports.as_deref()).await;
    connection.close().await;
    let rows = rows?;
    if context.output == OutputFormat::Json {
        terminal::print_json(&rows).await?;
        return Ok(ExitCode::SUCCESS);
    }
    let table = table(&rows);
    if table.is_empty() {
        match config.consumers.is_empty() {
            true => eprintln!("{} has no consumers", config.file.display()),
            false => eprintln!("none of the consumers' topics exist yet"),
        }
        return Ok(ExitCode::SUCCESS);
    }
    terminal::print(&table.render(context.color)).await?;
    for report in reports.iter().flatten() {
        let by_hand = report.overrides.join(" and ");
        match report.drift {
            true => eprintln!(
                "{}: {by_hand} by hand; {} runs, and the configuration names another build",
                report.name, report.digest
            ),
            false if by_hand.is_empty() => {}
            false => eprintln!("{}: {by_hand} by hand", report.name),
        }
    }
    for row in &rows {
        if let Some(reason) = &row.reason {
            let place = format!("{} at {}/{}", row.consumer, row.topic, row.partition);
            eprintln!("{place} is {}: {reason}", row.state);
        }
    }
    Ok(ExitCode::SUCCESS)
}

async fn rows(
    args: &Args,
    config: &Config,
    topics: &dyn Topics,
    reports: Option<&[ConsumerReport]>,
) -> anyhow::Result<Vec<Row>> {
    let known = topics.list().await?;
    let mut rows = Vec::new();
    for consumer in &config.consumers {
        if !args.consumers.is_empty() && !args.consumers.iter().any(|n| **n == *consumer.name) {
            continue;
        }
        let mut positions = topics.positions(&consumer.group).await?;
        for group in consumer.previous_groups() {
            // As its next start finds them; the first of each partition counts.
            positions.extend(topics.positions(&group).await?);
        }
        let report = reports.map(|all| all.iter().find(|report| *report.name == *consumer.name));
        for info in known.iter().filter(|info| consumer.reads(&info.name)) {
            for (number, bounds) in (0..).zip(&info.partitions) {
                let partition = TopicPartition::new(info.name.clone(), number);
                let progress = positions.iter().find(|(known, _)| *known == partition);
                let progress = progress.map(|(_, progress)| progress);
                let (state, reason) = state(consumer, report, &partition);
                // What was sent back is read from its beginning, wherever the group starts.
                let start = match consumer.is_replay_topic(&info.name) {
                    true => Some(Start::Beginning),
                    false => consumer.start,
                };
                rows.push(Row {
                    consumer: consumer.name.to_string(),
                    group: consumer.group.to_string(),
                    topic: info.name.to_string(),
                    partition: number,
                    position: progress.map(|progress| progress.next),
                    end: bounds.end,
                    lag: lag(start, progress, *bounds),
                    state,
                    breaker: breaker(report.flatten()),
                    reason,
                    overrides: report
                        .flatten()
                        .map_or(Vec::new(), |report| report.overrides.clone()),
                });
            }
        }
    }
    Ok(rows)
}

/// Unsettled events of a partition. A group without a position begins where `start` says; a time
/// is counted from the beginning, the most it can be.
fn lag(start: Option<Start>, progress: Option<&Progress>, bounds: PartitionInfo) -> u64 {
    let Some(progress) = progress else {
        return match start {
            Some(Start::End) => 0,
            _ => bounds.end.saturating_sub(bounds.start),
        };
    };
    let above = progress.above.iter();
    let settled: u64 = above
        .map(|range| range.end.min(bounds.end).saturating_sub(range.start))
        .sum();
    let next = progress.next.max(bounds.start);
    bounds.end.saturating_sub(next).saturating_sub(settled)
}

/// What the runtime says of a partition: `report` is `None` where none answers, and `Some(None)`
/// where one answers that does not know the consumer.
fn state(
    consumer: &Consumer,
    report: Option<Option<&ConsumerReport>>,
    partition: &TopicPartition,
) -> (String, Option<String>) {
    if !consumer.enabled {
        return ("disabled".to_owned(), None);
    }
    let Some(Some(report)) = report else {
        return ("stopped".to_owned(), None);
    };
    let mut assigned = report.partitions.iter();
    let assigned =
        assigned.find(|a| *a.topic == *partition.topic && a.partition == partition.partition);
    match assigned {
        Some(assigned) if assigned.halted.is_some() => {
            ("halted".to_owned(), assigned.halted.clone())
        }
        Some(assigned) if assigned.on_trial && report.state == "running" => {
            ("on_trial".to_owned(), Some(ON_TRIAL.to_owned()))
        }
        // Another partition is: this one goes on.
        Some(_) if report.state == "halted" => ("running".to_owned(), None),
        Some(_) => (report.state.clone(), report.reason.clone()),
        // Another runtime of the group may have it.
        None if report.state == "running" => ("elsewhere".to_owned(), None),
        None => (report.state.clone(), report.reason.clone()),
    }
}

/// What the circuit breaker lets through, where that is not everything.
fn breaker(report: Option<&ConsumerReport>) -> Option<String> {
    let breaker = report.map(|report| report.breaker.as_str());
    let known = breaker.filter(|breaker| matches!(*breaker, "open" | "half_open"));
    known.map(str::to_owned)
}

fn table(rows: &[Row]) -> Table {
    let mut table = Table::new(&[
        "CONSUMER",
        "TOPIC",
        "#PARTITION",
        "#POSITION",
        "#END",
        "#LAG",
        "STATE",
    ]);
    for row in rows {
        let position = row.position.map_or("-".to_owned(), |next| next.to_string());
        table.row([
            row.consumer.clone(),
            row.topic.clone(),
            row.partition.to_string(),
            position,
            row.end.to_string(),
            row.lag.to_string(),
            row.state.clone(),
        ]);
    }
    table
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::admin::PartitionReport;
    use crate::broker::memory::Memory;
    use crate::config;
    use crate::records::{NewRecord, Records};

    /// A configuration with the consumer `enrich` on `orders` and on the pattern `^order.*`.
    fn config() -> Config {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("millstream.toml");
        std::fs::write(folder.path().join("p.wasm"), b"").expect("written");
        let text = r#"
            [[consumer]]
            name = "enrich"
            plugin = "p.wasm"
            topics = ["^order.*"]
            outputs = { default = "orders-enriched" }
            dead_letter = { topic = "orders.dlq" }
        "#;
        std::fs::write(&file, text).expect("written");
        let loaded = config::load(&PathBuf::from(&file), &|_| None);
        loaded.unwrap_or_else(|problems| panic!("{}", problems.render(false)))
    }

    async fn topics() -> Memory {
        let topics = Memory::with_topic("orders", 2);
        let mut records = Records::new();
        for topic in [
            "orders",
            "orders",
            "orders",
            "orders-enriched",
            "orders.dlq",
            "other",
        ] {
            records.push(
                &topic.into(),
                NewRecord {
                    partition: Some(0),
                    ..NewRecord::default()
                },
            );
        }
        topics.produce(records).await.expect("written");
        topics
    }

    async fn shown(topics: &Memory, reports: Option<&[ConsumerReport]>) -> Vec<Row> {
        let args = Args {
            consumers: Vec::new(),
        };
        rows(&args, &config(), topics, reports).await.expect("rows")
    }

    /// What the consumer writes itself is never its input: it must not show as lag.
    #[tokio::test]
    async fn a_pattern_counts_no_topics_of_the_consumers_own() {
        let topics = topics().await;
        topics.set_positions(vec![(TopicPartition::new("orders", 0), Progress::at(1))]);
        let rows = shown(&topics, None).await;
        let wanted = "\
CONSUMER  TOPIC   PARTITION  POSITION  END  LAG  STATE
enrich    orders          0         1    3    2  stopped
enrich    orders          1         -    0    0  stopped
";
        assert_eq!(table(&rows).render(false), wanted);
    }

    #[tokio::test]
    async fn what_is_settled_above_the_position_is_no_lag() {
        let topics = topics().await;
        let progress = Progress {
            next: 0,
            above: std::iter::once(1..2).collect(),
            watch: None,
        };
        topics.set_positions(vec![(TopicPartition::new("orders", 0), progress)]);
        assert_eq!(shown(&topics, None).await[0].lag, 2);
    }

    #[tokio::test]
    async fn the_runtime_says_what_state_a_partition_is_in() {
        let topics = topics().await;
        let report = ConsumerReport {
            name: "enrich".to_owned(),
            state: "running".to_owned(),
            partitions: vec![PartitionReport {
                topic: "orders".to_owned(),
                partition: 0,
                halted: Some("poison at 2".to_owned()),
                ..PartitionReport::default()
            }],
            ..ConsumerReport::default()
        };
        let rows = shown(&topics, Some(&[report])).await;
        let states: Vec<_> = rows.iter().map(|row| row.state.as_str()).collect();
        assert_eq!(states, ["halted", "elsewhere"]);
        assert_eq!(rows[0].reason.as_deref(), Some("poison at 2"));
    }

    /// After a death a partition is slow for a while, and nothing else would say why.
    #[tokio::test]
    async fn a_partition_whose_events_run_one_at_a_time_says_so() {
        let topics = topics().await;
        let partition = |partition, on_trial| PartitionReport {
            topic: "orders".to_owned(),
            partition,
            on_trial,
            ..PartitionReport::default()
        };
        let report = |state: &str| ConsumerReport {
            name: "enrich".to_owned(),
            state: state.to_owned(),
            partitions: vec![partition(0, true), partition(1, false)],
            ..ConsumerReport::default()
        };
        let rows = shown(&topics, Some(&[report("running")])).await;
        let states: Vec<_> = rows.iter().map(|row| row.state.as_str()).collect();
        assert_eq!(states, ["on_trial", "running"]);
        assert_eq!(rows[0].reason.as_deref(), Some(ON_TRIAL));
        let rows = shown(&topics, Some(&[report("paused")])).await;
        assert_eq!(rows[0].state, "paused");
    }
}
