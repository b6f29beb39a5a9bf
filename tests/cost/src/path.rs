//! Events through a whole consumer, from admission to commit, on one thread with a paused clock.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use millstream::config::Delivery;
use millstream::consumer::generation::Generation;
use millstream::consumer::runner::{Parts, Runner};
use millstream::consumer::status;
use millstream::metrics::Metrics;
use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::passing::Passing;
use crate::session::Broker;
use crate::setting::{self, Setting};

/// Of the paused clock: a consumer that stands still fails at once.
const LONG: Duration = Duration::from_secs(60);

/// Lets a consumer work off so many events under this guarantee.
///
/// # Errors
/// It stands still, or does not write each event.
pub fn run(setting: &Setting, events: u64, delivery: Delivery) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()?;
    runtime.block_on(consume(setting, events, delivery))
}

async fn consume(setting: &Setting, events: u64, delivery: Delivery) -> Result<()> {
    let mut settings = setting::consumer(&setting.config()?)?;
    settings.delivery = delivery;
    let broker = Broker::new(events)?;
    let metrics = Metrics::new();
    let ledger = metrics.ledger(&settings.name);
    let generation = Generation::new(1, Arc::new(Passing::new()), Arc::new(settings));
    let runner = Runner::new(Parts {
        status: status::starting(1, generation.digest().clone()),
        ledger,
        generation: Arc::new(generation),
        session: broker.join(),
        first_instance: None,
    });
    let (drain, drained) = oneshot::channel();
    let mut consumer = tokio::spawn(runner.run(drained));
    tokio::select! {
        done = tokio::time::timeout(LONG, broker.is_done()) => {
            done.context("the consumer stands still")?;
        }
        ended = &mut consumer => bail!("the consumer ended by itself: {ended:?}"),
    }
    if drain.send(Instant::now() + LONG).is_err() {
        bail!("the consumer ended by itself");
    }
    consumer.await??;
    let written = broker.written();
    ensure!(written == events, "{written} events were written");
    Ok(())
}
