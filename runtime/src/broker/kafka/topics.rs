//! What people and the control plane ask of the cluster.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use parking_lot::Mutex;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use tokio::time::Instant;

use super::client::{Listener, Settings};
use super::errors::{broker_error, code_error};
use super::group;
use super::no_thread;
use super::producer::{Order, Producer};
use super::raw;
use super::reader::{Readers, WAIT};
use crate::broker::{
    BrokerError, Chunk, Commit, Place, PublishError, ReadLimits, TopicInfo, Topics,
};
use crate::config::{Cleanup, TopicSettings};
use crate::decide::offsets::Progress;
use crate::event::TopicPartition;
use crate::records::Records;

/// How long a write for a person may take; a stream's writes wait for as long as it takes.
const PRODUCE_WAIT: Duration = Duration::from_secs(30);
/// How many topics are remembered as written to.
const MAX_WRITTEN: usize = 1000;
/// How long new partitions may be without a leader, somebody else's as well: topics are listed again
/// until then, with a pause in between.
const LEADERLESS: Duration = Duration::from_secs(5);
const ASK_AGAIN: Duration = Duration::from_millis(100);
/// How often it is looked whether a new topic is there.
const APPEAR_POLL: Duration = Duration::from_millis(50);

/// The cluster's topics.
pub(super) struct KafkaTopics {
    settings: Settings,
    listener: Listener,
    readers: Arc<Readers>,
    producer: Producer,
    /// Topics that were found to be there when somebody wrote to them.
    written: Mutex<BTreeSet<Arc<str>>>,
}

impl KafkaTopics {
    /// Prepares clients; none connects before it is needed.
    pub(super) fn new(settings: Settings, listener: Listener) -> Result<Self, BrokerError> {
        let producer = Producer::start(
            "topics",
            settings.producer(),
            listener.clone(),
            Order::Independent,
        )
        .map_err(no_thread)?;
        Ok(Self {
            readers: Arc::new(Readers::new(settings.clone(), listener.clone())),
            settings,
            listener,
            producer,
            written: Mutex::default(),
        })
    }

    /// Closes the clients that are kept.
    pub(super) async fn close(&self) {
        let readers = self.readers.clone();
        // Closing a client can block.
        let _ = blocking(move || {
            readers.close();
            Ok(())
        })
        .await;
    }

    /// Refuses a topic that is not there. The producer itself would wait half a minute for it to
    /// appear, and then could not tell it from a cluster out of reach.
    async fn must_exist(&self, topic: &Arc<str>) -> Result<(), BrokerError> {
        if self.written.lock().contains(topic) {
            return Ok(());
        }
        let (readers, name) = (self.readers.clone(), topic.clone());
        if blocking(move || readers.partitions(&name)).await?.is_none() {
            return Err(BrokerError::UnknownTopic(topic.to_string()));
        }
        let mut written = self.written.lock();
        if written.len() >= MAX_WRITTEN {
            written.clear();
        }
        written.insert(topic.clone());
        Ok(())
    }

    /// A client of its own a request, see [`Readers`].
    fn admin(&self) -> Result<AdminClient<Listener>, BrokerError> {
        self.settings
            .admin()
            .create_with_context(self.listener.clone())
            .map_err(|error: KafkaError| broker_error("the Kafka client", &error))
    }

    /// Waits until the topic is there or gone, for a while: metadata spreads in its own time.
    async fn settles(&self, topic: &str, there: bool) -> Result<(), BrokerError> {
        let deadline = Instant::now() + WAIT;
        loop {
            let readers = self.readers.clone();
            let name = topic.to_owned();
            let found = blocking(move || readers.partitions(&name)).await;
            if found.is_ok_and(|found| found.is_some() == there) || Instant::now() >= deadline {
                return Ok(());
            }
            tokio::time::sleep(APPEAR_POLL).await;
        }
    }
}

