//! What an outcome must keep. Stub body: to be written.

use crate::types::{Batch, Outcome};

/// What a consumer allows one outcome to hold.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Derived events in one outcome.
    pub outputs: u32,
    /// Bytes of all derived events, each counted in full with what it inherits or shares.
    pub output_bytes: u64,
    /// Headers of one derived event, inherited ones included.
    pub headers: u32,
}

/// An outcome that keeps the rules.
#[derive(Clone, Debug)]
pub struct Checked(Outcome);

impl Checked {
    /// The outcome.
    pub fn outcome(&self) -> &Outcome {
        &self.0
    }
}

/// Which rule an outcome breaks, and where.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Invalid(pub String);

/// Checks an outcome against the batch that it answers. `outputs` is how many names the consumer
/// gave in `setup`.
pub fn check(
    _batch: &Batch<'_>,
    outcome: Outcome,
    _outputs: u32,
    _limits: &Limits,
) -> Result<Checked, Invalid> {
    Ok(Checked(outcome))
}
