//! Requests to the outside, where the consumer grants the capability `http`.
//!
//! ```
//! use millstream_plugin::http;
//! use millstream_plugin::prelude::*;
//!
//! #[derive(Deserialize)]
//! struct Rate {
//!     rate: f64,
//! }
//!
//! fn handle(event: Event<'_>, out: &mut Outbox) -> Result {
//!     let currency = event.text()?;
//!     let answer = http::get(format!("https://rates.example.com/{currency}"))
//!         .header("accept", "application/json")
//!         .send()? // no answer: unavailable, so the event waits
//!         .error_for_status()?; // 404: rejected; 503: unavailable
//!     let rate: Rate = answer.json()?;
//!     out.text(&rate.rate.to_string())
//! }
//!
//! let run = Harness::function(handle)
//!     .http(|request| match request.url() {
//!         "https://rates.example.com/EUR" => Ok(http::Response::new(200).with_body(r#"{"rate":1.1}"#)),
//!         "https://rates.example.com/XXX" => Ok(http::Response::new(404)),
//!         _ => Err(http::Error::TimedOut),
//!     })
//!     .run([TestEvent::text("EUR"), TestEvent::text("XXX"), TestEvent::text("CHF")]);
//! assert_eq!(run.answer(0).outputs()[0].text(), "1.1");
//! assert_eq!(run.answer(1).failure().unwrap().code(), "http-404");
//! assert_eq!(run.answer(2).failure().unwrap().remedy(), millstream_plugin::Remedy::Unavailable);
//! ```
//!
//! Redirects are not followed. A request goes with the trace of its event. A trap, a retry or a
//! transaction that is aborted does not undo it: let the other side know a repetition by
//! [`Request::idempotency_key`].

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::{Event, host};

/// The longest time that a `Retry-After` is believed.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(3_600);

/// A request, sent by [`Request::send`] or with others by [`send_all`].
#[derive(Clone)]
#[must_use = "nothing is sent before `send` or `send_all`"]
pub struct Request {
    pub(crate) event: Option<u32>,
    pub(crate) method: String,
    pub(crate) url: String,
    pub(crate) headers: Vec<(String, Vec<u8>)>,
    pub(crate) body: Option<Vec<u8>>,
    pub(crate) timeout_ms: u32,
}

/// A `GET` of this absolute URL.
pub fn get(url: impl Into<String>) -> Request {
    request("GET", url)
}

/// A `POST` to this absolute URL.
pub fn post(url: impl Into<String>) -> Request {
    request("POST", url)
}

/// A `PUT` to this absolute URL.
pub fn put(url: impl Into<String>) -> Request {
    request("PUT", url)
}

/// A `PATCH` of this absolute URL.
pub fn patch(url: impl Into<String>) -> Request {
    request("PATCH", url)
}

/// A `DELETE` of this absolute URL.
pub fn delete(url: impl Into<String>) -> Request {
    request("DELETE", url)
}

/// A request with any method but `CONNECT` and `TRACE`.
pub fn request(method: impl Into<String>, url: impl Into<String>) -> Request {
    Request {
        event: host::current_event(),
        method: method.into(),
        url: url.into(),
        headers: Vec::new(),
        body: None,
        timeout_ms: 0,
    }
}

/// Sends all of them, up to 16 side by side, and returns when each is answered or given up, in
/// order: they take the time of the slowest, not of the sum. At most 256, with answers of 16 MiB
/// together.
///
/// Best called in [`Consumer::prepare`](crate::Consumer::prepare), for all events of a batch.
pub fn send_all(
    requests: impl IntoIterator<Item = Request>,
) -> Vec<std::result::Result<Response, Error>> {
    let requests: Vec<_> = requests.into_iter().collect();
    match requests.is_empty() {
        true => Vec::new(),
        false => host::http_send(requests),
    }
}

impl Request {
    /// Adds a header. Those that belong to the connection or to the trace (`host`, `connection`,
    /// `content-length`, `transfer-encoding`, `traceparent` …) are the runtime's to set: with one of
    /// them the request is invalid.
    pub fn header(mut self, name: impl Into<String>, value: impl AsRef<[u8]>) -> Self {
        self.headers.push((name.into(), value.as_ref().to_vec()));
        self
    }

    /// Adds `authorization: Bearer …`.
    pub fn bearer(self, token: impl AsRef<str>) -> Self {
        self.header("authorization", format!("Bearer {}", token.as_ref()))
    }

    /// Adds `idempotency-key`: the same at every attempt for an event, by [`Event::id`].
    pub fn idempotency_key(self, event: Event<'_>) -> Self {
        self.header("idempotency-key", event.id())
    }

    /// The event that it is for, whose trace goes along. In
    /// [`Consumer::handle`](crate::Consumer::handle) that is the event at hand already.
    pub fn of(mut self, event: Event<'_>) -> Self {
        self.event = Some(event.index());
        self
    }

    /// Sets the body, up to 1 MiB.
    pub fn body(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.body = Some(bytes.into());
        self
    }

