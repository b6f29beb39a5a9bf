//! `[runtime]`.

use std::time::Duration;

use super::super::problem::Problem;
use super::super::resolved::Runtime;
use super::super::section::Section;
use super::super::units::show_size;

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

/// Checks the section.
pub fn runtime(mut section: Section<'_>) -> Runtime {
    let instance = instance(&mut section);
    let shutdown_timeout = section
        .duration(
            "shutdown_timeout",
            Duration::from_secs(1)..=Duration::from_secs(3600),
        )
        .unwrap_or(Duration::from_secs(25));
    let max_instances = section
        .integer("max_instances", 1..=100_000)
        .unwrap_or(1000) as u32;
    // One page of WebAssembly memory to all that 32 bits can address.
    let max_plugin_memory = section
        .size("max_plugin_memory", 64 * KIB..=4 * GIB)
        .unwrap_or(256 * MIB);
    let plugin_memory = section
        .size("plugin_memory", 64 * KIB..=1 << 44)
        .unwrap_or((2 * GIB).max(max_plugin_memory));
    if plugin_memory < max_plugin_memory {
        let key = if section.has("plugin_memory") {
            "plugin_memory"
        } else {
            "max_plugin_memory"
        };
        section.checks().report(
            Problem::error(
                "range",
                "one plugin instance may take more memory than all together",
            )
            .at(section.place_of(key))
            .label(format!(
                "`plugin_memory` is {}, `max_plugin_memory` {}",
                show_size(plugin_memory),
                show_size(max_plugin_memory)
            ))
            .hint("raise `plugin_memory`, or lower `max_plugin_memory`"),
        );
    }
    let place = section.place_of("cache_dir").file;
    let cache_dir = section
        .text("cache_dir")
        .map_or("data/cache", |(text, _)| text);
    let cache_dir = section.checks().sources.resolve(place, cache_dir);
    section.finish();
    Runtime {
        instance,
        shutdown_timeout,
        max_instances,
        max_plugin_memory,
        plugin_memory,
        cache_dir,
    }
}

/// Becomes part of client and transaction ids, which allow few characters everywhere.
fn instance(section: &mut Section<'_>) -> Option<String> {
    let (text, node) = section.text("instance")?;
    let valid = (1..=200).contains(&text.len())
        && text
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-'));
    if valid {
        return Some(text.to_owned());
    }
    section.checks().report(
        Problem::error("name", "`runtime.instance` cannot name a runtime")
            .at(&node.place)
            .label("1 to 200 letters, digits, `.`, `_` and `-` make a name")
            .hint("leave it out and each start takes a new name"),
    );
    None
}
