//! Starting an instance.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]

use std::time::Duration;

use millstream::plugin::{CallError, Instance, StartError};
use millstream_sandbox_tests::{Bench, consumer};

async fn start(config: &str) -> StartError {
    let bench = Bench::new().unwrap();
    let mut consumer = consumer("c", config);
    consumer.limits.init = Duration::from_millis(200);
    let plugin = bench.plugin(&consumer).await.unwrap();
    match plugin.instantiate().await {
        Ok(_) => panic!("it started"),
        Err(error) => error,
    }
}

/// A deploy is refused for the first, tried again for the second.
#[tokio::test]
async fn init_says_what_is_wrong() {
    match start(r#"{"init":"misconfigured"}"#).await {
        StartError::Misconfigured(reason) => assert_eq!(reason, "no currency"),
        other => panic!("{other:?}"),
    }
    match start(r#"{"init":"unavailable"}"#).await {
        StartError::Unavailable(reason) => assert_eq!(reason, "rates are loading"),
        other => panic!("{other:?}"),
    }
}

/// `init` is under the same guard as a call.
#[tokio::test]
async fn init_is_guarded() {
    match start(r#"{"init":"trap"}"#).await {
        StartError::Failed(CallError::Trap(text)) => assert!(text.contains("init was told to")),
        other => panic!("{other:?}"),
    }
    match start(r#"{"init":"spin"}"#).await {
        StartError::Failed(CallError::Deadline(limit)) => {
            assert_eq!(limit, Duration::from_millis(200));
        }
        other => panic!("{other:?}"),
    }
    match start(r#"{"init":"hungry"}"#).await {
        StartError::Failed(CallError::Memory(_)) => {}
        other => panic!("{other:?}"),
    }
}

/// As above, for what else `init` can do: sleep in the host, leave, and talk without end.
#[tokio::test]
async fn init_can_neither_sleep_nor_exit_nor_flood() {
    match start(r#"{"init":"sleep"}"#).await {
        StartError::Failed(CallError::Deadline(_)) => {}
        other => panic!("{other:?}"),
    }
    match start(r#"{"init":"exit"}"#).await {
        StartError::Failed(CallError::Trap(text)) => assert!(text.contains("exit(0)"), "{text}"),
        other => panic!("{other:?}"),
    }
    match start(r#"{"init":"verbose"}"#).await {
        StartError::Misconfigured(reason) => assert_eq!(reason.len(), 1_024),
        other => panic!("{other:?}"),
    }
}

/// The pool is finite: one consumer's instances must not take the place of all others' silently.
#[tokio::test]
async fn instances_are_counted() {
    let bench = Bench::with(Default::default(), |runtime| runtime.max_instances = 2).unwrap();
    let plugin = bench.plugin(&consumer("c", "{}")).await.unwrap();
    let first = plugin.instantiate().await.unwrap();
    let _second = plugin.instantiate().await.unwrap();
    let full = plugin.instantiate().await.map(|_| ());
    assert!(matches!(full, Err(StartError::Exhausted(_))), "{full:?}");
    drop(first);
    plugin.instantiate().await.unwrap();
}

/// Slots are used again; one that is lost with each instance would end the runtime in a day.
#[tokio::test]
async fn a_thousand_instances_come_and_go() {
    let bench = Bench::with(Default::default(), |runtime| runtime.max_instances = 4).unwrap();
    let plugin = bench.plugin(&consumer("c", "{}")).await.unwrap();
    for _ in 0..1_000 {
        let instance: Box<dyn Instance> = plugin.instantiate().await.unwrap();
        assert!(instance.alive());
    }
}
