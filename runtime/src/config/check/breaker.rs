//! `circuit_breaker` and `rate` of a consumer: what protects a plugin and what it depends on.

use std::time::Duration;

use super::super::problem::Problem;
use super::super::resolved::{CircuitBreaker, Rate};
use super::super::section::Section;
use super::super::units;
use super::super::written::Value;

const DAY: Duration = Duration::from_secs(86_400);

/// Checks the breaker, which is on unless it says `false`; `None` where it is off.
pub fn circuit_breaker(consumer: &mut Section<'_>) -> Option<CircuitBreaker> {
    let written = consumer
        .get("circuit_breaker")
        .map(|entry| &entry.node.value);
    if matches!(written, Some(Value::Boolean(_) | Value::Text(_)))
        && consumer.boolean("circuit_breaker") == Some(false)
    {
        return None;
    }
    let mut section = match written {
        Some(Value::Boolean(_) | Value::Text(_)) => return Some(CircuitBreaker::default()),
        _ => consumer.section("circuit_breaker"),
    };
    let usual = CircuitBreaker::default();
    let breaker = CircuitBreaker {
        failure_ratio: section
            .number("failure_ratio", 0.01..=1.0)
            .unwrap_or(usual.failure_ratio),
        min_events: section
            .integer("min_events", 1..=1_000_000)
            .map_or(usual.min_events, |events| events as u32),
        consecutive: section
            .integer("consecutive", 1..=1_000_000)
            .map_or(usual.consecutive, |failures| failures as u32),
        window: section
            .duration("window", Duration::from_millis(10)..=DAY)
            .unwrap_or(usual.window),
        open_for: section
            .duration("open_for", Duration::from_millis(1)..=DAY)
            .unwrap_or(usual.open_for),
        probes: section
            .integer("probes", 1..=10_000)
            .map_or(usual.probes, |events| events as u32),
    };
    section.finish();
    Some(breaker)
}

/// Checks the ceiling on the events that are given to the plugin; `None` where there is none.
pub fn rate(consumer: &mut Section<'_>) -> Option<Rate> {
    let hint = "write a number of events and a time, such as \"5000/s\"";
    let (rate, node) = consumer.with_unit("rate", "a rate", hint, units::rate)?;
    if rate.events == 0 {
        consumer.checks().report(
            Problem::error("range", "`rate` lets no event through")
                .at(&node.place)
                .label("nothing would ever be processed")
                .hint("to stop a consumer for a while set `enabled = false`"),
        );
        return None;
    }
    Some(rate)
}
