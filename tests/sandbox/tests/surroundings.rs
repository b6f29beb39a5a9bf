//! What a plugin sees of the world, and what the world hears of it.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use millstream::plugin::{CallContext, Instance, PluginHooks};
use millstream_sandbox_tests::{Bench, batch, call, consumer, events, reply};
use parking_lot::Mutex;

async fn instance(bench: &Bench) -> Box<dyn Instance> {
    bench.instance(&consumer("c", "{}")).await.unwrap()
}

async fn answer(bench: &Bench, first: u64, command: &str) -> String {
    let mut instance = instance(bench).await;
    let block = events(first, &[command, "drop", "drop"]);
    let context = CallContext {
        deadline: std::time::Duration::from_secs(60),
    };
    reply(&instance.process(batch(&block), &context).await.unwrap())
}

/// No file, variable, argument, socket or name of the host is in reach.
#[tokio::test]
async fn the_sandbox_is_empty() {
    let bench = Bench::new().unwrap();
    let seen = answer(&bench, 0, "sandbox").await;
    assert_eq!(
        seen,
        "variables=none arguments=none file=none folder=none made=none tcp=none udp=none name=none"
    );
}

/// A replayed batch must give the same result, on a fresh instance too.
#[tokio::test]
async fn randomness_follows_from_the_place() {
    let bench = Bench::new().unwrap();
    let first = answer(&bench, 100, "random").await;
    assert_eq!(answer(&bench, 100, "random").await, first);
    assert_ne!(answer(&bench, 101, "random").await, first);
    let other = bench.instance(&consumer("other", "{}")).await.unwrap();
    let mut other = other;
    let checked = call(&mut *other, &["random", "drop", "drop"])
        .await
        .unwrap();
    assert_ne!(reply(&checked), first);
}

/// The wall clock is the newest timestamp of the batch, whatever the host's says.
#[tokio::test]
async fn the_clock_is_the_batchs() {
    let bench = Bench::new().unwrap();
    assert_eq!(answer(&bench, 0, "clock").await, "1700000002000");
}

#[tokio::test]
async fn properties_tell_who_runs() {
    let bench = Bench::new().unwrap();
    assert_eq!(answer(&bench, 0, "property consumer").await, "c");
    assert_eq!(answer(&bench, 0, "property generation").await, "1");
    assert_eq!(answer(&bench, 0, "property shadow").await, "false");
    assert!(
        answer(&bench, 0, "property plugin.digest")
            .await
            .starts_with("sha256:")
    );
    assert_eq!(answer(&bench, 0, "property extra.1").await, "none");
    let left: u32 = answer(&bench, 0, "time-left").await.parse().unwrap();
    assert!((1..=60_000).contains(&left), "{left}");
}

/// Lines of a log, for a test to read.
#[derive(Clone, Default)]
struct Sink(Arc<Mutex<Vec<u8>>>);

impl io::Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Who debugs a plugin needs consumer and position beside each entry, and the host must not be
/// flooded.
#[tokio::test]
async fn entries_reach_the_log_with_their_place() {
    let sink = Sink::default();
    let writer = sink.clone();
    let subscriber = tracing_subscriber::fmt()
        .json()
        .with_max_level(tracing::Level::INFO)
        .with_writer(move || writer.clone())
        .finish();
    let _guard = tracing::subscriber::set_default(subscriber);
    let dropped = Arc::new(AtomicU64::new(0));
    let counter = Arc::clone(&dropped);
    let hooks = PluginHooks {
        log_entries_dropped: Arc::new(move |consumer, more| {
            assert_eq!(consumer, "c");
            counter.fetch_add(more, Ordering::Relaxed);
        }),
        ..PluginHooks::default()
    };
    let bench = Bench::with(hooks, |_| {}).unwrap();
    let mut instance = instance(&bench).await;
    call(&mut *instance, &["drop", "log look here", "print hello"])
        .await
        .unwrap();
    let log = String::from_utf8(std::mem::take(&mut *sink.0.lock())).unwrap();
    let entry = log.lines().find(|line| line.contains("look here")).unwrap();
    for part in [
        r#""level":"WARN""#,
        r#""consumer":"c""#,
        r#""topic":"orders""#,
        r#""partition":3"#,
        r#""offset":101"#,
        r#"colour=\"blue\""#,
    ] {
        assert!(entry.contains(part), "{part} is missing in {entry}");
    }
    let printed = log.lines().find(|line| line.contains("hello")).unwrap();
    assert!(printed.contains(r#""level":"INFO""#), "{printed}");

    call(&mut *instance, &["huge-log"]).await.unwrap();
    assert_eq!(dropped.swap(0, Ordering::Relaxed), 1);
    assert!(sink.0.lock().len() < 10_000);
    call(&mut *instance, &["many-logs"]).await.unwrap();
    assert!(dropped.load(Ordering::Relaxed) > 0);
}

fn exported(bench: &Bench) -> String {
    let families = bench.host.hooks().custom_metrics.gather();
    prometheus::TextEncoder::new()
        .encode_to_string(&families)
        .unwrap()
}

/// A call that failed comes again: counted each time, the plugin's metrics would be wrong.
#[tokio::test]
async fn metrics_count_once() {
    let bench = Bench::new().unwrap();
    let mut first = instance(&bench).await;
    let mut second = instance(&bench).await;
    call(&mut *first, &["count-metric seen", "count-metric seen"])
        .await
        .unwrap();
    call(&mut *second, &["count-metric seen"]).await.unwrap();
    call(&mut *second, &["count-then-trap seen"])
        .await
        .unwrap_err();
    let text = exported(&bench);
    assert!(
        text.contains("millstream_custom_seen{consumer=\"c\"} 3\n"),
        "{text}"
    );
    let checked = call(&mut *first, &["bad-metric"]).await.unwrap();
    assert_eq!(reply(&checked), "refused");
}
