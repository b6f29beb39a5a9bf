//! From an error of the engine to whose fault it is.

use std::time::Duration;

use wasmtime::{PoolConcurrencyLimitError, Trap};
use wasmtime_wasi::I32Exit;

use super::journal::cut;
use super::limiter::Denied;
use super::state::{DeadlinePassed, State};
use super::{CallError, StartError};

/// Bytes of a trap's message.
const MAX_MESSAGE: usize = 1 << 10;

/// Why a call that may take `budget` failed.
pub(super) fn of_call(error: &wasmtime::Error, state: &State, budget: Duration) -> CallError {
    let trap = error.downcast_ref::<Trap>();
    if error.is::<DeadlinePassed>() || trap == Some(&Trap::Interrupt) {
        return CallError::Deadline(budget);
    }
    if let Some(denied) = state.limiter.denied() {
        return CallError::Memory(denied.to_string());
    }
    let message = error.root_cause().to_string();
    // The engine's own type for this is private; its text is all there is to know it by.
    if trap.is_none() && message.contains("fuel allocated for hostcalls") {
        return CallError::Invalid("it is far larger than the consumer's limits allow".into());
    }
    let cause = match error.downcast_ref::<I32Exit>() {
        Some(I32Exit(code)) => format!("it called exit({code})"),
        None => trap.map_or(message, ToString::to_string),
    };
    let text = match state.journal.last_words() {
        Some(words) => format!("{words} [{cause}]"),
        None => cause,
    };
    CallError::Trap(cut(&text, MAX_MESSAGE).to_owned())
}

/// Why an instance whose `init` may take `budget` did not come to be.
pub(super) fn of_start(error: &wasmtime::Error, state: &State, budget: Duration) -> StartError {
    if error.is::<PoolConcurrencyLimitError>() {
        return StartError::Exhausted(error.root_cause().to_string());
    }
    match state.limiter.denied() {
        Some(denied @ (Denied::Process { .. } | Denied::Host { .. })) => {
            StartError::Exhausted(denied.to_string())
        }
        Some(Denied::Instance { .. }) | None => StartError::Failed(of_call(error, state, budget)),
    }
}

impl std::fmt::Display for Denied {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mebibytes = |bytes: u64| bytes.div_ceil(1 << 20);
        match *self {
            Self::Instance { wanted, limit } => write!(
                f,
                "{} MiB where limits.memory allows {} MiB",
                mebibytes(wanted),
                mebibytes(limit)
            ),
            Self::Process { wanted, limit } => write!(
                f,
                "{} MiB while all plugins together have reached [runtime] plugin_memory, {} MiB",
                mebibytes(wanted),
                mebibytes(limit)
            ),
            Self::Host { wanted } => write!(
                f,
                "{} MiB, which the operating system did not give",
                mebibytes(wanted)
            ),
        }
    }
}
