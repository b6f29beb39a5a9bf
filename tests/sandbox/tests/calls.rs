//! What a plugin does in a call, and what the runtime makes of it.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]

use std::time::Duration;

use millstream::plugin::{CallError, Instance};
use millstream_sandbox_tests::{Bench, call, call_within, consumer, reply};
use millstream_wire as wire;

const SOON: Duration = Duration::from_millis(150);

async fn failure(values: &[&str]) -> (CallError, bool) {
    let bench = Bench::new().unwrap();
    let mut instance = bench.instance(&consumer("c", "{}")).await.unwrap();
    let error = call_within(&mut *instance, values, Duration::from_secs(20))
        .await
        .expect_err("the call must fail");
    (error, instance.alive())
}

#[track_caller]
fn assert_trap(failure: (CallError, bool), words: &str) {
    match failure {
        (CallError::Trap(text), false) => assert!(text.contains(words), "{text}"),
        other => panic!("{other:?}"),
    }
}

/// What is forwarded must name its source and inherit everything.
#[tokio::test]
async fn events_pass_through() {
    let bench = Bench::new().unwrap();
    let mut instance = bench.instance(&consumer("c", "{}")).await.unwrap();
    let checked = call(&mut *instance, &["echo", "drop", "echo"])
        .await
        .unwrap();
    let outcome = checked.outcome();
    assert_eq!(outcome.handled, 3);
    let sources: Vec<u32> = outcome.outputs.iter().map(|output| output.source).collect();
    assert_eq!(sources, [0, 2]);
    assert!(outcome.outputs.iter().all(|output| output.edit == 0));
}

/// Every remedy must arrive as it was given: the lane acts on it.
#[tokio::test]
async fn remedies_arrive() {
    let bench = Bench::new().unwrap();
    let mut instance = bench.instance(&consumer("c", "{}")).await.unwrap();
    for (command, remedy, handled) in [
        ("reject", wire::REMEDY_REJECT, 1),
        ("retry", wire::REMEDY_RETRY, 1),
        ("unavailable", wire::REMEDY_UNAVAILABLE, 0),
        ("halt", wire::REMEDY_HALT, 0),
    ] {
        let checked = call(&mut *instance, &[command]).await.unwrap();
        let outcome = checked.outcome();
        assert_eq!(outcome.handled, handled, "{command}");
        let failure = outcome.failures[0];
        assert_eq!(failure.remedy, remedy);
        assert_eq!(failure.code.of(&outcome.data), Some(&b"told-to"[..]));
    }
}

/// "unreachable executed" alone would tell nobody what to mend.
#[tokio::test]
async fn a_trap_says_what_the_plugin_said_last() {
    assert_trap(failure(&["echo", "trap"]).await, "unreachable");
    assert_trap(failure(&["panic"]).await, "boom (");
    assert_trap(failure(&["logged-trap"]).await, "price is negative");
    assert_trap(failure(&["exit"]).await, "exit(");
}

/// A plugin that spins, or sleeps in the host, must not hold its lane for longer than the deadline.
#[tokio::test]
async fn spinning_and_sleeping_end_at_the_deadline() {
    let bench = Bench::new().unwrap();
    let plugin = bench.plugin(&consumer("c", "{}")).await.unwrap();
    for command in ["spin", "sleep"] {
        let mut instance = plugin.instantiate().await.unwrap();
        let error = call_within(&mut *instance, &[command], SOON)
            .await
            .unwrap_err();
        assert_eq!(error, CallError::Deadline(SOON), "{command}");
        assert!(!instance.alive());
    }
}

/// With a paused clock (a simulation) time stands still while the guest spins; it ends all the same.
#[tokio::test(start_paused = true)]
async fn spinning_ends_under_a_paused_clock() {
    let bench = Bench::new().unwrap();
    let mut instance = bench.instance(&consumer("c", "{}")).await.unwrap();
    let error = call_within(&mut *instance, &["spin"], SOON)
        .await
        .unwrap_err();
    assert_eq!(error, CallError::Deadline(SOON));
}

/// Out of memory is its own reason: its remedy is another limit, not another plugin.
#[tokio::test]
async fn a_hungry_plugin_fails_by_its_memory() {
    let (error, alive) = failure(&["alloc"]).await;
    assert!(!alive);
    match error {
        CallError::Memory(text) => assert!(text.contains("limits.memory allows 32 MiB"), "{text}"),
        other => panic!("{other:?}"),
    }
}

/// Linear memory never shrinks: an instance that grew is recycled by what this says.
#[tokio::test]
async fn growth_is_seen() {
    let bench = Bench::new().unwrap();
    let mut instance = bench.instance(&consumer("c", "{}")).await.unwrap();
    let before = instance.memory_bytes();
    call(&mut *instance, &["hold 8"]).await.unwrap();
    assert!(instance.memory_bytes() >= before + (8 << 20));
    assert!(instance.memory_bytes() <= 32 << 20);
}

