//! Where a plugin comes from that is no file here: a URL, or an artifact in a registry.
//!
//! ```text
//! https://host/path?query                 ─▶ Origin::Url
//! registry.example.com/team/enrich:1.2    ─▶ Reference { registry, repository, Tag }
//! registry.example.com/team/enrich@sha256:… ─▶ Reference { registry, repository, Digest }
//! ```

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::{Arc, LazyLock};

use regex::Regex;
use url::{Host, Url};

use super::redact::BLANK;

/// Where a component is fetched from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    Url(Url),
    Oci(Reference),
}

/// An artifact in a registry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reference {
    /// `host` or `host:port`, lower case.
    pub registry: Arc<str>,
    pub repository: Arc<str>,
    pub version: ArtifactVersion,
}

/// Which of a repository's artifacts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ArtifactVersion {
    /// May mean another artifact tomorrow.
    Tag(Arc<str>),
    /// Of the manifest: 64 hexadecimal digits, lower case.
    Digest(Arc<str>),
}

impl Reference {
    /// Reads `registry/repository:tag` or `registry/repository@sha256:digest`. Of a text with both
    /// the digest counts, as with other tools.
    ///
    /// # Errors
    /// What keeps it from being one, to stand under the marked text.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        static REPOSITORY: LazyLock<Option<Regex>> = LazyLock::new(|| {
            let part = "[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*";
            Regex::new(&format!("^{part}(?:/{part})*$")).ok()
        });
        static TAG: LazyLock<Option<Regex>> =
            LazyLock::new(|| Regex::new("^[A-Za-z0-9_][A-Za-z0-9._-]{0,127}$").ok());
        let fits = |pattern: &LazyLock<Option<Regex>>, text: &str| {
            pattern
                .as_ref()
                .is_some_and(|pattern| pattern.is_match(text))
        };
        if text.contains("://") {
            return Err("a reference has no scheme in front");
        }
        let (name, digest) = match text.split_once('@') {
            None => (text, None),
            Some((name, digest)) => (name, Some(digest)),
        };
        let (registry, rest) = name.split_once('/').ok_or(
            "the registry is missing in front, as in registry.example.com/team/enrich:1.0",
        )?;
        let named = registry.contains(['.', ':']) || registry == "localhost";
        if !named || registry_host(registry).is_none() {
            return Err("what stands before the first / is not the host of a registry");
        }
        let (repository, tag) = match rest.rsplit_once(':') {
            None => (rest, None),
            Some((repository, tag)) => (repository, Some(tag)),
        };
        if repository.len() > 255 || !fits(&REPOSITORY, repository) {
            return Err(
                "a repository is made of lower case letters, digits, `.`, `_`, `-` and `/`",
            );
        }
        if tag.is_some_and(|tag| !fits(&TAG, tag)) {
            return Err("a tag is made of letters, digits, `.`, `_` and `-`");
        }
        let version = match (digest, tag) {
            (Some(digest), _) => {
                let digits = digest.strip_prefix("sha256:").and_then(sha256);
                ArtifactVersion::Digest(
                    digits.ok_or("what follows @ is not sha256: and 64 digits")?,
                )
            }
            (None, Some(tag)) => ArtifactVersion::Tag(tag.into()),
            (None, None) => return Err("a tag or a digest is missing at the end"),
        };
        Ok(Self {
            registry: registry.to_ascii_lowercase().into(),
            repository: repository.into(),
            version,
        })
    }
}

/// A digest as it is kept: 64 hexadecimal digits, lower case.
pub fn sha256(text: &str) -> Option<Arc<str>> {
    let valid = text.len() == 64 && text.chars().all(|c| c.is_ascii_hexdigit());
    valid.then(|| text.to_ascii_lowercase().into())
}

impl Origin {
    /// `host` or `host:port` as `[registries]` names it: without a port that the scheme implies.
    pub fn authority(&self) -> Arc<str> {
        match self {
            Self::Url(url) => authority(url),
            Self::Oci(reference) => reference.registry.clone(),
        }
    }
}

impl fmt::Display for Origin {
    /// As people may see it: what could be a secret is blanked.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Url(url) => f.write_str(&shown(url)),
            Self::Oci(reference) => write!(f, "{reference}"),
        }
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.registry, self.repository)?;
        match &self.version {
            ArtifactVersion::Tag(tag) => write!(f, ":{tag}"),
            ArtifactVersion::Digest(digest) => write!(f, "@sha256:{digest}"),
        }
    }
}

