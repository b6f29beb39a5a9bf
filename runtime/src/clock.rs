//! The one place that reads the wall clock.

/// Milliseconds since 1970-01-01 UTC; 0 where the machine's clock stands before that.
pub fn now_ms() -> i64 {
    #[allow(clippy::disallowed_methods, reason = "this is the place")]
    let now = std::time::SystemTime::now();
    now.duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |since| since.as_millis() as i64)
}
