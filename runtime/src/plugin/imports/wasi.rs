//! WASI as a plugin meets it: complete, so that no language's standard library fails to link, and
//! inert: no folder, argument, socket or name look-up, and no variable that is not granted.
//!
//! What would let a plugin wait, or see the world, is replaced here: `poll` ends at the deadline,
//! the wall clock shows the batch's newest timestamp (1970 in `init`, which has no batch), random
//! numbers follow from the batch's place (in `init` from the consumer's name). The capabilities
//! `clock` and `random` make those two real. The monotonic clock is real in any case.

use std::sync::Arc;

use tokio::time::timeout_at;
use wasmtime::component::{HasSelf, Linker, Resource};
use wasmtime_wasi::WasiCtx;
use wasmtime_wasi::p2::DynPollable;
use wasmtime_wasi::p2::bindings::clocks::wall_clock::{self, Datetime};
use wasmtime_wasi::p2::bindings::io::poll;
use wasmtime_wasi::p2::bindings::random::{insecure, insecure_seed, random};

use super::stdio::Lines;
use crate::clock;
use crate::plugin::grants::Grants;
use crate::plugin::journal::Journal;
use crate::plugin::state::{DeadlinePassed, State};

/// Random bytes that one call of a guest may ask for.
const MAX_RANDOM: u64 = 1 << 20;

/// Pollables that one call of a guest may wait for.
const MAX_POLL: usize = 256;

/// A context with stdout and stderr, which go to the log, the variables that are granted, as they
/// are now, and nothing else.
pub(in crate::plugin) fn context(journal: &Arc<Journal>, grants: &Grants) -> WasiCtx {
    let mut builder = WasiCtx::builder();
    for (name, value) in grants.variables() {
        builder.env(name, value);
    }
    builder
        .stdout(Lines::new(Arc::clone(journal), tracing::Level::INFO))
        .stderr(Lines::new(Arc::clone(journal), tracing::Level::WARN))
        .allow_tcp(false)
        .allow_udp(false)
        .allow_ip_name_lookup(false)
        .build()
}

/// Links all of WASI.
pub(super) fn link(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    linker.allow_shadowing(true);
    wasmtime_wasi::p2::add_to_linker_async(linker)?;
    poll::add_to_linker::<State, HasSelf<State>>(linker, |state| state)?;
    wall_clock::add_to_linker::<State, HasSelf<State>>(linker, |state| state)?;
    random::add_to_linker::<State, HasSelf<State>>(linker, |state| state)?;
    insecure::add_to_linker::<State, HasSelf<State>>(linker, |state| state)?;
    insecure_seed::add_to_linker::<State, HasSelf<State>>(linker, |state| state)?;
    linker.allow_shadowing(false);
    Ok(())
}

/// A guest asleep in the host meets no epoch, so its sleep ends at the deadline.
impl poll::Host for State {
    async fn poll(&mut self, pollables: Vec<Resource<DynPollable>>) -> wasmtime::Result<Vec<u32>> {
        if pollables.len() > MAX_POLL {
            return Err(wasmtime::Error::msg("it polls too much at once"));
        }
        let deadline = self.call.deadline();
        match timeout_at(deadline, poll::Host::poll(&mut self.table, pollables)).await {
            Ok(ready) => ready,
            Err(_) => Err(DeadlinePassed.into()),
        }
    }
}

impl poll::HostPollable for State {
    async fn ready(&mut self, pollable: Resource<DynPollable>) -> wasmtime::Result<bool> {
        poll::HostPollable::ready(&mut self.table, pollable).await
    }

    async fn block(&mut self, pollable: Resource<DynPollable>) -> wasmtime::Result<()> {
        let deadline = self.call.deadline();
        match timeout_at(
            deadline,
            poll::HostPollable::block(&mut self.table, pollable),
        )
        .await
        {
            Ok(ready) => ready,
            Err(_) => Err(DeadlinePassed.into()),
        }
    }

    fn drop(&mut self, pollable: Resource<DynPollable>) -> wasmtime::Result<()> {
        poll::HostPollable::drop(&mut self.table, pollable)
    }
}

impl wall_clock::Host for State {
    fn now(&mut self) -> wasmtime::Result<Datetime> {
        let now_ms = match self.grants.clock {
            true => clock::now_ms(),
            false => self.call.now_ms,
        };
        let milliseconds = u64::try_from(now_ms).unwrap_or_default();
        Ok(Datetime {
            seconds: milliseconds / 1_000,
            nanoseconds: (milliseconds % 1_000) as u32 * 1_000_000,
        })
    }

    fn resolution(&mut self) -> wasmtime::Result<Datetime> {
        Ok(Datetime {
            seconds: 0,
            nanoseconds: 1_000_000,
        })
    }
}

fn random_bytes(state: &mut State, length: u64) -> wasmtime::Result<Vec<u8>> {
    if length > MAX_RANDOM {
        return Err(wasmtime::Error::msg(
            "it asks for too many random bytes at once",
        ));
    }
    match state.grants.random {
        true => random::Host::get_random_bytes(state.real().random(), length),
        false => Ok(state.call.random.bytes(length as usize)),
    }
}

fn random_number(state: &mut State) -> wasmtime::Result<u64> {
    match state.grants.random {
        true => random::Host::get_random_u64(state.real().random()),
        false => Ok(state.call.random.next()),
    }
}

impl random::Host for State {
    fn get_random_bytes(&mut self, length: u64) -> wasmtime::Result<Vec<u8>> {
        random_bytes(self, length)
    }

    fn get_random_u64(&mut self) -> wasmtime::Result<u64> {
        random_number(self)
    }
}

impl insecure::Host for State {
    fn get_insecure_random_bytes(&mut self, length: u64) -> wasmtime::Result<Vec<u8>> {
        random_bytes(self, length)
    }

    fn get_insecure_random_u64(&mut self) -> wasmtime::Result<u64> {
        random_number(self)
    }
}

impl insecure_seed::Host for State {
    fn insecure_seed(&mut self) -> wasmtime::Result<(u64, u64)> {
        Ok((random_number(self)?, random_number(self)?))
    }
}
