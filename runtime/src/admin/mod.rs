//! The HTTP interface of a running runtime.
//!
//! ```text
//!          ┌ server.rs ──────────────────┐  ┌ door.rs ┐  ┌ handlers ────────────────────┐
//! socket ─▶│ seats, TLS, time-outs, sizes │─▶│ admit?  │─▶│ produce.rs read.rs api.rs …  │─▶ Topics
//!          └─────────────────────────────┘  └─────────┘  └──────────────────────────────┘   Health
//! ```

pub mod answer;
mod api;
mod budget;
mod certificate;
pub mod door;
pub mod produce;
mod read;
mod reader;
pub mod report;
mod seats;
mod server;
pub mod session;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State as Extract;
use axum::http::header::CONTENT_TYPE;
use axum::http::{Method, StatusCode};
use axum::response::{Html, IntoResponse, Response};
use axum::routing::{delete, get, post};
use axum::{Json, Router, middleware};
use tokio::sync::{Semaphore, SemaphorePermit};

pub use self::certificate::Certificate;
pub use self::report::{
    ConsumerReport, DeployRequest, Health, NotDone, Operator, PartitionReport, Readiness,
    ReloadReport, ReloadStep, RollbackRequest, ShadowSummary, Wish,
};
pub use self::server::{serve, serve_metrics};

use self::answer::{Refused, error};
use self::budget::BodyBudget;
use self::door::Door;
use crate::broker::names::check_topic;
use crate::broker::{BrokerError, Topics};
use crate::config::{Admin, TopicSettings};

/// Largest body of one request, in bytes.
pub const MAX_BODY: usize = 16 << 20;
/// Answers with events that are built at once: each takes megabytes.
const PARALLEL_READS: usize = 8;
/// Longest that the broker may take for one request; after that the caller is told to come again.
const BROKER_TIMEOUT: Duration = Duration::from_secs(30);

/// What the handlers work with.
pub struct State {
    /// The metrics in Prometheus' text format; called once a scrape.
    pub metrics: Arc<dyn Fn() -> String + Send + Sync>,
    pub topics: Arc<dyn Topics>,
    pub health: Arc<dyn Health>,
    /// `None` where there is nothing to operate on.
    pub operator: Option<Arc<dyn Operator>>,
    /// `[topics.NAME]`: how topics are made, and how large an event may be.
    pub settings: BTreeMap<Arc<str>, TopicSettings>,
    /// Tells this broker's data from another's, as [`crate::broker::remote::store_id`] says it.
    pub store: String,
    bodies: BodyBudget,
    /// One permit an answer with events under construction.
    reads: Semaphore,
}

impl State {
    /// A state with all that handlers need.
    pub fn new(
        metrics: Arc<dyn Fn() -> String + Send + Sync>,
        topics: Arc<dyn Topics>,
        health: Arc<dyn Health>,
        settings: BTreeMap<Arc<str>, TopicSettings>,
        store: String,
    ) -> Self {
        Self {
            metrics,
            topics,
            health,
            operator: None,
            settings,
            store,
            bodies: BodyBudget::new(),
            reads: Semaphore::new(PARALLEL_READS),
        }
    }

    /// The same, with someone who does what operators ask.
    pub fn with_operator(mut self, operator: Arc<dyn Operator>) -> Self {
        self.operator = Some(operator);
        self
    }

    /// A turn to read events.
    async fn read_turn(&self) -> Result<SemaphorePermit<'_>, Refused> {
        match tokio::time::timeout(BROKER_TIMEOUT, self.reads.acquire()).await {
            Ok(Ok(turn)) => Ok(turn),
            _ => Err(error(
                StatusCode::SERVICE_UNAVAILABLE,
                "too many readers at once; ask again later",
            )),
        }
    }

    /// Refuses while the runtime drains.
    fn accepting(&self) -> Result<(), Refused> {
        match self.health.draining() {
            false => Ok(()),
            true => Err(shutting_down()),
        }
    }
}

fn shutting_down() -> Refused {
    error(
        StatusCode::SERVICE_UNAVAILABLE,
        "the runtime is shutting down; send it again, to the next one",
    )
}

