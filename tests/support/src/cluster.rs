//! Kafka nodes of one cluster, each behind a [`Proxy`]; and who of them leads what.
//!
//! ```text
//! what is tested ─▶ proxy 1 ─▶ ┌────────┐ ◀─ tools: topics, Kafka's own reader
//!                ─▶ proxy 2 ─▶ │ nodes  │ ◀─ each other
//!                ─▶ proxy 3 ─▶ └────────┘
//! ```
//! Clients that come through a proxy are told the proxies' addresses only.

use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::metadata::Metadata;

use crate::kafka::{KafkaNode, Options, Place, or_left_out, with_free_ports};
use crate::kafka_libs;
use crate::kafka_tools::KafkaTools;
use crate::ports::free_port;
use crate::proxy::Proxy;
use crate::wait::{eventually, eventually_some};

/// How long a cluster may take to agree on leaders or to copy what a node missed.
const PATIENCE: Duration = Duration::from_secs(120);

/// Nodes that are broker and controller at once. With three, every topic has three replicas, of
/// which two have to take a write. Dropping it ends all.
#[derive(Debug)]
pub struct Cluster {
    nodes: Vec<KafkaNode>,
    proxies: Vec<Proxy>,
    tools: KafkaTools,
}

/// A cluster of so many nodes, with `properties` as in [`Cluster::start`]; `None` where Kafka cannot
/// be had, as [`crate::kafka::shared`].
///
/// # Panics
/// As [`crate::kafka::shared`].
pub fn with(nodes: usize, properties: &[String]) -> Option<Cluster> {
    or_left_out(Cluster::start(nodes, properties))
}

