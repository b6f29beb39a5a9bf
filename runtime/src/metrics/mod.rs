//! Every metric of the runtime, and the ledgers that they are read from.
//!
//! A consumer writes all of its figures into one [`Ledger`] under one lock, and a scrape reads the
//! ledger in one go: so consumed = settled + in flight holds in every scrape (I10).

mod families;
mod histogram;
mod ledger;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use parking_lot::{Mutex, MutexGuard};
use prometheus::proto::MetricFamily;

pub use histogram::Histogram;
pub use ledger::{Lag, Ledger, Outcome, SharedLedger, Volume};

use crate::consumer::dead_letter::Reason;
use crate::decide::breaker::Phase;
use crate::plugin::HttpResult;
use families::{Families, Ledgers, each};
use ledger::{FAILURES, OUTCOMES, REBALANCES};

/// What of the metrics belongs to no consumer.
#[derive(Debug, Default)]
struct Process {
    cache: [AtomicU64; 3],
    generation: AtomicU64,
    reloaded_at_ms: AtomicI64,
    reload_ok: AtomicU64,
    violations: Mutex<BTreeMap<&'static str, u64>>,
}

const CACHE_RESULTS: [&str; 3] = ["hit", "miss", "rejected"];

/// Figures that another part of the runtime knows at the time of the scrape.
#[derive(Clone, Copy, Debug, Default)]
pub struct Probe {
    pub broker_up: bool,
    /// Bytes of the embedded store, and bytes free beside it.
    pub store: Option<(u64, u64)>,
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
        counters(&mut out, &ledgers);
        histograms(&mut out, &ledgers);
        gauges(&mut out, &ledgers);
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

fn counters(out: &mut Families, ledgers: &Ledgers<'_>) {
    out.counter(
        "events_consumed_total",
        "Events taken from topics.",
        |add| {
            each(ledgers, |name, ledger| {
                for (topic, volume) in &ledger.consumed {
                    add(
                        &[("consumer", name), ("topic", topic)],
                        volume.events as f64,
                    );
                }
            });
        },
    );
    out.counter(
        "consumed_bytes_total",
        "Bytes of the events taken from topics.",
        |add| {
            each(ledgers, |name, ledger| {
                for (topic, volume) in &ledger.consumed {
                    add(&[("consumer", name), ("topic", topic)], volume.bytes as f64);
                }
            });
        },
    );
    out.counter(
        "events_settled_total",
        "Events that ended, by how they ended.",
        |add| {
            each(ledgers, |name, ledger| {
                for (outcome, count) in OUTCOMES.iter().zip(ledger.settled) {
                    add(&[("consumer", name), ("outcome", outcome)], count as f64);
                }
            });
        },
    );
    out.counter(
        "events_produced_total",
        "Derived events that the broker acknowledged.",
        |add| {
            each(ledgers, |name, ledger| {
                for (output, volume) in &ledger.produced {
                    add(
                        &[("consumer", name), ("output", output)],
                        volume.events as f64,
                    );
                }
            });
        },
    );
    out.counter(
        "produced_bytes_total",
        "Bytes of the derived events.",
        |add| {
            each(ledgers, |name, ledger| {
                for (output, volume) in &ledger.produced {
                    add(
                        &[("consumer", name), ("output", output)],
                        volume.bytes as f64,
                    );
                }
            });
        },
    );
    out.counter(
        "events_skipped_total",
        "Offsets that were jumped over without being processed.",
        |add| {
            each(ledgers, |name, ledger| {
                for ((topic, reason), count) in &ledger.skipped {
                    add(
                        &[("consumer", name), ("topic", topic), ("reason", reason)],
                        *count as f64,
                    );
                }
            });
        },
    );
    out.counter(
        "plugin_failures_total",
        "Attempts that failed, by kind.",
        |add| {
            each(ledgers, |name, ledger| {
                for (kind, count) in FAILURES.iter().zip(ledger.failures) {
                    add(&[("consumer", name), ("kind", kind)], count as f64);
                }
            });
        },
    );
    out.counter(
        "dead_letters_total",
        "Events that went to the dead letters, by reason.",
        |add| {
            each(ledgers, |name, ledger| {
                for reason in Reason::ALL {
                    let count = ledger.dead_letters.get(&reason).copied().unwrap_or(0);
                    add(
                        &[("consumer", name), ("reason", reason.name())],
                        count as f64,
                    );
                }
            });
        },
    );
    out.counter(
        "rebalances_total",
        "Changes of the partitions that are ours.",
        |add| {
            each(ledgers, |name, ledger| {
                for (kind, count) in REBALANCES.iter().zip(ledger.rebalances) {
                    add(&[("consumer", name), ("kind", kind)], count as f64);
                }
            });
        },
    );
    type Results = fn(&Ledger) -> [u64; 2];
    let results: [(&str, &str, Results); 2] = [
        (
            "plugin_instantiations_total",
            "Plugin instances started, by result.",
            |l| [l.instantiations_ok, l.instantiations_failed],
        ),
        ("commits_total", "Commits of positions, by result.", |l| {
            [l.commits_ok, l.commits_failed]
        }),
    ];
    for (family, help, read) in results {
        out.counter(family, help, |add| {
            each(ledgers, |name, ledger| {
                for (result, count) in ["ok", "failed"].iter().zip(read(ledger)) {
                    add(&[("consumer", name), ("result", result)], count as f64);
                }
            });
        });
    }
    out.counter(
        "deploys_total",
        "Plugin generations deployed, by result.",
        |add| {
            each(ledgers, |name, ledger| {
                for (result, count) in [
                    ("ok", ledger.deploys_ok),
                    ("failed", ledger.deploys_failed),
                    ("rolled_back", ledger.deploys_rolled_back),
                ] {
                    add(&[("consumer", name), ("result", result)], count as f64);
                }
            });
        },
    );
    out.counter("retries_total", "Attempts made again.", |add| {
        each(ledgers, |name, ledger| {
            add(&[("consumer", name)], ledger.retries as f64)
        });
    });
    out.counter(
        "log_entries_dropped_total",
        "Log entries of plugins over their limits.",
        |add| {
            each(ledgers, |name, ledger| {
                add(&[("consumer", name)], ledger.log_entries_dropped as f64)
            });
        },
    );
    out.counter(
        "plugin_http_requests_total",
        "Requests of plugins to the outside, by result.",
        |add| {
            each(ledgers, |name, ledger| {
                for (result, count) in HttpResult::ALL.iter().zip(ledger.http_requests) {
                    let labels = [("consumer", name), ("result", result.as_str())];
                    add(&labels, count as f64);
                }
            });
        },
    );
    out.counter(
        "paused_seconds_total",
        "Partition-seconds for which fetching stood still, by reason.",
        |add| {
            each(ledgers, |name, ledger| {
                for (reason, stood) in [
                    ("backpressure", ledger.paused_for_backpressure),
                    ("breaker", ledger.paused_for_breaker),
                    ("operator", ledger.paused_for_operator),
                ] {
                    let labels = [("consumer", name), ("reason", reason)];
                    add(&labels, stood.as_secs_f64());
                }
            });
        },
    );
    out.counter(
        "breaker_transitions_total",
        "Times that the circuit breaker became closed, open or half-open.",
        |add| {
            each(ledgers, |name, ledger| {
                for (phase, count) in Phase::ALL.iter().zip(ledger.breaker_transitions) {
                    add(&[("consumer", name), ("to", phase.name())], count as f64);
                }
            });
        },
    );
}

fn histograms(out: &mut Families, ledgers: &Ledgers<'_>) {
    type Read = fn(&Ledger) -> &Histogram;
    let all: [(&str, &str, Read); 6] = [
        (
            "plugin_call_duration_seconds",
            "Time of one call into a plugin.",
            |l| &l.call_duration,
        ),
        (
            "event_processing_seconds",
            "From fetched to settled.",
            |l| &l.processing,
        ),
        (
            "event_latency_seconds",
            "From the event's timestamp to settled.",
            |l| &l.latency,
        ),
        (
            "commit_duration_seconds",
            "Time of one commit of positions.",
            |l| &l.commit_duration,
        ),
        ("batch_events", "Events in one call into a plugin.", |l| {
            &l.batch_events
        }),
        (
            "plugin_init_duration_seconds",
            "Time to start a plugin instance.",
            |l| &l.init_duration,
        ),
    ];
    for (name, help, read) in all {
        out.histogram(name, help, ledgers, read);
    }
}

fn gauges(out: &mut Families, ledgers: &Ledgers<'_>) {
    type Read = fn(&Ledger) -> f64;
    let all: [(&str, &str, Read); 7] = [
        (
            "in_flight_events",
            "Events admitted and not settled.",
            |l| l.in_flight.events as f64,
        ),
        (
            "in_flight_bytes",
            "Bytes of the events admitted and not settled.",
            |l| l.in_flight.bytes as f64,
        ),
        ("assigned_partitions", "Partitions that are ours.", |l| {
            l.assigned_partitions as f64
        }),
        (
            "halted_partitions",
            "Partitions stopped at an event that failed for good.",
            |l| l.halted_partitions as f64,
        ),
        ("plugin_instances", "Plugin instances alive.", |l| {
            l.instances as f64
        }),
        (
            "plugin_memory_bytes",
            "Linear memory of the plugin instances alive.",
            |l| l.memory_bytes as f64,
        ),
        (
            "plugin_memory_limit_bytes",
            "What one plugin instance may use at most.",
            |l| l.memory_limit_bytes as f64,
        ),
    ];
    for (family, help, read) in all {
        out.gauge(family, help, |add| {
            each(ledgers, |name, ledger| {
                add(&[("consumer", name)], read(ledger))
            });
        });
    }
    out.gauge(
        "consumer_lag_events",
        "Events between the settled position and the end.",
        |add| {
            each(ledgers, |name, ledger| {
                for (partition, lag) in &ledger.lag {
                    let number = partition.partition.to_string();
                    let labels = [
                        ("consumer", name),
                        ("topic", &*partition.topic),
                        ("partition", &number),
                    ];
                    add(&labels, lag.events as f64);
                }
            });
        },
    );
    out.gauge(
        "breaker_state",
        "1 for the state that the circuit breaker is in.",
        |add| {
            each(ledgers, |name, ledger| {
                for phase in Phase::ALL {
                    let labels = [("consumer", name), ("state", phase.name())];
                    add(&labels, f64::from(u8::from(ledger.breaker == phase)));
                }
            });
        },
    );
    type ByTopic = fn(&Ledger) -> &BTreeMap<Arc<str>, f64>;
    let by_topic: [(&str, &str, ByTopic); 2] = [
        (
            "consumer_lag_seconds",
            "Age of the oldest unsettled event.",
            |l| &l.lag_seconds,
        ),
        (
            "last_settled_timestamp_seconds",
            "Timestamp of the newest settled event.",
            |l| &l.last_settled,
        ),
    ];
    for (family, help, read) in by_topic {
        out.gauge(family, help, |add| {
            each(ledgers, |name, ledger| {
                for (topic, value) in read(ledger) {
                    add(&[("consumer", name), ("topic", topic)], *value);
                }
            });
        });
    }
    out.gauge(
        "override",
        "What was done by hand and holds: 1 for deploy, rollback, pause.",
        |add| {
            each(ledgers, |name, ledger| {
                for kind in &ledger.overrides {
                    add(&[("consumer", name), ("kind", kind)], 1.0);
                }
            });
        },
    );
    out.gauge(
        "config_drift",
        "Whether what runs is not what the configuration names.",
        |add| {
            each(ledgers, |name, ledger| {
                let drift = f64::from(u8::from(ledger.drift));
                add(&[("consumer", name), ("kind", "plugin")], drift);
            });
        },
    );
    out.gauge("plugin_info", "The generation that runs.", |add| {
        each(ledgers, |name, ledger| {
            let generation = ledger.generation.to_string();
            let labels = [
                ("consumer", name),
                ("digest", &*ledger.digest),
                ("generation", &generation),
            ];
            add(&labels, 1.0);
        });
    });
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
