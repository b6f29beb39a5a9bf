//! A component from a registry, by the OCI distribution protocol.
//!
//! ```text
//! manifest ─ 401 ─▶ Bearer: token from the realm │ Basic ─▶ manifest ─▶ the one wasm layer ─▶ blob
//! ```
//! Credentials of a host are sent to that host alone: where a registry wants its tokens fetched from
//! another one, that one has credentials of its own in `[registries]`, or gets none.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use reqwest::header::HeaderValue;
use serde::Deserialize;
use url::Url;

use super::challenge::{Challenge, challenges};
use super::error::{FetchError, Why};
use super::store::sha256;
use super::web::{Got, Wanted, Web};
use crate::config::Credentials;
use crate::config::origin::{
    self, ArtifactVersion, Reference, authority, is_loopback, registry_host, shown,
};

/// Bytes of a manifest, as the distribution specification bounds it.
const MAX_MANIFEST: u64 = 4 << 20;
/// Bytes of an answer with a token.
const MAX_TOKEN: u64 = 64 << 10;
const MANIFESTS: &str = "application/vnd.oci.image.manifest.v1+json, \
                         application/vnd.oci.image.index.v1+json;q=0.5";
/// What the layer with the component is called; the second one by older tools.
const LAYERS: [&str; 2] = [
    "application/wasm",
    "application/vnd.wasm.content.layer.v1+wasm",
];

/// The parts of a manifest that matter here.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Manifest {
    #[serde(default)]
    media_type: Option<String>,
    #[serde(default)]
    config: Option<Described>,
    #[serde(default)]
    layers: Vec<Described>,
    /// Of an index.
    #[serde(default)]
    manifests: Vec<serde::de::IgnoredAny>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Described {
    media_type: String,
    #[serde(default)]
    digest: String,
    #[serde(default)]
    size: u64,
}

/// Where a component lies in its registry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layer {
    /// 64 hexadecimal digits.
    pub digest: String,
    pub size: u64,
}

#[derive(Deserialize)]
struct Token {
    #[serde(default)]
    token: Option<String>,
    #[serde(default)]
    access_token: Option<String>,
}

/// A repository, and what lets us in once that is known.
pub struct Session<'a> {
    web: &'a Web,
    reference: &'a Reference,
    base: Url,
    authorization: Option<HeaderValue>,
}

impl<'a> Session<'a> {
    /// Nothing is sent yet.
    ///
    /// # Errors
    /// The registry's name is none.
    pub fn new(web: &'a Web, reference: &'a Reference) -> Result<Self, FetchError> {
        let settings = web.registry(&reference.registry);
        let local = registry_host(&reference.registry).is_some_and(|host| is_loopback(&host));
        let plain = settings
            .and_then(|settings| settings.plain_http)
            // As other tools do: a registry on this machine has no certificate, unless one is named.
            .unwrap_or(local && settings.is_none_or(|settings| settings.ca.is_none()));
        let scheme = if plain { "http" } else { "https" };
        let base = format!(
            "{scheme}://{}/v2/{}/",
            reference.registry, reference.repository
        );
        let base = Url::parse(&base)
            .map_err(|error| FetchError::new(reference, Why::Artifact(error.to_string())))?;
        let bearer = settings.and_then(|settings| match &settings.credentials {
            Some(Credentials::Bearer(token)) => bearer(token.reveal()),
            _ => None,
        });
        Ok(Self {
            web,
            reference,
            base,
            authorization: bearer,
        })
    }

    /// The manifest, as the registry has it; one that is named by its digest has that digest.
    ///
    /// # Errors
    /// It cannot be had, or is another one.
    pub async fn manifest(&mut self) -> Result<Vec<u8>, FetchError> {
        let version = match &self.reference.version {
            ArtifactVersion::Tag(tag) => tag.to_string(),
            ArtifactVersion::Digest(digest) => format!("sha256:{digest}"),
        };
        let path = format!("manifests/{version}");
        let body = self.get(&path, MANIFESTS, MAX_MANIFEST).await?;
        if let ArtifactVersion::Digest(expected) = &self.reference.version {
            let actual = sha256(&body);
            if *actual != **expected {
                return Err(self.error(Why::Artifact(format!(
                    "the registry answers with another manifest, sha256:{actual}"
                ))));
            }
        }
        Ok(body)
    }

    /// The bytes of a layer, unchecked.
    ///
    /// # Errors
    /// They cannot be had, or are more than `limit`.
    pub async fn blob(&mut self, layer: &Layer, limit: u64) -> Result<Vec<u8>, FetchError> {
        let path = format!("blobs/sha256:{}", layer.digest);
        self.get(&path, "*/*", limit).await
    }

    /// Asks, and where the registry wants to know who we are, asks again.
    async fn get(
        &mut self,
        path: &str,
        accept: &'static str,
        limit: u64,
    ) -> Result<Vec<u8>, FetchError> {
        let url = self
            .base
            .join(path)
            .map_err(|error| self.error(Why::Artifact(error.to_string())))?;
        let mut wanted = Wanted {
            url,
            accept,
            authorization: self.authorization.clone(),
            limit,
        };
        let got = self.web.get(&wanted).await?;
        if got.status != 401 {
            return Ok(got.body);
        }
        self.authorization = Some(self.way_in(&got).await?);
        wanted.authorization = self.authorization.clone();
        Ok(self.web.get(&wanted).await?.body)
    }