    /// Sets the body to this value as JSON, and the content type.
    ///
    /// # Errors
    /// The value cannot be written as JSON: rejected with the code `error`.
    pub fn json(self, value: &(impl Serialize + ?Sized)) -> crate::Result<Self> {
        let bytes = serde_json::to_vec(value)?;
        Ok(self.header("content-type", "application/json").body(bytes))
    }

    /// Gives up after this long, and always before the time of the call is over: what is left then
    /// is enough to say so. Without it, that alone counts.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        let milliseconds = timeout.as_millis().max(1);
        self.timeout_ms = u32::try_from(milliseconds).unwrap_or(u32::MAX);
        self
    }

    /// Sends it and waits for the answer, whatever its status.
    ///
    /// # Errors
    /// There is no answer. `?` chooses the remedy, see [`Error`].
    pub fn send(self) -> std::result::Result<Response, Error> {
        let answer = host::http_send(vec![self]).pop();
        answer.unwrap_or_else(|| Err(Error::Other("the runtime gave no answer".into())))
    }

    /// For tests: the method.
    pub fn method(&self) -> &str {
        &self.method
    }

    /// For tests: the URL.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// For tests: the last value of this header as text.
    pub fn header_value(&self, name: &str) -> Option<&str> {
        find(&self.headers, name)
    }

    /// For tests: the body; empty where there is none.
    pub fn content(&self) -> &[u8] {
        self.body.as_deref().unwrap_or_default()
    }
}

/// Without values of headers and without the body: they may hold a secret, and a log is no place
/// for it.
impl fmt::Debug for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let url = self.url.split(['?', '#']).next().unwrap_or_default();
        write!(f, "{} {url}", self.method)
    }
}

fn find<'a>(headers: &'a [(String, Vec<u8>)], wanted: &str) -> Option<&'a str> {
    let mut named = headers
        .iter()
        .filter(|(name, _)| name.eq_ignore_ascii_case(wanted));
    std::str::from_utf8(&named.next_back()?.1).ok()
}

/// An answer, whatever its status.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, Vec<u8>)>,
    pub(crate) body: Vec<u8>,
}

impl Response {
    /// For tests: an answer without headers and body.
    pub fn new(status: u16) -> Self {
        Self {
            status,
            headers: Vec::new(),
            body: Vec::new(),
        }
    }

    /// For tests: the answer with this body.
    #[must_use]
    pub fn with_body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = body.into();
        self
    }

    /// For tests: the answer with this header.
    #[must_use]
    pub fn with_header(mut self, name: impl Into<String>, value: impl AsRef<[u8]>) -> Self {
        self.headers.push((name.into(), value.as_ref().to_vec()));
        self
    }

    /// The status, such as 200.
    pub fn status(&self) -> u16 {
        self.status
    }

    /// Whether the status is 200 to 299.
    pub fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }

    /// The last value of this header as text; upper and lower case are the same.
    pub fn header(&self, name: &str) -> Option<&str> {
        find(&self.headers, name)
    }

    /// All headers in order; names are in lower case and may repeat.
    pub fn headers(&self) -> impl ExactSizeIterator<Item = (&str, &[u8])> {
        self.headers
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_slice()))
    }

    /// The body, at most 1 MiB.
    pub fn bytes(&self) -> &[u8] {
        &self.body
    }

    /// The body as text.
    ///
    /// # Errors
    /// It is not UTF-8: to be tried again, with the code `http-answer`, for the event is not at
    /// fault.
    pub fn text(&self) -> crate::Result<&str> {
        std::str::from_utf8(&self.body)
            .map_err(|_| crate::Error::retry("http-answer", "the answer to a request is not UTF-8"))
    }

    /// The body as JSON. `T` may borrow from the answer.
    ///
    /// # Errors
    /// It is not JSON of this shape: to be tried again, with the code `http-answer`, for the event
    /// is not at fault.
    pub fn json<'a, T: Deserialize<'a>>(&'a self) -> crate::Result<T> {
        serde_json::from_slice(&self.body).map_err(|error| {
            let text =
                format!("the answer to a request is not the JSON that was expected: {error}");
            crate::Error::retry("http-answer", text)
        })
    }

    /// The answer itself where its status is 200 to 299.
    ///
    /// # Errors
    /// Any other status, with the code `http-STATUS` and the remedy that fits most services:
    ///
    /// | status | remedy |
    /// | --- | --- |
    /// | 408, 425, 429, 502, 503, 504 | unavailable, for as long as `Retry-After` says in seconds |
    /// | 401, 407 | unavailable: no event gets through until the credentials are mended |
    /// | 500 and other 5xx | retry: it may be for this event alone |
    /// | 301, 302, 303, 307, 308 | halt: redirects are not followed, and the URL is to be mended |
    /// | all else | reject |
    pub fn error_for_status(self) -> crate::Result<Self> {
        use crate::Error as E;
        if self.is_success() {
            return Ok(self);
        }
        let code = format!("http-{}", self.status);
        let text = format!("a request was answered with the status {}", self.status);
        Err(match self.status {
            408 | 425 | 429 | 502..=504 => E::unavailable(self.retry_after(), text),
            401 | 407 => E::unavailable(
                Duration::ZERO,
                format!("{text}: are its credentials right?"),
            ),
            500..=599 => E::retry("http", text).after(self.retry_after()),
            301..=303 | 307 | 308 => {
                let to = self.header("location").unwrap_or("elsewhere");
                E::halt(
                    "http",
                    format!("{text}, a redirect to {to}, which is not followed"),
                )
            }
            _ => E::reject("http", text),
        }
        .coded(code))
    }

    fn retry_after(&self) -> Duration {
        let seconds = self
            .header("retry-after")
            .and_then(|text| text.trim().parse().ok());
        Duration::from_secs(seconds.unwrap_or_default()).min(MAX_RETRY_AFTER)
    }
}

