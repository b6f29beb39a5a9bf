//! librdkafka's queues, and reading a topic without a group.

use std::any::Any;
use std::ffi::{CString, c_void};
use std::ptr::{self, NonNull};
use std::sync::Arc;

use rdkafka::client::{Client, ClientContext};
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::types::RDKafka;
use rdkafka_sys as sys;

use super::event::{self, CommitReport, Delivery};
use super::message::MessageBatch;
use crate::broker::kafka::bell::Bell;

/// A queue of a client, which it keeps alive.
pub(in crate::broker::kafka) struct Queue {
    raw: NonNull<sys::rd_kafka_queue_t>,
    bell: Option<Arc<Bell>>,
    /// Dropped after the queue was destroyed.
    _client: Arc<dyn Any + Send + Sync>,
}

// SAFETY: librdkafka's queues take calls from any thread.
unsafe impl Send for Queue {}
// SAFETY: as above; each call locks the queue.
unsafe impl Sync for Queue {}

impl Queue {
    /// A queue of its own, to which answers are sent.
    ///
    /// `keep` must own `client`; it keeps it alive.
    pub(in crate::broker::kafka) fn new<C: ClientContext>(
        client: &Client<C>,
        keep: Arc<dyn Any + Send + Sync>,
    ) -> Option<Self> {
        // SAFETY: the client is valid while borrowed.
        let raw = unsafe { sys::rd_kafka_queue_new(client.native_ptr()) };
        Self::wrap(raw, keep)
    }

    /// The queue of the consumer's own events: rebalances, errors, log lines.
    pub(in crate::broker::kafka) fn of_consumer<C: ClientContext>(
        client: &Client<C>,
        keep: Arc<dyn Any + Send + Sync>,
    ) -> Option<Self> {
        // SAFETY: the client is valid while borrowed; null comes back where it is no consumer.
        let raw = unsafe { sys::rd_kafka_queue_get_consumer(client.native_ptr()) };
        Self::wrap(raw, keep)
    }

    /// The client's main queue.
    pub(super) fn main<C: ClientContext>(
        client: &Client<C>,
        keep: Arc<dyn Any + Send + Sync>,
    ) -> Option<Self> {
        // SAFETY: the client is valid while borrowed.
        let raw = unsafe { sys::rd_kafka_queue_get_main(client.native_ptr()) };
        Self::wrap(raw, keep)
    }

    /// The queue into which the messages of a partition are fetched.
    pub(in crate::broker::kafka) fn of_partition<C: ClientContext>(
        client: &Client<C>,
        keep: Arc<dyn Any + Send + Sync>,
        topic: &str,
        partition: i32,
    ) -> Option<Self> {
        let topic = CString::new(topic).ok()?;
        // SAFETY: the client is valid while borrowed, the name is a C string that the call copies.
        let raw = unsafe {
            sys::rd_kafka_queue_get_partition(client.native_ptr(), topic.as_ptr(), partition)
        };
        Self::wrap(raw, keep)
    }

    fn wrap(raw: *mut sys::rd_kafka_queue_t, keep: Arc<dyn Any + Send + Sync>) -> Option<Self> {
        Some(Self {
            raw: NonNull::new(raw)?,
            bell: None,
            _client: keep,
        })
    }

    /// Keeps what comes to this queue here, also when its partition is assigned, which would
    /// else send it on to the consumer's queue.
    pub(in crate::broker::kafka) fn stand_alone(&self) {
        // SAFETY: the queue is valid; null is no target.
        unsafe { sys::rd_kafka_queue_forward(self.raw.as_ptr(), ptr::null_mut()) };
    }

    /// How many operations wait.
    pub(in crate::broker::kafka) fn len(&self) -> usize {
        // SAFETY: the queue is valid.
        unsafe { sys::rd_kafka_queue_length(self.raw.as_ptr()) }
    }

    /// Rings `bell` whenever the queue was empty and is no more.
    pub(in crate::broker::kafka) fn rings(&mut self, bell: Arc<Bell>) {
        self.silence();
        // SAFETY: the callback gets a pointer to a `Bell` that `self.bell` keeps alive until
        // `silence` has taken the callback away.
        unsafe {
            sys::rd_kafka_queue_cb_event_enable(
                self.raw.as_ptr(),
                Some(ring),
                Arc::as_ptr(&bell).cast_mut().cast(),
            );
        }
        self.bell = Some(bell);
    }

