//! Requests of plugins to the outside.
//!
//! ```text
//! send ─▶ rules (decide/outbound.rs) ─▶ a turn of the consumer and of the process ─▶ client of the
//!         method, headers, URL, list     │                                            host and port
//!                                        └▶ 16 side by side                              │
//! answer, 1 MiB ◀─ connection, kept for the next ◀─ the address itself checked ◀─ look-up ┘
//! ```
//! One client serves one host and port: so the look-up of a name knows the port that it is for, and
//! nothing can lead a connection elsewhere. Redirects are answers like others, and no proxy of the
//! environment is asked.

mod bounds;
mod client;
mod resolver;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use parking_lot::Mutex;
use reqwest::header::{HeaderName, HeaderValue};
use tokio::time::{Instant, timeout_at};

pub(super) use bounds::BoundsOfAll;
use bounds::{Bounds, Held, Room};

use super::engine::Host;
use super::hooks::{HttpResult, PluginHooks};
use crate::config;
use crate::decide::outbound::{AllowList, Refusal, Target, check_header, check_method};

/// Requests of one `send` that are under way at once.
const SIDE_BY_SIDE: usize = 16;
/// Requests of one `send`.
const MAX_REQUESTS: usize = 256;
/// Bytes of a request's body, and of an answer's.
const MAX_BODY: usize = 1 << 20;
/// Bytes of the answers to one `send` together.
const MAX_ANSWERS: usize = 16 << 20;
/// Bytes of the headers of a request, and of an answer.
const MAX_HEADERS: usize = 64 << 10;
/// Headers of a request.
const MAX_HEADER_COUNT: usize = 64;
/// What of a call's time is left to the plugin, so that it can say what a time-out means: this part
/// of it, between the two bounds.
const LEFT_TO_PLUGIN: u32 = 10;
const LEFT_AT_LEAST: Duration = Duration::from_millis(20);
const LEFT_AT_MOST: Duration = Duration::from_millis(500);

/// A request as the plugin gave it.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) method: String,
    pub(super) url: String,
    pub(super) headers: Vec<(String, Vec<u8>)>,
    pub(super) body: Option<Vec<u8>>,
    /// Zero: what is left of the call.
    pub(super) timeout: Duration,
    pub(super) trace: Option<Trace>,
}

/// The trace of the event that a request is for.
#[derive(Clone, Debug)]
pub(super) struct Trace {
    pub(super) parent: String,
    pub(super) state: Option<Vec<u8>>,
}

/// An answer, whatever its status.
#[derive(Debug)]
pub(super) struct Response {
    pub(super) status: u16,
    pub(super) headers: Vec<(String, Vec<u8>)>,
    pub(super) body: Vec<u8>,
}

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Failure {
    Denied(String),
    /// The name leads to no public address. Which one it is, and the line that would grant it, is
    /// the operator's to know.
    Private {
        name: String,
        why: String,
    },
    Invalid(String),
    TimedOut,
    Unreachable(String),
    TooLarge,
    Other(String),
}

/// The answer to a request. What it holds of the process's room is given back when it is dropped.
pub(super) struct Answered {
    pub(super) result: Result<Response, Failure>,
    _room: Option<Room>,
}

/// What one generation of a consumer sends through.
pub(super) struct Outbound {
    consumer: Arc<str>,
    allowed: Arc<AllowList>,
    bounds: Bounds,
    tls: rustls::ClientConfig,
    hooks: PluginHooks,
    /// A few for each entry of the list: by scheme, and by the ways to write an address.
    clients: Mutex<HashMap<Target, reqwest::Client>>,
}

impl Outbound {
    /// With the hosts that the consumer is granted. Blocks while it reads the certificates that the
    /// machine trusts.
    ///
    /// # Errors
    /// TLS cannot be set up, through no fault of the plugin.
    pub(super) fn new(host: &Host, consumer: &config::Consumer) -> Result<Self, rustls::Error> {
        Ok(Self {
            consumer: consumer.name.clone(),
            allowed: Arc::new(AllowList::new(consumer.capabilities.clone())),
            bounds: host.outbound.lock().of(&consumer.name),
            tls: client::trusting_the_machine()?,
            hooks: host.hooks.clone(),
            clients: Mutex::default(),
        })
    }

