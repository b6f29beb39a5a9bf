//! Bids as they become due, at a steady rate.

use std::time::Duration;

use anyhow::Result;

use super::{STEP, Sent};
use crate::bid::{Bid, Bids};
use crate::deploys::rest;

/// See the module.
pub struct Due {
    /// The next ones, and the number of the first of them.
    bids: Bids,
    number: u64,
    /// Events a second.
    rate: u64,
    /// Since when the rate counts, and when some were taken last, in microseconds of the clock of
    /// [`Sent`].
    from: u64,
    last: u64,
    taken: u64,
}

impl Due {
    /// So many a second of those that are left, of which the first has this number.
    pub fn new(bids: Bids, number: u64, rate: u32, sent: &Sent) -> Self {
        let now = sent.now();
        Self {
            bids,
            number,
            rate: u64::from(rate).max(1),
            from: now,
            last: now,
            taken: 0,
        }
    }

    /// The next that are due, with their numbers, at the earliest a step after those before; `None`
    /// once all were taken. Each is sent when it is due: who comes late for it has been late.
    ///
    /// # Errors
    /// There are more than can be noted.
    pub fn take(&mut self, sent: &Sent) -> Result<Option<Vec<(u64, Bid)>>> {
        loop {
            let passed = Duration::from_micros(sent.now().saturating_sub(self.last));
            rest(STEP.saturating_sub(passed));
            let now = sent.now();
            self.last = now;
            let bids = self.until(now);
            if !bids.is_empty() {
                for (number, due, _) in &bids {
                    sent.note(*number, *due)?;
                }
                let bids = bids.into_iter().map(|(number, _, bid)| (number, bid));
                return Ok(Some(bids.collect()));
            }
            if self.bids.is_over() {
                return Ok(None);
            }
        }
    }

    /// Those that are due by then: number, time, bid.
    fn until(&mut self, now: u64) -> Vec<(u64, u64, Bid)> {
        let mut bids = Vec::new();
        loop {
            let due = self.from + (self.taken + 1) * 1_000_000 / self.rate;
            if due > now {
                return bids;
            }
            let Some(bid) = self.bids.next() else {
                return bids;
            };
            bids.push((self.number + self.taken, due, bid));
            self.taken += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A producer that is late must not make its events young.
    #[test]
    fn what_is_due_is_due_at_its_time_however_late_it_is_taken() {
        let sent = Sent::new(10);
        let mut due = Due::new(Bids::new(1, 5), 3, 1_000, &sent);
        due.from = 0;
        let taken = |due: &mut Due, now| -> Vec<(u64, u64)> {
            let bids = due.until(now).into_iter();
            bids.map(|(number, at, _)| (number, at)).collect()
        };
        assert_eq!(taken(&mut due, 999), []);
        assert_eq!(taken(&mut due, 2_500), [(3, 1_000), (4, 2_000)]);
        assert_eq!(taken(&mut due, 2_900), []);
        let rest = [(5, 3_000), (6, 4_000), (7, 5_000)];
        assert_eq!(taken(&mut due, 90_000), rest);
        assert_eq!(due.take(&sent).unwrap(), None);
    }
}
