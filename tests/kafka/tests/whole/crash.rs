//! An event that takes the process with it, on Kafka: a count that outlives the process stands beside
//! the position, and the next member of the group reads it there.
//!
//! No plugin can end the host, so the test does it: each time the plugin says that it hangs on the
//! event, the runtime gets SIGKILL.

use std::collections::BTreeMap;

use anyhow::{Result, ensure};
use millstream_test_support::kafka_tools::KafkaTools;
use millstream_test_support::wait::eventually;
use millstream_test_support::{kafka, plugins};

use super::setup::{self, PATIENCE};

const POISON: &str = "hang";
const GOOD: usize = 60;

/// A consumer of a guarantee, and its topics.
struct Case {
    delivery: &'static str,
    source: String,
    out: String,
    dead: String,
}

impl Case {
    fn new(kafka: &KafkaTools, delivery: &'static str) -> Result<Self> {
        let name = setup::fresh(&format!("crash-{delivery}"));
        let case = Self {
            delivery,
            source: format!("{name}-in"),
            out: format!("{name}-out"),
            dead: format!("{name}-dlq"),
        };
        for topic in [&case.source, &case.out, &case.dead] {
            kafka.create_topic(topic, 1)?;
        }
        let keys: Vec<_> = (0..GOOD).map(|at| format!("key-{}", at % 7)).collect();
        let mut events: Vec<_> = keys.iter().map(|key| (Some(&**key), "forward")).collect();
        events.insert(GOOD / 2, (Some("key-1"), POISON));
        kafka.produce(&case.source, &events)?;
        Ok(case)
    }

    /// A call may take long enough to be killed in.
    fn consumer(&self) -> Result<String> {
        let Self {
            delivery,
            source,
            out,
            dead,
        } = self;
        let plugin = plugins::component("hostile")?;
        let plugin = plugin.display();
        Ok(format!(
            r#"
[[consumer]]
name = "{delivery}"
group = "{source}"
delivery = "{delivery}"
plugin = '{plugin}'
topics = ["{source}"]
start = "beginning"
outputs = {{ default = "{out}", alerts = false }}
dead_letter = {{ topic = "{dead}" }}
limits = {{ deadline = "100s", call = "100s" }}
"#
        ))
    }

    /// All but the poison came out, and only that is a dead letter.
    fn check(&self, kafka: &KafkaTools) -> Result<()> {
        let delivery = self.delivery;
        let letters = kafka.read_committed(&self.dead)?;
        let header = |at: usize, name: &str| letters[at].header(name).unwrap_or_default();
        ensure!(
            letters.len() == 1,
            "{delivery}: {} dead letters",
            letters.len()
        );
        ensure!(
            header(0, "millstream-dlq-reason") == "crash"
                && header(0, "millstream-dlq-offset") == (GOOD / 2).to_string(),
            "{delivery}: {:?}",
            letters[0]
        );
        let mut times: BTreeMap<String, usize> = BTreeMap::new();
        for record in kafka.read_committed(&self.out)? {
            let source = record.header("millstream-source").unwrap_or_default();
            *times.entry(source).or_default() += 1;
        }
        ensure!(times.len() == GOOD, "{delivery}: {} came out", times.len());
        let repeated = times.values().filter(|times| **times > 1).count();
        ensure!(
            delivery != "exactly-once" || repeated == 0,
            "{repeated} were repeated"
        );
        Ok(())
    }
}

/// Without it the poison would travel from runtime to runtime and kill each.
#[test]
fn an_event_of_three_deaths_is_dead_lettered_alone() -> Result<()> {
    let Some(kafka) = kafka::shared() else {
        return Ok(());
    };
    for delivery in ["at-least-once", "exactly-once"] {
        let case = Case::new(kafka, delivery)?;
        let site = setup::site(kafka.bootstrap(), &case.consumer()?)?;
        // Of all lives: the log goes on.
        let hangs = |log: &str| log.matches("hangs on the event").count();
        for life in 1..=3 {
            let mut running = site.start(&[])?;
            eventually(&format!("life {life} hangs"), PATIENCE, || {
                hangs(&running.logs()) >= life
            })?;
            running.kill9()?;
        }
        let mut running = site.start(&[])?;
        eventually("everything is settled", PATIENCE, || {
            setup::lag(&site).is_ok_and(|lag| lag == 0)
        })?;
        running.terminate()?;
        running.succeed(PATIENCE)?;
        case.check(kafka)?;
    }
    Ok(())
}
