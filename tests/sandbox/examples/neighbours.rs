//! What a plugin that misbehaves costs its neighbours, measured as ratios within one run, so that a
//! busy machine matters less: each figure stands beside the same without the culprits, taken right
//! before it. Run it in a release build:
//!
//! `cargo run --release -p millstream-sandbox-tests --example neighbours`

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Result;
use millstream::plugin::{CallContext, Host, Plugin, PluginHooks};
use millstream_sandbox_tests::{batch, consumer, events, memory, runtime};
use tokio::time::Instant;

/// How long each figure is measured.
const WINDOW: Duration = Duration::from_secs(2);
/// Batches a second that the neighbour is offered where there is room for all: no more than a small
/// part of what it could do.
const OFFERED: u64 = 200;
/// Events of a batch.
const BATCH: usize = 64;

fn main() -> Result<()> {
    // As in the runtime: plugins run on as many threads as there are cores, and what answers a
    // health check has threads of its own.
    let cores = std::thread::available_parallelism()?.get();
    let lanes = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(cores)
        .enable_all()
        .build()?;
    let control = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()?;
    let folder = tempfile::tempdir()?;
    let mut settings = runtime(&folder.path().join("cache"));
    settings.max_instances = 1_100;
    let host = Host::new(&settings, PluginHooks::default())?;
    let (honest, hostile) = control.block_on(async {
        let honest = host
            .load(&consumer("honest", r#"{"init":"honest"}"#), 1)
            .await?;
        let hostile = host.load(&consumer("hostile", "{}"), 1).await?;
        anyhow::Ok((honest, hostile))
    })?;
    println!(
        "{cores} cores; load {}",
        std::fs::read_to_string("/proc/loadavg")?.trim()
    );

    idle(&lanes, &honest)?;
    let neighbours = Neighbours {
        lanes,
        control,
        honest,
        hostile,
    };
    neighbours.spinning(cores)?;
    for deed in [
        "trap",
        "panic",
        "alloc",
        "recurse",
        "exit",
        "huge-log",
        "many-logs",
        "labels",
        "huge-answer 60",
        "forge shared-value",
        "forge shared-headers",
        "unprintable-log",
    ] {
        neighbours.failing(deed)?;
    }
    Ok(())
}

/// The memory of a thousand instances that do nothing.
fn idle(lanes: &tokio::runtime::Runtime, plugin: &Arc<dyn Plugin>) -> Result<()> {
    lanes.block_on(async {
        drop(plugin.instantiate().await?);
        let before = (memory::taken()?, memory::resident()?);
        let mut instances = Vec::new();
        for _ in 0..1_000 {
            instances.push(plugin.instantiate().await?);
        }
        let after = (memory::taken()?, memory::resident()?);
        let more = |after: u64, before: u64| after.saturating_sub(before) as f64 / 1_048_576.0;
        println!(
            "1,000 idle instances             {:>8.1} MiB; {:.1} with the plugin's image once for each",
            more(after.0, before.0),
            more(after.1, before.1)
        );
        anyhow::Ok(())
    })
}

struct Neighbours {
    lanes: tokio::runtime::Runtime,
    control: tokio::runtime::Runtime,
    honest: Arc<dyn Plugin>,
    hostile: Arc<dyn Plugin>,
}

impl Neighbours {
    /// A plugin that spins on each core, and a third that works as fast as it can.
    fn spinning(&self, cores: usize) -> Result<()> {
        let alone = self.throughput(None)?;
        let culprits = self.culprits("spin", cores, None);
        let (worst, watch) = self.watch();
        let beside = self.throughput(None)?;
        watch.store(false, Ordering::Relaxed);
        culprits.stop();
        println!(
            "beside one that spins a core     {:>8.1} % of the throughput alone; health check {:.1?} at worst",
            100.0 * beside / alone,
            Duration::from_micros(worst.load(Ordering::Relaxed)),
        );
        Ok(())
    }

    /// A plugin that fails fifty times a second, and one that has its share of work.
    fn failing(&self, deed: &'static str) -> Result<()> {
        let alone = self.throughput(Some(OFFERED))?;
        memory::forget_peak()?;
        let before = memory::resident()?;
        let culprits = self.culprits(deed, 1, Some(Duration::from_millis(20)));
        let beside = self.throughput(Some(OFFERED))?;
        culprits.stop();
        println!(
            "beside {deed:<25} {:>8.1} % of the throughput alone; memory + {} MiB at most",
            100.0 * beside / alone,
            memory::peak()?.saturating_sub(before) >> 20
        );
        Ok(())
    }

    /// Events a second of the honest plugin, by so many batches a second at most.
    fn throughput(&self, offered: Option<u64>) -> Result<f64> {
        let plugin = Arc::clone(&self.honest);
        let work = self.lanes.spawn(async move {
            let mut instance = plugin.instantiate().await?;
            let block = events(0, &vec!["x"; BATCH]);
            let context = CallContext {
                deadline: Duration::from_secs(30),
            };
            let begun = Instant::now();
            let mut batches = 0;
            while begun.elapsed() < WINDOW {
                if let Some(offered) = offered {
                    let due = begun + Duration::from_micros(1_000_000 * batches / offered);
                    tokio::time::sleep_until(due).await;
                }
                instance.process(batch(&block), &context).await?;
                batches += 1;
                tokio::task::yield_now().await;
            }
            anyhow::Ok((batches * BATCH as u64) as f64 / begun.elapsed().as_secs_f64())
        });
        self.control.block_on(work)?
    }

    /// So many instances that do this again and again.
    fn culprits(&self, deed: &'static str, many: usize, pause: Option<Duration>) -> Culprits {
        let going = Arc::new(AtomicBool::new(true));
        let tasks = (0..many).map(|_| {
            let (plugin, going) = (Arc::clone(&self.hostile), Arc::clone(&going));
            self.lanes.spawn(async move {
                let block = events(0, &[deed]);
                let context = CallContext {
                    deadline: Duration::from_secs(1),
                };
                while going.load(Ordering::Relaxed) {
                    let Ok(mut instance) = plugin.instantiate().await else {
                        continue;
                    };
                    let _ = instance.process(batch(&block), &context).await;
                    if let Some(pause) = pause {
                        tokio::time::sleep(pause).await;
                    }
                }
            })
        });
        Culprits {
            tasks: tasks.collect(),
            going,
        }
    }

    /// How late a task of the control plane that wants to run every 10 ms is at worst, in
    /// microseconds.
    fn watch(&self) -> (Arc<AtomicU64>, Arc<AtomicBool>) {
        let (worst, going) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(true)));
        let (seen, goes) = (Arc::clone(&worst), Arc::clone(&going));
        self.control.spawn(async move {
            let pause = Duration::from_millis(10);
            while goes.load(Ordering::Relaxed) {
                let begun = Instant::now();
                tokio::time::sleep(pause).await;
                let late = begun.elapsed().saturating_sub(pause);
                seen.fetch_max(late.as_micros() as u64, Ordering::Relaxed);
            }
        });
        (worst, going)
    }
}

struct Culprits {
    tasks: Vec<tokio::task::JoinHandle<()>>,
    going: Arc<AtomicBool>,
}

impl Culprits {
    fn stop(self) {
        self.going.store(false, Ordering::Relaxed);
        self.tasks.iter().for_each(tokio::task::JoinHandle::abort);
    }
}
