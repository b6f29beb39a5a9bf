//! What every plugin may import: our `runtime`, `log` and `metrics`, and WASI with nothing behind it.

mod log;
mod metrics;
mod runtime;
mod stdio;
mod unlinked;
mod wasi;

use wasmtime::Engine;
use wasmtime::component::{HasSelf, Linker};

pub(super) use unlinked::link_traps;
pub(super) use wasi::context;

use super::state::State;

mod bindings {
    wasmtime::component::bindgen!({
        path: "../wit/0.1",
        inline: "
            package millstream:host;
            world imports {
                import millstream:plugin/runtime@0.1.0;
                import millstream:plugin/log@0.1.0;
                import millstream:plugin/metrics@0.1.0;
            }
        ",
        world: "millstream:host/imports",
    });
}

/// A linker that holds all of them.
pub(super) fn linker(engine: &Engine) -> wasmtime::Result<Linker<State>> {
    let mut linker = Linker::new(engine);
    wasi::link(&mut linker)?;
    bindings::Imports::add_to_linker::<State, HasSelf<State>>(&mut linker, |state| state)?;
    Ok(linker)
}