/// All routes behind their door.
pub fn router(state: Arc<State>, admin: &Admin) -> Router {
    let door = Door::new(&admin.hosts, admin.token.as_ref()).over_tls(admin.tls.is_some());
    let door = Arc::new(door);
    let (opening, closing) = (door.clone(), door.clone());
    let routes = figures()
        .route("/", get(index))
        .route("/topics/{topic}", get(read::events).post(produce::events))
        .route("/-/reload", post(api::reload))
        .route(
            "/-/session",
            post(async move || session::open(&opening))
                .delete(async move || session::close(&closing)),
        )
        .route("/api/v1/consumers", get(api::consumers))
        .route("/api/v1/consumers/{consumer}/skip", post(api::skip))
        .route("/api/v1/consumers/{consumer}/deploy", post(api::deploy))
        .route("/api/v1/consumers/{consumer}/rollback", post(api::rollback))
        .route("/api/v1/consumers/{consumer}/pause", post(api::pause))
        .route("/api/v1/consumers/{consumer}/resume", post(api::resume))
        .route("/api/v1/runtime", get(api::runtime))
        .route("/api/v1/topics", get(api::topics).post(api::create))
        .route("/api/v1/topics/{topic}", delete(api::delete))
        .route("/api/v1/produce", post(produce::records))
        .route(
            "/api/v1/topics/{topic}/{partition}/events",
            get(read::partition),
        )
        .route(
            "/api/v1/topics/{topic}/{partition}/offset",
            get(api::offset_at),
        )
        .route("/api/v1/groups/{group}/positions", get(api::positions));
    behind(door, routes).with_state(state)
}

/// The routes of `[metrics] listen`.
pub fn metrics_router(state: Arc<State>) -> Router {
    behind(Arc::new(Door::for_metrics()), figures()).with_state(state)
}

fn figures() -> Router<Arc<State>> {
    Router::new()
        .route("/metrics", get(metrics))
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
}

fn behind(door: Arc<Door>, routes: Router<Arc<State>>) -> Router<Arc<State>> {
    routes
        .fallback(nothing)
        .method_not_allowed_fallback(not_so)
        .layer(middleware::from_fn_with_state(door, door::guard))
}

async fn nothing() -> Refused {
    error(
        StatusCode::NOT_FOUND,
        "there is nothing here; / lists what is",
    )
}

async fn not_so(method: Method) -> Refused {
    error(
        StatusCode::METHOD_NOT_ALLOWED,
        format!("{method} does nothing here; / lists what does"),
    )
}

async fn index() -> Html<&'static str> {
    Html(include_str!("index.html"))
}

async fn metrics(Extract(state): Extract<Arc<State>>) -> Response {
    let text = (state.metrics)();
    let kind = "text/plain; version=0.0.4; charset=utf-8";
    ([(CONTENT_TYPE, kind)], text).into_response()
}

async fn healthz(Extract(state): Extract<Arc<State>>) -> Response {
    let (status, body) = match state.health.alive() {
        Ok(()) => (StatusCode::OK, serde_json::json!({"alive": true})),
        Err(reason) => (
            StatusCode::SERVICE_UNAVAILABLE,
            serde_json::json!({"alive": false, "reasons": [reason]}),
        ),
    };
    (status, Json(body)).into_response()
}

async fn readyz(Extract(state): Extract<Arc<State>>) -> Response {
    let readiness = state.health.ready();
    let status = match readiness.ready {
        true => StatusCode::OK,
        false => StatusCode::SERVICE_UNAVAILABLE,
    };
    (status, Json(readiness)).into_response()
}

/// What the broker answers, or that it did not in time.
async fn in_time<T>(
    answer: impl Future<Output = Result<T, BrokerError>>,
) -> Result<T, BrokerError> {
    match tokio::time::timeout(BROKER_TIMEOUT, answer).await {
        Ok(answer) => answer,
        Err(_) => Err(BrokerError::Unreachable(format!(
            "no answer within {} s; what was sent may still be written",
            BROKER_TIMEOUT.as_secs()
        ))),
    }
}

/// A topic's name as every broker takes it.
fn topic_name(name: &str) -> Result<Arc<str>, Refused> {
    match check_topic(name) {
        Ok(()) => Ok(name.into()),
        Err(reason) => Err(error(StatusCode::BAD_REQUEST, reason)),
    }
}
