//! `start` of a consumer, and the reading of times.

use toml::value::{Datetime, Offset};

use super::super::problem::Problem;
use super::super::resolved::Start;
use super::super::section::Section;
use super::super::written::{Text, Value};

/// Where a new group starts; `None` where the file does not say.
pub fn start(consumer: &mut Section<'_>) -> Option<Start> {
    let node = consumer.node("start")?;
    let time = match &node.value {
        Value::Text(Text { failed: true, .. }) => return None,
        Value::Text(text) => match &*text.value {
            "beginning" => return Some(Start::Beginning),
            "end" => return Some(Start::End),
            time => time.parse::<Datetime>().ok(),
        },
        Value::Time(time) => Some(*time),
        _ => None,
    };
    match time.map(|time| milliseconds(&time)) {
        Some(Some(time)) => return Some(Start::At(time)),
        Some(None) => consumer.checks().report(
            Problem::error("start", "the time of `start` is not complete")
                .at(&node.place)
                .label("date, time and zone are needed")
                .hint("write it as in \"2026-01-31T12:00:00Z\" or with an offset such as +01:00"),
        ),
        None => consumer.checks().report(
            Problem::error("start", "`start` must be \"beginning\", \"end\" or a time")
                .at(&node.place)
                .label("none of them")
                .hint("write a time as in \"2026-01-31T12:00:00Z\" (RFC 3339)"),
        ),
    }
    None
}

/// Milliseconds since 1970-01-01 UTC of a time with date and zone.
fn milliseconds(time: &Datetime) -> Option<i64> {
    let (date, clock) = (time.date?, time.time?);
    let offset = match time.offset? {
        Offset::Z => 0,
        Offset::Custom { minutes } => i64::from(minutes),
    };
    // Days by the civil calendar: years begin in March, so that a leap day ends its year.
    let (year, month) = (i64::from(date.year), i64::from(date.month));
    let year = if month <= 2 { year - 1 } else { year };
    let month = (month + 9) % 12;
    let day_of_year = (153 * month + 2) / 5 + i64::from(date.day) - 1;
    let days =
        365 * year + year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400) + day_of_year
            - 719_468;
    let minutes = days * 1440 + i64::from(clock.hour) * 60 + i64::from(clock.minute) - offset;
    let seconds = minutes * 60 + i64::from(clock.second.unwrap_or(0));
    Some(seconds * 1000 + i64::from(clock.nanosecond.unwrap_or(0) / 1_000_000))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_become_milliseconds() {
        for (text, expected) in [
            ("1970-01-01T00:00:00Z", Some(0)),
            ("1970-01-01T01:00:00+01:00", Some(0)),
            ("1969-12-31T23:59:59.999Z", Some(-1)),
            ("2000-02-29T12:00:00Z", Some(951_825_600_000)),
            ("2026-01-31T12:34:56.789Z", Some(1_769_862_896_789)),
            ("2026-01-31T12:34:56", None),
            ("2026-01-31", None),
            ("12:34:56", None),
        ] {
            let time: Datetime = text.parse().unwrap();
            assert_eq!(milliseconds(&time), expected, "{text}");
        }
    }
}
