//! Durations (`100ms`, `1h30m`), sizes (`64MiB`) and rates (`5000/s`), read and shown.

use std::time::Duration;

use super::resolved::Rate;

/// What is wrong with a text that should carry a unit; reads on from "`25`".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mistake {
    NoUnit,
    UnknownUnit,
    NoNumber,
    TooLarge,
}

impl Mistake {
    /// In a few words, for the label under the value.
    pub fn describe(self) -> &'static str {
        match self {
            Self::NoUnit => "has no unit",
            Self::UnknownUnit => "has a unit that is not known",
            Self::NoNumber => "does not begin with a whole number",
            Self::TooLarge => "is too large",
        }
    }
}

const DURATIONS: [(&str, u64); 6] = [
    ("ms", 1),
    ("s", 1_000),
    ("m", 60_000),
    ("h", 3_600_000),
    ("d", 86_400_000),
    ("w", 7 * 86_400_000),
];

const SIZES: [(&str, u64); 9] = [
    ("B", 1),
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("TiB", 1 << 40),
    ("kB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("TB", 1_000_000_000_000),
];

/// Whole numbers with `ms`, `s`, `m`, `h`, `d` or `w`, largest first where there are several.
///
/// # Errors
/// What is wrong with the text.
pub fn duration(text: &str) -> Result<Duration, Mistake> {
    let mut rest = text.trim();
    let mut total: u64 = 0;
    loop {
        let (number, unit, after) = split(rest)?;
        let (_, millis) = DURATIONS
            .iter()
            .find(|(name, _)| *name == unit)
            .ok_or(Mistake::UnknownUnit)?;
        total = number
            .checked_mul(*millis)
            .and_then(|part| total.checked_add(part))
            .ok_or(Mistake::TooLarge)?;
        if after.is_empty() {
            return Ok(Duration::from_millis(total));
        }
        rest = after;
    }
}

/// A whole number of bytes with `B`, `KiB`, `MiB`, `GiB`, `TiB` or `kB`, `MB`, `GB`, `TB`; the
/// case of letters does not matter.
///
/// # Errors
/// What is wrong with the text.
pub fn size(text: &str) -> Result<u64, Mistake> {
    let (number, unit, after) = split(text.trim())?;
    let (_, bytes) = SIZES
        .iter()
        .find(|(name, _)| name.eq_ignore_ascii_case(unit))
        .filter(|_| after.is_empty())
        .ok_or(Mistake::UnknownUnit)?;
    number.checked_mul(*bytes).ok_or(Mistake::TooLarge)
}

const RATES: [(&str, u64); 3] = [("s", 1), ("m", 60), ("h", 3600)];

/// A whole number of events over `s`, `m` or `h`.
///
/// # Errors
/// What is wrong with the text.
pub fn rate(text: &str) -> Result<Rate, Mistake> {
    let (number, unit) = text.split_once('/').ok_or(Mistake::NoUnit)?;
    let events = number.trim().parse().map_err(|_| Mistake::NoNumber)?;
    let (_, seconds) = RATES
        .iter()
        .find(|(name, _)| *name == unit.trim())
        .ok_or(Mistake::UnknownUnit)?;
    let per = Duration::from_secs(*seconds);
    Ok(Rate { events, per })
}

/// A rate as the configuration would write it.
pub fn show_rate(rate: Rate) -> String {
    let unit = RATES
        .iter()
        .find(|(_, seconds)| *seconds == rate.per.as_secs());
    format!("{}/{}", rate.events, unit.map_or("s", |(name, _)| name))
}

fn split(text: &str) -> Result<(u64, &str, &str), Mistake> {
    let digits = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let (number, rest) = text.split_at(digits);
    if number.is_empty() {
        return Err(Mistake::NoNumber);
    }
    let number = number.parse().map_err(|_| Mistake::TooLarge)?;
    let rest = rest.trim_start();
    let letters = rest
        .find(|c: char| !c.is_alphabetic())
        .unwrap_or(rest.len());
    let (unit, after) = rest.split_at(letters);
    match (unit.is_empty(), after.is_empty()) {
        (true, true) => Err(Mistake::NoUnit),
        (true, false) => Err(Mistake::UnknownUnit),
        _ => Ok((number, unit, after.trim_start())),
    }
}

/// A duration as the configuration would write it.
pub fn show_duration(duration: Duration) -> String {
    let millis = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    // Weeks are left out: 7d is how everybody says it.
    show(millis, &DURATIONS[..5])
}

/// A size as the configuration would write it.
pub fn show_size(bytes: u64) -> String {
    show(bytes, &SIZES[..5])
}

fn show(value: u64, units: &[(&str, u64)]) -> String {
    let fits = units
        .iter()
        .rev()
        .find(|(_, factor)| value != 0 && value.is_multiple_of(*factor));
    match (fits, units.first()) {
        (Some((name, factor)), _) => format!("{}{name}", value / factor),
        (None, Some((name, _))) => format!("{value}{name}"),
        (None, None) => value.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_carry_their_unit() {
        for (text, millis) in [
            ("100ms", 100),
            ("25s", 25_000),
            ("1h30m", 5_400_000),
            ("1h 30m", 5_400_000),
            ("2 h", 7_200_000),
            ("7d", 604_800_000),
            ("1w", 604_800_000),
            ("0s", 0),
        ] {
            assert_eq!(duration(text), Ok(Duration::from_millis(millis)), "{text}");
        }
        for (text, mistake) in [
            ("25", Mistake::NoUnit),
            ("", Mistake::NoNumber),
            ("s", Mistake::NoNumber),
            ("-1s", Mistake::NoNumber),
            ("1.5s", Mistake::UnknownUnit),
            ("5 parsecs", Mistake::UnknownUnit),
            ("5M", Mistake::UnknownUnit),
            ("99999999999999999999s", Mistake::TooLarge),
            ("18446744073709551615w", Mistake::TooLarge),
        ] {
            assert_eq!(duration(text), Err(mistake), "{text}");
        }
    }

    /// A `MB` taken for a `MiB` would move every limit by five per cent.
    #[test]
    fn sizes_carry_their_unit() {
        for (text, bytes) in [
            ("64MiB", 64 << 20),
            ("64 mib", 64 << 20),
            ("1GB", 1_000_000_000),
            ("10B", 10),
            ("1kb", 1000),
        ] {
            assert_eq!(size(text), Ok(bytes), "{text}");
        }
        for (text, mistake) in [
            ("64", Mistake::NoUnit),
            ("64M", Mistake::UnknownUnit),
            ("1MiB2", Mistake::UnknownUnit),
            ("much", Mistake::NoNumber),
            ("18446744073709551615KiB", Mistake::TooLarge),
        ] {
            assert_eq!(size(text), Err(mistake), "{text}");
        }
    }

    #[test]
    fn rates_name_their_time() {
        for text in ["5000/s", "60/m", "1/h"] {
            assert_eq!(rate(text).map(show_rate), Ok(text.to_owned()));
        }
        assert_eq!(rate("60 / m").map(|rate| rate.per.as_secs()), Ok(60));
        assert_eq!(rate("5000"), Err(Mistake::NoUnit));
        assert_eq!(rate("5/fortnight"), Err(Mistake::UnknownUnit));
    }

    proptest::proptest! {
        #[test]
        fn what_is_shown_reads_back(millis in 0u64..1 << 45, bytes in 0u64..1 << 50) {
            let time = Duration::from_millis(millis);
            proptest::prop_assert_eq!(duration(&show_duration(time)), Ok(time));
            proptest::prop_assert_eq!(size(&show_size(bytes)), Ok(bytes));
        }

        #[test]
        fn no_text_makes_a_reader_panic(text in ".{0,24}") {
            let _ = (duration(&text), size(&text), rate(&text));
        }
    }
}
