//! Fetching over HTTP: whether to ask again, and where a redirect may lead.

use std::time::Duration;

use url::Url;

use crate::config::origin::is_loopback;

/// Requests for one thing at most: one that fails three times and then passes is got.
const ATTEMPTS: u32 = 4;
/// The first wait; each is twice the one before.
const FIRST_WAIT: Duration = Duration::from_millis(250);
/// The longest wait, a server's own wish included.
const LONGEST_WAIT: Duration = Duration::from_secs(15);
/// Redirects of one request at most.
pub const REDIRECTS: u32 = 5;

/// How long to wait after failed attempt number `attempt` (from 1 on) of what may pass, or `None`
/// where it is not worth another one. `wish` is the server's `Retry-After`, `dice` a random number
/// from 0 to 1: runtimes that failed together do not come back together.
pub fn again(attempt: u32, wish: Option<Duration>, dice: f64) -> Option<Duration> {
    if attempt >= ATTEMPTS {
        return None;
    }
    let doubled = FIRST_WAIT.saturating_mul(1 << (attempt - 1).min(10));
    let wait = doubled.mul_f64(1.0 - dice.clamp(0.0, 1.0) / 2.0);
    Some(wish.unwrap_or_default().max(wait).min(LONGEST_WAIT))
}

/// Whether an answer of this status may be another one soon.
pub fn passes(status: u16) -> bool {
    matches!(status, 408 | 425 | 429 | 500 | 502 | 503 | 504)
}

/// Where a redirect leads, the `hops`th of its request (from 1 on).
///
/// # Errors
/// Why it is not followed.
pub fn redirect(from: &Url, location: Option<&str>, hops: u32) -> Result<Url, String> {
    if hops > REDIRECTS {
        return Err(format!("it redirects more than {REDIRECTS} times"));
    }
    let to = location
        .ok_or("it redirects to nowhere")
        .and_then(|to| from.join(to).map_err(|_| "it redirects to what is no URL"))?;
    let local = |url: &Url| url.host().is_some_and(|host| is_loopback(&host));
    match (from.scheme(), to.scheme()) {
        ("https", "http") => Err("it redirects from https to http".to_owned()),
        (_, "http") if !local(&to) => Err("it redirects to plain http".to_owned()),
        // A server out there must not choose what is asked of this machine.
        _ if local(&to) && !local(from) => Err("it redirects to this machine".to_owned()),
        (_, "https" | "http") => Ok(to),
        (_, _) => Err("it redirects to another scheme".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_fails_three_times_is_asked_a_fourth_time_and_no_more() {
        let waits: Vec<_> = (1..=4).map(|attempt| again(attempt, None, 0.0)).collect();
        let wanted = [250, 500, 1000].map(|wait| Some(Duration::from_millis(wait)));
        assert_eq!(waits[..3], wanted);
        assert_eq!(waits[3], None);
        assert_eq!(again(1, None, 1.0), Some(Duration::from_millis(125)));
    }

    /// A server's wish must not hold a deploy for an hour.
    #[test]
    fn a_servers_wish_is_heard_within_bounds() {
        let wish = |seconds| again(1, Some(Duration::from_secs(seconds)), 0.5);
        assert_eq!(wish(3), Some(Duration::from_secs(3)));
        assert_eq!(wish(3600), Some(LONGEST_WAIT));
    }

    #[test]
    fn redirects_lead_to_no_weaker_place() {
        for (from, to, wanted) in [
            ("https://a.example/x", "/y", Ok("https://a.example/y")),
            (
                "https://a.example/x",
                "https://b.example/",
                Ok("https://b.example/"),
            ),
            (
                "http://127.0.0.1:1/x",
                "http://127.0.0.1:2/",
                Ok("http://127.0.0.1:2/"),
            ),
            (
                "http://localhost/x",
                "https://b.example/",
                Ok("https://b.example/"),
            ),
            (
                "https://a.example/x",
                "http://a.example/",
                Err("https to http"),
            ),
            (
                "https://localhost/x",
                "http://localhost/",
                Err("https to http"),
            ),
            ("http://localhost/x", "http://b.example/", Err("plain http")),
            (
                "https://a.example/x",
                "https://127.0.0.1/",
                Err("this machine"),
            ),
            ("https://a.example/x", "https://[::1]/", Err("this machine")),
            (
                "https://a.example/x",
                "file:///etc/passwd",
                Err("another scheme"),
            ),
            ("https://a.example/x", "https://", Err("no URL")),
        ] {
            let from = Url::parse(from).unwrap();
            match (redirect(&from, Some(to), 1), wanted) {
                (Ok(url), Ok(wanted)) => assert_eq!(url.as_str(), wanted),
                (Err(why), Err(part)) => assert!(why.contains(part), "{to}: {why}"),
                (other, _) => panic!("{from} to {to}: {other:?}"),
            }
        }
        let from = Url::parse("https://a.example/").unwrap();
        assert!(redirect(&from, Some("/"), REDIRECTS).is_ok());
        assert!(redirect(&from, Some("/"), REDIRECTS + 1).is_err());
        assert!(redirect(&from, None, 1).is_err());
    }
}
