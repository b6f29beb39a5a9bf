//! The topics and partitions that exist, as readers may see them.
//!
//! The log writer alone changes it, after what it says is durable: an end that is found here was
//! acknowledged or is about to be, and everything below it can be read.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::{Mutex, RwLock};
use serde::{Deserialize, Serialize};

use super::store::{self, Store, broken};
use super::tail::Tail;
use crate::broker::{BrokerError, PartitionInfo, TopicInfo, names};
use crate::config::{Cleanup, TopicSettings};
use crate::event::TopicPartition;

/// Partitions of a topic that is made on first use.
const PARTITIONS: u32 = 4;
/// Each costs an entry in every assignment and a place in memory.
const MOST_PARTITIONS: u32 = 1_000;
/// How long events are kept where nothing else is said.
const RETENTION: Duration = Duration::from_secs(7 * 24 * 60 * 60);
/// Bytes of the largest event where nothing else is said.
const MAX_EVENT: u64 = 16 * 1024 * 1024;
/// Blocks address their bytes with 32 bits, and a batch is held in memory several times.
const MOST_MAX_EVENT: u64 = 256 * 1024 * 1024;

/// What is stored of a topic.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TopicRecord {
    pub id: u32,
    pub partitions: u32,
    pub retention_age_ms: u64,
    pub retention_bytes: Option<u64>,
    pub max_event: u64,
}

impl TopicRecord {
    /// What a new topic is like.
    ///
    /// # Errors
    /// The settings ask for something that the embedded broker does not do.
    pub fn new(id: u32, name: &str, settings: &TopicSettings) -> Result<Self, BrokerError> {
        names::check_topic(name).map_err(BrokerError::Refused)?;
        let partitions = settings.partitions.unwrap_or(PARTITIONS);
        if !(1..=MOST_PARTITIONS).contains(&partitions) {
            return Err(BrokerError::Refused(format!(
                "topic {name}: {partitions} partitions; the embedded broker takes 1 to \
                 {MOST_PARTITIONS}"
            )));
        }
        let mut record = Self {
            id,
            partitions,
            retention_age_ms: 0,
            retention_bytes: None,
            max_event: 0,
        };
        record.apply(name, settings)?;
        Ok(record)
    }

    /// Takes over settings that may change while a topic exists; its partitions may not.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn apply(&mut self, name: &str, settings: &TopicSettings) -> Result<(), BrokerError> {
        if settings.cleanup == Some(Cleanup::Compact) {
            return Err(BrokerError::Refused(format!(
                "topic {name}: cleanup = \"compact\" is not supported by the embedded broker; \
                 leave it out or set it to \"delete\""
            )));
        }
        let max_event = settings.max_event.unwrap_or(MAX_EVENT);
        if !(1..=MOST_MAX_EVENT).contains(&max_event) {
            return Err(BrokerError::Refused(format!(
                "topic {name}: max_event is {max_event} bytes; the embedded broker takes 1 to \
                 {MOST_MAX_EVENT}"
            )));
        }
        let age = settings.retention_age.unwrap_or(RETENTION);
        self.retention_age_ms = u64::try_from(age.as_millis()).unwrap_or(u64::MAX);
        self.retention_bytes = settings.retention_bytes;
        self.max_event = max_event;
        Ok(())
    }

    /// The value as it is stored.
    pub fn encode(&self) -> Result<Vec<u8>, BrokerError> {
        serde_json::to_vec(self)
            .map_err(|e| BrokerError::Store(format!("cannot encode a topic's record: {e}")))
    }
}

/// A topic that exists.
#[derive(Debug)]
pub struct Topic {
    pub name: Arc<str>,
    pub record: TopicRecord,
    pub partitions: Vec<Arc<Partition>>,
    /// Where the next record without a key goes.
    spread: AtomicU32,
}

impl Topic {
    /// A topic that holds nothing yet.
    pub fn empty(name: Arc<str>, record: TopicRecord) -> Self {
        let partitions = (0..record.partitions)
            .map(|number| Arc::new(Partition::new(&name, record.id, number)))
            .collect();
        Self {
            name,
            record,
            partitions,
            spread: AtomicU32::new(0),
        }
    }

