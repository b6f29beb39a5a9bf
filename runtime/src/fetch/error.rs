//! Why a plugin was not fetched.

use std::fmt;
use std::time::Duration;

use crate::config::units::{show_duration, show_size};
use crate::decide::retrieval;

/// Why a plugin was not fetched. The text is the cause and whose fault it is;
/// [`FetchError::remedy`] says what to do. Neither holds credentials or a query of a URL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FetchError {
    /// What was asked for, without what could be a secret.
    pub place: String,
    pub why: Why,
}

/// What went wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Why {
    /// No connection, or none that lasted.
    Unreachable(String),
    /// The body ended before its length.
    BrokeOff(String),
    /// The server's certificate is not trusted, or it trusts none of ours.
    Distrusted(String),
    /// 401 or 403.
    Denied {
        status: u16,
        host: String,
        /// Whether something was shown to it.
        shown: bool,
    },
    /// 404 or 410.
    NotFound(u16),
    /// Another status, with the server's wish when to come again.
    Status(u16, Option<Duration>),
    Redirected(String),
    TooLarge {
        limit: u64,
        announced: Option<u64>,
    },
    Slow(Duration),
    Digest {
        expected: String,
        actual: String,
    },
    /// The tag means another component than the configuration.
    Moved {
        expected: String,
        actual: String,
    },
    /// `sha256` names the manifest and not the component.
    DigestOfManifest {
        component: String,
    },
    /// What the registry answers is no artifact with a component.
    Artifact(String),
    /// A file of this machine.
    Machine(String),
}

impl FetchError {
    /// An error about `place`, which may be shown.
    pub fn new(place: impl fmt::Display, why: Why) -> Self {
        Self {
            place: place.to_string(),
            why,
        }
    }

    /// Whether it may pass by itself, and when the server wants to be asked again.
    pub fn passing(&self) -> Option<Option<Duration>> {
        match &self.why {
            Why::Unreachable(_) | Why::BrokeOff(_) => Some(None),
            Why::Status(status, wish) if retrieval::passes(*status) => Some(*wish),
            _ => None,
        }
    }

    /// Whether only another configuration can mend it.
    pub fn is_configuration(&self) -> bool {
        matches!(
            self.why,
            Why::Digest { .. } | Why::Moved { .. } | Why::DigestOfManifest { .. }
        )
    }

    /// What to do about it.
    pub fn remedy(&self) -> String {
        match &self.why {
            Why::Unreachable(_) => "see whether the host is up and this machine may reach it; a \
                                    proxy is taken from HTTPS_PROXY"
                .into(),
            Why::BrokeOff(_) | Why::Status(..) => {
                "try again later; if it stays so, ask those who run the server".into()
            }
            Why::Distrusted(_) => "name the certificates that vouch for it: `ca = \"….pem\"` in \
                                   [registries.\"HOST\"], or SSL_CERT_FILE for all hosts"
                .into(),
            Why::Denied {
                host, shown: true, ..
            } => format!("see whether the credentials in [registries.\"{host}\"] may read it"),
            Why::Denied { host, .. } => format!(
                "write `username` and `password = {{ file = \"…\" }}`, or `token`, in \
                 [registries.\"{host}\"]"
            ),
            Why::NotFound(_) => "correct `plugin`; some servers also say so of what you may not \
                                 read without credentials"
                .into(),
            Why::Redirected(_) => "name the place where the component lies in the end".into(),
            Why::TooLarge { .. } => "see whether this is the right file; up to 64MiB, \
                                     `plugin.max_size` allows more"
                .into(),
            Why::Slow(_) => "raise `plugin.timeout`, or choose a nearer server".into(),
            Why::Digest { actual, .. } => format!(
                "if that is the component that you mean, write sha256 = \"{actual}\"; else somebody \
                 put another one there"
            ),
            Why::Moved { actual, .. } => format!(
                "if the new one is the one that you mean, write sha256 = \"{actual}\"; to keep the \
                 old one, name its manifest: oci = \"…@sha256:…\""
            ),
            Why::DigestOfManifest { component } => format!(
                "write sha256 = \"{component}\", or name the manifest: oci = \"…@sha256:…\""
            ),
            Why::Artifact(_) => "push the component as a wasm artifact, with `wkg oci push` for \
                                 example; an index of several is named by one manifest's digest"
                .into(),
            Why::Machine(_) => {
                "let the user that runs millstream write in [runtime] cache_dir".into()
            }
        }
    }
}

impl fmt::Display for FetchError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let place = &self.place;
        match &self.why {
            Why::Unreachable(why) => write!(f, "cannot reach {place}: {why}"),
            Why::BrokeOff(why) => write!(f, "the server of {place} broke off: {why}"),
            Why::Distrusted(why) => write!(f, "the certificate of {place} is not trusted: {why}"),
            Why::Denied { status, shown, .. } => {
                let how = if *shown {
                    "the credentials"
                } else {
                    "us without credentials"
                };
                write!(
                    f,
                    "the server of {place} refuses {how} (HTTP status {status})"
                )
            }
            Why::NotFound(status) => write!(
                f,
                "the server knows no {place}, which the configuration names (HTTP status {status})"
            ),
            Why::Status(status, _) => {
                write!(f, "the server of {place} answers with HTTP status {status}")
            }
            Why::Redirected(why) => write!(f, "the server of {place} leads astray: {why}"),
            Why::TooLarge { limit, announced } => {
                write!(f, "{place} is larger than {}", show_size(*limit))?;
                match announced {
                    Some(bytes) => write!(f, ": the server announces {bytes} bytes"),
                    None => Ok(()),
                }
            }
            Why::Slow(limit) => write!(
                f,
                "fetching {place} took longer than {}, by the server's or the network's fault",
                show_duration(*limit)
            ),
            Why::Digest { expected, actual } => write!(
                f,
                "what the server has at {place} has the digest sha256:{actual}, and the \
                 configuration wants sha256:{expected}"
            ),
            Why::Moved { expected, actual } => write!(
                f,
                "the tag of {place} was moved: it means sha256:{actual}, and the configuration \
                 wants sha256:{expected}"
            ),
            Why::DigestOfManifest { .. } => write!(
                f,
                "`sha256` of {place} is the digest of its manifest, and that of the component is \
                 wanted"
            ),
            Why::Artifact(why) => write!(f, "{place} is no wasm component: {why}"),
            Why::Machine(why) => write!(f, "{place} cannot be kept on this machine: {why}"),
        }
    }
}

impl std::error::Error for FetchError {}
