//! Answers that break the rules of the wall.

use millstream::plugin::CallError;
use millstream_sandbox_tests::{Bench, call, consumer};

/// Each of these would do harm if it were taken; the instance is not at fault for it and goes on.
#[tokio::test]
async fn answers_that_break_a_rule_fail_whole() {
    let bench = Bench::new().unwrap();
    let mut instance = bench.instance(&consumer("c", "{}")).await.unwrap();
    for command in [
        "garbage-span",
        "too-many-outputs",
        "handled-zero",
        "duplicate-failure",
        "reserved-header",
        "count-then-garbage seen",
    ] {
        let error = call(&mut *instance, &["echo", command])
            .await
            .expect_err(command);
        assert!(
            matches!(error, CallError::Invalid(_)),
            "{command}: {error:?}"
        );
        assert!(instance.alive(), "{command}");
        call(&mut *instance, &["echo"]).await.expect(command);
    }
    let families = bench.host.hooks().custom_metrics.gather();
    let counted = families.iter().flat_map(|f| f.get_metric());
    let counted: f64 = counted.map(|metric| metric.get_counter().get_value()).sum();
    assert_eq!(counted, 0.0, "an answer that was refused was counted");
}
