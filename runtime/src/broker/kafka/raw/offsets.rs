//! Positions: committing them with their metadata, reading them, and what is known of ends.

use std::ffi::{CStr, CString, c_void};
use std::ptr;
use std::slice;
use std::sync::Arc;

use rdkafka::TopicPartitionList;
use rdkafka::client::{Client, ClientContext};
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::types::{RDKafkaAdminOp, RDKafkaRespErr};
use rdkafka_sys as sys;

use super::Queue;
use super::event;
use crate::broker::Commit;
use crate::decide::offsets::Progress;
use crate::decide::position_codec::{decode_above, encode_above};
use crate::event::TopicPartition;

/// A partition of a list with what librdkafka knows of it.
#[derive(Clone, Debug)]
pub(in crate::broker::kafka) struct Committed {
    pub(in crate::broker::kafka) topic: String,
    pub(in crate::broker::kafka) partition: i32,
    /// Negative where there is none.
    pub(in crate::broker::kafka) offset: i64,
    metadata: Vec<u8>,
    pub(in crate::broker::kafka) error: Option<RDKafkaErrorCode>,
}

impl Committed {
    /// The position that was committed, if one was.
    pub(in crate::broker::kafka) fn progress(&self) -> Option<Progress> {
        let next = u64::try_from(self.offset).ok()?;
        // Metadata that another program wrote may be anything.
        let metadata = std::str::from_utf8(&self.metadata).unwrap_or_default();
        Some(decode_above(next, metadata))
    }
}

/// The partitions of a list.
pub(in crate::broker::kafka) fn committed_of(list: &TopicPartitionList) -> Vec<Committed> {
    // SAFETY: the list is valid while borrowed.
    unsafe { read_list(list.ptr()) }
}

/// # Safety
/// `list` must be null or a valid list.
pub(super) unsafe fn read_list(
    list: *const sys::rd_kafka_topic_partition_list_t,
) -> Vec<Committed> {
    // SAFETY: the caller's promise.
    let Some(list) = (unsafe { list.as_ref() }) else {
        return Vec::new();
    };
    let count = usize::try_from(list.cnt).unwrap_or(0);
    if list.elems.is_null() || count == 0 {
        return Vec::new();
    }
    // SAFETY: a valid list points to as many elements as it counts.
    let elements = unsafe { slice::from_raw_parts(list.elems, count) };
    elements
        .iter()
        .map(|element| {
            // SAFETY: an element's topic is a C string, its metadata null or so many bytes.
            let (topic, metadata) = unsafe {
                let metadata: &[u8] = if element.metadata.is_null() {
                    &[]
                } else {
                    slice::from_raw_parts(element.metadata.cast(), element.metadata_size)
                };
                (CStr::from_ptr(element.topic), metadata)
            };
            Committed {
                topic: topic.to_string_lossy().into_owned(),
                partition: element.partition,
                offset: element.offset,
                metadata: metadata.to_vec(),
                error: (element.err != RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR)
                    .then(|| element.err.into()),
            }
        })
        .collect()
}

/// The list that commits these positions, ranges above in its metadata.
pub(in crate::broker::kafka) fn offsets_to_commit<'a>(
    commits: impl Iterator<Item = &'a Commit>,
) -> TopicPartitionList {
    let mut list = TopicPartitionList::new();
    for commit in commits {
        let partition = i32::try_from(commit.partition.partition).unwrap_or(i32::MAX);
        let mut element = list.add_partition(&commit.partition.topic, partition);
        let offset = i64::try_from(commit.progress.next).unwrap_or(i64::MAX);
        // Fails for logical offsets alone, and this is none.
        let _ = element.set_offset(rdkafka::Offset::Offset(offset));
        let metadata = encode_above(&commit.progress);
        if !metadata.is_empty() {
            element.set_metadata(metadata);
        }
    }
    list
}

/// Sends a commit; the report comes to `answers` under `id`.
///
/// # Errors
/// Where the client cannot even try.
pub(in crate::broker::kafka) fn send_commit<C: ClientContext>(
    client: &Client<C>,
    list: &TopicPartitionList,
    answers: &Queue,
    id: usize,
) -> Result<(), RDKafkaErrorCode> {
    // SAFETY: client, list and queue are valid; the list is copied; `id` travels as a pointer that
    // nobody follows; without a callback the report becomes an event of the queue.
    let code = unsafe {
        sys::rd_kafka_commit_queue(
            client.native_ptr(),
            list.ptr(),
            answers.as_ptr(),
            None,
            id as *mut c_void,
        )
    };
    match code {
        RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR => Ok(()),
        code => Err(code.into()),
    }
}

