//! What happened in a run, kept for whoever must find out why it went wrong.
//!
//! ```text
//! note ─▶ lines ─▶ those about the event or partition of a violation ─▶ at most 60
//! ```
//! Runs are repeated exactly, so only a run that failed is run again with its trace kept.

use std::fmt::{self, Write as _};
use std::time::Duration;

use tokio::time::Instant;

/// The most lines that a report shows.
pub const MOST_LINES: usize = 60;
/// Of these, so many are the first ones where the whole does not fit.
const FIRST: usize = 10;
/// So many follow what was wrong.
const AFTER: usize = 9;

/// What a line, or a violation, is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum About {
    /// The consumer as a whole.
    All,
    /// A partition, whichever event.
    Partition(u32),
    /// Offsets of a partition, from the first to the last.
    Events(u32, u64, u64),
}

impl About {
    /// One event.
    pub fn event(partition: u32, offset: u64) -> Self {
        Self::Events(partition, offset, offset)
    }

    fn concerns(self, other: About) -> bool {
        match (self, other) {
            (Self::All, _) | (_, Self::All) => true,
            (Self::Partition(one), Self::Partition(other) | Self::Events(other, ..))
            | (Self::Events(one, ..), Self::Partition(other)) => one == other,
            (Self::Events(one, from, to), Self::Events(other, other_from, other_to)) => {
                one == other && from <= other_to && other_from <= to
            }
        }
    }
}

/// Something that must not be.
#[derive(Clone, Debug)]
pub struct Violation {
    /// What, the invariant first.
    pub text: String,
    pub about: About,
    /// How many lines the trace had when it was seen.
    seen: usize,
}

impl fmt::Display for Violation {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        to.write_str(&self.text)
    }
}

#[derive(Clone, Debug)]
struct Line {
    at: Duration,
    about: About,
    text: String,
}

/// The lines of a run, and what was wrong.
#[derive(Debug)]
pub struct Trace {
    begun: Instant,
    keeps: bool,
    lines: Vec<Line>,
    violations: Vec<Violation>,
}

impl Trace {
    /// An empty one; without `keeps` lines are not even put together.
    pub fn new(keeps: bool) -> Self {
        Self {
            begun: Instant::now(),
            keeps,
            lines: Vec::new(),
            violations: Vec::new(),
        }
    }

    /// Adds a line.
    pub fn note(&mut self, about: About, text: impl FnOnce() -> String) {
        if self.keeps {
            let at = self.begun.elapsed();
            let text = text();
            self.lines.push(Line { at, about, text });
        }
    }

    /// Adds what was wrong.
    pub fn violate(&mut self, about: About, text: String) {
        self.note(about, || format!("!! {text}"));
        let seen = self.lines.len();
        self.violations.push(Violation { text, about, seen });
    }

    /// Everything that was wrong, in the order in which it was seen.
    pub fn violations(&self) -> &[Violation] {
        &self.violations
    }

    /// The lines that concern a violation, cut to [`MOST_LINES`].
    pub fn about(&self, violation: &Violation) -> String {
        let concerns = |(_, line): &(usize, &Line)| violation.about.concerns(line.about);
        let lines: Vec<_> = self.lines.iter().enumerate().filter(concerns).collect();
        let seen = lines.partition_point(|(index, _)| *index < violation.seen);
        let end = (seen + AFTER).min(lines.len());
        // One line says how many are left out.
        let left_out = end.saturating_sub(MOST_LINES);
        let mut text = String::new();
        for (number, (_, line)) in lines[..end].iter().enumerate() {
            if left_out > 0 && number == FIRST {
                let _ = writeln!(text, "      … {} lines left out", left_out + 1);
            }
            if left_out > 0 && (FIRST..=FIRST + left_out).contains(&number) {
                continue;
            }
            let milliseconds = line.at.as_micros() as f64 / 1_000.0;
            let _ = writeln!(text, "{milliseconds:>10.3} ms  {}", line.text);
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A trace without its beginning does not say who had the partition.
    #[tokio::test(start_paused = true)]
    async fn a_long_trace_keeps_its_beginning_and_what_was_wrong() {
        let mut trace = Trace::new(true);
        for offset in 0..500 {
            trace.note(About::Partition(1), || format!("line {offset}"));
            trace.note(About::Partition(2), || "of another partition".to_owned());
        }
        trace.violate(About::event(1, 7), "I1: lost".to_owned());
        for _ in 0..100 {
            trace.note(About::All, || "later".to_owned());
        }
        let text = trace.about(&trace.violations()[0].clone());
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines.len(), MOST_LINES, "{text}");
        assert!(lines[0].ends_with("line 0"), "{text}");
        assert!(lines[10].contains("451 lines left out"), "{text}");
        assert!(
            lines[MOST_LINES - AFTER - 1].ends_with("!! I1: lost"),
            "{text}"
        );
        assert!(!text.contains("another"), "{text}");
    }

    #[test]
    fn an_event_is_concerned_by_its_partition_and_by_ranges_around_it() {
        let event = About::event(1, 7);
        for about in [
            About::All,
            About::Partition(1),
            About::Events(1, 5, 7),
            event,
        ] {
            assert!(event.concerns(about) && about.concerns(event), "{about:?}");
        }
        for about in [
            About::Partition(2),
            About::Events(1, 8, 9),
            About::event(2, 7),
        ] {
            assert!(
                !event.concerns(about) && !about.concerns(event),
                "{about:?}"
            );
        }
    }
}
