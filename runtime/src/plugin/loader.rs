//! From a consumer's configuration to a plugin that can be instantiated.
//!
//! ```text
//! file ─▶ digest ─▶ inspect ─▶ granted? ─▶ cache ── hit ──────────────┐
//!                                             └── miss ─▶ compile ─▶ store
//!                                                                     ▼
//!                                     plugin ◀─ tried out ◀─ imports linked
//! ```
//!
//! Reading and compiling run on the blocking pool, away from the data path.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use wasmtime::component::Component;

use super::abi::v0_1::Exports;
use super::cache::Found;
use super::compile_cost;
use super::engine::Host;
use super::error::LoadError;
use super::generation::{Settings, Shared, TryOut, WasmPlugin};
use super::grants::{self, Grants};
use super::hooks::CacheResult;
use super::inspect::{self, Inspection};
use super::journal::budget_of;
use super::state::Identity;
use super::{CallError, Plugin, PluginInfo, StartError, imports};
use crate::config;

impl Host {
    /// Loads the plugin of a consumer as its `generation`th: reads the file anew, compiles it or
    /// takes it from the cache, links its imports, and tries whether it can be instantiated.
    /// `init` does not run.
    ///
    /// # Errors
    /// What is wrong with the component, and what to do about it.
    pub async fn load(
        self: &Arc<Self>,
        consumer: &config::Consumer,
        generation: u64,
    ) -> Result<Arc<dyn Plugin>, LoadError> {
        let path = consumer.plugin.path.clone();
        let (component, inspection) = self.compiled(consumer).await?;
        let exports = Exports::of(&component, &inspection.contract).map_err(|detail| {
            LoadError::Mismatch {
                path: path.clone(),
                detail,
            }
        })?;
        let pre = self.link(&path, &component)?;
        let digest: Arc<str> = inspection.digest.into();
        let grants = self.grants(consumer).await?;
        let plugin = WasmPlugin::new(Shared {
            host: Arc::clone(self),
            pre,
            exports,
            info: PluginInfo {
                digest: Arc::clone(&digest),
                contract: inspection.contract,
                size: inspection.size,
            },
            identity: Arc::new(Identity {
                consumer: Arc::clone(&consumer.name),
                generation,
                digest,
                shadow: false,
            }),
            log_budget: budget_of(&mut self.log_budgets.lock(), &consumer.name),
            grants,
            settings: Arc::new(Settings::of(self, consumer)),
        });
        plugin.try_out().await.map_err(|error| match error {
            TryOut::Mismatch(detail) => LoadError::Mismatch {
                path: path.clone(),
                detail,
            },
            TryOut::Start(StartError::Failed(CallError::Memory(detail))) => LoadError::Limits {
                path: path.clone(),
                detail: format!("it starts with {detail}"),
            },
            TryOut::Start(StartError::Exhausted(detail)) => LoadError::NoRoom {
                path: path.clone(),
                detail,
            },
            TryOut::Start(StartError::Failed(
                error @ (CallError::Trap(_) | CallError::Deadline(_)),
            )) => LoadError::Start {
                path: path.clone(),
                detail: error.to_string(),
            },
            TryOut::Start(other) => LoadError::Limits {
                path: path.clone(),
                detail: other.to_string(),
            },
        })?;
        Ok(Arc::new(plugin))
    }

    async fn compiled(
        self: &Arc<Self>,
        consumer: &config::Consumer,
    ) -> Result<(Component, Inspection), LoadError> {
        let source = &consumer.plugin;
        let path = source.path.clone();
        let internal = |detail: String| LoadError::Internal {
            path: path.clone(),
            detail,
        };
        let turn = self.compiling.acquire().await;
        let _turn = turn.map_err(|error| internal(error.to_string()))?;
        let host = Arc::clone(self);
        let job = Job {
            path: source.path.clone(),
            sha256: source.sha256.clone(),
            granted: consumer.capabilities.clone(),
        };
        tokio::task::spawn_blocking(move || job.run(&host))
            .await
            .map_err(|error| internal(error.to_string()))?
    }

    async fn grants(
        self: &Arc<Self>,
        consumer: &config::Consumer,
    ) -> Result<Arc<Grants>, LoadError> {
        let (host, settings) = (Arc::clone(self), consumer.clone());
        let made = tokio::task::spawn_blocking(move || Grants::of(&host, &settings)).await;
        let internal = |detail: String| LoadError::Internal {
            path: consumer.plugin.path.clone(),
            detail,
        };
        let made = made.map_err(|error| internal(error.to_string()))?;
        made.map(Arc::new).map_err(internal)
    }

    fn link(
        &self,
        path: &Path,
        component: &Component,
    ) -> Result<wasmtime::component::InstancePre<super::state::State>, LoadError> {
        let mismatch = |error: wasmtime::Error| LoadError::Mismatch {
            path: path.into(),
            detail: format!("{error:#}"),
        };
        let mut linker = self.linker.clone();
        imports::link_traps(&mut linker, component).map_err(mismatch)?;
        linker.instantiate_pre(component).map_err(mismatch)
    }
}

/// The part that blocks.
struct Job {
    path: PathBuf,
    sha256: Option<String>,
    granted: config::Capabilities,
}

impl Job {
    fn run(self, host: &Host) -> Result<(Component, Inspection), LoadError> {
        let bytes = inspect::read(&self.path)?;
        let digest = inspect::sha256(&bytes);
        if let Some(expected) = self.sha256.filter(|expected| *expected != digest) {
            return Err(LoadError::Digest {
                path: self.path,
                expected,
                actual: digest,
            });
        }
        let inspection = inspect::check_component(&self.path, &bytes)?;
        grants::check(&self.path, &inspection, &self.granted)?;
        let result = match host.cache.load(&host.engine, &digest) {
            Found::Hit(component) => {
                (host.hooks.compile_cache)(CacheResult::Hit);
                return Ok((component, inspection));
            }
            Found::Nothing(result) => result,
        };
        (host.hooks.compile_cache)(result);
        compile_cost::check(&bytes).map_err(|detail| LoadError::Costly {
            path: self.path.clone(),
            detail,
        })?;
        let component =
            Component::from_binary(&host.engine, &bytes).map_err(|error| LoadError::Compile {
                path: self.path.clone(),
                detail: format!("{error:#}"),
            })?;
        if let Err(error) = host.cache.store(&digest, &component) {
            tracing::warn!(
                %error,
                "a compiled plugin is not kept in [runtime] cache_dir; it is compiled again at the \
                 next start"
            );
        }
        Ok((component, inspection))
    }
}
