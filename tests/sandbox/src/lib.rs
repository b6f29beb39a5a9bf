//! What the tests of the sandbox share: the hostile plugin, built once, and a consumer that runs it.

pub mod cases;
#[cfg(test)]
mod guide;
pub mod handmade;
pub mod memory;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use millstream::config;
use millstream::event::{Block, BlockBuilder, NewEvent, TopicPartition};
use millstream::plugin::{CallContext, CallError, Host, Instance, Plugin, PluginHooks};
use millstream_wire as wire;

/// The component of the hostile plugin. The first caller builds it.
pub fn guest() -> &'static Path {
    static GUEST: OnceLock<PathBuf> = OnceLock::new();
    GUEST.get_or_init(|| match build() {
        Ok(path) => path,
        Err(error) => panic!("the hostile plugin was not built: {error:#}"),
    })
}

fn build() -> Result<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let target = target();
    let status = Command::new(env!("CARGO"))
        .args(["build", "--quiet", "--profile", "plugin"])
        .args(["--target", "wasm32-wasip2", "--package", "hostile"])
        .arg("--target-dir")
        .arg(&target)
        // Flags meant for the host's own build would be refused by the target.
        .env_remove("RUSTFLAGS")
        .env_remove("CARGO_ENCODED_RUSTFLAGS")
        .current_dir(&root)
        .status()
        .context("starting cargo")?;
    ensure!(status.success(), "cargo ended with {status}");
    Ok(target.join("wasm32-wasip2/plugin/hostile.wasm"))
}

fn target() -> PathBuf {
    let default = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target");
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(default, Into::into)
}

/// A host and a folder for a test's own files.
pub struct Bench {
    pub host: Arc<Host>,
    pub folder: tempfile::TempDir,
}

impl Bench {
    /// A host of moderate size. Compiled components are kept from run to run.
    pub fn new() -> Result<Self> {
        Self::with(PluginHooks::default(), |_| {})
    }

    /// A host with these hooks and changed settings.
    pub fn with(hooks: PluginHooks, change: impl FnOnce(&mut config::Runtime)) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let mut runtime = runtime(&target().join("sandbox-cache"));
        change(&mut runtime);
        Ok(Self {
            host: Host::new(&runtime, hooks)?,
            folder,
        })
    }

    /// Loads the hostile plugin for a consumer.
    pub async fn plugin(&self, consumer: &config::Consumer) -> Result<Arc<dyn Plugin>> {
        Ok(self.host.load(consumer, 1).await?)
    }

    /// An instance of the hostile plugin for a consumer.
    pub async fn instance(&self, consumer: &config::Consumer) -> Result<Box<dyn Instance>> {
        Ok(self.plugin(consumer).await?.instantiate().await?)
    }

    /// Writes a component that differs from the hostile plugin in these names. Names are swapped
    /// for others of the same length, so that the component stays well formed.
    pub fn forged(&self, name: &str, swaps: &[(&str, &str)]) -> Result<PathBuf> {
        let mut bytes = std::fs::read(guest())?;
        for (from, to) in swaps {
            ensure!(from.len() == to.len(), "{from} and {to} differ in length");
            let mut at = 0;
            while let Some(found) = find(&bytes[at..], from.as_bytes()) {
                at += found;
                bytes[at..at + to.len()].copy_from_slice(to.as_bytes());
            }
            ensure!(at > 0, "{from} is not in the component");
        }
        let path = self.folder.path().join(name);
        std::fs::write(&path, bytes)?;
        Ok(path)
    }
}

impl Bench {
    /// A consumer that runs this component, which is written to a file of this name.
    pub fn made(&self, name: &str, component: &[u8]) -> Result<config::Consumer> {
        let path = self.folder.path().join(format!("{name}.wasm"));
        std::fs::write(&path, component)?;
        let mut consumer = consumer("made", "{}");
        consumer.plugin.path = path;
        Ok(consumer)
    }
}

fn find(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    bytes.windows(wanted.len()).position(|part| part == wanted)
}

