//! A plugin that uses the capabilities, and misuses them. The value of an event is a command, see
//! `act`; the answer is its value.
//!
//! It is written with the SDK, so that what crosses the wall is what plugins send in earnest.
#![allow(
    clippy::disallowed_methods,
    reason = "the guest's clock is what is tested"
)]

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use millstream_plugin::prelude::*;
use millstream_plugin::{http, secrets};
use serde::Deserialize;

struct Capable;

/// A request in all its parts.
#[derive(Deserialize)]
struct Wish {
    #[serde(default = "get")]
    method: String,
    url: String,
    #[serde(default)]
    headers: Vec<(String, String)>,
    /// Bytes of a body of `x`.
    #[serde(default)]
    body: usize,
    #[serde(default)]
    timeout_ms: u64,
}

fn get() -> String {
    "GET".to_owned()
}

impl Consumer for Capable {
    type Settings = serde_json::Value;

    /// `{ "init": "COMMAND" }` does that at the start, and fails with it.
    fn init(settings: Self::Settings, _setup: &Setup) -> Result<Self> {
        if let Some(command) = settings["init"].as_str() {
            act(command)?;
        }
        Ok(Self)
    }

    fn handle(&mut self, event: Event<'_>, out: &mut Outbox) -> Result {
        let answer = act(event.text()?)?;
        out.text(&answer)
    }
}

export!(Capable);

fn act(command: &str) -> Result<String> {
    let (verb, rest) = command.split_once(' ').unwrap_or((command, ""));
    Ok(match verb {
        // The answer or the error, in words.
        "get" => shown(http::get(rest).send()),
        "request" => shown(wish(rest)?.send()),
        // The same, with the remedies that the SDK chooses.
        "fetch" => {
            let answer = http::get(rest).send()?.error_for_status()?;
            answer.text()?.to_owned()
        }
        // So many at once; a line each.
        "get-many" => {
            let (count, url) = rest.split_once(' ').or_reject("command")?;
            let count: usize = count.parse()?;
            let requests = (0..count).map(|index| http::get(format!("{url}{index}")));
            let answers = http::send_all(requests).into_iter().map(shown);
            answers.collect::<Vec<_>>().join("\n")
        }
        // What is left of the mind after it: a call that waited must still be ended.
        "get-then-spin" => {
            let _ = http::get(rest).send();
            loop {
                std::hint::black_box(rest);
            }
        }
        "secret" => secrets::get(rest)?,
        "secrets" => {
            let (count, name) = rest.split_once(' ').or_reject("command")?;
            for _ in 1..count.parse::<usize>()? {
                secrets::get(name)?;
            }
            secrets::get(name)?
        }
        "variables" => {
            let mut variables: Vec<_> = std::env::vars()
                .map(|(name, value)| format!("{name}={value}"))
                .collect();
            variables.sort();
            variables.join(" ")
        }
        "wander" => wander(),
        _ => command.to_owned(),
    })
}

fn wish(json: &str) -> Result<http::Request> {
    let wish: Wish = serde_json::from_str(json)?;
    let mut request = http::request(wish.method, wish.url);
    for (name, value) in wish.headers {
        request = request.header(name, value);
    }
    if wish.body > 0 {
        request = request.body(vec![b'x'; wish.body]);
    }
    if wish.timeout_ms > 0 {
        request = request.timeout(Duration::from_millis(wish.timeout_ms));
    }
    Ok(request)
}

/// `STATUS BODY`, or the error as it is written in Rust; a long body by its length.
fn shown(answer: Result<http::Response, http::Error>) -> String {
    match answer {
        Ok(answer) if answer.bytes().len() > 1_000 => {
            format!("{} {} bytes", answer.status(), answer.bytes().len())
        }
        Ok(answer) => {
            let body = String::from_utf8_lossy(answer.bytes());
            format!("{} {body}", answer.status())
        }
        Err(error) => format!("{error:?}"),
    }
}

/// Everything in Rust's standard library that differs from run to run: the order of a hash map,
/// random numbers, and the time.
fn wander() -> String {
    let map: HashMap<u32, u32> = (0..20).map(|number| (number, number)).collect();
    let order: Vec<_> = map.keys().map(u32::to_string).collect();
    let random = RandomState::new().hash_one("a");
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    format!(
        "{} {random:016x} {}",
        order.join(","),
        now.unwrap_or_default().as_nanos()
    )
}
