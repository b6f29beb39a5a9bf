//! Producing over HTTP.
//!
//! ```text
//! POST /topics/T               one event: the body is the value     ─┐
//!      (application/x-ndjson)  a line each, all or nothing           ├─▶ Records ─▶ Topics
//! POST /api/v1/produce         the same, each line names its topic  ─┘
//! ```
//!
//! With `Idempotency-Key` the broker writes a request once and gives its first answer again.

use std::borrow::Cow;
use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State as Extract};
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;

use super::answer::{Refused, bad_lines, error};
use super::budget::{Held, too_large};
use super::{State, in_time, shutting_down, topic_name};
use crate::broker::remote::wire::{IDEMPOTENCY_KEY, LineError, NDJSON, PlaceReport, PlacesReport};
use crate::broker::{BrokerError, RequestKey};
use crate::json_event::{self, JsonEvent, MAX_HEADER_NAME};
use crate::records::{NewRecord, Records};

/// Bad lines that an answer names; the rest is only counted.
const LINES_NAMED: usize = 100;

/// The query of `POST /topics/{topic}`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Params {
    pub key: Option<String>,
    pub partition: Option<u32>,
}

/// `POST /topics/{topic}`.
pub(super) async fn events(
    Extract(state): Extract<Arc<State>>,
    Path(topic): Path<String>,
    params: Result<Query<Params>, QueryRejection>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Refused> {
    let topic = topic_name(&topic)?;
    let Query(params) = params.map_err(bad_query)?;
    let key = idempotency_key(&headers)?;
    let body = take(&state, &headers, body).await?;
    if !is_ndjson(&headers) {
        let records = single(&topic, &params, &headers, &body.bytes)?;
        let places = write(&state, records, key).await?;
        return match places.events.into_iter().next() {
            Some(place) => Ok(Json(place).into_response()),
            None => Err(error(
                StatusCode::INTERNAL_SERVER_ERROR,
                "the broker did not say where the event is",
            )),
        };
    }
    if params.key.is_some() {
        return Err(error(
            StatusCode::BAD_REQUEST,
            "`key` is for one event; with JSON lines each line has its own",
        ));
    }
    let records = lines(&body.bytes, |event, records| {
        event.push_to(records, &topic, params.partition);
        Ok(())
    })?;
    Ok(Json(write(&state, records, key).await?).into_response())
}

/// `POST /api/v1/produce`: JSON lines that name their topic and may name their partition.
pub(super) async fn records(
    Extract(state): Extract<Arc<State>>,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<PlacesReport>, Refused> {
    let key = idempotency_key(&headers)?;
    let body = take(&state, &headers, body).await?;
    let records = lines(&body.bytes, |event, records| {
        let topic = event.topic.as_deref().unwrap_or_default();
        let topic = topic_name(topic).map_err(|refused| refused.report.error)?;
        event.push_to(records, &topic, event.partition);
        Ok(())
    })?;
    Ok(Json(write(&state, records, key).await?))
}

/// The request's key, if it has one. One that is ignored would let a caller believe that sending
/// twice is safe.
fn idempotency_key(headers: &HeaderMap) -> Result<Option<RequestKey>, Refused> {
    let bad = |reason: &str| {
        error(
            StatusCode::BAD_REQUEST,
            format!("`Idempotency-Key`: {reason}; nothing was written"),
        )
    };
    let mut keys = headers.get_all(IDEMPOTENCY_KEY).iter();
    match (keys.next(), keys.next()) {
        (None, _) => Ok(None),
        (Some(key), None) => match RequestKey::new(key.as_bytes()) {
            Ok(key) => Ok(Some(key)),
            Err(reason) => Err(bad(&reason)),
        },
        (Some(_), Some(_)) => Err(bad("a request has one key at most")),
    }
}

/// The body of a request that is taken: the end may begin while it arrives.
async fn take<'a>(state: &'a State, headers: &HeaderMap, body: Body) -> Result<Held<'a>, Refused> {
    state.accepting()?;
    let held = state.bodies.read(headers, body).await?;
    state.accepting()?;
    Ok(held)
}

pub(super) fn bad_query(rejection: QueryRejection) -> Refused {
    error(StatusCode::BAD_REQUEST, rejection.body_text())
}

fn is_ndjson(headers: &HeaderMap) -> bool {
    let kind = headers
        .get(CONTENT_TYPE)
        .and_then(|kind| kind.to_str().ok())
        .unwrap_or_default();
    let kind = kind.split(';').next().unwrap_or_default().trim();
    kind.eq_ignore_ascii_case(NDJSON)
}