/// `[runtime]` with this cache folder.
pub fn runtime(cache_dir: &Path) -> config::Runtime {
    config::Runtime {
        instance: None,
        shutdown_timeout: Duration::from_secs(25),
        max_instances: 64,
        max_plugin_memory: 256 << 20,
        plugin_memory: 2 << 30,
        cache_dir: cache_dir.to_owned(),
    }
}

/// A consumer of this name that runs the hostile plugin with two outputs and this `config`.
pub fn consumer(name: &str, config: &str) -> config::Consumer {
    let output = |name: &str| config::Output {
        name: name.into(),
        topic: Some(name.into()),
        partitions: None,
    };
    config::Consumer {
        name: name.into(),
        previous_names: Vec::new(),
        group: format!("millstream.{name}").into(),
        enabled: true,
        plugin: config::PluginSource {
            path: guest().to_owned(),
            sha256: None,
            remote: None,
        },
        topics: vec![config::TopicPattern::Name("orders".into())],
        start: Some(config::Start::Beginning),
        delivery: config::Delivery::AtLeastOnce,
        ordering: config::Ordering::Partition,
        concurrency: 2,
        filter: config::filter::Filter::default(),
        batch: config::Batch {
            max_events: 256,
            max_bytes: 1 << 20,
        },
        in_flight: config::InFlight {
            max_events: 10_000,
            max_bytes: 64 << 20,
        },
        commit: config::CommitCadence {
            interval: Duration::from_millis(100),
            max_events: 10_000,
        },
        limits: config::Limits {
            memory: 32 << 20,
            deadline: Duration::from_secs(1),
            call: Duration::from_secs(30),
            init: Duration::from_secs(10),
            outputs: 10_000,
            output_bytes: 16 << 20,
            headers: 64,
            hops: 16,
        },
        retry: config::Retry {
            max_attempts: 5,
            initial: Duration::from_millis(100),
            max: Duration::from_secs(10),
            factor: 2.0,
            jitter: true,
            max_age: Duration::from_secs(3_600),
        },
        circuit_breaker: None,
        rate: None,
        deploy: config::Deploy::default(),
        dead_letter: None,
        config: config.into(),
        outputs: vec![output("default"), output("alerts")],
        on_lost_position: config::OnLostPosition::Stop,
        capabilities: config::Capabilities::default(),
        secrets: BTreeMap::new(),
    }
}

/// Events with these values, at offsets from `first` on, one second apart.
pub fn events(first: u64, values: &[&str]) -> Block {
    let source = TopicPartition::new("orders", 3);
    let mut block = BlockBuilder::new(source, values.len(), 256);
    for (index, value) in values.iter().enumerate() {
        block.push(NewEvent {
            offset: first + index as u64,
            timestamp_ms: 1_700_000_000_000 + 1_000 * index as i64,
            timestamp_of_broker: false,
            key: Some(b"key"),
            value: Some(value.as_bytes()),
        });
        block.push_header(b"region", Some(b"eu"));
    }
    block.build()
}

/// The events as they cross the wall.
pub fn batch(block: &Block) -> wire::Batch<'_> {
    wire::Batch {
        events: block.events(),
        headers: block.headers(),
        data: block.data(),
        extras: &[],
        budget_ms: 5_000,
        bits: wire::BATCH_IN_ORDER,
    }
}

/// One call with a deadline that nothing honest misses.
pub async fn call(
    instance: &mut dyn Instance,
    values: &[&str],
) -> Result<wire::Checked, CallError> {
    call_within(instance, values, Duration::from_secs(60)).await
}

/// One call that may take this long.
pub async fn call_within(
    instance: &mut dyn Instance,
    values: &[&str],
    deadline: Duration,
) -> Result<wire::Checked, CallError> {
    let block = events(100, values);
    instance
        .process(batch(&block), &CallContext { deadline })
        .await
}

/// The value of the only output that carries one of its own.
pub fn reply(checked: &wire::Checked) -> String {
    let outcome = checked.outcome();
    let value = outcome.outputs.first().map(|output| output.value);
    let bytes = value.and_then(|value| value.of(&outcome.data));
    String::from_utf8_lossy(bytes.unwrap_or_default()).into_owned()
}
