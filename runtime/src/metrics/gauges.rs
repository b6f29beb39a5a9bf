//! How each consumer stands, and how long what it does takes.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::families::{Families, Ledgers, each};
use super::histogram::Histogram;
use super::ledger::Ledger;
use crate::decide::breaker::Phase;

/// Adds the histograms of all consumers.
pub(super) fn histograms(out: &mut Families, ledgers: &Ledgers<'_>) {
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

/// Adds the gauges of all consumers.
pub(super) fn gauges(out: &mut Families, ledgers: &Ledgers<'_>) {
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
