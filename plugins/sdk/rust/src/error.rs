//! Failures of an event, each with what is to be done about it.

use std::borrow::Cow;
use std::fmt::{self, Display};
use std::time::Duration;

use millstream_wire::{CODE_MAX, Remedy};

/// What most functions of a plugin return; `Result` alone is `Result<()>`.
pub type Result<T = (), E = Error> = std::result::Result<T, E>;

/// Why an event failed, and what is to be done about it.
///
/// `?` turns any standard error into a rejection with the code `error`; [`OrFail`] chooses another
/// remedy. Like `anyhow::Error` it is itself no [`std::error::Error`], or that conversion could not be.
pub struct Error(Box<Inner>);

#[derive(Clone)]
struct Inner {
    remedy: Remedy,
    after: Duration,
    code: Cow<'static, str>,
    reason: String,
}

impl Error {
    /// This event can never succeed: dead-letter it now. It counts for no breaker.
    ///
    /// `code` is a stable name to search for: `a` to `z`, `0` to `9` and `-`, up to 64 bytes. Upper
    /// case is lowered, other characters become `-`, and what is longer is cut.
    pub fn reject(code: &'static str, reason: impl Display) -> Self {
        Self::new(Remedy::Reject, code, reason)
    }

    /// This event may succeed later: again after backoff, dead-lettered when attempts run out.
    pub fn retry(code: &'static str, reason: impl Display) -> Self {
        Self::new(Remedy::Retry, code, reason)
    }

    /// What every event needs is down: the breaker opens, not sooner than `after` it is tried
    /// again, and no attempt is counted. Zero leaves the time to the configuration.
    pub fn unavailable(after: Duration, reason: impl Display) -> Self {
        Self::new(Remedy::Unavailable, "unavailable", reason).after(after)
    }

    /// Going on would do harm: the consumer stops and the event stays unsettled.
    pub fn halt(code: &'static str, reason: impl Display) -> Self {
        Self::new(Remedy::Halt, code, reason)
    }

    /// Not to be tried again sooner than this (a retry or unavailable; for others it has no effect).
    #[must_use]
    pub fn after(mut self, after: Duration) -> Self {
        self.0.after = after;
        self
    }

    /// What is to be done.
    pub fn remedy(&self) -> Remedy {
        self.0.remedy
    }

    /// The stable name of the failure.
    pub fn code(&self) -> &str {
        &self.0.code
    }

    /// The text for a person.
    pub fn reason(&self) -> &str {
        &self.0.reason
    }

    /// Milliseconds before which it makes no sense to try again; 0 leaves it to the configuration.
    pub fn after_ms(&self) -> u32 {
        u32::try_from(self.0.after.as_millis()).unwrap_or(u32::MAX)
    }

    pub(crate) fn decode(reason: impl Display) -> Self {
        Self::new(Remedy::Reject, "decode", reason)
    }

    fn new(remedy: Remedy, code: &'static str, reason: impl Display) -> Self {
        Self(Box::new(Inner {
            remedy,
            after: Duration::ZERO,
            code: clean(code),
            reason: reason.to_string(),
        }))
    }

    /// The same under another code, which fits the wall.
    pub(crate) fn coded(mut self, code: String) -> Self {
        self.0.code = Cow::Owned(code);
        self
    }

    /// A copy, for a failure that is reported for several events.
    pub(crate) fn duplicate(&self) -> Self {
        Self(self.0.clone())
    }
}

/// A code as the wall allows it: a bad one would make the runtime refuse the whole answer.
fn clean(code: &'static str) -> Cow<'static, str> {
    if millstream_wire::is_code(code.as_bytes()) {
        return Cow::Borrowed(code);
    }
    let allowed = |character: char| match character.to_ascii_lowercase() {
        character @ ('a'..='z' | '0'..='9' | '-') => character,
        _ => '-',
    };
    Cow::Owned(code.chars().take(CODE_MAX).map(allowed).collect())
}

impl Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.reason)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Inner {
            remedy,
            code,
            reason,
            ..
        } = &*self.0;
        write!(f, "{remedy:?} [{code}]: {reason}")
    }
}

