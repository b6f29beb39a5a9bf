//! The one place that reads the wall clock, so that everything else takes `now` as an argument.

use std::time::{SystemTime, UNIX_EPOCH};

/// Milliseconds since 1970-01-01 UTC; 0 where the clock stands before that.
#[allow(
    clippy::disallowed_methods,
    reason = "this is the one reader of the wall clock that the lint points to"
)]
pub fn now_ms() -> i64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| {
            i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
        })
}
