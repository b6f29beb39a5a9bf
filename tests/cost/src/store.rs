//! The embedded store: appends, each durable before the next, and reads of what is stored.

use std::sync::Arc;

use anyhow::{Context, Result, bail, ensure};
use millstream::broker::embedded::EmbeddedBroker;
use millstream::broker::{Broker, ReadLimits};
use millstream::config;

use crate::events;
use crate::setting::Setting;

/// Events of an append, and so of a stored batch.
const APPEND: usize = 500;
/// What a read asks for: less than a batch, as a reader does that has little room.
const READ: ReadLimits = ReadLimits {
    events: 200,
    bytes: 1 << 20,
};

/// Appends so many events.
///
/// # Errors
/// The store fails, or the events do not stand where they must.
pub fn append(setting: &Setting, events: u64) -> Result<()> {
    on_broker(setting, async |broker| {
        let topic: Arc<str> = events::TOPIC.into();
        let mut next = 0;
        while next < events {
            let count = (events - next).min(APPEND as u64) as usize;
            let records = events::records(&topic, next, count);
            let places = broker.topics().produce(records).await?;
            next += count as u64;
            let last = places.last().context("nothing was written")?;
            ensure!(last.offset + 1 == next, "the last event is {last:?}");
        }
        Ok(())
    })
}

/// Reads so many events that were appended before by another process: from the store, and not from
/// what the broker has in memory of its latest appends.
///
/// # Errors
/// The store fails, or holds other events.
pub fn read(setting: &Setting, events: u64) -> Result<()> {
    on_broker(setting, async |broker| {
        let (topics, partition) = (broker.topics(), events::partition());
        let mut next = 0;
        while next < events {
            let chunk = topics.read(&partition, next, READ).await?;
            ensure!(chunk.next > next, "nothing is stored at {next}");
            let known = chunk.block.iter().all(|e| events::is_value(e.value()));
            ensure!(known, "another event is stored behind {next}");
            next = chunk.next;
        }
        Ok(())
    })
}

fn on_broker(
    setting: &Setting,
    work: impl AsyncFnOnce(&EmbeddedBroker) -> Result<()>,
) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let config = setting.config()?;
    let config::Broker::Embedded(embedded) = &config.broker else {
        bail!("the broker is not the embedded one");
    };
    let broker = EmbeddedBroker::open(embedded, &config.topics)?;
    runtime.block_on(async {
        work(&broker).await?;
        broker.close().await;
        Ok(())
    })
}
