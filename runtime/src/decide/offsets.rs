//! Which offsets of a partition are settled, and the committed form of that knowledge.

use std::ops::Range;

/// A committed position: everything below `next` is settled, and so are the ranges above it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    pub next: u64,
    /// Rising, not touching one another, all above `next`.
    pub above: Vec<Range<u64>>,
}

impl Progress {
    /// A position with nothing settled above it.
    pub fn at(next: u64) -> Self {
        Self {
            next,
            above: Vec::new(),
        }
    }
}

/// The ranges above, as text for a commit's metadata; empty where there are none.
pub fn encode_above(progress: &Progress) -> String {
    let ranges: Vec<String> = progress
        .above
        .iter()
        .map(|range| format!("{}-{}", range.start, range.end))
        .collect();
    if ranges.is_empty() {
        String::new()
    } else {
        format!("m1:{}", ranges.join(","))
    }
}

/// The position that `next` and a commit's metadata stand for; metadata that is not ours means no
/// ranges.
pub fn decode_above(next: u64, metadata: &str) -> Progress {
    let above = metadata
        .strip_prefix("m1:")
        .map(|text| {
            text.split(',')
                .filter_map(|range| {
                    let (start, end) = range.split_once('-')?;
                    Some(start.parse().ok()?..end.parse().ok()?)
                })
                .collect()
        })
        .unwrap_or_default();
    Progress { next, above }
}
