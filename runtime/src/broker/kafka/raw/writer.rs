//! A producer at librdkafka's own level: a record costs one call and no allocation of ours.
//!
//! ```text
//! produce ─▶ librdkafka's queues ──wave──▶ broker      the next wave gathers while this one is
//!              ▲                    └ all that waits     under way, and goes when it is answered
//! ```
//! An idempotent librdkafka has one request under way a partition, and while records whose linger
//! time is over wait behind it, its thread polls without a pause: half of all processor time. So the
//! linger time is long, and it is said here when records go: at once where nothing is under way.

use std::collections::HashMap;
use std::ffi::{CString, c_void};
use std::ptr::{self, NonNull};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rdkafka::ClientConfig;
use rdkafka::client::Client;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::types::{RDKafkaRespErr, RDKafkaType};
use rdkafka_sys as sys;
use rdkafka_sys::rd_kafka_vtype_t as field;

use super::connection;
use super::event::Delivery;
use super::queue::Queue;
use crate::broker::kafka::bell::Bell;
use crate::broker::kafka::client::Listener;
use crate::broker::wake::Wake;
use crate::records::RecordView;

/// A producing client. Dropping it throws away what was not delivered, and can block for a while:
/// drop it where that harms nobody.
pub(in crate::broker::kafka) struct Writer {
    topics: HashMap<Arc<str>, Topic>,
    /// The topic of the record before, which is mostly that of the next one.
    last_topic: Option<(Arc<str>, NonNull<sys::rd_kafka_topic_t>)>,
    reports: Queue,
    /// Whether waves are sent from here; else the user's linger time decides.
    in_waves: bool,
    /// Records handed over and not reported.
    outstanding: usize,
    /// How many of them are under way.
    wave: usize,
    /// Connections that ended.
    lost: Arc<AtomicU64>,
    client: Arc<Client<Listener>>,
}

struct Topic(NonNull<sys::rd_kafka_topic_t>);

// SAFETY: librdkafka's handles, those of topics too, take calls from any thread.
unsafe impl Send for Writer {}

impl Drop for Topic {
    fn drop(&mut self) {
        // SAFETY: the handle came from `rd_kafka_topic_new` and goes once; `Writer` drops its
        // topics before its client.
        unsafe { sys::rd_kafka_topic_destroy(self.0.as_ptr()) };
    }
}

impl Writer {
    /// Makes the client; `wake` is woken when reports wait. `in_waves` has records sent by
    /// [`Self::send_wave`].
    ///
    /// # Errors
    /// Where librdkafka does not take the configuration.
    pub(in crate::broker::kafka) fn new(
        config: &ClientConfig,
        listener: Listener,
        wake: Arc<Wake>,
        in_waves: bool,
    ) -> Result<Self, KafkaError> {
        let native = config.create_native_config()?;
        // SAFETY: the configuration is valid and not used by a client yet.
        unsafe {
            sys::rd_kafka_conf_set_events(
                native.ptr(),
                sys::RD_KAFKA_EVENT_DR | sys::RD_KAFKA_EVENT_ERROR,
            );
        }
        connection::tell_of_ends(&native);
        let lost = Arc::new(AtomicU64::new(0));
        let listener = Listener {
            lost_connections: lost.clone(),
            ..listener
        };
        let client = Arc::new(Client::new(
            config,
            native,
            RDKafkaType::RD_KAFKA_PRODUCER,
            listener,
        )?);
        let mut reports = Queue::main(&client, client.clone())
            .ok_or_else(|| KafkaError::ClientCreation("the client has no queue".into()))?;
        reports.rings(Arc::new(Bell::new(wake)));
        Ok(Self {
            topics: HashMap::new(),
            last_topic: None,
            reports,
            in_waves,
            outstanding: 0,
            wave: 0,
            lost,
            client,
        })
    }

    /// Hands a record to librdkafka, which copies it. `id` comes back with its delivery.
    ///
    /// # Errors
    /// `QueueFull` where there is no room now; any other where the record is refused. Then no
    /// delivery follows.
    pub(in crate::broker::kafka) fn produce(
        &mut self,
        record: &RecordView<'_>,
        id: usize,
    ) -> Result<(), RDKafkaErrorCode> {
        let topic = self.topic(record.topic())?;
        let partition = match record.partition() {
            None => -1,
            Some(number) => {
                i32::try_from(number).map_err(|_| RDKafkaErrorCode::UnknownPartition)?
            }
        };
        let headers = Headers::of(record)?;
        let (key, key_length) = parts(record.key());
        let (value, value_length) = parts(record.value());
        // SAFETY: the arguments follow `rd_kafka_producev`'s description of each field, ended by
        // END; key and value are copied (MSG_F_COPY); `id` travels as a pointer that nobody
        // follows; the headers pass to librdkafka on success and stay ours otherwise.
        let code = unsafe {
            sys::rd_kafka_producev(
                self.client.native_ptr(),
                field::RD_KAFKA_VTYPE_RKT,
                topic,
                field::RD_KAFKA_VTYPE_PARTITION,
                partition,
                field::RD_KAFKA_VTYPE_MSGFLAGS,
                sys::RD_KAFKA_MSG_F_COPY,
                field::RD_KAFKA_VTYPE_VALUE,
                value,
                value_length,
                field::RD_KAFKA_VTYPE_KEY,
                key,
                key_length,
                field::RD_KAFKA_VTYPE_OPAQUE,
                id as *mut c_void,
                field::RD_KAFKA_VTYPE_TIMESTAMP,
                record.timestamp_ms().unwrap_or(0),
                field::RD_KAFKA_VTYPE_HEADERS,
                headers.0,
                field::RD_KAFKA_VTYPE_END,
            )
        };
        if code == RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR {
            std::mem::forget(headers);
            self.outstanding += 1;
            Ok(())
        } else {
            Err(code.into())
        }
    }

