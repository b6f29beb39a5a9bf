//! `deploy` of a consumer: how another version of its plugin is tried before it is trusted.

use std::time::Duration;

use super::super::resolved::Deploy;
use super::super::section::Section;

const DAY: Duration = Duration::from_secs(86_400);

/// Checks it; without the table a new version takes over at once and for good.
pub fn deploy(consumer: &mut Section<'_>) -> Deploy {
    let mut section = consumer.section("deploy");
    let usual = Deploy::default();
    let deploy = Deploy {
        shadow: section
            .integer("shadow", 0..=1_000_000)
            .map_or(usual.shadow, |events| events as u32),
        probation: section
            .duration("probation", Duration::ZERO..=DAY)
            .unwrap_or(usual.probation),
        max_failure_ratio: section
            .number("max_failure_ratio", 0.0..=1.0)
            .unwrap_or(usual.max_failure_ratio),
        state_version: section
            .integer("state_version", 0..=u64::from(u32::MAX))
            .map_or(usual.state_version, |version| version as u32),
    };
    section.finish();
    deploy
}
