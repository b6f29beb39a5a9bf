//! What was written into the transaction that is open, and what became of it.

use std::sync::Arc;
use std::time::Duration;

use rdkafka::error::RDKafkaErrorCode;
use tokio::time::Instant;

use super::raw::Writer;
use crate::broker::wake::Wake;
use crate::records::Records;

/// How long a wait for deliveries sleeps at most.
const TICK: Duration = Duration::from_millis(100);
/// How long records are pushed at a time while all that is left is to wait for them.
const SEND_STEP_MS: i32 = 2;

/// A record that was not written.
#[derive(Clone, Copy, Debug)]
pub(super) struct Undelivered {
    pub(super) batch: usize,
    pub(super) index: usize,
    pub(super) code: RDKafkaErrorCode,
    /// It stands for all: any of them may be at fault.
    pub(super) one_of_all: bool,
    /// Whether it alone can be at fault.
    pub(super) alone: bool,
}

impl Undelivered {
    /// One of the records failed of `code`; which, is not known.
    pub(super) fn one_of_them(code: RDKafkaErrorCode) -> Self {
        Self {
            batch: 0,
            index: 0,
            code,
            one_of_all: true,
            alone: false,
        }
    }
}

/// See the module.
#[derive(Default)]
pub(super) struct OpenTransaction {
    batches: Vec<Arc<Records>>,
    /// The first failure; nothing is written after it.
    pub(super) failed: Option<Undelivered>,
}

impl OpenTransaction {
    /// How many batches were written into it.
    pub(super) fn batches(&self) -> usize {
        self.batches.len()
    }

    /// Whether what was written are the first of these batches.
    pub(super) fn begins(&self, all: &[Arc<Records>]) -> bool {
        all.len() >= self.batches.len()
            && self
                .batches
                .iter()
                .zip(all)
                .all(|(ours, theirs)| Arc::ptr_eq(ours, theirs))
    }

    /// Hands a batch over. `one_by_one` waits for each record, so that one that is refused is known.
    pub(super) fn write(
        &mut self,
        writer: &mut Writer,
        wake: &Wake,
        records: Arc<Records>,
        one_by_one: bool,
        deadline: Instant,
    ) {
        let batch = self.batches.len();
        for (index, record) in records.iter().enumerate() {
            while self.failed.is_none() {
                match writer.produce(&record, id(batch, index)) {
                    Ok(()) => break,
                    Err(RDKafkaErrorCode::QueueFull) if Instant::now() <= deadline => {
                        self.wait(writer, wake, one_by_one);
                    }
                    Err(code) => self.fail(batch, index, code, true),
                }
            }
            while one_by_one && writer.outstanding() > 0 && self.failed.is_none() {
                self.wait(writer, wake, one_by_one);
                self.expire(deadline);
            }
            if self.failed.is_some() {
                break;
            }
        }
        self.batches.push(records);
    }

    /// Takes what is known of the records by now, and has those that wait sent.
    pub(super) fn look(&mut self, writer: &mut Writer) {
        self.take(writer, false);
        writer.send_wave();
        self.take(writer, false);
    }

    /// Waits until the broker has all records.
    ///
    /// # Errors
    /// The first that it does not have, also when `deadline` is over.
    pub(super) fn delivered(
        &mut self,
        writer: &mut Writer,
        deadline: Instant,
    ) -> Result<(), Undelivered> {
        self.take(writer, false);
        while writer.outstanding() > 0 && self.failed.is_none() {
            // A partition is made known to the coordinator first: a wave may have come too early.
            writer.send_all(SEND_STEP_MS);
            self.take(writer, false);
            self.expire(deadline);
        }
        match self.failed {
            Some(failed) => Err(failed),
            None => Ok(()),
        }
    }

    /// Waits until the fate of all records is known, whatever it is; false where that takes too long.
    pub(super) fn reported(&mut self, writer: &mut Writer, wake: &Wake, deadline: Instant) -> bool {
        while writer.outstanding() > 0 && Instant::now() < deadline {
            self.wait(writer, wake, false);
        }
        writer.outstanding() == 0
    }

    fn wait(&mut self, writer: &mut Writer, wake: &Wake, one_by_one: bool) {
        writer.send_wave();
        let before = writer.outstanding();
        self.take(writer, one_by_one);
        if writer.outstanding() == before {
            wake.wait(TICK);
            self.take(writer, one_by_one);
        }
    }

    fn take(&mut self, writer: &mut Writer, one_by_one: bool) {
        let failed = &mut self.failed;
        writer.deliveries(|delivery| {
            if let Some(code) = delivery.error
                && failed.is_none()
            {
                let (batch, index) = parts(delivery.id);
                *failed = Some(Undelivered {
                    batch,
                    index,
                    code,
                    one_of_all: false,
                    alone: one_by_one,
                });
            }
        });
    }

    fn expire(&mut self, deadline: Instant) {
        if self.failed.is_none() && Instant::now() > deadline {
            self.fail(0, 0, RDKafkaErrorCode::MessageTimedOut, true);
        }
    }

    fn fail(&mut self, batch: usize, index: usize, code: RDKafkaErrorCode, alone: bool) {
        self.failed = Some(Undelivered {
            batch,
            index,
            code,
            one_of_all: false,
            alone,
        });
    }
}

/// A record's number: its batch in the upper half, its index in the lower.
fn id(batch: usize, index: usize) -> usize {
    (batch << 32) | (index & 0xffff_ffff)
}

fn parts(id: usize) -> (usize, usize) {
    (id >> 32, id & 0xffff_ffff)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batch() -> Arc<Records> {
        Arc::new(Records::new())
    }

    /// Equal records of other units must not pass for those that were staged.
    #[test]
    fn what_was_staged_must_be_what_the_transaction_begins_with() {
        let (first, second, third) = (batch(), batch(), batch());
        let open = OpenTransaction {
            batches: vec![first.clone(), second.clone()],
            ..OpenTransaction::default()
        };
        assert!(open.begins(&[first.clone(), second.clone()]));
        assert!(open.begins(&[first.clone(), second.clone(), third.clone()]));
        assert!(!open.begins(std::slice::from_ref(&first)));
        assert!(!open.begins(&[second, first.clone()]));
        assert!(!open.begins(&[first, third]));
    }
}
