//! What plugins may import: our `runtime`, `log` and `metrics`, WASI with nothing behind it, and
//! `http` and `secrets`, which answer those alone who are granted them.

mod http;
mod log;
mod metrics;
mod runtime;
mod secrets;
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
                import millstream:plugin/secrets@0.1.0;
                import millstream:plugin/http@0.1.0;
            }
        ",
        world: "millstream:host/imports",
        imports: {
            "millstream:plugin/http.send": async | trappable,
            "millstream:plugin/secrets.get": async | trappable,
        },
    });
}

/// A linker that holds all of them.
pub(super) fn linker(engine: &Engine) -> wasmtime::Result<Linker<State>> {
    let mut linker = Linker::new(engine);
    wasi::link(&mut linker)?;
    bindings::Imports::add_to_linker::<State, HasSelf<State>>(&mut linker, |state| state)?;
    Ok(linker)
}
