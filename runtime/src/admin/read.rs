//! Reading events over HTTP: JSON lines, as `consume --json` prints them.

use std::sync::Arc;

use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State as Extract};
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;

use super::answer::{Refused, error};
use super::produce::bad_query;
use super::{State, in_time, topic_name};
use crate::broker::remote::wire::{END, NDJSON, NEXT};
use crate::broker::seek::Seek;
use crate::broker::{BrokerError, ReadLimits};
use crate::event::TopicPartition;
use crate::json_event;

/// Events of an answer where the caller names no `count`.
const DEFAULT_COUNT: usize = 100;
/// Events of an answer at most.
const MAX_COUNT: usize = 10_000;
/// Bytes of events that one answer reads at most.
const MAX_BYTES: usize = 8 << 20;

/// The query of `GET /topics/{topic}`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Params {
    from: Option<String>,
    count: Option<usize>,
    partition: Option<u32>,
}

/// `GET /topics/{topic}`: up to `count` events from `from` on, partition by partition.
pub(super) async fn events(
    Extract(state): Extract<Arc<State>>,
    Path(topic): Path<String>,
    params: Result<Query<Params>, QueryRejection>,
) -> Result<Response, Refused> {
    let topic = topic_name(&topic)?;
    let Query(params) = params.map_err(bad_query)?;
    let seek: Seek = match params.from.as_deref() {
        Some(from) => from
            .parse()
            .map_err(|bad: crate::broker::seek::NotAPlace| {
                error(StatusCode::BAD_REQUEST, bad.to_string())
            })?,
        None => Seek::Start,
    };
    let mut count = params.count.unwrap_or(DEFAULT_COUNT).min(MAX_COUNT);
    let mut bytes = MAX_BYTES;
    let _turn = state.read_turn().await?;
    let unknown = |name: String| Refused::from(BrokerError::UnknownTopic(name));
    let known = in_time(state.topics.list()).await?;
    let info = known
        .iter()
        .find(|info| info.name == topic)
        .ok_or_else(|| unknown(topic.to_string()))?;
    if let Some(partition) = params.partition
        && partition as usize >= info.partitions.len()
    {
        return Err(unknown(format!("{topic}/{partition}")));
    }
    let mut out = Vec::new();
    for (number, bounds) in (0..).zip(&info.partitions) {
        if params.partition.is_some_and(|wanted| wanted != number) {
            continue;
        }
        let partition = TopicPartition::new(topic.clone(), number);
        let place = seek.resolve(&*state.topics, &partition, *bounds);
        let mut next = in_time(place).await?;
        while next < bounds.end && count > 0 && bytes > 0 {
            let limits = ReadLimits {
                events: count,
                bytes,
            };
            let chunk = in_time(state.topics.read(&partition, next, limits)).await?;
            for event in chunk.block.iter().take(count) {
                json_event::render(&event, &mut out);
                out.push(b'\n');
            }
            count -= chunk.block.len().min(count);
            bytes = bytes.saturating_sub(chunk.block.bytes());
            if chunk.next <= next {
                break;
            }
            next = chunk.next;
        }
    }
    Ok(([(CONTENT_TYPE, NDJSON)], out).into_response())
}

/// The query of [`partition`].
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PartitionParams {
    from: u64,
    events: usize,
    bytes: usize,
}

/// `GET /api/v1/topics/{topic}/{partition}/events`: one read of the broker as it is.
pub(super) async fn partition(
    Extract(state): Extract<Arc<State>>,
    Path((topic, number)): Path<(String, u32)>,
    params: Result<Query<PartitionParams>, QueryRejection>,
) -> Result<Response, Refused> {
    let partition = TopicPartition::new(topic_name(&topic)?, number);
    let Query(params) = params.map_err(bad_query)?;
    let limits = ReadLimits {
        events: params.events.clamp(1, MAX_COUNT),
        bytes: params.bytes.clamp(1, MAX_BYTES),
    };
    let _turn = state.read_turn().await?;
    let chunk = in_time(state.topics.read(&partition, params.from, limits)).await?;
    let mut out = Vec::with_capacity(chunk.block.bytes() * 2);
    for event in chunk.block.iter() {
        json_event::render(&event, &mut out);
        out.push(b'\n');
    }
    let mut response = ([(CONTENT_TYPE, NDJSON)], out).into_response();
    response
        .headers_mut()
        .insert(NEXT, HeaderValue::from(chunk.next));
    response
        .headers_mut()
        .insert(END, HeaderValue::from(chunk.end));
    Ok(response)
}
