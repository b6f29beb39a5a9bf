//! Plugins from elsewhere: fetched before they are loaded, kept by their digests.
//!
//! ```text
//! consumers ─▶ in the store, whole? ─ yes ─────────────────────────────┐
//!                     └─ no ─▶ url: GET │ oci: manifest ─▶ layer ─▶ digest right? ─▶ store
//!                                                                      ▼
//!                                             `plugin.path` names a file, `plugin.sha256` its digest
//! ```
//! From there on a fetched plugin is a file like any other: whoever loads it checks the digest again.
//! Nothing here touches what runs.

mod challenge;
mod error;
mod registry;
mod store;
mod web;

use std::sync::Arc;

use futures::StreamExt as _;
use tokio::time::Instant;

pub use self::error::{FetchError, Why};

use self::registry::{Session, basic, layer};
use self::store::{Kind, Store, sha256};
use self::web::{Wanted, Web};
use crate::config::origin::{ArtifactVersion, Origin, Reference, authority};
use crate::config::{Config, PluginSource, RemotePlugin};

/// Plugins that are fetched at once: each may take `max_size` of memory.
const AT_ONCE: usize = 4;

/// A consumer whose plugin was not fetched, and why.
#[derive(Clone, Debug)]
pub struct NotFetched {
    pub consumer: Arc<str>,
    pub error: FetchError,
}

/// Sees to it that the plugins of all enabled consumers are files here, and lets their
/// configuration name them.
///
/// # Errors
/// Every plugin that cannot be had.
pub async fn bring(config: &mut Config) -> Result<(), Vec<NotFetched>> {
    let mut wanted: Vec<PluginSource> = Vec::new();
    for consumer in config.consumers.iter().filter(|consumer| consumer.enabled) {
        if consumer.plugin.remote.is_some() && !wanted.contains(&consumer.plugin) {
            wanted.push(consumer.plugin.clone());
        }
    }
    if wanted.is_empty() {
        return Ok(());
    }
    let store = Store::new(config.runtime.components());
    let web = Web::new(config.registries.clone());
    let brought: Vec<_> = futures::stream::iter(wanted)
        .map(|source| async {
            let digest = digest_of(&store, &web, &source).await;
            (source, digest)
        })
        .buffer_unordered(AT_ONCE)
        .collect()
        .await;
    let mut failed = Vec::new();
    for consumer in &mut config.consumers {
        let found = brought
            .iter()
            .find(|(source, _)| *source == consumer.plugin);
        match found {
            // The same for most: what was written named the digest.
            Some((_, Ok(digest))) if consumer.plugin.sha256.as_ref() != Some(digest) => {
                let plugin = &mut Arc::make_mut(consumer).plugin;
                plugin.path = store.path(digest, Kind::Component);
                plugin.sha256 = Some(digest.clone());
            }
            Some((_, Err(error))) if consumer.enabled => failed.push(NotFetched {
                consumer: consumer.name.clone(),
                error: error.clone(),
            }),
            _ => {}
        }
    }
    match failed.is_empty() {
        true => Ok(()),
        false => Err(failed),
    }
}

/// The plugin as a file, if it was fetched before; asks nobody. Blocks.
pub fn here(config: &Config, source: &PluginSource) -> Option<PluginSource> {
    let remote = source.remote.as_ref()?;
    let store = Store::new(config.runtime.components());
    let digest = known_digest(&store, remote, source.sha256.as_deref())?;
    store.holds(&digest).then(|| PluginSource {
        path: store.path(&digest, Kind::Component),
        sha256: Some(digest),
        remote: source.remote.clone(),
    })
}

/// The component's digest, as the configuration or a kept manifest names it.
fn known_digest(store: &Store, remote: &RemotePlugin, written: Option<&str>) -> Option<String> {
    if let Some(written) = written {
        return Some(written.to_owned());
    }
    let Origin::Oci(Reference {
        version: ArtifactVersion::Digest(manifest),
        ..
    }) = &remote.origin
    else {
        return None;
    };
    let manifest = store.read(manifest, Kind::Manifest)?;
    layer(&manifest).ok().map(|layer| layer.digest)
}

