//! One measured run, watched from outside in the same way for every contender.
//!
//! ```text
//! start ── first commit seen (n0 at t0) ── half (nh at th) ── all committed (t1) ── ended ── checked
//!                 rate = (events − n0) / (t1 − t0)             └ processor time up to here
//!                 second half = (events − nh) / (t1 − th)
//! ```

use std::fs;
use std::os::unix::process::ExitStatusExt as _;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use millstream_test_support::kafka_tools::KafkaTools;
use millstream_test_support::wait::{Deadline, step};
use serde::Serialize;
use tokio::time::Instant;

use crate::contender::{Contender, Job};
use crate::progress::Progress;
use crate::workload::Tally;
use crate::{embedded, topics};

/// How long a run may take.
const PATIENCE: Duration = Duration::from_secs(900);

/// What a run showed. Events are counted once for each consumer that handles them.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Figures {
    /// From the first commit seen to the last: starting up is not in it.
    pub events_per_second: f64,
    /// From the commit of one half to the last: what a virtual machine needs to become warm is not
    /// in it either.
    pub second_half_events_per_second: f64,
    /// Of the contender alone, from its start to the last commit.
    pub cpu_seconds_per_million: f64,
    /// The same for the second half.
    pub second_half_cpu_seconds_per_million: f64,
    /// Of the contender and of its broker.
    pub all_cpu_seconds_per_million: f64,
    /// Resident at most.
    pub max_resident_mib: f64,
    /// From the start of the process until all is committed.
    pub seconds: f64,
    /// Processor time of the broker, in seconds; none where it is part of the contender.
    pub broker_cpu_seconds: f64,
    /// Processor time of all else on the machine: large numbers spoil a comparison.
    pub others_cpu_seconds: f64,
    /// Processor time of the whole machine.
    pub machine_cpu_seconds: f64,
}

/// A look at a run: how many events are committed, when, and what they cost so far.
#[derive(Clone, Copy)]
struct Look {
    committed: u64,
    at: Instant,
    cpu: f64,
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
    let words = || {
        let text = fs::read_to_string(contender.log(job.folder)).unwrap_or_default();
        text[text.floor_char_boundary(text.len().saturating_sub(4000))..].to_owned()
    };
    // Before the clock starts: the embedded broker may have to be filled.
    let name = contender.name();
    let launch = contender.launch(job)?;
    let machine_before = machine_cpu()?;
    let broker_before = process_cpu(broker)?;
    let own_before = process_cpu(std::process::id())?;

    let begun = Instant::now();
    let mut started = contender.start(job, launch)?;
    let is_embedded = contender.durability().is_some();
    let progress = match is_embedded {
        true => Progress::embedded(&started, job),
        false => Progress::on_kafka(kafka, job)?,
    };
    let handled = job.handled();
    let deadline = Deadline::after(PATIENCE);
    let (mut first, mut half): (Option<Look>, Option<Look>) = (None, None);
    let mut high_water = 0;
    let mut cpu = 0.0;
    let last = loop {
        // Before the look at progress: a process that ended after its last commit is no failure.
        let id = started.process.id();
        let ended = !started.process.running();
        if !ended {
            cpu = process_cpu(id).unwrap_or(cpu);
        }
        high_water = high_water.max(started.process.high_water().unwrap_or(0));
        let look = Look {
            committed: progress.committed(),
            at: Instant::now(),
            cpu,
        };
        if look.committed > 0 && first.is_none() {
            first = Some(look);
        }
        if look.committed >= handled / 2 && half.is_none() {
            half = Some(look);
        }
        if look.committed >= handled {
            break look;
        }
        let stands = look.committed;
        if ended {
            bail!("{name} ended at {stands} events:\n{}", words());
        }
        if deadline.passed() {
            bail!("{name} stands at {stands} events:\n{}", words());
        }
        step();
    };
    let running = started.process.running();
    if running {
        cpu = process_cpu(started.process.id())?;
        started.process.terminate()?;
    }
    let (status, whole) = started.process.wait_for_cpu()?;
    if running {
        // 143: ended by the signal, as a virtual machine says it.
        let told = status.success()
            || status.code() == Some(143)
            || status.signal() == Some(libc::SIGTERM);
        ensure!(told, "{name} ended with {status}:\n{}", words());
    } else {
        ensure!(status.success(), "{name} ended with {status}:\n{}", words());
        cpu = whole.as_secs_f64();
    }
    let broker_cpu = match is_embedded {
        true => 0.0,
        false => process_cpu(broker)? - broker_before,
    };
    let own = process_cpu(std::process::id())? - own_before;
    let machine = machine_cpu()? - machine_before;

    let written = match is_embedded {
        true => embedded::tally(job)?,
        false => topics::tally(kafka, job.output, job.workload.step())?,
    };
    ensure!(
        written == expected,
        "{name} wrote {written:?}, but {expected:?} was expected"
    );
    let (first, half) = first.zip(half).context("no commit was seen")?;
    let rate = |from: Look| {
        let seconds = last.at.duration_since(from.at).as_secs_f64();
        ensure!(
            from.committed < handled && seconds > 0.0,
            "all was done before it was looked at: take more events"
        );
        Ok((handled - from.committed) as f64 / seconds)
    };
    let million = handled as f64 / 1e6;
    Ok(Figures {
        events_per_second: rate(first)?,
        second_half_events_per_second: rate(half)?,
        cpu_seconds_per_million: cpu / million,
        second_half_cpu_seconds_per_million: (cpu - half.cpu) * 1e6
            / (handled - half.committed) as f64,
        all_cpu_seconds_per_million: (cpu + broker_cpu) / million,
        max_resident_mib: high_water as f64 / 1_048_576.0,
        seconds: last.at.duration_since(begun).as_secs_f64(),
        broker_cpu_seconds: broker_cpu,
        others_cpu_seconds: (machine - broker_cpu - own - whole.as_secs_f64()).max(0.0),
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
