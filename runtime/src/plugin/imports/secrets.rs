//! `millstream:plugin/secrets`: the consumer's secrets.

use std::sync::Arc;

use tokio::time::timeout_at;
use tracing::Level;

use super::bindings::millstream::plugin::secrets::Host;
use crate::plugin::state::{DeadlinePassed, State};

impl Host for State {
    async fn get(&mut self, name: String) -> wasmtime::Result<Option<String>> {
        let grants = Arc::clone(&self.grants);
        let Some(secrets) = &grants.secrets else {
            return Ok(None);
        };
        if let Some(known) = self.call.secrets.get(&name) {
            return Ok(Some(known.to_owned()));
        }
        // A guest that waits in the host meets no epoch.
        let read = timeout_at(self.call.deadline(), secrets.read(&name)).await;
        match read.map_err(|_| DeadlinePassed)? {
            Ok(secret) => {
                if let Some(secret) = &secret {
                    self.call.secrets.keep(name, secret.clone());
                }
                Ok(secret)
            }
            Err(why) => {
                let text = format!(
                    "a secret cannot be read now; the plugin is told that there is none: {why}"
                );
                self.journal
                    .entry(Level::WARN, None, &text, &format!("secret={name:?}"));
                Ok(None)
            }
        }
    }
}