/// All instances together have a limit too, and one that ends makes room.
#[tokio::test]
async fn plugins_share_the_memory_of_the_process() {
    let bench = Bench::with(Default::default(), |runtime| {
        runtime.plugin_memory = 40 << 20
    })
    .unwrap();
    let plugin = bench.plugin(&consumer("c", "{}")).await.unwrap();
    let mut first = plugin.instantiate().await.unwrap();
    let mut second = plugin.instantiate().await.unwrap();
    call(&mut *first, &["hold 20"]).await.unwrap();
    let error = call(&mut *second, &["hold 20"]).await.unwrap_err();
    assert!(error.to_string().contains("plugin_memory"), "{error}");
    drop((first, second));
    let mut third = plugin.instantiate().await.unwrap();
    call(&mut *third, &["hold 20"]).await.unwrap();
}

/// An answer that is out of all proportion must not be copied into the host.
#[tokio::test]
async fn a_huge_answer_is_invalid() {
    let mut generous = consumer("c", "{}");
    generous.limits.memory = 256 << 20;
    generous.limits.outputs = 10;
    let bench = Bench::new().unwrap();
    let mut instance = bench.instance(&generous).await.unwrap();
    let error = call(&mut *instance, &["huge-answer 60"]).await.unwrap_err();
    assert!(matches!(error, CallError::Invalid(_)), "{error:?}");
    assert!(!instance.alive());
}

/// The failure of one instance is nobody else's: not of its siblings, not of the plugin.
#[tokio::test]
async fn neighbours_are_untouched() {
    let bench = Bench::new().unwrap();
    let plugin = bench.plugin(&consumer("c", "{}")).await.unwrap();
    let mut neighbour = plugin.instantiate().await.unwrap();
    assert_eq!(
        reply(&call(&mut *neighbour, &["calls"]).await.unwrap()),
        "1"
    );
    for command in ["trap", "panic", "alloc", "exit"] {
        let mut culprit = plugin.instantiate().await.unwrap();
        call(&mut *culprit, &[command]).await.unwrap_err();
        let again = call(&mut *culprit, &["echo"]).await;
        assert!(
            matches!(again, Err(CallError::Trap(_))),
            "a dead instance answered"
        );
    }
    assert_eq!(
        reply(&call(&mut *neighbour, &["calls"]).await.unwrap()),
        "2"
    );
    let mut fresh = plugin.instantiate().await.unwrap();
    assert_eq!(reply(&call(&mut *fresh, &["calls"]).await.unwrap()), "1");
}

/// Guests yield: on a single thread two that spin would otherwise shut out all others.
#[tokio::test]
async fn two_that_spin_let_a_third_work() {
    let bench = Bench::new().unwrap();
    let plugin = bench.plugin(&consumer("c", "{}")).await.unwrap();
    let spin = |mut instance: Box<dyn Instance>| async move {
        call_within(&mut *instance, &["spin"], Duration::from_secs(5)).await
    };
    let first = tokio::spawn(spin(plugin.instantiate().await.unwrap()));
    let second = tokio::spawn(spin(plugin.instantiate().await.unwrap()));
    let mut third = plugin.instantiate().await.unwrap();
    for calls in 1..=20 {
        let checked = call(&mut *third, &["calls"]).await.unwrap();
        assert_eq!(reply(&checked), calls.to_string());
        tokio::task::yield_now().await;
    }
    assert!(!first.is_finished() && !second.is_finished());
    assert!(matches!(first.await.unwrap(), Err(CallError::Deadline(_))));
    assert!(matches!(second.await.unwrap(), Err(CallError::Deadline(_))));
}

/// What goes well for long may still fail: the instance ends then, and a fresh one goes on.
#[tokio::test]
async fn a_trap_at_the_thousandth_event_costs_one_instance() {
    let bench = Bench::new().unwrap();
    let plugin = bench.plugin(&consumer("c", "{}")).await.unwrap();
    let mut instance = plugin.instantiate().await.unwrap();
    for _ in 1..1_000 {
        call(&mut *instance, &["trap-at 1000"]).await.unwrap();
    }
    let error = call(&mut *instance, &["trap-at 1000"]).await.unwrap_err();
    assert!(matches!(error, CallError::Trap(_)), "{error}");
    assert!(!instance.alive());
    let mut fresh = plugin.instantiate().await.unwrap();
    call(&mut *fresh, &["trap-at 1000"]).await.unwrap();
}

/// A future that is dropped leaves the guest in the middle of a call: it must not be entered again.
#[tokio::test]
async fn an_abandoned_call_ends_the_instance() {
    let bench = Bench::new().unwrap();
    let mut instance = bench.instance(&consumer("c", "{}")).await.unwrap();
    let abandoned = tokio::time::timeout(SOON, call(&mut *instance, &["sleep"])).await;
    assert!(abandoned.is_err());
    assert!(!instance.alive());
    call(&mut *instance, &["echo"]).await.unwrap_err();
}
