//! Every metric of the runtime, and the ledgers that they are read from.
//!
//! A consumer writes all of its figures into one [`Ledger`] under one lock, and a scrape reads the
//! ledger in one go: so consumed = settled + in flight holds in every scrape (I10).

mod counters;
mod families;
mod gauges;
mod histogram;
mod ledger;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use parking_lot::{Mutex, MutexGuard};
use prometheus::proto::MetricFamily;

pub use histogram::Histogram;
pub use ledger::{Lag, Ledger, Outcome, SharedLedger, Volume};

use families::Families;

/// What of the metrics belongs to no consumer.
#[derive(Debug, Default)]
struct Process {
    cache: [AtomicU64; 3],
    generation: AtomicU64,
    reloaded_at_ms: AtomicI64,
    reload_ok: AtomicU64,
    violations: Mutex<BTreeMap<&'static str, u64>>,
}

const EXECUTORS: [&str; 2] = ["control", "data"];
const CACHE_RESULTS: [&str; 3] = ["hit", "miss", "rejected"];

/// Figures that another part of the runtime knows at the time of the scrape.
#[derive(Clone, Copy, Debug, Default)]
pub struct Probe {
    pub broker_up: bool,
    /// Bytes of the embedded store, and bytes free beside it.
    pub store: Option<(u64, u64)>,
    /// Tasks alive on the executors of the control plane and of the data plane.
    pub tasks: [usize; 2],
}

/// Every metric of one runtime.
pub struct Metrics {
    consumers: Mutex<BTreeMap<Arc<str>, SharedLedger>>,
    process: Process,
    registry: prometheus::Registry,
}

impl Metrics {
    /// No consumers yet. The figures of the process itself (`process_…`) are among them.
    pub fn new() -> Self {
        let registry = prometheus::Registry::new();
        let process = prometheus::process_collector::ProcessCollector::for_self();
        // Registering on a fresh registry fails only for a name taken twice.
        let _ = registry.register(Box::new(process));
        Self {
            consumers: Mutex::default(),
            process: Process::default(),
            registry,
        }
    }

    /// The ledger of a consumer, made if it is new.
    pub fn ledger(&self, consumer: &Arc<str>) -> SharedLedger {
        let mut consumers = self.consumers.lock();
        let ledger = consumers
            .entry(consumer.clone())
            .or_insert_with(|| Arc::new(Mutex::new(Ledger::new())));
        ledger.clone()
    }

    /// The ledger of a consumer that has one.
    pub fn known(&self, consumer: &str) -> Option<SharedLedger> {
        self.consumers.lock().get(consumer).cloned()
    }

    /// Forgets a consumer and its series.
    pub fn forget(&self, consumer: &str) {
        self.consumers.lock().remove(consumer);
    }

    /// The compile cache answered: `hit`, `miss` or `rejected`.
    pub fn cache_answered(&self, result: &str) {
        if let Some(index) = CACHE_RESULTS.iter().position(|known| *known == result) {
            self.process.cache[index].fetch_add(1, Ordering::Relaxed);
        }
    }

    /// A configuration took effect (or did not) at this time.
    pub fn reloaded(&self, ok: bool, now_ms: i64) {
        self.process
            .reload_ok
            .store(u64::from(ok), Ordering::Relaxed);
        if ok {
            self.process.generation.fetch_add(1, Ordering::Relaxed);
            self.process.reloaded_at_ms.store(now_ms, Ordering::Relaxed);
        }
    }

    /// An invariant of DESIGN did not hold; `id` is its number, such as `I4`.
    pub fn violated(&self, id: &'static str) {
        *self.process.violations.lock().entry(id).or_default() += 1;
    }

    /// The text that Prometheus reads, with the plugins' own families at the end.
    pub fn render(&self, probe: Probe, custom: Vec<MetricFamily>) -> String {
        let mut families = self.families(probe);
        families.extend(self.registry.gather());
        families.extend(custom);
        families.retain(|family| !family.get_metric().is_empty());
        families.sort_by(|a, b| a.name().cmp(b.name()));
        prometheus::TextEncoder::new()
            .encode_to_string(&families)
            .unwrap_or_default()
    }

