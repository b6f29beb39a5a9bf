//! The plugin's own metrics, on the runtime's page as `millstream_custom_<name>` with the label
//! `consumer`.
//!
//! What an event that failed reported is dropped with it, so that a retried event counts once. All
//! points of a call cross the wall together.
//!
//! ```
//! use millstream_plugin::prelude::*;
//! use millstream_plugin::metrics::{self, Counter};
//!
//! struct Count {
//!     seen: Counter,
//! }
//!
//! impl Consumer for Count {
//!     type Settings = ();
//!
//!     fn init((): (), _setup: &Setup) -> Result<Self> {
//!         Ok(Self { seen: metrics::counter("seen_total", "Events seen", &[])? })
//!     }
//!
//!     fn handle(&mut self, event: Event<'_>, _out: &mut Outbox) -> Result {
//!         self.seen.add(1.0);
//!         event.text()?; // an event that fails here was not counted
//!         Ok(())
//!     }
//! }
//!
//! let run = Harness::new::<Count>().run([TestEvent::text("a"), TestEvent::tombstone()]);
//! assert_eq!(run.metric("seen_total"), Some(1.0));
//! ```

use std::cell::RefCell;

use crate::host::{self, Declaration, Instrument};
use crate::{OrFail, Result};

/// A sum that only grows.
#[derive(Clone, Copy, Debug)]
pub struct Counter(u32);

impl Counter {
    /// Adds 0 or more; what is negative or not a number is ignored.
    pub fn add(&self, value: f64) {
        if value > 0.0 && value.is_finite() {
            push(Instrument::Counter, self.0, value);
        }
    }
}

/// A value that goes up and down. Give it a label that tells instances apart, or the last writer
/// wins.
#[derive(Clone, Copy, Debug)]
pub struct Gauge(u32);

impl Gauge {
    /// Sets it.
    pub fn set(&self, value: f64) {
        push(Instrument::Gauge, self.0, value);
    }
}

/// A distribution over buckets.
#[derive(Clone, Copy, Debug)]
pub struct Histogram(u32);

impl Histogram {
    /// Counts a value in its bucket.
    pub fn observe(&self, value: f64) {
        push(Instrument::Histogram, self.0, value);
    }
}

/// Declares a counter; the same name and labels give the same series.
///
/// # Errors
/// The runtime refuses the name or the labels, or the consumer has 100 series.
pub fn counter(name: &str, help: &str, labels: &[(&str, &str)]) -> Result<Counter> {
    declare(Instrument::Counter, name, help, labels, &[]).map(Counter)
}

/// Declares a gauge.
///
/// # Errors
/// As for [`counter`].
pub fn gauge(name: &str, help: &str, labels: &[(&str, &str)]) -> Result<Gauge> {
    declare(Instrument::Gauge, name, help, labels, &[]).map(Gauge)
}

/// Declares a histogram with these upper bounds of its buckets, rising.
///
/// # Errors
/// As for [`counter`], and bounds that do not rise.
pub fn histogram(
    name: &str,
    help: &str,
    labels: &[(&str, &str)],
    bounds: &[f64],
) -> Result<Histogram> {
    declare(Instrument::Histogram, name, help, labels, bounds).map(Histogram)
}

fn declare(
    instrument: Instrument,
    name: &str,
    help: &str,
    labels: &[(&str, &str)],
    bounds: &[f64],
) -> Result<u32> {
    host::declare(Declaration {
        instrument,
        name,
        help,
        labels,
        bounds,
    })
    .or_halt("metric")
}

#[derive(Clone, Copy)]
struct Point {
    instrument: Instrument,
    metric: u32,
    value: f64,
}

/// The points of a call: those of finished events, then from `kept` on those of the current one.
struct Points {
    points: Vec<Point>,
    kept: usize,
}

thread_local! {
    static POINTS: RefCell<Points> = const { RefCell::new(Points { points: Vec::new(), kept: 0 }) };
}

fn push(instrument: Instrument, metric: u32, value: f64) {
    let point = Point {
        instrument,
        metric,
        value,
    };
    POINTS.with_borrow_mut(|all| all.points.push(point));
}

/// The current event is done: its points count. A counter or a gauge that has a point already is
/// folded into it, so that a batch reports each once.
pub(crate) fn keep() {
    POINTS.with_borrow_mut(|all| {
        let mut index = all.kept;
        while let Some(&point) = all.points.get(index) {
            let earlier = all.points[..all.kept]
                .iter_mut()
                .find(|earlier| earlier.metric == point.metric);
            match (point.instrument, earlier) {
                (Instrument::Counter, Some(earlier)) => earlier.value += point.value,
                (Instrument::Gauge, Some(earlier)) => earlier.value = point.value,
                _ => {
                    all.points[all.kept] = point;
                    all.kept += 1;
                }
            }
            index += 1;
        }
        all.points.truncate(all.kept);
    });
}

/// The current event failed: its points are dropped.
pub(crate) fn drop_current() {
    POINTS.with_borrow_mut(|all| all.points.truncate(all.kept));
}

/// The call is done: reports what was kept.
pub(crate) fn flush() {
    POINTS.with_borrow_mut(|all| {
        if !all.points.is_empty() {
            host::report(all.points.iter().map(|point| (point.metric, point.value)));
        }
        all.points.clear();
        all.kept = 0;
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A failed event comes again: counted at each attempt, a total would lie.
    #[test]
    fn points_of_a_failed_event_are_dropped_and_counters_are_folded() {
        let seen = counter("seen", "", &[]).unwrap();
        let level = gauge("level", "", &[]).unwrap();
        let sizes = histogram("sizes", "", &[], &[1.0]).unwrap();
        for round in 0..3 {
            seen.add(1.0);
            seen.add(1.0);
            level.set(f64::from(round));
            sizes.observe(f64::from(round));
            if round == 1 {
                drop_current();
            } else {
                keep();
            }
        }
        flush();
        let points = host::take_recorded().points;
        assert_eq!(points, [(0, 4.0), (1, 2.0), (2, 0.0), (2, 2.0)]);
    }

    #[test]
    fn a_counter_never_falls() {
        let seen = counter("seen", "", &[]).unwrap();
        seen.add(-1.0);
        seen.add(f64::NAN);
        keep();
        flush();
        assert!(host::take_recorded().points.is_empty());
    }
}
