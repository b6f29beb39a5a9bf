//! Plugins that no compiler would make: what they do when they are called.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]

use std::time::Duration;

use millstream::plugin::{CallError, LoadError, StartError};
use millstream_sandbox_tests::handmade::Core;
use millstream_sandbox_tests::{Bench, call, call_within};
use millstream_wire::Checked;

const SOON: Duration = Duration::from_millis(150);

/// The result of one call, and what its memory has grown to.
async fn called(core: Core) -> (Result<Checked, CallError>, u64) {
    called_within(core, Duration::from_secs(20)).await
}

async fn called_within(core: Core, deadline: Duration) -> (Result<Checked, CallError>, u64) {
    let bench = Bench::new().unwrap();
    let component = core.component().unwrap();
    let consumer = bench.made("called", &component).unwrap();
    let mut instance = bench.instance(&consumer).await.unwrap();
    let ended = call_within(&mut *instance, &["a", "b"], deadline).await;
    assert_eq!(instance.alive(), ended.is_ok());
    (ended, instance.memory_bytes())
}

#[track_caller]
fn assert_trap((ended, _): (Result<Checked, CallError>, u64), words: &str) {
    match ended {
        Err(CallError::Trap(text)) => assert!(text.contains(words), "{text}"),
        other => panic!("not a trap with {words:?}: {other:?}"),
    }
}

#[track_caller]
fn assert_deadline((ended, _): (Result<Checked, CallError>, u64)) {
    assert_eq!(ended.unwrap_err(), CallError::Deadline(SOON));
}

/// The answer with these words in place of one list's pointer and length.
fn answering(list: u32, pointer: u32, length: u32) -> Core {
    let at = 2048 + 4 + 8 * list;
    Core {
        process: format!(
            "(i32.store (i32.const 2048) (local.get $events))
             (i32.store (i32.const {at}) (i32.const {pointer}))
             (i32.store (i32.const {}) (i32.const {length}))
             (i32.const 2048)",
            at + 4
        ),
        ..Core::default()
    }
}

fn processing(body: &str) -> Core {
    Core {
        process: format!("{body} (unreachable)"),
        ..Core::default()
    }
}

/// Only for what a call hands over, not for what `init` gets.
fn reallocating(body: &str) -> Core {
    Core {
        realloc: format!(
            "(if (i32.ge_u (local.get $size) (i32.const 64)) (then {body})) (i32.const 4096)"
        ),
        ..Core::default()
    }
}

/// The other tests of this file stand on it: made as it is, the plugin works.
#[tokio::test]
async fn a_handmade_plugin_works() {
    let (ended, _) = called(Core::default()).await;
    let checked = ended.unwrap();
    assert_eq!(checked.handled(), 2);
    assert_eq!(checked.outputs().len(), 0);
}

/// Lists that the host would read beyond the guest's memory, or half of.
#[tokio::test]
async fn lists_that_leave_the_memory_trap() {
    for list in 0..5 {
        let far = called(answering(list, 0x7fff_0000, 1)).await;
        assert_trap(far, "out of bounds");
        let long = called(answering(list, 4096, u32::MAX)).await;
        assert_trap(long, "out of bounds");
    }
    // Bytes have no alignment.
    for list in [0, 1, 2, 4] {
        assert_trap(called(answering(list, 4097, 1)).await, "aligned");
    }
    assert_trap(
        called(processing("(return (i32.const -4))")).await,
        "out of bounds",
    );
    assert_trap(
        called(processing("(return (i32.const 2049))")).await,
        "aligned",
    );
}

/// The host writes the batch where the guest's `cabi_realloc` says.
#[tokio::test]
async fn a_lying_realloc_traps() {
    assert_trap(
        called(reallocating("(return (i32.const 0x7fffff00))")).await,
        "beyond end of memory",
    );
    assert_trap(
        called(reallocating("(return (i32.const 4097))")).await,
        "aligned",
    );
    assert_trap(called(reallocating("(unreachable)")).await, "unreachable");
}

/// The deadline holds for what the canonical ABI calls too, not only for `process`.
#[tokio::test]
async fn a_realloc_that_spins_ends_at_the_deadline() {
    let spinning = reallocating("(loop (br 0))");
    assert_deadline(called_within(spinning, SOON).await);
}

/// As above, for the function that frees an answer after it was read.
#[tokio::test]
async fn a_post_return_that_spins_ends_at_the_deadline() {
    let post = |body: &str| Core {
        post_return: Some(body.into()),
        ..Core::default()
    };
    assert_deadline(called_within(post("(loop (br 0))"), SOON).await);
    assert_trap(called(post("(unreachable)")).await, "unreachable");
}

/// A host function hands a string over by calling the guest, which must not call the host again.
#[tokio::test]
async fn the_host_is_not_entered_twice() {
    let core = Core {
        more: r#"(data (i32.const 512) "version")"#.into(),
        realloc: "(if (global.get $flag) (then (drop (call $enabled (i32.const 1)))))
            (i32.const 8192)"
            .into(),
        process: "(global.set $flag (i32.const 1))
            (call $property (i32.const 512) (i32.const 7) (i32.const 600))
            (unreachable)"
            .into(),
        ..Core::default()
    };
    assert_trap(called(core).await, "cannot leave component instance");
}

