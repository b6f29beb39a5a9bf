//! Where a plugin may send requests: an entry of `capabilities.http`.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;

/// A host, with its port or the default one of the scheme.
///
/// The host is kept as URLs are: lower case, international names in Punycode, every way to write an
/// address as that address. So an entry and a URL that mean the same compare equal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Destination {
    pub host: DestinationHost,
    /// `None`: 80 for `http`, 443 for `https`.
    pub port: Option<u16>,
}

/// The host of a [`Destination`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DestinationHost {
    Name(Arc<str>),
    /// An IPv4 address that is written as an IPv6 one is kept as IPv4.
    Address(IpAddr),
}

/// Why a text is no destination.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoDestination {
    /// It has a scheme, a path, a user or the like: it is more than a host.
    Url,
    Wildcard,
    Port,
    Host,
}

impl NoDestination {
    /// What is wrong, in a few words.
    pub fn describe(self) -> &'static str {
        match self {
            Self::Url => "a host and a port, without scheme, user and path",
            Self::Wildcard => "each host is named by itself, without `*`",
            Self::Port => "a port is a number from 1 to 65535",
            Self::Host => "neither a name nor an address",
        }
    }
}

impl Destination {
    /// Reads `host`, `host:port`, `address`, `address:port` or `[address]:port`.
    ///
    /// # Errors
    /// It is none of them.
    pub fn parse(text: &str) -> Result<Self, NoDestination> {
        if text.contains('*') {
            return Err(NoDestination::Wildcard);
        }
        if text.contains(['/', '@', '?', '#', '\\']) || text.chars().any(char::is_whitespace) {
            return Err(NoDestination::Url);
        }
        if let Ok(address) = text.parse::<Ipv6Addr>() {
            return Ok(Self {
                host: DestinationHost::Address(IpAddr::V6(address).to_canonical()),
                port: None,
            });
        }
        let after_brackets = text.rfind(']').map_or(0, |end| end + 1);
        let (host, port) = match text[after_brackets..].rsplit_once(':') {
            Some((rest, port)) => (&text[..after_brackets + rest.len()], Some(port)),
            None => (text, None),
        };
        let port = port
            .map(|port| match port.parse() {
                Ok(port) if port > 0 => Ok(port),
                _ => Err(NoDestination::Port),
            })
            .transpose()?;
        let host = url::Host::parse(host).map_err(|_| NoDestination::Host)?;
        Ok(Self {
            host: host.into(),
            port,
        })
    }
}

impl<S: AsRef<str>> From<url::Host<S>> for DestinationHost {
    fn from(host: url::Host<S>) -> Self {
        match host {
            url::Host::Domain(name) => Self::Name(name.as_ref().into()),
            url::Host::Ipv4(address) => Self::Address(address.into()),
            url::Host::Ipv6(address) => Self::Address(IpAddr::V6(address).to_canonical()),
        }
    }
}

impl fmt::Display for DestinationHost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => f.write_str(name),
            Self::Address(IpAddr::V4(address)) => write!(f, "{address}"),
            Self::Address(IpAddr::V6(address)) => write!(f, "[{address}]"),
        }
    }
}

impl fmt::Display for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.port {
            Some(port) => write!(f, "{}:{port}", self.host),
            None => write!(f, "{}", self.host),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str) -> String {
        Destination::parse(text).unwrap().to_string()
    }

    /// An entry that is kept otherwise than a URL would be never matches anything.
    #[test]
    fn hosts_are_kept_as_urls_keep_them() {
        for (text, kept) in [
            ("API.Example.com", "api.example.com"),
            ("api.example.com:8443", "api.example.com:8443"),
            ("bücher.example", "xn--bcher-kva.example"),
            ("10.0.0.5:8080", "10.0.0.5:8080"),
            ("0x7f.1", "127.0.0.1"),
            ("[::1]:80", "[::1]:80"),
            ("::1", "[::1]"),
            ("[2001:DB8::1]", "[2001:db8::1]"),
            ("[::ffff:10.0.0.5]:80", "10.0.0.5:80"),
        ] {
            assert_eq!(shown(text), kept, "{text}");
            assert_eq!(shown(kept), kept, "{text}");
        }
    }

    #[test]
    fn what_is_more_or_less_than_a_host_is_told_apart() {
        for (text, why) in [
            ("https://api.example.com", NoDestination::Url),
            ("api.example.com/v1", NoDestination::Url),
            ("me@api.example.com", NoDestination::Url),
            ("10.0.0.0/8", NoDestination::Url),
            ("*.example.com", NoDestination::Wildcard),
            ("api.example.com:0", NoDestination::Port),
            ("api.example.com:https", NoDestination::Port),
            ("api.example.com:65536", NoDestination::Port),
            ("", NoDestination::Host),
            (":443", NoDestination::Host),
            ("[::1", NoDestination::Host),
            ("300.1.1.1", NoDestination::Host),
        ] {
            assert_eq!(Destination::parse(text), Err(why), "{text}");
        }
    }
}
