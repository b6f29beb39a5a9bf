//! `millstream:plugin/runtime`: facts about the runtime.

use super::bindings::millstream::plugin::runtime::Host;
use crate::plugin::state::State;

impl Host for State {
    fn property(&mut self, name: String) -> Option<String> {
        match name.as_str() {
            "version" => Some(env!("CARGO_PKG_VERSION").to_owned()),
            "consumer" => Some(self.identity.consumer.to_string()),
            "generation" => Some(self.identity.generation.to_string()),
            "plugin.digest" => Some(self.identity.digest.to_string()),
            "shadow" => Some(self.identity.in_shadow().to_string()),
            // Tells a secret that cannot be read now from one that there is not.
            other => {
                let name = other.strip_prefix("secret.")?;
                let secrets = self.grants.secrets.as_ref()?;
                secrets.has(name).then(|| "true".to_owned())
            }
        }
    }

    fn time_left_ms(&mut self) -> u32 {
        u32::try_from(self.call.time_left().as_millis()).unwrap_or(u32::MAX)
    }
}
