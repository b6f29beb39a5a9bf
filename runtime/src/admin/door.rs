//! Who may come in: every request passes here before a handler sees it.
//!
//! ```text
//! request ─▶ Host ─▶ Origin, Sec-Fetch-Site ─▶ Content-Type ─▶ token or cookie ─▶ handler
//!             421            403                   415             401, 403
//! ```
//!
//! The interface stands on the operator's machine, where a web page in the operator's browser can
//! send requests to it. A page under a foreign name that was pointed at this address (DNS rebinding)
//! fails at `Host`; a page of another site fails at `Origin` and `Sec-Fetch-Site`, which a browser
//! sets and a page cannot; a form or a script that avoids both in an old browser fails at the
//! content type. No CORS header is ever sent, so no other page reads an answer.

use std::net::Ipv4Addr;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::header::{
    AUTHORIZATION, CACHE_CONTROL, CONNECTION, CONTENT_SECURITY_POLICY, CONTENT_TYPE, COOKIE, HOST,
    HeaderName, ORIGIN, TRANSFER_ENCODING, WWW_AUTHENTICATE, X_CONTENT_TYPE_OPTIONS,
    X_FRAME_OPTIONS,
};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, Uri};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use super::answer::error;
use super::session::Sessions;
use crate::clock;
use crate::config::secret::Secret;

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// Paths that neither change anything nor reveal an event: open without the token.
const OPEN_PATHS: [&str; 4] = ["/", "/metrics", "/healthz", "/readyz"];

/// The rules of one listener.
#[derive(Clone, Debug)]
pub struct Door {
    /// Lower case; `None` lets any name pass.
    hosts: Option<Vec<String>>,
    /// Digest of the token: what is compared has one length whatever was sent.
    token: Option<[u8; 32]>,
    /// The cookies that stand for the token; there are none where there is no token.
    sessions: Option<Sessions>,
}

/// Why a request is turned away.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    pub status: StatusCode,
    pub reason: String,
}

impl Refusal {
    fn new(status: StatusCode, reason: impl Into<String>) -> Self {
        Self {
            status,
            reason: reason.into(),
        }
    }
}

impl Door {
    /// The door of the admin listener: loopback names and `hosts` may stand in `Host`, and what
    /// changes something or reveals events wants `token` where there is one.
    pub fn new(hosts: &[String], token: Option<&Secret>) -> Self {
        Self {
            hosts: Some(hosts.iter().map(|host| host.to_ascii_lowercase()).collect()),
            token: token.map(|token| Sha256::digest(token.reveal().as_bytes()).into()),
            sessions: token.map(|_| Sessions::fresh()),
        }
    }

    /// The same, on a listener that speaks TLS: its cookies go nowhere else.
    pub fn over_tls(mut self, tls: bool) -> Self {
        self.sessions = self.sessions.map(|sessions| sessions.over_tls(tls));
        self
    }

    /// The cookies that stand for the token, where there is one.
    pub fn sessions(&self) -> Option<&Sessions> {
        self.sessions.as_ref()
    }

    /// The door of the metrics listener, which scrapers reach under any name. It has nothing to
    /// protect but figures.
    pub fn for_metrics() -> Self {
        Self {
            hosts: None,
            token: None,
            sessions: None,
        }
    }

    /// Decides on a request by its head.
    ///
    /// # Errors
    /// The answer to give instead of handling it.
    pub fn admit(&self, method: &Method, uri: &Uri, headers: &HeaderMap) -> Result<(), Refusal> {
        let host = self.check_host(uri, headers)?;
        check_origin(&host, headers)?;
        check_content_type(method, headers)?;
        self.check_token(method, uri.path(), headers)
    }

    /// The name under which we were called, lower case, port included.
    fn check_host(&self, uri: &Uri, headers: &HeaderMap) -> Result<String, Refusal> {
        let host = one(headers, &HOST)?
            .ok_or_else(|| Refusal::new(StatusCode::BAD_REQUEST, "the Host header is missing"))?
            .to_ascii_lowercase();
        // An absolute request target names a host of its own, which servers must prefer: both must
        // be ours.
        let named = uri.authority().map(|a| a.as_str().to_ascii_lowercase());
        for host in named.iter().chain([&host]) {
            if !self.knows(host) {
                return Err(Refusal::new(
                    StatusCode::MISDIRECTED_REQUEST,
                    "this name is not served here: use a loopback address, or add the name to [admin] hosts",
                ));
            }
        }
        Ok(host)
    }

