//! `millstream consume TOPIC`: prints events.

use std::io::IsTerminal as _;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::builder::FalseyValueParser;
use tokio::io::Stdout;
use tokio::time::Instant;

use super::format::Format;
use super::merge::{Cursor, Merge};
use super::{Context, OutputFormat, connect, terminal};
use crate::broker::seek::Seek;
use crate::broker::{BrokerError, Topics};
use crate::event::{EventView, TopicPartition};
use crate::json_event;

/// How much is rendered before it is written.
const WRITE_BYTES: usize = 64 << 10;
/// Pauses between two looks for new events.
const FIRST_PAUSE: Duration = Duration::from_millis(10);
const LAST_PAUSE: Duration = Duration::from_millis(500);
/// How long a broker may have nothing for us below the end that it named itself.
const STALL: Duration = Duration::from_secs(30);

#[derive(Debug, clap::Args)]
pub struct Args {
    /// The topic to read
    topic: String,

    /// Where to begin: start, end, an offset N, -N for the last N of each partition, @TIME for a
    /// date, an RFC 3339 time or milliseconds since 1970
    #[arg(
        short,
        long,
        value_name = "WHERE",
        env = "MILLSTREAM_CONSUME_OFFSET",
        default_value = "start",
        allow_hyphen_values = true
    )]
    offset: Seek,

    /// Go on with what comes, until interrupted
    #[arg(short, long, env = "MILLSTREAM_CONSUME_FOLLOW", value_parser = FalseyValueParser::new())]
    follow: bool,

    /// End after this many events
    #[arg(short = 'n', long, value_name = "N", env = "MILLSTREAM_CONSUME_COUNT")]
    count: Option<u64>,

    /// Read this partition alone
    #[arg(short, long, value_name = "N", env = "MILLSTREAM_CONSUME_PARTITION")]
    partition: Option<u32>,

    /// How an event is printed: %t topic, %p partition, %o offset, %T timestamp, %k key, %v value
    /// (or %s), %h headers, %K and %S the lengths of key and value
    #[arg(
        long,
        value_name = "FORMAT",
        env = "MILLSTREAM_CONSUME_FORMAT",
        default_value = "%v\\n"
    )]
    format: Format,
}

/// Prints events until the end, the count or, following, for ever.
///
/// # Errors
/// No such topic or partition, or the broker fails.
pub async fn run(args: Args, context: &Context) -> anyhow::Result<ExitCode> {
    let config = connect::load(context)?;
    let connection = connect::connect(&config).await?;
    let printer = Printer {
        format: (context.output == OutputFormat::Text).then_some(args.format),
        visible: std::io::stdout().is_terminal(),
        left: args.count.unwrap_or(u64::MAX),
        rendered: Vec::new(),
        stdout: tokio::io::stdout(),
    };
    let wanted = Wanted {
        topic: args.topic.into(),
        partition: args.partition,
        seek: args.offset,
        follow: args.follow,
    };
    let result = consume(&*connection.topics, wanted, printer).await;
    connection.close().await;
    result.map(|()| ExitCode::SUCCESS)
}

/// What is to be read.
struct Wanted {
    topic: Arc<str>,
    partition: Option<u32>,
    seek: Seek,
    follow: bool,
}

/// Renders events and writes them out.
struct Printer {
    /// `None` prints JSON lines.
    format: Option<Format>,
    visible: bool,
    left: u64,
    rendered: Vec<u8>,
    stdout: Stdout,
}

impl Printer {
    fn add(&mut self, event: &EventView<'_>) {
        match &self.format {
            Some(format) => format.render(event, self.visible, &mut self.rendered),
            None => {
                json_event::render(event, &mut self.rendered);
                self.rendered.push(b'\n');
            }
        }
        self.left -= 1;
    }

    async fn flush(&mut self) -> anyhow::Result<()> {
        if !self.rendered.is_empty() {
            terminal::write(&mut self.stdout, &self.rendered).await?;
            self.rendered.clear();
        }
        Ok(())
    }
}