    fn families(&self, probe: Probe) -> Vec<MetricFamily> {
        let consumers = self.consumers.lock();
        let ledgers: Vec<(&str, MutexGuard<'_, Ledger>)> = consumers
            .iter()
            .map(|(name, ledger)| (&**name, ledger.lock()))
            .collect();
        let mut out = Families::default();
        counters::counters(&mut out, &ledgers);
        gauges::histograms(&mut out, &ledgers);
        gauges::gauges(&mut out, &ledgers);
        self.process_families(&mut out, probe);
        out.0
    }

    fn process_families(&self, out: &mut Families, probe: Probe) {
        let process = &self.process;
        out.counter(
            "compile_cache_total",
            "Look-ups of compiled components by result.",
            |add| {
                for (result, count) in CACHE_RESULTS.iter().zip(&process.cache) {
                    add(&[("result", result)], count.load(Ordering::Relaxed) as f64);
                }
            },
        );
        out.counter(
            "invariant_violations_total",
            "Invariants that did not hold: report each as a bug.",
            |add| {
                for (id, count) in process.violations.lock().iter() {
                    add(&[("id", id)], *count as f64);
                }
            },
        );
        let generation = process.generation.load(Ordering::Relaxed) as f64;
        let reload_ok = process.reload_ok.load(Ordering::Relaxed) as f64;
        let reloaded_at = process.reloaded_at_ms.load(Ordering::Relaxed) as f64 / 1000.0;
        let up = f64::from(u8::from(probe.broker_up));
        let single: [(&str, &str, f64); 4] = [
            (
                "config_generation",
                "Configurations that took effect since the start.",
                generation,
            ),
            (
                "config_last_reload_successful",
                "Whether the newest configuration took effect.",
                reload_ok,
            ),
            (
                "config_last_reload_timestamp_seconds",
                "When a configuration last took effect.",
                reloaded_at,
            ),
            ("broker_up", "Whether the broker answers.", up),
        ];
        for (name, help, value) in single {
            out.gauge(name, help, |add| add(&[], value));
        }
        out.gauge(
            "executor_tasks",
            "Tasks alive on an executor: those of the control plane, and those of the consumers.",
            |add| {
                for (executor, tasks) in EXECUTORS.iter().zip(probe.tasks) {
                    add(&[("executor", executor)], tasks as f64);
                }
            },
        );
        if let Some((bytes, free)) = probe.store {
            out.gauge(
                "store_bytes",
                "Bytes that the embedded store holds on disk.",
                |add| add(&[], bytes as f64),
            );
            out.gauge(
                "store_free_bytes",
                "Bytes free on the embedded store's disk.",
                |add| add(&[], free as f64),
            );
        }
        out.gauge("build_info", "The version that runs.", |add| {
            let revision = option_env!("MILLSTREAM_REVISION").unwrap_or("unknown");
            add(
                &[
                    ("version", env!("CARGO_PKG_VERSION")),
                    ("revision", revision),
                ],
                1.0,
            );
        });
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decide::admission::Load;

    #[test]
    fn a_scrape_shows_a_consumers_figures_and_forgets_a_removed_one() {
        let metrics = Metrics::new();
        let name: Arc<str> = "enrich".into();
        let load = Load {
            events: 3,
            bytes: 30,
        };
        {
            let ledger = metrics.ledger(&name);
            let mut ledger = ledger.lock();
            ledger.admitted(&"orders".into(), load);
            ledger.settled(
                Outcome::Ok,
                Load {
                    events: 2,
                    bytes: 20,
                },
            );
        }
        let text = metrics.render(Probe::default(), Vec::new());
        for line in [
            "millstream_events_consumed_total{consumer=\"enrich\",topic=\"orders\"} 3",
            "millstream_events_settled_total{consumer=\"enrich\",outcome=\"ok\"} 2",
            "millstream_in_flight_events{consumer=\"enrich\"} 1",
        ] {
            assert!(text.contains(line), "{line} is missing in\n{text}");
        }
        metrics.forget("enrich");
        assert!(
            !metrics
                .render(Probe::default(), Vec::new())
                .contains("consumer=\"enrich\"")
        );
    }
}