impl<E: std::error::Error> From<E> for Error {
    fn from(error: E) -> Self {
        let mut reason = error.to_string();
        let mut cause = error.source();
        while let Some(error) = cause {
            reason.push_str(": ");
            reason.push_str(&error.to_string());
            cause = error.source();
        }
        Self::new(Remedy::Reject, "error", reason)
    }
}

/// Chooses the remedy where something is missing or went wrong.
///
/// ```
/// use millstream_plugin::prelude::*;
/// use std::time::Duration;
///
/// fn price(text: &str) -> Result<u32> {
///     text.parse::<u32>().or_reject("bad-price")
/// }
/// assert_eq!(price("x").unwrap_err().code(), "bad-price");
///
/// let missing: Option<u32> = None;
/// assert!(missing.or_retry("no-stock-yet").is_err());
///
/// let answer: std::result::Result<(), &str> = Err("connection refused");
/// let error = answer.or_unavailable(Duration::from_secs(5)).unwrap_err();
/// assert_eq!((error.code(), error.reason()), ("unavailable", "connection refused"));
/// ```
pub trait OrFail<T> {
    /// This event can never succeed; see [`Error::reject`].
    ///
    /// # Errors
    /// Where there is no value.
    fn or_reject(self, code: &'static str) -> Result<T>;

    /// This event may succeed later; see [`Error::retry`].
    ///
    /// # Errors
    /// Where there is no value.
    fn or_retry(self, code: &'static str) -> Result<T>;

    /// What every event needs is down; see [`Error::unavailable`].
    ///
    /// # Errors
    /// Where there is no value.
    fn or_unavailable(self, after: Duration) -> Result<T>;

    /// Going on would do harm; see [`Error::halt`].
    ///
    /// # Errors
    /// Where there is no value.
    fn or_halt(self, code: &'static str) -> Result<T>;
}

impl<T, E: Display> OrFail<T> for std::result::Result<T, E> {
    fn or_reject(self, code: &'static str) -> Result<T> {
        self.map_err(|error| Error::reject(code, error))
    }

    fn or_retry(self, code: &'static str) -> Result<T> {
        self.map_err(|error| Error::retry(code, error))
    }

    fn or_unavailable(self, after: Duration) -> Result<T> {
        self.map_err(|error| Error::unavailable(after, error))
    }

    fn or_halt(self, code: &'static str) -> Result<T> {
        self.map_err(|error| Error::halt(code, error))
    }
}

impl<T> OrFail<T> for Option<T> {
    fn or_reject(self, code: &'static str) -> Result<T> {
        self.ok_or_else(|| Error::reject(code, MISSING))
    }

    fn or_retry(self, code: &'static str) -> Result<T> {
        self.ok_or_else(|| Error::retry(code, MISSING))
    }

    fn or_unavailable(self, after: Duration) -> Result<T> {
        self.ok_or_else(|| Error::unavailable(after, MISSING))
    }

    fn or_halt(self, code: &'static str) -> Result<T> {
        self.ok_or_else(|| Error::halt(code, MISSING))
    }
}

/// The reason of a failure that has nothing but its code.
const MISSING: &str = "a value is missing";

#[cfg(test)]
mod tests {
    use super::*;

    /// Such a code would make the runtime throw the whole batch's answer away.
    #[test]
    fn a_code_is_made_to_fit_the_wall() {
        let error = Error::reject("Bad Price!", "x");
        assert_eq!(error.code(), "bad-price-");
        let long: &'static str = Box::leak("ä".repeat(100).into_boxed_str());
        assert!(millstream_wire::is_code(
            Error::retry(long, "").code().as_bytes()
        ));
    }

    #[derive(Debug)]
    struct Outer(std::num::ParseIntError);

    impl Display for Outer {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("the quantity")
        }
    }

    impl std::error::Error for Outer {
        fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
            Some(&self.0)
        }
    }

    /// Without its causes the error in a dead letter would say "the quantity" alone.
    #[test]
    fn a_standard_error_keeps_its_causes() {
        fn fails() -> Result<i32> {
            let number = "x".parse().map_err(Outer)?;
            Ok(number)
        }
        let error = fails().unwrap_err();
        assert_eq!((error.remedy(), error.code()), (Remedy::Reject, "error"));
        assert_eq!(
            error.reason(),
            "the quantity: invalid digit found in string"
        );
    }
}
