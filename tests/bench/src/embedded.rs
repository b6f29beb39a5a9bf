//! Millstream on its embedded broker, which is part of its process: there is no Kafka in it.
//!
//! ```text
//! events ─ POST /topics/INPUT, JSON lines ─▶ store   once for each input, before anything is measured
//! a run:  group and output of its own ─▶ GET /api/v1/groups/GROUP/positions ─▶ consume OUTPUT --json
//! ```

use std::io::{BufRead as _, BufReader};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use millstream_test_support::guard::{Guarded, Plan};
use millstream_test_support::process::{get, post_lines};
use millstream_test_support::wait::{Deadline, step};
use serde::{Deserialize, Serialize};

use crate::contender::{Durability, Job, Launch};
use crate::input::{CLASS, Input, Made};
use crate::millstream;
use crate::workload::{Tally, count};

const PATIENCE: Duration = Duration::from_secs(120);
/// The bytes of a request; the interface takes up to 16 MiB.
const REQUEST: usize = 4 << 20;

/// An event as the interface takes and shows it.
#[derive(Serialize, Deserialize)]
struct Line<'a> {
    #[serde(borrow)]
    key: std::borrow::Cow<'a, str>,
    #[serde(borrow)]
    value: std::borrow::Cow<'a, str>,
    #[serde(default, skip_deserializing, skip_serializing_if = "Vec::is_empty")]
    headers: Vec<Header<'a>>,
}

#[derive(Serialize)]
struct Header<'a> {
    name: &'a str,
    value: &'a str,
}

/// A part of the answer to how far a group is.
#[derive(Deserialize)]
struct Position {
    next: u64,
    above: Vec<(u64, u64)>,
}

/// The broker and the topics of a job, as the configuration has them.
pub fn broker(job: &Job<'_>, durability: Durability) -> String {
    // What a test machine has free is no subject here.
    format!(
        "kind = \"embedded\"\ndata_dir = \"store\"\nmin_free_disk = \"64MiB\"\n\
         durability = \"{durability}\"\n\n\
         [topics.{input}]\npartitions = {partitions}\n\n[topics.{output}]\npartitions = {partitions}",
        input = millstream::text(job.input),
        output = millstream::text(job.output),
        partitions = job.partitions,
        durability = durability.name(),
    )
}

/// How it is started; the store is filled first where it is not yet.
///
/// # Errors
/// The store cannot be filled, or the configuration cannot be written.
pub fn launch(job: &Job<'_>, durability: Durability) -> Result<Launch> {
    fill(job).context("cannot fill the embedded broker")?;
    millstream::run(
        &broker(job, durability),
        &millstream::consumers(job, millstream::Kind::default()),
        job,
    )
}

/// Writes the input unless the store holds it.
fn fill(job: &Job<'_>) -> Result<()> {
    let filled = job.folder.join(format!("store-holds-{}", job.input));
    if filled.exists() {
        return Ok(());
    }
    let launch = millstream::run(&broker(job, Durability::Sync), "", job)?;
    let admin = launch.admin.context("no interface")?;
    let log = job.folder.join("embedded-fill.log");
    let mut process = Guarded::start(&Plan {
        program: launch.program.as_os_str(),
        arguments: launch.arguments.iter().map(Into::into).collect(),
        environment: Vec::new(),
        folder: job.folder,
        stdout: Some(&log),
        stderr: Some(&log),
        remove: None,
    })?;
    millstream::until_ready(&admin)
        .with_context(|| std::fs::read_to_string(&log).unwrap_or_default())?;
    write(
        &admin,
        job.input,
        job.workload.input(),
        job.seed,
        job.events,
    )?;
    process.terminate()?;
    let status = process.wait(PATIENCE)?;
    ensure!(status.success(), "ended with {status}");
    std::fs::write(&filled, "").context("cannot note that the store is filled")
}

/// Writes events to a topic over HTTP.
///
/// # Errors
/// They are not taken.
pub fn write(admin: &str, topic: &str, input: Input, seed: u64, events: u64) -> Result<()> {
    let mut lines = String::new();
    input.each(seed, events, |made| {
        lines.push_str(&line(made)?);
        lines.push('\n');
        if lines.len() >= REQUEST {
            post(admin, topic, &lines)?;
            lines.clear();
        }
        Ok(())
    })?;
    post(admin, topic, &lines)
}

/// An event as a line of JSON.
///
/// # Errors
/// It is no text.
pub fn line(made: &Made<'_>) -> Result<String> {
    let header = |value| Header { name: CLASS, value };
    Ok(serde_json::to_string(&Line {
        key: std::str::from_utf8(made.key)?.into(),
        value: std::str::from_utf8(made.value)?.into(),
        headers: made.class.map(header).into_iter().collect(),
    })?)
}

fn post(admin: &str, topic: &str, lines: &str) -> Result<()> {
    if lines.is_empty() {
        return Ok(());
    }
    let deadline = Deadline::after(PATIENCE);
    loop {
        let (status, body) = post_lines(admin, &format!("/topics/{topic}"), lines)?;
        match status {
            200 => return Ok(()),
            429 | 503 if !deadline.passed() => step(),
            _ => bail!("events are answered with {status}: {body}"),
        }
    }
}

/// How many events the groups have settled.
///
/// # Errors
/// The runtime does not answer.
pub fn settled(admin: &str, groups: &[String]) -> Result<u64> {
    let mut sum = 0;
    for group in groups {
        let (status, body) = get(admin, &format!("/api/v1/groups/{group}/positions"))?;
        ensure!(
            status == 200,
            "positions are answered with {status}: {body}"
        );
        let positions: Vec<Position> = serde_json::from_str(&body)?;
        sum += positions.iter().map(Position::settled).sum::<u64>();
    }
    Ok(sum)
}

impl Position {
    fn settled(&self) -> u64 {
        self.next + self.above.iter().map(|(from, to)| to - from).sum::<u64>()
    }
}

fn command(job: &Job<'_>, arguments: &[&str]) -> Command {
    let mut command = Command::new(millstream::binary());
    command
        .args(arguments)
        .arg("--config")
        .arg(configuration(job))
        .current_dir(job.folder);
    command
}

fn configuration(job: &Job<'_>) -> PathBuf {
    job.folder.join("millstream.toml")
}

/// What stands in the output, by the command line and with the store to itself; removes it.
///
/// # Errors
/// The command fails, or shows something else than events of the workload.
pub fn tally(job: &Job<'_>) -> Result<Tally> {
    let mut child = command(job, &["consume", job.output, "--json"])
        .stdout(Stdio::piped())
        .spawn()
        .context("cannot start millstream consume")?;
    let shown = child.stdout.take().context("nothing is shown")?;
    let mut tally = Tally::default();
    for line in BufReader::new(shown).lines() {
        let line = line?;
        let event: Line<'_> = serde_json::from_str(&line).with_context(|| line.clone())?;
        let (key, value) = (event.key.as_bytes(), event.value.as_bytes());
        count(job.workload.step(), &mut tally, key, value)?;
    }
    let status = child.wait()?;
    ensure!(status.success(), "millstream consume ended with {status}");
    let deleted = command(job, &["topics", "delete", job.output]).output()?;
    ensure!(
        deleted.status.success(),
        "millstream topics delete: {}",
        String::from_utf8_lossy(&deleted.stderr)
    );
    Ok(tally)
}
