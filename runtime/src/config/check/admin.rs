//! `[admin]` and `[metrics]`.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use super::super::problem::Problem;
use super::super::resolved::{Admin, reached_under};
use super::super::section::Section;
use super::{admin_tls, secret};

const DEFAULT: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9464);

/// Checks both sections.
pub fn admin(mut admin: Section<'_>, mut metrics: Section<'_>) -> Admin {
    let listen = address(&mut admin).unwrap_or(DEFAULT);
    let shown = admin.shown("token");
    let token = admin
        .node("token")
        .and_then(|node| secret::secret(admin.checks(), &shown, node));
    if !listen.ip().is_loopback() && !admin.has("token") {
        admin.checks().report(
            Problem::error("token", "`admin.token` is missing")
                .at(admin.place_of("listen"))
                .label("others than this machine can reach this address")
                .cause("without a token everyone on the network could read and write events")
                .hint("add `token = { file = \"…\" }`, or listen on 127.0.0.1"),
        );
    }
    let hosts = hosts(&mut admin);
    let stuck_after = admin
        .duration(
            "stuck_after",
            Duration::from_secs(1)..=Duration::from_secs(86_400),
        )
        .unwrap_or(Duration::from_secs(60));
    let metrics_listen = address(&mut metrics);
    if metrics_listen.is_some_and(|address| address == listen && address.port() != 0) {
        metrics.checks().report(
            Problem::error(
                "address",
                "`metrics.listen` is the address of `admin.listen`",
            )
            .at(metrics.place_of("listen"))
            .label("taken already")
            .hint("choose another port, or remove `[metrics]`: `admin.listen` serves metrics too"),
        );
    }
    let tls = admin_tls::admin_tls(&mut admin, &reached_under(listen, &hosts));
    admin.finish();
    metrics.finish();
    Admin {
        listen,
        token,
        hosts,
        stuck_after,
        metrics_listen,
        tls,
    }
}

fn address(section: &mut Section<'_>) -> Option<SocketAddr> {
    let (text, node) = section.text("listen")?;
    let named = text
        .strip_prefix("localhost:")
        .map(|port| format!("127.0.0.1:{port}"));
    let address = named.as_deref().unwrap_or(text).parse().ok();
    if address.is_none() {
        section.checks().report(
            Problem::error(
                "address",
                format!("{} must be an address and a port", section.shown("listen")),
            )
            .at(&node.place)
            .label("not of the form ADDRESS:PORT")
            .hint("write \"127.0.0.1:9464\", or \"0.0.0.0:9464\" for all addresses of the machine"),
        );
    }
    address
}

fn hosts(section: &mut Section<'_>) -> Vec<String> {
    let mut hosts = Vec::new();
    for (host, node) in section
        .texts("hosts", "a list of names")
        .unwrap_or_default()
    {
        let valid = !host.is_empty()
            && host.len() <= 253
            && host
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_'));
        if valid {
            hosts.push(host.to_ascii_lowercase());
        } else {
            section.checks().report(
                Problem::error(
                    "host",
                    "an entry of `admin.hosts` is not the name of a host",
                )
                .at(&node.place)
                .label("write the bare name: no scheme, port, path or `*`"),
            );
        }
    }
    hosts
}
