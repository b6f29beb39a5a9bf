//! Which requests of a plugin may leave: to whom, over which address, in what form.
//!
//! ```text
//! URL ─▶ scheme, no user ─▶ host and port on the list? ─▶ name looked up ─▶ address public, or
//!                                                                          on the list itself?
//! ```
//! The second question is asked of the very address that is connected to: between a check and a
//! connection a name could change what it means.

use std::net::SocketAddr;

use url::Url;

use super::address;
use crate::config::{Capabilities, Destination, DestinationHost};

/// Bytes of a URL.
const MAX_URL: usize = 8 << 10;

/// Bytes of a method's name.
const MAX_METHOD: usize = 32;

/// Why a request does not leave. The text is for the plugin and the log.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The request itself is wrong, wherever it would go.
    #[error("{0}")]
    Invalid(String),
    /// It may not go there.
    #[error("{0}")]
    Denied(String),
}

/// Where a request goes.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Target {
    /// As URLs keep it; an IPv6 address is in brackets.
    pub host: String,
    pub port: u16,
}

/// The hosts that a consumer's plugin may reach.
#[derive(Clone, Debug)]
pub struct AllowList {
    granted: Capabilities,
}

impl AllowList {
    /// That of these capabilities.
    pub fn new(granted: Capabilities) -> Self {
        Self { granted }
    }

    /// Where a request to this URL goes.
    ///
    /// # Errors
    /// It is no URL for HTTP, or its host and port are not listed; the text has the line to write.
    pub fn target(&self, url: &str) -> Result<(Url, Target), Refusal> {
        let invalid = |text: &str| Err(Refusal::Invalid(text.to_owned()));
        if url.len() > MAX_URL {
            return invalid("the URL is longer than 8 KiB");
        }
        let url = Url::parse(url)
            .map_err(|error| Refusal::Invalid(format!("the URL cannot be read: {error}")))?;
        if !matches!(url.scheme(), "http" | "https") {
            return invalid("the URL is neither http nor https");
        }
        if !url.username().is_empty() || url.password().is_some() {
            return invalid("the URL names a user; send an authorization header instead");
        }
        let (Some(host), Some(port)) = (url.host(), url.port_or_known_default()) else {
            return invalid("the URL has no host");
        };
        let default = match url.scheme() {
            "https" => 443,
            _ => 80,
        };
        let host = DestinationHost::from(host);
        let listed = self.granted.http.iter().any(|entry| {
            entry.host == host
                && match entry.port {
                    Some(listed) => listed == port,
                    None => port == default,
                }
        });
        if !listed {
            let wanted = Destination {
                host,
                port: Some(port),
            };
            let line = self.line_with(wanted.clone());
            return Err(Refusal::Denied(format!(
                "{wanted} is not granted; the consumer would need {line}"
            )));
        }
        let target = Target {
            host: url.host_str().unwrap_or_default().to_owned(),
            port,
        };
        Ok((url, target))
    }

    /// Whether a connection to this address may be made, for a name that is listed.
    ///
    /// # Errors
    /// It is not public and not listed itself; the text, for the operator, has the line to write.
    pub fn may_connect(&self, name: &str, to: SocketAddr) -> Result<(), String> {
        let Some(kind) = address::special(to.ip()) else {
            return Ok(());
        };
        let own = DestinationHost::Address(to.ip().to_canonical());
        let listed =
            self.granted.http.iter().any(|entry| {
                entry.host == own && entry.port.is_none_or(|listed| listed == to.port())
            });
        if listed {
            return Ok(());
        }
        let line = self.line_with(Destination {
            host: own,
            port: Some(to.port()),
        });
        Err(format!(
            "{name} resolves to {}, which is {kind}; if that is meant, write {line}",
            to.ip()
        ))
    }

    fn line_with(&self, more: Destination) -> String {
        let mut granted = self.granted.clone();
        granted.http.push(more);
        granted.to_toml()
    }
}

/// Checks the method of a request.
///
/// # Errors
/// It is no method, or one that is for proxies and servers.
pub fn check_method(method: &str) -> Result<(), Refusal> {
    let token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    if method.is_empty() || method.len() > MAX_METHOD || !method.bytes().all(token) {
        return Err(Refusal::Invalid("the method is no HTTP method".into()));
    }
    if ["CONNECT", "TRACE"]
        .iter()
        .any(|refused| method.eq_ignore_ascii_case(refused))
    {
        return Err(Refusal::Invalid(format!("{method} is not offered")));
    }
    Ok(())
}

/// Headers that say how a connection is used, to whom it goes and whose trace it is part of: those
/// are the runtime's. With one of its own a plugin could reach another site behind the same address,
/// or slip a second request into a connection that others use.
const RESERVED: [&str; 16] = [
    "connection",
    "content-length",
    "expect",
    "host",
    "http2-settings",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "traceparent",
    "tracestate",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "via",
];

