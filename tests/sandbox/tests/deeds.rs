//! Every deed of the hostile plugin: how its call ends, what it costs the host, and that the
//! neighbours go on. Alone in its process, for it measures the process's memory.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]

use std::time::Duration;

use millstream::plugin::{CallError, Instance};
use millstream_sandbox_tests::cases::{Case, DEEDS, Ends};
use millstream_sandbox_tests::{Bench, call, call_within, consumer, memory, reply};
use millstream_wire::Checked;

/// What a call may cost at most besides what was there before: the plugin's own memory, what it may
/// hand over (the consumer's limits and some slack), and what the host itself needs.
const CALL_COSTS: u64 = (32 + 33 + 32) << 20;

/// What may stay of a call: slots of the pool are used again, and keep little.
const CALL_LEAVES: u64 = 24 << 20;

#[tokio::test]
async fn each_deed_ends_as_the_table_says_and_hurts_nobody_else() {
    let bench = Bench::new().unwrap();
    let plugin = bench.plugin(&consumer("hostile", "{}")).await.unwrap();
    let other = bench.plugin(&consumer("honest", "{}")).await.unwrap();
    let mut neighbour = other.instantiate().await.unwrap();
    // The first of each costs more than all that follow.
    drop(plugin.instantiate().await.unwrap());
    let before = memory::resident().unwrap();
    let mut wrong = Vec::new();
    for (calls, case) in (1..).zip(DEEDS) {
        let mut culprit = plugin.instantiate().await.unwrap();
        memory::forget_peak().unwrap();
        let at_start = memory::resident().unwrap();
        let ended = run(&mut *culprit, case).await;
        let cost = memory::peak().unwrap().saturating_sub(at_start);
        if cost > CALL_COSTS {
            wrong.push(format!(
                "{}: the host grew by {} MiB",
                case.command,
                cost >> 20
            ));
        }
        wrong.extend(fault(case, ended));
        if culprit.alive() != case.lives {
            wrong.push(format!("{}: alive is {}", case.command, culprit.alive()));
        }
        let again = call(&mut *culprit, &["echo"]).await;
        if again.is_ok() != case.lives {
            wrong.push(format!("{}: called again: {again:?}", case.command));
        }
        drop(culprit);
        let unharmed = call(&mut *neighbour, &["calls"]).await.unwrap();
        assert_eq!(
            reply(&unharmed),
            calls.to_string(),
            "after {}",
            case.command
        );
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    let left = memory::resident().unwrap().saturating_sub(before);
    assert!(left <= CALL_LEAVES, "{} MiB are left behind", left >> 20);
}

async fn run(culprit: &mut dyn Instance, case: &Case) -> Result<Checked, CallError> {
    let deadline = match case.ends {
        Ends::Deadline => Duration::from_millis(100),
        _ => Duration::from_secs(60),
    };
    let command = format!("{:1$}", case.command, case.padded);
    call_within(culprit, &["drop", &command], deadline).await
}

/// What is not as the table says.
fn fault(case: &Case, ended: Result<Checked, CallError>) -> Option<String> {
    let command = case.command;
    match (case.ends, ended) {
        (Ends::Taken(None), Ok(_)) => None,
        (Ends::Taken(Some(answer)), Ok(checked)) => {
            let given = reply(&checked);
            (given != answer).then(|| format!("{command} answered {given:?}"))
        }
        (ends, Err(error)) => {
            let text = error.to_string();
            let words = match ends {
                Ends::Trap(words) | Ends::Invalid(words) => words,
                _ => "",
            };
            // Whose fault it is stands first, and an error of any length is kept short.
            let fits = error.kind() == ends.name()
                && text.starts_with("the plugin")
                && text.contains(words)
                && text.len() < 2_000;
            (!fits).then(|| format!("{command}: {}: {text:.300}", error.kind()))
        }
        (ends, Ok(_)) => Some(format!("{command} was taken, not refused as {ends:?}")),
    }
}
