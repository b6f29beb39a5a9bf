//! What of a consumer can change while events flow, beside plugin and `config`: written down, and read
//! again after a restart, when the file says something else.
//!
//! ```text
//! consumer ─▶ as `config show` writes it ─▶ these keys as JSON ─▶ among the others' of today ─▶ checks
//! ```
//! Secrets are references here as everywhere.

use std::path::Path;
use std::sync::Arc;

use serde_json::{Map, Value};

use super::check;
use super::checks::Checks;
use super::problem::{Place, Problem, Problems};
use super::source::Sources;
use super::{Consumer, Runtime, show, written};

const KEYS: [&str; 8] = [
    "capabilities",
    "circuit_breaker",
    "deploy",
    "filter",
    "limits",
    "rate",
    "retry",
    "secrets",
];

/// The settings as text; the same ones always give the same.
pub fn write(consumer: &Consumer) -> String {
    let mut all = table(consumer);
    all.retain(|key, _| KEYS.contains(&&**key));
    Value::Object(all).to_string()
}

/// The consumer with what [`write()`] wrote in place of its own.
///
/// # Errors
/// The text is none of ours, or does not go with what `runtime` and the consumer say today.
pub fn read(consumer: &Consumer, text: &str, runtime: &Runtime) -> Result<Consumer, Problems> {
    let mut sources = Sources::default();
    let mut all = table(consumer);
    all.retain(|key, _| !KEYS.contains(&&**key) && key != "config");
    all.insert("plugin".into(), "kept.wasm".into());
    // Who runs is asked elsewhere, and what is missing by now is told when it is needed.
    all.insert("enabled".into(), false.into());
    let kept = serde_json::from_str::<Map<String, Value>>(text);
    let shown = kept.map_err(|error| error.to_string()).and_then(|kept| {
        all.extend(kept);
        toml::to_string(&all).map_err(|error| error.to_string())
    });
    let problems = match shown {
        Err(cause) => vec![Problem::error("kept", "no settings").cause(cause)],
        Ok(shown) => {
            let file = sources.add(Path::new(NAME), shown);
            let (table, mut problems) = written::parse(file, sources.text(file));
            let place = Place { file, span: 0..0 };
            let checks = Checks::new(&sources, &|_| None);
            let read = check::alone(&checks, &table, &place, runtime);
            problems.extend(checks.finish().0);
            if !problems.iter().any(Problem::is_error) {
                return Ok(Consumer {
                    capabilities: read.capabilities,
                    circuit_breaker: read.circuit_breaker,
                    deploy: read.deploy,
                    filter: read.filter,
                    limits: read.limits,
                    rate: read.rate,
                    retry: read.retry,
                    secrets: read.secrets,
                    ..consumer.clone()
                });
            }
            problems
        }
    };
    Err(Problems::new(Arc::new(sources), problems))
}

/// How messages name the text.
const NAME: &str = "what-was-kept";

fn table(consumer: &Consumer) -> Map<String, Value> {
    match show::consumer(consumer) {
        Value::Object(table) => table,
        _ => Map::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Config, load_without_plugins};
    use super::*;

    fn config(more: &str) -> Config {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("millstream.toml");
        let text =
            format!("[[consumer]]\nname = \"a\"\nplugin = \"p.wasm\"\ntopics = [\"t\"]\n{more}\n");
        std::fs::write(&file, text).unwrap();
        load_without_plugins(&file, &|_| None).unwrap().config
    }

    /// Settings that come back as others would be swapped in at each look at the file.
    #[test]
    fn settings_come_back_as_they_were_and_the_others_stay_those_of_today() {
        let kept = config(
            "limits = { memory = \"32MiB\", deadline = \"1500ms\", hops = 3 }\n\
             retry = { max_attempts = 2, factor = 1.7, jitter = false }\n\
             circuit_breaker = { failure_ratio = 0.3 }\nrate = \"7/m\"\n\
             filter = { type = [\"A\", \"!B*\"], header.region = [\"$${x}\"] }\n\
             deploy = { probation = \"30s\" }\n\
             capabilities = { http = [\"api.example.com\"], secrets = true }\n\
             secrets = { key = { file = \"/proc/self/status\" } }",
        );
        let today = config("ordering = \"key\"\ncircuit_breaker = false");
        let (kept, consumer) = (&kept.consumers[0], &today.consumers[0]);
        let read = read(consumer, &write(kept), &today.runtime).unwrap();
        let expected = Consumer {
            ordering: consumer.ordering,
            plugin: consumer.plugin.clone(),
            ..Consumer::clone(kept)
        };
        assert_eq!(read, expected);
        assert_eq!(write(&read), write(kept));
        let back = super::read(kept, &write(consumer), &today.runtime).unwrap();
        assert_eq!((back.circuit_breaker, back.rate), (None, None));
    }

    #[test]
    fn what_does_not_go_with_today_is_refused() {
        let (kept, mut today) = (config("limits = { memory = \"64MiB\" }"), config(""));
        today.runtime.max_plugin_memory = 32 << 20;
        let consumer = &today.consumers[0];
        assert!(read(consumer, &write(&kept.consumers[0]), &today.runtime).is_err());
        for text in ["", "[]", "{\"limits\": 7}"] {
            assert!(read(consumer, text, &kept.runtime).is_err(), "{text}");
        }
    }
}
