//! `Idempotency-Key`: what a caller may send twice, and what the command line sends twice.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use super::*;
use crate::broker::remote::Remote;
use crate::records::{NewRecord, Records};

const KEY: (&str, &str) = ("idempotency-key", "a");

#[tokio::test]
async fn the_same_request_gets_the_same_answer_and_is_written_once() {
    let bench = bench(None);
    let lines = "{\"value\":\"1\"}\n{\"value\":\"2\",\"partition\":2}\n";
    for (target, kind, body, key) in [
        ("/topics/orders", JSON, "v", "single"),
        ("/topics/orders", LINES, lines, "lines"),
        ("/topics/orders", LINES, "", "nothing"),
    ] {
        let headers = [kind, ("idempotency-key", key)];
        let before = bench.written();
        let first = bench.json("POST", target, &headers, body).await;
        let written = bench.written();
        let second = bench.json("POST", target, &headers, body).await;
        assert_eq!((first.0, &first), (200, &second));
        assert_eq!(bench.written(), written);
        assert_eq!(
            written - before,
            if kind == LINES {
                body.lines().count()
            } else {
                1
            }
        );
    }
    // Without a key each is an event of its own.
    for _ in 0..2 {
        assert_eq!(
            bench.status("POST", "/topics/orders", &[JSON], "v").await,
            200
        );
    }
    assert_eq!(bench.written(), 5);
}

#[tokio::test]
async fn another_request_under_the_same_key_is_refused() {
    let bench = bench(None);
    let first = bench
        .status("POST", "/topics/orders", &[JSON, KEY], "v")
        .await;
    assert_eq!(first, 200);
    let header = ("x-event-region", "eu");
    for (target, headers, body) in [
        ("/topics/orders", &[JSON, KEY][..], "w"),
        ("/topics/other", &[JSON, KEY], "v"),
        ("/topics/orders?key=k", &[JSON, KEY], "v"),
        ("/topics/orders?partition=1", &[JSON, KEY], "v"),
        ("/topics/orders", &[JSON, KEY, header], "v"),
        (
            "/topics/orders",
            &[LINES, KEY],
            "{\"value\":\"v\",\"key\":\"k\"}",
        ),
        ("/topics/orders", &[LINES, KEY], ""),
        (
            "/api/v1/produce",
            &[LINES, KEY],
            "{\"topic\":\"orders\",\"value\":\"w\"}",
        ),
    ] {
        let status = bench.status("POST", target, headers, body).await;
        assert_eq!(status, 422, "{target} {body}");
    }
    assert_eq!(bench.written(), 1);
}

/// What was refused may be sent again, corrected, under the key that it had.
#[tokio::test]
async fn a_refused_request_leaves_its_key_free() {
    let bench = bench(None);
    let large = "x".repeat(101);
    let refused = bench
        .status("POST", "/topics/small", &[JSON, KEY], &large)
        .await;
    assert_eq!(refused, 413);
    let lines = "{\"value\":\"a\"}\nnonsense\n";
    let refused = bench
        .status("POST", "/topics/orders", &[LINES, KEY], lines)
        .await;
    assert_eq!((refused, bench.written()), (400, 0));
    let taken = bench
        .status("POST", "/topics/orders", &[JSON, KEY], "v")
        .await;
    assert_eq!((taken, bench.written()), (200, 1));
}

/// Carries connections to `to`, and hangs up on the first `lost` answers.
async fn lossy(to: SocketAddr, lost: usize) -> (String, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address").to_string();
    let connections = Arc::new(AtomicUsize::new(0));
    let counted = connections.clone();
    tokio::spawn(async move {
        while let Ok((mut caller, _)) = listener.accept().await {
            let lose = counted.fetch_add(1, Relaxed) < lost;
            let mut runtime = TcpStream::connect(to).await.expect("the runtime");
            tokio::spawn(async move {
                if !lose {
                    let _ = tokio::io::copy_bidirectional(&mut caller, &mut runtime).await;
                    return;
                }
                let (mut from, mut request) = (vec![0; 1 << 16], Vec::new());
                while !request.ends_with(b"}\n") {
                    let read = caller.read(&mut from).await.expect("a request");
                    runtime.write_all(&from[..read]).await.expect("sent on");
                    request.extend_from_slice(&from[..read]);
                }
                // It was written and answered; the caller never hears of it.
                let answered = runtime.read(&mut from).await.expect("an answer");
                assert!(from[..answered].starts_with(b"HTTP/1.1 200"));
            });
        }
    });
    (address, connections)
}

fn one_event() -> Records {
    let mut records = Records::new();
    let value = Some(&b"v"[..]);
    records.push(
        &"orders".into(),
        NewRecord {
            value,
            ..NewRecord::default()
        },
    );
    records
}

/// `millstream produce` must not double events when the connection breaks at the wrong moment.
#[tokio::test]
async fn an_answer_that_is_lost_doubles_nothing() {
    let bench = bench(None);
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let stop = CancellationToken::new();
    let (state, stopped) = (bench.state.clone(), stop.clone());
    let server =
        tokio::spawn(async move { serve(listener, None, state, &admin(None), stopped).await });
    let (proxy, connections) = lossy(address, 2).await;
    let remote = Remote::new(&proxy, None);
    let places = remote.produce(one_event()).await.expect("written");
    assert_eq!((places.len(), connections.load(Relaxed)), (1, 3));
    assert_eq!(bench.written(), 1);
    // The next batch has a key of its own.
    remote.produce(one_event()).await.expect("written");
    assert_eq!(bench.written(), 2);
    stop.cancel();
    server.await.expect("the server ends");
}

/// A runtime that takes no more is asked again in its own time; what is refused for good is not.
#[tokio::test(start_paused = true)]
async fn only_what_may_pass_later_is_sent_again() {
    for (error, requests) in [
        (BrokerError::Unreachable("starting".into()), 8),
        (BrokerError::DiskFull("0 left".into()), 1),
        (BrokerError::Refused("no".into()), 1),
        (
            BrokerError::Overloaded {
                reason: "full".into(),
                retry_after: Duration::from_secs(3600),
            },
            1,
        ),
    ] {
        let bench = bench(None);
        bench.topics.fail(error.clone());
        let asked = Arc::new(AtomicUsize::new(0));
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address").to_string();
        let count = asked.clone();
        let router = bench.router.clone().layer(axum::middleware::from_fn(
            move |request: axum::extract::Request, next: axum::middleware::Next| {
                count.fetch_add(1, Relaxed);
                next.run(request)
            },
        ));
        let server = tokio::spawn(async move { axum::serve(listener, router).await });
        let failed = Remote::new(&address, None).produce(one_event()).await;
        let text = failed.expect_err("an error").to_string();
        assert_eq!(asked.load(Relaxed), requests, "{text}");
        assert!(text.contains(&error.to_string()), "{text}");
        let unknown = text.contains("attempt 8, the last") && text.contains("not known");
        assert_eq!(unknown, requests > 1, "{text}");
        server.abort();
    }
}
