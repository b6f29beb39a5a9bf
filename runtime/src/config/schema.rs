//! The JSON Schema of a configuration file, for editors.
//!
//! The types below are the file as it may be written, and their docstrings are the descriptions
//! that an editor shows. They are never filled: files are read by [`super::section`], which keeps
//! places. A test compares the keys of both.

pub mod consumer;

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde_json::Value;

use self::consumer::Consumer;

/// The schema of the main file.
pub fn schema() -> Value {
    let mut schema = schemars::schema_for!(Millstream).to_value();
    drop_null(&mut schema);
    schema
}

/// TOML has no null: an optional key is one that is left out.
fn drop_null(value: &mut Value) {
    match value {
        Value::Object(object) => {
            if let Some(Value::Array(types)) = object.get_mut("type") {
                types.retain(|name| name != "null");
                if let [only] = &types[..] {
                    let only = only.clone();
                    object.insert("type".into(), only);
                }
            }
            let mut only = None;
            if let Some(Value::Array(choices)) = object.get_mut("anyOf") {
                choices.retain(|choice| choice.get("type").is_none_or(|name| name != "null"));
                if let [Value::Object(choice)] = &choices[..] {
                    only = Some(choice.clone());
                }
            }
            if let Some(only) = only {
                object.remove("anyOf");
                for (key, value) in only {
                    // A description of the key says more than that of its type.
                    object.entry(key).or_insert(value);
                }
            }
            object.values_mut().for_each(drop_null);
        }
        Value::Array(values) => values.iter_mut().for_each(drop_null),
        _ => {}
    }
}

/// A value, or a string that holds one after its `${env:…}` references were replaced.
#[derive(JsonSchema)]
#[schemars(untagged, inline)]
pub enum Or<T> {
    Value(T),
    Reference(String),
}

/// Whole numbers with ms, s, m, h, d or w, such as "30s" or "1h30m".
#[derive(JsonSchema)]
pub struct Duration(
    #[schemars(regex(pattern = r"^\s*([0-9]+\s*(ms|s|m|h|d|w)\s*)+$|\$\{"))] pub String,
);

/// A whole number with B, KiB, MiB, GiB, TiB, kB, MB, GB or TB, such as "64MiB".
#[derive(JsonSchema)]
pub struct Size(
    #[schemars(regex(pattern = r"^\s*[0-9]+\s*([KkMmGgTt][Ii]?)?[Bb]\s*$|\$\{"))] pub String,
);

/// Where a secret comes from; exactly one of both keys. Secrets are never shown.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct SecretReference {
    /// A file that holds nothing else, relative to this one; a newline at its end is cut.
    pub file: Option<String>,
    /// The name of an environment variable.
    pub env: Option<String>,
}

/// Millstream's configuration: consumers, the broker they read from, and the runtime around them.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Millstream {
    /// Files that hold one `[consumer]` each; the last part of a path may hold `*`.
    pub include: Option<Vec<String>>,
    /// The process as a whole.
    pub runtime: Option<Runtime>,
    /// Where events come from and go to.
    pub broker: Option<Broker>,
    /// What topics to create, and how, by name.
    pub topics: Option<BTreeMap<String, Topic>>,
    /// The HTTP interface: metrics, health, topics.
    pub admin: Option<Admin>,
    /// A port of its own for scraping.
    pub metrics: Option<Metrics>,
    /// How hosts are spoken to that plugins are fetched from, by `host` or `host:port`.
    pub registries: Option<BTreeMap<String, Registry>>,
    /// What runs: each consumer is a plugin, subscribed to topics under a name.
    pub consumer: Option<Vec<Consumer>>,
}

/// The process as a whole.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Runtime {
    /// A stable identity of this runtime, for static membership in groups.
    pub instance: Option<String>,
    /// How long a stop may take before it is forced.
    #[schemars(extend("default" = "25s"))]
    pub shutdown_timeout: Option<Duration>,
    /// Plugin instances of all consumers together.
    #[schemars(extend("minimum" = 1, "maximum" = 100_000), extend("default" = 1000))]
    pub max_instances: Option<Or<u32>>,
    /// The most memory that one plugin instance may be given.
    #[schemars(extend("default" = "256MiB"))]
    pub max_plugin_memory: Option<Size>,
    /// The most memory of all plugin instances together.
    #[schemars(extend("default" = "2GiB"))]
    pub plugin_memory: Option<Size>,
    /// Where fetched and compiled plugins are kept; private to the user.
    #[schemars(extend("default" = "data/cache"))]
    pub cache_dir: Option<String>,
}

