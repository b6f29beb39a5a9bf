//! As much of librdkafka as the bound needs, without a layer that costs.
//!
//! The safe bindings allocate for each message or call back for each; the bound must not, or it
//! would be no bound.

use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::io::Write as _;
use std::ptr::{null, null_mut, slice_from_raw_parts};

use anyhow::{Context, Result, bail, ensure};
use rdkafka_sys as sys;

use crate::deliveries::Deliveries;

/// An error of librdkafka, in words.
fn words(code: sys::rd_kafka_resp_err_t) -> String {
    // SAFETY: librdkafka returns a static, zero-terminated text for any code.
    let text = unsafe { CStr::from_ptr(sys::rd_kafka_err2str(code)) };
    text.to_string_lossy().into_owned()
}

/// Called by librdkafka from within `rd_kafka_poll`, once a record.
///
/// # Safety
/// `opaque` is the `Deliveries` that the producer was made with, and lives as long as it; `message`
/// is valid for the call. librdkafka, the only caller, keeps both.
unsafe extern "C" fn delivered(
    _client: *mut sys::rd_kafka_t,
    message: *const sys::rd_kafka_message_t,
    opaque: *mut c_void,
) {
    // SAFETY: `opaque` is the `Deliveries` of the producer that polls, which outlives its client
    // and is only borrowed shared; librdkafka lends a valid message for the call.
    let (deliveries, message) = unsafe { (&*opaque.cast::<Deliveries>(), &*message) };
    if message.err != sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR {
        deliveries.failed(message.err);
    }
    deliveries.delivered(message._private as usize);
}

fn client(
    kind: sys::rd_kafka_type_t,
    properties: &[(&str, &str)],
    deliveries: Option<&Deliveries>,
) -> Result<*mut sys::rd_kafka_t> {
    let mut error = [0 as c_char; 512];
    // SAFETY: plain constructor.
    let conf = unsafe { sys::rd_kafka_conf_new() };
    for (name, value) in properties {
        let (name, value) = (CString::new(*name)?, CString::new(*value)?);
        // SAFETY: `conf` is alive, the strings are zero-terminated, the buffer has the length told.
        let result = unsafe {
            sys::rd_kafka_conf_set(
                conf,
                name.as_ptr(),
                value.as_ptr(),
                error.as_mut_ptr(),
                error.len(),
            )
        };
        ensure!(
            result == sys::rd_kafka_conf_res_t::RD_KAFKA_CONF_OK,
            "librdkafka refuses {name:?}"
        );
    }
    if let Some(deliveries) = deliveries {
        // SAFETY: `conf` is alive; the callback treats the pointer as what it is.
        unsafe {
            sys::rd_kafka_conf_set_dr_msg_cb(conf, Some(delivered));
            sys::rd_kafka_conf_set_opaque(conf, (&raw const *deliveries).cast_mut().cast());
        }
    }
    // SAFETY: `conf` is alive and passes to the client; the buffer has the length told.
    let client = unsafe { sys::rd_kafka_new(kind, conf, error.as_mut_ptr(), error.len()) };
    ensure!(!client.is_null(), "librdkafka makes no client");
    Ok(client)
}

/// Reads by `rd_kafka_consume_batch_queue`. Never closed: the process ends after its use.
#[derive(Debug)]
pub struct Reader {
    client: *mut sys::rd_kafka_t,
    queue: *mut sys::rd_kafka_queue_t,
    topic: CString,
    batch: Vec<*mut sys::rd_kafka_message_t>,
}