async fn consume(topics: &dyn Topics, wanted: Wanted, mut printer: Printer) -> anyhow::Result<()> {
    let mut merge = Merge::new(cursors(topics, &wanted).await?);
    let mut pause = FIRST_PAUSE;
    let mut last_progress = Instant::now();
    while printer.left > 0 && !merge.finished() {
        let further = merge.fill(topics).await?;
        while printer.left > 0
            && let Some((block, index)) = merge.next()
        {
            printer.add(&block.event(index));
            if printer.rendered.len() >= WRITE_BYTES {
                printer.flush().await?;
            }
        }
        printer.flush().await?;
        if further {
            pause = FIRST_PAUSE;
            last_progress = Instant::now();
        } else if !merge.finished() {
            if !wanted.follow && last_progress.elapsed() > STALL {
                let text = format!("nothing came for {} s before the end", STALL.as_secs());
                return Err(BrokerError::Unreachable(text).into());
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LAST_PAUSE);
        }
    }
    Ok(())
}

/// Where each partition is read from and to.
async fn cursors(topics: &dyn Topics, wanted: &Wanted) -> Result<Vec<Cursor>, BrokerError> {
    let known = topics.list().await?;
    let unknown = |name: String| BrokerError::UnknownTopic(name);
    let info = known.iter().find(|info| info.name == wanted.topic);
    let info = info.ok_or_else(|| unknown(wanted.topic.to_string()))?;
    let mut cursors = Vec::new();
    for (number, bounds) in (0..).zip(&info.partitions) {
        if wanted.partition.is_some_and(|wanted| wanted != number) {
            continue;
        }
        let partition = TopicPartition::new(wanted.topic.clone(), number);
        let from = wanted.seek.resolve(topics, &partition, *bounds).await?;
        let stop = (!wanted.follow).then_some(bounds.end);
        cursors.push(Cursor::new(partition, from, stop));
    }
    match (cursors.is_empty(), wanted.partition) {
        (true, Some(number)) => Err(unknown(format!("{}/{number}", wanted.topic))),
        _ => Ok(cursors),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::super::{Cli, Command};
    use super::*;

    fn args(line: &str) -> Args {
        let cli = Cli::try_parse_from(line.split_whitespace());
        match cli
            .unwrap_or_else(|error| panic!("{line}: {error}"))
            .command
        {
            Command::Consume(args) => args,
            other => panic!("{other:?}"),
        }
    }

    /// `-10` looks like an option; it must be taken as a place.
    #[test]
    fn places_are_taken_in_every_way_of_writing() {
        for line in [
            "millstream consume orders -o -10",
            "millstream consume orders -o=-10",
            "millstream consume orders --offset=-10 -f",
            "millstream consume -o -10 orders",
        ] {
            assert_eq!(args(line).offset, Seek::Last(10), "{line}");
        }
        assert_eq!(args("millstream consume orders").offset, Seek::Start);
    }

    #[test]
    fn a_format_that_means_nothing_is_a_usage_error() {
        let line = ["millstream", "consume", "orders", "--format", "%q"];
        let error = Cli::try_parse_from(line).expect_err("an error");
        assert_eq!(error.exit_code(), 2);
        assert!(error.to_string().contains("%q means nothing"), "{error}");
    }

    #[tokio::test]
    async fn a_partition_that_is_not_there_is_named() {
        let topics = crate::broker::memory::Memory::with_topic("orders", 2);
        let mut wanted = Wanted {
            topic: "orders".into(),
            partition: Some(2),
            seek: Seek::Start,
            follow: false,
        };
        let error = cursors(&topics, &wanted).await.err();
        let text = error.map(|error| error.to_string()).unwrap_or_default();
        assert_eq!(text, "there is no topic orders/2");
        wanted.partition = None;
        assert_eq!(
            cursors(&topics, &wanted).await.map(|c| c.len()).ok(),
            Some(2)
        );
    }
}