    /// The partition for the next record without a key: each in turn.
    pub fn spread(&self) -> u32 {
        self.spread.fetch_add(1, Ordering::Relaxed) % self.record.partitions.max(1)
    }
}

/// A partition that exists.
#[derive(Debug)]
pub struct Partition {
    pub place: TopicPartition,
    pub topic_id: u32,
    start: AtomicU64,
    end: AtomicU64,
    /// The log writer's own: bytes ever written, and the largest timestamp so far.
    pub bytes_end: AtomicU64,
    pub max_timestamp: AtomicI64,
    pub tail: Tail,
    /// Who reads from the store has it, so that others can have the same.
    pub unpacking: Mutex<()>,
}

impl Partition {
    fn new(topic: &Arc<str>, topic_id: u32, number: u32) -> Self {
        Self {
            place: TopicPartition::new(topic.clone(), number),
            topic_id,
            start: AtomicU64::new(0),
            end: AtomicU64::new(0),
            bytes_end: AtomicU64::new(0),
            max_timestamp: AtomicI64::new(i64::MIN),
            tail: Tail::default(),
            unpacking: Mutex::default(),
        }
    }

    /// The offset of the first event that is kept.
    pub fn start(&self) -> u64 {
        self.start.load(Ordering::Acquire)
    }

    /// One past the last durable event.
    pub fn end(&self) -> u64 {
        self.end.load(Ordering::Acquire)
    }

    /// Makes what is below `end` visible.
    pub fn publish_end(&self, end: u64) {
        self.end.store(end, Ordering::Release);
    }

    /// Hides what is below `start`.
    pub fn publish_start(&self, start: u64) {
        self.start.store(start, Ordering::Release);
    }

    fn recover(&self, store: &Store) -> Result<(), BrokerError> {
        let number = self.place.partition;
        let start = match store.meta.get(store::start_key(self.topic_id, number)) {
            Ok(Some(value)) => value.first_chunk().map_or(0, |n| u64::from_be_bytes(*n)),
            Ok(None) => 0,
            Err(e) => return Err(broken(e)),
        };
        self.start.store(start, Ordering::Release);
        // A partition that retention emptied goes on at its start: offsets are never given twice.
        let last = store.batch_at(self.topic_id, number, u64::MAX)?;
        self.publish_end(last.map_or(start, |last| last.next().max(start)));
        if let Some(last) = last {
            self.bytes_end.store(last.bytes_end, Ordering::Relaxed);
            self.max_timestamp
                .store(last.running_max_timestamp, Ordering::Relaxed);
        }
        Ok(())
    }
}

/// All topics.
#[derive(Debug, Default)]
pub struct Catalog {
    topics: RwLock<Topics>,
    version: AtomicU64,
}

#[derive(Debug, Default)]
struct Topics {
    by_name: BTreeMap<Arc<str>, Arc<Topic>>,
    by_id: HashMap<u32, Arc<Topic>>,
}

impl Catalog {
    /// Reads all topics and recovers the ends of their partitions; what may change of a topic
    /// follows the configured settings.
    ///
    /// # Errors
    /// The store fails, a record in it is damaged, or a setting cannot be had.
    pub fn recover(
        store: &Store,
        settings: &BTreeMap<Arc<str>, TopicSettings>,
    ) -> Result<Self, BrokerError> {
        let catalog = Self::default();
        for guard in store.meta.prefix(store::TOPIC) {
            let (key, value) = guard.into_inner().map_err(broken)?;
            let name = std::str::from_utf8(&key[store::TOPIC.len()..]);
            let stored = serde_json::from_slice::<TopicRecord>(&value);
            let (Ok(name), Ok(stored)) = (name, stored) else {
                return Err(BrokerError::Store(format!(
                    "the record of topic {} is damaged",
                    String::from_utf8_lossy(&key[store::TOPIC.len()..])
                )));
            };
            let mut record = stored.clone();
            if let Some(settings) = settings.get(name) {
                record.apply(name, settings)?;
                if settings.partitions.is_some_and(|n| n != record.partitions) {
                    tracing::warn!(
                        topic = name,
                        partitions = record.partitions,
                        "the partition count of a topic that exists is fixed; the configured one \
                         is not used"
                    );
                }
            }
            if record != stored {
                store
                    .meta
                    .insert(store::topic_key(name), record.encode()?)
                    .map_err(broken)?;
            }
            let topic = Topic::empty(name.into(), record);
            for partition in &topic.partitions {
                partition.recover(store)?;
            }
            catalog.insert(Arc::new(topic));
        }
        Ok(catalog)
    }

