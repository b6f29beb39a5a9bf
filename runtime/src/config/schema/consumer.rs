//! The part of the schema that describes a consumer.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde_json::Value;

use super::{Duration, Or, SecretReference, Size};

/// A plugin, subscribed to topics under a name.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Consumer {
    /// Names the consumer in groups, metrics and commands.
    #[schemars(regex(pattern = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$|\$\{"))]
    pub name: String,
    /// The consumer group; `millstream.NAME` unless set.
    pub group: Option<String>,
    /// Whether it runs.
    #[schemars(extend("default" = true))]
    pub enabled: Option<Or<bool>>,
    /// The component, relative to this file.
    pub plugin: Plugin,
    /// What it reads; an entry that begins with `^` is a regular expression.
    #[schemars(length(min = 1))]
    pub topics: Vec<String>,
    /// Where a new group starts: "beginning", "end", or a time such as "2026-01-31T12:00:00Z".
    pub start: Option<String>,
    /// What holds for an event's effects; this version delivers at least once.
    #[schemars(extend("default" = "at-least-once"))]
    pub delivery: Option<Delivery>,
    /// Which events may not overtake one another.
    #[schemars(extend("default" = "partition"))]
    pub ordering: Option<Ordering>,
    /// Plugin instances at work at once; the number of processors unless set.
    #[schemars(extend("minimum" = 1))]
    pub concurrency: Option<Or<u32>>,
    /// Which events the consumer wants.
    pub filter: Option<Filter>,
    /// How much crosses into the plugin in one call.
    pub batch: Option<Batch>,
    /// How much is held between fetching and settling.
    pub in_flight: Option<InFlight>,
    /// When positions are committed.
    pub commit: Option<Commit>,
    /// What the plugin may use.
    pub limits: Option<Limits>,
    /// How a failed event is tried again.
    pub retry: Option<Retry>,
    /// When the plugin is left alone for a while; `false` turns it off.
    pub circuit_breaker: Option<BreakerChoice>,
    /// Where events go that fail for good; without it such an event halts its partition.
    pub dead_letter: Option<DeadLetter>,
    /// The most events that are given to the plugin, such as "5000/s", "300/m" or "10/h".
    pub rate: Option<String>,
    /// How another version of the plugin is tried before it is trusted.
    pub deploy: Option<Deploy>,
    /// What the plugin is granted beyond computing; nothing unless named.
    pub capabilities: Option<Capabilities>,
    /// Secrets that the plugin may read, by name; needs the capability `secrets`.
    pub secrets: Option<BTreeMap<String, SecretReference>>,
    /// What the plugin's `init` gets as JSON; holds no secret.
    #[schemars(extend("default" = {}))]
    pub config: Option<BTreeMap<String, Value>>,
    /// Where the plugin's outputs go, by name.
    pub outputs: Option<BTreeMap<String, Output>>,
    /// What to do where retention overtook the position.
    #[schemars(extend("default" = "stop"))]
    pub on_lost_position: Option<OnLostPosition>,
    /// Names under which the consumer ran before, the last one first: what they left is carried over.
    #[schemars(extend("default" = []))]
    pub previous_names: Option<Vec<String>>,
}

/// Where a component comes from.
#[derive(JsonSchema)]
#[schemars(untagged)]
pub enum Plugin {
    Path(String),
    Placed(PlacedPlugin),
}

/// A component by its digest: exactly one of `path`, `url` and `oci`.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct PlacedPlugin {
    /// The file, relative to this one.
    pub path: Option<String>,
    /// Fetched over https; needs `sha256`.
    #[schemars(regex(pattern = r"^https?://|\$\{"))]
    pub url: Option<String>,
    /// An artifact in a registry: `registry/repository:tag`, which needs `sha256`, or
    /// `registry/repository@sha256:…`.
    pub oci: Option<String>,
    /// The largest component that is fetched.
    #[schemars(extend("default" = "64MiB"))]
    pub max_size: Option<Size>,
    /// How long fetching may take, with all retries.
    #[schemars(extend("default" = "2m"))]
    pub timeout: Option<Duration>,
    /// The digest that the component must have.
    #[schemars(regex(pattern = r"^(sha256:)?[0-9A-Fa-f]{64}$|\$\{"))]
    pub sha256: Option<String>,
}

