//! TLS: who we are, and whom we trust.
//!
//! ```text
//! certificate.pem, key ─▶ identity ─▶ the listener of `[admin]`
//! a file of `ca`, or the system's certificates ─▶ client ─▶ fetching plugins, commands
//! ```
//! Blocks on files. No text here holds a byte of a key.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustls::client::danger::ServerCertVerifier as _;
use rustls::client::{WebPkiServerVerifier, verify_server_name};
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::{NoServerSessionStorage, ParsedCertificate, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{
    CertificateError, ClientConfig, Error, InconsistentKeys, RootCertStore, ServerConfig,
};

use crate::clock;
use crate::config::{AdminTls, PrivateKey, time};

/// Bytes of a file of certificates: the system's own bundle has a quarter of a million.
const MAX_FILE: u64 = 4 << 20;

/// What is wrong with a listener's certificate or key.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unfit {
    #[error("the certificate {0}")]
    Certificate(String),
    #[error("the private key {0}")]
    Key(String),
    /// Each is good by itself.
    #[error("the private key belongs to another certificate")]
    Pair,
}

/// Certificate and key of a listener, read and found to belong together.
///
/// # Errors
/// Which of both is at fault, and why.
pub fn identity(tls: &AdminTls) -> Result<Arc<CertifiedKey>, Unfit> {
    let chain = chain(&tls.certificate).map_err(Unfit::Certificate)?;
    let key = match &tls.key {
        PrivateKey::Given(secret) => secret.reveal().as_bytes().to_vec(),
        PrivateKey::File(path) => read(path).map_err(Unfit::Key)?,
    };
    // The reason could quote the text.
    let key = PrivateKeyDer::from_pem_slice(&key)
        .map_err(|_| Unfit::Key("is no PEM text of a private key without a passphrase".into()))?;
    match CertifiedKey::from_der(chain, key, &provider()) {
        Ok(identity) => Ok(Arc::new(identity)),
        Err(Error::InconsistentKeys(InconsistentKeys::KeyMismatch)) => Err(Unfit::Pair),
        Err(Error::InvalidCertificate(why)) => {
            Err(Unfit::Certificate(format!("is not valid: {why:?}")))
        }
        Err(_) => Err(Unfit::Key("is of no kind that TLS uses here".into())),
    }
}

/// The certificates of a file, the first of which is the one that is shown to clients.
///
/// # Errors
/// What is wrong with the file, to stand after its name.
pub fn chain(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let text = read(path)?;
    let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
    let chain = read.map_err(|_| format!("{} is not PEM", path.display()))?;
    let Some(first) = chain.first() else {
        return Err(format!("{} holds no certificate", path.display()));
    };
    ParsedCertificate::try_from(first)
        .map_err(|_| format!("{} holds no valid certificate", path.display()))?;
    Ok(chain)
}

/// Whether a certificate is valid for a name or an address.
pub fn names(certificate: &CertificateDer<'_>, name: &str) -> bool {
    let (Ok(parsed), Ok(name)) = (
        ParsedCertificate::try_from(certificate),
        ServerName::try_from(name),
    ) else {
        return false;
    };
    verify_server_name(&parsed, &name).is_ok()
}

/// Why a certificate is not valid now, to stand after "the certificate"; `None` where it is, as far as
/// its dates say.
pub fn out_of_date(certificate: &CertificateDer<'_>) -> Option<String> {
    let now = UnixTime::since_unix_epoch(Duration::from_millis(clock::now_ms().max(0) as u64));
    out_of_date_at(certificate, now)
}

