//! A broker, its topics, and the configuration of the runtimes on it.

use anyhow::{Context, Result, ensure};
use millstream_test_support::kafka::KafkaNode;
use millstream_test_support::kafka_tools::{KafkaRecord, KafkaTools};
use millstream_test_support::process::{self, Site};
use millstream_test_support::{plugins, workspace};
use serde_json::{Value, json};

use super::super::setup::{self, Names, PARTITIONS};
use super::super::verify::Promise;

/// A consumer of order lines.
#[derive(Clone, Debug)]
pub struct Guarded {
    pub promise: Promise,
    pub names: Names,
}

/// Where events are fed.
#[derive(Clone, Debug)]
pub struct Source {
    way: Way,
    pub lines: String,
    /// Read by a consumer whose plugin says now and then that what it needs is down.
    pub outage: String,
    /// Read by a consumer whose plugin traps now and then.
    pub poison: String,
}

#[derive(Clone, Debug)]
enum Way {
    Kafka(KafkaTools),
    /// `host:port` of the runtime that holds the store.
    Embedded(String),
}

/// All that a run stands on. Dropping it ends the broker.
pub struct Stage {
    /// What reports call it.
    pub broker: &'static str,
    pub source: Source,
    pub consumers: Vec<Guarded>,
    /// Of the runtime that lasts.
    pub site: Site,
    /// Of one that comes and goes; the embedded broker serves a single one.
    pub visitor: Option<Site>,
    /// Partitions that the lasting runtime has when it is alone.
    pub partitions: f64,
    _node: Option<KafkaNode>,
}

/// The consumer of topics that come and go, on the embedded broker.
pub const VISITS: &str = "visits";

impl Stage {
    /// On a Kafka of its own.
    ///
    /// # Errors
    /// A topic cannot be made, or a plugin does not compile.
    pub fn kafka(node: KafkaNode) -> Result<Self> {
        let (source, consumers) = cast(Way::Kafka(node.tools().clone()));
        let tools = node.tools();
        tools.create_topic(&source.lines, PARTITIONS)?;
        for consumer in &consumers {
            consumer.names.create_outputs(tools)?;
        }
        for side in [&source.outage, &source.poison] {
            for topic in [side.clone(), derived(side), dead(side)] {
                tools.create_topic(&topic, 1)?;
            }
        }
        let guarded = guarded(&consumers)?;
        let all = format!(
            "{guarded}{}{}",
            side(&source.outage, "outage", &source.outage)?,
            side(&source.poison, "poison", &source.poison)?
        );
        let bootstrap = node.bootstrap();
        Ok(Self {
            broker: "kafka",
            partitions: f64::from(PARTITIONS) * consumers.len() as f64 + 2.0,
            site: setup::site(bootstrap, &all)?,
            // Alone with the guarantees: outage and poison stay where they are watched.
            visitor: Some(setup::site(bootstrap, &guarded)?),
            source,
            consumers,
            _node: Some(node),
        })
    }

    /// On a store of its own.
    ///
    /// # Errors
    /// A plugin does not compile, or no folder is to be had.
    pub fn embedded() -> Result<Self> {
        let site = Site::new()?;
        let (source, consumers) = cast(Way::Embedded(site.admin()));
        let cache = workspace::target_dir().join("whole-cache");
        let mut text = format!(
            "[broker]\nkind = \"embedded\"\ndata_dir = \"data\"\nmin_free_disk = \"64MiB\"\n\n\
             [runtime]\ncache_dir = {:?}\n\n[admin]\nlisten = \"{}\"\n\n\
             [topics.{}]\npartitions = {PARTITIONS}\n",
            cache.display().to_string(),
            site.admin(),
            source.lines
        );
        for side in [&source.outage, &source.poison] {
            for topic in [side.clone(), derived(side), dead(side)] {
                text += &format!("[topics.{topic}]\npartitions = 1\n");
            }
        }
        text += &guarded(&consumers)?;
        text += &side(&source.outage, "outage", &source.outage)?;
        text += &side(&source.poison, "poison", &source.poison)?;
        text += &side(VISITS, VISITS, "^visit-.*")?;
        site.configure(&text)?;
        Ok(Self {
            broker: "embedded",
            partitions: f64::from(PARTITIONS) * consumers.len() as f64 + 2.0,
            site,
            visitor: None,
            source,
            consumers,
            _node: None,
        })
    }

