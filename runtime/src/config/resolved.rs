//! The configuration after every check: values that the rest of the runtime can trust.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::capabilities::{Capabilities, SecretSource};
use super::filter::Filter;
use super::origin::Origin;
use super::secret::Secret;

/// Everything that one runtime does.
#[derive(Clone, Debug)]
pub struct Config {
    /// The file that was read; relative paths were resolved against its folder.
    pub file: PathBuf,
    /// What the files held when they were read; see [`super::fingerprint`].
    pub fingerprint: u64,
    pub runtime: Runtime,
    pub broker: Broker,
    /// By topic name.
    pub topics: BTreeMap<Arc<str>, TopicSettings>,
    pub admin: Admin,
    /// By `host` or `host:port`.
    pub registries: Arc<BTreeMap<Arc<str>, Registry>>,
    /// In the order of the file; disabled ones included.
    pub consumers: Vec<Arc<Consumer>>,
}

/// `[runtime]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Runtime {
    /// A stable identity, for static membership.
    pub instance: Option<String>,
    pub shutdown_timeout: Duration,
    pub max_instances: u32,
    /// Bytes that one instance may ask for at most.
    pub max_plugin_memory: u64,
    /// Bytes that all instances together may ask for.
    pub plugin_memory: u64,
    pub cache_dir: PathBuf,
}

impl Runtime {
    /// Where fetched components are kept: files named by their digests.
    pub fn components(&self) -> PathBuf {
        self.cache_dir.join("components")
    }
}

/// `[broker]`.
#[derive(Clone, Debug, PartialEq)]
pub enum Broker {
    Embedded(Embedded),
    Kafka(Kafka),
}

/// `[broker] kind = "embedded"`.
#[derive(Clone, Debug, PartialEq)]
pub struct Embedded {
    pub data_dir: PathBuf,
    pub durability: Durability,
    /// Bytes.
    pub min_free_disk: u64,
}

/// When the embedded broker calls an event durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// On disk.
    Sync,
    /// With the kernel: survives a kill, not a loss of power.
    Os,
}

/// `[broker] kind = "kafka"`.
#[derive(Clone, Debug, PartialEq)]
pub struct Kafka {
    /// librdkafka's own properties; none that the runtime owns is among them.
    pub properties: BTreeMap<String, Secret>,
}

/// `[topics.NAME]`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TopicSettings {
    /// `None` is the broker's default; 4 on the embedded broker.
    pub partitions: Option<u32>,
    /// How long events are kept; `None` is the broker's default (7 days on the embedded broker).
    pub retention_age: Option<Duration>,
    /// Bytes a partition; `None` is the broker's default.
    pub retention_bytes: Option<u64>,
    pub cleanup: Option<Cleanup>,
    /// Bytes of the largest event; `None` is the broker's default.
    pub max_event: Option<u64>,
}

/// What ends an event's life in a topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cleanup {
    Delete,
    Compact,
}

/// `[admin]` and `[metrics]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Admin {
    pub listen: SocketAddr,
    pub token: Option<Secret>,
    /// Names besides loopback that may stand in `Host`.
    pub hosts: Vec<String>,
    /// No progress of a poll loop or a lane for this long makes `/healthz` fail.
    pub stuck_after: Duration,
    /// `[metrics] listen`: a port of its own for scraping.
    pub metrics_listen: Option<SocketAddr>,
    /// `None` speaks plain HTTP.
    pub tls: Option<AdminTls>,
}

/// The names by which commands on this machine may know a listener: its address, loopback's name,
/// and `hosts`.
pub fn reached_under(listen: SocketAddr, hosts: &[String]) -> Vec<String> {
    let ip = reachable(listen).ip();
    let mut names = vec![ip.to_string()];
    if ip.is_loopback() {
        names.push("localhost".to_owned());
    }
    names.extend(hosts.iter().cloned());
    names
}

/// Where a listener's address is reached from the same machine.
pub fn reachable(listen: SocketAddr) -> SocketAddr {
    let ip = match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, listen.port())
}

/// `admin.tls`. The files are read again when they change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AdminTls {
    /// The chain as PEM, the runtime's own certificate first.
    pub certificate: PathBuf,
    pub key: PrivateKey,
    /// Whom commands trust instead of the system's certificates.
    pub ca: Option<PathBuf>,
}

/// Where the private key is, as PEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PrivateKey {
    File(PathBuf),
    /// From an environment variable; it cannot change.
    Given(Secret),
}

