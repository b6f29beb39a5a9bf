//! The WebAssembly engine that all plugins of the process share.
//!
//! ```text
//! Host ── Engine ── pool: slots of linear memory, tables and stacks, reserved once
//!   ├──── Linker ── every import that is always linked
//!   ├──── ticker thread: one epoch every 10 ms; running guests yield at each, end at their deadline
//!   └──── budgets: instances and bytes of linear memory of the whole process
//! ```

use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::Context as _;
use parking_lot::Mutex;
use tokio::sync::Semaphore;
use wasmtime::component::Linker;
use wasmtime::{Config, Engine, EngineWeak, OptLevel, PoolingAllocationConfig};

use super::cache::Cache;
use super::hooks::PluginHooks;
use super::imports;
use super::journal::LogBudgets;
use super::limiter::{MAX_CORE_INSTANCES, MAX_MEMORIES, MAX_TABLES, MemoryBudget};
use super::outbound::BoundsOfAll;
use super::state::State;
use crate::config;

/// How long a guest runs before it lets others run.
pub(super) const TICK: Duration = Duration::from_millis(10);

/// Elements that a table of a plugin may have; Go's and Python's have thousands.
pub(super) const TABLE_ELEMENTS: usize = 65_536;

/// Instances beyond `max_instances` that the pool has room for: those that a load tries out, and
/// those whose end and successor overlap.
const SPARE_INSTANCES: u32 = 16;

/// A 32-bit linear memory; reserving all of it makes bounds checks unnecessary.
const FULL_RESERVATION: u64 = 4 << 30;

/// The plugin host: one per process. Plugins and instances keep it alive.
pub struct Host {
    pub(super) engine: Engine,
    pub(super) linker: Linker<State>,
    pub(super) memory: Arc<MemoryBudget>,
    pub(super) instances: Arc<Semaphore>,
    pub(super) hooks: PluginHooks,
    pub(super) cache: Cache,
    /// One compilation at a time: it uses every core by itself, and a second consumer with the same
    /// plugin then finds it in the cache.
    pub(super) compiling: Semaphore,
    pub(super) log_budgets: Mutex<LogBudgets>,
    /// Of requests to the outside.
    pub(super) outbound: Mutex<BoundsOfAll>,
    max_plugin_memory: u64,
    // Last, so that the epochs go on until nothing can run any more.
    _ticker: Ticker,
}

impl Host {
    /// Reserves the pool and starts the ticker.
    ///
    /// Where the address space is too small for full reservations (a limit on virtual memory, or
    /// very many instances), it falls back to reservations of `max_plugin_memory` with bounds
    /// checks, and at last to no pool at all, and says so in the log.
    ///
    /// # Errors
    /// The host's processor or operating system lacks what the engine needs, or no thread can be
    /// started.
    pub fn new(runtime: &config::Runtime, hooks: PluginHooks) -> anyhow::Result<Arc<Self>> {
        let engine = new_engine(runtime)?;
        let linker = imports::linker(&engine)
            .map_err(foreign)
            .context("linking the imports of plugins")?;
        let ticker = Ticker::start(engine.weak())?;
        Ok(Arc::new(Self {
            memory: MemoryBudget::new(runtime.plugin_memory),
            instances: Arc::new(Semaphore::new(runtime.max_instances as usize)),
            cache: Cache::new(&runtime.cache_dir, &engine),
            compiling: Semaphore::new(1),
            log_budgets: Mutex::default(),
            outbound: Mutex::default(),
            max_plugin_memory: runtime.max_plugin_memory,
            hooks,
            linker,
            engine,
            _ticker: ticker,
        }))
    }

    /// What the host reports to, as given to [`Host::new`].
    pub fn hooks(&self) -> &PluginHooks {
        &self.hooks
    }

    /// The bytes that one instance of a consumer may have: its own limit, or the process's where
    /// that is lower.
    pub(super) fn memory_limit(&self, limits: &config::Limits) -> u64 {
        limits.memory.min(self.max_plugin_memory)
    }
}

impl std::fmt::Debug for Host {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Host")
            .field("instances_left", &self.instances.available_permits())
            .finish_non_exhaustive()
    }
}

/// How linear memories are laid out, best first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Layout {
    /// 4 GiB of address space a slot: an access out of bounds faults, and needs no check.
    Full,
    /// `max_plugin_memory` of address space a slot: every access is checked.
    Compact,
    /// Memory is mapped as instances come.
    OnDemand,
}

fn new_engine(runtime: &config::Runtime) -> anyhow::Result<Engine> {
    let mut failure = None;
    for layout in [Layout::Full, Layout::Compact, Layout::OnDemand] {
        match Engine::new(&engine_config(runtime, layout)) {
            Ok(engine) => {
                if let Some(error) = failure {
                    tracing::warn!(
                        instances = runtime.max_instances,
                        ?layout,
                        error = %format_args!("{error:#}"),
                        "the address space is too small for the best memory layout: plugins run \
                         with bounds checks and are slower; lower [runtime] max_instances, or \
                         raise the limit on virtual memory (ulimit -v)"
                    );
                }
                return Ok(engine);
            }
            Err(error) => failure = failure.or(Some(error)),
        }
    }
    let failure = failure.map_or_else(|| anyhow::anyhow!("no layout was tried"), foreign);
    Err(failure).context("starting the WebAssembly engine")
}

