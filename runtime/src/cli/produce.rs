//! `millstream produce TOPIC`: events from stdin or a file.

use std::fs::File;
use std::io::{IsTerminal as _, Read};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::builder::FalseyValueParser;
use tokio::sync::mpsc;

use super::lines::{self, BATCH_BYTES, BATCH_EVENTS, Shape};
use super::{Context, Failure, OutputFormat, connect, terminal};
use crate::broker::Topics;
use crate::broker::names::check_topic;
use crate::json_event::MAX_HEADER_NAME;
use crate::records::Records;

/// Batches that are read ahead of the broker.
const READ_AHEAD: usize = 4;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// The topic to write to
    topic: String,

    /// Read from this file instead of stdin
    #[arg(long, value_name = "FILE", env = "MILLSTREAM_PRODUCE_FILE")]
    file: Option<PathBuf>,

    /// The key of every event
    #[arg(
        short,
        long,
        value_name = "KEY",
        env = "MILLSTREAM_PRODUCE_KEY",
        conflicts_with_all = ["key_separator", "json"]
    )]
    key: Option<String>,

    /// Each line is KEY, this text, and the value
    #[arg(
        long,
        value_name = "TEXT",
        env = "MILLSTREAM_PRODUCE_KEY_SEPARATOR",
        conflicts_with = "json",
        value_parser = clap::builder::NonEmptyStringValueParser::new()
    )]
    key_separator: Option<String>,

    /// A header of every event; may be repeated
    #[arg(
        short = 'H',
        long = "header",
        value_name = "NAME=VALUE",
        env = "MILLSTREAM_PRODUCE_HEADER",
        value_parser = header
    )]
    headers: Vec<(String, String)>,

    /// Write to this partition instead of the key's
    #[arg(short, long, value_name = "N", env = "MILLSTREAM_PRODUCE_PARTITION")]
    partition: Option<u32>,

    /// Write an empty value (and an empty key of a line) as null: a tombstone
    #[arg(
        long,
        env = "MILLSTREAM_PRODUCE_NULL",
        value_parser = FalseyValueParser::new(),
        conflicts_with = "json"
    )]
    null: bool,

    /// Each line is a whole event as `consume --json` prints it; its topic, partition and offset
    /// are passed over
    #[arg(long, env = "MILLSTREAM_PRODUCE_JSON", value_parser = FalseyValueParser::new())]
    json: bool,
}

fn header(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, _)) if name.is_empty() || name.len() > MAX_HEADER_NAME => {
            Err(format!("a header's name has 1 to {MAX_HEADER_NAME} bytes"))
        }
        Some((name, value)) => Ok((name.to_owned(), value.to_owned())),
        None => Err("a header is NAME=VALUE".to_owned()),
    }
}