    fn silence(&mut self) {
        if let Some(bell) = self.bell.take() {
            // SAFETY: the queue is valid. librdkafka calls and replaces the callback under the
            // queue's lock, so none runs once this returns and `bell` may go.
            unsafe {
                sys::rd_kafka_queue_cb_event_enable(self.raw.as_ptr(), None, ptr::null_mut());
            }
            drop(bell);
        }
    }

    /// Fills `batch` with what waits, up to `limit` messages, and waits up to `wait_ms` for the
    /// batch to be full.
    pub(in crate::broker::kafka) fn take(
        &self,
        batch: &mut MessageBatch,
        limit: usize,
        wait_ms: i32,
    ) {
        // SAFETY: the queue is valid.
        unsafe { batch.fill(self.raw.as_ptr(), limit, wait_ms) };
    }

    /// The next report of a commit that was sent with this queue for its answer.
    pub(in crate::broker::kafka) fn commit_report(&self, wait_ms: i32) -> Option<CommitReport> {
        event::poll(self.raw, wait_ms)?.commit_report()
    }

    /// Serves what a writer reports: calls `each` for every record delivered or failed, and
    /// `context` for log lines and errors. Returns once nothing waits.
    pub(super) fn deliveries<C: ClientContext>(
        &self,
        context: &C,
        mut each: impl FnMut(Delivery<'_>),
    ) {
        while let Some(event) = event::poll(self.raw, 0) {
            event.deliveries(&mut each);
            event.tell(context);
        }
    }

    pub(super) fn as_ptr(&self) -> *mut sys::rd_kafka_queue_t {
        self.raw.as_ptr()
    }
}

impl Drop for Queue {
    fn drop(&mut self) {
        self.silence();
        // SAFETY: the handle is ours and destroyed once; the client still lives, for `_client` is
        // dropped after this.
        unsafe { sys::rd_kafka_queue_destroy(self.raw.as_ptr()) };
    }
}

/// # Safety
/// `bell` points to a live [`Bell`], as librdkafka got it from [`Queue::rings`].
unsafe extern "C" fn ring(_: *mut RDKafka, bell: *mut c_void) {
    // SAFETY: `Queue::rings` passed a pointer to a live `Bell`, see there.
    let bell = unsafe { &*bell.cast_const().cast::<Bell>() };
    bell.ring();
}

/// A partition that is being read from an offset on, without a group. Stops when dropped.
pub(in crate::broker::kafka) struct TopicReader {
    topic: *mut sys::rd_kafka_topic_t,
    partition: i32,
    queue: Queue,
}

impl TopicReader {
    /// Starts to fetch.
    ///
    /// # Errors
    /// Where librdkafka refuses the name or reads the partition already.
    pub(in crate::broker::kafka) fn start<C: ClientContext>(
        client: &Client<C>,
        keep: Arc<dyn Any + Send + Sync>,
        topic: &str,
        partition: i32,
        from: i64,
    ) -> Result<Self, RDKafkaErrorCode> {
        let name = CString::new(topic).map_err(|_| RDKafkaErrorCode::InvalidTopic)?;
        let queue = Queue::new(client, keep).ok_or(RDKafkaErrorCode::State)?;
        // SAFETY: the client is valid while borrowed; a null configuration means the default one.
        let topic =
            unsafe { sys::rd_kafka_topic_new(client.native_ptr(), name.as_ptr(), ptr::null_mut()) };
        if topic.is_null() {
            return Err(RDKafkaErrorCode::InvalidTopic);
        }
        // SAFETY: topic and queue are valid handles of one client.
        let started =
            unsafe { sys::rd_kafka_consume_start_queue(topic, partition, from, queue.as_ptr()) };
        if started != 0 {
            // SAFETY: the handle came from `rd_kafka_topic_new` and goes once.
            unsafe { sys::rd_kafka_topic_destroy(topic) };
            return Err(RDKafkaErrorCode::State);
        }
        Ok(Self {
            topic,
            partition,
            queue,
        })
    }

    /// Fills `batch` with what arrives within `wait_ms`.
    pub(in crate::broker::kafka) fn take(
        &self,
        batch: &mut MessageBatch,
        limit: usize,
        wait_ms: i32,
    ) {
        self.queue.take(batch, limit, wait_ms);
    }
}

impl Drop for TopicReader {
    fn drop(&mut self) {
        // SAFETY: the topic is valid and was started once; its handle goes once. The client lives
        // on, for the queue, which is dropped after this, keeps it.
        unsafe {
            sys::rd_kafka_consume_stop(self.topic, self.partition);
            sys::rd_kafka_topic_destroy(self.topic);
        }
    }
}
