//! The topics of a running runtime, over its HTTP interface.
//!
//! ```text
//! command line ── Topics ──▶ Remote ── HTTP, token ──▶ admin ── Topics ──▶ broker
//! ```
//!
//! The embedded store is open in the runtime's process alone, so other processes come this way.
//! Each call is one request on a blocking thread. Events are sent under a key of their own
//! (`Idempotency-Key`), so that they can be sent again where no answer came: they are written once.

mod connection;
mod sending;
pub mod wire;

use std::sync::Arc;

use futures::future::BoxFuture;
use serde::de::DeserializeOwned;
use sha2::{Digest as _, Sha256};

use self::connection::{Answer, Body, Method, decode, encode};
use self::wire::{
    Changed, NewTopic, OffsetReport, PlacesReport, PositionReport, RuntimeReport, SkipRequest,
    TopicReport,
};
use super::{BrokerError, Chunk, Commit, Place, ReadLimits, RequestKey, TopicInfo, Topics};
use crate::config::secret::Secret;
use crate::config::{self, TopicSettings};
use crate::decide::offsets::Progress;
use crate::event::{BlockBuilder, NewEvent, TopicPartition};
use crate::json_event;
use crate::records::Records;

/// A digest of where a broker's data is: whoever finds a runtime's address taken by a runtime with
/// other data must not write there. Looks at the file system.
pub fn store_id(broker: &config::Broker) -> String {
    let place = match broker {
        config::Broker::Embedded(embedded) => {
            let folder = &embedded.data_dir;
            let known = folder
                .canonicalize()
                .or_else(|_| std::path::absolute(folder));
            known.unwrap_or_else(|_| folder.clone()).into_os_string()
        }
        config::Broker::Kafka(kafka) => {
            let servers = kafka.properties.get("bootstrap.servers");
            servers
                .map(|servers| servers.reveal())
                .unwrap_or_default()
                .into()
        }
    };
    hex::encode(&Sha256::digest(place.as_encoded_bytes())[..16])
}

/// A runtime that answers on its HTTP interface.
#[derive(Clone)]
pub struct Remote {
    base: Arc<str>,
    token: Option<Secret>,
    agent: ureq::Agent,
}

impl Remote {
    /// Who answers.
    ///
    /// # Errors
    /// [`BrokerError::Unreachable`] where nothing does, or something else than Millstream.
    pub async fn runtime(&self) -> Result<RuntimeReport, BrokerError> {
        let report: RuntimeReport = self.get("/api/v1/runtime".to_owned()).await?;
        if report.name != "millstream" {
            return Err(BrokerError::Unreachable(format!(
                "what answers on {} is not Millstream",
                self.base
            )));
        }
        Ok(report)
    }

    /// The answer to `GET path` as a value.
    ///
    /// # Errors
    /// As the runtime's answer says; [`BrokerError::Unreachable`] where it does not answer.
    pub async fn get<T: DeserializeOwned>(&self, path: String) -> Result<T, BrokerError> {
        let answer = self.call(Method::Get, path, Body::None).await?;
        decode(&answer.body)
    }

    /// Asks the runtime to move a consumer's halted partition past the event at `offset`.
    ///
    /// # Errors
    /// `Refused` where the partition is not halted at that event, or not with this runtime.
    pub async fn skip(
        &self,
        consumer: &str,
        partition: &TopicPartition,
        offset: u64,
    ) -> Result<(), BrokerError> {
        let place = SkipRequest {
            topic: partition.topic.to_string(),
            partition: partition.partition,
            offset,
        };
        let path = format!("/api/v1/consumers/{}/skip", segment(consumer));
        let body = Body::Json(encode(&place)?);
        self.call(Method::Post, path, body).await?;
        Ok(())
    }

    /// Asks the runtime to do something with a consumer: `act` is the last segment of the path.
    ///
    /// # Errors
    /// `Refused` with the runtime's reason.
    pub async fn operate<T: DeserializeOwned>(
        &self,
        consumer: &str,
        act: &str,
        wish: &impl serde::Serialize,
    ) -> Result<T, BrokerError> {
        let path = format!("/api/v1/consumers/{}/{act}", segment(consumer));
        let body = Body::Json(encode(wish)?);
        let answer = self.call(Method::Post, path, body).await?;
        decode(&answer.body)
    }
}

/// One segment of a path: everything but letters, digits, `-`, `.`, `_` and `~` is escaped.
pub fn segment(text: &str) -> String {
    const KEPT: percent_encoding::AsciiSet = percent_encoding::NON_ALPHANUMERIC
        .remove(b'-')
        .remove(b'.')
        .remove(b'_')
        .remove(b'~');
    percent_encoding::utf8_percent_encode(text, &KEPT).to_string()
}