/// The digest of a plugin that lies in the store when this returns.
async fn digest_of(store: &Store, web: &Web, source: &PluginSource) -> Result<String, FetchError> {
    let Some(remote) = source.remote.clone() else {
        return Ok(source.sha256.clone().unwrap_or_default());
    };
    let (looked, written) = (store.clone(), source.sha256.clone());
    let asked = remote.clone();
    let found = blocking(&remote, move || {
        let digest = known_digest(&looked, &asked, written.as_deref())?;
        looked.holds(&digest).then_some(digest)
    });
    if let Some(digest) = found.await? {
        return Ok(digest);
    }
    let begun = Instant::now();
    let expected = source.sha256.as_deref();
    let fetching = fetch(web, &remote, expected);
    let Ok(fetched) = tokio::time::timeout(remote.timeout, fetching).await else {
        return Err(FetchError::new(&remote.origin, Why::Slow(remote.timeout)));
    };
    let Fetched {
        component,
        digest,
        manifest,
    } = fetched?;
    let (bytes, took_ms) = (component.len(), begun.elapsed().as_millis());
    let (kept, name) = (store.clone(), digest.clone());
    let keeping = blocking(&remote, move || {
        // The component first: a manifest says that it is there.
        kept.keep(&name, Kind::Component, &component)?;
        match manifest {
            Some((digest, bytes)) => kept.keep(&digest, Kind::Manifest, &bytes),
            None => Ok(()),
        }
    });
    let machine = |error: std::io::Error| Why::Machine(error.to_string());
    let kept = keeping.await?;
    kept.map_err(|error| FetchError::new(&remote.origin, machine(error)))?;
    tracing::info!(from = %remote.origin, %digest, bytes, took_ms, "fetched a plugin");
    Ok(digest)
}

async fn blocking<T: Send + 'static>(
    remote: &RemotePlugin,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, FetchError> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|error| FetchError::new(&remote.origin, Why::Machine(error.to_string())))
}

/// A component that has the right digest.
struct Fetched {
    component: Vec<u8>,
    digest: String,
    /// Digest and bytes of a manifest that the configuration names by that digest.
    manifest: Option<(String, Vec<u8>)>,
}

async fn fetch(
    web: &Web,
    remote: &RemotePlugin,
    expected: Option<&str>,
) -> Result<Fetched, FetchError> {
    match &remote.origin {
        Origin::Url(url) => {
            let wanted = Wanted {
                url: url.clone(),
                accept: "application/wasm, application/octet-stream;q=0.9, */*;q=0.1",
                authorization: basic(web, &authority(url)),
                limit: remote.max_size,
            };
            let got = web.get(&wanted).await?;
            if got.status != 200 {
                let why = Why::Denied {
                    status: got.status,
                    host: authority(url).to_string(),
                    shown: false,
                };
                return Err(FetchError::new(&remote.origin, why));
            }
            let component = got.body;
            let digest = checked(remote, &component, expected)?;
            Ok(Fetched {
                component,
                digest,
                manifest: None,
            })
        }
        Origin::Oci(reference) => artifact(web, remote, reference, expected).await,
    }
}

async fn artifact(
    web: &Web,
    remote: &RemotePlugin,
    reference: &Reference,
    expected: Option<&str>,
) -> Result<Fetched, FetchError> {
    let error = |why| FetchError::new(&remote.origin, why);
    let mut session = Session::new(web, reference)?;
    let manifest = session.manifest().await?;
    let layer = layer(&manifest).map_err(|why| error(Why::Artifact(why)))?;
    // Before anything large is fetched.
    if let Some(expected) = expected.filter(|expected| *expected != layer.digest) {
        let component = layer.digest.clone();
        let by_tag = matches!(reference.version, ArtifactVersion::Tag(_));
        return Err(error(match (sha256(&manifest) == expected, by_tag) {
            (true, _) => Why::DigestOfManifest { component },
            (false, true) => Why::Moved {
                expected: expected.to_owned(),
                actual: component,
            },
            (false, false) => Why::Digest {
                expected: expected.to_owned(),
                actual: component,
            },
        }));
    }
    if layer.size > remote.max_size {
        return Err(error(Why::TooLarge {
            limit: remote.max_size,
            announced: Some(layer.size),
        }));
    }
    let component = session.blob(&layer, remote.max_size).await?;
    let digest = checked(remote, &component, Some(&layer.digest))?;
    let manifest = match &reference.version {
        ArtifactVersion::Digest(named) => Some((named.to_string(), manifest)),
        ArtifactVersion::Tag(_) => None,
    };
    Ok(Fetched {
        component,
        digest,
        manifest,
    })
}

fn checked(
    remote: &RemotePlugin,
    component: &[u8],
    expected: Option<&str>,
) -> Result<String, FetchError> {
    let actual = sha256(component);
    match expected {
        Some(expected) if expected != actual => Err(FetchError::new(
            &remote.origin,
            Why::Digest {
                expected: expected.to_owned(),
                actual,
            },
        )),
        _ => Ok(actual),
    }
}
