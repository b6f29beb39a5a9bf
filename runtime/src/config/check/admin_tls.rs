//! `admin.tls`.

use super::super::problem::Problem;
use super::super::resolved::{AdminTls, PrivateKey};
use super::super::section::Section;
use super::secret::{self, Reference};
use crate::tls::{self, Unfit};

/// Checks the table, and that certificate and key can be used together. `names` are those under
/// which commands on this machine reach the listener.
pub fn admin_tls(admin: &mut Section<'_>, names: &[String]) -> Option<AdminTls> {
    if !admin.has("tls") {
        // The keys are known all the same.
        let mut section = admin.section("tls");
        for key in ["certificate", "key", "ca"] {
            section.node(key);
        }
        return None;
    }
    let mut section = admin.section("tls");
    let certificate = section.text("certificate");
    let shown = section.shown("key");
    let key_node = section.node("key");
    let ca = section.text("ca");
    for (key, hint) in [
        (
            "certificate",
            "add `certificate = \"….pem\"`, the chain as PEM",
        ),
        ("key", "add `key = { file = \"….pem\" }`"),
    ] {
        if !section.has(key) {
            section.missing(key, "TLS needs a certificate and its key", hint);
        }
    }
    let checks = section.checks();
    let key = key_node.and_then(|node| match secret::reference(checks, &shown, node)? {
        Reference::File(path) => Some(PrivateKey::File(
            checks.sources.resolve(node.place.file, path),
        )),
        Reference::Environment(_) => secret::secret(checks, &shown, node).map(PrivateKey::Given),
    });
    let ca = ca.map(|(path, node)| {
        let path = checks.sources.resolve(node.place.file, path);
        if let Err(cause) = tls::chain(&path) {
            checks.report(
                Problem::error("ca", format!("{} cannot be used", section.shown("ca")))
                    .at(&node.place)
                    .label("certificates as PEM are expected")
                    .cause(cause),
            );
        }
        path
    });
    let tls = match (certificate, key) {
        (Some((path, node)), Some(key)) => Some(AdminTls {
            certificate: checks.sources.resolve(node.place.file, path),
            key,
            ca,
        }),
        _ => None,
    };
    if let Some(tls) = &tls {
        fits(&section, tls, names);
    }
    section.finish();
    tls
}

fn fits(section: &Section<'_>, tls: &AdminTls, names: &[String]) {
    let identity = match tls::identity(tls) {
        Ok(identity) => identity,
        Err(unfit) => {
            let (key, hint) = match &unfit {
                Unfit::Certificate(_) => (
                    "certificate",
                    "PEM is expected: the runtime's own certificate first, then those between it \
                     and the root",
                ),
                Unfit::Key(_) => ("key", "PEM without a passphrase is expected"),
                Unfit::Pair => ("key", "name the key that the certificate was made for"),
            };
            section.checks().report(
                Problem::error("tls", "`admin.tls` cannot be used")
                    .at(section.place_of(key))
                    .label("read when the configuration was checked")
                    .cause(unfit.to_string())
                    .hint(hint),
            );
            return;
        }
    };
    for (number, certificate) in (1..).zip(&identity.cert) {
        let Some(why) = tls::out_of_date(certificate) else {
            continue;
        };
        let which = match number {
            1 => "the certificate".to_owned(),
            number => format!("certificate {number} of the chain"),
        };
        section.checks().report(
            Problem::warning("tls", "clients refuse the certificate of `admin.tls`")
                .at(section.place_of("certificate"))
                .label(format!("{which} {why}"))
                .hint(
                    "have it renewed and put the new one there: a runtime that runs takes it up by \
                     itself",
                ),
        );
    }
    let certificate = identity.cert.first();
    let reached = |name: &String| certificate.is_some_and(|one| tls::names(one, name));
    if !names.iter().any(reached) {
        section.checks().report(
            Problem::warning(
                "tls",
                "commands cannot check the certificate of `admin.tls`",
            )
            .at(section.place_of("certificate"))
            .label(format!("valid for none of {}", names.join(", ")))
            .hint("have a certificate made for one of them, or add its name to `admin.hosts`"),
        );
    }
}
