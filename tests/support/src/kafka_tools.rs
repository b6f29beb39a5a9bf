//! Topics of a test broker, and a reader that is not ours: Kafka's own console consumer.

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::{ClientContext, DefaultClientContext};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::producer::{BaseProducer, BaseRecord, DeliveryResult, Producer, ProducerContext};

use crate::wait::eventually;

const PATIENCE: Duration = Duration::from_secs(60);

/// Control characters that the console consumer is told to write between fields, headers and
/// records, and in place of null: no text of a test holds them.
const FIELD: u8 = 0x1f;
const RECORD: u8 = 0x1e;
const HEADER: u8 = 0x1d;
const NULL: &[u8] = b"\x01null";

/// A broker to make topics on and to read from.
#[derive(Clone, Debug)]
pub struct KafkaTools {
    bootstrap: String,
    libs: PathBuf,
}

/// A record as Kafka's own reader shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KafkaRecord {
    pub partition: i32,
    pub offset: u64,
    pub timestamp_ms: i64,
    pub headers: Vec<(String, Option<Vec<u8>>)>,
    pub key: Option<Vec<u8>>,
    pub value: Option<Vec<u8>>,
}

impl KafkaRecord {
    /// The value as text; empty where it is null.
    pub fn value_text(&self) -> String {
        String::from_utf8_lossy(self.value.as_deref().unwrap_or_default()).into_owned()
    }

    /// The key as text; empty where it is null.
    pub fn key_text(&self) -> String {
        String::from_utf8_lossy(self.key.as_deref().unwrap_or_default()).into_owned()
    }

    /// The first header of this name, as text.
    pub fn header(&self, name: &str) -> Option<String> {
        let (_, value) = self.headers.iter().find(|(n, _)| n == name)?;
        let bytes = value.as_deref()?;
        Some(String::from_utf8_lossy(bytes).into_owned())
    }
}

/// The first error of a producer's deliveries.
#[derive(Default)]
struct Refusals(OnceLock<KafkaError>);

impl ClientContext for Refusals {}

impl ProducerContext for Refusals {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        if let Err((error, _)) = result {
            self.0.get_or_init(|| error.clone());
        }
    }
}

impl KafkaTools {
    /// Tools for the broker at `bootstrap`, by the jars in `libs`.
    pub fn new(bootstrap: String, libs: PathBuf) -> Self {
        Self { bootstrap, libs }
    }

    /// `host:port`, of a cluster several with commas.
    pub fn bootstrap(&self) -> &str {
        &self.bootstrap
    }

    /// A client configuration with nothing but the address.
    pub fn client(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", &self.bootstrap);
        config
    }

    /// Makes a topic and waits until each partition has a leader.
    ///
    /// # Errors
    /// The broker refuses, or the leaders are not there within a minute.
    pub fn create_topic(&self, topic: &str, partitions: u32) -> Result<()> {
        self.create_topic_with(topic, partitions, &[])
    }

    /// The same with settings of the topic, such as `max.message.bytes`.
    ///
    /// # Errors
    /// As [`KafkaTools::create_topic`].
    pub fn create_topic_with(
        &self,
        topic: &str,
        partitions: u32,
        settings: &[(&str, &str)],
    ) -> Result<()> {
        let admin: AdminClient<DefaultClientContext> = self.client().create()?;
        let count = i32::try_from(partitions).context("too many partitions")?;
        // As many replicas as the brokers have by default.
        let mut new = NewTopic::new(topic, count, TopicReplication::Fixed(-1));
        for (name, value) in settings {
            new = new.set(name, value);
        }
        let options = AdminOptions::new().operation_timeout(Some(PATIENCE));
        let results = futures::executor::block_on(admin.create_topics([&new], &options))
            .with_context(|| format!("cannot create topic {topic}"))?;
        for result in results {
            if let Err((name, code)) = result {
                bail!("the broker refuses to create topic {name}: {code}");
            }
        }
        // A fresh client each time: one that asked too early goes on failing for many seconds.
        eventually(&format!("topic {topic} has leaders"), PATIENCE, || {
            self.partitions_with_leader(topic)
                .is_ok_and(|n| n == partitions as usize)
        })
    }

    /// Deletes a topic with its records.
    ///
    /// # Errors
    /// The broker refuses or does not answer.
    pub fn delete_topic(&self, topic: &str) -> Result<()> {
        let admin: AdminClient<DefaultClientContext> = self.client().create()?;
        let options = AdminOptions::new().operation_timeout(Some(PATIENCE));
        let results = futures::executor::block_on(admin.delete_topics(&[topic], &options))
            .with_context(|| format!("cannot delete topic {topic}"))?;
        for result in results {
            if let Err((name, code)) = result {
                bail!("the broker refuses to delete topic {name}: {code}");
            }
        }
        Ok(())
    }

