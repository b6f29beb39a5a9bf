//! What the wall of the sandbox costs: start, load, instantiate, and calls with batches of several
//! sizes. Prints medians; run it in a release build on a quiet machine.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use millstream::event::{Block, BlockBuilder, NewEvent, TopicPartition};
use millstream::plugin::{CallContext, Host, Instance, PluginHooks};
use millstream_sandbox_tests::handmade::{self, Core};
use millstream_sandbox_tests::{batch, consumer, memory, runtime};
use tokio::time::Instant;

/// Events of 100 bytes with two headers; the plugin forwards each of them.
fn block(events: usize) -> Block {
    let value = "x".repeat(100);
    let mut block = BlockBuilder::new(TopicPartition::new("orders", 0), events, events * 160);
    for offset in 0..events {
        block.push(NewEvent {
            offset: offset as u64,
            timestamp_ms: 1_700_000_000_000,
            timestamp_of_broker: false,
            key: Some(b"customer-17"),
            value: Some(value.as_bytes()),
        });
        block.push_header(b"type", Some(b"OrderPlaced"));
        block.push_header(b"region", Some(b"eu"));
    }
    block.build()
}

async fn calls(
    instance: &mut dyn Instance,
    block: &Block,
    rounds: usize,
) -> anyhow::Result<Duration> {
    let context = CallContext {
        deadline: Duration::from_secs(10),
    };
    let mut times = Vec::with_capacity(rounds);
    for _ in 0..rounds {
        let start = Instant::now();
        let checked = instance.process(batch(block), &context).await?;
        times.push(start.elapsed());
        std::hint::black_box(checked);
    }
    Ok(median(&mut times))
}

fn median(times: &mut [Duration]) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let mut settings = runtime(&folder.path().join("cache"));
    settings.max_instances = 1_000;
    let start = Instant::now();
    let host = Host::new(&settings, PluginHooks::default())?;
    println!("host                     {:>12.1?}", start.elapsed());
    let consumer = consumer("wall", r#"{"init":"honest"}"#);
    let start = Instant::now();
    host.load(&consumer, 1).await?;
    println!("load, compiled           {:>12.1?}", start.elapsed());
    let start = Instant::now();
    let plugin = host.load(&consumer, 2).await?;
    println!("load, from the cache     {:>12.1?}", start.elapsed());

    let mut times = Vec::new();
    for _ in 0..2_000 {
        let start = Instant::now();
        let instance = plugin.instantiate().await?;
        times.push(start.elapsed());
        drop(instance);
    }
    println!("instantiate and init     {:>12.1?}", median(&mut times));

    for events in [1, 16, 64, 256] {
        let mut instance = plugin.instantiate().await?;
        let block = block(events);
        calls(&mut *instance, &block, 500).await?;
        let time = calls(&mut *instance, &block, 4_000).await?;
        let each = time.as_nanos() as f64 / events as f64;
        println!("forward, batch of {events:>3}    {time:>12.1?} {each:>9.0} ns an event");
    }
    compiling(&host, folder.path()).await
}

/// What functions cost whose loops carry all of their locals, up to the most that is compiled.
async fn compiling(host: &Arc<Host>, folder: &Path) -> anyhow::Result<()> {
    for side in [250, 500, 1_000, 2_000, 2_800] {
        let core = Core {
            more: handmade::carrying(side, side),
            ..Core::default()
        };
        let path = folder.join(format!("{side}.wasm"));
        let component = core.component()?;
        std::fs::write(&path, &component)?;
        let mut consumer = consumer("compiling", "{}");
        consumer.plugin.path = path;
        memory::forget_peak()?;
        let (before, start) = (memory::resident()?, Instant::now());
        host.load(&consumer, 1).await?;
        let peak = memory::peak()?.saturating_sub(before);
        println!(
            "compile {side:>5} loops × locals {:>12.1?} {:>6} MiB for {} KB",
            start.elapsed(),
            peak >> 20,
            component.len() / 1_000
        );
    }
    Ok(())
}
