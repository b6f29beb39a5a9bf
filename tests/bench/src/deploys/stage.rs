//! A broker, a runtime on it, and the versions that were deployed.

use std::time::Duration;

use anyhow::{Context, Result};
use millstream_test_support::kafka::KafkaNode;
use millstream_test_support::process::{Running, Site};
use tokio::time::Instant;

use super::feeder::Way;
use super::{Delivery, Ground};
use crate::kafka_node;
use crate::millstream::{binary, component, pause};

/// Partitions of the topics that all events go through.
pub const PARTITIONS: u32 = 4;
const PATIENCE: Duration = Duration::from_secs(120);
const CONSUMER: &str = "enrich";

/// Which component a version has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Build {
    /// One of two, in turn: another one than before, and compiled already.
    Cached,
    /// One that the runtime has never seen.
    Fresh,
}

/// See the module.
pub struct Stage {
    site: Site,
    running: Running,
    delivery: Delivery,
    broker: Option<KafkaNode>,
    way: Way,
    /// When each version was saved.
    saved: Vec<Instant>,
}

impl Stage {
    /// Starts a runtime with its first version.
    ///
    /// # Errors
    /// The broker or the runtime does not start.
    pub fn start(ground: Ground, delivery: Delivery) -> Result<Self> {
        let broker = match ground {
            Ground::Embedded => None,
            Ground::Kafka => Some(kafka_node()?),
        };
        let site = Site::with_binary(binary())?;
        let way = match &broker {
            Some(node) => Way::kafka(node.tools().clone())?,
            None => Way::embedded(site.admin())?,
        };
        for build in ["cached-0", "cached-1"] {
            make(&site, build)?;
        }
        site.configure(&configuration(
            &site,
            broker.as_ref(),
            delivery,
            0,
            "cached-0",
        ))?;
        let mut running = site.start(&[])?;
        running.until_ready(PATIENCE)?;
        let mut stage = Self {
            site,
            running,
            delivery,
            broker,
            way,
            saved: vec![Instant::now()],
        };
        // Compiles the other one.
        stage.deploy(Build::Cached)?;
        stage.until_generation(2)?;
        Ok(stage)
    }

    /// Saves the next version; it takes over by itself.
    ///
    /// # Errors
    /// Its file cannot be written.
    pub fn deploy(&mut self, build: Build) -> Result<()> {
        let version = self.saved.len();
        let name = match build {
            Build::Cached => format!("cached-{}", version % 2),
            Build::Fresh => {
                let name = format!("fresh-{version}");
                make(&self.site, &name)?;
                name
            }
        };
        let broker = self.broker.as_ref();
        let text = configuration(&self.site, broker, self.delivery, version, &name);
        self.site.configure(&text)?;
        self.saved.push(Instant::now());
        Ok(())
    }

    /// How many versions there were.
    pub fn versions(&self) -> usize {
        self.saved.len()
    }

    /// When a version was saved.
    pub fn saved(&self, version: usize) -> Option<Instant> {
        self.saved.get(version).copied()
    }

    /// How events come in and go out.
    pub fn way(&self) -> Way {
        self.way.clone()
    }

    /// Events that were settled so far.
    ///
    /// # Errors
    /// The runtime does not answer.
    pub fn settled(&self) -> Result<f64> {
        let scrape = self.running.scrape()?;
        Ok(scrape.sum("millstream_events_settled_total", &[]))
    }

    /// Events that wait for the consumer.
    ///
    /// # Errors
    /// The runtime does not answer.
    pub fn lag(&self) -> Result<f64> {
        let scrape = self.running.scrape()?;
        Ok(scrape.sum("millstream_consumer_lag_events", &[]))
    }

    /// Deploys that took effect, and those that failed or were taken back.
    ///
    /// # Errors
    /// The runtime does not answer.
    pub fn deploys(&self) -> Result<(f64, f64)> {
        let scrape = self.running.scrape()?;
        let of = |result| scrape.sum("millstream_deploys_total", &[("result", result)]);
        Ok((of("ok"), of("failed") + of("rolled_back")))
    }