    /// Calls `each` for every record whose fate is known by now.
    pub(in crate::broker::kafka) fn deliveries(&mut self, mut each: impl FnMut(Delivery<'_>)) {
        let mut reported = 0;
        self.reports
            .deliveries(&**self.client.context(), |delivery| {
                reported += 1;
                each(delivery);
            });
        self.outstanding = self.outstanding.saturating_sub(reported);
        self.wave = self.wave.saturating_sub(reported);
    }

    /// Has all that waits sent, unless the last wave is still under way. Takes up to a millisecond.
    pub(in crate::broker::kafka) fn send_wave(&mut self) {
        if !self.in_waves || self.wave > 0 || self.outstanding == 0 {
            return;
        }
        self.wave = self.outstanding;
        self.send_all(1);
    }

    /// Has all that waits sent, and whatever librdkafka can send only within this time, in
    /// milliseconds. Returns earlier where reports of all records wait.
    pub(in crate::broker::kafka) fn send_all(&self, milliseconds: i32) {
        // SAFETY: the client is valid. The call waits until everything is reported or the time is
        // over; while it does, linger times count as over. That it ran out of time says nothing.
        unsafe { sys::rd_kafka_flush(self.client.native_ptr(), milliseconds) };
    }

    /// Throws the client away with what it holds. That can take long, or for ever, so it is left to
    /// a thread of its own.
    pub(in crate::broker::kafka) fn discard(self) {
        let ended = std::thread::Builder::new()
            .name("kafka-out-end".to_owned())
            .spawn(move || drop(self));
        if let Err(error) = ended {
            tracing::warn!("ending a Kafka producer: {error}");
        }
    }

    /// How many of its connections ended so far.
    pub(in crate::broker::kafka) fn lost_connections(&self) -> u64 {
        self.lost.load(Ordering::Acquire)
    }

    /// How many records are not reported yet.
    pub(in crate::broker::kafka) fn outstanding(&self) -> usize {
        self.outstanding
    }

    pub(super) fn native_ptr(&self) -> *mut sys::rd_kafka_t {
        self.client.native_ptr()
    }

    /// The first error after which this producer can do nothing more.
    pub(in crate::broker::kafka) fn fatal_error(&self) -> Option<RDKafkaErrorCode> {
        self.client.fatal_error().map(|(code, _)| code)
    }

    fn topic(&mut self, name: &Arc<str>) -> Result<*mut sys::rd_kafka_topic_t, RDKafkaErrorCode> {
        if let Some((last, topic)) = &self.last_topic
            && Arc::ptr_eq(last, name)
        {
            return Ok(topic.as_ptr());
        }
        if let Some(topic) = self.topics.get(name) {
            self.last_topic = Some((name.clone(), topic.0));
            return Ok(topic.0.as_ptr());
        }
        let text = CString::new(&**name).map_err(|_| RDKafkaErrorCode::InvalidTopic)?;
        // SAFETY: the client is valid, the name a C string; a null configuration is the default.
        let topic = unsafe {
            sys::rd_kafka_topic_new(self.client.native_ptr(), text.as_ptr(), ptr::null_mut())
        };
        let topic = Topic(NonNull::new(topic).ok_or(RDKafkaErrorCode::InvalidTopic)?);
        let raw = topic.0.as_ptr();
        self.topics.insert(name.clone(), topic);
        Ok(raw)
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        // SAFETY: the client is valid. Purged records need no report: their publications were
        // answered before.
        unsafe {
            sys::rd_kafka_purge(
                self.client.native_ptr(),
                sys::RD_KAFKA_PURGE_F_QUEUE | sys::RD_KAFKA_PURGE_F_INFLIGHT,
            );
        }
        self.last_topic = None;
        self.topics.clear();
        self.deliveries(|_| {});
    }
}

/// Headers on their way to librdkafka; null where there are none.
struct Headers(*mut sys::rd_kafka_headers_t);

impl Headers {
    fn of(record: &RecordView<'_>) -> Result<Self, RDKafkaErrorCode> {
        let headers = record.headers();
        if headers.len() == 0 {
            return Ok(Self(ptr::null_mut()));
        }
        // SAFETY: no preconditions; the list is ours until it is given away or dropped.
        let list = Self(unsafe { sys::rd_kafka_headers_new(headers.len()) });
        for (name, value) in headers {
            let (value, value_length) = parts(value);
            // SAFETY: name and value are so many bytes and are copied; a null value is a null.
            let code = unsafe {
                sys::rd_kafka_header_add(
                    list.0,
                    name.as_ptr().cast(),
                    name.len() as isize,
                    value,
                    value_length as isize,
                )
            };
            if code != RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR {
                return Err(code.into());
            }
        }
        Ok(list)
    }
}

impl Drop for Headers {
    fn drop(&mut self) {
        if !self.0.is_null() {
            // SAFETY: a list that was not given away is ours and goes once.
            unsafe { sys::rd_kafka_headers_destroy(self.0) };
        }
    }
}

fn parts(bytes: Option<&[u8]>) -> (*mut c_void, usize) {
    match bytes {
        None => (ptr::null_mut(), 0),
        Some(bytes) => (bytes.as_ptr().cast_mut().cast(), bytes.len()),
    }
}
