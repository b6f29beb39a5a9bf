//! How a target is fuzzed: inputs are drawn from a strategy, mostly by mutating what is valid, and a
//! property must hold for each. A failing input is shrunk before it is shown.
//!
//! ```text
//! corpus ─▶ mutations (flip, set, insert, remove, repeat, splice, cut, words) ─▶ target ─▶ property
//! ```

mod mutate;

use std::time::Instant;

use proptest::strategy::Strategy;
use proptest::test_runner::{Config, TestCaseResult, TestRunner};

pub use mutate::{mutated, mutated_text};

/// Names the number of executions of each target.
pub const EXECUTIONS: &str = "FUZZ_EXECUTIONS";

/// Runs `property` on as many inputs as [`EXECUTIONS`] says, or `few` where it says nothing, and
/// prints how long it took.
///
/// # Panics
/// The property does not hold; with the smallest input that was found.
#[expect(
    clippy::disallowed_methods,
    reason = "what a run takes is measured by the machine's own clock"
)]
pub fn fuzz<S: Strategy>(
    target: &str,
    few: u32,
    inputs: &S,
    property: impl Fn(S::Value) -> TestCaseResult,
) {
    let wanted = std::env::var(EXECUTIONS).ok();
    let cases = match wanted.as_deref().map(str::parse) {
        Some(Ok(cases)) => cases,
        Some(Err(error)) => panic!("{EXECUTIONS} is no number: {error}"),
        None => few,
    };
    let config = Config {
        cases,
        // What is found becomes a unit test where it belongs, with a name.
        failure_persistence: None,
        max_shrink_iters: 100_000,
        ..Config::default()
    };
    let begun = Instant::now();
    if let Err(failure) = TestRunner::new(config).run(inputs, property) {
        panic!("{target}: {failure}");
    }
    eprintln!(
        "fuzz {target}: {cases} executions in {:.1?}",
        begun.elapsed()
    );
}