impl Reader {
    /// Subscribes to a topic.
    ///
    /// # Errors
    /// A property is refused.
    pub fn new(properties: &[(&str, &str)], topic: &str, batch: usize) -> Result<Self> {
        let client = client(sys::rd_kafka_type_t::RD_KAFKA_CONSUMER, properties, None)?;
        let topic = CString::new(topic)?;
        // SAFETY: the client and the list are alive; librdkafka copies both list and name.
        let (code, queue) = unsafe {
            sys::rd_kafka_poll_set_consumer(client);
            let list = sys::rd_kafka_topic_partition_list_new(1);
            sys::rd_kafka_topic_partition_list_add(list, topic.as_ptr(), -1);
            let code = sys::rd_kafka_subscribe(client, list);
            sys::rd_kafka_topic_partition_list_destroy(list);
            (code, sys::rd_kafka_queue_get_consumer(client))
        };
        check(code).context("cannot subscribe")?;
        Ok(Self {
            client,
            queue,
            topic,
            batch: vec![null_mut(); batch],
        })
    }

    /// Waits up to `timeout_ms` for a batch and lends it.
    ///
    /// # Errors
    /// The broker cannot be reached.
    pub fn next(&mut self, timeout_ms: c_int) -> Result<Batch<'_>> {
        // SAFETY: the queue is alive, and the buffer has room for as many pointers as told.
        let count = unsafe {
            sys::rd_kafka_consume_batch_queue(
                self.queue,
                timeout_ms,
                self.batch.as_mut_ptr(),
                self.batch.len(),
            )
        };
        let count = usize::try_from(count).context("librdkafka reads nothing")?;
        let batch = Batch {
            messages: &self.batch[..count],
        };
        for message in batch.raw() {
            check(message.err).context("cannot read")?;
        }
        Ok(batch)
    }

    /// Commits positions by partition; negative ones are left out.
    ///
    /// # Errors
    /// The broker refuses (told only where `wait` is set).
    pub fn commit(&self, positions: &[i64], wait: bool) -> Result<()> {
        // SAFETY: client, list and name are alive; the new element is written before another is
        // added, and the list is destroyed once.
        let code = unsafe {
            let list = sys::rd_kafka_topic_partition_list_new(4);
            for (partition, position) in (0..).zip(positions) {
                if *position >= 0 {
                    let name = self.topic.as_ptr();
                    let new = sys::rd_kafka_topic_partition_list_add(list, name, partition);
                    (*new).offset = *position;
                }
            }
            let code = sys::rd_kafka_commit(self.client, list, c_int::from(!wait));
            sys::rd_kafka_topic_partition_list_destroy(list);
            code
        };
        check(code).context("cannot commit")
    }
}

/// Messages lent by a [`Reader`], freed on drop.
#[derive(Debug)]
pub struct Batch<'a> {
    messages: &'a [*mut sys::rd_kafka_message_t],
}

/// A message that was read.
#[derive(Clone, Copy, Debug)]
pub struct Message<'a> {
    pub partition: i32,
    pub offset: i64,
    pub key: &'a [u8],
    pub value: &'a [u8],
    raw: &'a sys::rd_kafka_message_t,
}

impl<'a> Message<'a> {
    /// The value of the last header of this name.
    pub fn header(&self, name: &CStr) -> Option<&'a [u8]> {
        let (mut headers, mut value, mut length) = (null_mut(), null(), 0);
        // SAFETY: the message is alive; the list belongs to it and lives as long as it does.
        let found = unsafe { sys::rd_kafka_message_headers(self.raw, &raw mut headers) };
        if found != sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR {
            return None;
        }
        // SAFETY: the list is alive, the name is zero-terminated, and both results can be written.
        let found = unsafe {
            sys::rd_kafka_header_get_last(headers, name.as_ptr(), &raw mut value, &raw mut length)
        };
        (found == sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR).then(|| {
            // SAFETY: librdkafka says that so many bytes from there belong to the message.
            unsafe { bytes(value.cast_mut(), length) }
        })
    }
}

impl Batch<'_> {
    /// How many messages it holds.
    pub fn len(&self) -> usize {
        self.messages.len()
    }

    /// The messages.
    pub fn iter(&self) -> impl Iterator<Item = Message<'_>> {
        self.raw().map(|message| Message {
            partition: message.partition,
            offset: message.offset,
            // SAFETY: librdkafka says that so many bytes from there belong to the message, which
            // lives as long as this borrow of the batch.
            key: unsafe { bytes(message.key, message.key_len) },
            // SAFETY: as for the key.
            value: unsafe { bytes(message.payload, message.len) },
            raw: message,
        })
    }

    fn raw(&self) -> impl Iterator<Item = &sys::rd_kafka_message_t> {
        // SAFETY: librdkafka filled these pointers with messages that live until they are
        // destroyed, which only the drop of this batch does.
        self.messages.iter().map(|message| unsafe { &**message })
    }
}

