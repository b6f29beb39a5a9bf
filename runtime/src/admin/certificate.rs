//! The listener's certificate, as it is on disk now.
//!
//! ```text
//! [admin] tls ─▶ Certificate ◀─ every second: another time, length or file? read it again
//!                     └─▶ each handshake takes the newest that was good
//! ```
//! Certificates are renewed while the runtime runs. One that cannot be used changes nothing.

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use tokio_rustls::TlsAcceptor;

use crate::config::{AdminTls, PrivateKey};
use crate::tls::{self, Unfit};

/// How often the files are looked at.
const LOOK: Duration = Duration::from_secs(1);

/// What is shown to clients, and where it comes from.
#[derive(Debug)]
pub struct Certificate {
    settings: AdminTls,
    /// What the files were before they were read.
    first: Mark,
    newest: ArcSwap<CertifiedKey>,
}

/// What tells that a file is another one: device, inode, length and time of the last change.
type Mark = Vec<Option<(u64, u64, u64, i64, i64)>>;

impl Certificate {
    /// Reads both files. Blocks.
    ///
    /// # Errors
    /// Which of both cannot be used, and why.
    pub fn read(settings: &AdminTls) -> Result<Arc<Self>, Unfit> {
        let first = mark(settings);
        let identity = tls::identity(settings)?;
        warn_if_out_of_date(&identity);
        Ok(Arc::new(Self {
            first,
            settings: settings.clone(),
            newest: ArcSwap::new(identity),
        }))
    }

    /// What makes TLS of an accepted connection.
    ///
    /// # Errors
    /// Only by a fault of the library.
    pub fn acceptor(self: &Arc<Self>) -> Result<TlsAcceptor, rustls::Error> {
        let config = tls::server(self.clone())?;
        Ok(TlsAcceptor::from(Arc::new(config)))
    }

    /// Follows the files for as long as it runs.
    pub async fn follow(self: Arc<Self>) {
        let mut applied = self.first.clone();
        let mut ticks = tokio::time::interval(LOOK);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let seen = self.mark_apart().await;
            if seen == applied {
                continue;
            }
            // Certificate and key are written one after the other: what does not fit together yet
            // is read again as soon as either changes.
            applied = seen;
            let again = self.clone();
            let read = tokio::task::spawn_blocking(move || tls::identity(&again.settings)).await;
            match read {
                Ok(Ok(identity)) => {
                    warn_if_out_of_date(&identity);
                    self.newest.store(identity);
                    tracing::info!("the certificate of the HTTP interface was read again");
                }
                Ok(Err(unfit)) => tracing::error!(
                    "the new certificate of the HTTP interface cannot be used, the old one stays: {unfit}"
                ),
                // The runtime ends.
                Err(_) => return,
            }
        }
    }

    async fn mark_apart(self: &Arc<Self>) -> Mark {
        let files = self.clone();
        let looked = tokio::task::spawn_blocking(move || mark(&files.settings)).await;
        looked.unwrap_or_default()
    }
}

/// It is shown all the same: a new one may be put there at any moment.
fn warn_if_out_of_date(identity: &CertifiedKey) {
    if let Some(why) = identity.cert.iter().find_map(tls::out_of_date) {
        tracing::warn!("clients refuse the certificate of the HTTP interface: it {why}");
    }
}

fn mark(settings: &AdminTls) -> Mark {
    let of = |path: &Path| {
        let file = std::fs::metadata(path).ok()?;
        Some((
            file.dev(),
            file.ino(),
            file.len(),
            file.mtime(),
            file.mtime_nsec(),
        ))
    };
    let mut marks = vec![of(&settings.certificate)];
    if let PrivateKey::File(path) = &settings.key {
        marks.push(of(path));
    }
    marks
}

impl ResolvesServerCert for Certificate {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.newest.load_full())
    }
}
