//! A loaded plugin with one consumer's settings: what instances are made from.

use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use millstream_wire as wire;
use tokio::sync::OwnedSemaphorePermit;
use wasmtime::component::InstancePre;
use wasmtime::{Store, UpdateDeadline};

use super::abi::v0_1::{Exports, Handler, InitError, Setup};
use super::engine::Host;
use super::grants::Grants;
use super::instance::WasmInstance;
use super::journal::{Journal, LogBudget};
use super::limiter::Limiter;
use super::state::{Identity, MAX_HANDLES, State};
use super::{Instance, Plugin, PluginInfo, StartError, failure, imports};
use crate::config;

/// Bytes that a guest may hand over in one call besides what the consumer's limits account for:
/// log entries, points, failures' reasons.
const HANDOVER_SLACK: u64 = 4 << 20;

/// One generation.
#[derive(Clone)]
pub(super) struct WasmPlugin {
    shared: Arc<Shared>,
}

/// What all instances of a generation share.
#[derive(Clone)]
pub(super) struct Shared {
    pub(super) host: Arc<Host>,
    pub(super) pre: InstancePre<State>,
    pub(super) exports: Exports,
    pub(super) info: PluginInfo,
    pub(super) identity: Arc<Identity>,
    pub(super) log_budget: Arc<LogBudget>,
    pub(super) grants: Arc<Grants>,
    pub(super) settings: Arc<Settings>,
}

/// What the consumer's configuration says to its plugin.
#[derive(Debug)]
pub(super) struct Settings {
    pub(super) config: Arc<str>,
    pub(super) outputs: Vec<Arc<str>>,
    pub(super) memory: u64,
    pub(super) init: Duration,
    pub(super) limits: wire::Limits,
}

impl Settings {
    /// Those of this consumer on this host.
    pub(super) fn of(host: &Host, consumer: &config::Consumer) -> Self {
        let limits = &consumer.limits;
        Self {
            config: Arc::clone(&consumer.config),
            outputs: consumer
                .outputs
                .iter()
                .map(|o| Arc::clone(&o.name))
                .collect(),
            memory: host.memory_limit(limits),
            init: limits.init,
            limits: wire::Limits {
                outputs: limits.outputs,
                output_bytes: limits.output_bytes,
                headers: limits.headers,
            },
        }
    }

    /// What a guest may hand over in one call: bytes that the host allocates outside of the
    /// guest's memory, and which its memory limit therefore does not count.
    fn handover(&self) -> usize {
        let limits = &self.limits;
        let record = size_of::<wire::Output>() as u64;
        let headers = u64::from(limits.headers) * size_of::<wire::Header>() as u64;
        let records = u64::from(limits.outputs).saturating_mul(record + headers);
        let bytes = limits
            .output_bytes
            .saturating_add(records)
            .saturating_add(HANDOVER_SLACK);
        // A guest cannot hand over more than it has.
        usize::try_from(bytes.min(self.memory.saturating_mul(2))).unwrap_or(usize::MAX)
    }
}

impl WasmPlugin {
    pub(super) fn new(shared: Shared) -> Self {
        Self {
            shared: Arc::new(shared),
        }
    }

    /// Makes an instance without `init`, to see whether it can be made at all.
    pub(super) async fn try_out(&self) -> Result<(), TryOut> {
        let mut store = self.store();
        let budget = self.shared.settings.init;
        store.data_mut().begin(budget);
        store.set_epoch_deadline(1);
        let instance = self.shared.pre.instantiate_async(&mut store).await;
        let instance =
            instance.map_err(|e| TryOut::Start(failure::of_start(&e, store.data(), budget)))?;
        Handler::of(&mut store, &instance, &self.shared.exports)
            .map(|_| ())
            .map_err(|error| TryOut::Mismatch(format!("{error:#}")))
    }

    async fn start(&self) -> Result<Box<dyn Instance>, StartError> {
        let permit = self.permit()?;
        let shared = &self.shared;
        let budget = shared.settings.init;
        let mut store = self.store();
        store.data_mut().begin(budget);
        store.set_epoch_deadline(1);
        let instance = shared.pre.instantiate_async(&mut store).await;
        let instance = instance.map_err(|e| failure::of_start(&e, store.data(), budget))?;
        let handler = Handler::of(&mut store, &instance, &shared.exports)
            .map_err(|e| failure::of_start(&e, store.data(), budget))?;
        let outputs: Vec<&str> = shared.settings.outputs.iter().map(|name| &**name).collect();
        let setup = Setup {
            config: &shared.settings.config,
            outputs: &outputs,
        };
        store.set_epoch_deadline(1);
        let started = handler.init(&mut store, setup).await;
        store.data_mut().end();
        match started {
            Ok(Ok(())) => {}
            Ok(Err(InitError::Misconfigured(reason))) => {
                return Err(StartError::Misconfigured(short(reason)));
            }
            Ok(Err(InitError::Unavailable(reason))) => {
                return Err(StartError::Unavailable(short(reason)));
            }
            Err(error) => return Err(failure::of_start(&error, store.data(), budget)),
        }
        store.data_mut().reporter.apply();
        let instance = WasmInstance::new(store, handler, Arc::clone(shared), permit);
        Ok(Box::new(instance))
    }

    fn permit(&self) -> Result<OwnedSemaphorePermit, StartError> {
        let instances = Arc::clone(&self.shared.host.instances);
        instances
            .try_acquire_owned()
            .map_err(|_| StartError::Exhausted("max_instances are in use".into()))
    }

    fn store(&self) -> Store<State> {
        let shared = &self.shared;
        let host = &shared.host;
        let journal = Journal::new(
            Arc::clone(&shared.identity.consumer),
            Arc::clone(&shared.log_budget),
            host.hooks.clone(),
        );
        let state = State::new(
            imports::context(&journal, &shared.grants),
            Limiter::new(shared.settings.memory, Arc::clone(&host.memory)),
            Arc::clone(&shared.identity),
            Arc::clone(&shared.grants),
            journal,
            match shared.identity.shadow {
                false => Arc::clone(&host.hooks.custom_metrics),
                // What it reports would count each event twice.
                true => Arc::default(),
            },
        );
        let mut store = Store::new(&host.engine, state);
        store.limiter(|state| &mut state.limiter);
        store.set_hostcall_fuel(shared.settings.handover());
        store.set_max_component_handles(MAX_HANDLES);
        // At each tick the guest lets others run: two that spin must not own both cores until
        // their deadlines.
        store.epoch_deadline_callback(|mut store| {
            store.data_mut().tick()?;
            Ok(UpdateDeadline::YieldCustom(
                1,
                Box::pin(tokio::task::yield_now()),
            ))
        });
        store
    }
}

/// Why a component that compiled cannot be used.
pub(super) enum TryOut {
    Start(StartError),
    Mismatch(String),
}

impl Plugin for WasmPlugin {
    fn instantiate(&self) -> BoxFuture<'_, Result<Box<dyn Instance>, StartError>> {
        self.start().boxed()
    }

    fn info(&self) -> &PluginInfo {
        &self.shared.info
    }

    fn in_shadow(&self) -> Option<Arc<dyn Plugin>> {
        let identity = Identity {
            consumer: Arc::clone(&self.shared.identity.consumer),
            generation: self.shared.identity.generation,
            digest: Arc::clone(&self.shared.identity.digest),
            shadow: true,
        };
        Some(Arc::new(Self::new(Shared {
            identity: Arc::new(identity),
            ..Shared::clone(&self.shared)
        })))
    }
}

fn short(reason: String) -> String {
    super::journal::cut(&reason, 1 << 10).to_owned()
}
