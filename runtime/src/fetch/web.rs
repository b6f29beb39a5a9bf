//! One thing over HTTP: asked for again while that may help, redirects followed, bytes counted.
//!
//! ```text
//! get ─▶ attempt ─┬─▶ request ─ redirect ─▶ request without credentials ─ …
//!           ▲     ├─▶ body, up to the limit ─▶ Got
//!           └wait─┴─▶ what may pass: a broken connection, 429, 500, 502, 503, 504
//! ```

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use reqwest::header::{
    ACCEPT, ACCEPT_ENCODING, AUTHORIZATION, HeaderMap, HeaderValue, LOCATION, RETRY_AFTER,
};
use reqwest::{Client, Response};
use url::Url;

use super::error::{FetchError, Why};
use crate::config::Registry;
use crate::config::origin::{authority, is_loopback, shown};
use crate::decide::retrieval;
use crate::tls;

/// How long a connection may take to be made.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a server may send nothing.
const STALL: Duration = Duration::from_secs(20);
/// How long a connection is kept for the next request of the same deploy.
const MAX_IDLE: Duration = Duration::from_secs(5);

/// The hosts that plugins are fetched from, and clients that speak to them.
pub struct Web {
    registries: Arc<BTreeMap<Arc<str>, Registry>>,
    /// By whom they trust, and whether they go past proxies.
    clients: Mutex<BTreeMap<(Option<PathBuf>, bool), Client>>,
}

/// What is asked for.
#[derive(Clone, Debug)]
pub struct Wanted {
    pub url: Url,
    pub accept: &'static str,
    /// For this host; no redirect takes it along.
    pub authorization: Option<HeaderValue>,
    /// Bytes of the body.
    pub limit: u64,
}

/// An answer of status 200 or 401.
#[derive(Debug)]
pub struct Got {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Vec<u8>,
}

impl Web {
    /// With these settings by host.
    pub fn new(registries: Arc<BTreeMap<Arc<str>, Registry>>) -> Self {
        Self {
            registries,
            clients: Mutex::default(),
        }
    }

    /// How a host is spoken to, as `[registries]` says.
    pub fn registry(&self, authority: &str) -> Option<&Registry> {
        self.registries.get(authority)
    }

    /// Asks until there is an answer, within the bounds of `decide/retrieval.rs`. An answer of
    /// status 401 to a request without credentials is one.
    ///
    /// # Errors
    /// Why there is none.
    pub async fn get(&self, wanted: &Wanted) -> Result<Got, FetchError> {
        let mut attempt = 0;
        loop {
            attempt += 1;
            let error = match self.attempt(wanted).await {
                Ok(got) => return Ok(got),
                Err(error) => error,
            };
            let wait = error
                .passing()
                .and_then(|wish| retrieval::again(attempt, wish, fastrand::f64()));
            let Some(wait) = wait else {
                return Err(error);
            };
            tracing::warn!(%error, attempt, wait_ms = wait.as_millis(), "asking again");
            tokio::time::sleep(wait).await;
        }
    }

    async fn attempt(&self, wanted: &Wanted) -> Result<Got, FetchError> {
        let mut url = wanted.url.clone();
        let mut authorization = wanted.authorization.clone();
        let mut hops = 0;
        loop {
            let mut request = self
                .client(&url)?
                .get(url.clone())
                .header(ACCEPT, wanted.accept)
                .header(ACCEPT_ENCODING, "identity");
            let known = authorization.is_some();
            // Taken: what follows a redirect is another request, perhaps to another host.
            if let Some(mut value) = authorization.take() {
                value.set_sensitive(true);
                request = request.header(AUTHORIZATION, value);
            }
            let sent = request.send().await;
            let response = sent.map_err(|error| broken(&url, &error))?;
            let status = response.status().as_u16();
            if !matches!(status, 301 | 302 | 303 | 307 | 308) {
                return self.taken(wanted, &url, response, known, hops).await;
            }
            hops += 1;
            let location = response.headers().get(LOCATION);
            let location = location.and_then(|location| location.to_str().ok());
            url = retrieval::redirect(&url, location, hops)
                .map_err(|why| FetchError::new(shown(&url), Why::Redirected(why)))?;
        }
    }