/// `[[consumer]]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Consumer {
    pub name: Arc<str>,
    /// Names under which it ran before, the last one first.
    pub previous_names: Vec<Arc<str>>,
    pub group: Arc<str>,
    pub enabled: bool,
    pub plugin: PluginSource,
    /// At least one.
    pub topics: Vec<TopicPattern>,
    /// `None` where the file does not say: then a new group begins at the beginning, and is refused
    /// on a topic that holds events already.
    pub start: Option<Start>,
    pub delivery: Delivery,
    pub ordering: Ordering,
    /// Instances at work at once; at least 1.
    pub concurrency: u32,
    pub filter: Filter,
    pub batch: Batch,
    pub in_flight: InFlight,
    pub commit: CommitCadence,
    pub limits: Limits,
    pub retry: Retry,
    /// `None` where it is turned off.
    pub circuit_breaker: Option<CircuitBreaker>,
    /// The most events that are given to the plugin.
    pub rate: Option<Rate>,
    pub deploy: Deploy,
    pub dead_letter: Option<DeadLetter>,
    /// The JSON object that `init` gets.
    pub config: Arc<str>,
    /// In the order of the file; a plugin names them by index.
    pub outputs: Vec<Output>,
    pub on_lost_position: OnLostPosition,
    pub capabilities: Capabilities,
    /// By name; what the plugin may read where `capabilities` grants it.
    pub secrets: BTreeMap<Arc<str>, SecretSource>,
}

impl Consumer {
    /// The group of a consumer of this name, unless its `group` says otherwise.
    pub fn default_group(name: &str) -> Arc<str> {
        format!("{GROUP_PREFIX}{name}").into()
    }

    /// The groups whose positions this one goes on from where it has none. A `group` that was given a
    /// name of its own does not change with the consumer's: there are none then.
    pub fn previous_groups(&self) -> impl Iterator<Item = Arc<str>> {
        let by_name = self.group_goes_by_name();
        let names = self.previous_names.iter().filter(move |_| by_name);
        names.map(|name| Self::default_group(name))
    }

    /// Whether it has this name, or had it before.
    pub fn was_called(&self, name: &str) -> bool {
        *self.name == *name || self.previous_names.iter().any(|before| **before == *name)
    }

    /// The topic of events that come back to this consumer alone; the first replay makes it.
    pub fn replay_topic(&self) -> Arc<str> {
        replay_topic(&self.group)
    }

    /// [`Self::replay_topic`] of its groups before: what came back and was not handled yet.
    pub fn previous_replay_topics(&self) -> impl Iterator<Item = Arc<str>> {
        self.previous_groups().map(|group| replay_topic(&group))
    }

    /// Whether `topic` is [`Self::replay_topic`], now or before; it allocates nothing.
    pub fn is_replay_topic(&self, topic: &str) -> bool {
        let rest = topic.strip_prefix("millstream.");
        let Some(group) = rest.and_then(|rest| rest.strip_suffix(".replay")) else {
            return false;
        };
        let before = || group.strip_prefix(GROUP_PREFIX);
        *group == *self.group
            || (!self.previous_names.is_empty()
                && self.group_goes_by_name()
                && before().is_some_and(|name| self.was_called(name)))
    }

    fn group_goes_by_name(&self) -> bool {
        self.group.strip_prefix(GROUP_PREFIX) == Some(&*self.name)
    }

    /// Whether it reads a topic: its replay topic, one that it names, or one that a pattern means,
    /// which its own outputs and dead letters never are.
    pub fn reads(&self, topic: &str) -> bool {
        let outputs = self
            .outputs
            .iter()
            .filter_map(|output| output.topic.as_deref());
        let dead_letters = self
            .dead_letter
            .iter()
            .map(|dead_letter| &*dead_letter.topic);
        let own = outputs.chain(dead_letters).any(|name| name == topic);
        self.is_replay_topic(topic)
            || self.topics.iter().any(|entry| match entry {
                TopicPattern::Name(_) => entry.matches(topic),
                TopicPattern::Pattern(_) => !own && entry.matches(topic),
            })
    }
}

const GROUP_PREFIX: &str = "millstream.";

fn replay_topic(group: &str) -> Arc<str> {
    format!("millstream.{group}.replay").into()
}

/// Where a component comes from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PluginSource {
    /// The file; of one that is fetched, where it lies in the store once it is here. Empty where
    /// only the registry's manifest knows the digest, until it was fetched.
    pub path: PathBuf,
    /// 64 hexadecimal digits, lower case; the file must have this digest.
    pub sha256: Option<String>,
    /// `None` for a file that the operator put there.
    pub remote: Option<Arc<RemotePlugin>>,
}

impl PluginSource {
    /// How messages name it; what could be a secret is blanked.
    pub fn shown(&self) -> String {
        match &self.remote {
            Some(remote) => remote.origin.to_string(),
            None => self.path.display().to_string(),
        }
    }

    /// As [`Self::shown`], with the digest of one that was fetched.
    pub fn identified(&self) -> String {
        match (&self.remote, &self.sha256) {
            (Some(_), Some(digest)) => format!("{} (sha256:{digest})", self.shown()),
            _ => self.shown(),
        }
    }
}

/// A component that is fetched, and what it may cost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RemotePlugin {
    pub origin: Origin,
    /// Bytes of the component.
    pub max_size: u64,
    /// For one fetch, its retries included.
    pub timeout: Duration,
}

/// `[registries."HOST"]`: how a host is spoken to that plugins are fetched from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Registry {
    pub credentials: Option<Credentials>,
    /// Certificates that are trusted for this host, instead of the system's.
    pub ca: Option<PathBuf>,
    /// Whether it is spoken to without TLS; `None` does so on loopback alone.
    pub plain_http: Option<bool>,
}

