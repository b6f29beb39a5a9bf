//! Which positions may be committed: those before which everything derived was acknowledged.
//!
//! Counting by epoch (all that was produced between two commits) costs a decrement a record, where
//! a future or a box for each would cost an allocation.

use std::cell::Cell;
use std::collections::VecDeque;

use rdkafka_sys as sys;

/// What the delivery reports of a producer add up to. Read and written on the producer's thread
/// alone: callbacks run inside its poll.
#[derive(Debug)]
pub struct Deliveries {
    /// For each epoch (modulo their number): records produced and not yet delivered.
    pending: [Cell<u64>; 1024],
    failed: Cell<Option<sys::rd_kafka_resp_err_t>>,
}

impl Default for Deliveries {
    fn default() -> Self {
        Self {
            pending: [const { Cell::new(0) }; 1024],
            failed: Cell::new(None),
        }
    }
}

impl Deliveries {
    /// Records of an epoch that are not delivered yet.
    pub fn pending(&self, epoch: usize) -> u64 {
        self.slot(epoch).get()
    }

    /// Records of an epoch were produced.
    pub fn produced(&self, epoch: usize, records: u64) {
        let slot = self.slot(epoch);
        slot.set(slot.get() + records);
    }

    /// A record of an epoch was delivered, or failed for good.
    pub fn delivered(&self, epoch: usize) {
        let slot = self.slot(epoch);
        slot.set(slot.get().saturating_sub(1));
    }

    /// Notes that a record was not delivered.
    pub fn failed(&self, code: sys::rd_kafka_resp_err_t) {
        self.failed.set(Some(code));
    }

    /// Why a record was not delivered, if any was not.
    pub fn failure(&self) -> Option<sys::rd_kafka_resp_err_t> {
        self.failed.get()
    }

    fn slot(&self, epoch: usize) -> &Cell<u64> {
        &self.pending[epoch % self.pending.len()]
    }
}

/// Positions by partition that become committable once what was derived before is delivered.
#[derive(Debug, Default)]
pub struct Epochs {
    waiting: VecDeque<(usize, Vec<i64>)>,
}

impl Epochs {
    /// How many epochs may wait at once: fewer than there are counters.
    pub const MOST: usize = 1000;

    /// Closes an epoch at these positions.
    pub fn close(&mut self, epoch: usize, positions: &[i64]) {
        self.waiting.push_back((epoch, positions.to_vec()));
    }

    /// Whether all that was closed is delivered.
    pub fn empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Whether no more may be closed before one is delivered.
    pub fn full(&self) -> bool {
        self.waiting.len() >= Self::MOST
    }

    /// The positions of the newest epoch that is delivered with all before it, once.
    pub fn delivered(&mut self, deliveries: &Deliveries) -> Option<Vec<i64>> {
        let mut newest = None;
        while let Some((epoch, _)) = self.waiting.front()
            && deliveries.pending(*epoch) == 0
        {
            newest = self.waiting.pop_front().map(|(_, positions)| positions);
        }
        newest
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_position_waits_for_all_that_was_derived_before_it() {
        let deliveries = Deliveries::default();
        let mut epochs = Epochs::default();
        deliveries.produced(0, 2);
        epochs.close(0, &[10]);
        epochs.close(1, &[20]);
        assert_eq!(epochs.delivered(&deliveries), None);
        deliveries.delivered(0);
        assert_eq!(epochs.delivered(&deliveries), None);
        deliveries.delivered(0);
        assert_eq!(epochs.delivered(&deliveries), Some(vec![20]));
        assert_eq!(epochs.delivered(&deliveries), None);
    }
}
