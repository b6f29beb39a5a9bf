//! The HTTP interface as its callers meet it, hostile ones included.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::{Request, Response};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;

use super::*;
use crate::broker::memory::Memory;
use crate::broker::remote::Remote;
use crate::broker::{ReadLimits, Topics as _};
use crate::config::secret::Secret;
use crate::decide::offsets::Progress;
use crate::event::TopicPartition;
use crate::records::{NewRecord, Records};

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
    }
}

fn bench(token: Option<&str>) -> Bench {
    let topics = Arc::new(Memory::with_topic("orders", 3));
    let health = Arc::new(Told::default());
    let settings = TopicSettings {
        max_event: Some(100),
        ..TopicSettings::default()
    };
    let state = Arc::new(State::new(
        Arc::new(|| "up 1\n".to_owned()),
        topics.clone(),
        health.clone(),
        BTreeMap::from([("small".into(), settings)]),
        "store".to_owned(),
    ));
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

    async fn status(&self, method: &str, target: &str, headers: &[(&str, &str)], body: &str) -> u16 {
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

/// Whatever a hostile page or a clumsy tool sends: the answer, and nothing written.
#[tokio::test]
async fn hostile_requests_are_turned_away_and_write_nothing() {
    let bench = bench(None);
    let huge = "x".repeat(MAX_BODY + 1);
    let long_name = "x-event-".to_owned() + &"n".repeat(300);
    let cases: &[(u16, &str, &str, &[(&str, &str)], &str)] = &[
        (421, "POST", "/topics/orders", &[JSON, ("host", "evil.example")], "v"),
        (421, "POST", "/topics/orders", &[JSON, ("host", "evil.example:9464")], "v"),
        (421, "GET", "/metrics", &[("host", "10.0.0.7:9464")], ""),
        (421, "GET", "http://evil.example/topics/orders", &[], ""),
        (400, "GET", "/", &[("host", "localhost"), ("host", "localhost")], ""),
        (403, "POST", "/topics/orders", &[JSON, ("origin", "http://evil.example")], "v"),
        (403, "POST", "/topics/orders", &[JSON, ("origin", "null")], "v"),
        (403, "POST", "/topics/orders", &[JSON, ("origin", "http://localhost:3000")], "v"),
        (403, "POST", "/topics/orders", &[JSON, ("sec-fetch-site", "cross-site")], "v"),
        (403, "POST", "/topics/orders", &[JSON, ("sec-fetch-site", "same-site")], "v"),
        (403, "GET", "/topics/orders", &[("sec-fetch-site", "cross-site")], ""),
        (403, "DELETE", "/api/v1/topics/orders", &[("origin", "http://evil.example")], ""),
        (415, "POST", "/topics/orders", &[("content-type", "text/plain")], "v"),
        (415, "POST", "/topics/orders", &[("content-type", "multipart/form-data")], "v"),
        (415, "POST", "/topics/orders", &[], "v"),
        (415, "POST", "/api/v1/topics", &[("content-type", "text/plain")], "{}"),
        (415, "DELETE", "/api/v1/topics/orders", &[("content-type", "text/plain")], ""),
        (415, "OPTIONS", "/topics/orders", &[("origin", "http://localhost:9464")], ""),
        (413, "POST", "/topics/orders", &[JSON], &huge),
        (413, "POST", "/topics/orders", &[JSON, ("content-length", "99999999999")], "v"),
        (413, "POST", "/api/v1/produce", &[LINES], &huge),
        (501, "POST", "/topics/orders", &[JSON, ("idempotency-key", "k")], "v"),
        (501, "POST", "/api/v1/produce", &[LINES, ("idempotency-key", "k")], ""),
        (400, "POST", "/topics/orders", &[LINES], "{\"value\":\"a\"}\nnonsense\n"),
        (400, "POST", "/topics/orders", &[LINES], "{\"vaule\":\"a\"}"),
        (400, "POST", "/topics/orders?key=k", &[LINES], "{\"value\":\"a\"}"),
        (400, "POST", "/api/v1/produce", &[LINES], "{\"value\":\"no topic\"}"),
        (400, "POST", "/api/v1/produce", &[LINES], "{\"topic\":\"a/b\",\"value\":\"v\"}"),
        (400, "POST", "/topics/a%2Fb", &[JSON], "v"),
        (400, "POST", "/topics/..%2F..%2Fetc", &[JSON], "v"),
        (400, "POST", "/topics/%2E%2E", &[JSON], "v"),
        (400, "POST", "/topics/a%00b", &[JSON], "v"),
        (400, "POST", "/topics/orders?partition=-1", &[JSON], "v"),
        (400, "POST", "/topics/orders?partiton=1", &[JSON], "v"),
        (422, "POST", "/topics/orders?partition=9", &[JSON], "v"),
        (400, "POST", "/topics/orders", &[JSON, ("x-event-", "v")], "v"),
        (400, "POST", "/topics/orders", &[JSON, ("ce-", "v")], "v"),
        (400, "POST", "/topics/orders", &[JSON, (&long_name, "v")], "v"),
        (400, "POST", "/topics/orders", &[JSON, ("ce-partitionkey", "%ff")], "v"),
        (405, "PUT", "/topics/orders", &[JSON], "v"),
        (405, "DELETE", "/topics/orders", &[], ""),
        (404, "GET", "/topics/unknown", &[], ""),
        (404, "GET", "/topics/orders?partition=3", &[], ""),
        (400, "GET", "/topics/orders?from=yesterday", &[], ""),
        (400, "GET", "/topics/orders?count=many", &[], ""),
        (404, "GET", "/api/v1/topics/orders/9/events?from=0&events=1&bytes=1", &[], ""),
        (400, "GET", "/api/v1/topics/orders/x/events?from=0&events=1&bytes=1", &[], ""),
        (400, "POST", "/api/v1/topics", &[JSON], "{\"name\":\"a\",\"partition\":1}"),
        (400, "POST", "/api/v1/topics", &[JSON], "{\"name\":\"\"}"),
        (404, "GET", "/api/v2/consumers", &[], ""),
        (404, "GET", "/../etc/passwd", &[], ""),
    ];
    for (wanted, method, target, headers, body) in cases {
        let response = bench.send(request(method, target, headers, body)).await;
        let status = response.status().as_u16();
        for (name, value) in [
            ("content-security-policy", "default-src 'self'"),
            ("x-content-type-options", "nosniff"),
            ("cache-control", "no-store"),
        ] {
            let given = response.headers().get(name).map(|given| given.as_bytes());
            assert_eq!(given, Some(value.as_bytes()), "{method} {target}");
        }
        let shared = response.headers().keys();
        let shared = shared.filter(|name| name.as_str().starts_with("access-control"));
        assert_eq!(shared.count(), 0, "{method} {target}");
        let text = text(response).await;
        assert_eq!(status, *wanted, "{method} {target} {headers:?}: {text}");
        assert!(text.len() < 2_000, "{method} {target}: {text}");
    }
    assert_eq!(bench.written(), 0);
}

#[tokio::test]
async fn without_the_token_nothing_is_changed_or_revealed() {
    let bench = bench(Some("hunter2"));
    let guarded: [(&str, &str, &[(&str, &str)]); 10] = [
        ("POST", "/topics/orders", &[JSON]),
        ("GET", "/topics/orders", &[]),
        ("POST", "/api/v1/produce", &[LINES]),
        ("POST", "/api/v1/topics", &[JSON]),
        ("DELETE", "/api/v1/topics/orders", &[]),
        ("GET", "/api/v1/topics", &[]),
        ("GET", "/api/v1/consumers", &[]),
        ("GET", "/api/v1/groups/g/positions", &[]),
        ("GET", "/api/v1/topics/orders/0/events?from=0&events=1&bytes=1", &[]),
        ("GET", "/unknown", &[]),
    ];
    for (method, target, headers) in guarded {
        for token in ["", "Bearer wrong", "Basic hunter2"] {
            let mut headers = headers.to_vec();
            if !token.is_empty() {
                headers.push(("authorization", token));
            }
            let response = bench.send(request(method, target, &headers, "v")).await;
            assert_eq!(response.status().as_u16(), 401, "{method} {target} {token}");
            assert!(response.headers().contains_key("www-authenticate"));
        }
    }
    for target in ["/", "/metrics", "/healthz"] {
        assert_eq!(bench.status("GET", target, &[], "").await, 200, "{target}");
    }
    let token = ("authorization", "Bearer hunter2");
    let status = bench.status("POST", "/topics/orders", &[JSON, token], "v").await;
    assert_eq!((status, bench.written()), (200, 1));
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
    let (status, place) = bench.json("POST", "/topics/orders?partition=2", &headers, "v").await;
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
    let wanted = ["ce_id=7", "ce_partitionkey=from-header", "ce_subject=Euro €", "region=eu"];
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
    assert_eq!(answer["error"], "2 of 4 lines are not events; nothing was written");
    assert_eq!(answer["lines"][0]["line"], 4);
    assert_eq!(answer["lines"][1]["line"], 5);
    let target = "/topics/orders?partition=1";
    let (status, answer) = bench.json("POST", target, &[LINES], good).await;
    let place = |offset| json!({"topic": "orders", "partition": 1, "offset": offset});
    assert_eq!((status, answer), (200, json!({"events": [place(0), place(1)]})));
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
    assert!(text.contains("[topics.small] max_event allows 100"), "{text}");
    assert_eq!(bench.status("POST", "/topics/small", &[JSON], &body[..100]).await, 200);
}

#[tokio::test]
async fn the_brokers_troubles_have_their_own_answers() {
    for (error, status, retry) in [
        (BrokerError::DiskFull("0 left".into()), 507, false),
        (BrokerError::Unreachable("no answer".into()), 503, true),
        (BrokerError::Store("poisoned".into()), 500, false),
        (BrokerError::Refused("no".into()), 422, false),
    ] {
        let bench = bench(None);
        bench.topics.fail(error);
        let post = request("POST", "/topics/orders", &[JSON], "v");
        let response = bench.send(post).await;
        assert_eq!(response.status().as_u16(), status);
        assert_eq!(response.headers().contains_key("retry-after"), retry);
    }
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
    assert_eq!(bench.status("DELETE", "/api/v1/topics/orders", &[], "").await, 503);
    assert_eq!(bench.status("GET", "/topics/orders", &[], "").await, 200);
    assert_eq!(bench.status("GET", "/metrics", &[], "").await, 200);
}

#[tokio::test]
async fn health_and_readiness_say_what_is_wrong() {
    let bench = bench(None);
    assert_eq!(bench.status("GET", "/healthz", &[], "").await, 200);
    *bench.health.stuck.lock() = Some("lane 3 stands still".to_owned());
    let (status, answer) = bench.json("GET", "/healthz", &[], "").await;
    assert_eq!((status, &answer["reasons"][0]), (503, &json!("lane 3 stands still")));
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

/// The command line against a real listener: every call arrives and comes back whole.
#[tokio::test]
async fn the_remote_topics_behave_like_the_ones_behind_them() {
    let bench = bench(Some("hunter2"));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await;
    let listener = listener.expect("a port");
    let address = listener.local_addr().expect("an address").to_string();
    let stop = CancellationToken::new();
    let admin = admin(Some("hunter2"));
    let (state, stopped) = (bench.state.clone(), stop.clone());
    let server = tokio::spawn(async move { serve(listener, state, &admin, stopped).await });

    let stranger = Remote::new(&address, None);
    assert!(matches!(stranger.list().await, Err(BrokerError::Refused(_))));

    let remote = Remote::new(&address, Some(Secret::new("hunter2")));
    assert_eq!(remote.runtime().await.map(|r| r.store).ok().as_deref(), Some("store"));
    let settings = TopicSettings {
        partitions: Some(2),
        ..TopicSettings::default()
    };
    assert_eq!(remote.create("made", &settings).await.ok(), Some(true));
    assert_eq!(remote.create("made", &settings).await.ok(), Some(false));

    let mut records = Records::new();
    for (topic, partition) in [("made", Some(1)), ("orders", None), ("made", Some(1))] {
        records.push(
            &topic.into(),
            NewRecord {
                key: Some(&[0xff]),
                value: (topic == "made").then_some(&b"v"[..]),
                partition,
                timestamp_ms: Some(1234),
                tag: 0,
            },
        );
        records.push_header(b"h", None);
    }
    let places = remote.produce(records).await.expect("written");
    let places: Vec<String> = places
        .iter()
        .map(|place| format!("{}@{}", place.partition, place.offset))
        .collect();
    assert_eq!(places, ["made/1@0", "orders/1@0", "made/1@1"]);
    assert_eq!(remote.list().await.ok(), bench.topics.list().await.ok());

    let partition = TopicPartition::new("made", 1);
    let limits = ReadLimits {
        events: 1,
        bytes: 1 << 20,
    };
    let chunk = remote.read(&partition, 1, limits).await.expect("read");
    assert_eq!((chunk.block.len(), chunk.next, chunk.end), (1, 2, 2));
    let event = chunk.block.event(0);
    assert_eq!((event.offset(), event.timestamp_ms()), (1, 1234));
    assert_eq!((event.key(), event.value()), (Some(&[0xff][..]), Some(&b"v"[..])));
    assert_eq!(event.headers().next(), Some((&b"h"[..], None)));
    assert_eq!(remote.offset_at(&partition, 1234).await.ok(), Some(0));
    assert_eq!(remote.offset_at(&partition, 1235).await.ok(), Some(2));

    let position = Progress {
        next: 1,
        above: vec![5..7],
    };
    bench.topics.set_positions(vec![(partition.clone(), position)]);
    let positions = remote.positions("millstream.enrich").await.ok();
    assert_eq!(positions, bench.topics.positions("millstream.enrich").await.ok());

    let unknown = TopicPartition::new("made", 9);
    let error = remote.read(&unknown, 0, limits).await.err();
    assert!(matches!(error, Some(BrokerError::UnknownTopic(name)) if name == "made/9"));
    assert_eq!(remote.delete("made").await.ok(), Some(true));
    assert_eq!(remote.delete("made").await.ok(), Some(false));
    let report: Result<Vec<ConsumerReport>, _> = remote.get("/api/v1/consumers".into()).await;
    assert_eq!(report.map(|all| all[0].name.clone()).ok().as_deref(), Some("enrich"));

    stop.cancel();
    server.await.expect("the server ends");
    assert!(matches!(remote.list().await, Err(BrokerError::Unreachable(_))));
}

/// What never becomes a request that a handler sees.
#[tokio::test]
async fn heads_that_are_too_large_or_broken_are_refused_by_the_listener() {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let bench = bench(None);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await;
    let listener = listener.expect("a port");
    let address = listener.local_addr().expect("an address");
    let stop = CancellationToken::new();
    let (state, stopped) = (bench.state.clone(), stop.clone());
    let server = tokio::spawn(async move { serve(listener, state, &admin(None), stopped).await });
    let large = format!("GET / HTTP/1.1\r\nhost: localhost\r\na: {}\r\n\r\n", "x".repeat(100_000));
    let many = format!(
        "GET / HTTP/1.1\r\nhost: localhost\r\n{}\r\n",
        "a: b\r\n".repeat(200)
    );
    for (head, wanted) in [
        (large.as_str(), "HTTP/1.1 431"),
        (&many, "HTTP/1.1 431"),
        ("GET / HTTP/1.1\r\nconnection: close\r\n\r\n", "HTTP/1.1 400"),
        ("nonsense\r\n\r\n", "HTTP/1.1 400"),
        ("GET / HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n", "HTTP/1.1 200"),
    ] {
        let mut stream = tokio::net::TcpStream::connect(address).await.expect("connected");
        // The listener may hang up while the rest of a refused head is still on its way.
        let _ = stream.write_all(head.as_bytes()).await;
        // Nor need its answer arrive then: a reset overtakes it.
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer).await;
        let answer = String::from_utf8_lossy(&answer);
        let shown = &head[..head.len().min(60)];
        let cut_off = answer.is_empty() && wanted.ends_with("431");
        assert!(cut_off || answer.starts_with(wanted), "{shown}: {answer}");
    }
    stop.cancel();
    server.await.expect("the server ends");
}
