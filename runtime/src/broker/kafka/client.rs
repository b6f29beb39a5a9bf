//! How librdkafka's clients are set up: the user's properties, ours above them, and defaults below.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use rdkafka::ClientConfig;
use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};

use crate::broker::Subscription;
use crate::config;

/// How long librdkafka's producer lingers where the user does not say: records are sent long before,
/// by the waves of [`super::raw::Writer`].
pub(super) const WAVES_LINGER_MS: &str = "20";

/// Up to so many partitions of a group each fetches ahead what it likes.
pub(super) const FEW_PARTITIONS: usize = 8;

/// How long a transaction may last.
const TRANSACTION_TIMEOUT_MS: &str = "15000";

/// What all clients of a broker are made from.
#[derive(Clone)]
pub(super) struct Settings {
    base: ClientConfig,
    instance: Option<String>,
    /// Keys that the user set, which no default of ours replaces.
    chosen: Arc<[String]>,
}

impl Settings {
    /// Takes the user's properties.
    pub(super) fn new(kafka: &config::Kafka, instance: Option<&str>) -> Self {
        let mut base = ClientConfig::new();
        // Who asks librdkafka for its debug lines wants to see them; else they would not be made.
        base.log_level = match kafka.properties.contains_key("debug") {
            true => RDKafkaLogLevel::Debug,
            false => RDKafkaLogLevel::Info,
        };
        for (key, value) in &kafka.properties {
            base.set(key, value.reveal());
        }
        let settings = Self {
            base,
            instance: instance.map(str::to_owned),
            chosen: kafka.properties.keys().cloned().collect(),
        };
        settings.with_defaults(&[
            ("bootstrap.servers", "localhost:9092"),
            ("client.id", "millstream"),
            // The defaults wait for up to ten seconds after an outage; a stream should not.
            ("reconnect.backoff.ms", "50"),
            ("reconnect.backoff.max.ms", "2000"),
            ("socket.keepalive.enable", "true"),
        ])
    }

    /// The addresses, for messages to people.
    pub(super) fn servers(&self) -> &str {
        self.base.get("bootstrap.servers").unwrap_or_default()
    }

    /// The stable identity, where there is one.
    pub(super) fn instance(&self) -> Option<&str> {
        self.instance.as_deref()
    }

    /// A member of a group whose topics have so many partitions.
    pub(super) fn member(&self, subscription: &Subscription, partitions: usize) -> ClientConfig {
        // Each of these holds for one partition, and together they keep to twice the budget: what is
        // beyond it would have to be thrown away and fetched again. They must not be smaller than
        // that: a partition that has enough is left out of a fetch, which then waits at the broker
        // for the others, and until its answer nothing more can be fetched.
        let partitions = partitions.max(FEW_PARTITIONS);
        let events = subscription.fetch_events.saturating_mul(4 * FEW_PARTITIONS) / partitions;
        let events = events.clamp(1, 10_000_000);
        let share = subscription.fetch_bytes / partitions;
        let kibibytes = (share / 1024).clamp(16, 2_097_151);
        // What one partition brings in one response; a larger record still comes, alone.
        let partition_bytes = share.clamp(16 * 1024, 1024 * 1024);
        let fetch_bytes = subscription
            .fetch_bytes
            .clamp(partition_bytes, 50 * 1024 * 1024);
        let mut config = self
            .reader_settings()
            .with_defaults(&[("topic.metadata.refresh.interval.ms", "5000")])
            .base;
        config
            .set("group.id", &*subscription.group)
            .set("group.protocol", "classic")
            // A batch call takes an end of partition for a message: the position after the next
            // pause, which every rebalance makes, would skip one event.
            .set("enable.partition.eof", "false")
            .set("partition.assignment.strategy", "cooperative-sticky")
            .set("queued.min.messages", events.to_string())
            .set("queued.max.messages.kbytes", kibibytes.to_string())
            .set("max.partition.fetch.bytes", partition_bytes.to_string())
            .set(
                "fetch.max.bytes",
                fetch_bytes.max(self.largest_message()).to_string(),
            );
        if let Some(instance) = &self.instance {
            config.set("group.instance.id", instance);
        }
        if !self.has("client.id") {
            config.set("client.id", format!("millstream-{}", subscription.consumer));
        }
        config
    }

