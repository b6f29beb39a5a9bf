//! The consumer's secrets, where it grants the capability `secrets`.
//!
//! ```
//! use millstream_plugin::prelude::*;
//! use millstream_plugin::{http, secrets};
//!
//! fn handle(event: Event<'_>, _out: &mut Outbox) -> Result {
//!     http::post("https://hooks.example.com/orders")
//!         .bearer(secrets::get("api_key")?)
//!         .idempotency_key(event)
//!         .body(event.text()?)
//!         .send()?
//!         .error_for_status()?;
//!     Ok(())
//! }
//!
//! let run = Harness::function(handle)
//!     .secret("api_key", "k-1")
//!     .http(|_| Ok(http::Response::new(204)))
//!     .run([TestEvent::text("an order")]);
//! assert_eq!(run.requests()[0].header_value("authorization"), Some("Bearer k-1"));
//! ```

use std::time::Duration;

use crate::{Error, Result, host};

/// The secret of this name as it is now: it is read anew in each call, once however often you ask. So
/// ask when you need it, and one that was rotated is seen.
///
/// # Errors
/// There is none of this name: halts the consumer, or in `init` refuses the deploy. It cannot be
/// read at the moment: unavailable.
pub fn get(name: &str) -> Result<String> {
    if let Some(secret) = host::secret(name) {
        return Ok(secret);
    }
    match host::property(&format!("secret.{name}")) {
        Some(_) => {
            let text = format!("the secret {name:?} cannot be read; the runtime's log says why");
            Err(Error::unavailable(Duration::ZERO, text).coded("secret-unreadable".into()))
        }
        None => Err(Error::halt(
            "no-secret",
            format!(
                "there is no secret {name:?}; write `secrets = {{ {name} = {{ file = \"…\" }} }}` \
                 into the consumer's configuration"
            ),
        )),
    }
}