/// Where events come from and go to.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Broker {
    /// The broker inside Millstream, or Apache Kafka.
    #[schemars(extend("default" = "embedded"))]
    pub kind: Option<BrokerKind>,
    /// Where the embedded broker keeps its store.
    #[schemars(extend("default" = "data"))]
    pub data_dir: Option<String>,
    /// When the embedded broker acknowledges: on disk, or left to the kernel.
    #[schemars(extend("default" = "sync"))]
    pub durability: Option<Durability>,
    /// Below it the embedded broker takes no events.
    #[schemars(extend("default" = "1GiB"))]
    pub min_free_disk: Option<Size>,
    /// librdkafka's properties under their own names, in quotes.
    pub properties: Option<BTreeMap<String, Property>>,
}

/// A kind of broker.
#[derive(JsonSchema)]
#[schemars(rename_all = "kebab-case")]
pub enum BrokerKind {
    Embedded,
    Kafka,
}

/// When an event counts as durable.
#[derive(JsonSchema)]
#[schemars(rename_all = "kebab-case")]
pub enum Durability {
    Sync,
    Os,
}

/// A property of Kafka's client.
#[derive(JsonSchema)]
#[schemars(untagged)]
pub enum Property {
    Text(String),
    Number(f64),
    Switch(bool),
    Secret(SecretReference),
}

/// A topic.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Topic {
    /// How many partitions it is created with; 4 on the embedded broker.
    #[schemars(extend("minimum" = 1, "maximum" = 10_000))]
    pub partitions: Option<Or<u32>>,
    /// How long events are kept.
    pub retention: Option<Retention>,
    /// What ends an event's life: age and size, or a newer event of its key (Kafka only).
    pub cleanup: Option<Cleanup>,
    /// The largest event.
    pub max_event: Option<Size>,
}

/// How long events are kept; the limit reached first ends them.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Retention {
    /// How old an event may become; 7 days on the embedded broker.
    pub age: Option<Duration>,
    /// How large a partition may become.
    pub bytes: Option<Size>,
}

/// What ends an event's life.
#[derive(JsonSchema)]
#[schemars(rename_all = "kebab-case")]
pub enum Cleanup {
    Delete,
    Compact,
}

/// The HTTP interface: metrics, health, topics.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Admin {
    /// Address and port.
    #[schemars(extend("default" = "127.0.0.1:9464"))]
    pub listen: Option<String>,
    /// Asked for on all that changes or reveals events; required unless `listen` is loopback.
    pub token: Option<SecretReference>,
    /// Names besides loopback that may stand in `Host`.
    #[schemars(extend("default" = []))]
    pub hosts: Option<Vec<String>>,
    /// Without progress for this long `/healthz` fails.
    #[schemars(extend("default" = "60s"))]
    pub stuck_after: Option<Duration>,
    /// Speaks TLS; without it plain HTTP.
    pub tls: Option<AdminTls>,
}

/// Certificate and key of the HTTP interface; read again when the files change.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct AdminTls {
    /// A file with the chain as PEM, the runtime's own certificate first; relative to this one.
    pub certificate: String,
    /// Where the private key is, as PEM without a passphrase.
    pub key: SecretReference,
    /// A file with the certificates as PEM that commands trust instead of the system's.
    pub ca: Option<String>,
}

/// A host that plugins are fetched from. Its credentials are sent to no other.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Registry {
    /// Who we are there.
    pub username: Option<String>,
    /// The password of `username`.
    pub password: Option<SecretReference>,
    /// Sent as `Authorization: Bearer`, instead of `username` and `password`.
    pub token: Option<SecretReference>,
    /// A file with the certificates as PEM that are trusted for this host instead of the system's.
    pub ca: Option<String>,
    /// Whether it is spoken to without TLS; on loopback alone unless set.
    pub plain_http: Option<Or<bool>>,
}

/// A port of its own for scraping.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Metrics {
    /// Address and port; without it `admin.listen` alone serves metrics.
    pub listen: Option<String>,
}
