//! `limits` of a consumer.

use std::time::Duration;

use super::super::problem::Problem;
use super::super::resolved::{Batch, Limits, Runtime};
use super::super::section::Section;
use super::super::units::{show_duration, show_size};

/// The least deadline is a tick of the clock that interrupts plugins.
const TICK: Duration = Duration::from_millis(10);

/// Checks the section.
pub fn limits(mut section: Section<'_>, runtime: &Runtime, batch: &Batch) -> Limits {
    let memory = memory(&mut section, runtime, batch);
    let hour = Duration::from_secs(3600);
    let deadline = section.duration("deadline", TICK..=hour);
    let call = section.duration("call", TICK..=hour);
    let usual = Duration::from_secs(30);
    let (deadline, call) = match (deadline, call) {
        (Some(deadline), Some(call)) => (deadline, call),
        (Some(deadline), None) => (deadline, usual.max(deadline)),
        (None, call) => {
            let call = call.unwrap_or(usual);
            (Duration::from_secs(1).min(call), call)
        }
    };
    if deadline > call {
        section.checks().report(
            Problem::error("range", "one event may take longer than a whole call")
                .at(section.place_of("deadline"))
                .label(format!(
                    "`limits.deadline` is {}, `limits.call` {}",
                    show_duration(deadline),
                    show_duration(call)
                ))
                .hint("raise `limits.call`, or lower `limits.deadline`"),
        );
    }
    let limits = Limits {
        memory,
        deadline,
        call,
        init: section
            .duration("init", TICK..=hour)
            .unwrap_or(Duration::from_secs(10)),
        outputs: section.integer("outputs", 1..=10_000_000).unwrap_or(10_000) as u32,
        output_bytes: section
            .size("output_bytes", 1 << 10..=1 << 30)
            .unwrap_or(16 << 20),
        headers: section.integer("headers", 1..=10_000).unwrap_or(64) as u32,
        hops: section.integer("hops", 1..=1000).unwrap_or(16) as u32,
    };
    section.finish();
    limits
}

fn memory(section: &mut Section<'_>, runtime: &Runtime, batch: &Batch) -> u64 {
    let most = runtime.max_plugin_memory;
    let memory = section
        .size("memory", 64 << 10..=4 << 30)
        .unwrap_or((64 << 20).min(most));
    let place = section.place_of("memory");
    if memory > most {
        section.checks().report(
            Problem::error("range", "`limits.memory` is more than one plugin may have")
                .at(place)
                .label(format!(
                    "`runtime.max_plugin_memory` is {}",
                    show_size(most)
                ))
                .hint("raise `runtime.max_plugin_memory`, or lower `limits.memory`"),
        );
    } else if memory < batch.max_bytes as u64 {
        section.checks().report(
            Problem::error("range", "a batch is larger than the memory of the plugin")
                .at(place)
                .label(format!(
                    "`batch.max_bytes` is {}, `limits.memory` {}",
                    show_size(batch.max_bytes as u64),
                    show_size(memory)
                ))
                .hint("raise `limits.memory`, or lower `batch.max_bytes`"),
        );
    }
    memory
}