    fn partitions_with_leader(&self, topic: &str) -> Result<usize> {
        let consumer: BaseConsumer = self.client().create()?;
        let metadata = consumer.fetch_metadata(Some(topic), Duration::from_secs(10))?;
        let with_leader = |t: &rdkafka::metadata::MetadataTopic| {
            t.partitions().iter().filter(|p| p.leader() >= 0).count()
        };
        Ok(metadata.topics().first().map_or(0, with_leader))
    }

    /// How many offsets the topic's partitions hold, by partition number, as (start, end).
    ///
    /// # Errors
    /// There is no such topic, or the broker does not answer.
    pub fn ends(&self, topic: &str) -> Result<Vec<(u64, u64)>> {
        let consumer: BaseConsumer = self.client().create()?;
        let metadata = consumer.fetch_metadata(Some(topic), PATIENCE)?;
        let found = metadata.topics().first().context("no metadata")?;
        ensure!(!found.partitions().is_empty(), "there is no topic {topic}");
        let mut ends = Vec::new();
        for partition in 0..found.partitions().len() {
            let partition = i32::try_from(partition).context("too many partitions")?;
            let (low, high) = consumer.fetch_watermarks(topic, partition, PATIENCE)?;
            ends.push((low.try_into()?, high.try_into()?));
        }
        Ok(ends)
    }

    /// How many offsets the topic holds. Commit markers count too.
    ///
    /// # Errors
    /// As [`KafkaTools::ends`].
    pub fn count(&self, topic: &str) -> Result<u64> {
        Ok(self.ends(topic)?.iter().map(|(low, high)| high - low).sum())
    }

    /// Produces events by key and value and waits until the broker has them all.
    ///
    /// # Errors
    /// The broker refuses one or does not answer.
    pub fn produce(&self, topic: &str, events: &[(Option<&str>, &str)]) -> Result<()> {
        let by_key = events
            .iter()
            .map(|(key, value)| (topic, None, *key, *value));
        self.write(by_key)
    }

    /// The same for several topics: topic, key and value of each event.
    ///
    /// # Errors
    /// As [`KafkaTools::produce`].
    pub fn produce_to(&self, events: &[(&str, &str, &str)]) -> Result<()> {
        let keyed = |&(topic, key, value)| (topic, None, Some(key), value);
        self.write(events.iter().map(keyed))
    }

    /// Writes topic, partition, key and value of each.
    fn write<'a>(
        &self,
        events: impl IntoIterator<Item = (&'a str, Option<i32>, Option<&'a str>, &'a str)>,
    ) -> Result<()> {
        let producer: BaseProducer<Refusals> = self
            .client()
            .set("enable.idempotence", "true")
            .set("partitioner", "murmur2_random")
            .set("queue.buffering.max.messages", "1000000")
            .set("message.max.bytes", "20000000")
            .create_with_context(Refusals::default())?;
        for (topic, partition, key, value) in events {
            let mut record = BaseRecord::<str, str>::to(topic).payload(value);
            if let Some(key) = key {
                record = record.key(key);
            }
            if let Some(partition) = partition {
                record = record.partition(partition);
            }
            while let Err((error, unsent)) = producer.send(record) {
                let full = rdkafka::types::RDKafkaErrorCode::QueueFull;
                ensure!(error.rdkafka_error_code() == Some(full), "{error}");
                producer.poll(Duration::from_millis(10));
                record = unsent;
            }
        }
        producer.flush(PATIENCE)?;
        match producer.context().0.get() {
            Some(error) => bail!("an event was not taken: {error}"),
            None => Ok(()),
        }
    }

    /// Everything that a topic holds, read by Kafka's console consumer; within a partition in
    /// order. For topics that nothing writes to meanwhile.
    ///
    /// # Errors
    /// The reader fails, or shows another number of records than the broker's ends say.
    pub fn read(&self, topic: &str) -> Result<Vec<KafkaRecord>> {
        let count = self.count(topic)?;
        if count == 0 {
            return Ok(Vec::new());
        }
        let limit = count.to_string();
        let records = self.consume(topic, &["--max-messages", &limit, "--timeout-ms", "30000"])?;
        ensure!(
            records.len() as u64 == count,
            "topic {topic} holds {count} records, but Kafka's reader shows {}",
            records.len()
        );
        Ok(records)
    }