impl Topics for KafkaTopics {
    fn list(&self) -> BoxFuture<'_, Result<Vec<TopicInfo>, BrokerError>> {
        let readers = self.readers.clone();
        async move {
            let begun = Instant::now();
            loop {
                let readers = readers.clone();
                match blocking(move || readers.list()).await {
                    Err(BrokerError::Unreachable(_)) if begun.elapsed() < LEADERLESS => {
                        tokio::time::sleep(ASK_AGAIN).await;
                    }
                    answer => return answer,
                }
            }
        }
        .boxed()
    }

    fn create<'a>(
        &'a self,
        name: &'a str,
        settings: &'a TopicSettings,
    ) -> BoxFuture<'a, Result<bool, BrokerError>> {
        async move {
            let config = topic_config(settings);
            let partitions = settings
                .partitions
                .map_or(-1, |count| i32::try_from(count).unwrap_or(i32::MAX));
            let mut topic = NewTopic::new(name, partitions, TopicReplication::Fixed(-1));
            for (key, value) in &config {
                topic = topic.set(key, value);
            }
            let admin = self.admin()?;
            let options = AdminOptions::new()
                .operation_timeout(Some(WAIT))
                .request_timeout(Some(WAIT));
            let answers = admin.create_topics([&topic], &options).await;
            dismiss(admin);
            match first(answers, name)? {
                Ok(()) => {
                    self.settles(name, true).await?;
                    Ok(true)
                }
                Err(RDKafkaErrorCode::TopicAlreadyExists) => Ok(false),
                Err(RDKafkaErrorCode::InvalidTopic) => Err(BrokerError::Refused(format!(
                    "{name:?} cannot be the name of a Kafka topic"
                ))),
                Err(code) => Err(code_error(&format!("creating topic {name}"), code)),
            }
        }
        .boxed()
    }

    fn delete<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<bool, BrokerError>> {
        async move {
            let admin = self.admin()?;
            let options = AdminOptions::new()
                .operation_timeout(Some(WAIT))
                .request_timeout(Some(WAIT));
            let answers = admin.delete_topics(&[name], &options).await;
            dismiss(admin);
            match first(answers, name)? {
                Ok(()) => {
                    self.settles(name, false).await?;
                    Ok(true)
                }
                Err(RDKafkaErrorCode::UnknownTopicOrPartition | RDKafkaErrorCode::UnknownTopic) => {
                    Ok(false)
                }
                Err(code) => Err(code_error(&format!("deleting topic {name}"), code)),
            }
        }
        .boxed()
    }

    fn produce(&self, records: Records) -> BoxFuture<'_, Result<Vec<Place>, BrokerError>> {
        async move {
            let topics: BTreeSet<Arc<str>> = records
                .iter()
                .map(|record| record.topic().clone())
                .collect();
            for topic in &topics {
                self.must_exist(topic).await?;
            }
            let answer = self.producer.produce(Arc::new(records));
            let answer = tokio::time::timeout(PRODUCE_WAIT, answer).await;
            if !matches!(answer, Ok(Ok(_))) {
                // It may have been deleted since.
                self.written.lock().retain(|topic| !topics.contains(topic));
            }
            match answer {
                Ok(Ok(places)) => Ok(places),
                Ok(Err(error)) => Err(match error {
                    PublishError::Topic { topic, reason, .. } => {
                        BrokerError::Refused(format!("nothing is written to {topic}: {reason}"))
                    }
                    PublishError::Event {
                        index,
                        topic,
                        reason,
                    } => BrokerError::Refused(format!(
                        "event {} is not written to {topic}: {reason}",
                        index + 1
                    )),
                    PublishError::Passing(text) => BrokerError::Unreachable(text),
                }),
                Err(_) => Err(BrokerError::Unreachable(format!(
                    "{} did not acknowledge the events within {} s; they may be written still",
                    self.settings.servers(),
                    PRODUCE_WAIT.as_secs()
                ))),
            }
        }
        .boxed()
    }

    fn read<'a>(
        &'a self,
        partition: &'a TopicPartition,
        from: u64,
        limits: ReadLimits,
    ) -> BoxFuture<'a, Result<Chunk, BrokerError>> {
        let (readers, partition) = (self.readers.clone(), partition.clone());
        blocking(move || readers.read(&partition, from, limits)).boxed()
    }

    fn offset_at<'a>(
        &'a self,
        partition: &'a TopicPartition,
        timestamp_ms: i64,
    ) -> BoxFuture<'a, Result<u64, BrokerError>> {
        let (readers, partition) = (self.readers.clone(), partition.clone());
        blocking(move || readers.offset_at(&partition, timestamp_ms)).boxed()
    }

    fn positions<'a>(
        &'a self,
        group: &'a str,
    ) -> BoxFuture<'a, Result<Vec<(TopicPartition, Progress)>, BrokerError>> {
        let admin = self.admin();
        let group = group.to_owned();
        blocking(move || {
            let admin = Arc::new(admin?);
            let wait_ms = WAIT.as_millis() as i32;
            // Where nothing answers, librdkafka can abort the process over the request itself.
            if !raw::probe(admin.inner(), wait_ms) {
                return Err(BrokerError::Unreachable(format!(
                    "the positions of group {group}"
                )));
            }
            let entries = raw::group_offsets(admin.inner(), admin.clone(), &group, wait_ms)
                .map_err(|code| code_error(&format!("the positions of group {group}"), code))?;
            let mut positions: Vec<_> = entries
                .iter()
                .filter_map(|entry| {
                    let number = u32::try_from(entry.partition).ok()?;
                    let partition = TopicPartition::new(entry.topic.as_str(), number);
                    Some((partition, entry.progress()?))
                })
                .collect();
            positions.sort_unstable_by(|left, right| left.0.cmp(&right.0));
            Ok(positions)
        })
        .boxed()
    }

    fn set_positions<'a>(
        &'a self,
        group: &'a str,
        commits: Vec<Commit>,
    ) -> BoxFuture<'a, Result<(), BrokerError>> {
        let (settings, listener) = (self.settings.clone(), self.listener.clone());
        let name = group.to_owned();
        blocking(move || group::set_positions(&settings, listener, &name, &commits)).boxed()
    }
}