/// Host functions cost the guest's own time: a guest that does nothing else ends all the same.
#[tokio::test]
async fn a_flood_of_host_calls_ends_at_the_deadline() {
    let core = processing("(loop (drop (call $enabled (i32.const 1))) (br 0))");
    assert_deadline(called_within(core, SOON).await);
}

/// An instruction that works on all of the memory at once is not interrupted, and still too short
/// to hold up others.
#[tokio::test]
async fn bulk_instructions_in_a_loop_end_at_the_deadline() {
    let core = processing(
        "(drop (memory.grow (i32.const 400)))
         (loop (memory.fill (i32.const 8192) (i32.const 7) (i32.const 0x1000000)) (br 0))",
    );
    assert_deadline(called_within(core, SOON).await);
}

/// What a wrong program does most often, without a language that says so.
#[tokio::test]
async fn faults_of_the_machine_are_traps() {
    let divided = processing("(drop (i32.div_u (i32.const 1) (i32.const 0)))");
    assert_trap(called(divided).await, "divide by zero");
    let read = processing("(drop (i32.load (i32.const 0x7fffffff)))");
    assert_trap(called(read).await, "out of bounds memory access");
    let table =
        "(type $odd (func (param i64))) (table $t 4 4 funcref) (elem (i32.const 0) $realloc)";
    let calls = |index: u32| Core {
        more: table.into(),
        ..processing(&format!(
            "(call_indirect $t (type $odd) (i64.const 0) (i32.const {index}))"
        ))
    };
    assert_trap(called(calls(0)).await, "indirect call type mismatch");
    assert_trap(called(calls(1)).await, "uninitialized element");
    assert_trap(called(calls(4)).await, "undefined element");
}

/// Tables are memory of the host that the guest's memory limit would not see by itself.
#[tokio::test]
async fn tables_grow_within_the_memory_limit_alone() {
    let core = Core {
        more: "(table $t 1 funcref)".into(),
        process: "
            (loop $more (br_if $more (i32.ne (i32.const -1)
                (table.grow $t (ref.null func) (i32.const 1000)))))
            (i32.store (i32.const 2048) (local.get $events))
            (i32.store (i32.const 1500) (table.size $t))
            (i32.const 2048)"
            .into(),
        ..Core::default()
    };
    let (ended, memory) = called(core).await;
    ended.unwrap();
    let pages = 2 << 16;
    assert!(memory > pages + 60_000 * 8, "tables count: {memory}");
    assert!(memory < pages + 66_000 * 8, "tables end: {memory}");
}

/// A denied growth is no trap by itself; the limit holds, and the guest may go on within it.
#[tokio::test]
async fn memory_grows_to_its_limit_and_no_further() {
    let core = Core {
        process: "
            (loop $more (br_if $more (i32.ne (i32.const -1) (memory.grow (i32.const 16)))))
            (i32.store (i32.const 2048) (local.get $events))
            (i32.const 2048)"
            .into(),
        ..Core::default()
    };
    let (ended, memory) = called(core).await;
    ended.unwrap();
    assert!(((31 << 20)..=(32 << 20)).contains(&memory), "{memory}");
}

/// Timers and streams lie in the host.
#[tokio::test]
async fn handles_are_bounded() {
    let core = processing("(loop (drop (call $subscribe (i64.const 1))) (br 0))");
    assert_trap(called(core).await, "resource table");
}

/// A guest asleep in the host meets no epoch.
#[tokio::test]
async fn blocked_host_calls_end_at_the_deadline() {
    let year = 31_536_000_000_000_000_u64;
    let block = format!("(call $block (call $subscribe (i64.const {year})))");
    let poll = format!(
        "(i32.store (i32.const 600) (call $subscribe (i64.const {year})))
         (call $poll (i32.const 600) (i32.const 1) (i32.const 700))"
    );
    for body in [block, poll] {
        assert_deadline(called_within(processing(&body), SOON).await);
    }
}

/// One call that asks the host for much.
#[tokio::test]
async fn greedy_host_calls_trap() {
    let random = processing("(call $random (i64.const -1) (i32.const 600))");
    assert_trap(called(random).await, "too many random bytes");
    // The same timer, a thousand times.
    let poll = processing(
        "(local.set $timer (call $subscribe (i64.const 1)))
             (loop $more
                (i32.store offset=8192 (i32.shl (local.get $at) (i32.const 2)) (local.get $timer))
                (local.set $at (i32.add (local.get $at) (i32.const 1)))
                (br_if $more (i32.lt_u (local.get $at) (i32.const 1000))))
             (call $poll (i32.const 8192) (i32.const 1000) (i32.const 600))",
    );
    assert_trap(called(poll).await, "polls too much");
}

