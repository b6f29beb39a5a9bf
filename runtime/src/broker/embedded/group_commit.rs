//! One group of requests on its way into one atomic batch of the store.
//!
//! ```text
//! appends ──▶ check ──▶ partition ──▶ open batches ──sealed──┐
//! positions ─────────────────────────────────────────────────┼──▶ one commit ──▶ ends, tails
//! new topics ────────────────────────────────────────────────┘
//! ```
//!
//! An append is checked as a whole before any of it enters the group: a refused one leaves nothing
//! behind, not even the topic that it would have made.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use fjall::{OwnedWriteBatch, UserValue};

use super::catalog::{Catalog, Partition, Topic, TopicRecord};
use super::codec::BatchWriter;
use super::groups;
use super::queue::{AppendError, Positions};
use super::store::{self, BatchKey, Store};
use super::tail::TailBatch;
use crate::broker::{BrokerError, Commit, CommitError, Place, TransactError, partitioner};
use crate::config::TopicSettings;
use crate::event::TopicPartition;
use crate::records::{RecordView, Records};

/// A batch is sealed at so many bytes: the unit of reading, of checking and of retention.
const BATCH_BYTES: usize = 256 * 1024;
/// And at so many events.
const BATCH_EVENTS: u32 = 4_096;

/// What is being put together.
pub struct Group<'a> {
    catalog: &'a Catalog,
    settings: &'a BTreeMap<Arc<str>, TopicSettings>,
    now_ms: i64,
    next_topic: u32,
    new_topics: HashMap<Arc<str>, Arc<Topic>>,
    appends: HashMap<(u32, u32), PartitionAppend>,
    positions: Vec<(Vec<u8>, Vec<u8>)>,
    new_groups: Vec<Vec<u8>>,
}

/// What a partition gains.
struct PartitionAppend {
    partition: Arc<Partition>,
    open: BatchWriter,
    sealed: Vec<(BatchKey, UserValue)>,
    max_timestamp: i64,
    bytes_end: u64,
}

/// What became durable, to be shown to readers.
pub struct Durable {
    pub next_topic: u32,
    new_topics: Vec<Arc<Topic>>,
    appends: Vec<PartitionAppend>,
}

impl<'a> Group<'a> {
    /// An empty group at the time `now_ms`.
    pub fn new(
        catalog: &'a Catalog,
        settings: &'a BTreeMap<Arc<str>, TopicSettings>,
        next_topic: u32,
        now_ms: i64,
    ) -> Self {
        Self {
            catalog,
            settings,
            now_ms,
            next_topic,
            new_topics: HashMap::new(),
            appends: HashMap::new(),
            positions: Vec::new(),
            new_groups: Vec::new(),
        }
    }

    /// Whether a commit would write nothing.
    pub fn is_empty(&self) -> bool {
        self.appends.is_empty() && self.positions.is_empty() && self.new_groups.is_empty()
    }

    /// Adds records; with `places` it answers where each will stand.
    pub fn append(&mut self, records: &Records, places: bool) -> Result<Vec<Place>, AppendError> {
        let topics = self.check(records)?;
        let mut topic_of = TopicLookup::new(&topics);
        let mut answer = Vec::with_capacity(if places { records.len() } else { 0 });
        for record in records.iter() {
            let Some(topic) = topic_of.find(record.topic()) else {
                continue;
            };
            let number = record.partition().unwrap_or_else(|| match record.key() {
                Some(key) => partitioner::partition_of(key, topic.record.partitions),
                None => topic.spread(),
            });
            let partition = &topic.partitions[number as usize];
            let append = self
                .appends
                .entry((topic.record.id, number))
                .or_insert_with(|| PartitionAppend::new(partition.clone()));
            let offset = append.push(&record, self.now_ms);
            if places {
                answer.push(Place {
                    partition: partition.place.clone(),
                    offset,
                });
            }
        }
        for topic in topics {
            if self.catalog.get(&topic.name).is_none() {
                self.next_topic = self.next_topic.max(topic.record.id + 1);
                self.new_topics.insert(topic.name.clone(), topic);
            }
        }
        Ok(answer)
    }

