//! Histograms with fixed bounds, added up where they are written and copied at a scrape.

use prometheus::proto::{self, Bucket};

/// Bounds of call, commit and start durations, in seconds: 10 µs to 10 s.
pub(super) const DURATIONS: &[f64] = &[
    0.000_01, 0.000_025, 0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025,
    0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
];
/// Bounds of an event's way through the runtime, in seconds: 1 ms to 1 h.
pub(super) const LATENCIES: &[f64] = &[
    0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 60.0, 600.0,
    3600.0,
];
pub(super) const BATCHES: &[f64] = &[
    1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0,
];

/// A histogram with fixed bounds; not shared between threads.
#[derive(Clone, Debug)]
pub struct Histogram {
    bounds: &'static [f64],
    counts: Vec<u64>,
    sum: f64,
    count: u64,
}

impl Histogram {
    pub(super) fn new(bounds: &'static [f64]) -> Self {
        Self {
            bounds,
            counts: vec![0; bounds.len()],
            sum: 0.0,
            count: 0,
        }
    }

    /// Adds `times` observations of `value`.
    pub fn observe(&mut self, value: f64, times: u64) {
        let bucket = self.bounds.partition_point(|bound| *bound < value);
        if let Some(count) = self.counts.get_mut(bucket) {
            *count += times;
        }
        self.sum += value * times as f64;
        self.count += times;
    }

    pub(super) fn proto(&self) -> proto::Histogram {
        let mut proto = proto::Histogram::default();
        let mut cumulative = 0;
        let buckets = self.bounds.iter().zip(&self.counts).map(|(bound, count)| {
            cumulative += count;
            let mut bucket = Bucket::default();
            bucket.set_upper_bound(*bound);
            bucket.set_cumulative_count(cumulative);
            bucket
        });
        proto.set_bucket(buckets.collect());
        proto.set_sample_sum(self.sum);
        proto.set_sample_count(self.count);
        proto
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_histogram_counts_into_the_bucket_whose_bound_is_not_exceeded() {
        let mut histogram = Histogram::new(BATCHES);
        histogram.observe(1.0, 2);
        histogram.observe(3.0, 1);
        histogram.observe(5_000.0, 1);
        let proto = histogram.proto();
        let counts: Vec<_> = proto
            .get_bucket()
            .iter()
            .map(Bucket::cumulative_count)
            .collect();
        assert_eq!(counts[..4], [2, 2, 3, 3]);
        assert_eq!(counts.last(), Some(&3));
        assert_eq!(
            (proto.get_sample_count(), proto.get_sample_sum()),
            (4, 5_005.0)
        );
    }
}
