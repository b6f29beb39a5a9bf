//! What a reader of a consumer's topics found at the end of a run.

use std::fmt::Write as _;

use super::verify::{Promise, Tally};

/// What one consumer's topics hold.
#[derive(Clone, Copy, Debug)]
pub struct Outcome {
    pub promise: Promise,
    /// Records of all of them.
    pub read: usize,
    pub tally: Tally,
}

/// The outcomes in Markdown. Of order there is nothing to count: one key out of order fails the run.
pub fn table(outcomes: &[Outcome]) -> String {
    let mut text = "| consumer | records read | lost | twice | out of order |\n\
                    | --- | --- | --- | --- | --- |\n"
        .to_owned();
    for outcome in outcomes {
        let Tally { repeats, missing } = outcome.tally;
        // Writing to a string cannot fail.
        let _ = writeln!(
            text,
            "| {} | {} | {missing} | {repeats} | 0 |",
            outcome.promise.delivery(),
            outcome.read
        );
    }
    text
}
