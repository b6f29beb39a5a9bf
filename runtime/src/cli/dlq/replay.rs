//! `millstream dlq replay CONSUMER`.

use std::sync::Arc;
use std::time::Duration;

use clap::builder::FalseyValueParser;
use tokio::time::Instant;

use super::super::Context;
use super::Letters;
use super::list::Printer;
use super::pace::{Pace, Rate};
use super::scan::Snapshot;
use super::seen::{self, Seen};
use crate::config::TopicSettings;
use crate::consumer::replay;
use crate::records::Records;

/// Events and bytes that are written at once.
const GROUP_EVENTS: usize = 500;
const GROUP_BYTES: usize = 1 << 20;
/// How long a replay topic keeps its events: they carry their old timestamps, by which Kafka counts,
/// and they say what was sent back already.
const KEPT: Duration = Duration::from_secs(3_650 * 86_400);

#[derive(Debug, clap::Args)]
pub struct Args {
    /// The consumer, by its name in the configuration
    pub consumer: String,

    /// How fast, such as 100/s, 100/m or 100/h
    #[arg(long, value_name = "RATE", env = "MILLSTREAM_DLQ_REPLAY_RATE")]
    rate: Option<Rate>,

    /// Show what would be sent back, and write nothing
    #[arg(
        long,
        env = "MILLSTREAM_DLQ_REPLAY_DRY_RUN",
        value_parser = FalseyValueParser::new()
    )]
    dry_run: bool,

    /// Also those that were sent back already and have not failed again
    #[arg(
        long,
        env = "MILLSTREAM_DLQ_REPLAY_AGAIN",
        value_parser = FalseyValueParser::new()
    )]
    again: bool,
}

/// Writes the events of the dead letters that the filter lets through to the consumer's replay
/// topic.
///
/// # Errors
/// There are more dead letters than can be told apart, or the broker fails; what was written until
/// then stays, and another replay leaves it out.
pub async fn run(letters: &Letters<'_>, args: &Args, context: &Context) -> anyhow::Result<()> {
    let mut printer = Printer::new(context);
    let Some(snapshot) = Snapshot::of(letters.topics, &letters.topic).await? else {
        return printer.end(letters).await;
    };
    let mut seen = Seen::new(seen::MOST);
    note_all(letters, &snapshot, &mut seen).await?;
    if seen.left_out() > 0 {
        anyhow::bail!(
            "there are more than {} dead letters, too many to tell apart at once; nothing was sent \
             back. Take them in parts: --source TOPIC/PARTITION",
            seen::MOST
        );
    }
    let topic = letters.consumer.replay_topic();
    let before = Snapshot::of(letters.topics, &topic).await?;
    if let Some(before) = &before {
        note_replayed(letters, before, &mut seen).await?;
    }
    for topic in letters.consumer.previous_replay_topics() {
        if let Some(before) = Snapshot::of(letters.topics, &topic).await? {
            note_replayed(letters, &before, &mut seen).await?;
        }
    }
    let mut way = Way {
        letters,
        made: before.is_some() || args.dry_run,
        partitions: snapshot.partitions(),
        topic: topic.clone(),
        pace: Pace::new(args.rate, Instant::now()),
        dry_run: args.dry_run,
        records: Records::new(),
        sent: 0,
    };
    let mut already = 0_u64;
    let mut scan = snapshot.scan();
    while let Some(batch) = scan.next(letters.topics).await? {
        for event in batch.events() {
            let Some(letter) = letters.newest(&event, &mut seen) else {
                continue;
            };
            if !args.again && seen.is_replayed(&letter) {
                already += 1;
                continue;
            }
            replay::push(&mut way.records, &topic, &event, &letter);
            way.send_if_full().await?;
            printer.add(&event, &letter)?;
            // Nothing is shown as sent that is not.
            if printer.is_full() {
                way.send().await?;
                printer.flush().await?;
            }
        }
    }
    way.send().await?;
    if way.sent > 0 {
        printer.end(letters).await?;
    }
    way.tell(already);
    Ok(())
}

