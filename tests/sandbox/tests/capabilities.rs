//! What a plugin reaches with what it is granted, and that it reaches no more.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use millstream::config::{self, Capabilities, Destination, SecretSource};
use millstream::event::{BlockBuilder, NewEvent, TopicPartition};
use millstream::plugin::{
    CallContext, CallError, HttpResult, Instance, LoadError, PluginHooks, StartError,
};
use millstream_sandbox_tests::{Bench, batch, call, call_within, consumer, reply};
use millstream_test_support::origin::Origin;
use millstream_test_support::{plugins, ports};
use millstream_wire::{Checked, Remedy};
use parking_lot::Mutex;
use tokio::time::Instant;

fn http(hosts: &[&str]) -> Capabilities {
    let parsed = hosts.iter().map(|host| Destination::parse(host).unwrap());
    Capabilities {
        http: parsed.collect(),
        secrets: true,
        ..Capabilities::default()
    }
}

/// A consumer that runs the plugin `capable`.
fn granted(capabilities: Capabilities) -> config::Consumer {
    let mut consumer = consumer("c", "{}");
    consumer.plugin.path = plugins::component("capable").unwrap();
    consumer.capabilities = capabilities;
    consumer
}

async fn instance(bench: &Bench, capabilities: Capabilities) -> Box<dyn Instance> {
    bench.instance(&granted(capabilities)).await.unwrap()
}

async fn told(instance: &mut dyn Instance, command: &str) -> String {
    reply(&call(instance, &[command]).await.unwrap())
}

/// Remedy, code and reason of the only failure.
fn failure(checked: &Checked) -> (Remedy, String, String) {
    let failure = checked.failure(0).expect("the event did not fail");
    (
        failure.remedy(),
        failure.code().to_owned(),
        failure.reason().to_owned(),
    )
}

#[tokio::test]
async fn what_is_not_granted_is_refused_with_the_line_that_grants_it() {
    let bench = Bench::new().unwrap();
    let refusal = async |capabilities| {
        let error = bench.host.load(&granted(capabilities), 1).await.err();
        error.expect("it was loaded")
    };
    let error = refusal(Capabilities::default()).await;
    assert!(matches!(error, LoadError::NotGranted { .. }), "{error}");
    for interface in [
        "millstream:plugin/http@0.1.0",
        "millstream:plugin/secrets@0.1.0",
    ] {
        assert!(error.to_string().contains(interface), "{error}");
    }
    let line = r#"`capabilities = { http = ["api.example.com:443"], secrets = true }`"#;
    assert!(error.remedy().contains(line), "{}", error.remedy());

    let without_secrets = Capabilities {
        secrets: false,
        clock: true,
        ..http(&["a.test"])
    };
    let error = refusal(without_secrets).await;
    let line = r#"`capabilities = { http = ["a.test"], clock = true, secrets = true }`"#;
    assert!(error.remedy().contains(line), "{}", error.remedy());

    bench
        .host
        .load(&granted(http(&["a.test"])), 1)
        .await
        .unwrap();
    let mut generous = consumer("generous", "{}");
    generous.capabilities = http(&["a.test"]);
    bench.host.load(&generous, 1).await.unwrap();
}

#[tokio::test]
async fn only_listed_hosts_are_reached() {
    let origin = Origin::start().unwrap();
    let other = Origin::start().unwrap();
    let bench = Bench::new().unwrap();
    let mut instance = instance(&bench, http(&[&origin.address()])).await;
    let seen = told(&mut *instance, &format!("get {}", origin.url("/echo"))).await;
    assert!(seen.starts_with("200 GET /echo HTTP/1.1"), "{seen}");
    for url in [
        other.url("/echo"),
        format!("http://localhost:{}/echo", origin.port()),
        format!("https://127.0.0.1:{}/echo", other.port()),
        "http://169.254.169.254/latest/meta-data".to_owned(),
    ] {
        let seen = told(&mut *instance, &format!("get {url}")).await;
        assert!(seen.starts_with("Denied("), "{url}: {seen}");
        assert!(seen.contains("capabilities = { http = ["), "{seen}");
    }
    assert_eq!((origin.requests(), other.connections()), (1, 0));
}

