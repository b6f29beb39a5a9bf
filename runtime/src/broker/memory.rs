//! Topics in memory, for tests of what stands above a broker.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::future::BoxFuture;
use parking_lot::Mutex;

use super::{
    BrokerError, Chunk, Commit, PartitionInfo, Place, ReadLimits, RequestKey, TopicInfo, Topics,
};
use crate::config::TopicSettings;
use crate::decide::offsets::Progress;
use crate::event::{BlockBuilder, NewEvent, TopicPartition};
use crate::records::Records;

/// Partitions in order, each with its records; a null key goes to partition 0.
#[derive(Default)]
pub struct Memory {
    topics: Mutex<BTreeMap<Arc<str>, Vec<Records>>>,
    positions: Mutex<Vec<(TopicPartition, Progress)>>,
    failure: Mutex<Option<BrokerError>>,
    answers: Mutex<BTreeMap<String, (u128, Vec<Place>)>>,
}

impl Memory {
    /// One empty topic.
    pub fn with_topic(name: &str, partitions: usize) -> Self {
        let memory = Self::default();
        let empty = (0..partitions).map(|_| Records::new()).collect();
        memory.topics.lock().insert(name.into(), empty);
        memory
    }

    /// Makes every later call fail.
    pub fn fail(&self, error: BrokerError) {
        *self.failure.lock() = Some(error);
    }

    /// What [`Topics::positions`] answers for every group.
    pub fn set_positions(&self, positions: Vec<(TopicPartition, Progress)>) {
        *self.positions.lock() = positions;
    }

    /// The values of a partition.
    pub fn values(&self, topic: &str, partition: usize) -> Vec<Vec<u8>> {
        let topics = self.topics.lock();
        let records = topics[topic][partition].iter();
        records
            .map(|record| record.value().unwrap_or_default().to_vec())
            .collect()
    }

    /// All records of a topic, partition by partition.
    pub fn records(&self, topic: &str) -> Records {
        let mut all = Records::new();
        for records in &self.topics.lock()[topic] {
            all.append_all(records);
        }
        all
    }

    fn check(&self) -> Result<(), BrokerError> {
        match &*self.failure.lock() {
            Some(error) => Err(error.clone()),
            None => Ok(()),
        }
    }

    fn write(&self, records: &Records) -> Result<Vec<Place>, BrokerError> {
        self.check()?;
        let mut topics = self.topics.lock();
        let mut places = Vec::new();
        for record in records.iter() {
            let partitions = topics
                .entry(record.topic().clone())
                .or_insert_with(|| vec![Records::new()]);
            let by_key = record.key().map_or(0, |key| key.len() % partitions.len());
            let number = record.partition().map_or(by_key, |number| number as usize);
            let Some(partition) = partitions.get_mut(number) else {
                return Err(BrokerError::Refused(format!(
                    "{} has no partition {number}",
                    record.topic()
                )));
            };
            partition.push_view(&record);
            places.push(Place {
                partition: TopicPartition::new(record.topic().clone(), number as u32),
                offset: partition.len() as u64 - 1,
            });
        }
        Ok(places)
    }

    fn chunk(
        &self,
        partition: &TopicPartition,
        from: u64,
        limits: ReadLimits,
    ) -> Result<Chunk, BrokerError> {
        self.check()?;
        let topics = self.topics.lock();
        let records = topics
            .get(&partition.topic)
            .and_then(|partitions| partitions.get(partition.partition as usize))
            .ok_or_else(|| BrokerError::UnknownTopic(partition.to_string()))?;
        let mut builder = BlockBuilder::new(partition.clone(), 0, 0);
        for (offset, record) in (0..).zip(records.iter()).skip(from as usize) {
            let full = builder.len() >= limits.events || builder.bytes() >= limits.bytes;
            if full && !builder.is_empty() {
                break;
            }
            builder.push(NewEvent {
                offset,
                timestamp_ms: record.timestamp_ms().unwrap_or(0),
                timestamp_of_broker: false,
                key: record.key(),
                value: record.value(),
            });
            for (name, value) in record.headers() {
                builder.push_header(name, value);
            }
        }
        Ok(Chunk {
            next: from + builder.len() as u64,
            end: records.len() as u64,
            block: Arc::new(builder.build()),
        })
    }
}