    /// What a reader of committed events sees of a topic, markers and aborted events left out. It
    /// waits five seconds for more after the last event.
    ///
    /// # Errors
    /// The reader fails.
    pub fn read_committed(&self, topic: &str) -> Result<Vec<KafkaRecord>> {
        self.consume(
            topic,
            &[
                "--isolation-level",
                "read_committed",
                "--timeout-ms",
                "5000",
            ],
        )
    }

    /// The same up to a mark behind all that is there, which it writes into each partition itself:
    /// a reader that is slow to start cannot pass for one that found nothing more. The marks are left
    /// out here, but stay in the topic.
    ///
    /// # Errors
    /// The reader fails, or does not come to the marks.
    pub fn read_committed_to_mark(&self, topic: &str) -> Result<Vec<KafkaRecord>> {
        let partitions = self.ends(topic)?.len();
        let mark = format!("mark-{:016x}", fastrand::u64(..));
        self.write((0..partitions).map(|at| (topic, i32::try_from(at).ok(), Some(&*mark), "")))?;
        let arguments = [
            "--isolation-level",
            "read_committed",
            "--timeout-ms",
            "60000",
        ];
        let mut reader = self
            .reader(topic, &arguments)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .context("cannot start Kafka's reader")?;
        let shown = reader.stdout.take().context("the reader shows nothing")?;
        let records = up_to_marks(BufReader::new(shown), mark.as_bytes(), partitions);
        // It waits for more, or has ended.
        let _ = reader.kill();
        reader.wait().context("Kafka's reader does not end")?;
        records.with_context(|| format!("reading topic {topic}"))
    }

    fn consume(&self, topic: &str, arguments: &[&str]) -> Result<Vec<KafkaRecord>> {
        let mut command = self.reader(topic, arguments);
        let output = command.output().context("cannot start Kafka's reader")?;
        ensure!(
            output.status.success(),
            "Kafka's reader ended with {}: {}",
            output.status,
            String::from_utf8_lossy(&output.stderr)
        );
        parse(&output.stdout)
    }

    fn reader(&self, topic: &str, arguments: &[&str]) -> Command {
        let mut command = self.java("org.apache.kafka.tools.consumer.ConsoleConsumer");
        command
            .args(["--bootstrap-server", &self.bootstrap, "--topic", topic])
            .arg("--from-beginning")
            .args(arguments);
        for name in [
            "timestamp",
            "partition",
            "offset",
            "headers",
            "key",
            "value",
        ] {
            command.args(["--formatter-property", &format!("print.{name}=true")]);
        }
        for (name, separator) in [("key", FIELD), ("line", RECORD), ("headers", HEADER)] {
            let property = format!("{name}.separator={}", char::from(separator));
            command.args(["--formatter-property", &property]);
        }
        let null = format!("null.literal={}", String::from_utf8_lossy(NULL));
        command.args(["--formatter-property", &null]);
        command
    }

    /// Runs one of Kafka's own tools, such as `org.apache.kafka.tools.TopicCommand`, with
    /// `--bootstrap-server` and these arguments; returns what it writes to standard output.
    ///
    /// # Errors
    /// The tool fails; its words are in the text.
    pub fn tool(&self, main: &str, arguments: &[&str]) -> Result<String> {
        let output = self
            .java(main)
            .args(["--bootstrap-server", &self.bootstrap])
            .args(arguments)
            .output()
            .with_context(|| format!("cannot start {main}"))?;
        let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
        ensure!(
            output.status.success(),
            "{main} ended with {}: {stdout}{}",
            output.status,
            String::from_utf8_lossy(&output.stderr)
        );
        Ok(stdout)
    }