/// What a name means is in the hands of who owns the name.
#[tokio::test]
async fn a_name_is_no_way_to_a_private_address() {
    let origin = Origin::start().unwrap();
    let bench = Bench::new().unwrap();
    let name = format!("localhost:{}", origin.port());
    let command = format!("get http://{name}/echo");
    let mut named = instance(&bench, http(&[&name])).await;
    let seen = told(&mut *named, &command).await;
    assert!(seen.starts_with("Denied("), "{seen}");
    assert!(
        !seen.contains("127.0.0.1"),
        "the plugin need not know: {seen}"
    );
    assert_eq!(origin.connections(), 0);

    for listed in [origin.address(), "127.0.0.1".to_owned()] {
        let mut both = instance(&bench, http(&[&name, &listed])).await;
        let seen = told(&mut *both, &command).await;
        assert!(seen.starts_with("200 "), "{listed}: {seen}");
        assert!(seen.contains(&format!("host: {name}")), "{seen}");
    }
}

#[tokio::test]
async fn redirects_are_answers() {
    let origin = Origin::start().unwrap();
    let bench = Bench::new().unwrap();
    let mut instance = instance(&bench, http(&[&origin.address()])).await;
    let url = origin.url("/redirect");
    assert_eq!(told(&mut *instance, &format!("get {url}")).await, "302 ");
    assert_eq!(origin.requests(), 1);
    let checked = call(&mut *instance, &[&format!("fetch {url}")])
        .await
        .unwrap();
    let (remedy, code, reason) = failure(&checked);
    assert_eq!((remedy, &*code), (Remedy::Halt, "http-302"));
    assert!(reason.contains("/echo"), "{reason}");
}

/// An answer is held by the host until the plugin takes it.
#[tokio::test]
async fn a_giant_answer_is_cut_off() {
    let origin = Origin::start().unwrap();
    let bench = Bench::new().unwrap();
    let mut instance = instance(&bench, http(&[&origin.address()])).await;
    for kind in ["giant", "stream"] {
        let mut seen = async |bytes: usize| {
            let url = origin.url(&format!("/{kind}/{bytes}"));
            told(&mut *instance, &format!("get {url}")).await
        };
        assert_eq!(seen(1 << 20).await, "200 1048576 bytes");
        assert_eq!(seen((1 << 20) + 1).await, "TooLarge");
        assert_eq!(seen(1 << 30).await, "TooLarge");
    }
    // 16 MiB in all: what is over that is too large, whichever comes last.
    let many = told(
        &mut *instance,
        &format!("get-many 20 {}?", origin.url("/giant/1040000")),
    )
    .await;
    let answered = many.lines().filter(|line| line.starts_with("200 ")).count();
    let refused = many.lines().filter(|line| *line == "TooLarge").count();
    assert_eq!((answered, refused), (16, 4), "{many}");
}