    async fn taken(
        &self,
        wanted: &Wanted,
        url: &Url,
        response: Response,
        known: bool,
        hops: u32,
    ) -> Result<Got, FetchError> {
        let status = response.status().as_u16();
        let headers = response.headers().clone();
        let why = match status {
            200 => {
                let body = body(url, response, wanted.limit).await?;
                return Ok(Got {
                    status,
                    headers,
                    body,
                });
            }
            // How to get in is in the head; after a redirect it is another host that asks.
            401 if !known && hops == 0 => {
                return Ok(Got {
                    status,
                    headers,
                    body: Vec::new(),
                });
            }
            401 | 403 => Why::Denied {
                status,
                host: authority(url).to_string(),
                shown: known,
            },
            404 | 410 => Why::NotFound(status),
            _ => {
                let wish = headers.get(RETRY_AFTER).and_then(|wish| wish.to_str().ok());
                let seconds = wish.and_then(|wish| wish.trim().parse().ok());
                Why::Status(status, seconds.map(Duration::from_secs))
            }
        };
        Err(FetchError::new(shown(url), why))
    }

    fn client(&self, url: &Url) -> Result<Client, FetchError> {
        let settings = self.registry(&authority(url));
        let ca = settings.and_then(|settings| settings.ca.clone());
        // What is on this machine is not reached through a proxy, and a proxy gets none of it.
        let direct = url.host().is_some_and(|host| is_loopback(&host));
        let mut clients = self.clients.lock();
        if let Some(client) = clients.get(&(ca.clone(), direct)) {
            return Ok(client.clone());
        }
        let machine = |why: String| FetchError::new(shown(url), Why::Machine(why));
        let trust = tls::client(ca.as_deref()).map_err(machine)?;
        let mut builder = Client::builder()
            .tls_backend_preconfigured(trust)
            .redirect(reqwest::redirect::Policy::none())
            .referer(false)
            .connect_timeout(CONNECT_TIMEOUT)
            .read_timeout(STALL)
            .pool_idle_timeout(MAX_IDLE)
            .user_agent(concat!("millstream/", env!("CARGO_PKG_VERSION")));
        if direct {
            builder = builder.no_proxy();
        }
        let client = builder
            .build()
            .map_err(|error| machine(error.to_string()))?;
        clients.insert((ca, direct), client.clone());
        Ok(client)
    }
}

/// The body of an answer, if it is no longer than the limit.
async fn body(url: &Url, mut response: Response, limit: u64) -> Result<Vec<u8>, FetchError> {
    let announced = response.content_length();
    let too_large = |announced| FetchError::new(shown(url), Why::TooLarge { limit, announced });
    if announced.is_some_and(|bytes| bytes > limit) {
        return Err(too_large(announced));
    }
    // What is announced is not believed before it is here.
    let mut body = Vec::new();
    while let Some(chunk) = response
        .chunk()
        .await
        .map_err(|error| FetchError::new(shown(url), Why::BrokeOff(tls::root_cause(&error))))?
    {
        if (body.len() + chunk.len()) as u64 > limit {
            return Err(too_large(None));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

/// A request without an answer. The library's own text holds the URL with its query.
fn broken(url: &Url, error: &reqwest::Error) -> FetchError {
    let cause = tls::root_cause(error);
    let why = if tls::is_distrust(error) {
        Why::Distrusted(cause)
    } else if error.is_timeout() {
        Why::Unreachable("no answer in time".to_owned())
    } else {
        Why::Unreachable(cause)
    };
    FetchError::new(shown(url), why)
}