    /// Sends all of them and returns when each is answered or given up, in order. Ends a little
    /// before `deadline`, that of the call.
    pub(super) async fn send(&self, requests: Vec<Request>, deadline: Instant) -> Vec<Answered> {
        let now = Instant::now();
        let left = deadline.saturating_duration_since(now);
        let kept = (left / LEFT_TO_PLUGIN).clamp(LEFT_AT_LEAST, LEFT_AT_MOST);
        let until = now + left.saturating_sub(kept);
        let held = Held::new(MAX_ANSWERS);
        let sending = requests.into_iter().enumerate().map(|(index, request)| {
            let held = &held;
            async move {
                let answered = match index < MAX_REQUESTS {
                    true => self.answer(request, until, held).await,
                    false => Answered::failed(Failure::Invalid(format!(
                        "more than {MAX_REQUESTS} requests at once"
                    ))),
                };
                self.count(&answered);
                (index, answered)
            }
        });
        // Each takes the next turn that is free: the answers come in any order.
        let mut answers: Vec<_> = futures::stream::iter(sending)
            .buffer_unordered(SIDE_BY_SIDE)
            .collect()
            .await;
        answers.sort_by_key(|(index, _)| *index);
        answers.into_iter().map(|(_, answered)| answered).collect()
    }

    /// The answer to each where nothing may leave, because what comes of it goes nowhere.
    pub(super) fn refuse(&self, requests: &[Request]) -> Vec<Answered> {
        let refused = requests.iter().map(|_| {
            let answered = Answered::failed(Failure::Denied(
                "nothing is sent in a shadow run, for nothing that comes of it counts".into(),
            ));
            self.count(&answered);
            answered
        });
        refused.collect()
    }

    fn count(&self, answered: &Answered) {
        let result = match &answered.result {
            Ok(_) => HttpResult::Answered,
            Err(Failure::Denied(_) | Failure::Private { .. }) => HttpResult::Denied,
            Err(Failure::Invalid(_)) => HttpResult::Invalid,
            Err(Failure::TimedOut) => HttpResult::TimedOut,
            Err(Failure::Unreachable(_)) => HttpResult::Unreachable,
            Err(Failure::TooLarge) => HttpResult::TooLarge,
            Err(Failure::Other(_)) => HttpResult::Other,
        };
        (self.hooks.http_request)(&self.consumer, result);
    }

    async fn answer(&self, request: Request, until: Instant, held: &Arc<Held>) -> Answered {
        let until = match request.timeout {
            Duration::ZERO => until,
            timeout => until.min(Instant::now() + timeout),
        };
        match timeout_at(until, self.exchange(request, held)).await {
            Ok(Ok((response, room))) => Answered {
                result: Ok(response),
                _room: Some(room),
            },
            Ok(Err(failure)) => Answered::failed(failure),
            Err(_) => Answered::failed(Failure::TimedOut),
        }
    }

    async fn exchange(
        &self,
        request: Request,
        held: &Arc<Held>,
    ) -> Result<(Response, Room), Failure> {
        let (request, client) = self.prepare(request)?;
        let _turn = self.bounds.turn().await;
        let mut response = client.execute(request).await.map_err(client::failure)?;
        let mut headers = Vec::with_capacity(response.headers().len());
        let mut size = 0;
        for (name, value) in response.headers() {
            size += name.as_str().len() + value.len();
            headers.push((name.as_str().to_owned(), value.as_bytes().to_vec()));
        }
        if size > MAX_HEADERS {
            return Err(Failure::TooLarge);
        }
        let announced = response.content_length().unwrap_or_default();
        if announced > MAX_BODY as u64 {
            return Err(Failure::TooLarge);
        }
        let mut room = self.bounds.room(held);
        room.take(size)?;
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(client::failure)? {
            if body.len() + chunk.len() > MAX_BODY {
                return Err(Failure::TooLarge);
            }
            room.take(chunk.len())?;
            body.extend_from_slice(&chunk);
        }
        let response = Response {
            status: response.status().as_u16(),
            headers,
            body,
        };
        Ok((response, room))
    }