impl Cluster {
    /// Starts nodes and waits until all answer; `properties` are lines for each one's
    /// configuration.
    ///
    /// # Errors
    /// Java or Maven is missing, or a node does not answer in time; its log is in the text.
    pub fn start(count: usize, properties: &[String]) -> Result<Self> {
        ensure!(count > 0, "a cluster has nodes");
        let libs = kafka_libs::fetch()?;
        let replicas = count.min(3);
        let in_sync = replicas.div_ceil(2);
        let mut all: Vec<String> = [
            format!("default.replication.factor={replicas}"),
            format!("min.insync.replicas={in_sync}"),
            format!("offsets.topic.replication.factor={replicas}"),
            format!("transaction.state.log.replication.factor={replicas}"),
            format!("transaction.state.log.min.isr={in_sync}"),
            // A node that is killed or hangs is missed after six seconds.
            "broker.session.timeout.ms=6000".to_owned(),
            "broker.heartbeat.interval.ms=1000".to_owned(),
            // One that comes back takes its leaderships back soon.
            "leader.imbalance.check.interval.seconds=5".to_owned(),
        ]
        .into();
        all.extend_from_slice(properties);
        let options = Options {
            heap: 256,
            quick: true,
            properties: all,
        };
        with_free_ports(|| {
            let mut controllers = Vec::new();
            for id in 1..=count {
                controllers.push((id, free_port()?));
            }
            let mut proxies = Vec::new();
            let mut places = Vec::new();
            for id in 1..=count {
                let behind = free_port()?;
                let proxy = Proxy::before(behind)?;
                places.push(Place {
                    id,
                    port: free_port()?,
                    controllers: controllers.clone(),
                    behind: Some((behind, proxy.port())),
                });
                proxies.push(proxy);
            }
            // At once, for a node answers when most of them run.
            let nodes = thread::scope(|scope| {
                let starting: Vec<_> = (places.iter())
                    .map(|place| scope.spawn(|| KafkaNode::start_at(&options, &libs, place)))
                    .collect();
                let join = |node: thread::ScopedJoinHandle<'_, Result<KafkaNode>>| {
                    node.join()
                        .unwrap_or_else(|_| Err(anyhow!("the start of a node panicked")))
                };
                starting.into_iter().map(join).collect::<Result<Vec<_>>>()
            })?;
            let bootstrap: Vec<&str> = nodes.iter().map(KafkaNode::bootstrap).collect();
            let tools = KafkaTools::new(bootstrap.join(","), libs.clone());
            let cluster = Self {
                nodes,
                proxies,
                tools,
            };
            cluster.until_joined()?;
            Ok(cluster)
        })
    }

    /// `host:port,…` of the proxies, for what is tested.
    pub fn bootstrap(&self) -> String {
        let addresses: Vec<String> = (self.proxies.iter())
            .map(|proxy| format!("127.0.0.1:{}", proxy.port()))
            .collect();
        addresses.join(",")
    }

    /// Topics and Kafka's own reader, past the proxies.
    pub fn tools(&self) -> &KafkaTools {
        &self.tools
    }

    /// The nodes; a node's id is its index plus one.
    pub fn nodes(&mut self) -> &mut [KafkaNode] {
        &mut self.nodes
    }

    /// The proxy before each node.
    pub fn proxies(&self) -> &[Proxy] {
        &self.proxies
    }

    /// The index of the node that leads a partition.
    ///
    /// # Errors
    /// Nobody leads it within two minutes.
    pub fn leader(&self, topic: &str, partition: usize) -> Result<usize> {
        eventually_some(
            &format!("{topic}/{partition} has a leader"),
            PATIENCE,
            || {
                let metadata = self.metadata(Some(topic)).ok()?;
                let led = metadata.topics().first()?.partitions().get(partition)?;
                usize::try_from(led.leader()).ok()?.checked_sub(1)
            },
        )
    }

    /// The index of the node that coordinates a consumer group.
    ///
    /// # Errors
    /// The topic of positions does not exist yet, or nobody leads its partition.
    pub fn group_coordinator(&self, group: &str) -> Result<usize> {
        self.coordinator("__consumer_offsets", group)
    }

    /// The index of the node that coordinates transactions of an id.
    ///
    /// # Errors
    /// The topic of transactions does not exist yet, or nobody leads its partition.
    pub fn transaction_coordinator(&self, id: &str) -> Result<usize> {
        self.coordinator("__transaction_state", id)
    }

    fn coordinator(&self, topic: &str, name: &str) -> Result<usize> {
        let metadata = self.metadata(Some(topic))?;
        let partitions = metadata
            .topics()
            .first()
            .map_or(0, |t| t.partitions().len());
        ensure!(partitions > 0, "there is no {topic} yet");
        self.leader(topic, java_hash(name) as usize % partitions)
    }

    /// Waits until every replica of every partition is in sync.
    ///
    /// # Errors
    /// They are not within two minutes.
    pub fn until_in_sync(&self) -> Result<()> {
        let nodes = self.nodes.len();
        eventually("all replicas are in sync", PATIENCE, || {
            self.metadata(None).is_ok_and(|metadata| {
                metadata.brokers().len() == nodes
                    && metadata
                        .topics()
                        .iter()
                        .flat_map(|topic| topic.partitions())
                        .all(|p| p.leader() >= 0 && p.isr().len() == p.replicas().len())
            })
        })
    }

    fn until_joined(&self) -> Result<()> {
        let nodes = self.nodes.len();
        eventually("all nodes have joined", PATIENCE, || {
            self.metadata(None)
                .is_ok_and(|metadata| metadata.brokers().len() == nodes)
        })
    }

    fn metadata(&self, topic: Option<&str>) -> Result<Metadata> {
        let client: BaseConsumer = self.tools.client().create()?;
        client
            .fetch_metadata(topic, Duration::from_secs(5))
            .context("no metadata")
    }
}

/// `Utils.abs(name.hashCode())`, by which Kafka chooses the partition of a group or transaction.
fn java_hash(name: &str) -> u32 {
    let hash = name.encode_utf16().fold(0_u32, |hash, unit| {
        hash.wrapping_mul(31).wrapping_add(u32::from(unit))
    });
    hash & 0x7fff_ffff
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `"hello".hashCode()` is 99162322, and `"polygenelubricants".hashCode()` the lowest number.
    #[test]
    fn names_hash_as_in_java() {
        assert_eq!(java_hash("hello"), 99_162_322);
        assert_eq!(java_hash("polygenelubricants"), 0);
        assert_eq!(java_hash(""), 0);
    }
}
