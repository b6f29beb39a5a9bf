//! Whether the cluster answers: a question now and then, for clients without work hear nothing.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rdkafka::client::Client;
use rdkafka::error::KafkaError;
use rdkafka::types::RDKafkaType;

use super::client::{Listener, Reach, Settings};
use super::errors::broker_error;
use super::{no_thread, raw};
use crate::broker::BrokerError;
use crate::broker::wake::Wake;

/// How often a cluster that answered is asked again.
const PERIOD: Duration = Duration::from_secs(5);
/// How soon one that did not is.
const RETRY: Duration = Duration::from_millis(500);
const WAIT_MS: i32 = 2_000;

/// A thread that asks. It ends with this handle, in its own time.
pub(super) struct Health {
    stop: Arc<(AtomicBool, Wake)>,
}

impl Health {
    /// Starts to ask.
    ///
    /// # Errors
    /// Where the client or the thread cannot be made.
    pub(super) fn start(
        settings: &Settings,
        listener: Listener,
        reach: Arc<Reach>,
    ) -> Result<Self, BrokerError> {
        let config = settings.admin();
        let refused = |error: KafkaError| broker_error("the Kafka client", &error);
        let native = config.create_native_config().map_err(refused)?;
        let client = Client::new(&config, native, RDKafkaType::RD_KAFKA_PRODUCER, listener)
            .map_err(refused)?;
        let servers = settings.servers().to_owned();
        let stop = Arc::new((AtomicBool::new(false), Wake::default()));
        let stopped = stop.clone();
        std::thread::Builder::new()
            .name("kafka-health".to_owned())
            .spawn(move || {
                while !stopped.0.load(Ordering::Relaxed) {
                    let up = raw::probe(&client, WAIT_MS);
                    if reach.set(up) {
                        if up {
                            tracing::info!(servers, "the Kafka cluster answers");
                        } else {
                            tracing::warn!(servers, "the Kafka cluster does not answer");
                        }
                    }
                    stopped.1.wait(if up { PERIOD } else { RETRY });
                }
            })
            .map_err(no_thread)?;
        Ok(Self { stop })
    }

    /// Ends the thread.
    pub(super) fn stop(&self) {
        self.stop.0.store(true, Ordering::Relaxed);
        self.stop.1.notify();
    }
}

impl Drop for Health {
    fn drop(&mut self) {
        self.stop();
    }
}