/// Where the application stands in each partition of the list that it has read of: one past the
/// last message or marker that it took. No I/O.
pub(in crate::broker::kafka) fn positions<C: ClientContext>(
    client: &Client<C>,
    list: &TopicPartitionList,
) -> Vec<(TopicPartition, u64)> {
    // SAFETY: client and list are valid; the call fills the list's offsets in.
    let code = unsafe { sys::rd_kafka_position(client.native_ptr(), list.ptr()) };
    if code != RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR {
        return Vec::new();
    }
    committed_of(list)
        .into_iter()
        .filter(|entry| entry.error.is_none())
        .filter_map(|entry| {
            let partition = u32::try_from(entry.partition).ok()?;
            let next = u64::try_from(entry.offset).ok()?;
            Some((TopicPartition::new(entry.topic, partition), next))
        })
        .collect()
}

/// The high watermark that the last fetch told; `None` before the first. No I/O.
pub(in crate::broker::kafka) fn cached_high_watermark<C: ClientContext>(
    client: &Client<C>,
    topic: &CStr,
    partition: i32,
) -> Option<u64> {
    let (mut low, mut high) = (-1, -1);
    // SAFETY: the client is valid while borrowed, the name is a C string, the numbers have places.
    let code = unsafe {
        sys::rd_kafka_get_watermark_offsets(
            client.native_ptr(),
            topic.as_ptr(),
            partition,
            &mut low,
            &mut high,
        )
    };
    (code == RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR)
        .then(|| u64::try_from(high).ok())
        .flatten()
}

/// All positions of a group. Blocks for up to `wait_ms`.
///
/// # Errors
/// The broker's, or a time-out.
pub(in crate::broker::kafka) fn group_offsets<C: ClientContext>(
    client: &Client<C>,
    keep: Arc<dyn std::any::Any + Send + Sync>,
    group: &str,
    wait_ms: i32,
) -> Result<Vec<Committed>, RDKafkaErrorCode> {
    let group = CString::new(group).map_err(|_| RDKafkaErrorCode::InvalidGroupId)?;
    let answers = Queue::new(client, keep).ok_or(RDKafkaErrorCode::State)?;
    let rk = client.native_ptr();
    // SAFETY: the client is valid; request and options are made here, given to a call that copies
    // them, and destroyed once each; a null list of partitions asks for all.
    unsafe {
        let mut request = sys::rd_kafka_ListConsumerGroupOffsets_new(group.as_ptr(), ptr::null());
        let options = sys::rd_kafka_AdminOptions_new(
            rk,
            RDKafkaAdminOp::RD_KAFKA_ADMIN_OP_LISTCONSUMERGROUPOFFSETS,
        );
        let mut text = [0; 256];
        sys::rd_kafka_AdminOptions_set_request_timeout(
            options,
            wait_ms,
            text.as_mut_ptr(),
            text.len(),
        );
        sys::rd_kafka_ListConsumerGroupOffsets(rk, &mut request, 1, options, answers.as_ptr());
        sys::rd_kafka_AdminOptions_destroy(options);
        sys::rd_kafka_ListConsumerGroupOffsets_destroy(request);
    }
    match answers.poll(wait_ms.saturating_add(1_000)) {
        Some(event) => event.group_offsets(),
        None => Err(RDKafkaErrorCode::OperationTimedOut),
    }
}

impl Queue {
    fn poll(&self, wait_ms: i32) -> Option<event::Event> {
        event::poll(std::ptr::NonNull::new(self.as_ptr())?, wait_ms)
    }
}

/// Asks the broker for nothing but an answer. Blocks for up to `wait_ms`.
pub(in crate::broker::kafka) fn probe<C: ClientContext>(client: &Client<C>, wait_ms: i32) -> bool {
    let mut metadata = ptr::null();
    // SAFETY: the client is valid; without topics the answer lists brokers alone; on success the
    // answer is ours and destroyed once.
    unsafe {
        let code = sys::rd_kafka_metadata(
            client.native_ptr(),
            0,
            ptr::null_mut(),
            &mut metadata,
            wait_ms,
        );
        if !metadata.is_null() {
            sys::rd_kafka_metadata_destroy(metadata);
        }
        code == RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR
    }
}
