//! Batches of events through a real instance: lowered, passed by the guest, lifted, checked.

use std::time::Duration;

use anyhow::{Result, ensure};
use millstream::plugin::{CallContext, Host, PluginHooks};
use millstream_wire as wire;

use crate::events;
use crate::setting::{self, Setting};

/// Events of a batch, as in a consumer that has much to do.
const BATCH: usize = 256;
/// A guest under valgrind is slow.
const DEADLINE: Duration = Duration::from_secs(300);

/// Lets an instance answer so many events.
///
/// # Errors
/// The plugin does not load, or does not pass each event on.
pub fn run(setting: &Setting, events: u64) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(calls(setting, events))
}

async fn calls(setting: &Setting, events: u64) -> Result<()> {
    let config = setting.config()?;
    let mut consumer = setting::consumer(&config)?;
    consumer.limits.init = DEADLINE;
    let host = Host::new(&config.runtime, PluginHooks::default())?;
    let plugin = host.load(&consumer, 1).await?;
    let mut instance = plugin.instantiate().await?;
    let context = CallContext { deadline: DEADLINE };
    // One for all: making it is the adapter's work and not the wall's.
    let block = events::block(0, BATCH, events::SHORT);
    let mut left = events;
    while left > 0 {
        let count = left.min(BATCH as u64) as usize;
        let batch = wire::Batch {
            events: &block.events()[..count],
            headers: block.headers(),
            data: block.data(),
            extras: &[],
            budget_ms: 5_000,
            bits: wire::BATCH_IN_ORDER,
        };
        let checked = instance.process(batch, &context).await?;
        let passed = checked.outcome().outputs.len();
        ensure!(passed == count, "{passed} of {count} events were passed on");
        left -= count as u64;
    }
    Ok(())
}
