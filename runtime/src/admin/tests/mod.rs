//! The HTTP interface as its callers meet it, hostile ones included.

mod hostile;
mod idempotency;
mod remote;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::{HeaderMap, Request, Response};
use futures::future::BoxFuture;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;

use super::*;
use crate::broker::memory::Memory;
use crate::config::secret::Secret;
use crate::event::TopicPartition;

/// A runtime whose health is what the test says.
#[derive(Default)]
struct Told {
    draining: Mutex<bool>,
    readiness: Mutex<Readiness>,
    stuck: Mutex<Option<String>>,
}

impl Health for Told {
    fn alive(&self) -> Result<(), String> {
        self.stuck.lock().clone().map_or(Ok(()), Err)
    }

    fn ready(&self) -> Readiness {
        self.readiness.lock().clone()
    }

    fn draining(&self) -> bool {
        *self.draining.lock()
    }

    fn consumers(&self) -> Vec<ConsumerReport> {
        vec![ConsumerReport {
            name: "enrich".to_owned(),
            breaker: "closed".to_owned(),
            ..ConsumerReport::default()
        }]
    }
}

struct Bench {
    topics: Arc<Memory>,
    health: Arc<Told>,
    state: Arc<State>,
    router: Router,
}

fn admin(token: Option<&str>) -> Admin {
    Admin {
        listen: SocketAddr::from(([127, 0, 0, 1], 0)),
        token: token.map(Secret::new),
        hosts: Vec::new(),
        stuck_after: Duration::from_secs(60),
        metrics_listen: None,
        tls: None,
    }
}

fn bench(token: Option<&str>) -> Bench {
    let topics = Arc::new(Memory::with_topic("orders", 3));
    let health = Arc::new(Told::default());
    let settings = TopicSettings {
        max_event: Some(100),
        ..TopicSettings::default()
    };
    let state = State::new(
        Arc::new(|| "up 1\n".to_owned()),
        topics.clone(),
        health.clone(),
        BTreeMap::from([("small".into(), settings)]),
        "store".to_owned(),
    );
    let state = Arc::new(state.with_operator(Arc::new(One)));
    Bench {
        router: router(state.clone(), &admin(token)),
        topics,
        health,
        state,
    }
}

/// A request with these headers; `Host` is ours unless they name one.
fn request(method: &str, target: &str, headers: &[(&str, &str)], body: &str) -> Request<Body> {
    let mut request = Request::builder().method(method).uri(target);
    if !headers.iter().any(|(name, _)| *name == "host") {
        request = request.header("host", "localhost:9464");
    }
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request
        .body(Body::from(body.to_owned()))
        .expect("a request")
}

impl Bench {
    async fn send(&self, request: Request<Body>) -> Response<Body> {
        let answered = self.router.clone().oneshot(request).await;
        answered.unwrap_or_else(|never| match never {})
    }

    async fn status(
        &self,
        method: &str,
        target: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> u16 {
        let response = self.send(request(method, target, headers, body)).await;
        response.status().as_u16()
    }

    async fn json(
        &self,
        method: &str,
        target: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> (u16, Value) {
        let response = self.send(request(method, target, headers, body)).await;
        let status = response.status().as_u16();
        let text = text(response).await;
        (status, serde_json::from_str(&text).unwrap_or(json!(text)))
    }

    fn written(&self) -> usize {
        self.topics.records("orders").len()
    }
}

async fn text(response: Response<Body>) -> String {
    let bytes = axum::body::to_bytes(response.into_body(), 64 << 20).await;
    String::from_utf8_lossy(&bytes.expect("a body")).into_owned()
}

const JSON: (&str, &str) = ("content-type", "application/json");
const LINES: (&str, &str) = ("content-type", "application/x-ndjson");

/// An operator that lets one event alone be skipped.
struct One;

impl Operator for One {
    fn skip<'a>(
        &'a self,
        consumer: &'a str,
        partition: TopicPartition,
        offset: u64,
    ) -> BoxFuture<'a, Result<(), NotDone>> {
        Box::pin(async move {
            match (consumer, partition.to_string().as_str(), offset) {
                ("enrich", "orders/1", 7) => Ok(()),
                ("enrich", ..) => Err(NotDone::Refused("it is not halted there".to_owned())),
                _ => Err(NotDone::UnknownConsumer),
            }
        })
    }

