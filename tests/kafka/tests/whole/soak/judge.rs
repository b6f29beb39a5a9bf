//! Whether figures stay where they are.
//!
//! ```text
//! samples:  warm-up │ first third │ second third │ last third
//!                                       median ──▶ median: how much more?
//! ```
//! Medians, for a single look may meet a rebalance, or a compaction of the store. The first third is
//! left out, for caches, pools and heaps still grow into their bounds in it.

use std::time::Duration;

/// By how much the last third may be above the second: by the larger of the two.
#[derive(Clone, Copy, Debug)]
pub struct Tolerance {
    /// Of the second third's median.
    pub share: f64,
    pub least: f64,
}

/// What two thirds say.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Change {
    pub before: f64,
    pub after: f64,
    pub allowed: f64,
}

impl Change {
    /// Of figures in the order of their time; `None` with too few to say anything.
    pub fn of(figures: &[f64], tolerance: Tolerance) -> Option<Self> {
        let third = figures.len() / 3;
        let before = median(figures.get(third..2 * third)?)?;
        let after = median(figures.get(2 * third..)?)?;
        Some(Self {
            before,
            after,
            allowed: (before * tolerance.share).max(tolerance.least),
        })
    }

    /// Whether the growth is within what is allowed. Less is never wrong.
    pub fn is_flat(&self) -> bool {
        self.after - self.before <= self.allowed
    }
}

/// The middle one; `None` of none.
pub fn median(figures: &[f64]) -> Option<f64> {
    let mut sorted = figures.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied()
}

/// How long nothing is judged: a sixth of the run, one to five minutes.
pub fn warm_up(minutes: u32) -> Duration {
    Duration::from_secs(u64::from(minutes) * 10)
        .clamp(Duration::from_secs(60), Duration::from_secs(300))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOLERANCE: Tolerance = Tolerance {
        share: 0.05,
        least: 4.0,
    };

    fn is_flat(figures: impl Iterator<Item = f64>) -> bool {
        let figures: Vec<f64> = figures.collect();
        Change::of(&figures, TOLERANCE).unwrap().is_flat()
    }

    /// A judge that lets a steady leak pass would make all minutes worthless.
    #[test]
    fn a_steady_leak_is_noticed_and_a_sawtooth_is_none() {
        assert!(!is_flat((0..300).map(|at| 100.0 + f64::from(at) * 0.1)));
        assert!(is_flat((0..300).map(|at| 100.0 + f64::from(at % 20))));
        assert!(is_flat((0..300).map(|at| 400.0 - f64::from(at))));
    }

    /// One look at a bad moment must not fail a run, nor a cache that fills at the beginning.
    #[test]
    fn a_peak_and_a_slow_start_are_no_leak() {
        let peak = |at| if at == 290 { 900.0 } else { 100.0 };
        assert!(is_flat((0..300).map(peak)));
        assert!(is_flat((0..300).map(|at| f64::from(at.min(90)))));
        assert!(Change::of(&[1.0, 2.0], TOLERANCE).is_none());
    }
}
