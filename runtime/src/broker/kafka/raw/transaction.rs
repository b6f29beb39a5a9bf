//! The calls of a transactional producer (KIP-98), and its consumer's place in its group (KIP-447).

use std::ffi::CStr;
use std::ptr::NonNull;
use std::time::Duration;

use rdkafka::TopicPartitionList;
use rdkafka::client::{Client, ClientContext};
use rdkafka::error::RDKafkaErrorCode;
use rdkafka_sys as sys;

use super::writer::Writer;

/// Why a call failed, and what librdkafka says may be done.
#[derive(Debug)]
pub(in crate::broker::kafka) struct Failure {
    text: String,
    /// What failed; where the transaction did before, what failed then.
    pub(in crate::broker::kafka) code: RDKafkaErrorCode,
    /// The same call may be made again.
    pub(in crate::broker::kafka) retriable: bool,
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.text)
    }
}

/// Who the consumer is in its group at a moment: its member id and generation.
pub(in crate::broker::kafka) struct GroupMetadata(NonNull<sys::rd_kafka_consumer_group_metadata_t>);

// SAFETY: the handle is a value of its own that nothing changes; any one thread may use it.
unsafe impl Send for GroupMetadata {}

impl GroupMetadata {
    /// As it is now; `None` for a client without a group.
    pub(in crate::broker::kafka) fn of<C: ClientContext>(consumer: &Client<C>) -> Option<Self> {
        // SAFETY: the client is valid while borrowed; the answer is ours, or null.
        let raw = unsafe { sys::rd_kafka_consumer_group_metadata(consumer.native_ptr()) };
        NonNull::new(raw).map(Self)
    }
}

impl Drop for GroupMetadata {
    fn drop(&mut self) {
        // SAFETY: the handle is ours and goes once.
        unsafe { sys::rd_kafka_consumer_group_metadata_destroy(self.0.as_ptr()) };
    }
}

impl Writer {
    /// Registers the transactional id, which fences its predecessor and ends what that left open.
    pub(in crate::broker::kafka) fn init_transactions(
        &self,
        wait: Duration,
    ) -> Result<(), Failure> {
        // SAFETY: the client is valid; the answer is an error of ours, or null.
        unsafe {
            result(sys::rd_kafka_init_transactions(
                self.native_ptr(),
                milliseconds(wait),
            ))
        }
    }

    /// Begins a transaction.
    pub(in crate::broker::kafka) fn begin_transaction(&self) -> Result<(), Failure> {
        // SAFETY: as above.
        unsafe { result(sys::rd_kafka_begin_transaction(self.native_ptr())) }
    }

    /// Why the open transaction failed, where it did.
    pub(in crate::broker::kafka) fn cause(&self) -> Option<RDKafkaErrorCode> {
        // Refused while one is open. Where that one failed, the answer says of what.
        self.begin_transaction().err().map(|failure| failure.code)
    }

    /// Adds positions to the transaction; refused by the coordinator where `group` is out of date.
    pub(in crate::broker::kafka) fn send_offsets(
        &self,
        offsets: &TopicPartitionList,
        group: &GroupMetadata,
        wait: Duration,
    ) -> Result<(), Failure> {
        // SAFETY: client, list and metadata are valid, and copied by the call.
        unsafe {
            result(sys::rd_kafka_send_offsets_to_transaction(
                self.native_ptr(),
                offsets.ptr(),
                group.0.as_ptr(),
                milliseconds(wait),
            ))
        }
    }

    /// Ends the transaction with effect.
    pub(in crate::broker::kafka) fn commit_transaction(
        &self,
        wait: Duration,
    ) -> Result<(), Failure> {
        // SAFETY: the client is valid; the answer is an error of ours, or null.
        unsafe {
            result(sys::rd_kafka_commit_transaction(
                self.native_ptr(),
                milliseconds(wait),
            ))
        }
    }

    /// Ends the transaction without effect.
    pub(in crate::broker::kafka) fn abort_transaction(
        &self,
        wait: Duration,
    ) -> Result<(), Failure> {
        // SAFETY: as above.
        unsafe {
            result(sys::rd_kafka_abort_transaction(
                self.native_ptr(),
                milliseconds(wait),
            ))
        }
    }
}

/// # Safety
/// `error` must be null or an error that is ours.
unsafe fn result(error: *mut sys::rd_kafka_error_t) -> Result<(), Failure> {
    if error.is_null() {
        return Ok(());
    }
    // SAFETY: the error is valid until it is destroyed, once, at the end; its text is a C string.
    unsafe {
        let failure = Failure {
            text: CStr::from_ptr(sys::rd_kafka_error_string(error))
                .to_string_lossy()
                .into_owned(),
            code: sys::rd_kafka_error_code(error).into(),
            retriable: sys::rd_kafka_error_is_retriable(error) != 0,
        };
        sys::rd_kafka_error_destroy(error);
        Err(failure)
    }
}

fn milliseconds(wait: Duration) -> i32 {
    i32::try_from(wait.as_millis()).unwrap_or(i32::MAX)
}