/// Takes note of every dead letter of the consumer from the places that are wanted.
///
/// # Errors
/// Of the broker.
pub async fn note_all(
    letters: &Letters<'_>,
    snapshot: &Snapshot,
    seen: &mut Seen,
) -> anyhow::Result<()> {
    let mut scan = snapshot.scan();
    while let Some(batch) = scan.next(letters.topics).await? {
        for event in batch.events() {
            if let Some(letter) = letters.read(&event) {
                seen.note(&letter);
            }
        }
    }
    Ok(())
}

async fn note_replayed(
    letters: &Letters<'_>,
    snapshot: &Snapshot,
    seen: &mut Seen,
) -> anyhow::Result<()> {
    let mut scan = snapshot.scan();
    while let Some(batch) = scan.next(letters.topics).await? {
        for event in batch.events() {
            if let Some(origin) = replay::Origin::of(&event) {
                seen.note_replayed(&origin.partition, origin.offset, origin.count);
            }
        }
    }
    Ok(())
}

/// The way back: a topic that the consumer alone reads.
struct Way<'a> {
    letters: &'a Letters<'a>,
    topic: Arc<str>,
    /// Whether the topic is there, or need not be.
    made: bool,
    /// Of the dead-letter topic.
    partitions: usize,
    pace: Pace,
    dry_run: bool,
    records: Records,
    sent: u64,
}

impl Way<'_> {
    async fn send_if_full(&mut self) -> anyhow::Result<()> {
        let full = self.records.len() >= self.pace.group(GROUP_EVENTS)
            || self.records.bytes() >= GROUP_BYTES;
        match full {
            true => self.send().await,
            false => Ok(()),
        }
    }

    async fn send(&mut self) -> anyhow::Result<()> {
        let records = std::mem::take(&mut self.records);
        if records.is_empty() {
            return Ok(());
        }
        let count = records.len();
        if !self.dry_run {
            if !self.made {
                self.make().await?;
            }
            tokio::time::sleep_until(self.pace.at(count, Instant::now())).await;
            self.letters
                .topics
                .produce(records)
                .await
                .map_err(|error| {
                    anyhow::Error::new(error).context(format!(
                        "{} events were sent back before; replay again for the rest",
                        self.sent
                    ))
                })?;
        }
        self.sent += count as u64;
        Ok(())
    }

    async fn make(&mut self) -> anyhow::Result<()> {
        // As large as a dead letter may be, so may be what comes back.
        let dead_letters = self.letters.config.topics.get(&self.letters.topic);
        let settings = TopicSettings {
            partitions: u32::try_from(self.partitions).ok(),
            retention_age: Some(KEPT),
            max_event: dead_letters.and_then(|settings| settings.max_event),
            ..TopicSettings::default()
        };
        if self.letters.topics.create(&self.topic, &settings).await? {
            eprintln!("topic {} made", self.topic);
        }
        self.made = true;
        Ok(())
    }

    fn tell(&self, already: u64) {
        let (sent, consumer) = (self.sent, &self.letters.consumer.name);
        let events = |count: u64| match count {
            1 => "1 event".to_owned(),
            count => format!("{count} events"),
        };
        let topic = &self.topic;
        match (self.dry_run, sent) {
            (true, _) => eprintln!(
                "{} would be sent back to {consumer} over {topic}",
                events(sent)
            ),
            (false, 0) => eprintln!("nothing was sent back to {consumer}"),
            (false, _) => eprintln!(
                "{} sent back to {consumer} over {topic}; order is lost: they come after newer events \
                 of their keys",
                events(sent)
            ),
        }
        if already > 0 {
            eprintln!(
                "{} left out: sent back already and not failed again since (--again sends them too)",
                events(already)
            );
        }
    }
}
