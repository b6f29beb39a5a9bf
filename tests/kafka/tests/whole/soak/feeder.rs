//! Lines that flow at a steady rate.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::Result;
use millstream_test_support::wait::{Deadline, step};

use super::super::order_lines::Line;
use super::stage::Source;

/// Lines a second. A debug build works on each three times, on both brokers, and leaves more than
/// half of two processors free.
pub const RATE: usize = 200;
/// Events a second to each consumer of the plugin that fails.
const SIDE_RATE: usize = 10;
/// What all consumers together get in a second.
pub const A_SECOND: f64 = (3 * RATE + 2 * SIDE_RATE) as f64;
const SECOND: Duration = Duration::from_secs(1);

/// What has been fed so far.
#[derive(Debug, Default)]
pub struct Fed {
    pub lines: AtomicUsize,
    /// To each of the side topics.
    pub sides: AtomicUsize,
}

/// The first `count` lines that are fed.
pub fn cycle(lines: &[Line], from: usize, count: usize) -> Vec<Line> {
    let cycle = lines.iter().cycle().skip(from % lines.len());
    cycle.take(count).cloned().collect()
}

/// Feeds until told to stop.
///
/// # Errors
/// The broker does not take something: how much of it came is not known then.
pub fn feed(source: &Source, lines: &[Line], fed: &Fed, stop: &AtomicBool) -> Result<()> {
    while !stop.load(Ordering::Acquire) {
        let second = Deadline::after(SECOND);
        let from = fed.lines.load(Ordering::Acquire);
        let chunk = cycle(lines, from, RATE);
        let mut events: Vec<_> = (chunk.iter())
            .map(|line| (&*source.lines, &*line.key, &*line.value))
            .collect();
        for side in [&source.outage, &source.poison] {
            events.extend([(&**side, "good", "good"); SIDE_RATE]);
        }
        source.produce(&events)?;
        fed.lines.fetch_add(RATE, Ordering::AcqRel);
        fed.sides.fetch_add(SIDE_RATE, Ordering::AcqRel);
        while !second.passed() {
            step();
        }
    }
    Ok(())
}
