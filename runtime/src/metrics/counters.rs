//! What is counted of each consumer.

use super::families::{Families, Ledgers, each};
use super::ledger::{FAILURES, Ledger, OUTCOMES, REBALANCES};
use crate::consumer::dead_letter::Reason;
use crate::decide::breaker::Phase;
use crate::plugin::HttpResult;

/// Adds the counters of all consumers.
pub(super) fn counters(out: &mut Families, ledgers: &Ledgers<'_>) {
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