#[tokio::test]
async fn the_connection_is_the_runtimes() {
    let origin = Origin::start().unwrap();
    let bench = Bench::new().unwrap();
    let mut instance = instance(&bench, http(&[&origin.address()])).await;
    let url = origin.url("/echo");
    let name = "x".repeat(100);
    for wrong in [
        r#""headers": [["Host", "other.test"]]"#.to_owned(),
        r#""headers": [["transfer-encoding", "chunked"]]"#.to_owned(),
        r#""headers": [["Content-Length", "0"]]"#.to_owned(),
        r#""headers": [["connection", "upgrade"]]"#.to_owned(),
        r#""headers": [["traceparent", "00-1-1-01"]]"#.to_owned(),
        r#""headers": [["a", "b\r\nhost: other.test"]]"#.to_owned(),
        r#""headers": [["a b", "c"]]"#.to_owned(),
        format!(r#""headers": [["{name}", "{}"]]"#, "y".repeat(65 << 10)),
        r#""method": "CONNECT""#.to_owned(),
        r#""method": "GET /other HTTP/1.1\r\n\r\n""#.to_owned(),
        r#""body": 1048577"#.to_owned(),
    ] {
        let command = format!(r#"request {{ "url": "{url}", {wrong} }}"#);
        let seen = told(&mut *instance, &command).await;
        assert!(seen.starts_with("Invalid("), "{wrong}: {seen}");
    }
    assert_eq!(origin.connections(), 0);
    let command = format!(
        r#"request {{ "url": "{url}", "method": "POST", "body": 1048576, "headers": [["X-A", "b"]] }}"#
    );
    let seen = told(&mut *instance, &command).await;
    for part in ["200 POST /echo", "x-a: b", "body: 1048576"] {
        assert!(seen.contains(part), "{part}: {seen}");
    }
    assert!(!seen.contains("user-agent"), "{seen}");
}

/// A time-out leaves the plugin enough time to say what it means; without that every slow answer
/// would look like a plugin that hangs, and end as a dead letter.
#[tokio::test]
async fn a_slow_answer_ends_before_the_call() {
    let origin = Origin::start().unwrap();
    let bench = Bench::new().unwrap();
    let mut instance = instance(&bench, http(&[&origin.address()])).await;
    let url = origin.url("/slow/60000");
    let begun = Instant::now();
    let time = Duration::from_secs(3);
    let checked = call_within(&mut *instance, &[&format!("get {url}")], time).await;
    assert_eq!(reply(&checked.unwrap()), "TimedOut");
    assert!(begun.elapsed() < time, "{:?}", begun.elapsed());
    let checked = call_within(&mut *instance, &[&format!("fetch {url}")], time).await;
    let (remedy, code, _) = failure(&checked.unwrap());
    assert_eq!((remedy, &*code), (Remedy::Unavailable, "http-timed-out"));

    let begun = Instant::now();
    let command = format!(r#"request {{ "url": "{url}", "timeout_ms": 100 }}"#);
    assert_eq!(told(&mut *instance, &command).await, "TimedOut");
    assert!(begun.elapsed() < time * 3);
    assert!(instance.alive());

    let command = format!("get-then-spin {}", origin.url("/slow/300"));
    let error = call_within(&mut *instance, &[&command], time).await;
    assert_eq!(error.unwrap_err(), CallError::Deadline(time));
}

/// On one thread: a request that waits must leave it to others.
#[tokio::test(flavor = "current_thread")]
async fn who_waits_holds_nobody_up() {
    let origin = Origin::start().unwrap();
    let bench = Bench::new().unwrap();
    let mut waiting = instance(&bench, http(&[&origin.address()])).await;
    let mut other = instance(&bench, http(&[&origin.address()])).await;
    let slow = format!("get {}", origin.url("/slow/2000"));
    let finished = Mutex::new(Vec::new());
    let first = async {
        let answer = told(&mut *waiting, &slow).await;
        finished.lock().push(answer);
    };
    let second = async {
        let answer = told(&mut *other, "hello").await;
        finished.lock().push(answer);
    };
    tokio::join!(first, second);
    assert_eq!(*finished.lock(), ["hello", "200 late"]);
}

#[tokio::test]
async fn sixteen_take_the_time_of_the_slowest() {
    let origin = Origin::start().unwrap();
    let bench = Bench::new().unwrap();
    let mut instance = instance(&bench, http(&[&origin.address()])).await;
    let each = Duration::from_secs(1);
    let begun = Instant::now();
    let many = told(
        &mut *instance,
        &format!("get-many 16 {}?", origin.url("/slow/1000")),
    )
    .await;
    let took = begun.elapsed();
    assert_eq!(many.lines().filter(|line| *line == "200 late").count(), 16);
    // The sum would be sixteen times as long.
    assert!(took >= each && took < each * 8, "{took:?}");
    assert_eq!(origin.most_at_once(), 16);

    let many = told(
        &mut *instance,
        &format!("get-many 40 {}?", origin.url("/slow/50")),
    )
    .await;
    assert_eq!(many.lines().filter(|line| *line == "200 late").count(), 40);
    assert_eq!(origin.most_at_once(), 16);

    let many = told(
        &mut *instance,
        &format!("get-many 300 {}?", origin.url("/status/204")),
    )
    .await;
    let invalid = many
        .lines()
        .filter(|line| line.starts_with("Invalid("))
        .count();
    assert_eq!((many.lines().count(), invalid), (300, 300 - 256));
    // In order: the first ones were sent.
    assert!(many.lines().take(256).all(|line| line == "204 "), "{many}");
}

/// A handshake for each request would cost more than most requests.
#[tokio::test]
async fn instances_share_their_connections() {
    let origin = Origin::start().unwrap();
    let bench = Bench::new().unwrap();
    let plugin = bench
        .plugin(&granted(http(&[&origin.address()])))
        .await
        .unwrap();
    let command = format!("get {}", origin.url("/echo"));
    for _ in 0..3 {
        let mut instance = plugin.instantiate().await.unwrap();
        assert!(told(&mut *instance, &command).await.starts_with("200 "));
        assert!(told(&mut *instance, &command).await.starts_with("200 "));
    }
    assert_eq!((origin.requests(), origin.connections()), (6, 1));
}

#[tokio::test]
async fn a_broken_connection_is_no_fault_of_the_event() {
    let origin = Origin::start().unwrap();
    let nobody = format!("127.0.0.1:{}", ports::free_port().unwrap());
    let bench = Bench::new().unwrap();
    let mut instance = instance(&bench, http(&[&origin.address(), &nobody])).await;
    for url in [
        format!("http://{nobody}/?key=hunter2"),
        origin.url("/hang-up"),
    ] {
        let seen = told(&mut *instance, &format!("get {url}")).await;
        assert!(seen.starts_with("Unreachable("), "{url}: {seen}");
        assert!(!seen.contains("hunter2"), "{seen}");
        let checked = call(&mut *instance, &[&format!("fetch {url}")])
            .await
            .unwrap();
        assert_eq!(failure(&checked).0, Remedy::Unavailable);
    }
}

#[tokio::test]
async fn a_request_goes_with_the_trace_of_its_event() {
    let origin = Origin::start().unwrap();
    let bench = Bench::new().unwrap();
    let mut instance = instance(&bench, http(&[&origin.address()])).await;
    let parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let command = format!("get {}", origin.url("/echo"));
    let mut block = BlockBuilder::new(TopicPartition::new("orders", 0), 2, 256);
    for traced in [true, false] {
        block.push(NewEvent {
            offset: u64::from(!traced),
            timestamp_ms: 0,
            timestamp_of_broker: false,
            key: None,
            value: Some(command.as_bytes()),
        });
        let value = if traced { parent } else { "00-made-up-\r\n" };
        block.push_header(b"traceparent", Some(value.as_bytes()));
        block.push_header(b"tracestate", Some(b"a=1"));
        block.push_header(b"baggage", Some(b"user=42"));
    }
    let block = block.build();
    let context = CallContext {
        deadline: Duration::from_secs(60),
    };
    let checked = instance.process(batch(&block), &context).await.unwrap();
    let outcome = checked.outcome();
    let values = outcome
        .outputs
        .iter()
        .map(|output| output.value.of(&outcome.data));
    let seen: Vec<_> = values
        .map(|value| String::from_utf8_lossy(value.unwrap()))
        .collect();
    assert!(
        seen[0].contains(&format!("traceparent: {parent}\n")),
        "{}",
        seen[0]
    );
    assert!(seen[0].contains("tracestate: a=1\n"), "{}", seen[0]);
    assert!(!seen[1].contains("traceparent"), "{}", seen[1]);
    assert!(!seen.concat().contains("baggage"));
}

#[tokio::test]
async fn requests_are_counted_by_how_they_end() {
    let origin = Origin::start().unwrap();
    let counted: Arc<Mutex<BTreeMap<&str, usize>>> = Arc::default();
    let counter = Arc::clone(&counted);
    let hooks = PluginHooks {
        http_request: Arc::new(move |consumer, result: HttpResult| {
            assert_eq!(consumer, "c");
            *counter.lock().entry(result.as_str()).or_default() += 1;
        }),
        ..PluginHooks::default()
    };
    let bench = Bench::with(hooks, |_| {}).unwrap();
    let mut instance = instance(&bench, http(&[&origin.address()])).await;
    for command in [
        format!("get {}", origin.url("/status/503")),
        format!("get {}", origin.url("/hang-up")),
        format!("get {}", origin.url("/giant/2000000")),
        format!(
            r#"request {{ "url": "{}", "timeout_ms": 50 }}"#,
            origin.url("/slow/60000")
        ),
        "get http://other.test/".to_owned(),
        "get nonsense".to_owned(),
    ] {
        told(&mut *instance, &command).await;
    }
    let once = [
        "answered",
        "denied",
        "invalid",
        "timed_out",
        "too_large",
        "unreachable",
    ];
    assert_eq!(*counted.lock(), once.map(|result| (result, 1)).into());
}

#[tokio::test]
async fn only_named_variables_are_seen() {
    let bench = Bench::new().unwrap();
    let mut without = instance(&bench, http(&["a.test"])).await;
    assert_eq!(told(&mut *without, "variables").await, "");
    let mut with = instance(
        &bench,
        Capabilities {
            env: vec!["CARGO_PKG_NAME".into(), "MILLSTREAM_IS_NOT_SET".into()],
            ..http(&["a.test"])
        },
    )
    .await;
    let seen = told(&mut *with, "variables").await;
    assert_eq!(seen, "CARGO_PKG_NAME=millstream-sandbox-tests");
}

#[tokio::test]
async fn a_secret_is_read_at_each_call() {
    let bench = Bench::new().unwrap();
    let path = bench.folder.path().join("api-key");
    let mut settings = granted(http(&["a.test"]));
    let file = SecretSource::File(path.clone());
    let variable = SecretSource::Environment("CARGO_PKG_NAME".into());
    settings.secrets = BTreeMap::from([("api_key".into(), file), ("other".into(), variable)]);
    std::fs::write(&path, "first\n").unwrap();
    let mut instance = bench.instance(&settings).await.unwrap();
    assert_eq!(told(&mut *instance, "secret api_key").await, "first");
    assert_eq!(
        told(&mut *instance, "secret other").await,
        "millstream-sandbox-tests"
    );
    std::fs::write(&path, "other\n").unwrap();
    assert_eq!(told(&mut *instance, "secret api_key").await, "other");

    // Not there for a moment: the event waits. Not named at all: somebody must mend it.
    std::fs::remove_file(&path).unwrap();
    let checked = call(&mut *instance, &["secret api_key"]).await.unwrap();
    assert_eq!(failure(&checked).0, Remedy::Unavailable);
    let checked = call(&mut *instance, &["secret none"]).await.unwrap();
    let (remedy, code, reason) = failure(&checked);
    assert_eq!((remedy, &*code), (Remedy::Halt, "no-secret"));
    assert!(reason.contains("secrets = { none ="), "{reason}");
    assert!(instance.alive());

    settings.config = r#"{"init":"secret none"}"#.into();
    let error = bench.instance(&settings).await.err().unwrap();
    let error = error.downcast::<StartError>().unwrap();
    assert!(matches!(error, StartError::Misconfigured(_)), "{error}");
}

/// One that blocks its reader for ever must end with the call, as any wait does.
#[tokio::test]
async fn a_secret_that_is_no_file_holds_nobody() {
    let bench = Bench::new().unwrap();
    let mut settings = granted(http(&["a.test"]));
    let file = SecretSource::File(bench.folder.path().to_owned());
    settings.secrets = BTreeMap::from([("key".into(), file)]);
    let mut instance = bench.instance(&settings).await.unwrap();
    let checked = call(&mut *instance, &["secret key"]).await.unwrap();
    assert_eq!(failure(&checked).0, Remedy::Unavailable);
}

/// The answers to the same events, each time from a host and an instance of its own.
async fn wandered(capabilities: Capabilities) -> Vec<u8> {
    let bench = Bench::new().unwrap();
    let mut instance = instance(&bench, capabilities).await;
    let mut seen = Vec::new();
    for _ in 0..3 {
        let checked = call(&mut *instance, &["wander", "wander"]).await.unwrap();
        seen.extend_from_slice(&checked.outcome().data);
    }
    seen
}

/// The order of a hash map, random numbers and the time, from Rust's own library.
#[tokio::test]
async fn a_plugin_is_reproducible_unless_it_asks_not_to_be() {
    let first = wandered(http(&["a.test"])).await;
    assert!(first.len() > 200);
    assert_eq!(wandered(http(&["a.test"])).await, first);
    for (clock, random) in [(true, false), (false, true)] {
        let real = || Capabilities {
            clock,
            random,
            ..http(&["a.test"])
        };
        let one = wandered(real()).await;
        assert_ne!(one, first, "clock = {clock}, random = {random}");
        assert_ne!(
            wandered(real()).await,
            one,
            "clock = {clock}, random = {random}"
        );
    }
}