impl Topics for Remote {
    fn list(&self) -> BoxFuture<'_, Result<Vec<TopicInfo>, BrokerError>> {
        Box::pin(async move {
            let topics: Vec<TopicReport> = self.get("/api/v1/topics".to_owned()).await?;
            Ok(topics.into_iter().map(TopicInfo::from).collect())
        })
    }

    fn create<'a>(
        &'a self,
        name: &'a str,
        settings: &'a TopicSettings,
    ) -> BoxFuture<'a, Result<bool, BrokerError>> {
        Box::pin(async move {
            let body = Body::Json(encode(&NewTopic::new(name, settings))?);
            let path = "/api/v1/topics".to_owned();
            let answer = self.call(Method::Post, path, body).await?;
            Ok(decode::<Changed>(&answer.body)?.changed)
        })
    }

    fn delete<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<bool, BrokerError>> {
        Box::pin(async move {
            let path = format!("/api/v1/topics/{}", segment(name));
            let answer = self.call(Method::Delete, path, Body::None).await?;
            Ok(decode::<Changed>(&answer.body)?.changed)
        })
    }

    fn produce(&self, records: Records) -> BoxFuture<'_, Result<Vec<Place>, BrokerError>> {
        self.produce_once(records, RequestKey::fresh())
    }

    fn produce_once(
        &self,
        records: Records,
        key: RequestKey,
    ) -> BoxFuture<'_, Result<Vec<Place>, BrokerError>> {
        Box::pin(async move {
            let mut body = Vec::with_capacity(records.bytes() + records.len() * 64);
            for record in records.iter() {
                json_event::render_record(&record, &mut body);
                body.push(b'\n');
            }
            let answer = self.send(body.into(), key).await?;
            let places: PlacesReport = decode(&answer.body)?;
            Ok(places.events.into_iter().map(Place::from).collect())
        })
    }

    fn read<'a>(
        &'a self,
        partition: &'a TopicPartition,
        from: u64,
        limits: ReadLimits,
    ) -> BoxFuture<'a, Result<Chunk, BrokerError>> {
        Box::pin(async move {
            let path = format!(
                "/api/v1/topics/{}/{}/events?from={from}&events={}&bytes={}",
                segment(&partition.topic),
                partition.partition,
                limits.events,
                limits.bytes
            );
            let answer = self.call(Method::Get, path, Body::None).await?;
            chunk(partition, from, &answer)
        })
    }

    fn offset_at<'a>(
        &'a self,
        partition: &'a TopicPartition,
        timestamp_ms: i64,
    ) -> BoxFuture<'a, Result<u64, BrokerError>> {
        Box::pin(async move {
            let path = format!(
                "/api/v1/topics/{}/{}/offset?at={timestamp_ms}",
                segment(&partition.topic),
                partition.partition
            );
            Ok(self.get::<OffsetReport>(path).await?.offset)
        })
    }

    fn positions<'a>(
        &'a self,
        group: &'a str,
    ) -> BoxFuture<'a, Result<Vec<(TopicPartition, Progress)>, BrokerError>> {
        Box::pin(async move {
            let path = format!("/api/v1/groups/{}/positions", segment(group));
            let positions: Vec<PositionReport> = self.get(path).await?;
            Ok(positions.into_iter().map(Into::into).collect())
        })
    }

    fn set_positions<'a>(
        &'a self,
        group: &'a str,
        _commits: Vec<Commit>,
    ) -> BoxFuture<'a, Result<(), BrokerError>> {
        Box::pin(async move {
            Err(BrokerError::Refused(format!(
                "a runtime runs, and its consumers would not hear of positions of group {group} \
                 that move; stop it first"
            )))
        })
    }
}

/// The events of an answer.
fn chunk(partition: &TopicPartition, from: u64, answer: &Answer) -> Result<Chunk, BrokerError> {
    let lines = answer.body.split(|byte| *byte == b'\n');
    let mut builder = BlockBuilder::new(partition.clone(), 0, answer.body.len());
    for line in lines.filter(|line| !line.is_empty()) {
        let event = json_event::parse(line).map_err(|error| {
            BrokerError::Unreachable(format!("the runtime sent an unreadable event: {error}"))
        })?;
        builder.push(NewEvent {
            offset: event.offset.unwrap_or(from),
            timestamp_ms: event.timestamp_ms.unwrap_or(0),
            timestamp_of_broker: false,
            key: event.key.as_deref(),
            value: event.value.as_deref(),
        });
        for (name, value) in &event.headers {
            builder.push_header(name, value.as_deref());
        }
    }
    let next = answer.next.unwrap_or(from);
    Ok(Chunk {
        block: Arc::new(builder.build()),
        next,
        end: answer.end.unwrap_or(next),
    })
}
#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_cannot_leave_its_segment() {
        assert_eq!(segment("a/../b?c"), "a%2F..%2Fb%3Fc");
    }
}
