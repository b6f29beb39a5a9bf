//! `batch`, `in_flight` and `commit` of a consumer.

use std::time::Duration;

use super::super::problem::Problem;
use super::super::resolved::{Batch, CommitCadence, Delivery, InFlight};
use super::super::section::Section;

/// Events in flight unless said otherwise.
const IN_FLIGHT: u64 = 10_000;

/// The same under exactly once. A transaction costs tens of milliseconds on a Kafka whatever it holds,
/// and what it holds is in flight until its end: with fewer events it waits most of the time.
const IN_TRANSACTIONS: u64 = 50_000;

/// How much at once, in flight and until a commit.
pub struct Budget {
    pub batch: Batch,
    pub in_flight: InFlight,
    pub commit: CommitCadence,
}

/// Checks the three sections against each other. A default gives way to what is written.
pub fn budget(consumer: &mut Section<'_>, delivery: Delivery) -> Budget {
    let at_once = match delivery {
        Delivery::ExactlyOnce => IN_TRANSACTIONS,
        Delivery::AtMostOnce | Delivery::AtLeastOnce => IN_FLIGHT,
    };
    let mut in_flight = consumer.section("in_flight");
    let max_events = in_flight.integer("max_events", 1..=10_000_000);
    let max_bytes = in_flight.size("max_bytes", 1 << 10..=1 << 40);
    in_flight.finish();
    let mut batch = consumer.section("batch");
    let batch_events = batch.integer("max_events", 1..=10_000);
    let batch_bytes = batch.size("max_bytes", 1 << 10..=1 << 30);
    batch.reserve(&[("wait", "wait for a batch to fill")]);
    let (flying_events, batch_events) = fit(
        &batch,
        "max_events",
        (max_events, at_once),
        (batch_events, 256),
    );
    let (flying_bytes, batch_bytes) = fit(
        &batch,
        "max_bytes",
        (max_bytes, 64 << 20),
        (batch_bytes, 1 << 20),
    );
    batch.finish();
    let mut commit = consumer.section("commit");
    let interval = commit
        .duration(
            "interval",
            Duration::from_millis(1)..=Duration::from_secs(300),
        )
        .unwrap_or(Duration::from_millis(100));
    let commit_events = commit
        .integer("max_events", 1..=10_000_000)
        .unwrap_or(10_000);
    commit.finish();
    Budget {
        batch: Batch {
            max_events: batch_events as usize,
            max_bytes: batch_bytes as usize,
        },
        in_flight: InFlight {
            max_events: flying_events as usize,
            max_bytes: flying_bytes as usize,
        },
        commit: CommitCadence {
            interval,
            max_events: commit_events as usize,
        },
    }
}

/// A batch that does not fit into the budget could never be filled.
fn fit(
    batch: &Section<'_>,
    key: &str,
    (flying, flying_default): (Option<u64>, u64),
    (called, called_default): (Option<u64>, u64),
) -> (u64, u64) {
    match (flying, called) {
        (Some(flying), Some(called)) => {
            if called > flying {
                batch.checks().report(
                    Problem::error(
                        "range",
                        format!("a batch is larger than all that may be in flight (`{key}`)"),
                    )
                    .at(batch.place_of(key))
                    .label(format!("more than `in_flight.{key}`"))
                    .hint(format!("raise `in_flight.{key}`, or lower `batch.{key}`")),
                );
            }
            (flying, called)
        }
        (Some(flying), None) => (flying, called_default.min(flying)),
        (None, Some(called)) => (flying_default.max(called), called),
        (None, None) => (flying_default, called_default),
    }
}
