//! What one generation of a plugin is granted, ready to be used by its imports.

use std::path::Path;
use std::sync::Arc;

use super::engine::Host;
use super::error::LoadError;
use super::inspect::{Inspection, Needs};
use super::outbound::Outbound;
use super::secrets::Secrets;
use crate::config::{self, Capabilities, Destination};

/// What the imports of a generation may do.
pub(super) struct Grants {
    /// `None`: no request leaves.
    pub(super) outbound: Option<Outbound>,
    /// `None`: there are none.
    pub(super) secrets: Option<Secrets>,
    /// Variables that are read when an instance starts.
    pub(super) env: Vec<Arc<str>>,
    pub(super) clock: bool,
    pub(super) random: bool,
}

impl Grants {
    /// Those of this consumer. Blocks, where it may send requests, while it reads the certificates
    /// that the machine trusts.
    ///
    /// # Errors
    /// The runtime cannot make them ready, through no fault of the plugin.
    pub(super) fn of(host: &Host, consumer: &config::Consumer) -> Result<Self, String> {
        let granted = &consumer.capabilities;
        let outbound = match granted.http.is_empty() {
            true => None,
            false => Some(Outbound::new(host, consumer).map_err(|error| error.to_string())?),
        };
        Ok(Self {
            outbound,
            secrets: granted.secrets.then(|| Secrets::new(&consumer.secrets)),
            env: granted.env.clone(),
            clock: granted.clock,
            random: granted.random,
        })
    }

    /// The variables of `env` that are set, each with its value now.
    pub(super) fn variables(&self) -> impl Iterator<Item = (&str, String)> {
        let names = self.env.iter();
        names.filter_map(|name| Some((&**name, std::env::var(&**name).ok()?)))
    }
}

/// Whether a consumer with these capabilities may run a component that imports this. One that is
/// granted and not imported is no mistake.
///
/// # Errors
/// It imports what is not granted; the remedy has the line that would grant it.
pub fn check(
    path: &Path,
    inspection: &Inspection,
    granted: &Capabilities,
) -> Result<(), LoadError> {
    let mut wanted = granted.clone();
    let mut missing = Vec::new();
    for import in &inspection.imports {
        let Needs::Capability { capability, .. } = import.needs else {
            continue;
        };
        match capability {
            "http" if granted.http.is_empty() => {
                // Any host would do for the line; this one is nobody's.
                wanted
                    .http
                    .extend(Destination::parse("api.example.com:443"));
            }
            "secrets" if !granted.secrets => wanted.secrets = true,
            _ => continue,
        }
        missing.push(import.name.clone());
    }
    match missing.is_empty() {
        true => Ok(()),
        false => Err(LoadError::NotGranted {
            path: path.into(),
            imports: missing,
            line: wanted.to_toml(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::super::inspect::Import;
    use super::*;

    fn importing(interfaces: &[&'static str]) -> Inspection {
        let imports = interfaces.iter().map(|capability| Import {
            name: format!("millstream:plugin/{capability}@0.1.0"),
            needs: Needs::Capability {
                capability,
                supported: true,
            },
        });
        Inspection {
            contract: "0.1.0".into(),
            digest: "sha256:".into(),
            size: 0,
            imports: imports.collect(),
            exports: Vec::new(),
        }
    }

    /// The line keeps what is granted already: pasted, it takes nothing away.
    #[test]
    fn a_missing_grant_is_refused_with_the_line_to_write() {
        let path = Path::new("p.wasm");
        let granted = Capabilities {
            clock: true,
            ..Capabilities::default()
        };
        let error = check(path, &importing(&["http", "secrets"]), &granted).unwrap_err();
        let text = format!("{error}: {}", error.remedy());
        for part in [
            "millstream:plugin/http@0.1.0 and millstream:plugin/secrets@0.1.0",
            r#"`capabilities = { http = ["api.example.com:443"], clock = true, secrets = true }`"#,
        ] {
            assert!(text.contains(part), "{part} is not in {text}");
        }
        let granted = Capabilities {
            secrets: true,
            ..granted
        };
        check(path, &importing(&["secrets"]), &granted).unwrap();
        check(path, &importing(&[]), &granted).unwrap();
        assert!(check(path, &importing(&["http", "secrets"]), &granted).is_err());
    }
}
