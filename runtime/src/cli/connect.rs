//! From a configuration file to the topics of its broker.
//!
//! ```text
//! file ─▶ Config ─┬─ kafka ─────────────────────────────▶ the cluster
//!                 └─ embedded ─┬─ a runtime answers ────▶ its HTTP interface
//!                              └─ none does ────────────▶ the store itself
//! ```

use std::sync::Arc;

use anyhow::Context as _;

use super::{Context, Failure, OutputFormat};
use crate::app;
use crate::broker::remote::{Remote, store_id};
use crate::broker::{Broker, BrokerError, Topics};
use crate::config::{self, Config, Problems, reachable};
use crate::tls;

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
    let mut config = config::load(&context.config, &environment)
        .map_err(|problems| failure(&problems, context))?;
    if let (Some(ca), Some(tls)) = (&context.ca, &mut config.admin.tls) {
        tls.ca = Some(ca.clone());
    }
    Ok(config)
}

/// The error that a command ends with for a configuration with these problems.
pub fn failure(problems: &Problems, context: &Context) -> anyhow::Error {
    let text = match context.output {
        OutputFormat::Text => problems.render(super::colors_wanted_on_stderr()),
        OutputFormat::Json => problems.to_json().to_string(),
    };
    Failure::Configuration(text).into()
}

/// The runtime that may answer on a configuration's address.
///
/// # Errors
/// The certificates that are to be trusted cannot be read.
fn remote(config: &Config) -> anyhow::Result<Remote> {
    let admin = &config.admin;
    let (address, token) = (reachable(admin.listen), admin.token.clone());
    let Some(settings) = &admin.tls else {
        return Ok(Remote::new(&address.to_string(), token));
    };
    let trusted = tls::trusted(settings.ca.as_deref())
        .map_err(|why| anyhow::anyhow!("cannot tell whom to trust: {why}"))?;
    let names = config::reached_under(admin.listen, &admin.hosts);
    // The certificate that the configuration names is the one that is shown, unless it was renewed
    // a second ago; what it is valid for is a name to ask for.
    let shown = tls::chain(&settings.certificate).unwrap_or_default();
    let fits = |name: &&String| shown.first().is_some_and(|one| tls::names(one, name));
    let name = names.iter().find(fits).or(names.first());
    let name = name.map_or_else(|| address.ip().to_string(), Clone::clone);
    Ok(Remote::over_tls(address, &name, trusted, token))
}

/// The running runtime of this configuration, if one answers and has this broker's data.
///
/// # Errors
/// It answers that the token is wrong, or its certificate is not trusted.
pub async fn running(config: &Config) -> anyhow::Result<Option<Remote>> {
    let address = reachable(config.admin.listen);
    let remote = remote(config)?;
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

/// Opens the broker in this process, on a thread that may block. Static membership is the running
/// runtime's: a command must not take its place.
async fn open(config: &Config) -> Result<Arc<dyn Broker>, BrokerError> {
    let config = config.clone();
    let opening = tokio::task::spawn_blocking(move || app::open_broker(&config, None));
    opening
        .await
        .unwrap_or_else(|error| Err(BrokerError::Store(format!("opening it failed: {error}"))))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::net::SocketAddr;
    use std::path::Path;

    use tokio::net::TcpListener;
    use tokio_util::sync::CancellationToken;

    use super::*;
    use crate::admin::{ConsumerReport, Health, Readiness, State, serve};
    use crate::broker::memory::Memory;

    struct Idle;

    impl Health for Idle {
        fn alive(&self) -> Result<(), String> {
            Ok(())
        }

        fn ready(&self) -> Readiness {
            Readiness::default()
        }

        fn draining(&self) -> bool {
            false
        }

        fn consumers(&self) -> Vec<ConsumerReport> {
            Vec::new()
        }
    }

    /// Where a runtime serves the topic `running`, and the configuration that names it; it says
    /// that its data is in `data`, beside the configuration.
    async fn runtime(folder: &Path, data: &str) -> (Config, CancellationToken) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let config = |data: &str| {
            let file = folder.join("millstream.toml");
            let text =
                format!("[broker]\ndata_dir = \"{data}\"\n[admin]\nlisten = \"{address}\"\n");
            std::fs::write(&file, text).expect("written");
            let loaded = config::load(&file, &|_| None);
            loaded.unwrap_or_else(|problems| panic!("{}", problems.render(false)))
        };
        let served = config(data);
        let state = State::new(
            Arc::new(String::new),
            Arc::new(Memory::with_topic("running", 1)),
            Arc::new(Idle),
            BTreeMap::new(),
            store_id(&served.broker),
        );
        let stop = CancellationToken::new();
        let (stopped, admin) = (stop.clone(), served.admin.clone());
        tokio::spawn(async move { serve(listener, None, Arc::new(state), &admin, stopped).await });
        (config("data"), stop)
    }

    async fn topics(config: &Config) -> Vec<String> {
        let connection = connect(config).await.expect("a connection");
        let topics = connection.topics.list().await.expect("topics");
        connection.close().await;
        topics.iter().map(|info| info.name.to_string()).collect()
    }

    #[tokio::test]
    async fn the_running_runtime_is_asked_and_without_one_the_store_is_opened() {
        let folder = tempfile::tempdir().expect("a folder");
        let (config, stop) = runtime(folder.path(), "data").await;
        assert_eq!(topics(&config).await, ["running"]);
        assert!(!folder.path().join("data").exists(), "the store was opened");
        stop.cancel();
        let gone = async { while running(&config).await.is_ok_and(|found| found.is_some()) {} };
        let waited = tokio::time::timeout(std::time::Duration::from_secs(10), gone).await;
        assert!(waited.is_ok(), "the runtime still answers");
        assert!(topics(&config).await.is_empty());
    }

    /// Two projects have the same default address: what is meant for one must not end up in the
    /// other.
    #[tokio::test]
    async fn a_runtime_with_other_data_is_left_alone() {
        let folder = tempfile::tempdir().expect("a folder");
        let (config, _stop) = runtime(folder.path(), "other").await;
        assert!(topics(&config).await.is_empty());
    }

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