/// Key or value of a message; null counts as empty.
///
/// # Safety
/// `start` is null, or `length` bytes from it may be read for as long as the result is used.
unsafe fn bytes<'a>(start: *mut c_void, length: usize) -> &'a [u8] {
    if start.is_null() {
        return &[];
    }
    // SAFETY: the caller's promise.
    unsafe { &*slice_from_raw_parts(start.cast::<u8>(), length) }
}

impl Drop for Batch<'_> {
    fn drop(&mut self) {
        for message in self.messages {
            // SAFETY: each message is alive and destroyed once: the batch is gone afterwards.
            unsafe { sys::rd_kafka_message_destroy(*message) };
        }
    }
}

/// Writes by `rd_kafka_produce_batch`. Never closed: the process ends after its use.
#[derive(Debug)]
pub struct Writer {
    client: *mut sys::rd_kafka_t,
    topic: *mut sys::rd_kafka_topic_t,
    /// Leaked, because the client that calls back is never destroyed.
    deliveries: &'static Deliveries,
    batch: Vec<sys::rd_kafka_message_t>,
}

impl Writer {
    /// A producer for one topic.
    ///
    /// # Errors
    /// A property is refused.
    pub fn new(properties: &[(&str, &str)], topic: &str) -> Result<Self> {
        let deliveries: &'static Deliveries = Box::leak(Box::default());
        let kind = sys::rd_kafka_type_t::RD_KAFKA_PRODUCER;
        let client = client(kind, properties, Some(deliveries))?;
        let name = CString::new(topic)?;
        // SAFETY: client and name are alive; no configuration of the topic's own.
        let topic = unsafe { sys::rd_kafka_topic_new(client, name.as_ptr(), null_mut()) };
        ensure!(!topic.is_null(), "librdkafka makes no topic");
        Ok(Self {
            client,
            topic,
            deliveries,
            batch: Vec::new(),
        })
    }

    /// What is known of deliveries.
    pub fn deliveries(&self) -> &Deliveries {
        self.deliveries
    }