/// A URL without its user, and with its query blanked: signed links carry their key there.
pub fn shown(url: &Url) -> String {
    let port = url.port().map(|port| format!(":{port}"));
    let query = url.query().map(|_| format!("?{BLANK}"));
    format!(
        "{}://{}{}{}{}",
        url.scheme(),
        url.host_str().unwrap_or_default(),
        port.unwrap_or_default(),
        url.path(),
        query.unwrap_or_default()
    )
}

/// `host` or `host:port` of a URL, the port only where it is not the scheme's own.
pub fn authority(url: &Url) -> Arc<str> {
    let host = url.host_str().unwrap_or_default().to_ascii_lowercase();
    match url.port() {
        Some(port) => format!("{host}:{port}").into(),
        None => host.into(),
    }
}

/// The host of `host` or `host:port`; `None` where it is neither.
pub fn registry_host(authority: &str) -> Option<Host<String>> {
    let plain = !authority.contains(['/', '@', '?', '#', '\\', ' ']);
    let url = Url::parse(&format!("https://{authority}/")).ok()?;
    url.host().filter(|_| plain).map(|host| host.to_owned())
}

/// Whether a host can only be this machine.
pub fn is_loopback<S: AsRef<str>>(host: &Host<S>) -> bool {
    match host {
        Host::Domain(name) => name.as_ref().eq_ignore_ascii_case("localhost"),
        Host::Ipv4(ip) => Ipv4Addr::is_loopback(ip),
        Host::Ipv6(ip) => Ipv6Addr::is_loopback(ip),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_are_read_as_other_tools_read_them() {
        let digest = "ab".repeat(32);
        for (text, registry, repository) in [
            ("ghcr.io/example/enrich:1", "ghcr.io", "example/enrich"),
            ("LOCALHOST:5000/a:b", "localhost:5000", "a"),
            ("localhost/a:latest", "localhost", "a"),
            (
                "127.0.0.1:5000/a/b/c__d:v1.0-rc_1",
                "127.0.0.1:5000",
                "a/b/c__d",
            ),
        ] {
            let read = Reference::parse(text).unwrap();
            assert_eq!((&*read.registry, &*read.repository), (registry, repository));
            assert!(matches!(read.version, ArtifactVersion::Tag(_)), "{text}");
        }
        for text in [
            format!("ghcr.io/a/b@sha256:{digest}"),
            format!("ghcr.io/a/b:1.0@sha256:{}", digest.to_uppercase()),
        ] {
            let read = Reference::parse(&text).unwrap();
            assert_eq!(
                read.version,
                ArtifactVersion::Digest(digest.as_str().into())
            );
            assert_eq!(read.to_string(), format!("ghcr.io/a/b@sha256:{digest}"));
        }
        for text in [
            "",
            "enrich:1",
            "example/enrich:1",
            "ghcr.io/a/b",
            "ghcr.io/A/b:1",
            "ghcr.io/a/../b:1",
            "ghcr.io//b:1",
            "ghcr.io/a/b:",
            "ghcr.io/a/b:1/2",
            "ghcr.io/a/b@sha256:12",
            "ghcr.io/a/b@md5:12",
            "https://ghcr.io/a/b:1",
            "me:pw@ghcr.io/a/b:1",
            "ghcr.io:x/a:1",
        ] {
            assert!(Reference::parse(text).is_err(), "{text}");
        }
    }

    /// Signed links end in logs and answers otherwise.
    #[test]
    fn what_could_be_a_secret_is_not_shown() {
        let url = Url::parse("https://me:hunter2@example.com:8443/a.wasm?sig=hunter2").unwrap();
        assert_eq!(shown(&url), "https://example.com:8443/a.wasm?***");
        assert_eq!(&*authority(&url), "example.com:8443");
        let url = Url::parse("https://EXAMPLE.com:443/").unwrap();
        assert_eq!(&*authority(&url), "example.com");
    }

    #[test]
    fn loopback_is_known_in_each_form() {
        for (host, wanted) in [
            ("localhost", true),
            ("127.9.9.9:80", true),
            ("[::1]:5000", true),
            ("localhost.evil.example", false),
            ("127.0.0.1.evil.example", false),
            ("0.0.0.0", false),
            ("10.0.0.1", false),
        ] {
            let host = registry_host(host).unwrap();
            assert_eq!(is_loopback(&host), wanted, "{host}");
        }
        assert!(registry_host("a/b").is_none() && registry_host("me@a").is_none());
    }
}
