//! When to hand back what is done, before the time of the call runs out.
//!
//! Asking the runtime costs a call through the wall, so it is asked rarely while events are quick
//! and often when they are slow.

/// Most events between two looks at the time.
const STRIDE: u32 = 64;

/// Watches the time of one call.
#[derive(Debug)]
pub(crate) struct Pace {
    budget_ms: u32,
    /// Number of finished events at which to look next.
    next: u32,
}

impl Pace {
    /// `budget_ms` is what the call may take; 0 stands for no limit known.
    pub(crate) fn new(budget_ms: u32) -> Self {
        Self { budget_ms, next: 1 }
    }

    /// Whether to stop with `done` events finished. `left` asks for the milliseconds left.
    pub(crate) fn stop(&mut self, done: u32, left: impl FnOnce() -> u32) -> bool {
        if self.budget_ms == 0 || done < self.next {
            return false;
        }
        let left = u64::from(left().min(self.budget_ms)) * 1000;
        let budget = u64::from(self.budget_ms) * 1000;
        let each = (budget - left) / u64::from(done.max(1)) + 1;
        // An eighth stays for handing over, and events vary: the next may take twice as long.
        if left <= budget / 8 || left < each * 2 {
            return true;
        }
        let in_a_quarter = u32::try_from(left / 4 / each).unwrap_or(STRIDE);
        self.next = done + in_a_quarter.clamp(1, STRIDE);
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

    /// Runs events of `each` milliseconds; how many were finished, and how often the time was asked.
    fn run(budget: u32, events: u32, each: f64) -> (u32, u32) {
        let mut pace = Pace::new(budget);
        let asked = Cell::new(0);
        for done in 1..=events {
            let left = f64::from(budget) - each * f64::from(done);
            let ask = || {
                asked.set(asked.get() + 1);
                left.max(0.0) as u32
            };
            if pace.stop(done, ask) {
                return (done, asked.get());
            }
        }
        (events, asked.get())
    }

    /// A look an event would cost more than passing an event through does.
    #[test]
    fn quick_events_hardly_ask() {
        let (done, asked) = run(1000, 256, 0.001);
        assert_eq!(done, 256);
        assert!(asked <= 6, "asked {asked} times");
    }

    /// Running into the deadline would throw the instance and the finished events away.
    #[test]
    fn slow_events_stop_in_time() {
        for each in [3.0, 40.0, 120.0, 400.0] {
            let (done, _) = run(1000, 256, each);
            let used = each * f64::from(done);
            assert!(used < 1000.0, "{done} events of {each} ms");
            assert!(used > 400.0 || done == 1, "{done} events of {each} ms");
        }
    }

    #[test]
    fn no_budget_means_no_stop() {
        assert_eq!(run(0, 100, 1000.0), (100, 0));
    }
}