    /// Adds a topic, or puts one with other settings in its place.
    pub fn insert(&self, topic: Arc<Topic>) {
        let mut topics = self.topics.write();
        topics.by_id.insert(topic.record.id, topic.clone());
        topics.by_name.insert(topic.name.clone(), topic);
        self.version.fetch_add(1, Ordering::Release);
    }

    /// Takes a topic out.
    pub fn remove(&self, name: &str) {
        let mut topics = self.topics.write();
        if let Some(topic) = topics.by_name.remove(name) {
            topics.by_id.remove(&topic.record.id);
        }
        self.version.fetch_add(1, Ordering::Release);
    }

    /// Rises with every topic that comes or goes.
    pub fn version(&self) -> u64 {
        self.version.load(Ordering::Acquire)
    }

    /// The topic of this name.
    pub fn get(&self, name: &str) -> Option<Arc<Topic>> {
        self.topics.read().by_name.get(name).cloned()
    }

    /// The topic of this id.
    pub fn by_id(&self, id: u32) -> Option<Arc<Topic>> {
        self.topics.read().by_id.get(&id).cloned()
    }

    /// All topics by name.
    pub fn all(&self) -> Vec<Arc<Topic>> {
        self.topics.read().by_name.values().cloned().collect()
    }

    /// A partition.
    ///
    /// # Errors
    /// There is no such topic or partition.
    pub fn partition(&self, place: &TopicPartition) -> Result<Arc<Partition>, BrokerError> {
        let topic = self
            .get(&place.topic)
            .ok_or_else(|| BrokerError::UnknownTopic(place.topic.to_string()))?;
        let partition = topic.partitions.get(place.partition as usize);
        partition.cloned().ok_or_else(|| {
            BrokerError::UnknownTopic(format!(
                "partition {place}; {} has {} partitions",
                place.topic, topic.record.partitions
            ))
        })
    }

    /// All topics as the seam shows them.
    pub fn infos(&self) -> Vec<TopicInfo> {
        let info = |partition: &Arc<Partition>| PartitionInfo {
            start: partition.start(),
            end: partition.end(),
        };
        self.all()
            .iter()
            .map(|topic| TopicInfo {
                name: topic.name.clone(),
                partitions: topic.partitions.iter().map(info).collect(),
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(partitions: u32) -> TopicSettings {
        TopicSettings {
            partitions: Some(partitions),
            ..TopicSettings::default()
        }
    }

    #[test]
    fn defaults_are_finite() {
        let record = TopicRecord::new(1, "t", &TopicSettings::default()).unwrap();
        assert_eq!(record.partitions, 4);
        assert_eq!(record.retention_age_ms, 7 * 24 * 60 * 60 * 1_000);
        assert_eq!(record.max_event, 16 * 1024 * 1024);
    }

    #[test]
    fn what_the_embedded_broker_cannot_do_is_refused() {
        let compact = TopicSettings {
            cleanup: Some(Cleanup::Compact),
            ..TopicSettings::default()
        };
        for (name, settings) in [
            ("a b", TopicSettings::default()),
            ("t", settings(0)),
            ("t", settings(1_001)),
            ("t", compact),
        ] {
            let refused = TopicRecord::new(1, name, &settings);
            assert!(
                matches!(refused, Err(BrokerError::Refused(_))),
                "{name} {settings:?}"
            );
        }
    }

    #[test]
    fn events_without_a_key_go_to_every_partition() {
        let record = TopicRecord::new(1, "t", &settings(3)).unwrap();
        let topic = Topic::empty("t".into(), record);
        let places: Vec<_> = (0..6).map(|_| topic.spread()).collect();
        assert_eq!(places, [0, 1, 2, 0, 1, 2]);
    }
}