    fn java(&self, main: &str) -> Command {
        let mut command = Command::new("java");
        command
            .args(["-Xmx256m", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC"])
            .arg("-cp")
            .arg(self.libs.join("*"))
            .arg(main);
        command
    }
}

/// Takes records until so many marks have come, one a partition; marks of other readings are left
/// out, too.
fn up_to_marks(
    mut shown: impl BufRead,
    mark: &[u8],
    partitions: usize,
) -> Result<Vec<KafkaRecord>> {
    let mut records = Vec::new();
    let mut marks = 0;
    while marks < partitions {
        let mut record = Vec::new();
        shown.read_until(RECORD, &mut record)?;
        ensure!(
            record.pop() == Some(RECORD),
            "Kafka's reader ended at {marks} of {partitions} marks"
        );
        let record = parse_one(&record)?;
        match record.key.as_deref() {
            Some(key) if key == mark => marks += 1,
            Some(key) if key.starts_with(b"mark-") => {}
            _ => records.push(record),
        }
    }
    Ok(records)
}

/// Reads what the console consumer was told to write: timestamp, partition, offset, headers, key
/// and value.
fn parse(output: &[u8]) -> Result<Vec<KafkaRecord>> {
    // Behind the last record the tool may tell, on its standard output, that no more came in time.
    let Some(end) = output.iter().rposition(|byte| *byte == RECORD) else {
        return Ok(Vec::new());
    };
    output[..end]
        .split(|byte| *byte == RECORD)
        .map(parse_one)
        .collect()
}

fn parse_one(record: &[u8]) -> Result<KafkaRecord> {
    let fields: Vec<&[u8]> = record.splitn(6, |byte| *byte == FIELD).collect();
    let [time, partition, offset, headers, key, value] = fields[..] else {
        bail!(
            "Kafka's reader wrote a record of {} fields: {}",
            fields.len(),
            String::from_utf8_lossy(record)
        );
    };
    Ok(KafkaRecord {
        partition: number(partition)?,
        offset: number(offset)?,
        timestamp_ms: number(time)?,
        headers: parse_headers(headers)?,
        key: optional(key),
        value: optional(value),
    })
}

/// Reads `17` in `Partition:17`.
fn number<T: std::str::FromStr>(field: &[u8]) -> Result<T> {
    let text = std::str::from_utf8(field)?;
    let digits = text.rsplit(':').next().unwrap_or(text);
    digits
        .parse()
        .ok()
        .with_context(|| format!("no number in {text:?} of Kafka's reader"))
}

fn parse_headers(field: &[u8]) -> Result<Vec<(String, Option<Vec<u8>>)>> {
    if field == b"NO_HEADERS" {
        return Ok(Vec::new());
    }
    let header = |header: &[u8]| {
        let colon = header.iter().position(|byte| *byte == b':');
        let colon = colon.context("a header without a value in what Kafka's reader wrote")?;
        let name = String::from_utf8_lossy(&header[..colon]).into_owned();
        Ok((name, optional(&header[colon + 1..])))
    };
    field.split(|byte| *byte == HEADER).map(header).collect()
}

fn optional(field: &[u8]) -> Option<Vec<u8>> {
    (field != NULL).then(|| field.to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn null_and_empty_are_told_apart() {
        let text =
            b"CreateTime:5\x1fPartition:1\x1fOffset:2\x1fa:\x1db:\x01null\x1f\x01null\x1f\x1e";
        let records = parse(text).unwrap();
        assert_eq!(
            records,
            [KafkaRecord {
                partition: 1,
                offset: 2,
                timestamp_ms: 5,
                headers: vec![("a".into(), Some(Vec::new())), ("b".into(), None)],
                key: None,
                value: Some(Vec::new()),
            }]
        );
    }

    #[test]
    fn a_reading_without_all_marks_is_none() {
        let record = |key: &str| {
            format!("CreateTime:5\x1fPartition:1\x1fOffset:2\x1fNO_HEADERS\x1f{key}\x1fv\x1e")
        };
        let shown = [record("a"), record("mark-0"), record("mark-1")].concat();
        let taken = |marks| up_to_marks(shown.as_bytes(), b"mark-1", marks);
        assert_eq!(taken(1).unwrap().len(), 1);
        assert!(taken(2).is_err());
    }

    #[test]
    fn kafkas_reader_shows_what_was_produced() {
        let Some(kafka) = crate::kafka::shared() else {
            return;
        };
        let topic = format!("reader-{}", fastrand::u64(..));
        kafka.create_topic(&topic, 4).unwrap();
        assert!(kafka.read(&topic).unwrap().is_empty());
        let values: Vec<String> = (0..100).map(|n| format!("{{\"n\":{n}}}\n\t,:")).collect();
        let events: Vec<_> = values
            .iter()
            .map(|v| (Some("one key"), v.as_str()))
            .collect();
        kafka.produce(&topic, &events).unwrap();
        let read = kafka.read(&topic).unwrap();
        let shown: Vec<String> = read.iter().map(KafkaRecord::value_text).collect();
        assert_eq!(shown, values);
        assert!(read.iter().all(|r| r.key_text() == "one key"));
        assert_eq!(kafka.read_committed(&topic).unwrap(), read);
        assert_eq!(kafka.read_committed_to_mark(&topic).unwrap(), read);
    }
}
