//! `millstream dlq list|show|replay CONSUMER`: dead letters, and their way back.
//!
//! ```text
//! dead-letter topic ─ scan ─▶ seen (newest of each identity) ─▶ scan again ─ filter ─▶ list, show
//! replay topic ───── scan ─▶ seen (sent back already)                            └──▶ replay
//! ```
//! The topics are read twice, so that of an event that failed again after a replay its newest dead
//! letter alone counts, and what is kept in memory is one small entry an event.

mod case;
mod filter;
mod line;
mod list;
mod pace;
mod replay;
mod scan;
mod seen;
mod show;

use std::process::ExitCode;
use std::sync::Arc;

use clap::Subcommand;
use clap::builder::FalseyValueParser;

use self::filter::Filter;
use super::place::EventPlace;
use super::{Context, connect};
use crate::config::{Config, Consumer};

#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    action: Action,

    #[command(flatten)]
    filter: Filter,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// List a consumer's dead letters: the newest of each event
    List {
        /// The consumer, by its name in the configuration
        consumer: String,
    },
    /// Show all of one dead letter
    Show {
        /// The consumer, by its name in the configuration
        consumer: String,

        /// The event that failed, as `dlq list` shows it: TOPIC/PARTITION@OFFSET
        #[arg(value_name = "TOPIC/PARTITION@OFFSET")]
        place: EventPlace,

        /// Print a test case for the plugin instead: the event as it was
        #[arg(long, env = "MILLSTREAM_DLQ_SHOW_AS_CASE", value_parser = FalseyValueParser::new())]
        as_case: bool,
    },
    /// Send dead letters back to their consumer; they come after newer events of their keys
    Replay(replay::Args),
}

/// Does what the action says.
///
/// # Errors
/// No such consumer or dead letter, more dead letters than can be told apart, or the broker fails.
pub async fn run(args: Args, context: &Context) -> anyhow::Result<ExitCode> {
    let config = connect::load(context)?;
    let name = match &args.action {
        Action::List { consumer } | Action::Show { consumer, .. } => consumer,
        Action::Replay(args) => &args.consumer,
    };
    let consumer = super::consumer(&config, name)?.clone();
    let Some(dead_letter) = &consumer.dead_letter else {
        anyhow::bail!("consumer {name} has no dead letters: it names no `dead_letter` topic");
    };
    let topic = dead_letter.topic.clone();
    let connection = connect::connect(&config).await?;
    let letters = Letters {
        topics: &*connection.topics,
        config: &config,
        consumer,
        topic,
        filter: args.filter,
    };
    let result = match args.action {
        Action::List { .. } => list::run(&letters, context).await,
        Action::Show { place, as_case, .. } => show::run(&letters, &place, as_case, context).await,
        Action::Replay(args) => replay::run(&letters, &args, context).await,
    };
    connection.close().await;
    result.map(|()| ExitCode::SUCCESS)
}

/// The dead letters of a consumer.
struct Letters<'a> {
    topics: &'a dyn crate::broker::Topics,
    config: &'a Config,
    consumer: Arc<Consumer>,
    /// Where they lie; other consumers' may lie there too.
    topic: Arc<str>,
    filter: Filter,
}
