//! Requests that mean harm or are slips: each is turned away, and nothing is written.

use super::*;

/// Status, method, target, headers (`json` and `lines` are content types) and, past the bar, body.
const CASES: &str = r#"
421 POST /topics/orders json; host=evil.example | v
421 POST /topics/orders json; host=evil.example:9464 | v
421 GET /metrics host=10.0.0.7:9464 |
421 GET http://evil.example/topics/orders |
400 GET / host=localhost; host=localhost |
403 POST /topics/orders json; origin=http://evil.example | v
403 POST /topics/orders json; origin=null | v
403 POST /topics/orders json; origin=http://localhost:3000 | v
403 POST /topics/orders json; sec-fetch-site=cross-site | v
403 POST /topics/orders json; sec-fetch-site=same-site | v
403 GET /topics/orders sec-fetch-site=cross-site |
403 DELETE /api/v1/topics/orders origin=http://evil.example |
415 POST /topics/orders content-type=text/plain | v
415 POST /topics/orders content-type=multipart/form-data | v
415 POST /topics/orders content-type=application/x-www-form-urlencoded | v
404 POST /-/session json |
404 DELETE /-/session |
405 GET /-/session |
415 POST /topics/orders | v
415 POST /api/v1/topics content-type=text/plain | {}
415 DELETE /api/v1/topics/orders content-type=text/plain |
415 OPTIONS /topics/orders origin=http://localhost:9464 |
413 POST /topics/orders json | HUGE
413 POST /topics/orders json; content-length=99999999999 | v
413 POST /api/v1/produce lines | HUGE
400 POST /topics/orders json; idempotency-key= | v
400 POST /topics/orders json; idempotency-key=LONG | v
400 POST /topics/orders json; idempotency-key=a; idempotency-key=b | v
400 POST /api/v1/produce lines; idempotency-key=LONG | {"topic":"orders","value":"a"}
400 POST /topics/orders lines; idempotency-key=k | {"value":"a"} {}
413 POST /topics/orders json; idempotency-key=k | HUGE
400 POST /topics/orders lines | {"vaule":"a"}
400 POST /topics/orders lines | ["orders",0,0,0,"k","v",[]]
400 POST /topics/orders?key=k lines | {"value":"a"}
400 POST /api/v1/produce lines | {"value":"no topic"}
400 POST /api/v1/produce lines | {"topic":"a/b","value":"v"}
400 POST /topics/a%2Fb json | v
400 POST /topics/..%2F..%2Fetc json | v
400 POST /topics/%2E%2E json | v
400 POST /topics/a%00b json | v
400 POST /topics/orders?partition=-1 json | v
400 POST /topics/orders?partiton=1 json | v
422 POST /topics/orders?partition=9 json | v
400 POST /topics/orders json; x-event-=v | v
400 POST /topics/orders json; ce-=v | v
400 POST /topics/orders json; x-event-LONG=v | v
400 POST /topics/orders json; ce-partitionkey=%ff | v
405 PUT /topics/orders json | v
405 DELETE /topics/orders |
404 GET /topics/unknown |
404 GET /topics/orders?partition=3 |
400 GET /topics/orders?from=yesterday |
400 GET /topics/orders?count=many |
404 GET /api/v1/topics/orders/9/events?from=0&events=1&bytes=1 |
400 GET /api/v1/topics/orders/x/events?from=0&events=1&bytes=1 |
400 POST /api/v1/topics json | {"name":"a","partition":1}
400 POST /api/v1/topics json | {"name":""}
404 GET /api/v2/consumers |
404 GET /../etc/passwd |
"#;

#[tokio::test]
async fn hostile_requests_are_turned_away_and_write_nothing() {
    let bench = bench(None);
    for case in CASES.lines().filter(|line| !line.is_empty()) {
        let (head, body) = case.split_once('|').expect("a bar");
        let mut words = head.splitn(4, ' ');
        let mut word = || words.next().unwrap_or_default();
        let (wanted, method, target) = (word(), word(), word());
        let headers = word().replace("LONG", &"n".repeat(300));
        let headers: Vec<(&str, &str)> = headers
            .split(';')
            .map(str::trim)
            .filter_map(|header| match header {
                "" => None,
                "json" => Some(JSON),
                "lines" => Some(LINES),
                other => other.split_once('='),
            })
            .collect();
        let body = body.trim().replace("HUGE", &"x".repeat(MAX_BODY + 1));
        let response = bench.send(request(method, target, &headers, &body)).await;
        let status = response.status().as_u16().to_string();
        for (name, value) in [
            ("content-security-policy", "default-src 'self'"),
            ("x-content-type-options", "nosniff"),
            ("cache-control", "no-store"),
        ] {
            let given = response.headers().get(name).map(|given| given.as_bytes());
            assert_eq!(given, Some(value.as_bytes()), "{case}");
        }
        let shared = response.headers().keys();
        let shared = shared.filter(|name| name.as_str().starts_with("access-control"));
        assert_eq!(shared.count(), 0, "{case}");
        let text = text(response).await;
        assert_eq!(status, wanted, "{case}: {text}");
        assert!(text.len() < 2_000, "{case}: {text}");
    }
    assert_eq!(bench.written(), 0);
}

#[tokio::test]
async fn without_the_token_nothing_is_changed_or_revealed() {
    let bench = bench(Some("hunter2"));
    for case in [
        "POST /topics/orders json",
        "GET /topics/orders",
        "POST /api/v1/produce json",
        "POST /api/v1/topics json",
        "DELETE /api/v1/topics/orders",
        "GET /api/v1/topics",
        "GET /api/v1/consumers",
        "GET /api/v1/groups/g/positions",
        "GET /api/v1/topics/orders/0/events?from=0&events=1&bytes=1",
        "GET /unknown",
    ] {
        let mut words = case.split(' ');
        let mut word = || words.next().unwrap_or_default();
        let (method, target, kind) = (word(), word(), word());
        for token in ["", "Bearer wrong", "Basic hunter2"] {
            let mut headers = Vec::new();
            if kind == "json" {
                headers.push(JSON);
            }
            if !token.is_empty() {
                headers.push(("authorization", token));
            }
            let response = bench.send(request(method, target, &headers, "v")).await;
            assert_eq!(response.status().as_u16(), 401, "{case} {token}");
            assert!(response.headers().contains_key("www-authenticate"));
        }
    }
    for target in ["/", "/metrics", "/healthz"] {
        assert_eq!(bench.status("GET", target, &[], "").await, 200, "{target}");
    }
    let token = ("authorization", "Bearer hunter2");
    let status = bench
        .status("POST", "/topics/orders", &[JSON, token], "v")
        .await;
    assert_eq!((status, bench.written()), (200, 1));
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
    let server =
        tokio::spawn(async move { serve(listener, None, state, &admin(None), stopped).await });
    let large = format!(
        "GET / HTTP/1.1\r\nhost: localhost\r\na: {}\r\n\r\n",
        "x".repeat(100_000)
    );
    let many = format!(
        "GET / HTTP/1.1\r\nhost: localhost\r\n{}\r\n",
        "a: b\r\n".repeat(200)
    );
    for (head, wanted) in [
        (large.as_str(), "HTTP/1.1 431"),
        (&many, "HTTP/1.1 431"),
        (
            "GET / HTTP/1.1\r\nconnection: close\r\n\r\n",
            "HTTP/1.1 400",
        ),
        ("nonsense\r\n\r\n", "HTTP/1.1 400"),
        (
            "GET / HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n",
            "HTTP/1.1 200",
        ),
    ] {
        let mut stream = tokio::net::TcpStream::connect(address)
            .await
            .expect("connected");
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