    /// Hands records over for writing; librdkafka copies them. Waits while its queue is full.
    ///
    /// # Errors
    /// A record is refused.
    pub fn write<'a>(
        &mut self,
        epoch: usize,
        records: impl Iterator<Item = (&'a [u8], &'a [u8])>,
    ) -> Result<()> {
        const UNASSIGNED: i32 = -1;

        self.batch.clear();
        self.batch
            .extend(records.map(|(key, value)| sys::rd_kafka_message_t {
                err: sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR,
                rkt: null_mut(),
                partition: UNASSIGNED,
                payload: value.as_ptr().cast_mut().cast(),
                len: value.len(),
                key: key.as_ptr().cast_mut().cast(),
                key_len: key.len(),
                offset: 0,
                _private: epoch as *mut c_void,
            }));
        self.deliveries.produced(epoch, self.batch.len() as u64);
        while !self.batch.is_empty() {
            let count = c_int::try_from(self.batch.len()).context("too large a batch")?;
            // SAFETY: the topic is alive; the array holds `count` records whose key and value are
            // borrowed for this call, and librdkafka copies them (F_COPY) before it returns.
            let taken = unsafe {
                sys::rd_kafka_produce_batch(
                    self.topic,
                    UNASSIGNED,
                    sys::RD_KAFKA_MSG_F_COPY,
                    self.batch.as_mut_ptr(),
                    count,
                )
            };
            if taken == count {
                break;
            }
            let full = sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR__QUEUE_FULL;
            let none = sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR;
            if let Some(refused) = self.batch.iter().find(|r| r.err != full && r.err != none) {
                bail!("a record is refused: {}", words(refused.err));
            }
            // In order: what did not fit follows what did.
            self.batch.retain(|record| record.err == full);
            self.poll(10)?;
        }
        Ok(())
    }

    /// As [`Writer::write`], each record with as many headers, as long as those that the runtime
    /// gives to a derived event: what it is derived from, by what name it is known, how many
    /// consumers it passed, and a correlation id. One by one, for `rd_kafka_produce_batch` takes no
    /// headers.
    ///
    /// # Errors
    /// As [`Writer::write`].
    pub fn write_derived<'a>(
        &mut self,
        epoch: usize,
        input: &str,
        records: impl Iterator<Item = (Message<'a>, &'a [u8])>,
    ) -> Result<()> {
        use sys::rd_kafka_vtype_t as field;
        const UNASSIGNED: i32 = -1;
        const NAMES: [&CStr; 4] = [
            c"millstream-source",
            c"millstream-id",
            c"millstream-hops",
            c"correlation-id",
        ];

        let mut text = Vec::with_capacity(256);
        for (message, value) in records {
            let Message {
                partition, offset, ..
            } = message;
            text.clear();
            write!(text, "{input}/{partition}/{offset}/1{offset:032x}1")?;
            let (id, rest) = text.split_at(text.len() - 33);
            let (correlation, hops) = rest.split_at(32);
            let values = [&id[..id.len() - 2], id, hops, correlation];
            // SAFETY: plain constructor.
            let headers = unsafe { sys::rd_kafka_headers_new(NAMES.len()) };
            for (name, value) in NAMES.iter().zip(values) {
                // SAFETY: the list is alive, and name and value have the lengths told; librdkafka
                // copies both before it returns.
                let code = unsafe {
                    sys::rd_kafka_header_add(
                        headers,
                        name.as_ptr(),
                        name.count_bytes().try_into()?,
                        value.as_ptr().cast(),
                        value.len().try_into()?,
                    )
                };
                check(code).context("a header is refused")?;
            }
            self.deliveries.produced(epoch, 1);
            loop {
                // SAFETY: the arguments follow `rd_kafka_producev`'s description of each field,
                // ended by END; key and value are copied (MSG_F_COPY); the headers pass to
                // librdkafka on success and stay ours otherwise.
                let code = unsafe {
                    sys::rd_kafka_producev(
                        self.client,
                        field::RD_KAFKA_VTYPE_RKT,
                        self.topic,
                        field::RD_KAFKA_VTYPE_PARTITION,
                        UNASSIGNED,
                        field::RD_KAFKA_VTYPE_MSGFLAGS,
                        sys::RD_KAFKA_MSG_F_COPY,
                        field::RD_KAFKA_VTYPE_VALUE,
                        value.as_ptr(),
                        value.len(),
                        field::RD_KAFKA_VTYPE_KEY,
                        message.key.as_ptr(),
                        message.key.len(),
                        field::RD_KAFKA_VTYPE_OPAQUE,
                        epoch as *mut c_void,
                        field::RD_KAFKA_VTYPE_HEADERS,
                        headers,
                        field::RD_KAFKA_VTYPE_END,
                    )
                };
                if code != sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR__QUEUE_FULL {
                    check(code).context("a record is refused")?;
                    break;
                }
                self.poll(10)?;
            }
        }
        Ok(())
    }

    /// Serves delivery reports, waiting up to `timeout_ms` for one.
    ///
    /// # Errors
    /// A record was not delivered.
    pub fn poll(&self, timeout_ms: c_int) -> Result<()> {
        // SAFETY: the client is alive; callbacks find the leaked deliveries.
        unsafe { sys::rd_kafka_poll(self.client, timeout_ms) };
        match self.deliveries.failure() {
            Some(code) => bail!("a record was not delivered: {}", words(code)),
            None => Ok(()),
        }
    }
}

fn check(code: sys::rd_kafka_resp_err_t) -> Result<()> {
    ensure!(
        code == sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR,
        "{}",
        words(code)
    );
    Ok(())
}
