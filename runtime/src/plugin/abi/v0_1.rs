//! The contract `millstream:plugin@0.1`: finding the handler and calling it.

use millstream_wire as wire;
use wasmtime::Store;
use wasmtime::component::{
    Component, ComponentExportIndex, ComponentType, Func, Instance, Lift, Lower, TypedFunc,
};

use super::packed::{Packed, packed, unpacked};
use crate::plugin::inspect::handler_name;
use crate::plugin::state::State;

/// What an instance starts with.
#[derive(Clone, Copy, Debug, ComponentType, Lower)]
#[component(record)]
pub(in crate::plugin) struct Setup<'a> {
    pub(in crate::plugin) config: &'a str,
    pub(in crate::plugin) outputs: &'a [&'a str],
}

/// Why an instance cannot start.
#[derive(Clone, Debug, ComponentType, Lift)]
#[component(variant)]
pub(in crate::plugin) enum InitError {
    #[component(name = "misconfigured")]
    Misconfigured(String),
    #[component(name = "unavailable")]
    Unavailable(String),
}

/// A batch as it is lowered.
#[derive(Clone, Copy, Debug, ComponentType, Lower)]
#[component(record)]
struct Batch<'a> {
    events: &'a [Packed<wire::Event>],
    headers: &'a [Packed<wire::Header>],
    data: &'a [u8],
    extras: &'a [Packed<wire::Extra>],
    #[component(name = "budget-ms")]
    budget_ms: u32,
    bits: u32,
}

/// An outcome as it is lifted.
#[derive(Debug, ComponentType, Lift)]
#[component(record)]
struct Outcome {
    handled: u32,
    outputs: Vec<Packed<wire::Output>>,
    headers: Vec<Packed<wire::Header>>,
    failures: Vec<Packed<wire::Failure>>,
    data: Vec<u8>,
    extras: Vec<Packed<wire::Extra>>,
}

type Init<'a> = TypedFunc<(Setup<'a>,), (Result<(), InitError>,)>;
type Process<'a> = TypedFunc<(Batch<'a>,), (Outcome,)>;

/// Where a component has its handler; looked up once a component.
#[derive(Clone, Copy)]
pub(in crate::plugin) struct Exports {
    init: ComponentExportIndex,
    process: ComponentExportIndex,
}

impl Exports {
    /// Those of this version of the contract, or which function is missing.
    pub(in crate::plugin) fn of(component: &Component, contract: &str) -> Result<Self, String> {
        let name = handler_name(contract);
        let handler = component
            .get_export_index(None, &name)
            .ok_or_else(|| format!("it has no {name}"))?;
        let function = |function: &str| {
            component
                .get_export_index(Some(&handler), function)
                .ok_or_else(|| format!("its {name} has no {function}"))
        };
        Ok(Self {
            init: function("init")?,
            process: function("process")?,
        })
    }
}

/// The handler of one instance.
#[derive(Clone, Copy)]
pub(in crate::plugin) struct Handler {
    init: Func,
    process: Func,
}

impl Handler {
    /// The handler of this instance, its types checked.
    ///
    /// # Errors
    /// A function has other parameters or another result than the contract says.
    pub(in crate::plugin) fn of(
        store: &mut Store<State>,
        instance: &Instance,
        exports: &Exports,
    ) -> wasmtime::Result<Self> {
        let init = instance.get_typed_func::<(Setup<'static>,), (Result<(), InitError>,)>(
            &mut *store,
            exports.init,
        )?;
        let process = instance
            .get_typed_func::<(Batch<'static>,), (Outcome,)>(&mut *store, exports.process)?;
        Ok(Self {
            init: *init.func(),
            process: *process.func(),
        })
    }

    /// `init`.
    pub(in crate::plugin) async fn init(
        &self,
        store: &mut Store<State>,
        setup: Setup<'_>,
    ) -> wasmtime::Result<Result<(), InitError>> {
        // SAFETY: `of` has checked that the function has these parameters and this result; types
        // that differ only in a lifetime are lowered the same way.
        let init: Init<'_> = unsafe { TypedFunc::new_unchecked(self.init) };
        let (result,) = init.call_async(store, (setup,)).await?;
        Ok(result)
    }

    /// `process`. The outcome is as the guest gave it: nothing in it is checked.
    pub(in crate::plugin) async fn process(
        &self,
        store: &mut Store<State>,
        batch: wire::Batch<'_>,
    ) -> wasmtime::Result<wire::Outcome> {
        // SAFETY: as in `init`.
        let process: Process<'_> = unsafe { TypedFunc::new_unchecked(self.process) };
        let batch = Batch {
            events: packed(batch.events),
            headers: packed(batch.headers),
            data: batch.data,
            extras: packed(batch.extras),
            budget_ms: batch.budget_ms,
            bits: batch.bits,
        };
        let (outcome,) = process.call_async(store, (batch,)).await?;
        Ok(wire::Outcome {
            handled: outcome.handled,
            outputs: unpacked(outcome.outputs),
            headers: unpacked(outcome.headers),
            failures: unpacked(outcome.failures),
            data: outcome.data,
            extras: unpacked(outcome.extras),
        })
    }
}
