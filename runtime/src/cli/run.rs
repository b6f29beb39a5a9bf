//! `millstream run [CONFIG]`.

use std::io::IsTerminal as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::builder::FalseyValueParser;
use indicatif::{ProgressBar, ProgressStyle};
use tokio::sync::watch;

use super::table::Table;
use super::topics::duration;
use super::{Context, OutputFormat, connect, exit, terminal};
use crate::app::{self, RunOptions, RunProgress, RunSummary};
use crate::logging;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// The configuration, instead of --config
    #[arg(value_name = "CONFIG")]
    file: Option<PathBuf>,

    /// End when every event is processed
    #[arg(long, env = "MILLSTREAM_RUN_UNTIL_IDLE", value_parser = FalseyValueParser::new())]
    until_idle: bool,

    /// With --until-idle: how long a consumer may stand still before the run fails
    #[arg(
        long,
        value_name = "DURATION",
        env = "MILLSTREAM_RUN_IDLE_TIMEOUT",
        default_value = "30s",
        value_parser = duration
    )]
    idle_timeout: Duration,

    /// Exit 1 when an event was dead-lettered
    #[arg(long, env = "MILLSTREAM_RUN_FAIL_ON_DEAD_LETTER", value_parser = FalseyValueParser::new())]
    fail_on_dead_letter: bool,

    /// Deploy a plugin when its file changes, too
    #[arg(long, env = "MILLSTREAM_RUN_WATCH", value_parser = FalseyValueParser::new())]
    watch: bool,
}

/// Runs until stopped or idle, and prints what was done.
///
/// # Errors
/// The configuration is wrong, or the runtime cannot start or go on.
pub async fn run(args: Args, context: &Context) -> anyhow::Result<ExitCode> {
    let mut context = context.clone();
    if let Some(file) = args.file {
        context.config = file;
    }
    let config = connect::load(&context)?;
    let live = std::io::stderr().is_terminal().then(Live::start);
    let options = RunOptions {
        until_idle: args.until_idle.then_some(args.idle_timeout),
        fail_on_dead_letter: args.fail_on_dead_letter,
        watch_plugins: args.watch,
        progress: live.as_ref().map(|live| live.sender.clone()),
    };
    let result = app::run(config, options).await;
    if let Some(live) = live {
        live.end();
    }
    let summary = result?;
    match context.output {
        OutputFormat::Json => terminal::print_json(&json(&summary)).await?,
        OutputFormat::Text => eprint!("{}", text(&summary, context.color)),
    }
    Ok(match (&summary.failure, summary.interrupted) {
        (Some(reason), _) => {
            eprintln!("error: {reason}");
            ExitCode::FAILURE
        }
        (None, true) => ExitCode::from(exit::INTERRUPTED),
        (None, false) => ExitCode::SUCCESS,
    })
}

/// The live line on the terminal.
struct Live {
    sender: watch::Sender<RunProgress>,
    bar: ProgressBar,
    task: tokio::task::JoinHandle<()>,
}

impl Live {
    fn start() -> Self {
        let (sender, mut receiver) = watch::channel(RunProgress::default());
        let bar = logging::live().add(ProgressBar::new_spinner());
        // The template is a constant: a failure falls back to the plain spinner.
        if let Ok(style) = ProgressStyle::with_template("{spinner} {msg}") {
            bar.set_style(style);
        }
        let shown = bar.clone();
        let task = tokio::spawn(async move {
            while receiver.changed().await.is_ok() {
                let line = live_line(&receiver.borrow_and_update());
                shown.set_message(line);
                shown.tick();
            }
        });
        Self { sender, bar, task }
    }

    fn end(self) {
        self.task.abort();
        self.bar.finish_and_clear();
    }
}

fn live_line(progress: &RunProgress) -> String {
    format!(
        "{} in, {} settled, {} out, {} dead letters, {} waiting",
        grouped(progress.consumed),
        grouped(progress.settled),
        grouped(progress.produced),
        grouped(progress.dead_letters),
        grouped(progress.lag)
    )
}

/// A number with its thousands apart.
pub(super) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

