//! Looking topics up and reading them without a group. All calls block: run them on a thread that
//! may.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use rdkafka::Offset;
use rdkafka::client::ClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::types::RDKafkaRespErr;
use tokio::time::Instant;

use super::client::{Listener, Settings};
use super::errors::{broker_error, code_error};
use super::member::list_of;
use super::positions::{bounds, offsets_of};
use super::raw::{MessageBatch, TopicReader};
use crate::broker::{BrokerError, Chunk, PartitionInfo, ReadLimits, TopicInfo};
use crate::event::{BlockBuilder, NewEvent, TopicPartition};

/// How long one request may take.
pub(super) const WAIT: Duration = Duration::from_secs(10);
/// Messages taken at once.
const BATCH: usize = 500;
/// How long to wait for a batch to fill.
const BATCH_WAIT_MS: i32 = 10;
/// Clients kept for the next request.
const IDLE: usize = 2;

/// A client without a group.
type Client = BaseConsumer<ReaderContext>;

/// Passes on what the client tells.
#[derive(Clone)]
pub(super) struct ReaderContext(Listener);

impl ClientContext for ReaderContext {
    fn log(&self, level: rdkafka::config::RDKafkaLogLevel, facility: &str, message: &str) {
        self.0.log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.0.error(error, reason);
    }
}

impl ConsumerContext for ReaderContext {}

/// Clients that read and look up, one a request.
pub(super) struct Readers {
    settings: Settings,
    context: ReaderContext,
    idle: Mutex<Vec<Arc<Client>>>,
}

impl Readers {
    pub(super) fn new(settings: Settings, listener: Listener) -> Self {
        Self {
            settings,
            context: ReaderContext(listener),
            idle: Mutex::default(),
        }
    }

    /// Drops the clients that are kept.
    pub(super) fn close(&self) {
        let idle = std::mem::take(&mut *self.idle.lock());
        drop(idle);
    }

    /// Runs `request` with a client of its own. One that failed is not used again: a client that
    /// asked too early for a new topic can go on failing where a fresh one succeeds.
    fn with<T>(
        &self,
        request: impl FnOnce(&Arc<Client>) -> Result<T, BrokerError>,
    ) -> Result<T, BrokerError> {
        let kept = self.idle.lock().pop();
        let client = match kept {
            Some(client) => client,
            None => Arc::new(
                self.settings
                    .reader()
                    .create_with_context(self.context.clone())
                    .map_err(|error: KafkaError| broker_error("the Kafka client", &error))?,
            ),
        };
        // Serves log lines and errors of this and earlier requests.
        let _ = client.poll(Duration::ZERO);
        let answer = request(&client).map_err(|error| match error {
            BrokerError::Unreachable(text) => {
                BrokerError::Unreachable(format!("{text}; asked at {}", self.settings.servers()))
            }
            other => other,
        })?;
        let mut idle = self.idle.lock();
        if idle.len() < IDLE {
            idle.push(client);
        }
        Ok(answer)
    }

    /// All topics with what they hold, the broker's own aside.
    pub(super) fn list(&self) -> Result<Vec<TopicInfo>, BrokerError> {
        self.with(|client| {
            let failed = |error: KafkaError| broker_error("listing topics", &error);
            let metadata = client.fetch_metadata(None, WAIT).map_err(failed)?;
            let mut counts: Vec<(Arc<str>, u32)> = metadata
                .topics()
                .iter()
                .filter(|topic| !topic.name().starts_with("__"))
                .map(|topic| (topic.name().into(), topic.partitions().len() as u32))
                .collect();
            counts.sort_unstable();
            let partitions: Vec<TopicPartition> = counts
                .iter()
                .flat_map(|(topic, count)| {
                    (0..*count).map(|number| TopicPartition::new(topic.clone(), number))
                })
                .collect();
            let mut bounds = bounds(client, &partitions, WAIT).map_err(failed)?;
            Ok(counts
                .into_iter()
                .map(|(name, count)| TopicInfo {
                    partitions: (0..count)
                        .map(|number| {
                            let partition = TopicPartition::new(name.clone(), number);
                            let (start, end) = bounds
                                .remove(&partition)
                                .map_or((0, 0), |bounds| (bounds.low, bounds.high));
                            PartitionInfo { start, end }
                        })
                        .collect(),
                    name,
                })
                .collect())
        })
    }

    /// How many partitions a topic has; `None` where there is no such topic.
    pub(super) fn partitions(&self, topic: &str) -> Result<Option<u32>, BrokerError> {
        self.with(|client| partitions(client, topic))
    }

