//! A running instance: one call after another, each under its deadline and limits.
//!
//! ```text
//! batch ─▶ lower ─▶ guest (yields each 10 ms) ─▶ lift ─▶ wire::check ─▶ outcome
//!                     │                                     └▶ metrics of the call take effect
//!                     └▶ trap, deadline, memory: the instance is dead
//! ```

use std::sync::Arc;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use millstream_wire as wire;
use tokio::sync::OwnedSemaphorePermit;
use wasmtime::Store;

use super::abi::v0_1::Handler;
use super::generation::Shared;
use super::state::State;
use super::{CallContext, CallError, Instance, failure};

/// An instance of a component.
pub(super) struct WasmInstance {
    store: Store<State>,
    handler: Handler,
    shared: Arc<Shared>,
    alive: bool,
    // Returned last, when the store no longer holds a slot of the pool.
    _permit: OwnedSemaphorePermit,
}

impl WasmInstance {
    pub(super) fn new(
        store: Store<State>,
        handler: Handler,
        shared: Arc<Shared>,
        permit: OwnedSemaphorePermit,
    ) -> Self {
        Self {
            store,
            handler,
            shared,
            alive: true,
            _permit: permit,
        }
    }

    async fn call(
        &mut self,
        batch: wire::Batch<'_>,
        context: &CallContext,
    ) -> Result<wire::Checked, CallError> {
        if !self.alive {
            return Err(CallError::Trap("the instance has ended before".into()));
        }
        // Until the guest has answered: a future dropped on the way leaves it in the middle.
        self.alive = false;
        let state = self.store.data_mut();
        state.begin(context.deadline);
        state.enter(&batch);
        self.store.set_epoch_deadline(1);
        let outcome = self.handler.process(&mut self.store, batch).await;
        self.store.data_mut().end();
        let outcome = match outcome {
            Ok(outcome) => outcome,
            Err(error) => {
                let state = self.store.data();
                return Err(failure::of_call(&error, state, context.deadline));
            }
        };
        self.alive = true;
        let settings = &self.shared.settings;
        let reporter = &mut self.store.data_mut().reporter;
        match wire::check(
            &batch,
            outcome,
            settings.outputs.len() as u32,
            &settings.limits,
        ) {
            Ok(checked) => {
                reporter.apply();
                Ok(checked)
            }
            Err(invalid) => {
                reporter.discard();
                Err(CallError::Invalid(invalid.to_string()))
            }
        }
    }
}

impl Instance for WasmInstance {
    fn process<'a>(
        &'a mut self,
        batch: wire::Batch<'a>,
        context: &'a CallContext,
    ) -> BoxFuture<'a, Result<wire::Checked, CallError>> {
        self.call(batch, context).boxed()
    }

    fn memory_bytes(&self) -> u64 {
        self.store.data().limiter.used()
    }

    fn alive(&self) -> bool {
        self.alive
    }
}