    /// Adds records and positions, all of them or none.
    pub fn transact(
        &mut self,
        records: &[Arc<Records>],
        group: &Arc<str>,
        commits: &[Commit],
    ) -> Result<(), TransactError> {
        for (batch, records) in records.iter().enumerate() {
            self.check(records)
                .map_err(|error| error.of_transaction(batch))?;
        }
        self.positions(group, commits)
            .map_err(|error| TransactError::Aborted(error.to_string()))?;
        for (batch, records) in records.iter().enumerate() {
            self.append(records, false)
                .map_err(|error| error.of_transaction(batch))?;
        }
        Ok(())
    }

    /// Adds positions of a group.
    pub fn commit(&mut self, request: &Positions) -> Result<(), CommitError> {
        self.positions(&request.group, &request.commits)?;
        if request.found {
            self.new_groups.push(store::group_key(&request.group));
        }
        Ok(())
    }

    fn positions(&mut self, group: &Arc<str>, commits: &[Commit]) -> Result<(), CommitError> {
        let mut entries = Vec::with_capacity(commits.len());
        for commit in commits {
            let TopicPartition { topic, partition } = &commit.partition;
            let known = self
                .catalog
                .get(topic)
                .filter(|known| *partition < known.record.partitions)
                .ok_or_else(|| {
                    CommitError::Fenced(format!("there is no partition {}", commit.partition))
                })?;
            let key = store::position_key(group, known.record.id, *partition);
            entries.push((key, groups::encode(&commit.progress)));
        }
        self.positions.append(&mut entries);
        Ok(())
    }

    /// Fills the store's batch; what it holds is shown by [`Durable::publish`] once it is durable.
    pub fn write(self, store: &Store, batch: &mut OwnedWriteBatch) -> Result<Durable, BrokerError> {
        for topic in self.new_topics.values() {
            batch.insert(
                &store.meta,
                store::topic_key(&topic.name),
                topic.record.encode()?,
            );
        }
        if !self.new_topics.is_empty() {
            batch.insert(
                &store.meta,
                store::NEXT_TOPIC,
                self.next_topic.to_be_bytes(),
            );
        }
        let mut appends = Vec::with_capacity(self.appends.len());
        for mut append in self.appends.into_values() {
            append.seal(self.now_ms);
            for (key, value) in &append.sealed {
                batch.insert(&store.log, key.encode(), value.clone());
            }
            appends.push(append);
        }
        for (key, value) in self.positions {
            batch.insert(&store.positions, key, value);
        }
        for key in self.new_groups {
            batch.insert(&store.meta, key, []);
        }
        Ok(Durable {
            next_topic: self.next_topic,
            new_topics: self.new_topics.into_values().collect(),
            appends,
        })
    }

    /// The topics that the records are for, new ones among them, or what is wrong with a record.
    fn check(&self, records: &Records) -> Result<Vec<Arc<Topic>>, AppendError> {
        let mut topics: Vec<Arc<Topic>> = Vec::new();
        let mut next_topic = self.next_topic;
        for (index, record) in records.iter().enumerate() {
            let name = record.topic();
            let known = match topics.iter().position(|topic| topic.name == *name) {
                Some(at) => at,
                None => {
                    let topic =
                        self.topic(name, next_topic)
                            .map_err(|error| AppendError::Topic {
                                index,
                                topic: name.clone(),
                                reason: error.to_string(),
                            })?;
                    next_topic = next_topic.max(topic.record.id + 1);
                    topics.push(topic);
                    topics.len() - 1
                }
            };
            check_record(&topics[known], index, &record)?;
        }
        Ok(topics)
    }

