//! So many seconds, looked at once a second.

use std::time::Duration;

use anyhow::Result;
use tokio::time::Instant;

use super::delays::Delays;
use super::feeder::rest;
use super::stage::Stage;
use super::watcher::Watcher;
use crate::measure::{machine_cpu, process_cpu};

/// What was seen.
pub struct Window {
    /// Events that were settled in each second.
    settled: Vec<f64>,
    pub delays: Delays,
    /// Events that waited at its end.
    pub lag: f64,
    /// Processor time as a share of what all processors have: of the runtime, and of programs that
    /// are no part of this.
    pub runtime: f64,
    pub others: f64,
}

impl Window {
    /// Looks for so many seconds; `each` is done at the beginning of each.
    ///
    /// # Errors
    /// The runtime does not answer, or `each` fails.
    pub fn of(
        stage: &mut Stage,
        watcher: &Watcher,
        seconds: u32,
        mut each: impl FnMut(&mut Stage, u32) -> Result<()>,
    ) -> Result<Self> {
        watcher.take();
        let work = |stage: &Stage| -> Result<(f64, f64, f64)> {
            let ours = stage.processes().into_iter().map(process_cpu);
            let ours: f64 = ours.sum::<Result<f64>>()?;
            Ok((machine_cpu()?, ours, process_cpu(stage.runtime())?))
        };
        let (machine, ours, runtime) = work(stage)?;
        let begun = Instant::now();
        let mut settled = Vec::new();
        let (mut last, mut at) = (stage.settled()?, Instant::now());
        for second in 0..seconds {
            each(stage, second)?;
            let end = begun + Duration::from_secs(u64::from(second) + 1);
            rest(end.saturating_duration_since(Instant::now()));
            let (now, seen) = (stage.settled()?, Instant::now());
            settled.push((now - last) / seen.duration_since(at).as_secs_f64());
            (last, at) = (now, seen);
        }
        let cores = std::thread::available_parallelism()?.get() as f64;
        let all = begun.elapsed().as_secs_f64() * cores;
        let (machine_now, ours_now, runtime_now) = work(stage)?;
        let (machine, ours) = (machine_now - machine, ours_now - ours);
        Ok(Self {
            settled,
            delays: watcher.take(),
            lag: stage.lag()?,
            runtime: (runtime_now - runtime) / all,
            others: (machine - ours).max(0.0) / all,
        })
    }

    /// Events a second.
    pub fn rate(&self) -> f64 {
        self.settled.iter().sum::<f64>() / self.settled.len().max(1) as f64
    }

    /// Events of the second with the fewest.
    pub fn lowest(&self) -> f64 {
        self.settled.iter().copied().fold(f64::INFINITY, f64::min)
    }
}
