//! `millstream topics [list|create|delete]`.

use std::process::ExitCode;
use std::time::Duration;

use clap::builder::FalseyValueParser;
use clap::{Subcommand, ValueEnum};

use super::table::Table;
use super::{Context, OutputFormat, connect, terminal};
use crate::broker::remote::wire::TopicReport;
use crate::broker::{TopicInfo, Topics};
use crate::config::{Cleanup, Config, TopicSettings, units};

#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    action: Option<Action>,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// List topics with their partitions and offsets (the default)
    List {
        /// These topics alone
        topics: Vec<String>,
    },
    /// Make a topic; what is not given is as [topics.NAME] of the configuration says
    Create(New),
    /// Delete topics with all their events
    Delete {
        #[arg(required = true)]
        topics: Vec<String>,

        /// A topic that does not exist is no error
        #[arg(
            long,
            env = "MILLSTREAM_TOPICS_DELETE_IF_EXISTS",
            value_parser = FalseyValueParser::new()
        )]
        if_exists: bool,
    },
}

#[derive(Debug, clap::Args)]
struct New {
    topic: String,

    /// How many partitions
    #[arg(
        short,
        long,
        value_name = "N",
        env = "MILLSTREAM_TOPICS_CREATE_PARTITIONS",
        value_parser = clap::value_parser!(u32).range(1..)
    )]
    partitions: Option<u32>,

    /// How long events are kept, such as 7d
    #[arg(
        long,
        value_name = "DURATION",
        env = "MILLSTREAM_TOPICS_CREATE_RETENTION_AGE",
        value_parser = duration
    )]
    retention_age: Option<Duration>,

    /// How much a partition keeps, such as 10GiB
    #[arg(
        long,
        value_name = "SIZE",
        env = "MILLSTREAM_TOPICS_CREATE_RETENTION_BYTES",
        value_parser = size
    )]
    retention_bytes: Option<u64>,

    /// What ends an event's life
    #[arg(long, value_name = "HOW", env = "MILLSTREAM_TOPICS_CREATE_CLEANUP")]
    cleanup: Option<CleanupName>,

    /// The largest event, such as 1MiB
    #[arg(
        long,
        value_name = "SIZE",
        env = "MILLSTREAM_TOPICS_CREATE_MAX_EVENT",
        value_parser = size
    )]
    max_event: Option<u64>,

    /// A topic that exists already is no error
    #[arg(
        long,
        env = "MILLSTREAM_TOPICS_CREATE_IF_NOT_EXISTS",
        value_parser = FalseyValueParser::new()
    )]
    if_not_exists: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum CleanupName {
    Delete,
    Compact,
}

/// A duration with its unit, for clap.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    units::duration(text).map_err(|mistake| format!("it {}; write it as 30s", mistake.describe()))
}

fn size(text: &str) -> Result<u64, String> {
    units::size(text).map_err(|mistake| format!("it {}; write it as 64MiB", mistake.describe()))
}

/// Does what the action says.
///
/// # Errors
/// A topic to delete that does not exist, one to make that does, or the broker fails.
pub async fn run(args: Args, context: &Context) -> anyhow::Result<ExitCode> {
    let config = connect::load(context)?;
    let connection = connect::connect(&config).await?;
    let action = args.action.unwrap_or(Action::List { topics: Vec::new() });
    let result = act(action, &*connection.topics, &config, context).await;
    connection.close().await;
    result.map(|()| ExitCode::SUCCESS)
}

async fn act(
    action: Action,
    topics: &dyn Topics,
    config: &Config,
    context: &Context,
) -> anyhow::Result<()> {
    match action {
        Action::List { topics: wanted } => {
            let mut found = topics.list().await?;
            for name in &wanted {
                if !found.iter().any(|info| *info.name == **name) {
                    anyhow::bail!("there is no topic {name}");
                }
            }
            found
                .retain(|info| wanted.is_empty() || wanted.iter().any(|name| **name == *info.name));
            list(&found, context).await
        }
        Action::Create(new) => {
            let none = TopicSettings::default();
            let known = config.topics.get(new.topic.as_str()).unwrap_or(&none);
            let made = topics.create(&new.topic, &new.settings(known)).await?;
            if !made && !new.if_not_exists {
                anyhow::bail!("topic {} exists already", new.topic);
            }
            let what = if made { "made" } else { "exists already" };
            eprintln!("topic {} {what}", new.topic);
            Ok(())
        }
        Action::Delete {
            topics: wanted,
            if_exists,
        } => {
            for name in &wanted {
                if topics.delete(name).await? {
                    eprintln!("topic {name} deleted");
                } else if !if_exists {
                    anyhow::bail!("there is no topic {name}");
                }
            }
            Ok(())
        }
    }
}

impl New {
    fn settings(&self, known: &TopicSettings) -> TopicSettings {
        let cleanup = self.cleanup.map(|cleanup| match cleanup {
            CleanupName::Delete => Cleanup::Delete,
            CleanupName::Compact => Cleanup::Compact,
        });
        TopicSettings {
            partitions: self.partitions.or(known.partitions),
            retention_age: self.retention_age.or(known.retention_age),
            retention_bytes: self.retention_bytes.or(known.retention_bytes),
            cleanup: cleanup.or(known.cleanup),
            max_event: self.max_event.or(known.max_event),
        }
    }
}

async fn list(found: &[TopicInfo], context: &Context) -> anyhow::Result<()> {
    if context.output == OutputFormat::Json {
        let reports: Vec<TopicReport> = found.iter().map(TopicReport::from).collect();
        return terminal::print_json(&reports).await;
    }
    if found.is_empty() {
        eprintln!(
            "no topics; `millstream produce TOPIC` or `millstream topics create TOPIC` makes one"
        );
        return Ok(());
    }
    terminal::print(&table(found).render(context.color)).await
}

fn table(found: &[TopicInfo]) -> Table {
    let mut table = Table::new(&["TOPIC", "#PARTITION", "#START", "#END", "#EVENTS"]);
    for info in found {
        for (number, bounds) in info.partitions.iter().enumerate() {
            table.row([
                info.name.to_string(),
                number.to_string(),
                bounds.start.to_string(),
                bounds.end.to_string(),
                bounds.end.saturating_sub(bounds.start).to_string(),
            ]);
        }
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broker::PartitionInfo;

    #[test]
    fn the_list_reads_as_a_table() {
        let bounds = |start, end| PartitionInfo { start, end };
        let found = [
            TopicInfo {
                name: "orders".into(),
                partitions: vec![bounds(0, 541_909), bounds(1_000, 1_000)],
            },
            TopicInfo {
                name: "orders-enriched".into(),
                partitions: vec![bounds(0, 7)],
            },
        ];
        let wanted = "\
TOPIC            PARTITION  START     END  EVENTS
orders                   0      0  541909  541909
orders                   1   1000    1000       0
orders-enriched          0      0       7       7
";
        assert_eq!(table(&found).render(false), wanted);
    }

    #[test]
    fn sizes_and_durations_need_their_unit() {
        assert_eq!(duration("7d"), Ok(Duration::from_secs(7 * 86_400)));
        assert_eq!(size("1MiB"), Ok(1 << 20));
        assert!(duration("30").is_err());
        assert!(size("ten").is_err());
    }
}
