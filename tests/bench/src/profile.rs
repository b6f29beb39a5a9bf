//! `make profile`: where the time of an event goes.
//!
//! ```text
//! contender under `perf record` ─▶ samples ─▶ folded stacks ─┬▶ flame graph (SVG)
//!                                                            └▶ by part: nanoseconds an event
//! ```
//! A sample belongs to the part that its innermost known function is of; what the kernel or an
//! allocator does, to whoever called it.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};

use crate::comparison::{Comparison, PARTITIONS};
use crate::contender::{Contender, Job, Launch};
use crate::workload::Workload;
use crate::{flame, topics};

/// Samples a second: a prime, so that no timer of the program keeps step with it.
const FREQUENCY: u32 = 499;

/// A part of an event's path, and how the functions that do it are recognized: a thread's name from
/// its start, a function by a piece of its name. The first that matches counts, from the innermost
/// function outwards.
const PARTS: [(&str, &[&str]); 14] = [
    ("guest", &["[anon]", "//anon", "wasm[", "jit_"]),
    (
        "lower and lift",
        &[
            "abi::",
            "LowerContext",
            "LiftContext",
            "call_raw",
            "wasmtime",
        ],
    ),
    ("check of the answer", &["millstream_wire", "wire::check"]),
    (
        "derive and dead letters",
        &[
            "consumer::derive",
            "consumer::assemble",
            "consumer::letter",
            "records::",
            "dead_letter",
        ],
    ),
    (
        "admission and lanes",
        &[
            "consumer::intake",
            "consumer::lane",
            "consumer::partition",
            "decide::admission",
            "consumer::work",
        ],
    ),
    ("filter", &["decide::routing"]),
    (
        "positions and commits",
        &[
            "positions",
            "decide::offsets",
            "position_codec",
            "broker::kafka::commit",
            "OffsetCommit",
            "TxnOffset",
            "EndTxn",
        ],
    ),
    ("metrics", &["metrics::"]),
    (
        "produce: hand over",
        &[
            "raw::writer",
            "kafka::producer",
            "kafka::publication",
            "open_transaction",
            "kafka::transactions",
            "rd_kafka_producev",
            "rd_kafka_msg_new",
            "rd_kafka_header_add",
            "rd_kafka_headers_new",
        ],
    ),
    (
        "produce: librdkafka's reports",
        &[
            "rd_kafka_dr_",
            "rd_kafka_event_",
            "raw::event",
            "rd_kafka_msg_destroy",
            "rd_kafka_headers_destroy",
        ],
    ),
    (
        "produce: librdkafka's requests",
        &[
            "msgset_writer",
            "rd_kafka_msgset_create",
            "handle_Produce",
            "rd_kafka_ProduceRequest",
            "toppar_producer_serve",
            "rd_kafka_flush",
            "rd_kafka_broker_producer",
            "rd_kafka_topic_partition",
            "partitioner",
        ],
    ),
    (
        "fetch: librdkafka",
        &[
            "msgset_reader",
            "rd_kafka_fetch",
            "rd_kafka_Fetch",
            "rd_kafka_broker_consumer",
            "rd_kafka_handle_Fetch",
            "rd_kafka_buf_",
            "rd_kafka_transport",
            "rd_kafka_recv",
            "rd_kafka_consume_batch",
            "rd_kafka_q_",
        ],
    ),
    (
        "fetch: into blocks",
        &[
            "kafka::partitions",
            "raw::queue",
            "raw::message",
            "poll_thread",
            "rd_kafka_message_",
            "event::BlockBuilder",
        ],
    ),
    (
        "tasks and wake-ups",
        &[
            "tokio",
            "consumer::runner",
            "consumer::call",
            "futures",
            "parking_lot",
            "broker::wake",
        ],
    ),
];
const OTHER: &str = "everything else";