/// Why there is no answer. `?` turns it into an [`Error`](crate::Error) with the remedy that never
/// gives up a good event for what is no fault of it; `or_reject` and its like choose another.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Error {
    /// The consumer does not grant this host and port, or its name leads to a private address, or
    /// this is a shadow run. `?` halts the consumer: the configuration is to be mended, and until
    /// then every event would fail. Where the host comes from the event, reject it instead.
    Denied(String),
    /// The request itself is wrong. `?` rejects the event.
    Invalid(String),
    /// There was no answer in time. `?` says unavailable.
    TimedOut,
    /// The connection failed. `?` says unavailable.
    Unreachable(String),
    /// The answer is over 1 MiB, or its headers over 64 KiB. `?` rejects the event.
    TooLarge,
    /// Anything else. `?` says unavailable.
    Other(String),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Denied(why) => write!(f, "a request was denied: {why}"),
            Self::Invalid(why) => write!(f, "a request is invalid: {why}"),
            Self::TimedOut => f.write_str("a request was not answered in time"),
            Self::Unreachable(why) => write!(f, "a request did not get through: {why}"),
            Self::TooLarge => f.write_str("the answer to a request is too large"),
            Self::Other(why) => write!(f, "a request failed: {why}"),
        }
    }
}

// It is no `std::error::Error` by design: as one, `?` would reject the event for a time-out.
impl From<Error> for crate::Error {
    fn from(error: Error) -> Self {
        let now = Duration::ZERO;
        match &error {
            Error::Denied(_) => Self::halt("http-denied", error),
            Error::Invalid(_) => Self::reject("http-invalid", error),
            Error::TooLarge => Self::reject("http-too-large", error),
            Error::TimedOut => Self::unavailable(now, error).coded("http-timed-out".into()),
            Error::Unreachable(_) => Self::unavailable(now, error).coded("http-unreachable".into()),
            Error::Other(_) => Self::unavailable(now, error).coded("http-failed".into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use millstream_wire::Remedy;

    use super::*;

    fn remedy(status: u16) -> Remedy {
        let error = Response::new(status).error_for_status().unwrap_err();
        assert_eq!(error.code(), format!("http-{status}"));
        error.remedy()
    }

    /// An outage of the other side must not empty a topic into the dead letters.
    #[test]
    fn an_outage_is_never_the_events_fault() {
        for status in [401, 408, 429, 502, 503, 504] {
            assert_eq!(remedy(status), Remedy::Unavailable, "{status}");
        }
        for error in [
            Error::TimedOut,
            Error::Unreachable("refused".into()),
            Error::Other("odd".into()),
        ] {
            let error = crate::Error::from(error);
            assert_eq!(error.remedy(), Remedy::Unavailable, "{error:?}");
            assert!(millstream_wire::is_code(error.code().as_bytes()));
        }
        assert_eq!(remedy(500), Remedy::Retry);
        assert_eq!(remedy(307), Remedy::Halt);
        for status in [400, 403, 404, 422] {
            assert_eq!(remedy(status), Remedy::Reject, "{status}");
        }
        let denied = crate::Error::from(Error::Denied("not listed".into()));
        assert_eq!(denied.remedy(), Remedy::Halt);
        assert_eq!(denied.reason(), "a request was denied: not listed");
    }

    #[test]
    fn the_other_side_says_how_long_to_wait() {
        let after = |value: &str| {
            let response = Response::new(429).with_header("Retry-After", value);
            response.error_for_status().unwrap_err().after_ms()
        };
        assert_eq!(after("7"), 7_000);
        assert_eq!(after("Wed, 21 Oct 2026 07:28:00 GMT"), 0);
        assert_eq!(after("999999999"), 3_600_000);
    }

    /// Plugins log what they hold with `{:?}`.
    #[test]
    fn a_request_is_shown_without_its_secrets() {
        let request = get("https://a.test/x?key=hunter2")
            .bearer("hunter2")
            .body("hunter2");
        assert_eq!(format!("{request:?}"), "GET https://a.test/x");
    }
}
