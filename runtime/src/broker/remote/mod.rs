//! The topics of a running runtime, over its HTTP interface.
//!
//! ```text
//! command line ── Topics ──▶ Remote ── HTTP, token ──▶ admin ── Topics ──▶ broker
//! ```
//!
//! The embedded store is open in the runtime's process alone, so other processes come this way.
//! Each call is one request on a blocking thread. Events are sent under a key of their own
//! (`Idempotency-Key`), so that they can be sent again where no answer came: they are written once.

mod sending;
pub mod wire;

use std::net::{Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use rustls::pki_types::CertificateDer;
use serde::de::DeserializeOwned;
use sha2::{Digest as _, Sha256};
use tokio::time::Instant;
use ureq::unversioned::resolver::{ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::{DefaultConnector, NextTimeout};

use self::wire::{
    Changed, ErrorKind, ErrorReport, NewTopic, OffsetReport, PlacesReport, PositionReport,
    RuntimeReport, SkipRequest, TopicReport,
};
use super::{BrokerError, Chunk, Commit, Place, ReadLimits, RequestKey, TopicInfo, Topics};
use crate::config::secret::Secret;
use crate::config::{self, TopicSettings};
use crate::decide::offsets::Progress;
use crate::event::{BlockBuilder, NewEvent, TopicPartition};
use crate::json_event;
use crate::records::Records;
use crate::tls;

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

/// How long a connection may take; the runtime is on this machine or near.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// How long a request may take. Longer than the runtime's own limit, so that its reason arrives.
const CALL_TIMEOUT: Duration = Duration::from_secs(60);
/// How long a connection is kept for the next request.
const MAX_IDLE: Duration = Duration::from_secs(5);
/// Largest answer that is read, in bytes.
const MAX_ANSWER: u64 = 64 << 20;

/// A runtime that answers on its HTTP interface.
#[derive(Clone)]
pub struct Remote {
    base: Arc<str>,
    token: Option<Secret>,
    agent: ureq::Agent,
}

/// An answer that was not an error.
struct Answer {
    next: Option<u64>,
    end: Option<u64>,
    body: Vec<u8>,
}

/// A request that did not get what it asked for.
struct Failed {
    error: BrokerError,
    /// Where the same request may pass later: when, at the soonest.
    again: Option<Duration>,
}

impl From<Failed> for BrokerError {
    fn from(failed: Failed) -> Self {
        failed.error
    }
}

/// What a request carries.
enum Body {
    None,
    Json(Vec<u8>),
    /// Events as lines, to be written once for the key.
    Events(Bytes, RequestKey),
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Method {
    Get,
    Post,
    Delete,
}

impl Remote {
    /// The runtime at `address` (`host:port`), over plain HTTP. Nothing is sent yet.
    pub fn new(address: &str, token: Option<Secret>) -> Self {
        let agent = settings().build().new_agent();
        Self {
            base: format!("http://{address}").into(),
            token,
            agent,
        }
    }

    /// The runtime at `address`, over TLS: its certificate must be valid for `name`, and one of
    /// `trusted` must vouch for it. Nothing is sent yet.
    pub fn over_tls(
        address: SocketAddr,
        name: &str,
        trusted: Vec<CertificateDer<'static>>,
        token: Option<Secret>,
    ) -> Self {
        let trusted = trusted
            .iter()
            .map(|certificate| ureq::tls::Certificate::from_der(certificate).to_owned());
        let tls = ureq::tls::TlsConfig::builder()
            .provider(ureq::tls::TlsProvider::Rustls)
            .root_certs(ureq::tls::RootCerts::Specific(Arc::new(trusted.collect())))
            .unversioned_rustls_crypto_provider(tls::provider())
            .build();
        let agent = ureq::Agent::with_parts(
            settings().https_only(true).tls_config(tls).build(),
            DefaultConnector::default(),
            At(address),
        );
        let name = match name.parse::<Ipv6Addr>() {
            Ok(ip) => format!("[{ip}]"),
            Err(_) => name.to_owned(),
        };
        Self {
            base: format!("https://{name}:{}", address.port()).into(),
            token,
            agent,
        }
    }

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

    async fn call(&self, method: Method, path: String, body: Body) -> Result<Answer, Failed> {
        let remote = self.clone();
        let called =
            tokio::task::spawn_blocking(move || remote.call_blocking(method, &path, body)).await;
        called.unwrap_or_else(|error| {
            Err(Failed {
                error: BrokerError::Unreachable(format!("the request failed: {error}")),
                again: None,
            })
        })
    }

    fn call_blocking(&self, method: Method, path: &str, body: Body) -> Result<Answer, Failed> {
        let url = format!("{}{path}", self.base);
        let bearer = self
            .token
            .as_ref()
            .map(|token| format!("Bearer {}", token.reveal()));
        let sent = match method {
            Method::Get => {
                let get = || with_token(self.agent.get(&url), bearer.clone()).call();
                match get() {
                    // The runtime may close a kept connection just as it is used again; a read can
                    // be repeated.
                    Err(ureq::Error::Io(_)) => get(),
                    sent => sent,
                }
            }
            Method::Delete => with_token(self.agent.delete(&url), bearer).call(),
            Method::Post => {
                let request = with_token(self.agent.post(&url), bearer);
                match body {
                    Body::None => request.content_type("application/json").send_empty(),
                    Body::Json(body) => request.content_type("application/json").send(body),
                    Body::Events(lines, key) => request
                        .content_type(wire::NDJSON)
                        .header(wire::IDEMPOTENCY_KEY, key.as_str())
                        .send(&lines[..]),
                }
            }
        };
        let unreachable = |error: ureq::Error| match is_distrust(&error) {
            true => Failed {
                error: BrokerError::Refused(format!(
                    "the certificate of {} is not trusted ({error}); name the file of those who \
                     vouch for it by --ca, MILLSTREAM_CA or `ca` in [admin] tls",
                    self.base
                )),
                again: None,
            },
            false => Failed {
                error: BrokerError::Unreachable(format!("the runtime at {}: {error}", self.base)),
                again: Some(Duration::ZERO),
            },
        };
        let mut response = sent.map_err(unreachable)?;
        let number = |name: &str| {
            let value = response.headers().get(name)?;
            value.to_str().ok()?.parse::<u64>().ok()
        };
        let (next, end) = (number(wire::NEXT), number(wire::END));
        let wait = number("retry-after").map(Duration::from_secs);
        let status = response.status().as_u16();
        let body = response.body_mut().with_config().limit(MAX_ANSWER);
        let body = body.read_to_vec().map_err(unreachable)?;
        if (200..300).contains(&status) {
            return Ok(Answer { next, end, body });
        }
        let wait = wait.unwrap_or(Duration::from_secs(1));
        Err(Failed {
            error: error_of(status, &body, wait),
            again: matches!(status, 429 | 503).then_some(wait),
        })
    }

    /// Sends events until there is an answer, within the bounds of sending.rs.
    async fn send(&self, lines: Bytes, key: RequestKey) -> Result<Answer, BrokerError> {
        let begun = Instant::now();
        let mut attempt = 0;
        loop {
            attempt += 1;
            let body = Body::Events(lines.clone(), key.clone());
            let called = self.call(Method::Post, "/api/v1/produce".to_owned(), body);
            let failed = match called.await {
                Ok(answer) => return Ok(answer),
                Err(failed) => failed,
            };
            match sending::pause(attempt, begun.elapsed(), failed.again, fastrand::f64()) {
                Some(wait) => {
                    tracing::warn!(error = %failed.error, attempt, "the events are sent again");
                    tokio::time::sleep(wait).await;
                }
                None => return Err(sending::given_up(failed.error, attempt)),
            }
        }
    }
}

/// What holds for every connection.
fn settings() -> ureq::config::ConfigBuilder<ureq::typestate::AgentScope> {
    ureq::Agent::config_builder()
        .http_status_as_error(false)
        .timeout_connect(Some(CONNECT_TIMEOUT))
        .timeout_global(Some(CALL_TIMEOUT))
        .max_redirects(0)
        // Well below the time after which the runtime closes an idle connection.
        .max_idle_age(MAX_IDLE)
        // A proxy named in the environment is for the outside; the token must not go there.
        .proxy(None)
        .user_agent(concat!("millstream/", env!("CARGO_PKG_VERSION")))
}

/// Where a name leads, whatever the system says: the certificate's name need not be known to it.
#[derive(Debug)]
struct At(SocketAddr);

impl Resolver for At {
    fn resolve(
        &self,
        _: &ureq::http::Uri,
        _: &ureq::config::Config,
        _: NextTimeout,
    ) -> Result<ResolvedSocketAddrs, ureq::Error> {
        let mut found = self.empty();
        found.push(self.0);
        Ok(found)
    }
}

/// Whether a request failed because one side does not trust the other.
fn is_distrust(error: &ureq::Error) -> bool {
    match error {
        ureq::Error::Rustls(error) => tls::is_distrust(error),
        ureq::Error::Io(error) => tls::is_distrust(error),
        _ => false,
    }
}

fn with_token<B>(
    request: ureq::RequestBuilder<B>,
    bearer: Option<String>,
) -> ureq::RequestBuilder<B> {
    match bearer {
        Some(bearer) => request.header("authorization", bearer),
        None => request,
    }
}

/// The error that an answer stands for; `retry_after` is what it says of another request.
fn error_of(status: u16, body: &[u8], retry_after: Duration) -> BrokerError {
    let report: ErrorReport = serde_json::from_slice(body).unwrap_or_default();
    let mut text = match report.error.is_empty() {
        true => format!("the runtime answered with HTTP status {status}"),
        false => report.error,
    };
    // The text of the runtime is a whole sentence; what `BrokerError` puts in front is taken off.
    let mut without = |front: &str| match text.strip_prefix(front) {
        Some(rest) => rest.to_owned(),
        None => std::mem::take(&mut text),
    };
    match (report.kind, status) {
        (Some(ErrorKind::UnknownTopic), _) => {
            BrokerError::UnknownTopic(without("there is no topic "))
        }
        (Some(ErrorKind::Store), _) => BrokerError::Store(without("the broker's store: ")),
        (Some(ErrorKind::DiskFull), _) | (None, 507) => {
            BrokerError::DiskFull(without("the disk is nearly full: "))
        }
        (Some(ErrorKind::Unreachable), _) | (None, 503) => {
            BrokerError::Unreachable(without("cannot reach the broker: "))
        }
        (Some(ErrorKind::TooLarge), _) | (None, 413) => BrokerError::TooLarge(text),
        (Some(ErrorKind::Overloaded), _) | (None, 429) => BrokerError::Overloaded {
            reason: text,
            retry_after,
        },
        (Some(ErrorKind::Unsupported), _) => BrokerError::Unsupported(text),
        (Some(ErrorKind::Refused), _) | (None, 400..500) => {
            for line in &report.lines {
                text.push_str(&format!("\n  line {}: {}", line.line, line.error));
            }
            BrokerError::Refused(text)
        }
        (None, _) => BrokerError::Store(text),
    }
}

fn decode<T: DeserializeOwned>(body: &[u8]) -> Result<T, BrokerError> {
    serde_json::from_slice(body).map_err(|error| {
        BrokerError::Unreachable(format!(
            "the answer is not one of a Millstream runtime of this version: {error}"
        ))
    })
}

fn encode<T: serde::Serialize>(value: &T) -> Result<Vec<u8>, BrokerError> {
    serde_json::to_vec(value).map_err(|error| BrokerError::Refused(error.to_string()))
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

    const WAIT: Duration = Duration::from_secs(1);

    /// The command line's exit code comes from the kind; a lost kind would turn 69 into 1.
    #[test]
    fn every_error_arrives_as_it_was_sent() {
        let errors = [
            BrokerError::Unreachable("no answer".to_owned()),
            BrokerError::UnknownTopic("orders".to_owned()),
            BrokerError::Refused("too large".to_owned()),
            BrokerError::Store("poisoned".to_owned()),
            BrokerError::DiskFull("1 MiB left".to_owned()),
            BrokerError::TooLarge("2 MiB".to_owned()),
            BrokerError::Overloaded {
                reason: "too much".to_owned(),
                retry_after: WAIT,
            },
            BrokerError::Unsupported("no such thing".to_owned()),
        ];
        for error in errors {
            let body = serde_json::to_vec(&ErrorReport::from(&error)).expect("JSON");
            let arrived = error_of(500, &body, WAIT);
            assert_eq!(format!("{arrived:?}"), format!("{error:?}"));
        }
    }

    #[test]
    fn an_answer_of_something_else_is_told_by_its_status() {
        assert!(matches!(
            error_of(503, b"<html>", WAIT),
            BrokerError::Unreachable(_)
        ));
        assert!(matches!(error_of(401, b"", WAIT), BrokerError::Refused(_)));
        assert!(matches!(error_of(500, b"", WAIT), BrokerError::Store(_)));
    }

    #[test]
    fn a_name_cannot_leave_its_segment() {
        assert_eq!(segment("a/../b?c"), "a%2F..%2Fb%3Fc");
    }
}
