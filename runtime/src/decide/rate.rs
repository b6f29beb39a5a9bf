//! The ceiling on how many events a second are given to a plugin: a bucket of tokens.
//!
//! ```text
//! tokens drip in at the rate ─▶ [ at most a tenth of a second of them ] ─▶ one an event
//! ```

use std::time::Duration;

use tokio::time::Instant;

use crate::config::Rate;

/// How much of a second's tokens the bucket holds.
const BURST: f64 = 0.1;
/// How much of a second's tokens are waited for once it is empty: at high rates calls with a token
/// each would cost more than the events.
const GRAIN: f64 = 0.01;

/// See the module.
#[derive(Clone, Debug)]
pub struct RateLimit {
    per_second: f64,
    tokens: f64,
    filled_at: Instant,
}

impl RateLimit {
    /// A full bucket.
    pub fn new(rate: Rate, now: Instant) -> Self {
        let per_second = f64::from(rate.events) / rate.per.as_secs_f64();
        let mut limit = Self {
            per_second,
            tokens: 0.0,
            filled_at: now,
        };
        limit.tokens = limit.burst();
        limit
    }

    /// How many events may be given now.
    pub fn available(&mut self, now: Instant) -> usize {
        let since = now.saturating_duration_since(self.filled_at);
        self.tokens = (self.tokens + since.as_secs_f64() * self.per_second).min(self.burst());
        self.filled_at = self.filled_at.max(now);
        // A token that is due at `now` may lack a trifle by rounding.
        let tokens = self.tokens + 1e-6;
        if tokens < self.grain() {
            return 0;
        }
        tokens as usize
    }

    /// So many events were given: at most as many as were [`Self::available`].
    pub fn take(&mut self, events: usize) {
        self.tokens -= events as f64;
    }

    /// When some will be available, from the time on at which it was last asked for.
    pub fn due(&self) -> Instant {
        let lacking = (self.grain() - self.tokens).max(0.0) / self.per_second;
        // A timer that wakes early would find nothing and turn in a circle.
        self.filled_at + Duration::from_secs_f64(lacking) + Duration::from_micros(1)
    }

    fn burst(&self) -> f64 {
        (self.per_second * BURST).max(1.0)
    }

    fn grain(&self) -> f64 {
        (self.per_second * GRAIN).max(1.0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn limit(events: u32, per: u64, now: Instant) -> RateLimit {
        let per = Duration::from_secs(per);
        RateLimit::new(Rate { events, per }, now)
    }

    #[test]
    fn one_an_hour_is_one_an_hour() {
        let begun = Instant::now();
        let mut limit = limit(1, 3600, begun);
        assert_eq!(limit.available(begun), 1);
        limit.take(1);
        assert_eq!(limit.available(begun), 0);
        assert_eq!(limit.available(begun + Duration::from_secs(3599)), 0);
        assert_eq!(limit.available(limit.due()), 1);
        assert!(limit.due() <= begun + Duration::from_secs(3601));
    }

    #[test]
    fn rest_is_not_saved_up() {
        let begun = Instant::now();
        let mut limit = limit(1000, 1, begun);
        assert_eq!(limit.available(begun + Duration::from_secs(60)), 100);
    }

    proptest! {
        /// No stretch of time gets more than the rate and one full bucket, and whoever asks when it
        /// is due gets something.
        #[test]
        fn the_ceiling_holds_over_every_stretch(
            events in 1_u32..20_000,
            per in prop_oneof![Just(1_u64), Just(60), Just(3600)],
            asks in prop::collection::vec((0_u64..200_000, 0.0..=1.0), 1..100),
        ) {
            let begun = Instant::now();
            let mut limit = limit(events, per, begun);
            let rate = f64::from(events) / per as f64;
            let mut now = begun;
            let mut taken: Vec<(Instant, usize)> = Vec::new();
            for (micros, greed) in asks {
                now += Duration::from_micros(micros);
                let available = limit.available(now);
                if available == 0 {
                    let due = limit.due();
                    prop_assert!(due > now);
                    prop_assert!(limit.clone().available(due) > 0);
                    continue;
                }
                let take = (available as f64 * greed) as usize;
                limit.take(take);
                taken.push((now, take));
            }
            for (first, (from, _)) in taken.iter().enumerate() {
                let mut total = 0;
                for (to, events) in &taken[first..] {
                    total += events;
                    let most = (*to - *from).as_secs_f64() * rate + (rate * BURST).max(1.0);
                    prop_assert!(total as f64 <= most + 0.01, "{total} of {most}");
                }
            }
        }
    }
}