    /// All that a topic holds for a reader of committed events. The embedded broker's is read by a
    /// command, once the runtime has ended.
    ///
    /// # Errors
    /// The reader fails.
    pub fn read(&self, topic: &str) -> Result<Vec<KafkaRecord>> {
        match &self.source.way {
            Way::Kafka(tools) => tools.read_committed_to_mark(topic),
            Way::Embedded(_) => {
                let shown = self.site.succeed(&["consume", topic, "--json"])?;
                shown.lines().map(record).collect()
            }
        }
    }
}

impl Source {
    /// Writes events, each with its topic, key and value, and waits until the broker has them.
    ///
    /// # Errors
    /// It does not take one, or does not answer.
    pub fn produce(&self, events: &[(&str, &str, &str)]) -> Result<()> {
        match &self.way {
            Way::Kafka(tools) => tools.produce_to(events),
            Way::Embedded(admin) => {
                let line = |(topic, key, value): &(&str, &str, &str)| {
                    let event = json!({"topic": topic, "key": key, "value": value});
                    format!("{event}\n")
                };
                let lines: String = events.iter().map(line).collect();
                let (status, said) = process::post_lines(admin, "/api/v1/produce", &lines)?;
                ensure!(status == 200, "the runtime answers {status}: {said}");
                Ok(())
            }
        }
    }
}

/// Where a side consumer's events go.
pub fn derived(side: &str) -> String {
    format!("{side}-derived")
}

/// Where its dead letters go.
pub fn dead(side: &str) -> String {
    format!("{side}-dlq")
}

fn cast(way: Way) -> (Source, Vec<Guarded>) {
    let names = Names::fresh("soak");
    let source = Source {
        way,
        outage: format!("{}-outage", names.group),
        poison: format!("{}-poison", names.group),
        lines: names.source,
    };
    let consumers = [Promise::AtMost, Promise::AtLeast, Promise::Exactly].map(|promise| {
        let names = Names {
            source: source.lines.clone(),
            ..Names::fresh(&format!("soak-{}", promise.delivery()))
        };
        Guarded { promise, names }
    });
    (source, consumers.into())
}

fn guarded(consumers: &[Guarded]) -> Result<String> {
    let text = |consumer: &Guarded| {
        let delivery = consumer.promise.delivery();
        consumer.names.consumer_called(
            delivery,
            &format!("[\"{}\"]", consumer.names.source),
            &format!("delivery = \"{delivery}\"\nordering = \"key\""),
        )
    };
    consumers.iter().map(text).collect()
}

/// A consumer of the plugin that does what its events say, on one instance, which counts its calls.
/// `topic` names its group and outputs; it reads `reads`.
fn side(topic: &str, name: &str, reads: &str) -> Result<String> {
    Ok(format!(
        r#"
[[consumer]]
name = "{name}"
group = "{topic}"
plugin = '{plugin}'
topics = ["{reads}"]
start = "beginning"
concurrency = 1
outputs = {{ default = "{derived}", alerts = false }}
dead_letter = {{ topic = "{dead}" }}
retry = {{ max_attempts = 2, initial = "10ms", max = "20ms" }}
circuit_breaker = {{ open_for = "1h" }}
"#,
        plugin = plugins::component("hostile")?.display(),
        derived = derived(topic),
        dead = dead(topic),
    ))
}

/// Reads a line of `consume --json`; all that is fed here is text.
fn record(line: &str) -> Result<KafkaRecord> {
    let json: Value = line.parse().with_context(|| line.to_owned())?;
    let bytes = |value: &Value| value.as_str().map(|text| text.as_bytes().to_vec());
    let headers = json["headers"].as_array().context("no headers")?;
    let header =
        |header: &Value| Some((header["name"].as_str()?.to_owned(), bytes(&header["value"])));
    Ok(KafkaRecord {
        partition: i32::try_from(json["partition"].as_i64().context("no partition")?)?,
        offset: json["offset"].as_u64().context("no offset")?,
        timestamp_ms: json["timestamp"].as_i64().context("no timestamp")?,
        headers: headers.iter().filter_map(header).collect(),
        key: bytes(&json["key"]),
        value: bytes(&json["value"]),
    })
}
