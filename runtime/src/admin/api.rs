//! `/api/v1`: consumers, and what the command line asks of a running runtime.

use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State as Extract};
use axum::http::{HeaderMap, StatusCode};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::answer::{Refused, error};
use super::produce::bad_query;
use super::{
    ConsumerReport, DeployRequest, NotDone, ReloadReport, RollbackRequest, State, Wish, in_time,
    topic_name,
};
use crate::broker::remote::wire::{
    Changed, NewTopic, OffsetReport, PositionReport, RuntimeReport, SkipRequest, TopicReport,
};
use crate::config::TopicSettings;
use crate::event::TopicPartition;

/// `GET /api/v1/consumers`.
pub(super) async fn consumers(Extract(state): Extract<Arc<State>>) -> Json<Vec<ConsumerReport>> {
    Json(state.health.consumers())
}

/// `POST /api/v1/consumers/{consumer}/skip`: moves a partition past an event that it
/// halted at or that the circuit breaker keeps.
pub(super) async fn skip(
    Extract(state): Extract<Arc<State>>,
    Path(consumer): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<Changed>, Refused> {
    state.accepting()?;
    let body = state.bodies.read(&headers, body).await?;
    let asked: SkipRequest = serde_json::from_slice(&body.bytes)
        .map_err(|bad| error(StatusCode::BAD_REQUEST, format!("the body: {bad}")))?;
    let partition = TopicPartition::new(topic_name(&asked.topic)?, asked.partition);
    let Some(operator) = &state.operator else {
        let reason = "no consumers run here";
        return Err(error(StatusCode::NOT_FOUND, reason));
    };
    match operator.skip(&consumer, partition, asked.offset).await {
        Ok(()) => Ok(Json(Changed { changed: true })),
        Err(NotDone::UnknownConsumer) => Err(error(
            StatusCode::NOT_FOUND,
            format!("no consumer {consumer} is at work here"),
        )),
        Err(NotDone::Refused(reason)) => Err(error(StatusCode::CONFLICT, reason)),
    }
}

/// `POST /-/reload`: makes the newest configuration apply; 422 with all that is wrong with it.
pub(super) async fn reload(
    Extract(state): Extract<Arc<State>>,
) -> Result<Json<ReloadReport>, Refused> {
    grant(&state, Wish::Reload).await
}

/// `POST /api/v1/consumers/{consumer}/deploy`: another component, until the file names another one.
pub(super) async fn deploy(
    Extract(state): Extract<Arc<State>>,
    Path(consumer): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<ReloadReport>, Refused> {
    let options: DeployRequest = read(&state, &headers, body).await?;
    grant(&state, Wish::Deploy { consumer, options }).await
}

/// `POST /api/v1/consumers/{consumer}/rollback`: the component before.
pub(super) async fn rollback(
    Extract(state): Extract<Arc<State>>,
    Path(consumer): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<ReloadReport>, Refused> {
    let options: RollbackRequest = read(&state, &headers, body).await?;
    grant(&state, Wish::Rollback { consumer, options }).await
}

/// `POST /api/v1/consumers/{consumer}/pause`: no call begins.
pub(super) async fn pause(
    Extract(state): Extract<Arc<State>>,
    Path(consumer): Path<String>,
) -> Result<Json<ReloadReport>, Refused> {
    grant(&state, Wish::Pause(consumer)).await
}

/// `POST /api/v1/consumers/{consumer}/resume`: calls go on.
pub(super) async fn resume(
    Extract(state): Extract<Arc<State>>,
    Path(consumer): Path<String>,
) -> Result<Json<ReloadReport>, Refused> {
    grant(&state, Wish::Resume(consumer)).await
}

/// What a body asks for; an empty one asks for nothing particular.
async fn read<T: DeserializeOwned + Default>(
    state: &State,
    headers: &HeaderMap,
    body: Body,
) -> Result<T, Refused> {
    let body = state.bodies.read(headers, body).await?;
    if body.bytes.is_empty() {
        return Ok(T::default());
    }
    serde_json::from_slice(&body.bytes)
        .map_err(|bad| error(StatusCode::BAD_REQUEST, format!("the body: {bad}")))
}

async fn grant(state: &State, wish: Wish) -> Result<Json<ReloadReport>, Refused> {
    state.accepting()?;
    let Some(operator) = &state.operator else {
        let reason = "no consumers run here";
        return Err(error(StatusCode::NOT_FOUND, reason));
    };
    match operator.grant(wish).await {
        Ok(report) => Ok(Json(report)),
        Err(NotDone::UnknownConsumer) => Err(error(
            StatusCode::NOT_FOUND,
            "no consumer of this name is at work here",
        )),
        Err(NotDone::Refused(reason)) => Err(error(StatusCode::UNPROCESSABLE_ENTITY, reason)),
    }
}

/// `GET /api/v1/runtime`.
pub(super) async fn runtime(Extract(state): Extract<Arc<State>>) -> Json<RuntimeReport> {
    Json(RuntimeReport {
        name: "millstream".to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        store: state.store.clone(),
    })
}

/// `GET /api/v1/topics`.
pub(super) async fn topics(
    Extract(state): Extract<Arc<State>>,
) -> Result<Json<Vec<TopicReport>>, Refused> {
    let topics = in_time(state.topics.list()).await?;
    Ok(Json(topics.iter().map(TopicReport::from).collect()))
}

/// `POST /api/v1/topics`: makes a topic; what the request leaves open is as `[topics.NAME]` says.
pub(super) async fn create(
    Extract(state): Extract<Arc<State>>,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<Changed>, Refused> {
    state.accepting()?;
    let body = state.bodies.read(&headers, body).await?;
    let asked: NewTopic = serde_json::from_slice(&body.bytes)
        .map_err(|bad| error(StatusCode::BAD_REQUEST, format!("the body: {bad}")))?;
    let name = topic_name(&asked.name)?;
    let none = TopicSettings::default();
    let settings = asked.settings(state.settings.get(&name).unwrap_or(&none));
    let changed = in_time(state.topics.create(&name, &settings)).await?;
    Ok(Json(Changed { changed }))
}

/// `DELETE /api/v1/topics/{topic}`.
pub(super) async fn delete(
    Extract(state): Extract<Arc<State>>,
    Path(topic): Path<String>,
) -> Result<Json<Changed>, Refused> {
    state.accepting()?;
    let name = topic_name(&topic)?;
    let changed = in_time(state.topics.delete(&name)).await?;
    Ok(Json(Changed { changed }))
}

/// The query of [`offset_at`].
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct At {
    at: i64,
}

/// `GET /api/v1/topics/{topic}/{partition}/offset?at=`.
pub(super) async fn offset_at(
    Extract(state): Extract<Arc<State>>,
    Path((topic, number)): Path<(String, u32)>,
    params: Result<Query<At>, QueryRejection>,
) -> Result<Json<OffsetReport>, Refused> {
    let partition = TopicPartition::new(topic_name(&topic)?, number);
    let Query(At { at }) = params.map_err(bad_query)?;
    let offset = in_time(state.topics.offset_at(&partition, at)).await?;
    Ok(Json(OffsetReport { offset }))
}

/// `GET /api/v1/groups/{group}/positions`.
pub(super) async fn positions(
    Extract(state): Extract<Arc<State>>,
    Path(group): Path<String>,
) -> Result<Json<Vec<PositionReport>>, Refused> {
    let positions = in_time(state.topics.positions(&group)).await?;
    Ok(Json(positions.iter().map(PositionReport::from).collect()))
}