    /// Waits until so many events were settled.
    ///
    /// # Errors
    /// They are not in time; the runtime's log is in the text.
    pub fn until_settled(&mut self, events: u64, within: Duration) -> Result<()> {
        let what = format!("done with {events} events");
        self.running.until_scrape(&what, within, |scrape| {
            scrape.sum("millstream_events_settled_total", &[]) >= events as f64
        })
    }

    /// How many configurations have taken effect.
    ///
    /// # Errors
    /// The runtime does not answer.
    pub fn generation(&self) -> Result<usize> {
        let scrape = self.running.scrape()?;
        Ok(scrape.sum("millstream_config_generation", &[]) as usize)
    }

    /// Waits until so many configurations have taken effect.
    ///
    /// # Errors
    /// They have not in time; the runtime's log is in the text.
    pub fn until_generation(&mut self, number: usize) -> Result<()> {
        let what = format!("at configuration {number}");
        self.running.until_scrape(&what, PATIENCE, |scrape| {
            scrape.sum("millstream_config_generation", &[]) >= number as f64
        })
    }

    /// Lets the consumer stand, or go on.
    ///
    /// # Errors
    /// The runtime refuses.
    pub fn pause(&self, paused: bool) -> Result<()> {
        pause(&self.site.admin(), CONSUMER, paused)
    }

    /// The processes whose work is not that of others: runtime, broker, and this one.
    pub fn processes(&self) -> Vec<u32> {
        let broker = self.broker.as_ref().and_then(KafkaNode::id);
        [self.running.id(), std::process::id()]
            .into_iter()
            .chain(broker)
            .collect()
    }

    /// The runtime's process.
    pub fn runtime(&self) -> u32 {
        self.running.id()
    }

    /// Ends the runtime.
    ///
    /// # Errors
    /// It does not end in order.
    pub fn end(mut self) -> Result<()> {
        self.running.terminate()?;
        self.running.succeed(PATIENCE)
    }
}

/// Puts a component into the site's folder that does what `enrich` does, with a digest of its name's.
fn make(site: &Site, name: &str) -> Result<()> {
    let mut bytes = std::fs::read(component("enrich")).context("`make plugins` builds enrich")?;
    // A custom section called `x`, which holds the name.
    bytes.extend([0, u8::try_from(name.len() + 2)?, 1, b'x']);
    bytes.extend(name.as_bytes());
    site.write(&format!("{name}.wasm"), &bytes).map(drop)
}

fn configuration(
    site: &Site,
    broker: Option<&KafkaNode>,
    delivery: Delivery,
    version: usize,
    build: &str,
) -> String {
    let broker = match broker {
        Some(node) => format!(
            "kind = \"kafka\"\n[broker.properties]\n\"bootstrap.servers\" = \"{}\"",
            node.bootstrap()
        ),
        None => "kind = \"embedded\"\nmin_free_disk = \"64MiB\"".to_owned(),
    };
    format!(
        r#"[broker]
{broker}

[admin]
listen = "{admin}"

[topics]
lines = {{ partitions = {PARTITIONS} }}
orders = {{ partitions = {PARTITIONS} }}
large = {{ partitions = 1 }}
dlq = {{ partitions = 1 }}

[[consumer]]
name = "{CONSUMER}"
plugin = "{build}.wasm"
topics = ["lines"]
start = "beginning"
delivery = "{delivery}"
config = {{ currency = "V{version}", alert_above = 10000 }}
outputs = {{ default = "orders", alerts = "large" }}
dead_letter = {{ topic = "dlq" }}
"#,
        admin = site.admin(),
        delivery = delivery.name(),
    )
}

/// The version that wrote this value.
pub fn version_of(value: &[u8]) -> Option<usize> {
    const BEFORE: &[u8] = b"\"currency\":\"V";
    let at = value
        .windows(BEFORE.len())
        .position(|part| part == BEFORE)?
        + BEFORE.len();
    let digits = value[at..].split(|byte| *byte == b'"').next()?;
    std::str::from_utf8(digits).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_names_its_version() {
        let value = br#"{"total_minor":1,"currency":"V17","customer":null}"#;
        assert_eq!(version_of(value), Some(17));
        assert_eq!(version_of(br#"{"currency":"GBP"}"#), None);
    }
}