/// What holds for an event's effects.
#[derive(JsonSchema)]
#[schemars(rename_all = "kebab-case")]
pub enum Delivery {
    AtLeastOnce,
    /// Not supported by this version.
    AtMostOnce,
    /// Not supported by this version.
    ExactlyOnce,
}

/// Which events may not overtake one another: those of a partition, of a key, or none.
#[derive(JsonSchema)]
#[schemars(rename_all = "kebab-case")]
pub enum Ordering {
    Partition,
    Key,
    None,
}

/// Which events the consumer wants; all keys must match, and one value of each. `*` stands for any
/// text, `!` in front means "not"; what an event has not never matches.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Filter {
    /// The header `ce_type`, else `type`, else `event-type`.
    #[schemars(rename = "type")]
    pub kind: Option<Values>,
    /// The event's key.
    pub key: Option<Values>,
    /// Headers by name.
    pub header: Option<BTreeMap<String, Values>>,
}

/// One value or several.
#[derive(JsonSchema)]
#[schemars(untagged)]
pub enum Values {
    One(String),
    Several(#[schemars(length(min = 1))] Vec<String>),
}

/// How much crosses into the plugin in one call.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Batch {
    /// Events of a call.
    #[schemars(extend("minimum" = 1, "maximum" = 10_000), extend("default" = 256))]
    pub max_events: Option<Or<u32>>,
    /// Bytes of the events of a call.
    #[schemars(extend("default" = "1MiB"))]
    pub max_bytes: Option<Size>,
}

/// How much is held between fetching and settling; what is over it is not fetched.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct InFlight {
    /// Events in flight; 50,000 under exactly once unless said otherwise.
    #[schemars(extend("minimum" = 1, "maximum" = 10_000_000), extend("default" = 10_000))]
    pub max_events: Option<Or<u32>>,
    /// Bytes of the events in flight.
    #[schemars(extend("default" = "64MiB"))]
    pub max_bytes: Option<Size>,
}

/// When positions are committed; what is reached first decides.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Commit {
    /// The longest time between commits.
    #[schemars(extend("default" = "100ms"))]
    pub interval: Option<Duration>,
    /// The most events between commits.
    #[schemars(extend("minimum" = 1, "maximum" = 10_000_000), extend("default" = 10_000))]
    pub max_events: Option<Or<u32>>,
}

/// What the plugin may use; past a limit the call fails, not the runtime.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Limits {
    /// Linear memory of an instance.
    #[schemars(extend("default" = "64MiB"))]
    pub memory: Option<Size>,
    /// Time for one event.
    #[schemars(extend("default" = "1s"))]
    pub deadline: Option<Duration>,
    /// Time for one call, whatever it holds.
    #[schemars(extend("default" = "30s"))]
    pub call: Option<Duration>,
    /// Time for `init`.
    #[schemars(extend("default" = "10s"))]
    pub init: Option<Duration>,
    /// Derived events from one event.
    #[schemars(extend("minimum" = 1, "maximum" = 10_000_000), extend("default" = 10_000))]
    pub outputs: Option<Or<u32>>,
    /// Bytes of the derived events of a call.
    #[schemars(extend("default" = "16MiB"))]
    pub output_bytes: Option<Size>,
    /// Headers of a derived event.
    #[schemars(extend("minimum" = 1, "maximum" = 10_000), extend("default" = 64))]
    pub headers: Option<Or<u32>>,
    /// How often an event may be derived from another before it is dead-lettered.
    #[schemars(extend("minimum" = 1, "maximum" = 1000), extend("default" = 16))]
    pub hops: Option<Or<u32>>,
}

/// How a failed event is tried again.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Retry {
    /// The first attempt included.
    #[schemars(extend("minimum" = 1, "maximum" = 1_000_000), extend("default" = 5))]
    pub max_attempts: Option<Or<u32>>,
    /// The first wait.
    #[schemars(extend("default" = "100ms"))]
    pub initial: Option<Duration>,
    /// The longest wait.
    #[schemars(extend("default" = "10s"))]
    pub max: Option<Duration>,
    /// How much longer each wait is than the one before.
    #[schemars(extend("minimum" = 1, "maximum" = 100), extend("default" = 2.0))]
    pub factor: Option<Or<f64>>,
    /// Spreads the waits, so that events do not come back together.
    #[schemars(extend("default" = true))]
    pub jitter: Option<Or<bool>>,
    /// After this long the event is dead-lettered, whatever attempts are left.
    #[schemars(extend("default" = "1h"))]
    pub max_age: Option<Duration>,
}

