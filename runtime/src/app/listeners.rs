//! The sockets of the control plane, bound before anything else starts, and who serves them.

use std::sync::Arc;

use anyhow::Context as _;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::StartFailure;
use crate::admin::{self, Certificate, State};
use crate::config::{self, Config};

/// See the module.
pub(super) struct Listeners {
    admin: TcpListener,
    certificate: Option<Arc<Certificate>>,
    metrics: Option<TcpListener>,
}

impl Listeners {
    /// Binds them.
    ///
    /// # Errors
    /// A port is taken, or the certificate cannot be used.
    pub(super) async fn bind(admin: &config::Admin) -> anyhow::Result<Self> {
        let bind = async |address: std::net::SocketAddr, key: &str| {
            TcpListener::bind(address).await.map_err(|error| {
                StartFailure::Host(format!(
                    "cannot listen on {address} ({key}): {error}; stop what holds the port, or name another one"
                ))
            })
        };
        let certificate = match admin.tls.clone() {
            None => None,
            Some(tls) => {
                let reading = tokio::task::spawn_blocking(move || Certificate::read(&tls));
                let read = reading.await.context("reading the certificate panicked")?;
                let unfit = |unfit| StartFailure::Configuration(format!("[admin] tls: {unfit}"));
                Some(read.map_err(unfit)?)
            }
        };
        Ok(Self {
            certificate,
            admin: bind(admin.listen, "[admin] listen").await?,
            metrics: match admin.metrics_listen {
                Some(address) => Some(bind(address, "[metrics] listen").await?),
                None => None,
            },
        })
    }

    /// Answers until `stop`, and finishes the requests that run then.
    pub(super) fn serve(
        self,
        state: Arc<State>,
        config: &Config,
        stop: &CancellationToken,
    ) -> tokio::task::JoinHandle<()> {
        let (admin, stop) = (config.admin.clone(), stop.clone());
        tokio::spawn(async move {
            let metrics = async {
                if let Some(listener) = self.metrics {
                    admin::serve_metrics(listener, state.clone(), stop.clone()).await;
                }
            };
            tokio::join!(
                admin::serve(
                    self.admin,
                    self.certificate,
                    state.clone(),
                    &admin,
                    stop.clone()
                ),
                metrics
            );
        })
    }
}
