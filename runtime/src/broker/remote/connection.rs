//! Requests to a runtime's HTTP interface, and what its answers stand for.
//!
//! ```text
//! call ─▶ blocking thread ─▶ HTTP, token ─▶ answer, or why there is none and whether to ask again
//! ```

use std::net::{Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use rustls::pki_types::CertificateDer;
use serde::de::DeserializeOwned;
use tokio::time::Instant;
use ureq::unversioned::resolver::{ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::{DefaultConnector, NextTimeout};

use super::wire::{self, ErrorKind, ErrorReport};
use super::{Remote, sending};
use crate::broker::{BrokerError, RequestKey};
use crate::config::secret::Secret;
use crate::tls;

/// How long a connection may take; the runtime is on this machine or near.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// How long a request may take. Longer than the runtime's own limit, so that its reason arrives.
const CALL_TIMEOUT: Duration = Duration::from_secs(60);
/// How long a connection is kept for the next request.
const MAX_IDLE: Duration = Duration::from_secs(5);
/// Largest answer that is read, in bytes.
const MAX_ANSWER: u64 = 64 << 20;

/// An answer that was not an error.
pub(super) struct Answer {
    pub(super) next: Option<u64>,
    pub(super) end: Option<u64>,
    pub(super) body: Vec<u8>,
}

/// A request that did not get what it asked for.
pub(super) struct Failed {
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
pub(super) enum Body {
    None,
    Json(Vec<u8>),
    /// Events as lines, to be written once for the key.
    Events(Bytes, RequestKey),
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Method {
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

    pub(super) async fn call(
        &self,
        method: Method,
        path: String,
        body: Body,
    ) -> Result<Answer, Failed> {
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
    pub(super) async fn send(&self, lines: Bytes, key: RequestKey) -> Result<Answer, BrokerError> {
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

pub(super) fn decode<T: DeserializeOwned>(body: &[u8]) -> Result<T, BrokerError> {
    serde_json::from_slice(body).map_err(|error| {
        BrokerError::Unreachable(format!(
            "the answer is not one of a Millstream runtime of this version: {error}"
        ))
    })
}

pub(super) fn encode<T: serde::Serialize>(value: &T) -> Result<Vec<u8>, BrokerError> {
    serde_json::to_vec(value).map_err(|error| BrokerError::Refused(error.to_string()))
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
}
