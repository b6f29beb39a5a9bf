//! How long a runtime takes from its start until it is ready, with many consumers of one plugin.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use millstream_test_support::process::get;
use millstream_test_support::wait::Deadline;
use serde::Serialize;
use tokio::time::Instant;

use crate::comparison::PARTITIONS;
use crate::contender::{Contender, Durability, Job};
use crate::deploys::rest;
use crate::measure::process_cpu;
use crate::workload::Workload;
use crate::{embedded, millstream};

const PATIENCE: Duration = Duration::from_secs(300);
/// Between two looks.
const STEP: Duration = Duration::from_millis(5);

/// What a start showed, from the start of the process until it was ready.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Figures {
    pub seconds: f64,
    pub cpu_seconds: f64,
    /// Resident when it was ready.
    pub resident_mib: f64,
}

/// A start that has to compile the plugin, and one that finds it in its cache; both on a store that
/// knows topics and groups, and holds no event.
///
/// # Errors
/// The runtime does not become ready.
pub fn measure(folder: &Path, consumers: u32) -> Result<[Figures; 2]> {
    let folder = tempfile::tempdir_in(folder).context("cannot make a folder")?;
    let job = Job {
        workload: Workload::Q0,
        bootstrap: "",
        groups: (0..consumers).map(|number| format!("g-{number}")).collect(),
        input: "in",
        output: "out",
        partitions: PARTITIONS,
        events: 0,
        seed: 0,
        folder: folder.path(),
    };
    start(&job)?;
    std::fs::remove_dir_all(folder.path().join("cache")).context("no cache")?;
    Ok([start(&job)?, start(&job)?])
}

fn start(job: &Job<'_>) -> Result<Figures> {
    let consumers = millstream::consumers(job, millstream::Kind::default());
    let launch = millstream::run(&embedded::broker(job, Durability::Sync), &consumers, job)?;
    let begun = Instant::now();
    let mut started = Contender::Millstream.start(job, launch)?;
    let admin = started.admin.context("no interface")?;
    let deadline = Deadline::after(PATIENCE);
    while !get(&admin, "/readyz").is_ok_and(|(status, _)| status == 200) {
        ensure!(started.process.running(), "the runtime has ended");
        ensure!(!deadline.passed(), "the runtime is not ready");
        rest(STEP);
    }
    let seconds = begun.elapsed().as_secs_f64();
    let cpu_seconds = process_cpu(started.process.id())?;
    let resident = started.process.resident().context("it has ended")?;
    started.process.terminate()?;
    let status = started.process.wait(PATIENCE)?;
    ensure!(status.success(), "the runtime ended with {status}");
    Ok(Figures {
        seconds,
        cpu_seconds,
        resident_mib: resident as f64 / 1_048_576.0,
    })
}