impl Topics for Memory {
    fn list(&self) -> BoxFuture<'_, Result<Vec<TopicInfo>, BrokerError>> {
        Box::pin(async move {
            self.check()?;
            let topics = self.topics.lock();
            let info = topics.iter().map(|(name, partitions)| TopicInfo {
                name: name.clone(),
                partitions: partitions
                    .iter()
                    .map(|records| PartitionInfo {
                        start: 0,
                        end: records.len() as u64,
                    })
                    .collect(),
            });
            Ok(info.collect())
        })
    }

    fn create<'a>(
        &'a self,
        name: &'a str,
        settings: &'a TopicSettings,
    ) -> BoxFuture<'a, Result<bool, BrokerError>> {
        Box::pin(async move {
            self.check()?;
            let mut topics = self.topics.lock();
            if topics.contains_key(name) {
                return Ok(false);
            }
            let count = settings.partitions.unwrap_or(4);
            topics.insert(name.into(), (0..count).map(|_| Records::new()).collect());
            Ok(true)
        })
    }

    fn delete<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<bool, BrokerError>> {
        Box::pin(async move {
            self.check()?;
            Ok(self.topics.lock().remove(name).is_some())
        })
    }

    fn produce(&self, records: Records) -> BoxFuture<'_, Result<Vec<Place>, BrokerError>> {
        Box::pin(async move { self.write(&records) })
    }

    fn produce_once(
        &self,
        records: Records,
        key: RequestKey,
    ) -> BoxFuture<'_, Result<Vec<Place>, BrokerError>> {
        Box::pin(async move {
            self.check()?;
            let digest = records.digest();
            let mut answers = self.answers.lock();
            match answers.get(key.as_str()) {
                Some((known, places)) if *known == digest => Ok(places.clone()),
                Some(_) => Err(BrokerError::Refused("another request had this key".into())),
                None => {
                    let places = self.write(&records)?;
                    answers.insert(key.as_str().to_owned(), (digest, places.clone()));
                    Ok(places)
                }
            }
        })
    }

    fn read<'a>(
        &'a self,
        partition: &'a TopicPartition,
        from: u64,
        limits: ReadLimits,
    ) -> BoxFuture<'a, Result<Chunk, BrokerError>> {
        Box::pin(async move { self.chunk(partition, from, limits) })
    }

    fn offset_at<'a>(
        &'a self,
        partition: &'a TopicPartition,
        timestamp_ms: i64,
    ) -> BoxFuture<'a, Result<u64, BrokerError>> {
        Box::pin(async move {
            self.check()?;
            let topics = self.topics.lock();
            let records = &topics[&partition.topic][partition.partition as usize];
            let older = |ms: Option<i64>| ms.unwrap_or(0) < timestamp_ms;
            let found = records
                .iter()
                .position(|record| !older(record.timestamp_ms()));
            Ok(found.unwrap_or(records.len()) as u64)
        })
    }

    fn positions<'a>(
        &'a self,
        _group: &'a str,
    ) -> BoxFuture<'a, Result<Vec<(TopicPartition, Progress)>, BrokerError>> {
        Box::pin(async move {
            self.check()?;
            Ok(self.positions.lock().clone())
        })
    }

    fn set_positions<'a>(
        &'a self,
        _group: &'a str,
        commits: Vec<Commit>,
    ) -> BoxFuture<'a, Result<(), BrokerError>> {
        Box::pin(async move {
            self.check()?;
            let mut positions = self.positions.lock();
            for Commit {
                partition,
                progress,
            } in commits
            {
                positions.retain(|(known, _)| *known != partition);
                positions.push((partition, progress));
            }
            Ok(())
        })
    }
}