/// The one event of a request: the body is its value.
///
/// # Errors
/// A header cannot be an event's.
pub fn single(
    topic: &Arc<str>,
    params: &Params,
    headers: &HeaderMap,
    value: &[u8],
) -> Result<Records, Refused> {
    let mut key = params.key.as_deref().map(Cow::Borrowed);
    let mut stored = Vec::new();
    for (name, sent) in headers {
        let name = name.as_str();
        let bytes = sent.as_bytes();
        if let Some(attribute) = name.strip_prefix("ce-") {
            // CloudEvents over HTTP escapes what a header cannot hold.
            let bytes: Cow<'_, [u8]> = percent_encoding::percent_decode(bytes).into();
            if attribute == "partitionkey" && key.is_none() {
                let text = std::str::from_utf8(&bytes).map(|text| text.to_owned());
                key = Some(Cow::Owned(text.map_err(|_| {
                    error(
                        StatusCode::BAD_REQUEST,
                        "the header ce-partitionkey is not UTF-8",
                    )
                })?));
            }
            stored.push((format!("ce_{attribute}"), bytes));
        } else if let Some(name) = name.strip_prefix("x-event-") {
            stored.push((name.to_owned(), Cow::Borrowed(bytes)));
        }
    }
    let bad =
        |(name, _): &&(String, _)| name.is_empty() || name == "ce_" || name.len() > MAX_HEADER_NAME;
    if let Some((name, _)) = stored.iter().find(bad) {
        return Err(error(
            StatusCode::BAD_REQUEST,
            format!("an event's header cannot be named `{name}`: 1 to {MAX_HEADER_NAME} bytes"),
        ));
    }
    let mut records = Records::new();
    records.push(
        topic,
        NewRecord {
            key: key.as_deref().map(str::as_bytes),
            value: Some(value),
            partition: params.partition,
            timestamp_ms: None,
            tag: 0,
        },
    );
    for (name, value) in &stored {
        records.push_header(name.as_bytes(), Some(value));
    }
    Ok(records)
}

/// Reads all lines, or names each that is not an event; empty lines are passed over.
///
/// # Errors
/// Lines that are no events, or that `add` refuses; the first of them are named.
pub fn lines(
    body: &[u8],
    mut add: impl FnMut(&JsonEvent, &mut Records) -> Result<(), String>,
) -> Result<Records, Refused> {
    let mut records = Records::new();
    let mut bad = Vec::new();
    let (mut total, mut bad_count) = (0, 0);
    for (number, line) in (1..).zip(body.split(|byte| *byte == b'\n')) {
        if line.trim_ascii().is_empty() {
            continue;
        }
        total += 1;
        let added = json_event::parse(line)
            .map_err(|error| error.to_string())
            .and_then(|event| add(&event, &mut records));
        if let Err(error) = added {
            bad_count += 1;
            if bad.len() < LINES_NAMED {
                bad.push(LineError {
                    line: number,
                    error,
                });
            }
        }
    }
    if bad_count > 0 {
        let reason = format!("{bad_count} of {total} lines are not events; nothing was written");
        return Err(bad_lines(reason, bad));
    }
    Ok(records)
}

/// Writes all records, once for their key, and says where they are.
async fn write(
    state: &State,
    records: Records,
    key: Option<RequestKey>,
) -> Result<PlacesReport, Refused> {
    for record in records.iter() {
        let settings = state.settings.get(record.topic());
        let most = settings.and_then(|settings| settings.max_event);
        if most.is_some_and(|most| record.bytes() as u64 > most) {
            let mut refused = too_large();
            refused.report.error = format!(
                "an event has {} bytes, and [topics.{}] max_event allows {}; nothing was written",
                record.bytes(),
                record.topic(),
                most.unwrap_or_default()
            );
            return Err(refused);
        }
    }
    let writing = match key {
        Some(key) => state.topics.produce_once(records, key),
        None if records.is_empty() => return Ok(PlacesReport { events: Vec::new() }),
        None => state.topics.produce(records),
    };
    let places = match in_time(writing).await {
        // The store closes at the end, and who was let in before it is still here.
        Err(BrokerError::Store(_)) if state.health.draining() => return Err(shutting_down()),
        answer => answer?,
    };
    Ok(PlacesReport {
        events: places.iter().map(PlaceReport::from).collect(),
    })
}
