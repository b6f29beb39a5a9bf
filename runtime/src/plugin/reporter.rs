//! What one instance reports to its metrics, held back until the outcome of the call is taken.

use std::sync::Arc;

use super::custom_metrics::{Instrument, Series, Value};

/// The series that one instance has declared, and what it reported in the current call.
#[derive(Debug, Default)]
pub(super) struct Reporter {
    declared: Vec<(Arc<Series>, Value)>,
    /// Indexes of those that have something pending.
    touched: Vec<usize>,
}

impl Reporter {
    /// The number of this series for the instance.
    pub(super) fn add(&mut self, series: Arc<Series>) -> u32 {
        let known = self
            .declared
            .iter()
            .position(|(other, _)| Arc::ptr_eq(other, &series));
        let index = known.unwrap_or_else(|| {
            let pending = Value::new(series.bounds.len());
            self.declared.push((series, pending));
            self.declared.len() - 1
        });
        // At most MAX_SERIES series exist for a consumer.
        index as u32
    }

    /// Keeps a point until [`Self::apply`]. False where it cannot be taken: a metric that was not
    /// declared, a counter that would fall, a number that is none.
    pub(super) fn report(&mut self, metric: u32, number: f64) -> bool {
        let index = metric as usize;
        let Some((series, pending)) = self.declared.get_mut(index) else {
            return false;
        };
        let possible = match series.instrument {
            Instrument::Counter => number.is_finite() && number >= 0.0,
            Instrument::Gauge => !number.is_nan(),
            // One that is infinite would leave the sum so for ever, or make it no number.
            Instrument::Histogram => number.is_finite(),
        };
        if !possible {
            return false;
        }
        if pending.count == 0 {
            self.touched.push(index);
        }
        pending.count += 1;
        match series.instrument {
            Instrument::Counter => pending.number += number,
            Instrument::Gauge => pending.number = number,
            Instrument::Histogram => {
                pending.number += number;
                let bucket = series.bounds.iter().position(|bound| number <= *bound);
                if let Some(count) = bucket.and_then(|at| pending.buckets.get_mut(at)) {
                    *count += 1;
                }
            }
        }
        true
    }

    /// The outcome was taken: what was reported takes effect.
    pub(super) fn apply(&mut self) {
        for index in self.touched.drain(..) {
            let Some((series, pending)) = self.declared.get_mut(index) else {
                continue;
            };
            let mut value = series.value.lock();
            match series.instrument {
                Instrument::Gauge => value.number = pending.number,
                Instrument::Counter | Instrument::Histogram => value.number += pending.number,
            }
            value.count += pending.count;
            for (bucket, more) in value.buckets.iter_mut().zip(&mut pending.buckets) {
                *bucket += std::mem::take(more);
            }
            pending.number = 0.0;
            pending.count = 0;
        }
    }

    /// The outcome was not taken: what was reported never happened.
    pub(super) fn discard(&mut self) {
        for index in self.touched.drain(..) {
            if let Some((series, pending)) = self.declared.get_mut(index) {
                *pending = Value::new(series.bounds.len());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plugin::custom_metrics::CustomMetrics;
    use crate::plugin::custom_metrics::tests::{declaration, text};

    /// Points of a call that failed would count an event at every attempt.
    #[test]
    fn only_taken_outcomes_count() {
        let metrics = CustomMetrics::default();
        let consumer: Arc<str> = "c".into();
        let mut reporter = Reporter::default();
        let seen = metrics
            .declare(&consumer, declaration(Instrument::Counter, "seen", "a"))
            .unwrap();
        let size = metrics
            .declare(&consumer, declaration(Instrument::Histogram, "size", "a"))
            .unwrap();
        let (seen, size) = (reporter.add(seen), reporter.add(size));
        assert!(reporter.report(seen, 5.0) && reporter.report(size, 1.5));
        reporter.discard();
        assert!(reporter.report(seen, 2.0) && reporter.report(size, 1.5));
        assert!(reporter.report(size, 7.0));
        reporter.apply();
        reporter.apply();
        let text = text(&metrics);
        for line in [
            r#"millstream_custom_seen{consumer="c",kind="a"} 2"#,
            r#"millstream_custom_size_bucket{consumer="c",kind="a",le="1"} 0"#,
            r#"millstream_custom_size_bucket{consumer="c",kind="a",le="2"} 1"#,
            r#"millstream_custom_size_bucket{consumer="c",kind="a",le="+Inf"} 2"#,
            r#"millstream_custom_size_sum{consumer="c",kind="a"} 8.5"#,
        ] {
            assert!(text.contains(line), "{line} is missing in\n{text}");
        }
    }

    /// A plugin cannot make a counter fall or a sum not-a-number.
    #[test]
    fn impossible_points_are_not_taken() {
        let metrics = CustomMetrics::default();
        let consumer: Arc<str> = "c".into();
        let series = metrics
            .declare(&consumer, declaration(Instrument::Counter, "n", "a"))
            .unwrap();
        let mut reporter = Reporter::default();
        let metric = reporter.add(series);
        assert!(!reporter.report(metric, -1.0));
        assert!(!reporter.report(metric, f64::NAN));
        assert!(!reporter.report(metric, f64::INFINITY));
        assert!(!reporter.report(metric + 1, 1.0));
    }
}
