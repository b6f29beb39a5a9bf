//! How fast dead letters are sent back: `--rate 100/s`.

use std::str::FromStr;
use std::time::Duration;

use tokio::time::Instant;

/// Events in a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    events: u32,
    per: Duration,
}

impl FromStr for Rate {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bad = || format!("`{text}` is no rate; write it as 100/s, 100/m or 100/h");
        let (events, unit) = text.split_once('/').ok_or_else(bad)?;
        let seconds = match unit {
            "s" => 1,
            "m" => 60,
            "h" => 3_600,
            _ => return Err(bad()),
        };
        let events = events.parse().ok().filter(|events| *events > 0);
        Ok(Self {
            events: events.ok_or_else(bad)?,
            per: Duration::from_secs(seconds),
        })
    }
}

/// Keeps to a rate, evenly: no burst makes up for a slow start.
pub struct Pace {
    rate: Option<Rate>,
    next: Instant,
}

impl Pace {
    /// Begins at `now`; without a rate nothing waits.
    pub fn new(rate: Option<Rate>, now: Instant) -> Self {
        Self { rate, next: now }
    }

    /// How many of at most `most` events go together, so that ten groups a second keep the pace.
    pub fn group(&self, most: usize) -> usize {
        match self.rate {
            None => most,
            Some(rate) => {
                let tenth = f64::from(rate.events) / rate.per.as_secs_f64() / 10.0;
                (tenth as usize).clamp(1, most)
            }
        }
    }

    /// When so many events may go that are ready at `now`.
    pub fn at(&mut self, events: usize, now: Instant) -> Instant {
        let Some(rate) = self.rate else {
            return now;
        };
        let at = self.next.max(now);
        self.next = at + rate.per.mul_f64(events as f64 / f64::from(rate.events));
        at
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_go_no_faster_than_they_may() {
        let begun = Instant::now();
        let mut pace = Pace::new(Some("50/s".parse().expect("a rate")), begun);
        assert_eq!(pace.group(500), 5);
        let mut now = begun;
        for group in 0..10 {
            now = pace.at(5, now);
            assert_eq!(now - begun, Duration::from_millis(100) * group);
        }
        // A broker that was slow for a second is not flooded after it.
        now += Duration::from_secs(1);
        let at = pace.at(5, now);
        assert_eq!((at, pace.at(5, at) - at), (now, Duration::from_millis(100)));
    }

    #[test]
    fn rates_are_read_and_slips_named() {
        let minute: Rate = "30/m".parse().expect("a rate");
        assert_eq!(minute.per / minute.events, Duration::from_secs(2));
        assert_eq!(Pace::new(Some(minute), Instant::now()).group(500), 1);
        assert_eq!(Pace::new(None, Instant::now()).group(500), 500);
        for text in ["", "100", "0/s", "-1/s", "1.5/s", "100/d", "/s"] {
            assert!(text.parse::<Rate>().is_err(), "{text}");
        }
    }
}