/// What a host is shown, and no other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Credentials {
    Basic { username: String, password: Secret },
    Bearer(Secret),
}

/// An entry of `topics`.
#[derive(Clone, Debug)]
pub enum TopicPattern {
    Name(Arc<str>),
    /// Written with a `^` in front; matches from the start of the name.
    Pattern(regex::Regex),
}

impl PartialEq for TopicPattern {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Name(one), Self::Name(other)) => one == other,
            (Self::Pattern(one), Self::Pattern(other)) => one.as_str() == other.as_str(),
            _ => false,
        }
    }
}

impl TopicPattern {
    /// Whether `topic` is meant. Topics of the runtime and the broker (`millstream.…`, `__…`) are
    /// never matched by a pattern.
    pub fn matches(&self, topic: &str) -> bool {
        match self {
            Self::Name(name) => **name == *topic,
            Self::Pattern(pattern) => {
                !topic.starts_with("millstream.")
                    && !topic.starts_with("__")
                    && pattern.is_match(topic)
            }
        }
    }
}

/// Where a new group starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Start {
    #[default]
    Beginning,
    End,
    /// At the first event of this time (milliseconds since 1970-01-01 UTC) or later.
    At(i64),
}

/// What the runtime promises about an event's effects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delivery {
    /// Nothing is repeated, and what was under way at a crash is lost.
    AtMostOnce,
    /// Nothing is lost, and what was under way at a crash is repeated.
    AtLeastOnce,
    /// Nothing is lost and nothing repeated, for readers of committed events.
    ExactlyOnce,
}

/// Which events may not overtake one another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ordering {
    Partition,
    Key,
    None,
}

/// How much crosses the wall in one call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Batch {
    pub max_events: usize,
    pub max_bytes: usize,
}

/// The consumer's budget, from fetch to settled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InFlight {
    pub max_events: usize,
    pub max_bytes: usize,
}

/// How often positions are committed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CommitCadence {
    pub interval: Duration,
    pub max_events: usize,
}

/// What a plugin may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of linear memory.
    pub memory: u64,
    /// For one event.
    pub deadline: Duration,
    /// For one call, whatever it holds.
    pub call: Duration,
    pub init: Duration,
    pub outputs: u32,
    pub output_bytes: u64,
    pub headers: u32,
    pub hops: u32,
}

/// How a failed event is tried again.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Retry {
    /// The first attempt included; at least 1.
    pub max_attempts: u32,
    pub initial: Duration,
    pub max: Duration,
    pub factor: f64,
    pub jitter: bool,
    /// Since the first failure; then the event is dead-lettered whatever attempts are left.
    pub max_age: Duration,
}

/// When calls into the plugin stop for a while, and how they begin again.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct CircuitBreaker {
    /// Opens when this part of what is counted in the window failed; above 0, at most 1.
    pub failure_ratio: f64,
    /// The fewest outcomes in the window to judge the ratio by; at least 1.
    pub min_events: u32,
    /// Opens after so many failures in a row; at least 1.
    pub consecutive: u32,
    pub window: Duration,
    /// How long it stays open, unless the plugin names a time.
    pub open_for: Duration,
    /// Single events that are tried at once, and that must succeed to close it; at least 1.
    pub probes: u32,
}

impl Default for CircuitBreaker {
    fn default() -> Self {
        Self {
            failure_ratio: 0.5,
            min_events: 20,
            consecutive: 3,
            window: Duration::from_secs(10),
            open_for: Duration::from_secs(5),
            probes: 3,
        }
    }
}

/// How another version of a plugin is tried before it is trusted.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Deploy {
    /// Live events that the new version handles beside the old one, its outputs thrown away; 0 for
    /// none.
    pub shadow: u32,
    /// How long events that the new version fails wait for its proof, or for the old version; zero
    /// for not at all.
    pub probation: Duration,
    /// The old version takes over again when a larger part of the events failed.
    pub max_failure_ratio: f64,
    /// Which form of the plugin's state it reads and writes; no way leads back to another one.
    pub state_version: u32,
}

impl Default for Deploy {
    fn default() -> Self {
        Self {
            shadow: 0,
            probation: Duration::ZERO,
            max_failure_ratio: 0.1,
            state_version: 1,
        }
    }
}

/// So many events in so long a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// At least 1.
    pub events: u32,
    /// A second, a minute or an hour.
    pub per: Duration,
}

/// Where events go that fail for good.
#[derive(Clone, Debug, PartialEq)]
pub struct DeadLetter {
    pub topic: Arc<str>,
    /// The consumer stops when a larger part of its events fails for good.
    pub max_ratio: Option<f64>,
}

/// A named output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Output {
    pub name: Arc<str>,
    /// `None` discards.
    pub topic: Option<Arc<str>>,
    /// Partitions of the topic where the runtime makes it.
    pub partitions: Option<u32>,
}

/// What to do where retention overtook the position.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum OnLostPosition {
    #[default]
    Stop,
    Beginning,
    End,
}