    /// The offset of the first event of that time or later, or the end.
    pub(super) fn offset_at(
        &self,
        partition: &TopicPartition,
        timestamp_ms: i64,
    ) -> Result<u64, BrokerError> {
        self.with(|client| {
            check(client, partition)?;
            let failed = |error: KafkaError| broker_error(&partition.topic, &error);
            let list = list_of([partition], |_| Offset::Offset(timestamp_ms.max(0)));
            let found = offsets_of(client, list, WAIT).map_err(failed)?;
            match found.get(partition).copied().flatten() {
                Some(offset) => Ok(offset),
                None => Ok(bounds_of(client, partition)?.end),
            }
        })
    }

    /// What is there from `from` on.
    pub(super) fn read(
        &self,
        partition: &TopicPartition,
        from: u64,
        limits: ReadLimits,
    ) -> Result<Chunk, BrokerError> {
        self.with(|client| {
            check(client, partition)?;
            let bounds = bounds_of(client, partition)?;
            let from = from.max(bounds.start);
            fetch(client, partition, from, bounds.end, limits)
        })
    }
}

fn partitions(client: &Arc<Client>, topic: &str) -> Result<Option<u32>, BrokerError> {
    let metadata = client
        .fetch_metadata(Some(topic), WAIT)
        .map_err(|error| broker_error(topic, &error))?;
    let Some(found) = metadata.topics().iter().find(|found| found.name() == topic) else {
        return Ok(None);
    };
    match found.error() {
        None | Some(RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR) => {
            Ok(Some(found.partitions().len() as u32))
        }
        Some(code) => match code_error(topic, code.into()) {
            BrokerError::UnknownTopic(_) => Ok(None),
            other => Err(other),
        },
    }
}

fn check(client: &Arc<Client>, partition: &TopicPartition) -> Result<(), BrokerError> {
    match partitions(client, &partition.topic)? {
        None => Err(BrokerError::UnknownTopic(partition.topic.to_string())),
        Some(count) if partition.partition >= count => Err(BrokerError::UnknownTopic(format!(
            "{partition} ({} has {count} partitions)",
            partition.topic
        ))),
        Some(_) => Ok(()),
    }
}

fn bounds_of(
    client: &Arc<Client>,
    partition: &TopicPartition,
) -> Result<PartitionInfo, BrokerError> {
    let found: HashMap<_, _> = bounds(client, std::slice::from_ref(partition), WAIT)
        .map_err(|error| broker_error(&partition.topic, &error))?;
    found
        .get(partition)
        .map(|bounds| PartitionInfo {
            start: bounds.low,
            end: bounds.high,
        })
        .ok_or_else(|| BrokerError::UnknownTopic(partition.to_string()))
}

/// Reads until the limits, the end, or a time-out.
fn fetch(
    client: &Arc<Client>,
    partition: &TopicPartition,
    from: u64,
    end: u64,
    limits: ReadLimits,
) -> Result<Chunk, BrokerError> {
    let mut builder = BlockBuilder::new(partition.clone(), 0, 0);
    let mut next = from;
    let number = i32::try_from(partition.partition).unwrap_or(i32::MAX);
    if next < end {
        let start = i64::try_from(from).unwrap_or(i64::MAX);
        let reader = TopicReader::start(
            client.client(),
            client.clone(),
            &partition.topic,
            number,
            start,
        )
        .map_err(|code| code_error(&partition.topic, code))?;
        let mut batch = MessageBatch::new(BATCH);
        let deadline = Instant::now() + WAIT;
        'read: while next < end {
            if Instant::now() >= deadline {
                if builder.is_empty() {
                    return Err(BrokerError::Unreachable(format!(
                        "{partition} is not served"
                    )));
                }
                break;
            }
            reader.take(&mut batch, limits.events.clamp(1, BATCH), BATCH_WAIT_MS);
            for message in batch.iter() {
                match message.error() {
                    None => {}
                    Some(RDKafkaErrorCode::PartitionEOF) => {
                        next = next.max(u64::try_from(message.offset()).unwrap_or(0));
                        break 'read;
                    }
                    Some(code) => return Err(code_error(&partition.topic, code)),
                }
                let Ok(offset) = u64::try_from(message.offset()) else {
                    continue;
                };
                if offset < next {
                    continue;
                }
                let (timestamp_ms, timestamp_of_broker) = message.timestamp();
                let event = NewEvent {
                    offset,
                    timestamp_ms,
                    timestamp_of_broker,
                    key: message.key(),
                    value: message.value(),
                };
                let bytes = event.key.map_or(0, <[u8]>::len) + event.value.map_or(0, <[u8]>::len);
                let full = builder.len() >= limits.events.max(1)
                    || builder.bytes().saturating_add(bytes) > limits.bytes
                    || !builder.fits(bytes);
                if full && !builder.is_empty() {
                    break 'read;
                }
                builder.push(event);
                message.headers(|name, value| builder.push_header(name, value));
                next = offset + 1;
            }
        }
    }
    Ok(Chunk {
        block: Arc::new(builder.build()),
        next,
        end,
    })
}