    /// What to send along, by what a 401 asks for.
    async fn way_in(&self, refused: &Got) -> Result<HeaderValue, FetchError> {
        let host = authority(&self.base);
        let denied = || Why::Denied {
            status: refused.status,
            host: host.to_string(),
            shown: false,
        };
        for challenge in challenges(&refused.headers) {
            match challenge {
                Challenge::Bearer {
                    realm,
                    service,
                    scope,
                } => return self.token(&realm, service, scope).await,
                Challenge::Basic => {
                    if let Some(basic) = basic(self.web, &host) {
                        return Ok(basic);
                    }
                }
            }
        }
        Err(self.error(denied()))
    }

    async fn token(
        &self,
        realm: &str,
        service: Option<String>,
        scope: Option<String>,
    ) -> Result<HeaderValue, FetchError> {
        let odd = |why: &str| self.error(Why::Artifact(format!("its registry {why}")));
        let mut url =
            Url::parse(realm).map_err(|_| odd("sends us for a token to what is no URL"))?;
        let local = |url: &Url| url.host().is_some_and(|host| is_loopback(&host));
        let safe = url.scheme() == "https" || (url.scheme() == "http" && local(&url));
        if !safe || !url.username().is_empty() || (local(&url) && !local(&self.base)) {
            return Err(odd("sends us for a token to where no credentials may go"));
        }
        let pull = format!("repository:{}:pull", self.reference.repository);
        url.query_pairs_mut()
            .extend_pairs(service.map(|service| ("service", service)))
            .append_pair("scope", &scope.unwrap_or(pull));
        let place = url.clone();
        let wanted = Wanted {
            authorization: basic(self.web, &authority(&url)),
            url,
            accept: "application/json",
            limit: MAX_TOKEN,
        };
        let got = self.web.get(&wanted).await?;
        if got.status != 200 {
            let why = Why::Denied {
                status: got.status,
                host: authority(&place).to_string(),
                shown: false,
            };
            return Err(FetchError::new(shown(&place), why));
        }
        let token: Option<Token> = serde_json::from_slice(&got.body).ok();
        token
            .and_then(|token| token.token.or(token.access_token))
            .and_then(|token| bearer(&token))
            .ok_or_else(|| odd("sends no token"))
    }

    fn error(&self, why: Why) -> FetchError {
        FetchError::new(self.reference, why)
    }
}

fn bearer(token: &str) -> Option<HeaderValue> {
    HeaderValue::from_str(&format!("Bearer {token}")).ok()
}

/// What a host is shown of `[registries]`.
pub fn basic(web: &Web, authority: &str) -> Option<HeaderValue> {
    match web.registry(authority)?.credentials.as_ref()? {
        Credentials::Basic { username, password } => {
            let pair = STANDARD.encode(format!("{username}:{}", password.reveal()));
            HeaderValue::from_str(&format!("Basic {pair}")).ok()
        }
        Credentials::Bearer(token) => bearer(token.reveal()),
    }
}

/// The layer of a manifest that holds the component.
///
/// # Errors
/// Why there is none.
pub fn layer(manifest: &[u8]) -> Result<Layer, String> {
    let manifest: Manifest = serde_json::from_slice(manifest)
        .map_err(|error| format!("its manifest is none: {error}"))?;
    if !manifest.manifests.is_empty() {
        return Err("it is an index of several artifacts".to_owned());
    }
    let of_wasm = |layer: &&Described| LAYERS.contains(&layer.media_type.as_str());
    let found: Vec<&Described> = manifest.layers.iter().filter(of_wasm).collect();
    let [layer] = found[..] else {
        let kind = manifest.config.map(|config| config.media_type);
        let kind = kind.or(manifest.media_type).unwrap_or_default();
        let kind: String = kind
            .chars()
            .filter(char::is_ascii_graphic)
            .take(100)
            .collect();
        return Err(format!(
            "{} of its {} layers are of type {}, and one must be; it is of type {kind:?}",
            found.len(),
            manifest.layers.len(),
            LAYERS[0]
        ));
    };
    let digest = layer
        .digest
        .strip_prefix("sha256:")
        .and_then(origin::sha256);
    let digest = digest.ok_or("its layer has no SHA-256 digest")?.to_string();
    Ok(Layer {
        digest,
        size: layer.size,
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn manifest(layers: &[&str]) -> Vec<u8> {
        let described = |kind: &str| {
            json!({
                "mediaType": kind, "size": 7, "digest": format!("sha256:{}", "AB".repeat(32)),
            })
        };
        let layers: Vec<_> = layers.iter().map(|kind| described(kind)).collect();
        let config = described("application/vnd.wasm.config.v0+json");
        json!({ "schemaVersion": 2, "config": config, "layers": layers })
            .to_string()
            .into_bytes()
    }

    #[test]
    fn the_layer_of_both_artifact_formats_is_found() {
        for kind in LAYERS {
            let wanted = Layer {
                digest: "ab".repeat(32),
                size: 7,
            };
            assert_eq!(layer(&manifest(&[kind])), Ok(wanted));
        }
        let with_more = manifest(&["text/plain", LAYERS[0]]);
        assert!(layer(&with_more).is_ok());
    }

    #[test]
    fn what_is_no_wasm_artifact_says_what_it_is() {
        let image = layer(&manifest(&["application/vnd.oci.image.layer.v1.tar+gzip"]));
        assert!(image.is_err_and(|why| why.contains("vnd.wasm.config")));
        assert!(layer(&manifest(&[LAYERS[0], LAYERS[1]])).is_err());
        assert!(layer(b"<html>").is_err());
        let index = json!({ "manifests": [{}] }).to_string();
        assert!(layer(index.as_bytes()).is_err_and(|why| why.contains("index")));
        let md5 = json!({ "layers": [{ "mediaType": LAYERS[0], "digest": "md5:1" }] });
        assert!(layer(md5.to_string().as_bytes()).is_err_and(|why| why.contains("SHA-256")));
    }
}