/// Samples each contender on each workload once, and prints where the time of an event goes.
///
/// # Errors
/// `perf` is missing, or a contender fails.
pub fn run(
    comparison: &Comparison<'_>,
    workloads: &[Workload],
    asked: u64,
    folder: &Path,
) -> Result<()> {
    check()?;
    let folder = std::path::absolute(folder)?;
    fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let kafka = comparison.kafka()?.tools();
    for workload in workloads {
        let events = workload.events(asked);
        let input = format!("{}-in", workload.name());
        kafka.create_topic(&input, PARTITIONS)?;
        topics::fill(kafka, &input, workload.input(), comparison.seed, events)?;
        for contender in comparison.contenders {
            let name = format!("{}-{}", contender.name(), workload.name());
            kafka.create_topic(&name, PARTITIONS)?;
            let job = Job {
                workload: *workload,
                bootstrap: comparison.kafka()?.bootstrap(),
                groups: vec![name.clone()],
                input: &input,
                output: &name,
                partitions: PARTITIONS,
                events,
                seed: comparison.seed,
                folder: comparison.folder,
            };
            let samples = folder.join(format!("{name}.data"));
            let launch = sampled(*contender, contender.launch(&job)?, &samples);
            let mut started = contender.start(&job, launch)?;
            let (status, _) = started.process.wait_for_cpu()?;
            let log = fs::read_to_string(contender.log(comparison.folder)).unwrap_or_default();
            ensure!(status.success(), "{name} ended with {status}:\n{log}");
            kafka.delete_topic(&name)?;
            let flame = folder.join(format!("{name}.svg"));
            let profile = read(&samples, &flame, &name)?;
            println!("{name}: {}\n\n{}", flame.display(), profile.table(events));
        }
        kafka.delete_topic(&input)?;
    }
    Ok(())
}

/// The same, run to its end by one that samples it.
fn sampled(contender: Contender, launch: Launch, samples: &Path) -> Launch {
    let recording = [
        "record",
        "--quiet",
        "--event",
        "cpu-clock",
        "--freq",
        &FREQUENCY.to_string(),
        "--call-graph",
        "dwarf,8192",
        "--output",
        &samples.to_string_lossy(),
        "--",
        &launch.program.to_string_lossy(),
    ]
    .map(str::to_owned);
    let mut arguments = recording.to_vec();
    arguments.extend(launch.arguments);
    if contender.is_millstream() {
        arguments.push("--until-idle".to_owned());
    }
    Launch {
        program: "perf".into(),
        arguments,
        ..launch
    }
}

/// Fails early, with what to do, where samples cannot be taken.
///
/// # Errors
/// `perf` is missing or may not sample.
fn check() -> Result<()> {
    let tried = Command::new("perf")
        .args([
            "record",
            "--quiet",
            "--event",
            "cpu-clock",
            "--output",
            "/dev/null",
            "true",
        ])
        .stdout(Stdio::null())
        .output();
    let hint = "install it (Debian: linux-perf) and allow it (kernel.perf_event_paranoid = 1)";
    match tried {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => bail!(
            "perf may not sample: {}; {hint}",
            String::from_utf8_lossy(&output.stderr)
        ),
        Err(error) => bail!("perf cannot be started: {error}; {hint}"),
    }
}

