//! Who may come in: what the door lets pass is ours by a second reading.

use std::sync::LazyLock;

use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, Uri};
use millstream::admin::door::Door;
use millstream::config::secret::Secret;
use millstream_fuzz_tests::fuzz;
use proptest::collection::vec;
use proptest::prelude::*;

const TOKEN: &str = "hunter2";
const NAMES: &[&str] = &[
    "host",
    "host",
    "host",
    "origin",
    "sec-fetch-site",
    "content-type",
    "authorization",
    "authorization",
];
const VALUES: &[&str] = &[
    "localhost",
    "localhost:9464",
    "127.0.0.1",
    "[::1]:80",
    "mill.example",
    "evil.example",
    "localhost:9464@evil.example",
    "localhost.evil.example",
    "127.0.0.1.evil.example",
    "[::1",
    "",
    "http://localhost",
    "http://localhost:9464",
    "https://mill.example",
    "http://evil.example",
    "null",
    "same-origin",
    "none",
    "cross-site",
    "application/json",
    "text/plain",
    "application/x-ndjson; charset=utf-8",
    "Bearer hunter2",
    "bearer hunter2",
    "Bearer hunter3",
    "Basic hunter2",
    "Bearer ",
    "hunter2",
];

static WITH_PORT: LazyLock<regex::Regex> =
    LazyLock::new(|| regex::Regex::new(r"^(.*?)(:[0-9]{1,5})?$").unwrap());
static LOOPBACK: LazyLock<regex::Regex> =
    LazyLock::new(|| regex::Regex::new(r"^127\.[0-9]{1,3}\.[0-9]{1,3}\.[0-9]{1,3}$").unwrap());

/// The name without its port, where it is one of ours.
fn is_ours(host: &str) -> bool {
    let parts = WITH_PORT.captures(host);
    let name = parts
        .and_then(|parts| parts.get(1))
        .map_or("", |name| name.as_str());
    ["localhost", "[::1]", "mill.example"].contains(&name.to_lowercase().as_str())
        || LOOPBACK.is_match(name)
}

#[test]
fn the_door_lets_pass_only_what_is_ours() {
    let value = prop_oneof![
        10 => prop::sample::select(VALUES).prop_map(str::to_owned),
        1 => "[ -~]{0,12}",
    ];
    let method = prop::sample::select(vec![
        Method::GET,
        Method::POST,
        Method::DELETE,
        Method::HEAD,
    ]);
    let target = prop::sample::select(
        &[
            "/",
            "/metrics",
            "/topics/t",
            "//metrics",
            "http://evil.example/",
            "http://localhost/",
        ][..],
    );
    let inputs = (
        method,
        target,
        vec((prop::sample::select(NAMES), value), 0..6),
    );
    let door = Door::new(&["mill.example".to_owned()], Some(&Secret::new(TOKEN)));
    fuzz("requests", 10_000, &inputs, |(method, target, sent)| {
        let mut headers = HeaderMap::new();
        for (name, value) in &sent {
            if let Ok(value) = HeaderValue::from_str(value) {
                headers.append(HeaderName::from_static(name), value);
            }
        }
        let uri: Uri = target.parse().unwrap();
        if let Err(refusal) = door.admit(&method, &uri, &headers) {
            prop_assert!(refusal.status.is_client_error());
            prop_assert!(!refusal.reason.contains(TOKEN));
            return Ok(());
        }
        let all = |name: &str| {
            let values = headers.get_all(name).iter();
            values
                .map(|value| value.to_str().unwrap().to_owned())
                .collect::<Vec<_>>()
        };
        let hosts = all("host");
        prop_assert_eq!(hosts.len(), 1);
        prop_assert!(is_ours(&hosts[0]), "{}", hosts[0]);
        prop_assert!(uri.host().is_none_or(is_ours));
        for origin in all("origin") {
            let (_, authority) = origin.split_once("://").unwrap();
            prop_assert!(is_ours(authority));
        }
        prop_assert!(
            all("sec-fetch-site")
                .iter()
                .all(|site| site != "cross-site")
        );
        if method == Method::POST {
            let kinds = all("content-type");
            prop_assert!(
                kinds.len() == 1 && kinds[0].trim().to_lowercase().starts_with("application/")
            );
        }
        let open =
            matches!(method, Method::GET | Method::HEAD) && ["/", "/metrics"].contains(&uri.path());
        if !open {
            let tokens = all("authorization");
            prop_assert_eq!(tokens.len(), 1);
            let (scheme, token) = tokens[0].split_once(' ').unwrap();
            prop_assert!(scheme.eq_ignore_ascii_case("bearer") && token.trim() == TOKEN);
        }
        Ok(())
    });
}
