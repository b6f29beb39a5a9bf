//! `retry` of a consumer.

use std::time::Duration;

use super::super::problem::Problem;
use super::super::resolved::Retry;
use super::super::section::Section;
use super::super::units::show_duration;

const DAY: Duration = Duration::from_secs(86_400);

/// Checks the section.
pub fn retry(mut section: Section<'_>) -> Retry {
    let initial = section.duration("initial", Duration::from_millis(1)..=DAY);
    let max = section.duration("max", Duration::from_millis(1)..=DAY);
    let (initial, max) = match (initial, max) {
        (Some(initial), Some(max)) => (initial, max),
        (Some(initial), None) => (initial, Duration::from_secs(10).max(initial)),
        (None, max) => {
            let max = max.unwrap_or(Duration::from_secs(10));
            (Duration::from_millis(100).min(max), max)
        }
    };
    if initial > max {
        section.checks().report(
            Problem::error("range", "the first wait is longer than the longest")
                .at(section.place_of("initial"))
                .label(format!(
                    "`retry.initial` is {}, `retry.max` {}",
                    show_duration(initial),
                    show_duration(max)
                ))
                .hint("raise `retry.max`, or lower `retry.initial`"),
        );
    }
    let retry = Retry {
        max_attempts: section.integer("max_attempts", 1..=1_000_000).unwrap_or(5) as u32,
        initial,
        max,
        factor: section.number("factor", 1.0..=100.0).unwrap_or(2.0),
        jitter: section.boolean("jitter").unwrap_or(true),
        max_age: section
            .duration("max_age", Duration::from_secs(1)..=30 * DAY)
            .unwrap_or(Duration::from_secs(3600)),
    };
    section.reserve(&[("topic", "topics for delayed retries")]);
    section.finish();
    retry
}
