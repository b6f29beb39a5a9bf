//! Fetched messages, borrowed from librdkafka.

use std::ffi::CStr;
use std::marker::PhantomData;
use std::slice;

use rdkafka::error::RDKafkaErrorCode;
use rdkafka::types::{RDKafkaMessage, RDKafkaRespErr};
use rdkafka_sys as sys;

/// Messages that one call fetched; they go back to librdkafka when it is cleared or dropped.
///
/// It lives no longer than the client: its owner keeps the [`super::Queue`] that filled it, which
/// keeps the client.
pub(in crate::broker::kafka) struct MessageBatch {
    /// Each came from `rd_kafka_consume_batch_queue` and is destroyed exactly once, by `clear`.
    messages: Vec<*mut RDKafkaMessage>,
}

// SAFETY: a fetched message belongs to the application, and librdkafka lets any thread read and
// destroy it; the batch owns its messages alone.
unsafe impl Send for MessageBatch {}

impl MessageBatch {
    /// No messages, with room for `capacity` (at least one).
    pub(in crate::broker::kafka) fn new(capacity: usize) -> Self {
        Self {
            messages: Vec::with_capacity(capacity.max(1)),
        }
    }

    pub(in crate::broker::kafka) fn len(&self) -> usize {
        self.messages.len()
    }

    /// The message at `index`; panics past the end, as a slice does.
    pub(in crate::broker::kafka) fn get(&self, index: usize) -> Message<'_> {
        Message {
            raw: self.messages[index],
            batch: PhantomData,
        }
    }

    pub(in crate::broker::kafka) fn iter(&self) -> impl Iterator<Item = Message<'_>> {
        (0..self.messages.len()).map(|index| self.get(index))
    }

    /// Gives all messages back.
    pub(in crate::broker::kafka) fn clear(&mut self) {
        for message in self.messages.drain(..) {
            // SAFETY: the pointer came from a batch call and leaves the list here, so it is
            // destroyed once; no `Message` is left, for they borrow `self`.
            unsafe { sys::rd_kafka_message_destroy(message) };
        }
    }

    /// Fills the empty batch with up to `limit` messages of what `queue` holds, without waiting.
    ///
    /// # Safety
    /// `queue` must be a valid queue of a consumer.
    pub(super) unsafe fn fill(
        &mut self,
        queue: *mut sys::rd_kafka_queue_t,
        limit: usize,
        wait_ms: i32,
    ) {
        self.clear();
        let limit = limit.clamp(1, self.messages.capacity());
        // SAFETY: the list has room for `limit` pointers; librdkafka writes at most that many and
        // returns how many it wrote, or a negative number for none.
        let count = unsafe {
            sys::rd_kafka_consume_batch_queue(queue, wait_ms, self.messages.as_mut_ptr(), limit)
        };
        let count = usize::try_from(count).unwrap_or(0).min(limit);
        // SAFETY: the first `count` elements were written just now and fit the capacity.
        unsafe { self.messages.set_len(count) };
    }
}

impl Drop for MessageBatch {
    fn drop(&mut self) {
        self.clear();
    }
}

/// A fetched message, or an error that stands in its place in the partition's order.
#[derive(Clone, Copy)]
pub(in crate::broker::kafka) struct Message<'a> {
    /// Valid while the batch is borrowed.
    raw: *mut RDKafkaMessage,
    batch: PhantomData<&'a MessageBatch>,
}

impl<'a> Message<'a> {
    /// The error that the partition reports here; then there is no key, value or header.
    pub(in crate::broker::kafka) fn error(&self) -> Option<RDKafkaErrorCode> {
        let code = self.fields().err;
        (code != RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR).then(|| code.into())
    }

    pub(in crate::broker::kafka) fn offset(&self) -> i64 {
        self.fields().offset
    }

    pub(in crate::broker::kafka) fn key(&self) -> Option<&'a [u8]> {
        let fields = self.fields();
        // SAFETY: librdkafka gives a key as a pointer to so many bytes, or null for a null key,
        // and they live as long as the message.
        unsafe { bytes(fields.key, fields.key_len) }
    }

    pub(in crate::broker::kafka) fn value(&self) -> Option<&'a [u8]> {
        if self.error().is_some() {
            return None;
        }
        let fields = self.fields();
        // SAFETY: as for the key; of an error the payload would be its text, which was excluded.
        unsafe { bytes(fields.payload, fields.len) }
    }

    /// Milliseconds since 1970-01-01 UTC (0 where the record has none), and whether the broker
    /// set it.
    pub(in crate::broker::kafka) fn timestamp(&self) -> (i64, bool) {
        let mut kind = sys::rd_kafka_timestamp_type_t::RD_KAFKA_TIMESTAMP_NOT_AVAILABLE;
        // SAFETY: the message is valid, and `kind` is a place for the kind.
        let milliseconds = unsafe { sys::rd_kafka_message_timestamp(self.raw, &mut kind) };
        match kind {
            sys::rd_kafka_timestamp_type_t::RD_KAFKA_TIMESTAMP_NOT_AVAILABLE => (0, false),
            sys::rd_kafka_timestamp_type_t::RD_KAFKA_TIMESTAMP_CREATE_TIME => (milliseconds, false),
            sys::rd_kafka_timestamp_type_t::RD_KAFKA_TIMESTAMP_LOG_APPEND_TIME => {
                (milliseconds, true)
            }
        }
    }

    /// Calls `each` with every header's name and value in order. Names are bytes: a producer may
    /// write any.
    pub(in crate::broker::kafka) fn headers(&self, mut each: impl FnMut(&[u8], Option<&[u8]>)) {
        let mut headers = std::ptr::null_mut();
        // SAFETY: the message is valid; on success `headers` is a list that the message owns.
        let found = unsafe { sys::rd_kafka_message_headers(self.raw, &mut headers) };
        if found != RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR || headers.is_null() {
            return;
        }
        for index in 0.. {
            let mut name = std::ptr::null();
            let mut value = std::ptr::null();
            let mut size = 0;
            // SAFETY: the list is valid while the message is; an index past the end answers with
            // an error, which ends the loop before anything is read.
            let result = unsafe {
                sys::rd_kafka_header_get_all(headers, index, &mut name, &mut value, &mut size)
            };
            if result != RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR {
                return;
            }
            // SAFETY: names are C strings of the list, values so many bytes or null; both live as
            // long as the message.
            unsafe {
                each(CStr::from_ptr(name).to_bytes(), bytes(value, size));
            }
        }
    }

    fn fields(&self) -> &'a RDKafkaMessage {
        // SAFETY: the batch holds the message until it is cleared, which needs it unborrowed;
        // librdkafka writes nothing to a message that it handed over.
        unsafe { &*self.raw }
    }
}

/// # Safety
/// `start` must be null or point to `length` bytes that live for 'a.
unsafe fn bytes<'a>(start: *const std::ffi::c_void, length: usize) -> Option<&'a [u8]> {
    if start.is_null() {
        return None;
    }
    // SAFETY: the caller's promise.
    Some(unsafe { slice::from_raw_parts(start.cast(), length) })
}