/// Whoever checks a certificate looks at its dates first: so it does not matter that nobody but itself
/// vouches for it here, nor for which name it is.
fn out_of_date_at(certificate: &CertificateDer<'_>, now: UnixTime) -> Option<String> {
    let mut roots = RootCertStore::empty();
    roots.add(certificate.clone().into_owned()).ok()?;
    let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider());
    let name = ServerName::try_from("localhost").ok()?;
    let verdict = verifier
        .build()
        .ok()?
        .verify_server_cert(certificate, &[], &name, &[], now);
    let shown = |time: UnixTime| {
        let milliseconds = i64::try_from(time.as_secs())
            .ok()
            .and_then(|s| s.checked_mul(1000));
        milliseconds.map_or_else(|| "an unknown time".to_owned(), time::show)
    };
    match verdict.err()? {
        Error::InvalidCertificate(CertificateError::ExpiredContext { not_after, .. }) => {
            Some(format!("expired at {}", shown(not_after)))
        }
        Error::InvalidCertificate(CertificateError::NotValidYetContext { not_before, .. }) => {
            Some(format!("is not valid before {}", shown(not_before)))
        }
        Error::InvalidCertificate(CertificateError::Expired) => Some("has expired".to_owned()),
        Error::InvalidCertificate(CertificateError::NotValidYet) => {
            Some("is not valid yet".to_owned())
        }
        _ => None,
    }
}

/// The certificates that are trusted: those of the file `ca`, or else the system's, for which
/// `SSL_CERT_FILE` and `SSL_CERT_DIR` can stand in.
///
/// # Errors
/// The file of `ca` cannot be used, or the system has no certificate.
pub fn trusted(ca: Option<&Path>) -> Result<Vec<CertificateDer<'static>>, String> {
    if let Some(path) = ca {
        return chain(path);
    }
    let found = rustls_native_certs::load_native_certs();
    if found.certs.is_empty() {
        let why = found.errors.first().map(|error| format!(": {error}"));
        return Err(format!(
            "this system has no certificates to trust{}",
            why.unwrap_or_default()
        ));
    }
    Ok(found.certs)
}

/// How to speak to servers whose certificates [`trusted`] ones vouch for.
///
/// # Errors
/// As there, or none of them is of use.
pub fn client(ca: Option<&Path>) -> Result<ClientConfig, String> {
    let mut roots = RootCertStore::empty();
    let (added, _) = roots.add_parsable_certificates(trusted(ca)?);
    if added == 0 {
        return Err("none of the trusted certificates is valid".to_owned());
    }
    let config = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(config)
}

/// How a listener speaks, with what `identity` says at each handshake.
///
/// # Errors
/// Only by a fault of the library.
pub fn server(identity: Arc<dyn ResolvesServerCert>) -> Result<ServerConfig, Error> {
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_cert_resolver(identity);
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    // Who resumes a session does not see that the certificate was renewed.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(config)
}