    fn knows(&self, host: &str) -> bool {
        let Some(hosts) = &self.hosts else {
            return true;
        };
        let Some((name, _)) = split_port(host) else {
            return false;
        };
        is_loopback(name) || hosts.iter().any(|known| known == host || known == name)
    }

    fn check_token(&self, method: &Method, path: &str, headers: &HeaderMap) -> Result<(), Refusal> {
        let Some(token) = &self.token else {
            return Ok(());
        };
        if matches!(*method, Method::GET | Method::HEAD) && OPEN_PATHS.contains(&path) {
            return Ok(());
        }
        let refusal = |reason| Err(Refusal::new(StatusCode::UNAUTHORIZED, reason));
        let Some(given) = one(headers, &AUTHORIZATION)? else {
            let cookies = one(headers, &COOKIE)?.unwrap_or_default();
            let mut sessions = self.sessions.iter();
            if sessions.any(|sessions| sessions.knows(cookies, clock::now_ms())) {
                return from_a_page(method, headers);
            }
            return refusal("the token is missing: send `Authorization: Bearer TOKEN`");
        };
        let given = match given.split_once(' ') {
            Some((scheme, given)) if scheme.eq_ignore_ascii_case("bearer") => given.trim(),
            _ => return refusal("the Authorization header must be `Bearer TOKEN`"),
        };
        let given: [u8; 32] = Sha256::digest(given.as_bytes()).into();
        match bool::from(given.ct_eq(token)) {
            true => Ok(()),
            false => refusal("the token is wrong"),
        }
    }
}

/// The one value of a header; two of them could be read differently here and by a proxy.
fn one<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Result<Option<&'a str>, Refusal> {
    let mut values = headers.get_all(name).iter();
    let first = values.next();
    if values.next().is_some() {
        return Err(Refusal::new(
            StatusCode::BAD_REQUEST,
            format!("the header {name} is given more than once"),
        ));
    }
    let Some(first) = first else {
        return Ok(None);
    };
    first.to_str().map(Some).map_err(|_| {
        Refusal::new(
            StatusCode::BAD_REQUEST,
            format!("the header {name} is not plain text"),
        )
    })
}

/// Name and port of a host; `None` where it is neither of the forms `name`, `name:port`,
/// `[v6]`, `[v6]:port`.
fn split_port(host: &str) -> Option<(&str, Option<u16>)> {
    let (name, port) = match host.strip_prefix('[') {
        Some(rest) => {
            let end = rest.find(']')?;
            let port = &rest[end + 1..];
            match port.is_empty() {
                true => (&host[..end + 2], None),
                false => (&host[..end + 2], Some(port.strip_prefix(':')?)),
            }
        }
        None => match host.split_once(':') {
            Some((name, port)) => (name, Some(port)),
            None => (host, None),
        },
    };
    match port {
        None => Some((name, None)),
        Some(port) if port.bytes().all(|byte| byte.is_ascii_digit()) => {
            Some((name, Some(port.parse().ok()?)))
        }
        Some(_) => None,
    }
}

fn is_loopback(name: &str) -> bool {
    name == "localhost"
        || name == "[::1]"
        || name.parse::<Ipv4Addr>().is_ok_and(|ip| ip.is_loopback())
}

/// A browser names the page that sends a request; a page of another origin is turned away. Tools
/// send neither header.
fn check_origin(host: &str, headers: &HeaderMap) -> Result<(), Refusal> {
    let refusal = || {
        Err(Refusal::new(
            StatusCode::FORBIDDEN,
            "the request comes from a page of another site",
        ))
    };
    if let Some(site) = one(headers, &SEC_FETCH_SITE)?
        && !matches!(site, "same-origin" | "none")
    {
        return refusal();
    }
    let Some(origin) = one(headers, &ORIGIN)? else {
        return Ok(());
    };
    let origin = origin.to_ascii_lowercase();
    let (scheme, authority) = origin.split_once("://").unwrap_or_default();
    let default_port = match scheme {
        "http" => 80,
        "https" => 443,
        _ => return refusal(),
    };
    let full = |text| split_port(text).map(|(name, port)| (name, port.unwrap_or(default_port)));
    match (full(authority), full(host)) {
        (Some(page), Some(here)) if page == here => Ok(()),
        _ => refusal(),
    }
}

