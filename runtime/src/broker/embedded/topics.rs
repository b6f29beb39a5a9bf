//! What people and the control plane ask of the embedded broker.

use std::sync::Arc;

use futures::future::BoxFuture;
use tokio::sync::oneshot;

use super::Shared;
use super::answers::Once;
use super::groups;
use super::queue::{Append, AppendError, AppendReply, Positions, Request};
use super::reader::{self, Found};
use super::store::Store;
use crate::broker::{BrokerError, Chunk, Commit, Place, ReadLimits, RequestKey, TopicInfo, Topics};
use crate::config::TopicSettings;
use crate::decide::offsets::Progress;
use crate::event::{BlockBuilder, TopicPartition};
use crate::records::Records;

/// Bytes of produced records that may wait for the log writer; who comes later waits.
pub const PRODUCE_BYTES: usize = 64 * 1024 * 1024;
/// The unit in which that room is given out.
const PERMIT_BYTES: usize = 1024;
/// Permits in all.
pub const PRODUCE_PERMITS: usize = PRODUCE_BYTES / PERMIT_BYTES;

/// The embedded broker's topics.
pub struct EmbeddedTopics {
    pub shared: Arc<Shared>,
}

impl EmbeddedTopics {
    /// Runs what blocks on the disk elsewhere than on an executor's thread.
    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Shared, &Store) -> Result<T, BrokerError> + Send + 'static,
    ) -> Result<T, BrokerError> {
        let shared = self.shared.clone();
        tokio::task::spawn_blocking(move || {
            let store = shared.store()?;
            work(&shared, &store)
        })
        .await
        .map_err(|e| BrokerError::Store(format!("a read of the store ended early: {e}")))?
    }

    async fn ask<T>(
        &self,
        request: impl FnOnce(oneshot::Sender<Result<T, BrokerError>>) -> Request,
    ) -> Result<T, BrokerError> {
        let (reply, answer) = oneshot::channel();
        self.shared
            .queue
            .push(request(reply))
            .map_err(|_| super::closed())?;
        answer.await.map_err(|_| super::closed())?
    }

    async fn append(
        &self,
        records: Records,
        once: Option<Once>,
    ) -> Result<Vec<Place>, BrokerError> {
        let permits = records.bytes().div_ceil(PERMIT_BYTES).min(PRODUCE_PERMITS);
        let _room = self
            .shared
            .produce_room
            .acquire_many(permits as u32)
            .await
            .map_err(|_| super::closed())?;
        let (reply, answer) = oneshot::channel();
        let request = Request::Append(Append {
            records: Arc::new(records),
            ticket: None,
            once,
            reply: AppendReply::Places(reply),
        });
        self.shared
            .queue
            .push(request)
            .map_err(|_| super::closed())?;
        let outcome = answer.await.map_err(|_| super::closed())?;
        outcome.map_err(|error| match error {
            AppendError::Behind => super::closed(),
            AppendError::DiskFull(reason) => BrokerError::DiskFull(reason),
            AppendError::Store(error) => error,
            AppendError::Record {
                index,
                topic,
                reason,
            } => BrokerError::TooLarge(at_fault(index, &topic, &reason)),
            AppendError::Topic {
                index,
                topic,
                reason,
            } => BrokerError::Refused(at_fault(index, &topic, &reason)),
        })
    }
}

fn at_fault(index: usize, topic: &str, reason: &str) -> String {
    format!(
        "event {} for topic {topic}: {reason}; none of the events was written",
        index + 1
    )
}

impl Topics for EmbeddedTopics {
    fn list(&self) -> BoxFuture<'_, Result<Vec<TopicInfo>, BrokerError>> {
        Box::pin(async { Ok(self.shared.catalog.infos()) })
    }

    fn create<'a>(
        &'a self,
        name: &'a str,
        settings: &'a TopicSettings,
    ) -> BoxFuture<'a, Result<bool, BrokerError>> {
        Box::pin(self.ask(|reply| Request::Create {
            name: name.into(),
            settings: settings.clone(),
            reply,
        }))
    }

    fn delete<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<bool, BrokerError>> {
        Box::pin(self.ask(|reply| Request::Delete {
            name: name.into(),
            reply,
        }))
    }

    fn produce(&self, records: Records) -> BoxFuture<'_, Result<Vec<Place>, BrokerError>> {
        Box::pin(async move {
            if records.is_empty() {
                return Ok(Vec::new());
            }
            self.append(records, None).await
        })
    }

    fn produce_once(
        &self,
        records: Records,
        key: RequestKey,
    ) -> BoxFuture<'_, Result<Vec<Place>, BrokerError>> {
        Box::pin(async move {
            let digest = records.digest();
            self.append(records, Some(Once { key, digest })).await
        })
    }

    fn read<'a>(
        &'a self,
        partition: &'a TopicPartition,
        from: u64,
        limits: ReadLimits,
    ) -> BoxFuture<'a, Result<Chunk, BrokerError>> {
        let place = partition.clone();
        Box::pin(self.blocking(move |shared, store| {
            let partition = shared.catalog.partition(&place)?;
            // Retention may overtake the read between its start and its end; then it starts anew.
            let mut at = from;
            let mut found = Found::Lost;
            while matches!(found, Found::Lost) && at <= partition.end() {
                at = at.max(partition.start());
                found = reader::read(store, &shared.recent, &partition, at, limits, &mut None)?;
            }
            Ok(match found {
                Found::Events { block, next } => Chunk {
                    block,
                    next,
                    end: partition.end(),
                },
                Found::End | Found::Lost => Chunk {
                    block: Arc::new(BlockBuilder::new(place, 0, 0).build()),
                    next: at,
                    end: partition.end(),
                },
            })
        }))
    }

    fn offset_at<'a>(
        &'a self,
        partition: &'a TopicPartition,
        timestamp_ms: i64,
    ) -> BoxFuture<'a, Result<u64, BrokerError>> {
        let place = partition.clone();
        Box::pin(self.blocking(move |shared, store| {
            let partition = shared.catalog.partition(&place)?;
            reader::offset_at(store, &partition, timestamp_ms)
        }))
    }

    fn positions<'a>(
        &'a self,
        group: &'a str,
    ) -> BoxFuture<'a, Result<Vec<(TopicPartition, Progress)>, BrokerError>> {
        let group = group.to_owned();
        Box::pin(
            self.blocking(move |shared, store| groups::positions(store, &shared.catalog, &group)),
        )
    }

    fn set_positions<'a>(
        &'a self,
        group: &'a str,
        commits: Vec<Commit>,
    ) -> BoxFuture<'a, Result<(), BrokerError>> {
        Box::pin(async move {
            if self.shared.has_member(group) {
                return Err(BrokerError::Refused(format!(
                    "group {group} has a member, which would not hear of it: stop its runtime first"
                )));
            }
            let (reply, answer) = oneshot::channel();
            let request = Request::Commit(Positions {
                group: group.into(),
                commits,
                found: true,
                reply,
            });
            self.shared
                .queue
                .push(request)
                .map_err(|_| super::closed())?;
            let outcome = answer.await.map_err(|_| super::closed())?;
            outcome.map_err(|error| BrokerError::Store(error.to_string()))
        })
    }
}