    fn grant(&self, wish: Wish) -> BoxFuture<'_, Result<ReloadReport, NotDone>> {
        Box::pin(async move {
            match wish {
                Wish::Pause(consumer) if consumer != "enrich" => Err(NotDone::UnknownConsumer),
                Wish::Pause(_) => Ok(ReloadReport::default()),
                _ => Err(NotDone::Refused("line 3 is wrong".to_owned())),
            }
        })
    }
}

/// A script that reloads must see that nothing was deployed, and why.
#[tokio::test]
async fn a_refused_reload_says_why() {
    let bench = bench(Some("hunter2"));
    let bearer = ("authorization", "Bearer hunter2");
    let (status, answer) = bench.json("POST", "/-/reload", &[bearer, JSON], "").await;
    assert_eq!(status, 422);
    assert!(answer.to_string().contains("line 3 is wrong"), "{answer}");
    let (status, _) = bench.json("POST", "/-/reload", &[JSON], "").await;
    assert_eq!(status, 401);
}

/// A wrong answer would let a script believe that the poison is gone, or leave it there.
#[tokio::test]
async fn skipping_is_passed_on_and_says_why_not() {
    let bench = bench(Some("hunter2"));
    let place = |offset: u64| format!(r#"{{"topic":"orders","partition":1,"offset":{offset}}}"#);
    let bearer = ("authorization", "Bearer hunter2");
    let target = "/api/v1/consumers/enrich/skip";
    let headers = [bearer, JSON];
    let (status, answer) = bench.json("POST", target, &headers, &place(7)).await;
    assert_eq!((status, answer), (200, json!({"changed": true})));
    let (status, answer) = bench.json("POST", target, &headers, &place(8)).await;
    assert_eq!(
        (status, &answer["error"]),
        (409, &json!("it is not halted there"))
    );
    let other = "/api/v1/consumers/other/skip";
    assert_eq!(bench.status("POST", other, &headers, &place(7)).await, 404);
    assert_eq!(bench.status("POST", target, &[JSON], &place(7)).await, 401);
    for bad in ["", "{}", r#"{"topic":"a b","partition":1,"offset":7}"#] {
        assert_eq!(
            bench.status("POST", target, &headers, bad).await,
            400,
            "{bad}"
        );
    }
    *bench.health.draining.lock() = true;
    assert_eq!(bench.status("POST", target, &headers, &place(7)).await, 503);
}

#[tokio::test]
async fn one_event_is_stored_with_its_key_and_headers() {
    let bench = bench(None);
    let headers = [
        ("content-type", "application/octet-stream"),
        ("ce-id", "7"),
        ("ce-subject", "Euro%20%E2%82%AC"),
        ("ce-partitionkey", "from-header"),
        ("x-event-region", "eu"),
        ("x-other", "not stored"),
    ];
    let (status, place) = bench
        .json("POST", "/topics/orders?partition=2", &headers, "v")
        .await;
    let wanted = json!({"topic": "orders", "partition": 2, "offset": 0});
    assert_eq!((status, place), (200, wanted));
    let target = "/topics/orders?partition=2&key=from%20query";
    assert_eq!(bench.status("POST", target, &headers, "").await, 200);
    let records = bench.topics.records("orders");
    let first = records.get(0);
    assert_eq!(first.key(), Some(&b"from-header"[..]));
    assert_eq!(first.value(), Some(&b"v"[..]));
    let mut stored: Vec<_> = first
        .headers()
        .map(|(name, value)| {
            let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
            format!("{}={}", text(name), text(value.unwrap_or_default()))
        })
        .collect();
    stored.sort();
    let wanted = [
        "ce_id=7",
        "ce_partitionkey=from-header",
        "ce_subject=Euro €",
        "region=eu",
    ];
    assert_eq!(stored, wanted);
    assert_eq!(records.get(1).key(), Some(&b"from query"[..]));
    assert_eq!(records.get(1).value(), Some(&b""[..]));
}

/// Half a batch written would be repeated when the caller sends the corrected one.
#[tokio::test]
async fn json_lines_are_all_or_nothing_and_each_bad_line_is_named() {
    let bench = bench(None);
    let good = "{\"value\":\"1\",\"key\":\"a\"}\n\n{\"value\":null,\"partition\":2}\n";
    let bad = format!("{good}{{\"key\":\"b\"}}\n[]\n");
    let (status, answer) = bench.json("POST", "/topics/orders", &[LINES], &bad).await;
    assert_eq!((status, bench.written()), (400, 0));
    assert_eq!(
        answer["error"],
        "2 of 4 lines are not events; nothing was written"
    );
    assert_eq!(answer["lines"][0]["line"], 4);
    assert_eq!(answer["lines"][1]["line"], 5);
    let target = "/topics/orders?partition=1";
    let (status, answer) = bench.json("POST", target, &[LINES], good).await;
    let place = |offset| json!({"topic": "orders", "partition": 1, "offset": offset});
    assert_eq!(
        (status, answer),
        (200, json!({"events": [place(0), place(1)]}))
    );
    let records = bench.topics.records("orders");
    assert_eq!(records.get(1).value(), None);
}

#[tokio::test]
async fn an_event_larger_than_its_topic_allows_is_refused_by_name() {
    let bench = bench(None);
    let body = "x".repeat(101);
    let (status, answer) = bench.json("POST", "/topics/small", &[JSON], &body).await;
    let text = answer["error"].as_str().unwrap_or_default();
    assert_eq!(status, 413);
    assert!(
        text.contains("[topics.small] max_event allows 100"),
        "{text}"
    );
    assert_eq!(
        bench
            .status("POST", "/topics/small", &[JSON], &body[..100])
            .await,
        200
    );
}

#[tokio::test]
async fn the_brokers_troubles_have_their_own_answers() {
    for (error, status, retry) in [
        (BrokerError::DiskFull("0 left".into()), 507, Some("30")),
        (BrokerError::Unreachable("no answer".into()), 503, Some("1")),
        (
            BrokerError::Overloaded {
                reason: "full".into(),
                retry_after: Duration::from_millis(89_001),
            },
            429,
            Some("90"),
        ),
        (BrokerError::TooLarge("large".into()), 413, None),
        (BrokerError::Unsupported("never".into()), 501, None),
        (BrokerError::Store("poisoned".into()), 500, None),
        (BrokerError::Refused("no".into()), 422, None),
    ] {
        let bench = bench(None);
        bench.topics.fail(error);
        let post = request("POST", "/topics/orders", &[JSON], "v");
        let response = bench.send(post).await;
        assert_eq!(response.status().as_u16(), status);
        let given = response.headers().get("retry-after");
        assert_eq!(given.and_then(|given| given.to_str().ok()), retry);
    }
}

/// Large bodies must not fill the memory, nor lock others out in silence.
#[tokio::test(start_paused = true)]
async fn too_many_bodies_at_once_are_told_to_come_again() {
    let bench = bench(None);
    let mut held = Vec::new();
    for _ in 0..8 {
        let body = Body::from("of a length that is not known before");
        held.push(bench.state.bodies.read(&HeaderMap::new(), body).await);
    }
    assert!(held.iter().all(Result::is_ok));
    let post = || request("POST", "/topics/orders", &[JSON], "v");
    let refused = bench.send(post()).await;
    assert_eq!(refused.status().as_u16(), 429);
    assert_eq!(refused.headers()["retry-after"], "1");
    assert_eq!(bench.written(), 0);
    drop(held);
    assert_eq!(bench.send(post()).await.status().as_u16(), 200);
}

#[tokio::test]
async fn a_runtime_that_drains_takes_nothing_new_and_still_answers() {
    let bench = bench(None);
    *bench.health.draining.lock() = true;
    let post = request("POST", "/topics/orders", &[JSON], "v");
    let response = bench.send(post).await;
    assert_eq!(response.status().as_u16(), 503);
    assert!(response.headers().contains_key("retry-after"));
    assert_eq!(bench.written(), 0);
    assert_eq!(
        bench
            .status("DELETE", "/api/v1/topics/orders", &[], "")
            .await,
        503
    );
    assert_eq!(bench.status("GET", "/topics/orders", &[], "").await, 200);
    assert_eq!(bench.status("GET", "/metrics", &[], "").await, 200);
}

/// A runtime whose end begins when it was asked so many times whether it has begun.
struct Ending(AtomicUsize);

impl Health for Ending {
    fn alive(&self) -> Result<(), String> {
        Ok(())
    }

    fn ready(&self) -> Readiness {
        Readiness::default()
    }

    fn draining(&self) -> bool {
        let left = |left: usize| Some(left.saturating_sub(1));
        self.0.fetch_update(Relaxed, Relaxed, left) == Ok(0)
    }

    fn consumers(&self) -> Vec<ConsumerReport> {
        Vec::new()
    }
}

/// Who sends at the end must hear that another runtime will take it, not of a broken store.
#[tokio::test]
async fn the_end_of_the_runtime_is_told_whenever_it_comes() {
    for left in 0..3 {
        let topics = Arc::new(Memory::with_topic("orders", 1));
        if left == 2 {
            topics.fail(BrokerError::Store("it is closed".into()));
        }
        let state = State::new(
            Arc::new(String::new),
            topics.clone(),
            Arc::new(Ending(AtomicUsize::new(left))),
            BTreeMap::new(),
            "store".to_owned(),
        );
        let router = router(Arc::new(state), &admin(None));
        let post = request("POST", "/topics/orders", &[JSON], "v");
        let Ok(answer) = router.oneshot(post).await;
        assert_eq!(answer.status().as_u16(), 503, "{left}");
        assert_eq!(answer.headers()["retry-after"], "1");
        assert_eq!(topics.records("orders").len(), 0);
    }
}

#[tokio::test]
async fn health_and_readiness_say_what_is_wrong() {
    let bench = bench(None);
    assert_eq!(bench.status("GET", "/healthz", &[], "").await, 200);
    *bench.health.stuck.lock() = Some("lane 3 stands still".to_owned());
    let (status, answer) = bench.json("GET", "/healthz", &[], "").await;
    assert_eq!(
        (status, &answer["reasons"][0]),
        (503, &json!("lane 3 stands still"))
    );
    assert_eq!(bench.status("GET", "/readyz", &[], "").await, 503);
    *bench.health.readiness.lock() = Readiness {
        ready: true,
        reasons: Vec::new(),
        notes: vec!["lag 7".to_owned()],
    };
    let (status, answer) = bench.json("GET", "/readyz", &[], "").await;
    assert_eq!((status, &answer["notes"][0]), (200, &json!("lag 7")));
}

#[tokio::test]
async fn events_are_read_as_json_lines() {
    let bench = bench(None);
    let lines: String = (0..5)
        .map(|n| format!("{{\"value\":\"{n}\",\"timestamp\":{}}}\n", n * 1000))
        .collect();
    let target = "/topics/orders?partition=1";
    assert_eq!(bench.status("POST", target, &[LINES], &lines).await, 200);
    for (query, wanted) in [
        ("", "01234"),
        ("?from=end", ""),
        ("?from=3", "34"),
        ("?from=-2", "34"),
        ("?from=@2000", "234"),
        ("?count=2", "01"),
        ("?partition=1&from=1&count=2", "12"),
        ("?partition=0", ""),
    ] {
        let get = request("GET", &format!("/topics/orders{query}"), &[], "");
        let response = bench.send(get).await;
        assert_eq!(response.headers()["content-type"], "application/x-ndjson");
        let values: String = text(response)
            .await
            .lines()
            .filter_map(|line| serde_json::from_str::<Value>(line).ok())
            .filter_map(|event| event["value"].as_str().map(str::to_owned))
            .collect();
        assert_eq!(values, wanted, "{query}");
    }
}

#[tokio::test]
async fn the_metrics_listener_shows_figures_and_nothing_else() {
    let bench = bench(None);
    let router = metrics_router(bench.state.clone());
    for (target, wanted) in [
        ("/metrics", 200),
        ("/healthz", 200),
        ("/topics/orders", 404),
        ("/api/v1/consumers", 404),
        ("/", 404),
    ] {
        let get = request("GET", target, &[("host", "pod.example:9465")], "");
        let response = router.clone().oneshot(get).await;
        let status = response.map(|response| response.status().as_u16());
        assert_eq!(status, Ok(wanted), "{target}");
    }
}
