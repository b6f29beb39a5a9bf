//! What a plugin is granted beyond computing, and the secrets that it may read.

use std::path::PathBuf;
use std::sync::Arc;

use serde_json::{Value, json};

use super::destination::Destination;

/// `capabilities` of a consumer. The default grants nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Capabilities {
    /// Where requests may go; empty: nowhere.
    pub http: Vec<Destination>,
    /// Names of environment variables that the plugin sees.
    pub env: Vec<Arc<str>>,
    /// The real wall clock.
    pub clock: bool,
    /// Real random numbers.
    pub random: bool,
    /// The consumer's `secrets`.
    pub secrets: bool,
}

impl Capabilities {
    /// The line that grants the same in a configuration, with all that is not granted left out.
    pub fn to_toml(&self) -> String {
        let list = |key: &str, entries: Vec<String>| match entries.is_empty() {
            true => None,
            false => Some(format!("{key} = [{}]", entries.join(", "))),
        };
        let quoted = |text: String| format!("\"{text}\"");
        let http = self.http.iter().map(|one| quoted(one.to_string()));
        let env = self.env.iter().map(|one| quoted(one.to_string()));
        let switch = |key: &str, on: bool| on.then(|| format!("{key} = true"));
        let parts: Vec<String> = [
            list("http", http.collect()),
            list("env", env.collect()),
            switch("clock", self.clock),
            switch("random", self.random),
            switch("secrets", self.secrets),
        ]
        .into_iter()
        .flatten()
        .collect();
        match parts.is_empty() {
            true => "capabilities = {}".to_owned(),
            false => format!("capabilities = {{ {} }}", parts.join(", ")),
        }
    }

    /// Every key, in the form in which one would write it.
    pub(super) fn shown(&self) -> Value {
        let http: Vec<_> = self.http.iter().map(ToString::to_string).collect();
        let env: Vec<_> = self.env.iter().map(ToString::to_string).collect();
        json!({
            "http": http,
            "env": env,
            "clock": self.clock,
            "random": self.random,
            "secrets": self.secrets,
        })
    }
}

/// Where a secret of a plugin is read, in each call that asks for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SecretSource {
    /// The environment variable of this name.
    Environment(String),
    /// A file; a newline at its end is cut.
    File(PathBuf),
}

impl SecretSource {
    /// The reference, never what it refers to.
    pub(super) fn shown(&self) -> Value {
        match self {
            Self::Environment(name) => json!({ "env": name }),
            Self::File(path) => json!({ "file": path.display().to_string() }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// People paste this line.
    #[test]
    fn the_line_that_grants_is_toml() {
        assert_eq!(Capabilities::default().to_toml(), "capabilities = {}");
        let all = Capabilities {
            http: vec![
                Destination::parse("api.example.com:443").unwrap(),
                Destination::parse("[::1]:80").unwrap(),
            ],
            env: vec!["REGION".into()],
            clock: true,
            random: true,
            secrets: true,
        };
        assert_eq!(
            all.to_toml(),
            r#"capabilities = { http = ["api.example.com:443", "[::1]:80"], env = ["REGION"], clock = true, random = true, secrets = true }"#
        );
        all.to_toml().parse::<toml::Table>().unwrap();
    }
}
