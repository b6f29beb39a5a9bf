//! Events of librdkafka's queues.

use std::ffi::{CStr, c_char};
use std::ptr::{self, NonNull};

use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::types::{RDKafkaEvent, RDKafkaRespErr};
use rdkafka_sys as sys;

use super::offsets::{Committed, read_list};

/// An event, given back when dropped.
pub(super) struct Event(NonNull<RDKafkaEvent>);

/// The next event of a queue. `queue` must be valid, which [`super::Queue`] sees to.
pub(super) fn poll(queue: NonNull<sys::rd_kafka_queue_t>, wait_ms: i32) -> Option<Event> {
    // SAFETY: only `Queue` and functions of this folder call this, with a queue that they own.
    NonNull::new(unsafe { sys::rd_kafka_queue_poll(queue.as_ptr(), wait_ms) }).map(Event)
}

impl Drop for Event {
    fn drop(&mut self) {
        // SAFETY: the event came from a poll and goes once.
        unsafe { sys::rd_kafka_event_destroy(self.0.as_ptr()) };
    }
}

/// How a commit ended.
pub(in crate::broker::kafka) struct CommitReport {
    /// The number that the commit was sent with.
    pub(in crate::broker::kafka) id: usize,
    /// The first thing that went wrong, of the request or of one of its partitions.
    pub(in crate::broker::kafka) error: Option<RDKafkaErrorCode>,
}

/// What became of a record.
pub(in crate::broker::kafka) struct Delivery<'a> {
    /// The number that the record was produced with.
    pub(in crate::broker::kafka) id: usize,
    pub(in crate::broker::kafka) error: Option<RDKafkaErrorCode>,
    pub(in crate::broker::kafka) partition: i32,
    pub(in crate::broker::kafka) offset: i64,
    _event: std::marker::PhantomData<&'a Event>,
}

impl Event {
    fn kind(&self) -> i32 {
        // SAFETY: the event is valid.
        unsafe { sys::rd_kafka_event_type(self.0.as_ptr()) }
    }

    pub(super) fn error(&self) -> Option<RDKafkaErrorCode> {
        // SAFETY: the event is valid; any kind has an error code.
        let code = unsafe { sys::rd_kafka_event_error(self.0.as_ptr()) };
        (code != RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR).then(|| code.into())
    }

    pub(super) fn commit_report(&self) -> Option<CommitReport> {
        if self.kind() != sys::RD_KAFKA_EVENT_OFFSET_COMMIT {
            return None;
        }
        // SAFETY: the event is valid; the opaque is the number given to `send_commit`, as a
        // pointer that nobody follows.
        let id = unsafe { sys::rd_kafka_event_opaque(self.0.as_ptr()) } as usize;
        // SAFETY: the event is valid and owns the list, which is read before it goes.
        let list = unsafe { sys::rd_kafka_event_topic_partition_list(self.0.as_ptr()) };
        // SAFETY: as above.
        let of_partition = unsafe { read_list(list) }
            .into_iter()
            .find_map(|committed| committed.error);
        Some(CommitReport {
            id,
            error: self.error().or(of_partition),
        })
    }

    pub(super) fn deliveries(&self, each: &mut impl FnMut(Delivery<'_>)) {
        if self.kind() != sys::RD_KAFKA_EVENT_DR {
            return;
        }
        loop {
            // SAFETY: the event is valid; it hands out each of its messages once and keeps them.
            let message = unsafe { sys::rd_kafka_event_message_next(self.0.as_ptr()) };
            // SAFETY: the pointer is null or a message that lives as long as the event.
            let Some(message) = (unsafe { message.as_ref() }) else {
                return;
            };
            each(Delivery {
                id: message._private as usize,
                error: (message.err != RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR)
                    .then(|| message.err.into()),
                partition: message.partition,
                offset: message.offset,
                _event: std::marker::PhantomData,
            });
        }
    }

    /// Hands log lines and errors to `context`.
    pub(super) fn tell<C: ClientContext>(&self, context: &C) {
        match self.kind() {
            sys::RD_KAFKA_EVENT_LOG => {
                let mut facility: *const c_char = ptr::null();
                let mut text: *const c_char = ptr::null();
                let mut level = 0;
                // SAFETY: the event is valid and a log line; on success the texts are C strings
                // that it owns.
                unsafe {
                    let read = sys::rd_kafka_event_log(
                        self.0.as_ptr(),
                        &mut facility,
                        &mut text,
                        &mut level,
                    );
                    if read == 0 {
                        context.log(
                            log_level(level),
                            CStr::from_ptr(facility).to_string_lossy().trim(),
                            CStr::from_ptr(text).to_string_lossy().trim(),
                        );
                    }
                }
            }
            sys::RD_KAFKA_EVENT_ERROR => {
                let Some(code) = self.error() else { return };
                // SAFETY: the event is valid; its text is null or a C string that it owns.
                let text = unsafe {
                    let text = sys::rd_kafka_event_error_string(self.0.as_ptr());
                    if text.is_null() {
                        String::new()
                    } else {
                        CStr::from_ptr(text).to_string_lossy().into_owned()
                    }
                };
                context.error(KafkaError::Global(code), &text);
            }
            _ => {}
        }
    }

    /// The offsets of a group, where the event answers a request for them.
    pub(super) fn group_offsets(&self) -> Result<Vec<Committed>, RDKafkaErrorCode> {
        if let Some(code) = self.error() {
            return Err(code);
        }
        // SAFETY: the event is valid; the result is null for another kind of event, and belongs to
        // the event like all that is read from it here.
        unsafe {
            let result = sys::rd_kafka_event_ListConsumerGroupOffsets_result(self.0.as_ptr());
            if result.is_null() {
                return Err(RDKafkaErrorCode::Fail);
            }
            let mut count = 0;
            let groups = sys::rd_kafka_ListConsumerGroupOffsets_result_groups(result, &mut count);
            if groups.is_null() || count == 0 {
                return Ok(Vec::new());
            }
            let group = *groups;
            let error = sys::rd_kafka_group_result_error(group);
            if !error.is_null() {
                let code = sys::rd_kafka_error_code(error);
                if code != RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR {
                    return Err(code.into());
                }
            }
            Ok(read_list(sys::rd_kafka_group_result_partitions(group)))
        }
    }
}

fn log_level(level: i32) -> RDKafkaLogLevel {
    match level {
        ..=0 => RDKafkaLogLevel::Emerg,
        1 => RDKafkaLogLevel::Alert,
        2 => RDKafkaLogLevel::Critical,
        3 => RDKafkaLogLevel::Error,
        4 => RDKafkaLogLevel::Warning,
        5 => RDKafkaLogLevel::Notice,
        6 => RDKafkaLogLevel::Info,
        7.. => RDKafkaLogLevel::Debug,
    }
}