/// A cookie is sent by the browser, not by the page: what changes something must also say which page
/// it comes from, as every browser does that knows `SameSite`. That it is one of ours was seen
/// before.
fn from_a_page(method: &Method, headers: &HeaderMap) -> Result<(), Refusal> {
    let says = headers.contains_key(ORIGIN) || headers.contains_key(&SEC_FETCH_SITE);
    match says || matches!(*method, Method::GET | Method::HEAD) {
        true => Ok(()),
        false => Err(Refusal::new(
            StatusCode::FORBIDDEN,
            "with a cookie a request must say by `Origin` which page it comes from; tools send the \
             token instead",
        )),
    }
}

/// What changes something must come with a content type that a form or a script of another page
/// cannot send unasked; a DELETE without a body needs none, for a browser asks before any DELETE.
fn check_content_type(method: &Method, headers: &HeaderMap) -> Result<(), Refusal> {
    if matches!(*method, Method::GET | Method::HEAD) {
        return Ok(());
    }
    let given = one(headers, &CONTENT_TYPE)?;
    let fits = match given {
        Some(given) => {
            let kind = given.split(';').next().unwrap_or_default().trim();
            let (class, form) = kind.split_once('/').unwrap_or_default();
            // The one of these that a form can send.
            let of_a_form = form.eq_ignore_ascii_case("x-www-form-urlencoded");
            class.eq_ignore_ascii_case("application") && !form.is_empty() && !of_a_form
        }
        None => *method == Method::DELETE,
    };
    match fits {
        true => Ok(()),
        false => Err(Refusal::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "the content type must be application/…, such as application/json for one event or \
             application/x-ndjson for a line each",
        )),
    }
}

