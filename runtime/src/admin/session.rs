//! The cookie that stands for the token in a browser.
//!
//! ```text
//! POST /-/session with the token ─▶ Set-Cookie: HttpOnly, SameSite=Strict ─▶ door.rs knows it
//! ```
//! A page that kept the token itself would hand it to any script that gets into it. The cookie no
//! script can read, no other site can have sent, and it ends by itself and with the process.

use std::sync::Arc;
use std::time::Duration;

use axum::http::header::SET_COOKIE;
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse as _, Response};
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

use super::answer::{Refused, error};
use super::door::Door;
use crate::clock;

/// The cookie's name.
pub const COOKIE: &str = "millstream-session";
/// How long it holds.
const LIFE: Duration = Duration::from_secs(12 * 3_600);

/// Makes cookies and knows them again.
#[derive(Clone)]
pub struct Sessions {
    /// Of this process alone.
    key: Arc<[u8; 32]>,
    tls: bool,
}

impl std::fmt::Debug for Sessions {
    /// The key must not turn up in a log.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Sessions")
    }
}

impl Sessions {
    /// With a key of its own.
    pub fn fresh() -> Self {
        let mut key = [0; 32];
        let (one, other) = key.split_at_mut(16);
        one.copy_from_slice(uuid::Uuid::new_v4().as_bytes());
        other.copy_from_slice(uuid::Uuid::new_v4().as_bytes());
        Self {
            key: Arc::new(key),
            tls: false,
        }
    }

    /// The same; with `tls` its cookies are sent over TLS alone.
    pub fn over_tls(mut self, tls: bool) -> Self {
        self.tls = tls;
        self
    }

    /// What `Set-Cookie` says at `now_ms`.
    pub fn cookie(&self, now_ms: i64) -> String {
        let life = i64::try_from(LIFE.as_millis()).unwrap_or(i64::MAX);
        let until = now_ms.saturating_add(life);
        let value = format!("{until}.{}", hex::encode(self.seal(until)));
        self.with_attributes(&value, LIFE.as_secs())
    }

    /// What `Set-Cookie` says to end it.
    pub fn farewell(&self) -> String {
        self.with_attributes("", 0)
    }

    fn with_attributes(&self, value: &str, seconds: u64) -> String {
        let secure = if self.tls { "; Secure" } else { "" };
        format!("{COOKIE}={value}; Path=/; Max-Age={seconds}; HttpOnly; SameSite=Strict{secure}")
    }

    /// Whether one of the cookies of a request is ours and holds at `now_ms`.
    pub fn knows(&self, cookies: &str, now_ms: i64) -> bool {
        let ours = cookies.split(';').filter_map(|cookie| {
            let (name, value) = cookie.trim().split_once('=')?;
            (name == COOKIE).then_some(value)
        });
        ours.take(4).any(|value| self.is_good(value, now_ms))
    }

    fn is_good(&self, value: &str, now_ms: i64) -> bool {
        let Some((until, seal)) = value.split_once('.') else {
            return false;
        };
        let Ok(until) = until.parse::<i64>() else {
            return false;
        };
        let mut given = [0; 32];
        if hex::decode_to_slice(seal, &mut given).is_err() {
            return false;
        }
        until > now_ms && bool::from(given.ct_eq(&self.seal(until)))
    }

    /// A digest over the key's halves on both sides: what was sealed cannot be lengthened.
    fn seal(&self, until: i64) -> [u8; 32] {
        let (one, other) = self.key.split_at(16);
        let sealed = Sha256::new().chain_update(one);
        let sealed = sealed.chain_update(until.to_le_bytes());
        sealed.chain_update(other).finalize().into()
    }
}

/// `POST /-/session`: the door has seen the token.
pub(super) fn open(door: &Door) -> Result<Response, Refused> {
    set(door, |sessions| sessions.cookie(clock::now_ms()))
}

/// `DELETE /-/session`.
pub(super) fn close(door: &Door) -> Result<Response, Refused> {
    set(door, Sessions::farewell)
}

fn set(door: &Door, cookie: impl FnOnce(&Sessions) -> String) -> Result<Response, Refused> {
    let nothing = || error(StatusCode::NOT_FOUND, "no token is asked for here");
    let cookie = cookie(door.sessions().ok_or_else(nothing)?);
    let broken = |_| error(StatusCode::INTERNAL_SERVER_ERROR, "the cookie is none");
    let cookie = HeaderValue::from_str(&cookie).map_err(broken)?;
    Ok((StatusCode::NO_CONTENT, [(SET_COOKIE, cookie)]).into_response())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(cookie: &str) -> &str {
        cookie.split(';').next().unwrap()
    }

    #[test]
    fn a_cookie_is_kept_from_scripts_and_other_sites() {
        let cookie = Sessions::fresh().cookie(0);
        assert!(cookie.contains("HttpOnly") && cookie.contains("SameSite=Strict"));
        assert!(!cookie.contains("Secure"));
        assert!(
            Sessions::fresh()
                .over_tls(true)
                .cookie(0)
                .ends_with("; Secure")
        );
    }

    #[test]
    fn only_a_cookie_of_this_process_and_time_is_known() {
        let sessions = Sessions::fresh();
        let cookie = sessions.cookie(1_000);
        let cookie = value(&cookie);
        let end = 1_000 + LIFE.as_millis() as i64;
        assert!(sessions.knows(cookie, 1_000));
        assert!(sessions.knows(&format!("a=b; {cookie}; c=d"), end - 1));
        assert!(!sessions.knows(cookie, end), "it is over");
        assert!(!Sessions::fresh().knows(cookie, 1_000), "another process");
        let longer = cookie.replace(&end.to_string(), &(end + 1).to_string());
        for bad in [
            longer.as_str(),
            "",
            "millstream-session=",
            "millstream-session=1.00",
            &cookie.replace(COOKIE, "other"),
            &cookie[..cookie.len() - 2],
            &format!("{cookie}00"),
        ] {
            assert!(!sessions.knows(bad, 1_000), "{bad}");
        }
    }
}