/// What the samples show.
struct Profile {
    /// Samples by part, the largest first.
    parts: Vec<(&'static str, u64)>,
    samples: u64,
}

impl Profile {
    /// A row a part: nanoseconds of processor time an event, and the share of all.
    fn table(&self, events: u64) -> String {
        let mut table = String::from("| part | ns an event | share |\n| --- | ---: | ---: |\n");
        let nanoseconds =
            |samples: u64| samples as f64 * 1e9 / f64::from(FREQUENCY) / events.max(1) as f64;
        for (part, samples) in &self.parts {
            let share = *samples as f64 * 100.0 / self.samples.max(1) as f64;
            table.push_str(&format!(
                "| {part} | {:.0} | {share:.1} % |\n",
                nanoseconds(*samples)
            ));
        }
        table.push_str(&format!("| all | {:.0} | |\n", nanoseconds(self.samples)));
        table
    }
}

/// Reads samples, draws the flame graph beside them, and sums up by part.
///
/// # Errors
/// `perf script` fails, or files cannot be written.
fn read(samples: &Path, flame: &Path, title: &str) -> Result<Profile> {
    let script = samples.with_extension("script");
    let status = Command::new("perf")
        .args([
            "script",
            "--no-inline",
            "--fields",
            "comm,pid,tid,time,event,ip,sym,dso",
            "--input",
        ])
        .arg(samples)
        .stdout(File::create(&script).context("cannot write the samples as text")?)
        .stderr(Stdio::null())
        .status()
        .context("perf script cannot be started")?;
    ensure!(
        status.success(),
        "perf script failed on {}",
        samples.display()
    );
    let lines = BufReader::new(File::open(&script).context("the samples are gone")?).lines();
    let stacks = fold(lines.map_while(Result::ok));
    fs::remove_file(&script).context("cannot remove the samples' text")?;
    let drawing = flame::draw(title, &stacks);
    fs::write(flame, drawing).with_context(|| format!("cannot write {}", flame.display()))?;
    Ok(sum_up(&stacks))
}

/// How often each stack was seen: thread, outermost to innermost function, separated by `;`.
pub type Stacks = BTreeMap<String, u64>;

/// Adds up equal stacks of what `perf script` prints: a line of the thread, then its functions from
/// the innermost one on, then an empty line.
fn fold(lines: impl Iterator<Item = String>) -> Stacks {
    let mut stacks = Stacks::new();
    let mut thread: Option<String> = None;
    let mut functions: Vec<String> = Vec::new();
    for line in lines.chain([String::new()]) {
        if line.is_empty() {
            if let Some(thread) = thread.take() {
                let mut stack = thread;
                for function in functions.drain(..).rev() {
                    stack.push(';');
                    stack.push_str(&function);
                }
                *stacks.entry(stack).or_default() += 1;
            }
        } else if line.starts_with(char::is_whitespace) && thread.is_some() {
            functions.push(function(line.trim()));
        } else {
            let name = line
                .split_whitespace()
                .take_while(|word| !word.starts_with(|first: char| first.is_ascii_digit()));
            thread = Some(name.collect::<Vec<_>>().join(" "));
        }
    }
    stacks
}

/// `address name+offset (file)` as a name; the file's where there is none.
fn function(line: &str) -> String {
    let rest = line.split_once(' ').map_or("", |(_, rest)| rest);
    let (name, file) = rest.rsplit_once(" (").unwrap_or((rest, ""));
    let file = file.trim_end_matches(')');
    let name = name.rsplit_once("+0x").map_or(name, |(name, _)| name);
    let name = match name {
        "[unknown]" if file.is_empty() || file.contains("anon") => "[anon]",
        "[unknown]" => file,
        name => name,
    };
    name.replace(';', ":")
}

fn sum_up(stacks: &Stacks) -> Profile {
    let mut sums: BTreeMap<&'static str, u64> = BTreeMap::new();
    for (stack, count) in stacks {
        *sums.entry(part_of(stack)).or_default() += count;
    }
    let mut parts: Vec<_> = sums.into_iter().collect();
    parts.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    Profile {
        parts,
        samples: stacks.values().sum(),
    }
}

/// The part that a stack (thread, outermost to innermost function) belongs to.
fn part_of(stack: &str) -> &'static str {
    let functions = stack.rsplit(';');
    functions
        .filter_map(|function| {
            let of = |(_, pieces): &&(&str, &[&str])| {
                pieces.iter().any(|piece| function.contains(piece))
            };
            PARTS.iter().find(of).map(|(part, _)| *part)
        })
        .next()
        .unwrap_or(OTHER)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Time in an allocator would else be nobody's, and it is a good part of all.
    #[test]
    fn what_a_library_does_counts_for_who_called_it() {
        let stack = "kafka-out-q0;std::thread;millstream::broker::kafka::raw::writer::Writer::produce;rd_kafka_headers_new;mi_malloc";
        assert_eq!(part_of(stack), "produce: hand over");
        assert_eq!(part_of("x;y"), OTHER);
    }

    const SCRIPT: &str = "tokio-rt-worker 7/9 1.5: 250000 cpu-clock: \n\
        \t  55d1 millstream::metrics::observe+0x1f (/bin/millstream)\n\
        \t  55d0 main+0x2 (/bin/millstream)\n\
        \n\
        rdk:broker1 7/8 1.6: 250000 cpu-clock: \n\
        \t  7f00 [unknown] ([anon])\n";

    #[test]
    fn samples_become_stacks_from_the_outermost_function_on() {
        let stacks = fold(SCRIPT.lines().map(str::to_owned));
        let expected = [
            ("rdk:broker1;[anon]", 1),
            ("tokio-rt-worker;main;millstream::metrics::observe", 1),
        ];
        let found = stacks.iter().map(|(stack, count)| (stack.as_str(), *count));
        assert_eq!(found.collect::<Vec<_>>(), expected);
    }

    #[test]
    fn shares_add_up() {
        let stacks = [("a;metrics::x", 3), ("a;b", 1)];
        let profile = sum_up(
            &stacks
                .map(|(stack, count)| (stack.to_owned(), count))
                .into(),
        );
        assert_eq!(profile.samples, 4);
        assert_eq!(profile.parts, [("metrics", 3), (OTHER, 1)]);
        let table = profile.table(1_000_000);
        assert!(
            table.contains("75.0 %") && table.contains("25.0 %"),
            "{table}"
        );
    }
}