/// Whether an error is the refusal of a certificate, ours or theirs.
pub fn is_distrust(error: &(dyn std::error::Error + 'static)) -> bool {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if let Some(Error::InvalidCertificate(_) | Error::AlertReceived(_)) =
            error.downcast_ref::<Error>()
        {
            return true;
        }
        // What an I/O error wraps is not its source, and it may be wrapped more than once.
        let wrapped = error
            .downcast_ref::<io::Error>()
            .and_then(io::Error::get_ref)
            .map(|inner| inner as &(dyn std::error::Error + 'static));
        cause = wrapped.or_else(|| error.source());
    }
    false
}

/// The innermost cause of an error: what wraps it repeats "error sending request".
pub fn root_cause(error: &(dyn std::error::Error + 'static)) -> String {
    let mut cause = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}

/// The algorithms of TLS; none is installed for the whole process.
pub fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

fn read(path: &Path) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    let read = File::open(path).and_then(|file| file.take(MAX_FILE + 1).read_to_end(&mut bytes));
    match read {
        Ok(length) if length as u64 <= MAX_FILE => Ok(bytes),
        Ok(_) => Err(format!("{} is larger than 4 MiB", path.display())),
        Err(error) => Err(format!("{} cannot be read: {error}", path.display())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::secret::Secret;

    struct Made {
        folder: tempfile::TempDir,
        key: String,
    }

    fn made(names: &[&str]) -> Made {
        let folder = tempfile::tempdir().unwrap();
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let made = rcgen::generate_simple_self_signed(names).unwrap();
        std::fs::write(folder.path().join("c.pem"), made.cert.pem()).unwrap();
        let key = made.signing_key.serialize_pem();
        std::fs::write(folder.path().join("k.pem"), &key).unwrap();
        Made { folder, key }
    }

    impl Made {
        fn tls(&self) -> AdminTls {
            AdminTls {
                certificate: self.folder.path().join("c.pem"),
                key: PrivateKey::File(self.folder.path().join("k.pem")),
                ca: None,
            }
        }
    }

    #[test]
    fn certificate_and_key_must_belong_together() {
        let (one, other) = (made(&["localhost"]), made(&["localhost"]));
        let mut tls = one.tls();
        assert!(identity(&tls).is_ok());
        tls.key = PrivateKey::Given(Secret::new(one.key.clone()));
        assert!(identity(&tls).is_ok());
        tls.key = other.tls().key;
        assert_eq!(identity(&tls).err(), Some(Unfit::Pair));
    }

    /// What is wrong must be told, and no byte of a key with it.
    #[test]
    fn a_broken_file_is_named_and_not_quoted() {
        let made = made(&["localhost"]);
        let half = &made.key[..made.key.len() / 2];
        let quoted = half.lines().nth(1).unwrap();
        std::fs::write(made.folder.path().join("k.pem"), half).unwrap();
        let error = identity(&made.tls()).unwrap_err();
        assert!(matches!(error, Unfit::Key(_)), "{error}");
        assert!(!error.to_string().contains(quoted), "{error}");
        std::fs::write(made.folder.path().join("c.pem"), "hello").unwrap();
        let error = identity(&made.tls()).unwrap_err().to_string();
        assert!(error.contains("c.pem holds no certificate"), "{error}");
        let missing = made.folder.path().join("no.pem");
        assert!(chain(&missing).unwrap_err().contains("cannot be read"));
    }

    /// A certificate that is refused does not become a good one by asking again.
    #[test]
    fn distrust_is_found_however_it_is_wrapped() {
        let refused = || Error::InvalidCertificate(rustls::CertificateError::UnknownIssuer);
        let once = io::Error::new(io::ErrorKind::InvalidData, refused());
        assert!(is_distrust(&refused()) && is_distrust(&once));
        assert!(is_distrust(&io::Error::other(once)));
        assert!(!is_distrust(&io::Error::other("reset")));
        assert!(!is_distrust(&io::Error::other(Error::HandshakeNotComplete)));
    }

    /// Of a server's certificate, of one that signed itself, and of an authority's.
    #[test]
    fn dates_are_told_whoever_vouches() {
        let at = |year: i32| {
            let seconds = rcgen::date_time_ymd(year, 1, 1).unix_timestamp();
            UnixTime::since_unix_epoch(Duration::from_secs(seconds as u64))
        };
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        params.not_before = rcgen::date_time_ymd(2020, 1, 1);
        params.not_after = rcgen::date_time_ymd(2022, 1, 1);
        let authority = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        for is_ca in [rcgen::IsCa::NoCa, rcgen::IsCa::ExplicitNoCa, authority] {
            params.is_ca = is_ca;
            let certificate = params.self_signed(&key).unwrap();
            let told = |year| out_of_date_at(certificate.der(), at(year));
            assert_eq!(told(2021), None);
            let early = told(2019).unwrap();
            assert!(
                early.contains("not valid before 2020-01-01T00:00:00"),
                "{early}"
            );
            let late = told(2023).unwrap();
            assert!(late.contains("expired at 2022-01-01T00:00:00"), "{late}");
        }
    }

    #[test]
    fn a_certificate_is_valid_for_its_names_alone() {
        let made = made(&["mill.example.com", "127.0.0.1"]);
        let chain = chain(&made.tls().certificate).unwrap();
        assert!(names(&chain[0], "mill.example.com") && names(&chain[0], "127.0.0.1"));
        assert!(!names(&chain[0], "localhost") && !names(&chain[0], "example.com"));
    }
}
