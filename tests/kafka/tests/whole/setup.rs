//! Topics, configurations and runtimes of these tests.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result};
use millstream_test_support::kafka_tools::KafkaTools;
use millstream_test_support::metrics::Scrape;
use millstream_test_support::plugins;
use millstream_test_support::process::{Running, Site};

use super::order_lines::Line;

/// How long anything may take on a machine with much else to do.
pub const PATIENCE: Duration = Duration::from_secs(180);

/// The partitions of every topic.
pub const PARTITIONS: u32 = 4;

/// Held by tests that keep all processors busy: two at once would only slow each other down.
pub fn turn() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A name that no other test has.
pub fn fresh(name: &str) -> String {
    format!("whole-{name}-{:016x}", fastrand::u64(..))
}

/// The topics of a run of `enrich`, and its consumer's group.
#[derive(Clone, Debug)]
pub struct Names {
    pub source: String,
    pub orders: String,
    pub large: String,
    pub dead_letters: String,
    pub group: String,
}

impl Names {
    pub fn fresh(name: &str) -> Self {
        let name = fresh(name);
        Self {
            source: format!("{name}-lines"),
            orders: format!("{name}-orders"),
            large: format!("{name}-large"),
            dead_letters: format!("{name}-dlq"),
            group: name,
        }
    }

    /// Makes all topics, with leaders.
    pub fn create(&self, kafka: &KafkaTools) -> Result<()> {
        kafka.create_topic(&self.source, PARTITIONS)?;
        self.create_outputs(kafka)
    }

    /// Makes the topics that are written to.
    pub fn create_outputs(&self, kafka: &KafkaTools) -> Result<()> {
        for topic in [&self.orders, &self.large, &self.dead_letters] {
            kafka.create_topic(topic, PARTITIONS)?;
        }
        Ok(())
    }

    /// A consumer called `enrich` that reads `topics`, a TOML array, into these topics.
    pub fn consumer(&self, topics: &str, more: &str) -> Result<String> {
        self.consumer_called("enrich", topics, more)
    }

    /// The same under another name, for a configuration of several.
    pub fn consumer_called(&self, name: &str, topics: &str, more: &str) -> Result<String> {
        let Self {
            orders,
            large,
            dead_letters,
            group,
            ..
        } = self;
        let plugin = plugins::component("enrich")?;
        let plugin = plugin.display();
        Ok(format!(
            r#"
[[consumer]]
name = "{name}"
group = "{group}"
plugin = '{plugin}'
topics = {topics}
start = "beginning"
outputs = {{ default = "{orders}", alerts = "{large}" }}
config = {{ currency = "GBP", alert_above = 10000 }}
dead_letter = {{ topic = "{dead_letters}" }}
{more}
"#
        ))
    }
}

/// A site whose configuration is `consumers` on this Kafka. Sites of one configuration differ in
/// nothing but a variable that holds the address to listen on.
pub fn site(bootstrap: &str, consumers: &str) -> Result<Site> {
    let mut site = Site::new()?;
    site.set("KAFKA_BROKERS", bootstrap);
    site.set("ADMIN", site.admin());
    configure(&site, consumers)?;
    Ok(site)
}

/// Puts other consumers into a site's configuration.
pub fn configure(site: &Site, consumers: &str) -> Result<()> {
    site.configure(&format!(
        r#"
[broker]
kind = "kafka"

[broker.properties]
"bootstrap.servers" = "${{env:KAFKA_BROKERS}}"
# The shortest that a broker allows: a member that was killed is missed soon.
"session.timeout.ms" = "6000"
"heartbeat.interval.ms" = "500"

[admin]
listen = "${{env:ADMIN}}"
{consumers}"#
    ))
}

/// Produces lines and waits until the broker has them.
pub fn produce(kafka: &KafkaTools, topic: &str, lines: &[Line]) -> Result<()> {
    let events: Vec<_> = lines
        .iter()
        .map(|line| (Some(line.key.as_str()), line.value.as_str()))
        .collect();
    kafka.produce(topic, &events)
}

/// Events of the consumer `enrich` that were settled by an outcome of their own.
pub fn settled(scrape: &Scrape) -> u64 {
    let of = |outcome| {
        scrape.sum(
            "millstream_events_settled_total",
            &[("consumer", "enrich"), ("outcome", outcome)],
        )
    };
    (of("ok") + of("dead_lettered")) as u64
}

/// Waits until a runtime has settled so many events, checking that each scrape accounts for all.
pub fn until_settled(runtime: &mut Running, count: u64) -> Result<()> {
    let mut unaccounted = None;
    runtime.until_scrape(&format!("at {count} settled events"), PATIENCE, |scrape| {
        unaccounted = scrape.check_accounting().err();
        unaccounted.is_some() || settled(scrape) >= count
    })?;
    unaccounted.map_or(Ok(()), Err)
}

/// Events that the group has still to settle, by what it has committed.
pub fn lag(site: &Site) -> Result<u64> {
    let rows = site.succeed(&["lag", "--output", "json"])?;
    let rows: serde_json::Value = serde_json::from_str(&rows).context(rows)?;
    let rows = rows.as_array().context("no rows")?;
    Ok(rows.iter().filter_map(|row| row["lag"].as_u64()).sum())
}

/// Waits until a runtime that has all partitions has nothing left to do.
pub fn until_done(runtime: &mut Running) -> Result<()> {
    let all = f64::from(PARTITIONS);
    runtime.until_scrape("done with everything", PATIENCE, |scrape| {
        scrape.sum("millstream_assigned_partitions", &[]) >= all
            && scrape.sum("millstream_consumer_lag_events", &[]) < 0.5
            && scrape.sum("millstream_in_flight_events", &[]) < 0.5
    })
}

/// Waits until a runtime has committed all that its groups are to read: for consumers that came and
/// went, whose counters began anew.
pub fn until_no_lag(site: &Site, runtime: &mut Running) -> Result<()> {
    runtime.until_scrape("without lag", PATIENCE, |_| {
        lag(site).is_ok_and(|lag| lag == 0)
    })
}