/// Runs what blocks on a thread for such work.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, BrokerError> + Send + 'static,
) -> Result<T, BrokerError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(answer) => answer,
        Err(error) => Err(BrokerError::Refused(format!(
            "the request to Kafka broke off: {error}"
        ))),
    }
}

/// Drops an admin client where it may block.
fn dismiss(admin: AdminClient<Listener>) {
    drop(tokio::task::spawn_blocking(move || drop(admin)));
}

/// The answer for the one topic that was asked for.
fn first(
    answers: Result<Vec<rdkafka::admin::TopicResult>, KafkaError>,
    name: &str,
) -> Result<Result<(), RDKafkaErrorCode>, BrokerError> {
    let answers = answers.map_err(|error| broker_error(&format!("topic {name}"), &error))?;
    match answers.into_iter().next() {
        Some(Ok(_)) => Ok(Ok(())),
        Some(Err((_, code))) => Ok(Err(code)),
        None => Err(BrokerError::Refused(format!(
            "the broker gave no answer for topic {name}"
        ))),
    }
}

/// Kafka's own names for a topic's settings.
fn topic_config(settings: &TopicSettings) -> Vec<(&'static str, String)> {
    let mut config = Vec::new();
    if let Some(age) = settings.retention_age {
        config.push(("retention.ms", age.as_millis().to_string()));
    }
    if let Some(bytes) = settings.retention_bytes {
        config.push(("retention.bytes", bytes.to_string()));
    }
    if let Some(cleanup) = settings.cleanup {
        let policy = match cleanup {
            Cleanup::Delete => "delete",
            Cleanup::Compact => "compact",
        };
        config.push(("cleanup.policy", policy.to_owned()));
    }
    if let Some(bytes) = settings.max_event {
        config.push(("max.message.bytes", bytes.to_string()));
    }
    config
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A misspelt name is refused by the broker, and the topic is not made.
    #[test]
    fn settings_have_kafkas_names() {
        let settings = TopicSettings {
            partitions: Some(1),
            retention_age: Some(Duration::from_secs(60)),
            retention_bytes: Some(1024),
            cleanup: Some(Cleanup::Compact),
            max_event: Some(2048),
        };
        assert_eq!(
            topic_config(&settings),
            [
                ("retention.ms", "60000".to_owned()),
                ("retention.bytes", "1024".to_owned()),
                ("cleanup.policy", "compact".to_owned()),
                ("max.message.bytes", "2048".to_owned()),
            ]
        );
    }
}
