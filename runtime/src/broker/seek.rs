//! Where to begin reading: what `consume --offset` and `GET /topics/{topic}?from=` take.

use std::str::FromStr;

use super::{BrokerError, PartitionInfo, Topics};
use crate::config::time;
use crate::event::TopicPartition;

/// A place in each partition of a topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seek {
    /// `start`: the oldest event that is kept.
    Start,
    /// `end`: what comes from now on.
    End,
    /// `N`: this offset.
    Offset(u64),
    /// `-N`: this many offsets before the end of each partition.
    Last(u64),
    /// `@TIME`: the first event of this time (milliseconds since 1970-01-01 UTC) or later.
    Time(i64),
}

/// Text that names no place.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is not a place to begin at: use start, end, an offset such as 42, -10 for the last ten of each partition, \
     or @TIME with a date (@2026-01-31), a time (@2026-01-31T08:00:00Z) or milliseconds since 1970"
)]
pub struct NotAPlace(String);

impl FromStr for Seek {
    type Err = NotAPlace;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bad = || NotAPlace(text.to_owned());
        match text {
            "start" | "beginning" => return Ok(Self::Start),
            "end" => return Ok(Self::End),
            _ => {}
        }
        if let Some(time) = text.strip_prefix('@') {
            return time_ms(time).map(Self::Time).ok_or_else(bad);
        }
        if let Some(count) = text.strip_prefix('-') {
            return digits(count).map(Self::Last).ok_or_else(bad);
        }
        digits(text).map(Self::Offset).ok_or_else(bad)
    }
}

/// A number written in digits alone; `parse` would take a sign, and `--5` is a slip.
fn digits(text: &str) -> Option<u64> {
    text.bytes()
        .all(|byte| byte.is_ascii_digit())
        .then(|| text.parse().ok())
        .flatten()
}

/// Milliseconds since 1970-01-01 UTC of a number of milliseconds, a date or an RFC 3339 time; a
/// time without an offset is UTC.
pub fn time_ms(text: &str) -> Option<i64> {
    if let Some(number) = digits(text) {
        return i64::try_from(number).ok();
    }
    let mut written: toml::value::Datetime = text.parse().ok()?;
    written.time.get_or_insert(toml::value::Time {
        hour: 0,
        minute: 0,
        second: None,
        nanosecond: None,
    });
    written.offset.get_or_insert(toml::value::Offset::Z);
    time::milliseconds(&written)
}

impl Seek {
    /// The offset in one partition whose bounds are `info`, never below its start.
    ///
    /// # Errors
    /// Only a time asks the broker.
    pub async fn resolve(
        self,
        topics: &dyn Topics,
        partition: &TopicPartition,
        info: PartitionInfo,
    ) -> Result<u64, BrokerError> {
        Ok(match self {
            Self::Start => info.start,
            Self::End => info.end,
            Self::Offset(offset) => offset.max(info.start),
            Self::Last(count) => info.end.saturating_sub(count).max(info.start),
            Self::Time(ms) => topics.offset_at(partition, ms).await?.max(info.start),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_documented_form_is_read() {
        let cases = [
            ("start", Seek::Start),
            ("end", Seek::End),
            ("0", Seek::Offset(0)),
            ("42", Seek::Offset(42)),
            ("-10", Seek::Last(10)),
            ("@1700000000000", Seek::Time(1_700_000_000_000)),
            ("@1970-01-01", Seek::Time(0)),
            ("@2024-02-29T12:30:00Z", Seek::Time(1_709_209_800_000)),
            ("@2024-02-29T12:30:00.25Z", Seek::Time(1_709_209_800_250)),
            ("@2024-02-29T13:30:00+01:00", Seek::Time(1_709_209_800_000)),
            ("@2000-03-01", Seek::Time(951_868_800_000)),
        ];
        for (text, wanted) in cases {
            assert_eq!(text.parse(), Ok(wanted), "{text}");
        }
    }

    /// A slip must not silently read from somewhere else.
    #[test]
    fn what_names_no_place_is_refused() {
        for text in [
            "",
            "-",
            "@",
            "+5",
            "--5",
            "-+5",
            "begin",
            "@noon",
            "@10:00:00",
            "1.5",
            "99999999999999999999",
        ] {
            let error = text.parse::<Seek>();
            assert!(error.is_err(), "{text}: {error:?}");
        }
    }
}
