//! The positions of a transaction: sent to the group's coordinator, which writes them with it.

use std::sync::mpsc::sync_channel;
use std::time::Duration;

use rdkafka::consumer::Consumer;
use tokio::time::Instant;

use super::errors::{Fault, fault};
use super::open_transaction::Undelivered;
use super::raw::{self, Failure, GroupMetadata};
use super::transactions::{CALL_WAIT, Ended, RETRY, TransactorThread, no_producer};
use super::transactor::Transaction;

/// How long after its own time limit a call to librdkafka is taken to hang.
const HANG_MARGIN: Duration = Duration::from_secs(2);
impl TransactorThread {
    /// Adds the positions, if all their partitions are still ours: the coordinator checks member and
    /// generation, but not who has a partition.
    pub(super) fn send_offsets(&mut self, job: &Transaction) -> Result<(), Ended> {
        let deadline = Instant::now() + CALL_WAIT;
        loop {
            let group = self.ends.while_ours(&job.assignments, |member| {
                GroupMetadata::of(member.client())
            });
            let Some(group) = group.flatten() else {
                return Err(Ended::Aborted(
                    "the group took partitions of it back".to_owned(),
                ));
            };
            match self.send_offsets_as(job, group)? {
                Ok(()) => return Ok(()),
                Err(failure) if failure.retriable && Instant::now() < deadline => {
                    self.inbox.wake.wait(RETRY);
                }
                Err(failure) if fault(failure.code) != Fault::Passing => {
                    return Err(Ended::Undelivered(Undelivered::one_of_them(failure.code)));
                }
                Err(failure) => return Err(Ended::Aborted(failure.to_string())),
            }
        }
    }

    /// Makes the call on a thread of its own, for it can hang: librdkafka forgets a request when the
    /// group's coordinator moves at the wrong moment. Such a producer is left to its thread; the next
    /// one of its transactional id ends what it left open.
    fn send_offsets_as(
        &mut self,
        job: &Transaction,
        group: GroupMetadata,
    ) -> Result<Result<(), Failure>, Ended> {
        let Some(writer) = self.writer.take() else {
            return Err(no_producer());
        };
        let list = raw::offsets_to_commit(job.commits.iter());
        let (answer, answered) = sync_channel(1);
        let call = move || {
            let result = writer.send_offsets(&list, &group, CALL_WAIT);
            // Nobody waits any more: the producer ends here.
            let _ = answer.send((writer, result));
        };
        let made = std::thread::Builder::new()
            .name("kafka-tx-offsets".to_owned())
            .spawn(call);
        let ended = match made {
            Ok(_) => answered.recv_timeout(CALL_WAIT + HANG_MARGIN).map_err(|_| {
                "librdkafka does not come back from adding the positions; its producer is replaced"
                    .to_owned()
            }),
            Err(error) => Err(format!("there is no thread to add the positions: {error}")),
        };
        match ended {
            Ok((writer, result)) => {
                self.writer = Some(writer);
                Ok(result)
            }
            Err(reason) => {
                self.open = None;
                Err(Ended::Aborted(reason))
            }
        }
    }
}