/// The engine's errors are of a type of their own.
fn foreign(error: wasmtime::Error) -> anyhow::Error {
    anyhow::anyhow!("{error:#}")
}

fn engine_config(runtime: &config::Runtime, layout: Layout) -> Config {
    let page = 64 << 10;
    let memory = runtime
        .max_plugin_memory
        .clamp(page, FULL_RESERVATION)
        .next_multiple_of(page);
    let mut config = Config::new();
    config
        .wasm_component_model(true)
        .wasm_memory64(false)
        .relaxed_simd_deterministic(true)
        .concurrency_support(false)
        .epoch_interruption(true)
        .cranelift_opt_level(OptLevel::Speed);
    match layout {
        Layout::Full => {
            config
                .memory_reservation(FULL_RESERVATION)
                .allocation_strategy(pool(runtime, memory));
        }
        Layout::Compact => {
            config
                .memory_reservation(memory)
                .memory_guard_size(page)
                .memory_may_move(false)
                .allocation_strategy(pool(runtime, memory));
        }
        Layout::OnDemand => {
            config.memory_reservation(0).memory_guard_size(page);
        }
    }
    config
}

fn pool(runtime: &config::Runtime, memory: u64) -> PoolingAllocationConfig {
    let instances = runtime.max_instances.saturating_add(SPARE_INSTANCES);
    // Room for each instance to have all that one may have: else a few greedy ones would take the
    // places of all others. It is address space alone until it is used.
    let most = |each: usize| u32::try_from(each).unwrap_or(u32::MAX);
    let room_for = |each: usize| instances.saturating_mul(most(each));
    let mut pool = PoolingAllocationConfig::new();
    pool.total_component_instances(instances)
        .total_core_instances(room_for(MAX_CORE_INSTANCES))
        .total_memories(room_for(MAX_MEMORIES))
        .total_tables(room_for(MAX_TABLES))
        .total_stacks(instances)
        .max_core_instances_per_component(most(MAX_CORE_INSTANCES))
        .max_memories_per_component(most(MAX_MEMORIES))
        .max_tables_per_component(most(MAX_TABLES))
        .max_tables_per_module(8)
        .max_memories_per_module(2)
        .max_memory_size(usize::try_from(memory).unwrap_or(usize::MAX))
        .table_elements(TABLE_ELEMENTS);
    pool
}

/// The thread that ends every guest's turn.
struct Ticker {
    stop: Option<SyncSender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Ticker {
    fn start(engine: EngineWeak) -> anyhow::Result<Self> {
        let (stop, stopped) = sync_channel(0);
        let thread = std::thread::Builder::new()
            .name("plugin-epochs".into())
            .spawn(move || tick(&engine, &stopped))
            .context("starting the thread that interrupts plugins")?;
        Ok(Self {
            stop: Some(stop),
            thread: Some(thread),
        })
    }
}

fn tick(engine: &EngineWeak, stopped: &Receiver<()>) {
    while stopped.recv_timeout(TICK) == Err(RecvTimeoutError::Timeout) {
        match engine.upgrade() {
            Some(engine) => engine.increment_epoch(),
            None => return,
        }
    }
}

impl Drop for Ticker {
    fn drop(&mut self) {
        // The closed channel wakes the thread at once, so the join takes microseconds.
        self.stop = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn runtime(max_instances: u32) -> config::Runtime {
        config::Runtime {
            instance: None,
            shutdown_timeout: Duration::from_secs(1),
            max_instances,
            max_plugin_memory: 256 << 20,
            plugin_memory: 2 << 30,
            cache_dir: std::env::temp_dir().join("millstream-engine-test"),
        }
    }

    /// Each layout must make an engine by itself, or the fall-back ends in an error at start-up.
    #[test]
    fn every_layout_makes_an_engine() {
        for layout in [Layout::Full, Layout::Compact, Layout::OnDemand] {
            Engine::new(&engine_config(&runtime(1000), layout)).unwrap();
        }
    }

    /// More instances than 4-GiB slots fit the address space still start.
    #[test]
    fn too_many_instances_fall_back() {
        let many = runtime(40_000);
        assert!(Engine::new(&engine_config(&many, Layout::Full)).is_err());
        new_engine(&many).unwrap();
    }

    /// A thread that outlives its host would tick for ever, once a host.
    #[test]
    fn the_ticker_ends_with_the_host() {
        let engine = Engine::default();
        let ticker = Ticker::start(engine.weak()).unwrap();
        drop(ticker);
    }
}