    /// A client that looks topics up and reads them without a group.
    pub(super) fn reader(&self) -> ClientConfig {
        let mut config = self
            .reader_settings()
            .with_defaults(&[("fetch.wait.max.ms", "20")])
            .base;
        config
            .set("queued.max.messages.kbytes", "8192")
            .set("enable.partition.eof", "true");
        config
    }

    /// A writer.
    pub(super) fn producer(&self) -> ClientConfig {
        let mut config = self
            .with_defaults(&[
                // librdkafka's own is CRC32: keys would land elsewhere than a Java producer's.
                ("partitioner", "murmur2_random"),
                ("linger.ms", WAVES_LINGER_MS),
                ("queue.buffering.max.kbytes", "65536"),
                ("queue.buffering.max.messages", "100000"),
            ])
            .base;
        config
            .set("enable.idempotence", "true")
            .set("acks", "all")
            .set("message.timeout.ms", "0");
        config
    }

    /// A writer of transactions. Readers wait for `transaction.timeout.ms` after a kill, unless a
    /// runtime of the same instance comes first.
    pub(super) fn transactional(&self, group: &str) -> ClientConfig {
        // A coordinator that still ends the transaction before says so to the next one's positions.
        let mut config = self.with_defaults(&[("retry.backoff.ms", "5")]).producer();
        let instance = match &self.instance {
            Some(instance) => instance.clone(),
            None => uuid::Uuid::new_v4().to_string(),
        };
        config
            .set("transactional.id", format!("millstream.{group}.{instance}"))
            .set("transaction.timeout.ms", TRANSACTION_TIMEOUT_MS)
            .set("message.timeout.ms", TRANSACTION_TIMEOUT_MS);
        config
    }

    /// A client for requests to the controller.
    pub(super) fn admin(&self) -> ClientConfig {
        self.base.clone()
    }

    fn reader_settings(&self) -> Self {
        let mut settings = self.with_defaults(&[
            // librdkafka waits a second before it fetches again once a queue was full.
            ("fetch.queue.backoff.ms", "5"),
            ("fetch.error.backoff.ms", "100"),
            // What a partition that could go on waits at most for others that have nothing.
            ("fetch.wait.max.ms", "50"),
        ]);
        settings
            .base
            .set("enable.auto.commit", "false")
            .set("enable.auto.offset.store", "false")
            .set("auto.offset.reset", "error")
            .set("isolation.level", "read_committed")
            .set("allow.auto.create.topics", "false");
        settings
    }

    /// `fetch.max.bytes` may not be below it.
    fn largest_message(&self) -> usize {
        self.base
            .get("message.max.bytes")
            .and_then(|value| value.parse().ok())
            .unwrap_or(1_000_000)
    }

    fn has(&self, key: &str) -> bool {
        self.chosen.iter().any(|chosen| chosen == key)
    }

    fn with_defaults(&self, defaults: &[(&str, &str)]) -> Self {
        let mut settings = self.clone();
        for (key, value) in defaults {
            if settings.base.get(key).is_none() {
                settings.base.set(*key, *value);
            }
        }
        settings
    }
}

/// Whether the broker answers, as the clients hear it.
#[derive(Default)]
pub(super) struct Reach {
    up: AtomicBool,
}

impl Reach {
    /// Whether the broker answered when last asked.
    pub(super) fn up(&self) -> bool {
        self.up.load(Ordering::Relaxed)
    }

    /// Notes what was heard; says whether that is news.
    pub(super) fn set(&self, up: bool) -> bool {
        self.up.swap(up, Ordering::Relaxed) != up
    }
}

/// Carries a client's log lines and errors to the log, and its outages to [`Reach`].
#[derive(Clone)]
pub(super) struct Listener {
    pub(super) reach: Arc<Reach>,
    /// Who the client works for.
    pub(super) owner: Arc<str>,
    /// How many connections ended, of a client that is told of it.
    pub(super) lost_connections: Arc<AtomicU64>,
}

impl Listener {
    /// One of the client's connections ended.
    pub(super) fn lost_a_connection(&self) {
        self.lost_connections.fetch_add(1, Ordering::AcqRel);
    }
}