/// Writes every line as an event.
///
/// # Errors
/// A line is no event, the input cannot be read, or the broker does not take the events.
pub async fn run(args: Args, context: &Context) -> anyhow::Result<ExitCode> {
    check_topic(&args.topic).map_err(Failure::Usage)?;
    let config = connect::load(context)?;
    let input: Box<dyn Read + Send> = match &args.file {
        Some(file) => {
            let shown = file.display();
            Box::new(File::open(file).with_context(|| format!("cannot read {shown}"))?)
        }
        None => {
            if std::io::stdin().is_terminal() {
                eprintln!("events from the terminal, one a line; Ctrl-D ends");
            }
            Box::new(std::io::stdin())
        }
    };
    let shape = args.shape();
    let connection = connect::connect(&config).await?;
    let mut written = 0;
    let result = copy(input, shape, &*connection.topics, &mut written).await;
    connection.close().await;
    let noun = if written == 1 { "event" } else { "events" };
    let done = format!("{written} {noun} written to {}", args.topic);
    if let Err(error) = result {
        return Err(error.context(match written {
            0 => format!("no event for {} was acknowledged", args.topic),
            _ => format!("{done}, then no more"),
        }));
    }
    match context.output {
        OutputFormat::Text => eprintln!("{done}"),
        OutputFormat::Json => {
            let report = serde_json::json!({"topic": args.topic, "events": written});
            terminal::print_json(&report).await?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

impl Args {
    fn shape(&self) -> Shape {
        let bytes = |text: &String| text.clone().into_bytes();
        let headers = self.headers.iter();
        Shape {
            topic: self.topic.as_str().into(),
            key: self.key.as_ref().map(bytes),
            separator: self.key_separator.as_ref().map(bytes),
            headers: headers
                .map(|(name, value)| (bytes(name), bytes(value)))
                .collect(),
            partition: self.partition,
            null: self.null,
            json: self.json,
        }
    }
}

/// Copies events, counting in `written` those that the broker has acknowledged.
async fn copy(
    input: impl Read + Send + 'static,
    shape: Shape,
    topics: &dyn Topics,
    written: &mut usize,
) -> anyhow::Result<()> {
    let (sender, mut batches) = mpsc::channel::<Records>(READ_AHEAD);
    let (ended, end) = tokio::sync::oneshot::channel();
    // A thread of its own, not one of the executor's: a read from a terminal never returns when
    // the command is over, and the process must end all the same.
    std::thread::Builder::new()
        .name("input".to_owned())
        .spawn(move || {
            let result = lines::read(input, &shape, &sender);
            drop(sender);
            // The receiver is gone when the broker has failed; that error is reported then.
            let _ = ended.send(result);
        })
        .context("cannot start a thread to read with")?;
    while let Some(mut batch) = batches.recv().await {
        // A pipe hands over 64 KiB at a time; what waits goes together.
        while batch.len() < BATCH_EVENTS && batch.bytes() < BATCH_BYTES {
            match batches.try_recv() {
                Ok(more) => batch.append_all(&more),
                Err(_) => break,
            }
        }
        *written += topics.produce(batch).await?.len();
    }
    end.await.context("the thread that reads has failed")?
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broker::memory::Memory;

    fn shape() -> Shape {
        Shape {
            topic: "orders".into(),
            key: None,
            separator: None,
            headers: Vec::new(),
            partition: None,
            null: false,
            json: false,
        }
    }

    #[tokio::test]
    async fn all_lines_arrive_in_order() {
        let topics = Memory::with_topic("orders", 1);
        let input: String = (0..25_000).map(|n| format!("{n}\n")).collect();
        let mut written = 0;
        let input = std::io::Cursor::new(input);
        copy(input, shape(), &topics, &mut written)
            .await
            .expect("no error");
        assert_eq!(written, 25_000);
        let values = topics.values("orders", 0);
        assert!((0..25_000).map(|n| n.to_string().into_bytes()).eq(values));
    }

    /// The count tells the user where to go on.
    #[tokio::test]
    async fn what_was_written_before_a_bad_line_is_counted() {
        let topics = Memory::with_topic("orders", 1);
        let shape = Shape {
            separator: Some(b":".to_vec()),
            ..shape()
        };
        let mut written = 0;
        let input = std::io::Cursor::new("a:1\nb:2\nbad\nc:3\n");
        let error = copy(input, shape, &topics, &mut written)
            .await
            .expect_err("an error");
        assert_eq!((written, topics.values("orders", 0).len()), (2, 2));
        assert!(error.to_string().contains("line 3"), "{error}");
    }

    #[tokio::test]
    async fn a_broker_that_fails_ends_it() {
        let topics = Memory::with_topic("orders", 1);
        topics.fail(crate::broker::BrokerError::DiskFull("0 left".into()));
        let mut written = 0;
        let input = std::io::repeat(b'\n');
        let error = copy(input, shape(), &topics, &mut written)
            .await
            .expect_err("an error");
        assert_eq!(super::super::exit::code_of(&error), 1);
    }

    #[test]
    fn headers_have_a_name_and_a_value() {
        assert_eq!(header("a=b=c"), Ok(("a".to_owned(), "b=c".to_owned())));
        assert_eq!(header("a="), Ok(("a".to_owned(), String::new())));
        for bad in ["a", "=b", ""] {
            assert!(header(bad).is_err(), "{bad}");
        }
    }
}