/// The middleware: turns away what [`Door::admit`] refuses, and adds the headers that keep an
/// answer from being framed, sniffed, cached or given other pages' content.
pub async fn guard(State(door): State<Arc<Door>>, request: Request, next: Next) -> Response {
    let admitted = door.admit(request.method(), request.uri(), request.headers());
    // Where a proxy before us reads the length of such a body differently, what it takes for its
    // end would be the next request here. So there is none on this connection.
    let chunked = request.headers().contains_key(TRANSFER_ENCODING);
    let mut response = match admitted {
        Ok(()) => next.run(request).await,
        Err(refusal) => {
            let mut response = error(refusal.status, refusal.reason).into_response();
            if refusal.status == StatusCode::UNAUTHORIZED {
                let bearer = HeaderValue::from_static("Bearer");
                response.headers_mut().insert(WWW_AUTHENTICATE, bearer);
            }
            response
        }
    };
    let headers = response.headers_mut();
    for (name, value) in [
        (CONTENT_SECURITY_POLICY, "default-src 'self'"),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (X_FRAME_OPTIONS, "DENY"),
        (CACHE_CONTROL, "no-store"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    if chunked {
        headers.insert(CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(
                HeaderName::from_static(name),
                HeaderValue::from_str(value).expect("a header value"),
            );
        }
        headers
    }

    fn status(door: &Door, method: Method, target: &str, pairs: &[(&'static str, &str)]) -> u16 {
        let uri: Uri = target.parse().expect("a target");
        match door.admit(&method, &uri, &headers(pairs)) {
            Ok(()) => 200,
            Err(refusal) => refusal.status.as_u16(),
        }
    }

    fn door() -> Door {
        Door::new(
            &["Mill.Example.com".to_owned(), "proxy:8443".to_owned()],
            None,
        )
    }

    #[test]
    fn only_our_own_names_may_stand_in_host() {
        let cases = [
            ("localhost", 200),
            ("LOCALHOST:9464", 200),
            ("127.0.0.1:9464", 200),
            ("127.9.9.9", 200),
            ("[::1]:9464", 200),
            ("[::1]", 200),
            ("mill.example.com", 200),
            ("mill.example.com:443", 200),
            ("proxy:8443", 200),
            ("proxy:9000", 421),
            ("proxy", 421),
            ("evil.example", 421),
            ("localhost.evil.example", 421),
            ("evil.localhost", 421),
            ("127.0.0.1.evil.example", 421),
            ("localhost:9464@evil.example", 421),
            ("localhost@evil.example", 421),
            ("0.0.0.0:9464", 421),
            ("10.0.0.1:9464", 421),
            ("[::]:9464", 421),
            ("[::1]x", 421),
            ("[::1", 421),
            ("localhost:", 421),
            ("localhost:99999", 421),
            ("2130706433", 421),
            ("127.1", 421),
            ("", 421),
        ];
        for (host, wanted) in cases {
            let got = status(&door(), Method::GET, "/", &[("host", host)]);
            assert_eq!(got, wanted, "{host}");
        }
        assert_eq!(status(&door(), Method::GET, "/", &[]), 400);
        let two = [("host", "localhost"), ("host", "evil.example")];
        assert_eq!(status(&door(), Method::GET, "/", &two), 400);
    }

    /// A server must prefer the target's own host, so a rebinding check of `Host` alone is blind.
    #[test]
    fn an_absolute_target_must_name_us_too() {
        let host = [("host", "localhost")];
        let foreign = "http://evil.example/metrics";
        assert_eq!(status(&door(), Method::GET, foreign, &host), 421);
        let own = "http://localhost/metrics";
        assert_eq!(status(&door(), Method::GET, own, &host), 200);
    }

    #[test]
    fn pages_of_other_origins_are_turned_away() {
        let cases = [
            ("origin", "http://localhost:9464", 200),
            ("origin", "http://evil.example", 403),
            ("origin", "http://localhost:3000", 403),
            ("origin", "http://localhost", 403),
            ("origin", "null", 403),
            ("origin", "file://localhost:9464", 403),
            ("origin", "http://localhost:9464@evil.example", 403),
            ("origin", "", 403),
            ("sec-fetch-site", "same-origin", 200),
            ("sec-fetch-site", "none", 200),
            ("sec-fetch-site", "same-site", 403),
            ("sec-fetch-site", "cross-site", 403),
            ("sec-fetch-site", "anything", 403),
        ];
        for (name, value, wanted) in cases {
            let pairs = [("host", "localhost:9464"), (name, value)];
            let got = status(&door(), Method::GET, "/", &pairs);
            assert_eq!(got, wanted, "{name}: {value}");
        }
    }

    /// Behind a proxy that speaks TLS the page's origin has no port, nor has `Host`.
    #[test]
    fn a_default_port_may_be_left_out() {
        for (origin, host) in [
            ("https://mill.example.com", "mill.example.com"),
            ("https://mill.example.com", "mill.example.com:443"),
            ("http://mill.example.com:80", "mill.example.com"),
        ] {
            let pairs = [("host", host), ("origin", origin)];
            assert_eq!(status(&door(), Method::GET, "/", &pairs), 200, "{origin}");
        }
    }

    #[test]
    fn what_a_form_can_send_changes_nothing() {
        let cases = [
            (Method::POST, Some("application/json"), 200),
            (
                Method::POST,
                Some("Application/X-NDJSON; charset=utf-8"),
                200,
            ),
            (Method::POST, Some("application/octet-stream"), 200),
            (Method::POST, Some("text/plain"), 415),
            (Method::POST, Some("text/plain; application/json"), 415),
            (Method::POST, Some("multipart/form-data; boundary=x"), 415),
            (Method::POST, Some("applicatio"), 415),
            (Method::POST, Some("application/"), 415),
            (Method::POST, Some("application/x-www-form-urlencoded"), 415),
            (
                Method::POST,
                Some(" Application/X-WWW-Form-Urlencoded ;a=b"),
                415,
            ),
            (Method::POST, None, 415),
            (Method::PUT, None, 415),
            (Method::OPTIONS, None, 415),
            (Method::DELETE, None, 200),
            (Method::DELETE, Some("text/plain"), 415),
        ];
        for (method, kind, wanted) in cases {
            let mut pairs = vec![("host", "localhost")];
            pairs.extend(kind.map(|kind| ("content-type", kind)));
            let got = status(&door(), method.clone(), "/topics/t", &pairs);
            assert_eq!(got, wanted, "{method} {kind:?}");
        }
    }

    #[test]
    fn the_token_guards_all_but_figures_and_health() {
        let door = Door::new(&[], Some(&Secret::new("hunter2")));
        let cases = [
            (Method::GET, "/metrics", None, 200),
            (Method::GET, "/healthz", None, 200),
            (Method::GET, "/readyz", None, 200),
            (Method::GET, "/", None, 200),
            (Method::GET, "/topics/t", None, 401),
            (Method::GET, "/api/v1/consumers", None, 401),
            (Method::GET, "/metrics/../topics/t", None, 401),
            (Method::GET, "//metrics", None, 401),
            (Method::DELETE, "/metrics", None, 401),
            (Method::GET, "/topics/t", Some("Bearer hunter2"), 200),
            (Method::GET, "/topics/t", Some("bearer hunter2"), 200),
            (Method::GET, "/topics/t", Some("Bearer hunter"), 401),
            (Method::GET, "/topics/t", Some("Bearer hunter22"), 401),
            (Method::GET, "/topics/t", Some("Bearer "), 401),
            (Method::GET, "/topics/t", Some("Bearer"), 401),
            (Method::GET, "/topics/t", Some("Basic hunter2"), 401),
            (Method::GET, "/topics/t", Some("hunter2"), 401),
        ];
        for (method, path, given, wanted) in cases {
            let mut pairs = vec![("host", "localhost")];
            pairs.extend(given.map(|given| ("authorization", given)));
            let got = status(&door, method.clone(), path, &pairs);
            assert_eq!(got, wanted, "{method} {path} {given:?}");
        }
    }

    /// A cookie comes along with whatever page sends the request.
    #[test]
    fn a_cookie_stands_for_the_token_on_our_own_pages() {
        let door = Door::new(&[], Some(&Secret::new("hunter2")));
        let cookie = door.sessions().unwrap().cookie(clock::now_ms());
        let cookie = cookie.split(';').next().unwrap().to_owned();
        let forged = format!("{cookie}0");
        let ours = ("origin", "http://localhost");
        let fetch = ("sec-fetch-site", "same-origin");
        for (method, cookie, more, wanted) in [
            (Method::GET, &cookie, None, 200),
            (Method::GET, &forged, None, 401),
            (Method::DELETE, &cookie, None, 403),
            (Method::DELETE, &cookie, Some(ours), 200),
            (Method::DELETE, &cookie, Some(fetch), 200),
            (
                Method::DELETE,
                &cookie,
                Some(("sec-fetch-site", "cross-site")),
                403,
            ),
            (
                Method::DELETE,
                &cookie,
                Some(("origin", "http://evil.example")),
                403,
            ),
            (Method::DELETE, &forged, Some(ours), 401),
        ] {
            let mut pairs = vec![("host", "localhost"), ("cookie", cookie.as_str())];
            pairs.extend(more);
            let got = status(&door, method.clone(), "/topics/t", &pairs);
            assert_eq!(got, wanted, "{method} {pairs:?}");
        }
        let wrong = [
            ("host", "localhost"),
            ("cookie", cookie.as_str()),
            ("authorization", "Bearer x"),
        ];
        assert_eq!(status(&door, Method::GET, "/topics/t", &wrong), 401);
    }

    #[test]
    fn the_metrics_listener_has_any_name() {
        let door = Door::for_metrics();
        let pairs = [("host", "millstream.svc:9465")];
        assert_eq!(status(&door, Method::GET, "/metrics", &pairs), 200);
    }

    /// The token must not turn up in a log line that shows the door.
    #[test]
    fn the_door_does_not_show_its_token() {
        let door = Door::new(&[], Some(&Secret::new("hunter2")));
        assert!(!format!("{door:?}").contains("hunter2"));
    }
}
