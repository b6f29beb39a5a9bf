//! Parts of WASI that are not linked (`wasi:http`, say): whoever calls them traps, whoever merely
//! imports them works. Tool chains import more than a plugin uses.

use wasmtime::component::types::ComponentItem;
use wasmtime::component::{Component, Linker, ResourceType};

use crate::plugin::state::State;

/// The interfaces that `wasi::link` links, at every version 0.2.
const LINKED: [(&str, &[&str]); 6] = [
    (
        "cli",
        &[
            "environment",
            "exit",
            "stdin",
            "stdout",
            "stderr",
            "terminal-input",
            "terminal-output",
            "terminal-stdin",
            "terminal-stdout",
            "terminal-stderr",
        ],
    ),
    ("clocks", &["monotonic-clock", "wall-clock"]),
    ("filesystem", &["preopens", "types"]),
    ("io", &["error", "poll", "streams"]),
    ("random", &["insecure", "insecure-seed", "random"]),
    (
        "sockets",
        &[
            "instance-network",
            "ip-name-lookup",
            "network",
            "tcp",
            "tcp-create-socket",
            "udp",
            "udp-create-socket",
        ],
    ),
];

/// Whether this import is a part of WASI that nothing is linked for.
fn unlinked(import: &str) -> bool {
    let Some(rest) = import.strip_prefix("wasi:") else {
        return false;
    };
    let parts = rest
        .split_once('/')
        .and_then(|(package, rest)| Some((package, rest.split_once('@')?)));
    let Some((package, (interface, version))) = parts else {
        return true;
    };
    let known = LINKED
        .iter()
        .any(|(name, interfaces)| *name == package && interfaces.contains(&interface));
    !known || !version.starts_with("0.2.")
}

/// Gives the component's unlinked parts of WASI functions that trap.
pub(in crate::plugin) fn link_traps(
    linker: &mut Linker<State>,
    component: &Component,
) -> wasmtime::Result<()> {
    let engine = linker.engine().clone();
    for (name, item) in component.component_type().imports(&engine) {
        let ComponentItem::ComponentInstance(interface) = item.ty else {
            continue;
        };
        if !unlinked(name) {
            continue;
        }
        let mut instance = linker.instance(name)?;
        for (member, item) in interface.exports(&engine) {
            match item.ty {
                ComponentItem::ComponentFunc(_) => {
                    let text = format!("it called {name}#{member}, which is not granted");
                    instance.func_new(member, move |_, _, _, _| {
                        Err(wasmtime::Error::msg(text.clone()))
                    })?;
                }
                ComponentItem::Resource(_) => {
                    instance.resource(member, ResourceType::host::<()>(), |_, _| Ok(()))?;
                }
                _ => {}
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A linked interface taken for an unlinked one would make every plugin of its language trap.
    #[test]
    fn what_is_linked_is_left_alone() {
        assert!(!unlinked("wasi:cli/environment@0.2.0"));
        assert!(!unlinked("wasi:io/poll@0.2.12"));
        assert!(!unlinked("millstream:plugin/log@0.1.0"));
        assert!(unlinked("wasi:http/types@0.2.6"));
        assert!(unlinked("wasi:cli/environment@0.3.0"));
        assert!(unlinked("wasi:nn"));
    }
}