    /// All that can be wrong with a request before anything is sent.
    fn prepare(&self, given: Request) -> Result<(reqwest::Request, reqwest::Client), Failure> {
        let invalid = |text: String| Failure::Invalid(text);
        check_method(&given.method)?;
        let method = reqwest::Method::from_bytes(given.method.as_bytes())
            .map_err(|error| invalid(error.to_string()))?;
        let (url, target) = self.allowed.target(&given.url)?;
        let mut request = reqwest::Request::new(method, url);
        let mut size = 0;
        if given.headers.len() > MAX_HEADER_COUNT {
            return Err(invalid(format!("more than {MAX_HEADER_COUNT} headers")));
        }
        for (name, value) in &given.headers {
            check_header(name)?;
            size += name.len() + value.len();
            let (Ok(header), Ok(value)) = (
                HeaderName::from_bytes(name.as_bytes()),
                HeaderValue::from_bytes(value),
            ) else {
                return Err(invalid(format!("{name:?} is no valid header")));
            };
            request.headers_mut().append(header, value);
        }
        if size > MAX_HEADERS {
            return Err(invalid("its headers are over 64 KiB".into()));
        }
        for (name, value) in given.trace.iter().flat_map(Trace::headers) {
            request.headers_mut().insert(name, value);
        }
        if let Some(body) = given.body {
            if body.len() > MAX_BODY {
                return Err(invalid("its body is over 1 MiB".into()));
            }
            *request.body_mut() = Some(body.into());
        }
        Ok((request, self.client(target)?))
    }

    fn client(&self, target: Target) -> Result<reqwest::Client, Failure> {
        let mut clients = self.clients.lock();
        if let Some(client) = clients.get(&target) {
            return Ok(client.clone());
        }
        let resolver = self.bounds.resolver(&self.allowed, target.port);
        let client = client::client(&self.tls, resolver)
            .map_err(|error| Failure::Other(format!("no HTTP client is to be had: {error}")))?;
        clients.insert(target, client.clone());
        Ok(client)
    }
}

impl Answered {
    fn failed(failure: Failure) -> Self {
        Self {
            result: Err(failure),
            _room: None,
        }
    }
}

impl Trace {
    fn headers(&self) -> impl Iterator<Item = (HeaderName, HeaderValue)> {
        let parent = HeaderValue::from_str(&self.parent).ok();
        let state = self.state.as_deref();
        let state = state.and_then(|state| HeaderValue::from_bytes(state).ok());
        let named = |name, value: Option<HeaderValue>| {
            value.map(|value| (HeaderName::from_static(name), value))
        };
        [named("traceparent", parent), named("tracestate", state)]
            .into_iter()
            .flatten()
    }
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Invalid(text) => Self::Invalid(text),
            Refusal::Denied(text) => Self::Denied(text),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Capabilities, Destination};

    fn outbound(hosts: &[&str], hooks: PluginHooks) -> Outbound {
        let parsed = hosts.iter().map(|host| Destination::parse(host).unwrap());
        let granted = Capabilities {
            http: parsed.collect(),
            ..Capabilities::default()
        };
        Outbound {
            consumer: "c".into(),
            allowed: Arc::new(AllowList::new(granted)),
            bounds: bounds::BoundsOfAll::default().of(&"c".into()),
            tls: client::trusting_the_machine().unwrap(),
            hooks,
            clients: Mutex::default(),
        }
    }

    fn get(url: &str) -> Request {
        Request {
            method: "GET".into(),
            url: url.into(),
            headers: Vec::new(),
            body: None,
            timeout: Duration::ZERO,
            trace: None,
        }
    }

    /// A version that is tried beside the one at work must not do its work a second time.
    #[test]
    fn nothing_leaves_a_shadow_run() {
        let denied = Arc::new(Mutex::new(0));
        let counter = Arc::clone(&denied);
        let hooks = PluginHooks {
            http_request: Arc::new(move |_, result| {
                assert_eq!(result, HttpResult::Denied);
                *counter.lock() += 1;
            }),
            ..PluginHooks::default()
        };
        let outbound = outbound(&["a.test"], hooks);
        let answers = outbound.refuse(&[get("https://a.test/"), get("https://a.test/")]);
        let all_denied = answers
            .iter()
            .all(|answered| matches!(answered.result, Err(Failure::Denied(_))));
        assert!(answers.len() == 2 && all_denied);
        assert_eq!(*denied.lock(), 2);
    }

    /// Whoever makes URLs up must not make the runtime keep a client for each.
    #[test]
    fn clients_are_kept_for_listed_hosts_alone() {
        let outbound = outbound(&["a.test", "10.0.0.5:81"], PluginHooks::default());
        for number in 0..100 {
            for url in [
                format!("https://a.test/{number}"),
                format!("http://a.test/{number}"),
                format!("http://10.0.0.5:81/{number}"),
                format!("http://[::ffff:10.0.0.5]:81/{number}"),
                format!("https://{number}.a.test/"),
                format!("https://a.test:{number}/"),
            ] {
                let _ = outbound.prepare(get(&url));
            }
        }
        assert_eq!(outbound.clients.lock().len(), 4);
    }
}