async fn refused(core: Core) -> LoadError {
    let bench = Bench::new().unwrap();
    let component = core.component().unwrap();
    let mut consumer = bench.made("refused", &component).unwrap();
    consumer.limits.init = SOON;
    match bench.host.load(&consumer, 1).await {
        Ok(_) => panic!("it was loaded"),
        Err(error) => {
            assert!(!error.remedy().is_empty());
            error
        }
    }
}

/// What runs before `init` runs when the plugin is loaded: a deploy is refused by it, in time.
#[tokio::test]
async fn start_functions_are_guarded() {
    let start = |body: &str| Core {
        more: format!("(func $begin {body}) (start $begin)"),
        ..Core::default()
    };
    for (body, words) in [
        ("(loop (br 0))", "did not answer within 150ms"),
        ("(unreachable)", "unreachable"),
        ("(call $begin)", "call stack exhausted"),
    ] {
        let error = refused(start(body)).await;
        assert!(matches!(error, LoadError::Start { .. }), "{error}");
        assert!(error.to_string().contains(words), "{error}");
    }
    let beyond = Core {
        more: "(data (i32.const 0x7fffffff) \"x\")".into(),
        ..Core::default()
    };
    let error = refused(beyond).await;
    assert!(error.to_string().contains("out of bounds"), "{error}");
}

/// What a plugin has from its start on, before it does anything.
#[tokio::test]
async fn plugins_that_start_too_large_are_refused() {
    let memory = |text: &str| Core {
        memory: text.into(),
        ..Core::default()
    };
    let error = refused(memory(r#"(memory (export "memory") 1024)"#)).await;
    assert!(error.to_string().contains("limits.memory"), "{error}");
    let table = |text: String| Core {
        more: text,
        ..Core::default()
    };
    for tables in [
        "(table 9000000 funcref)".to_owned(),
        "(table 65000 funcref)".repeat(100),
        "(memory 1)".repeat(50),
        "(memory 65536)".into(),
    ] {
        let error = refused(table(tables)).await;
        let fits = matches!(
            error,
            LoadError::Limits { .. } | LoadError::Compile { .. } | LoadError::Corrupt { .. }
        );
        assert!(fits, "{error}");
    }
}

async fn started(core: Core) -> StartError {
    let bench = Bench::new().unwrap();
    let component = core.component().unwrap();
    let mut consumer = bench.made("started", &component).unwrap();
    consumer.limits.init = SOON;
    let plugin = bench.host.load(&consumer, 1).await.unwrap();
    match plugin.instantiate().await {
        Ok(_) => panic!("it started"),
        Err(error) => error,
    }
}

/// `init` is handed strings and answers with one: each step is the guest's to spoil.
#[tokio::test]
async fn init_is_guarded_at_every_step() {
    let deadline = CallError::Deadline(SOON);
    let spinning = Core {
        realloc: "(loop (br 0)) (unreachable)".into(),
        ..Core::default()
    };
    let error = started(spinning).await;
    assert!(
        matches!(&error, StartError::Failed(failed) if *failed == deadline),
        "{error:?}"
    );
    for (answer, words) in [
        (
            "(i32.store8 (i32.const 1024) (i32.const 7))",
            "discriminant",
        ),
        (
            "(i32.store8 (i32.const 1024) (i32.const 1))
             (i32.store (i32.const 1032) (i32.const 0x7fff0000))
             (i32.store (i32.const 1036) (i32.const 100))",
            "out of bounds",
        ),
        (
            "(i32.store8 (i32.const 1024) (i32.const 1))
             (i32.store8 (i32.const 3000) (i32.const 0xff))
             (i32.store (i32.const 1032) (i32.const 3000))
             (i32.store (i32.const 1036) (i32.const 1))",
            "utf-8",
        ),
    ] {
        let core = Core {
            init: format!("{answer} (i32.const 1024)"),
            ..Core::default()
        };
        match started(core).await {
            StartError::Failed(CallError::Trap(text)) => assert!(text.contains(words), "{text}"),
            other => panic!("{other:?}"),
        }
    }
}

/// One consumer's instances take no more than their share of what the pool has for all.
#[tokio::test]
async fn many_memories_and_tables_leave_room_for_others() {
    let bench = Bench::with(Default::default(), |runtime| runtime.max_instances = 40).unwrap();
    let greedy = Core {
        more: "(memory 1) (table 1 funcref)".to_owned() + &"(table 1 funcref)".repeat(6),
        ..Core::default()
    };
    let consumer = bench.made("greedy", &greedy.component().unwrap()).unwrap();
    let plugin = bench.host.load(&consumer, 1).await.unwrap();
    let mut greedy = Vec::new();
    for _ in 0..39 {
        greedy.push(plugin.instantiate().await.unwrap());
    }
    let honest = bench.made("honest", &Core::default().component().unwrap());
    let honest = bench.host.load(&honest.unwrap(), 1).await.unwrap();
    let mut last = honest.instantiate().await.unwrap();
    call(&mut *last, &["a"]).await.unwrap();
}
