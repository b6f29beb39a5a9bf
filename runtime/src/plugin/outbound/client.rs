//! The HTTP client of one host and port, and what its errors mean.

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use rustls::{ClientConfig, RootCertStore};
use rustls_platform_verifier::BuilderVerifierExt as _;

use super::resolver::{NotPublic, Resolver};
use super::{Failure, SIDE_BY_SIDE};
use crate::plugin::journal::cut;
use crate::tls;

/// How long a connection that nobody uses is kept; most servers keep theirs for longer.
const IDLE: Duration = Duration::from_secs(30);
/// Bytes of an error's text.
const MAX_TEXT: usize = 512;

/// TLS with the certificates that the machine trusts; blocks while it reads them. Where there are
/// none no server is trusted, and the log says why.
///
/// # Errors
/// None of note: the provider has every version that is asked for.
pub(super) fn trusting_the_machine() -> Result<ClientConfig, rustls::Error> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder =
        ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    match builder.clone().with_platform_verifier() {
        Ok(trusting) => Ok(trusting.with_no_client_auth()),
        Err(error) => {
            tracing::warn!(
                %error,
                "no certificates of this machine can be read, so requests of plugins to https \
                 fail; install the package ca-certificates"
            );
            let nobody = builder.with_root_certificates(RootCertStore::empty());
            Ok(nobody.with_no_client_auth())
        }
    }
}

/// A client whose connections go where `resolver` says.
///
/// # Errors
/// It cannot be made, for the system's sake.
pub(super) fn client(trust: &ClientConfig, resolver: Resolver) -> reqwest::Result<reqwest::Client> {
    reqwest::Client::builder()
        .tls_backend_preconfigured(trust.clone())
        .dns_resolver(Arc::new(resolver))
        .redirect(reqwest::redirect::Policy::none())
        .referer(false)
        .no_proxy()
        .http1_only()
        .pool_max_idle_per_host(SIDE_BY_SIDE)
        .pool_idle_timeout(IDLE)
        .build()
}

/// What went wrong with a request that was sent, or tried to be.
pub(super) fn failure(error: reqwest::Error) -> Failure {
    // A URL may hold what is nobody else's business.
    let error = error.without_url();
    let mut text = String::new();
    let mut cause: Option<&(dyn Error + 'static)> = Some(&error);
    while let Some(one) = cause {
        if let Some(refused) = one.downcast_ref::<NotPublic>() {
            return Failure::Private {
                name: refused.name.clone(),
                why: refused.why.clone(),
            };
        }
        if !text.is_empty() {
            text.push_str(": ");
        }
        text.push_str(&one.to_string());
        cause = one.source();
    }
    if tls::is_distrust(&error) {
        text = format!(
            "the certificate of the server is refused: {}; requests of plugins trust whom the machine \
             trusts",
            tls::root_cause(&error)
        );
    }
    let text = cut(&text, MAX_TEXT).to_owned();
    if error.is_builder() {
        Failure::Invalid(text)
    } else if error.is_timeout() {
        Failure::TimedOut
    } else if error.is_connect() || error.is_request() || error.is_body() || error.is_decode() {
        Failure::Unreachable(text)
    } else {
        Failure::Other(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// No provider is installed for the process: a configuration that looks for one would panic.
    #[test]
    fn tls_needs_no_provider_of_the_process() {
        trusting_the_machine().unwrap();
    }
}
