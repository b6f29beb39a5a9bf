//! Times with date and zone, as RFC 3339 writes them, in milliseconds since 1970-01-01 UTC.

use toml::value::{Datetime, Offset};

const DAY: i64 = 86_400_000;

/// Milliseconds of a time; `None` where date, time or zone is missing.
pub fn milliseconds(time: &Datetime) -> Option<i64> {
    let (date, clock) = (time.date?, time.time?);
    let offset = match time.offset? {
        Offset::Z => 0,
        Offset::Custom { minutes } => i64::from(minutes),
    };
    // Years begin in March here, so that a leap day ends its year.
    let (year, month) = (i64::from(date.year), i64::from(date.month));
    let year = if month <= 2 { year - 1 } else { year };
    let month = (month + 9) % 12;
    let day_of_year = (153 * month + 2) / 5 + i64::from(date.day) - 1;
    let leap_days = year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400);
    let days = 365 * year + leap_days + day_of_year - 719_468;
    let minutes = days * 1440 + i64::from(clock.hour) * 60 + i64::from(clock.minute) - offset;
    let seconds = minutes * 60 + i64::from(clock.second.unwrap_or(0));
    Some(seconds * 1000 + i64::from(clock.nanosecond.unwrap_or(0) / 1_000_000))
}

/// The time in UTC.
pub fn show(milliseconds: i64) -> String {
    // The inverse of the above, by eras of 400 years.
    let days = milliseconds.div_euclid(DAY) + 719_468;
    let (era, day_of_era) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = era * 400 + year_of_era + i64::from(month <= 2);
    let rest = milliseconds.rem_euclid(DAY);
    let (hour, minute) = (rest / 3_600_000, rest / 60_000 % 60);
    let (second, fraction) = (rest / 1000 % 60, rest % 1000);
    let fraction = match fraction {
        0 => String::new(),
        fraction => format!(".{fraction:03}"),
    };
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}{fraction}Z")
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

    proptest::proptest! {
        #[test]
        fn what_is_shown_reads_back(time in -62_000_000_000_000i64..250_000_000_000_000) {
            let shown: Datetime = show(time).parse().unwrap();
            proptest::prop_assert_eq!(milliseconds(&shown), Some(time));
        }
    }
}