fn rate(summary: &RunSummary) -> u64 {
    let consumed: u64 = summary.consumers.iter().map(|one| one.consumed).sum();
    let seconds = summary.duration.as_secs_f64();
    if seconds > 0.0 {
        (consumed as f64 / seconds) as u64
    } else {
        0
    }
}

fn text(summary: &RunSummary, color: bool) -> String {
    let mut table = Table::new(&["CONSUMER", "#CONSUMED", "SETTLED", "PRODUCED"]);
    for one in &summary.consumers {
        table.row([
            one.name.clone(),
            grouped(one.consumed),
            counts(&one.settled),
            counts(&one.produced),
        ]);
    }
    let mut out = String::new();
    if !table.is_empty() {
        out.push_str(&table.render(color));
    }
    let events: u64 = summary.consumers.iter().map(|one| one.consumed).sum();
    out.push_str(&format!(
        "{} events in {:.1} s, {} a second\n",
        grouped(events),
        summary.duration.as_secs_f64(),
        grouped(rate(summary))
    ));
    out
}

/// What is not zero, as `ok 7, dropped 2`.
fn counts(counts: &[(String, u64)]) -> String {
    let shown: Vec<String> = counts
        .iter()
        .filter(|(_, count)| *count > 0)
        .map(|(name, count)| format!("{} {}", name.replace('_', "-"), grouped(*count)))
        .collect();
    match shown.is_empty() {
        true => "-".to_owned(),
        false => shown.join(", "),
    }
}

fn json(summary: &RunSummary) -> serde_json::Value {
    let object = |counts: &[(String, u64)]| {
        let pairs = counts
            .iter()
            .map(|(name, count)| (name.clone(), (*count).into()));
        serde_json::Value::Object(pairs.collect())
    };
    let consumers = summary.consumers.iter().map(|one| {
        serde_json::json!({
            "name": one.name,
            "consumed": one.consumed,
            "settled": object(&one.settled),
            "produced": object(&one.produced),
        })
    });
    serde_json::json!({
        "consumers": consumers.collect::<Vec<_>>(),
        "duration_seconds": summary.duration.as_secs_f64(),
        "events_per_second": rate(summary),
        "failure": summary.failure,
        "interrupted": summary.interrupted,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::ConsumerSummary;

    fn summary() -> RunSummary {
        let counts = |pairs: &[(&str, u64)]| {
            let pairs = pairs.iter();
            pairs
                .map(|(name, count)| ((*name).to_owned(), *count))
                .collect()
        };
        RunSummary {
            duration: Duration::from_millis(2_500),
            consumers: vec![
                ConsumerSummary {
                    name: "enrich".to_owned(),
                    consumed: 20_000,
                    settled: counts(&[("ok", 19_990), ("filtered", 0), ("dead_lettered", 10)]),
                    produced: counts(&[("default", 19_990), ("alerts", 312)]),
                },
                ConsumerSummary {
                    name: "alerts".to_owned(),
                    ..ConsumerSummary::default()
                },
            ],
            failure: None,
            interrupted: false,
        }
    }

    #[test]
    fn the_summary_reads_as_a_table() {
        let wanted = "\
CONSUMER  CONSUMED  SETTLED                      PRODUCED
enrich      20,000  ok 19,990, dead-lettered 10  default 19,990, alerts 312
alerts           0  -                            -
20,000 events in 2.5 s, 8,000 a second
";
        assert_eq!(text(&summary(), false), wanted);
    }

    #[test]
    fn the_summary_as_json_has_every_count() {
        let json = json(&summary());
        assert_eq!(json["events_per_second"], 8_000);
        assert_eq!(json["consumers"][0]["settled"]["filtered"], 0);
        assert_eq!(json["consumers"][0]["produced"]["alerts"], 312);
    }

    /// A run that ended before the clock moved must not print infinity.
    #[test]
    fn an_empty_run_has_a_rate() {
        assert_eq!(rate(&RunSummary::default()), 0);
    }

    #[test]
    fn thousands_are_apart() {
        let cases = [
            (0, "0"),
            (999, "999"),
            (1_000, "1,000"),
            (1_234_567, "1,234,567"),
        ];
        for (number, wanted) in cases {
            assert_eq!(grouped(number), wanted);
        }
    }
}
