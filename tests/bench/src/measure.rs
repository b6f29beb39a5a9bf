//! One measured run, watched from outside in the same way for every contender.
//!
//! ```text
//! start ── first commit seen (n0 at t0) ─────── all committed (t1) ── ended ── output checked
//!                 rate = (events − n0) / (t1 − t0)          └ processor time of the whole process
//! ```

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use millstream_test_support::kafka_tools::KafkaTools;
use millstream_test_support::wait::{Deadline, step};
use serde::Serialize;
use tokio::time::Instant;

use crate::contender::{Contender, Job};
use crate::query::Tally;
use crate::topics::{self, Progress};

/// How long a run may take.
const PATIENCE: Duration = Duration::from_secs(900);

/// What a run showed.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Figures {
    /// From the first commit seen to the last: starting up is not in it.
    pub events_per_second: f64,
    /// Of the contender alone, start and end included.
    pub cpu_seconds_per_million: f64,
    /// Resident at most.
    pub max_resident_mib: f64,
    /// From the start of the process until all is committed.
    pub seconds: f64,
    /// Processor time of the broker, in seconds.
    pub broker_cpu_seconds: f64,
    /// Processor time of all else on the machine: large numbers spoil a comparison.
    pub others_cpu_seconds: f64,
    /// Processor time of the whole machine.
    pub machine_cpu_seconds: f64,
}

/// Runs a contender once and checks what it wrote.
///
/// # Errors
/// It fails, does not end in time, or writes something else than `expected`.
pub fn measure(
    kafka: &KafkaTools,
    broker: u32,
    contender: Contender,
    job: &Job<'_>,
    expected: Tally,
) -> Result<Figures> {
    let words = || fs::read_to_string(contender.log(job.folder)).unwrap_or_default();
    let progress = Progress::new(kafka, job.group, job.input, job.partitions)?;
    let machine_before = machine_cpu()?;
    let broker_before = process_cpu(broker)?;
    let own_before = process_cpu(std::process::id())?;

    let started = Instant::now();
    let mut process = contender.start(job)?;
    let deadline = Deadline::after(PATIENCE);
    let mut first = None;
    let mut high_water = 0;
    let finished = loop {
        // Before the look at progress: a process that ended after its last commit is no failure.
        let ended = process.running().then_some(()).is_none();
        high_water = high_water.max(process.high_water().unwrap_or(0));
        let committed = progress.committed();
        let now = Instant::now();
        if committed > 0 && first.is_none() {
            first = Some((committed, now));
        }
        if committed >= job.events {
            break now;
        }
        if ended {
            bail!(
                "{} ended at {committed} events:\n{}",
                contender.name(),
                words()
            );
        }
        if deadline.passed() {
            bail!(
                "{} stands at {committed} events:\n{}",
                contender.name(),
                words()
            );
        }
        step();
    };
    let (status, cpu) = process.wait_for_cpu()?;
    ensure!(
        status.success(),
        "{} ended with {status}:\n{}",
        contender.name(),
        words()
    );
    let broker_cpu = process_cpu(broker)? - broker_before;
    let own = process_cpu(std::process::id())? - own_before;
    let machine = machine_cpu()? - machine_before;

    let written = topics::tally(kafka, job.output, job.query)?;
    ensure!(
        written == expected,
        "{} wrote {written:?}, but {expected:?} was expected",
        contender.name()
    );
    let (at_first, first) = first.context("no commit was seen")?;
    let measured = finished.duration_since(first).as_secs_f64();
    ensure!(
        at_first < job.events && measured > 0.0,
        "all was done before it was looked at: take more events"
    );
    Ok(Figures {
        events_per_second: (job.events - at_first) as f64 / measured,
        cpu_seconds_per_million: cpu.as_secs_f64() * 1e6 / job.events as f64,
        max_resident_mib: high_water as f64 / 1_048_576.0,
        seconds: finished.duration_since(started).as_secs_f64(),
        broker_cpu_seconds: broker_cpu,
        others_cpu_seconds: (machine - broker_cpu - own - cpu.as_secs_f64()).max(0.0),
        machine_cpu_seconds: machine,
    })
}

/// Seconds that all processors of the machine have worked.
///
/// # Errors
/// The kernel does not say.
pub fn machine_cpu() -> Result<f64> {
    let text = fs::read_to_string("/proc/stat").context("cannot read /proc/stat")?;
    let line = text.lines().next().context("/proc/stat is empty")?;
    let ticks: Vec<f64> = line
        .split_whitespace()
        .skip(1)
        .filter_map(|field| field.parse().ok())
        .collect();
    // user, nice, system, idle, iowait, irq, softirq: all but the idle ones.
    let busy = ticks.iter().take(7).sum::<f64>() - ticks.iter().skip(3).take(2).sum::<f64>();
    Ok(busy / ticks_per_second())
}

/// Seconds that a process has worked, in user and system mode.
///
/// # Errors
/// It has ended.
pub fn process_cpu(id: u32) -> Result<f64> {
    let path = format!("/proc/{id}/stat");
    let text = fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
    // The name, in parentheses, may hold spaces; utime and stime are fields 14 and 15.
    let (_, rest) = text.rsplit_once(')').context("no name in /proc/PID/stat")?;
    let ticks: f64 = rest
        .split_whitespace()
        .skip(11)
        .take(2)
        .filter_map(|field| field.parse::<f64>().ok())
        .sum();
    Ok(ticks / ticks_per_second())
}

fn ticks_per_second() -> f64 {
    // SAFETY: a query of a constant; touches no memory of ours.
    let ticks = unsafe { libc::sysconf(libc::_SC_CLK_TCK) };
    ticks as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_shows_in_the_process_and_in_the_machine() {
        let now = || {
            (
                process_cpu(std::process::id()).unwrap(),
                machine_cpu().unwrap(),
            )
        };
        let (process, machine) = now();
        let mut n = 0_u64;
        // The kernel brings the two up to date at moments of its own.
        let deadline = Deadline::after(Duration::from_secs(60));
        loop {
            let (process_now, machine_now) = now();
            if process_now > process && machine_now > machine {
                break;
            }
            assert!(
                !deadline.passed(),
                "work does not show: {process_now}, {machine_now}"
            );
            n = std::hint::black_box(n + 1);
        }
    }
}
