//! Exit codes, and how an error becomes one.

use std::process::ExitCode;

use crate::app::StartFailure;
use crate::broker::BrokerError;

/// The command line was wrong.
pub const USAGE: u8 = 2;
/// A broker or a runtime did not answer.
pub const UNREACHABLE: u8 = 69;
/// A fault of Millstream itself, or a broken store.
pub const INTERNAL: u8 = 70;
/// The configuration is wrong.
pub const CONFIGURATION: u8 = 78;
/// Ended by SIGINT.
pub const INTERRUPTED: u8 = 130;

/// The thing asked for failed.
const FAILED: u8 = 1;

/// An error with an exit code of its own; any other exits 1.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    #[error("{0}")]
    Usage(String),
    #[error("{0}")]
    Unreachable(String),
    #[error("{0}")]
    Internal(String),
    /// The problems as a person reads them, several lines.
    #[error("{0}")]
    Configuration(String),
    /// The reader of stdout has gone, as `head` does: nothing to complain about.
    #[error("stdout was closed")]
    OutputClosed,
}

/// The exit code of an error.
pub fn code_of(error: &anyhow::Error) -> u8 {
    for cause in error.chain() {
        if let Some(failure) = cause.downcast_ref::<Failure>() {
            return match failure {
                Failure::Usage(_) => USAGE,
                Failure::Unreachable(_) => UNREACHABLE,
                Failure::Internal(_) => INTERNAL,
                Failure::Configuration(_) => CONFIGURATION,
                Failure::OutputClosed => 0,
            };
        }
        if let Some(failure) = cause.downcast_ref::<StartFailure>() {
            return match failure {
                StartFailure::Configuration(_) => CONFIGURATION,
                StartFailure::Host(_) => FAILED,
            };
        }
        if let Some(error) = cause.downcast_ref::<BrokerError>() {
            return match error {
                BrokerError::Unreachable(_) => UNREACHABLE,
                BrokerError::Store(_) => INTERNAL,
                BrokerError::UnknownTopic(_)
                | BrokerError::Refused(_)
                | BrokerError::DiskFull(_)
                | BrokerError::TooLarge(_)
                | BrokerError::Overloaded { .. }
                | BrokerError::Unsupported(_) => FAILED,
            };
        }
    }
    FAILED
}

/// Prints an error to stderr and gives its exit code.
pub fn report(error: &anyhow::Error) -> ExitCode {
    match error.downcast_ref::<Failure>() {
        Some(Failure::OutputClosed) => {}
        Some(Failure::Configuration(problems)) => eprintln!("{}", problems.trim_end()),
        _ => eprintln!("error: {error:#}"),
    }
    ExitCode::from(code_of(error))
}

#[cfg(test)]
mod tests {
    use anyhow::Context as _;

    use super::*;

    /// Scripts branch on these; context around an error must not hide them.
    #[test]
    fn the_code_is_found_through_context() {
        let broker = |error: BrokerError| Err::<(), _>(error).context("while reading");
        let cases = [
            (broker(BrokerError::Unreachable("x".into())), 69),
            (broker(BrokerError::UnknownTopic("x".into())), 1),
            (broker(BrokerError::Store("x".into())), 70),
            (Err(Failure::Configuration("x".into())).context("c"), 78),
            (Err(Failure::Usage("x".into())).context("c"), 2),
            (Err(Failure::OutputClosed).context("c"), 0),
            (Err(anyhow::anyhow!("anything else")), 1),
        ];
        for (result, wanted) in cases {
            let error = result.expect_err("an error");
            assert_eq!(code_of(&error), wanted, "{error:#}");
        }
    }
}
