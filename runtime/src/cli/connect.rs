//! From a configuration file to the topics of its broker.
//!
//! ```text
//! file ─▶ Config ─┬─ kafka ─────────────────────────────▶ the cluster
//!                 └─ embedded ─┬─ a runtime answers ────▶ its HTTP interface
//!                              └─ none does ────────────▶ the store itself
//! ```

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use anyhow::Context as _;

use super::{Context, Failure, OutputFormat};
use crate::broker::embedded::EmbeddedBroker;
use crate::broker::kafka::KafkaBroker;
use crate::broker::remote::{Remote, store_id};
use crate::broker::{Broker, BrokerError, Topics};
use crate::config::{self, Config};

/// A way to a broker's topics.
pub struct Connection {
    pub topics: Arc<dyn Topics>,
    /// The broker, where this process opened it.
    broker: Option<Arc<dyn Broker>>,
}

impl Connection {
    /// Closes what was opened.
    pub async fn close(self) {
        if let Some(broker) = self.broker {
            broker.close().await;
        }
    }
}

/// Reads the configuration.
///
/// # Errors
/// [`Failure::Configuration`] with all that is wrong.
pub fn load(context: &Context) -> anyhow::Result<Config> {
    let environment = |name: &str| std::env::var(name).ok();
    config::load(&context.config, &environment).map_err(|problems| {
        let text = match context.output {
            OutputFormat::Text => problems.render(super::colors_wanted_on_stderr()),
            OutputFormat::Json => problems.to_json().to_string(),
        };
        Failure::Configuration(text).into()
    })
}

/// The running runtime of this configuration, if one answers and has this broker's data.
///
/// # Errors
/// It answers that the token is wrong.
pub async fn running(config: &Config) -> anyhow::Result<Option<Remote>> {
    let address = reachable(config.admin.listen);
    let remote = Remote::new(&address.to_string(), config.admin.token.clone());
    let ours = store_id(&config.broker);
    match remote.runtime().await {
        Ok(report) if report.store == ours => Ok(Some(remote)),
        Ok(_) => {
            eprintln!(
                "note: the runtime at {address} has another broker than {}; it is left alone",
                config.file.display()
            );
            Ok(None)
        }
        Err(BrokerError::Refused(text)) => {
            Err(anyhow::anyhow!(text)
                .context(format!("the runtime at {address} does not let us in")))
        }
        Err(_) => Ok(None),
    }
}

/// Connects to the broker of a configuration.
///
/// # Errors
/// [`Failure::Unreachable`] where neither a runtime answers nor the store can be opened, or the
/// cluster cannot be connected to.
pub async fn connect(config: &Config) -> anyhow::Result<Connection> {
    match &config.broker {
        config::Broker::Kafka(_) => opened(open(config).await.context("on Kafka")?),
        config::Broker::Embedded(embedded) => {
            if let Some(remote) = running(config).await? {
                return Ok(Connection {
                    topics: Arc::new(remote),
                    broker: None,
                });
            }
            let broker = open(config).await.map_err(|error| {
                Failure::Unreachable(format!(
                    "no runtime answers on {}, and the store in {} cannot be opened: {error}",
                    reachable(config.admin.listen),
                    embedded.data_dir.display()
                ))
            })?;
            opened(broker)
        }
    }
}

fn opened(broker: Arc<dyn Broker>) -> anyhow::Result<Connection> {
    Ok(Connection {
        topics: broker.topics(),
        broker: Some(broker),
    })
}

/// Where a listener's address is reached from the same machine.
fn reachable(listen: SocketAddr) -> SocketAddr {
    let ip = match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, listen.port())
}

/// Opens the broker in this process, on a thread that may block.
async fn open(config: &Config) -> Result<Arc<dyn Broker>, BrokerError> {
    let config = config.clone();
    let opening = tokio::task::spawn_blocking(move || open_blocking(&config));
    opening
        .await
        .unwrap_or_else(|error| Err(BrokerError::Store(format!("opening it failed: {error}"))))
}

fn open_blocking(config: &Config) -> Result<Arc<dyn Broker>, BrokerError> {
    match &config.broker {
        config::Broker::Embedded(embedded) => {
            EmbeddedBroker::open(embedded, &config.topics).map(|broker| broker as Arc<dyn Broker>)
        }
        config::Broker::Kafka(kafka) => {
            // Static membership is the running runtime's: a command must not take its place.
            KafkaBroker::connect(kafka, None).map(|broker| broker as Arc<dyn Broker>)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listener_on_every_address_is_reached_over_loopback() {
        for (listen, wanted) in [
            ("0.0.0.0:9464", "127.0.0.1:9464"),
            ("[::]:9464", "[::1]:9464"),
            ("127.0.0.1:1", "127.0.0.1:1"),
            ("10.1.2.3:9464", "10.1.2.3:9464"),
        ] {
            let listen: SocketAddr = listen.parse().expect("an address");
            assert_eq!(reachable(listen).to_string(), wanted);
        }
    }
}
