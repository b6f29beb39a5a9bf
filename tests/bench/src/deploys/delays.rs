//! How long events took, by the clock that stamped them.

use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::Result;

/// How long events took, in milliseconds, in order.
pub struct Delays(Vec<i64>);

impl Delays {
    /// Of these, in any order.
    pub fn of(mut delays: Vec<i64>) -> Self {
        delays.sort_unstable();
        Self(delays)
    }

    /// The delay that this part of all events did not exceed.
    pub fn at(&self, quantile: f64) -> i64 {
        let last = self.0.len().saturating_sub(1);
        let index = (last as f64 * quantile).round() as usize;
        self.0.get(index).copied().unwrap_or_default()
    }
}

/// Milliseconds since 1970-01-01 UTC.
///
/// # Errors
/// The clock of the machine stands before that.
#[expect(
    clippy::disallowed_methods,
    reason = "what is measured is the time of the wall"
)]
pub fn now_ms() -> Result<i64> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?;
    Ok(i64::try_from(now.as_millis())?)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An index that is off by one would take the worst delay for the 99th percentile of few.
    #[test]
    fn a_quantile_is_what_this_part_of_all_did_not_exceed() {
        let delays = Delays::of((1..=101).rev().collect());
        assert_eq!(delays.at(0.0), 1);
        assert_eq!(delays.at(0.5), 51);
        assert_eq!(delays.at(0.99), 100);
        assert_eq!(delays.at(1.0), 101);
    }
}
