//! What people and the control plane ask.

use std::time::Duration;

use millstream::broker::{Broker, BrokerError, PartitionInfo, ReadLimits};
use millstream::config::TopicSettings;
use millstream::event::TopicPartition;
use millstream_test_support::kafka;

use crate::member::{broker, broker_with, numbered, unique};

const ALL: ReadLimits = ReadLimits {
    events: 1_000,
    bytes: 1 << 20,
};

#[tokio::test(flavor = "multi_thread")]
async fn topics_are_made_listed_read_and_deleted() {
    let Some(kafka) = kafka::shared() else { return };
    let topic = unique("admin");
    let broker = broker(kafka.bootstrap());
    let topics = broker.topics();
    let settings = TopicSettings {
        partitions: Some(3),
        retention_age: Some(Duration::from_secs(3_600)),
        ..TopicSettings::default()
    };
    assert!(topics.create(&topic, &settings).await.unwrap());
    assert!(!topics.create(&topic, &settings).await.unwrap());
    let places = topics
        .produce(numbered(&topic, Some(2), 0, 10))
        .await
        .unwrap();
    assert_eq!(places[3].offset, 3);
    assert_eq!(places[3].partition.partition, 2);
    let listed = topics.list().await.unwrap();
    let found = listed.iter().find(|info| *info.name == *topic).unwrap();
    let empty = PartitionInfo { start: 0, end: 0 };
    assert_eq!(
        found.partitions,
        [empty, empty, PartitionInfo { start: 0, end: 10 }]
    );
    assert!(listed.iter().all(|info| !info.name.starts_with("__")));

    let partition = TopicPartition::new(topic.as_str(), 2);
    let chunk = topics.read(&partition, 4, ALL).await.unwrap();
    let offsets: Vec<u64> = chunk.block.iter().map(|event| event.offset()).collect();
    assert_eq!(offsets, (4..10).collect::<Vec<_>>());
    assert_eq!((chunk.next, chunk.end), (10, 10));
    let few = ReadLimits {
        events: 2,
        bytes: 1,
    };
    let chunk = topics.read(&partition, 4, few).await.unwrap();
    assert_eq!((chunk.block.len(), chunk.next), (1, 5));
    let chunk = topics.read(&partition, 10, ALL).await.unwrap();
    assert!(chunk.block.is_empty());

    assert!(topics.delete(&topic).await.unwrap());
    assert!(!topics.delete(&topic).await.unwrap());
    assert!(matches!(
        topics.read(&partition, 0, ALL).await,
        Err(BrokerError::UnknownTopic(_))
    ));
    broker.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_out_of_reach_is_said_to_be() {
    let broker = broker_with("127.0.0.1:1", &[("socket.timeout.ms", "1000")], None);
    assert!(matches!(
        broker.topics().list().await,
        Err(BrokerError::Unreachable(_))
    ));
    assert!(!broker.up());
}

#[test]
fn a_property_that_librdkafka_does_not_take_is_named_without_its_value() {
    let properties = [("linger.ms".to_owned(), "hunter2")]
        .into_iter()
        .map(|(key, value)| (key, millstream::config::secret::Secret::new(value)))
        .collect();
    let kafka = millstream::config::Kafka { properties };
    let Err(error) = millstream::broker::kafka::KafkaBroker::connect(&kafka, None) else {
        panic!("it was taken");
    };
    let text = error.to_string();
    assert!(
        text.contains("linger.ms") && !text.contains("hunter2"),
        "{text}"
    );
}