    fn topic(&self, name: &Arc<str>, id: u32) -> Result<Arc<Topic>, BrokerError> {
        if let Some(topic) = self.catalog.get(name) {
            return Ok(topic);
        }
        if let Some(topic) = self.new_topics.get(name) {
            return Ok(topic.clone());
        }
        let default = TopicSettings::default();
        let settings = self.settings.get(name).unwrap_or(&default);
        let record = TopicRecord::new(id, name, settings)?;
        Ok(Arc::new(Topic::empty(name.clone(), record)))
    }
}

fn check_record(topic: &Topic, index: usize, record: &RecordView<'_>) -> Result<(), AppendError> {
    let bytes = record.bytes() as u64;
    if bytes > topic.record.max_event {
        return Err(AppendError::Record {
            index,
            topic: topic.name.clone(),
            reason: format!(
                "it has {bytes} bytes, and the topic takes {} ([topics.{}] max_event)",
                topic.record.max_event, topic.name
            ),
        });
    }
    match record.partition() {
        Some(number) if number >= topic.record.partitions => Err(AppendError::Topic {
            index,
            topic: topic.name.clone(),
            reason: format!(
                "there is no partition {number}, the topic has {}",
                topic.record.partitions
            ),
        }),
        _ => Ok(()),
    }
}

/// Finds a record's topic; consecutive records are mostly for the same one.
struct TopicLookup<'t> {
    topics: &'t [Arc<Topic>],
    last: usize,
}

impl<'t> TopicLookup<'t> {
    fn new(topics: &'t [Arc<Topic>]) -> Self {
        Self { topics, last: 0 }
    }

    fn find(&mut self, name: &Arc<str>) -> Option<&'t Arc<Topic>> {
        let fits = |topic: &Arc<Topic>| topic.name == *name;
        if !self.topics.get(self.last).is_some_and(fits) {
            self.last = self.topics.iter().position(fits)?;
        }
        self.topics.get(self.last)
    }
}

impl PartitionAppend {
    fn new(partition: Arc<Partition>) -> Self {
        Self {
            open: BatchWriter::new(partition.end()),
            sealed: Vec::new(),
            max_timestamp: partition.max_timestamp.load(Ordering::Relaxed),
            bytes_end: partition.bytes_end.load(Ordering::Relaxed),
            partition,
        }
    }

    fn push(&mut self, record: &RecordView<'_>, now_ms: i64) -> u64 {
        let full = self.open.count() >= BATCH_EVENTS
            || self.open.bytes().saturating_add(record.bytes()) > BATCH_BYTES;
        if full {
            self.seal(now_ms);
        }
        self.open
            .push(record, record.timestamp_ms().unwrap_or(now_ms))
    }

    fn seal(&mut self, now_ms: i64) {
        if self.open.count() == 0 {
            return;
        }
        let (base, count) = (self.open.base(), self.open.count());
        let open = std::mem::replace(&mut self.open, BatchWriter::new(base + u64::from(count)));
        self.max_timestamp = self.max_timestamp.max(open.max_timestamp());
        self.bytes_end += open.bytes() as u64;
        let key = BatchKey {
            topic: self.partition.topic_id,
            partition: self.partition.place.partition,
            base,
            count,
            max_timestamp: open.max_timestamp(),
            running_max_timestamp: self.max_timestamp,
            written_ms: now_ms,
            bytes_end: self.bytes_end,
        };
        self.sealed.push((key, UserValue::from(open.finish())));
    }
}

impl Durable {
    /// Shows readers what was written; `kept` hears of every batch that a tail now holds.
    pub fn publish(self, catalog: &Catalog, mut kept: impl FnMut(&Arc<Partition>, usize)) {
        for topic in self.new_topics {
            catalog.insert(topic);
        }
        for append in self.appends {
            let partition = &append.partition;
            partition
                .bytes_end
                .store(append.bytes_end, Ordering::Relaxed);
            partition
                .max_timestamp
                .store(append.max_timestamp, Ordering::Relaxed);
            let mut end = partition.end();
            for (key, value) in append.sealed {
                kept(partition, value.len());
                end = key.next();
                partition.tail.push(TailBatch::new(key.base, end, value));
            }
            partition.publish_end(end);
        }
    }
}
