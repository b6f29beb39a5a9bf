//! Reading request bodies: each bounded in size and time, and all together in memory.

use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::header::CONTENT_LENGTH;
use axum::http::{HeaderMap, StatusCode};
use tokio::sync::{Semaphore, SemaphorePermit};

use super::MAX_BODY;
use super::answer::{Refused, error};

/// Bytes of bodies in memory at once, over all requests.
const ALL_BODIES: usize = 8 * MAX_BODY;
/// Longest that a body may take to arrive, its wait for room included.
const BODY_TIMEOUT: Duration = Duration::from_secs(20);

/// Room for bodies: without it a few hundred callers could each hold the largest body.
pub struct BodyBudget {
    bytes: Semaphore,
}

/// A body and its share of the room, which it gives back when it is dropped.
pub struct Held<'a> {
    pub bytes: Bytes,
    _room: SemaphorePermit<'a>,
}

impl BodyBudget {
    /// All room free.
    pub fn new() -> Self {
        Self {
            bytes: Semaphore::new(ALL_BODIES),
        }
    }

    /// Reads a body.
    ///
    /// # Errors
    /// 413 past [`MAX_BODY`], before a byte is read where the caller says its length; 408 when it
    /// does not arrive in time; 429 when there is no room for it in that time; 400 when it breaks
    /// off.
    pub async fn read(&self, headers: &HeaderMap, body: Body) -> Result<Held<'_>, Refused> {
        let announced = headers
            .get(CONTENT_LENGTH)
            .and_then(|length| length.to_str().ok()?.parse::<usize>().ok());
        let most = announced.unwrap_or(MAX_BODY);
        if most > MAX_BODY {
            return Err(too_large());
        }
        let deadline = tokio::time::Instant::now() + BODY_TIMEOUT;
        // Never above the semaphore's size, which the limit on one body is a part of.
        let room = self.bytes.acquire_many(most as u32);
        let Ok(Ok(room)) = tokio::time::timeout_at(deadline, room).await else {
            return Err(error(
                StatusCode::TOO_MANY_REQUESTS,
                "too many bodies at once; nothing was written, send it again later",
            ));
        };
        let read = axum::body::to_bytes(body, MAX_BODY);
        match tokio::time::timeout_at(deadline, read).await {
            Err(_) => Err(error(
                StatusCode::REQUEST_TIMEOUT,
                format!(
                    "the body did not arrive within {} s",
                    BODY_TIMEOUT.as_secs()
                ),
            )),
            Ok(Ok(bytes)) => Ok(Held { bytes, _room: room }),
            Ok(Err(failure)) if announced.is_none() && is_limit(&failure) => Err(too_large()),
            Ok(Err(failure)) => Err(error(
                StatusCode::BAD_REQUEST,
                format!("the body broke off: {failure}"),
            )),
        }
    }
}

/// The refusal of a body or an event that is too large.
pub fn too_large() -> Refused {
    error(
        StatusCode::PAYLOAD_TOO_LARGE,
        format!(
            "a body has at most {} MiB; split it into several",
            MAX_BODY >> 20
        ),
    )
}

fn is_limit(failure: &axum::Error) -> bool {
    let mut cause: Option<&dyn std::error::Error> = Some(failure);
    while let Some(error) = cause {
        if error.is::<http_body_util::LengthLimitError>() {
            return true;
        }
        cause = error.source();
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Room that is not given back would make the interface refuse everything after a while.
    #[tokio::test]
    async fn room_returns_with_the_body() {
        let budget = BodyBudget::new();
        let headers = HeaderMap::new();
        for _ in 0..20 {
            let held = budget.read(&headers, Body::from("event")).await;
            assert_eq!(held.ok().map(|held| held.bytes.len()), Some(5));
        }
        assert_eq!(budget.bytes.available_permits(), ALL_BODIES);
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_never_ends_is_given_up() {
        let budget = BodyBudget::new();
        let never = futures::stream::pending::<Result<Bytes, std::io::Error>>();
        let headers = HeaderMap::new();
        let read = budget.read(&headers, Body::from_stream(never));
        let refused = read.await.err().map(|refused| refused.status);
        assert_eq!(refused, Some(StatusCode::REQUEST_TIMEOUT));
        assert_eq!(budget.bytes.available_permits(), ALL_BODIES);
    }

    #[tokio::test(start_paused = true)]
    async fn without_room_the_caller_is_told_to_come_again() {
        let budget = BodyBudget::new();
        let mut held = Vec::new();
        for _ in 0..8 {
            held.extend(budget.read(&HeaderMap::new(), Body::from("x")).await.ok());
        }
        assert_eq!(held.len(), 8);
        let refused = budget.read(&HeaderMap::new(), Body::from("x")).await.err();
        let status = refused.map(|refused| refused.status);
        assert_eq!(status, Some(StatusCode::TOO_MANY_REQUESTS));
    }
}