/// When the plugin is left alone for a while.
#[derive(JsonSchema)]
#[schemars(untagged)]
pub enum BreakerChoice {
    Breaker(CircuitBreaker),
    /// `false` turns it off.
    On(Or<bool>),
}

/// When the plugin is left alone for a while.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct CircuitBreaker {
    /// Opens when this part of the outcomes in the window failed.
    #[schemars(extend("minimum" = 0.01, "maximum" = 1), extend("default" = 0.5))]
    pub failure_ratio: Option<Or<f64>>,
    /// The fewest outcomes in the window to judge the ratio by.
    #[schemars(extend("minimum" = 1, "maximum" = 1_000_000), extend("default" = 20))]
    pub min_events: Option<Or<u32>>,
    /// Opens after so many failures in a row.
    #[schemars(extend("minimum" = 1, "maximum" = 1_000_000), extend("default" = 3))]
    pub consecutive: Option<Or<u32>>,
    /// How far back outcomes count.
    #[schemars(extend("default" = "10s"))]
    pub window: Option<Duration>,
    /// How long it stays open before a probe, unless the plugin names a time.
    #[schemars(extend("default" = "5s"))]
    pub open_for: Option<Duration>,
    /// Single events that are tried at once, and that must succeed before it closes.
    #[schemars(extend("minimum" = 1, "maximum" = 10_000), extend("default" = 3))]
    pub probes: Option<Or<u32>>,
}

/// Where events go that fail for good; without it such an event halts its partition.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct DeadLetter {
    /// The topic of the dead letters.
    pub topic: String,
    /// The consumer stops when more than this part of its events fails for good.
    #[schemars(extend("minimum" = 0, "maximum" = 1))]
    pub max_ratio: Option<Or<f64>>,
}

/// How another version of the plugin is tried before it is trusted.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Deploy {
    /// Live events that the new version handles beside the old one; its outputs are thrown away.
    #[schemars(extend("default" = 0))]
    pub shadow: Option<Or<u32>>,
    /// How long events that the new version fails wait for its proof, or for the old version.
    #[schemars(extend("default" = "0s"))]
    pub probation: Option<Duration>,
    /// The old version takes over again when a larger part of the events failed.
    #[schemars(extend("default" = 0.1, "minimum" = 0, "maximum" = 1))]
    pub max_failure_ratio: Option<Or<f64>>,
    /// Which form of the plugin's state it reads and writes; no way leads back to another one.
    #[schemars(extend("default" = 1))]
    pub state_version: Option<Or<u32>>,
}

/// What the plugin is granted beyond computing; nothing unless named.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Capabilities {
    /// Where it may send requests: "host:port", or "host" for the default port of the scheme. A
    /// name that resolves to a private address needs that address in the list, too.
    #[schemars(extend("default" = []))]
    pub http: Option<Vec<String>>,
    /// Environment variables that it sees, as they are when an instance starts.
    #[schemars(extend("default" = []))]
    pub env: Option<Vec<String>>,
    /// Whether it sees the real wall clock; else the newest timestamp of the batch.
    #[schemars(extend("default" = false))]
    pub clock: Option<Or<bool>>,
    /// Whether its random numbers are random; else they follow from the batch's place.
    #[schemars(extend("default" = false))]
    pub random: Option<Or<bool>>,
    /// Whether it may read the consumer's `secrets`.
    #[schemars(extend("default" = false))]
    pub secrets: Option<Or<bool>>,
    /// Not supported by this version. Whether it may keep state.
    pub state: Option<Value>,
}

/// Where an output goes: a topic, or `false` to discard.
#[derive(JsonSchema)]
#[schemars(untagged)]
pub enum Output {
    Topic(String),
    Made(MadeOutput),
    Discarded(bool),
}

/// An output whose topic the runtime makes.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct MadeOutput {
    /// The topic.
    pub topic: String,
    /// How many partitions the topic is created with.
    #[schemars(extend("minimum" = 1, "maximum" = 10_000))]
    pub partitions: Option<Or<u32>>,
}

/// What to do where retention overtook the position: stop, or go on elsewhere and count the loss.
#[derive(JsonSchema)]
#[schemars(rename_all = "kebab-case")]
pub enum OnLostPosition {
    Stop,
    Beginning,
    End,
}