impl ClientContext for Listener {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        let owner = &*self.owner;
        match level {
            // One set of properties serves consumers and producers; that some are for the other
            // kind is no news to anyone.
            _ if facility == "CONFWARN" => {
                tracing::debug!(owner, facility, "librdkafka: {message}");
            }
            RDKafkaLogLevel::Emerg
            | RDKafkaLogLevel::Alert
            | RDKafkaLogLevel::Critical
            | RDKafkaLogLevel::Error
            | RDKafkaLogLevel::Warning => {
                tracing::warn!(owner, facility, "librdkafka: {message}");
            }
            RDKafkaLogLevel::Notice | RDKafkaLogLevel::Info | RDKafkaLogLevel::Debug => {
                tracing::debug!(owner, facility, "librdkafka: {message}");
            }
        }
    }

    fn error(&self, error: KafkaError, reason: &str) {
        if error.rdkafka_error_code() == Some(RDKafkaErrorCode::AllBrokersDown) {
            if self.reach.set(false) {
                tracing::warn!(owner = &*self.owner, "no Kafka broker answers: {reason}");
            }
        } else {
            tracing::debug!(owner = &*self.owner, "Kafka client: {error}: {reason}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Start;
    use crate::config::secret::Secret;

    fn settings(properties: &[(&str, &str)]) -> Settings {
        let kafka = config::Kafka {
            properties: properties
                .iter()
                .map(|(key, value)| ((*key).to_owned(), Secret::new(*value)))
                .collect(),
        };
        Settings::new(&kafka, Some("one"))
    }

    fn subscription() -> Subscription {
        Subscription {
            consumer: "enrich".into(),
            group: "millstream.enrich".into(),
            previous_groups: Vec::new(),
            topics: Vec::new(),
            excluded: Vec::new(),
            start: Start::Beginning,
            on_lost_position: config::OnLostPosition::Stop,
            fetch_events: 100,
            fetch_bytes: 64 * 1024,
            transactional: false,
        }
    }

    /// What the partitions of a group fetch beyond that is thrown away and fetched again.
    #[test]
    fn many_partitions_together_fetch_no_more_than_twice_the_budget() {
        let mut subscription = subscription();
        subscription.fetch_events = 2_500;
        subscription.fetch_bytes = 16 << 20;
        for partitions in [1, 4, 8, 64, 500, 1_000] {
            let config = settings(&[]).member(&subscription, partitions);
            let number = |key: &str| -> usize {
                let value = config.get(key).expect("set");
                value.parse().expect("a number")
            };
            let each =
                number("queued.max.messages.kbytes") * 1024 + number("max.partition.fetch.bytes");
            assert!(
                partitions * each <= 2 * subscription.fetch_bytes,
                "{partitions}"
            );
            let events = partitions * number("queued.min.messages");
            assert!(events <= 32 * subscription.fetch_events, "{partitions}");
        }
    }

    /// At any other level librdkafka does not even make the lines that a user asked for.
    #[test]
    fn debug_lines_that_are_asked_for_are_made() {
        let level = |settings: Settings| settings.admin().log_level;
        let asked = level(settings(&[("debug", "eos")]));
        assert!(matches!(asked, RDKafkaLogLevel::Debug), "{asked:?}");
        let silent = level(settings(&[]));
        assert!(matches!(silent, RDKafkaLogLevel::Info), "{silent:?}");
    }

    /// librdkafka refuses contradictory sizes only when the client is made, at a user's start-up.
    #[test]
    fn every_set_up_is_accepted_with_small_and_large_budgets() {
        for (events, bytes) in [(1, 1), (100, 64 * 1024), (usize::MAX, usize::MAX)] {
            for partitions in [0, 1, 500] {
                let mut subscription = subscription();
                subscription.fetch_events = events;
                subscription.fetch_bytes = bytes;
                let config = settings(&[]).member(&subscription, partitions);
                config
                    .create::<rdkafka::consumer::BaseConsumer>()
                    .expect("accepted");
            }
        }
        for config in [settings(&[]).producer(), settings(&[]).admin()] {
            config
                .create::<rdkafka::producer::BaseProducer>()
                .expect("accepted");
        }
    }

    #[test]
    fn the_users_choice_stands_above_defaults_and_below_what_is_owned() {
        let settings = settings(&[("linger.ms", "7"), ("acks", "1"), ("client.id", "mine")]);
        let producer = settings.producer();
        assert_eq!(producer.get("linger.ms"), Some("7"));
        assert_eq!(producer.get("acks"), Some("all"));
        assert_eq!(
            settings.member(&subscription(), 1).get("client.id"),
            Some("mine")
        );
    }

    /// A key must land in the partition that a Java producer would choose.
    #[test]
    fn keys_are_placed_by_murmur2() {
        assert_eq!(
            settings(&[]).producer().get("partitioner"),
            Some("murmur2_random")
        );
    }
}