/// Checks the name of a header; its characters are the HTTP client's affair.
///
/// # Errors
/// It is the runtime's to set.
pub fn check_header(name: &str) -> Result<(), Refusal> {
    match RESERVED
        .iter()
        .any(|reserved| name.eq_ignore_ascii_case(reserved))
    {
        true => Err(Refusal::Invalid(format!(
            "the header {name} is the runtime's to set"
        ))),
        false => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(entries: &[&str]) -> AllowList {
        let http = entries
            .iter()
            .map(|entry| Destination::parse(entry).unwrap());
        AllowList::new(Capabilities {
            http: http.collect(),
            clock: true,
            ..Capabilities::default()
        })
    }

    fn port(list: &AllowList, url: &str) -> Result<u16, Refusal> {
        list.target(url).map(|(_, target)| target.port)
    }

    #[test]
    fn a_listed_host_and_port_is_reached_however_it_is_written() {
        let list = list(&[
            "api.example.com",
            "10.0.0.5:8080",
            "bücher.example:1",
            "[::1]:81",
        ]);
        for (url, wanted) in [
            ("https://api.example.com/v1?x=1", 443),
            ("http://API.example.com:80", 80),
            ("HTTPS://api.example.com:443/", 443),
            ("http://10.0.0.5:8080/", 8080),
            ("http://0xa.5:8080/", 8080),
            ("http://[::ffff:10.0.0.5]:8080/", 8080),
            ("http://xn--bcher-kva.example:1/", 1),
            ("http://[0:0::1]:81/", 81),
        ] {
            assert_eq!(port(&list, url), Ok(wanted), "{url}");
        }
    }

    /// Each of these once led past somebody's allow-list.
    #[test]
    fn what_is_not_listed_is_denied() {
        let list = list(&["api.example.com", "api.example.com:8443", "10.0.0.5:8080"]);
        for url in [
            "https://example.com/",
            "https://api.example.com.evil.test/",
            "https://evil.test/api.example.com",
            "https://evil.test#@api.example.com/",
            "https://api.example.com./",
            "https://xapi.example.com/",
            "http://api.example.com:443/",
            "https://api.example.com:80/",
            "https://api.example.com:444/",
            "http://10.0.0.5/",
            "http://127.0.0.1:8080/",
            "http://2130706433/",
            "http://[::1]:8080/",
        ] {
            assert!(matches!(port(&list, url), Err(Refusal::Denied(_))), "{url}");
        }
        for url in [
            "",
            "api.example.com",
            "/v1",
            "ftp://api.example.com/",
            "file:///etc/passwd",
            "https://api.example.com@evil.test/",
            "https://me:word@api.example.com/",
            "https:///",
            "http://300.1.1.1/",
        ] {
            assert!(
                matches!(port(&list, url), Err(Refusal::Invalid(_))),
                "{url}"
            );
        }
    }

    /// Whoever reads the refusal pastes the line.
    #[test]
    fn a_refusal_has_the_line_to_write() {
        let Err(Refusal::Denied(text)) = port(&list(&["a.test:1"]), "https://b.test/") else {
            panic!("it was not denied");
        };
        assert!(
            text.contains(r#"capabilities = { http = ["a.test:1", "b.test:443"], clock = true }"#),
            "{text}"
        );
    }

    #[test]
    fn a_name_leads_to_public_and_to_listed_addresses_only() {
        let list = list(&["a.test", "10.0.0.5:8080", "192.168.1.1", "[fd00::1]:443"]);
        let may = |address: &str| list.may_connect("a.test", address.parse().unwrap());
        for allowed in [
            "93.184.216.34:443",
            "[2606:4700::1111]:443",
            "10.0.0.5:8080",
            "[::ffff:10.0.0.5]:8080",
            "192.168.1.1:80",
            "192.168.1.1:8443",
            "[fd00::1]:443",
        ] {
            assert_eq!(may(allowed), Ok(()), "{allowed}");
        }
        for denied in [
            "10.0.0.5:8081",
            "10.0.0.6:8080",
            "127.0.0.1:443",
            "169.254.169.254:80",
            "[::1]:443",
            "[fd00::1]:80",
            "[::ffff:127.0.0.1]:443",
        ] {
            assert!(may(denied).is_err(), "{denied}");
        }
        let text = may("127.0.0.1:443").unwrap_err();
        assert!(
            text.contains("loopback") && text.contains("\"127.0.0.1:443\""),
            "{text}"
        );
    }

    #[test]
    fn methods_and_headers_that_are_the_runtimes_are_refused() {
        for method in ["GET", "POST", "PURGE", "get"] {
            assert_eq!(check_method(method), Ok(()), "{method}");
        }
        let long = "X".repeat(33);
        for method in ["", "CONNECT", "trace", "GET /x", "GET\r\n", "é", &long] {
            assert!(check_method(method).is_err(), "{method}");
        }
        for header in ["accept", "Authorization", "idempotency-key", "x-host"] {
            assert_eq!(check_header(header), Ok(()), "{header}");
        }
        for header in ["Host", "CONTENT-LENGTH", "Transfer-Encoding", "TraceParent"] {
            assert!(check_header(header).is_err(), "{header}");
        }
    }
}
