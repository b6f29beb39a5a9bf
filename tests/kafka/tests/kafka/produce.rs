//! What goes out.

use std::sync::Arc;
use std::time::Duration;

use millstream::broker::{Broker, PublishError};
use millstream::event::TopicPartition;
use millstream::records::{NewRecord, Records};
use millstream_test_support::kafka;

use crate::member::{Member, broker, numbered, subscription, unique};

/// Publications are written in the order in which they were made, awaited or not.
#[tokio::test(flavor = "multi_thread")]
async fn publications_keep_their_order() {
    let Some(kafka) = kafka::shared() else { return };
    let topic = unique("publish");
    kafka.create_topic(&topic, 1).unwrap();
    let broker = broker(kafka.bootstrap());
    let mut member = Member::join(&broker, subscription(&unique("group"), &[&topic]));
    let answers: Vec<_> = (0..200)
        .map(|unit| {
            let records = numbered(&topic, None, unit * 50, 50);
            member.sink.publish(Arc::new(records))
        })
        .collect();
    for answer in answers {
        answer.await.unwrap();
    }
    member.until("all events", |m| m.seen.len() == 10_000).await;
    let partition = TopicPartition::new(topic.as_str(), 0);
    assert_eq!(member.values(&partition), (0..10_000).collect::<Vec<_>>());
    member.leave().await;
}

/// A record that is too large is its event's fault, whoever notices: the client by its own limit,
/// or the broker by the topic's, which refuses the whole batch.
#[tokio::test(flavor = "multi_thread")]
async fn a_record_too_large_is_found_and_named() {
    let Some(kafka) = kafka::shared() else { return };
    let topic = unique("large");
    kafka
        .create_topic_with(&topic, 1, &[("max.message.bytes", "20000")])
        .unwrap();
    let broker = broker(kafka.bootstrap());
    let mut member = Member::join(&broker, subscription(&unique("group"), &[&topic]));
    let name: Arc<str> = topic.as_str().into();
    for size in [2_000_000, 50_000] {
        let mut records = numbered(&topic, None, 0, 5);
        let large = vec![b'x'; size];
        records.push(
            &name,
            NewRecord {
                value: Some(&large),
                ..NewRecord::default()
            },
        );
        records.append_all(&numbered(&topic, None, 5, 5));
        let first = member.sink.publish(Arc::new(records));
        // Made before the failure is known: it must not be written before the first is again.
        let second = member.sink.publish(Arc::new(numbered(&topic, None, 10, 5)));
        match first.await {
            Err(PublishError::Event { index: 5, .. }) => {}
            other => panic!("size {size}: {other:?}"),
        }
        match second.await {
            Err(PublishError::Passing(_)) => {}
            other => panic!("size {size}: {other:?}"),
        }
        // With the error known, the rest can be written.
        let rest = numbered(&topic, None, 0, 15);
        member.sink.publish(Arc::new(rest)).await.unwrap();
    }
    // Nothing of the second publication stands before the first was written again.
    member
        .until("the end", |m| {
            m.seen.iter().filter(|s| s.value == "14").count() == 2
        })
        .await;
    let partition = TopicPartition::new(topic.as_str(), 0);
    let values = member.values(&partition);
    let start = values.len() - 15;
    assert_eq!(values[start..], (0..15).collect::<Vec<_>>()[..]);
    member.leave().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_that_is_missing_is_named() {
    let Some(kafka) = kafka::shared() else { return };
    let (topic, missing) = (unique("there"), unique("missing"));
    kafka.create_topic(&topic, 1).unwrap();
    let properties = [("topic.metadata.propagation.max.ms", "500")];
    let broker = crate::member::broker_with(kafka.bootstrap(), &properties, None);
    let member = Member::join(&broker, subscription(&unique("group"), &[&topic]));
    let answer = member
        .sink
        .publish(Arc::new(numbered(&missing, None, 0, 3)));
    match answer.await {
        Err(PublishError::Topic { topic, .. }) => assert_eq!(*topic, *missing),
        other => panic!("{other:?}"),
    }
    member
        .sink
        .publish(Arc::new(numbered(&topic, None, 0, 3)))
        .await
        .unwrap();
    member.leave().await;
}

/// Keys must land where a Java producer would put them. The reference values are those of Kafka's
/// own `Utils.murmur2` over these keys, for 16 partitions.
#[tokio::test(flavor = "multi_thread")]
async fn keys_land_where_a_java_producer_puts_them() {
    let Some(kafka) = kafka::shared() else { return };
    let topic = unique("murmur");
    kafka.create_topic(&topic, 16).unwrap();
    let broker = broker(kafka.bootstrap());
    let name: Arc<str> = topic.as_str().into();
    let keys = [
        "21",
        "foobar",
        "a-little-bit-long-string",
        "a-little-bit-longer-string",
        "",
        "abc",
    ];
    let mut records = Records::new();
    for key in keys {
        records.push(
            &name,
            NewRecord {
                key: Some(key.as_bytes()),
                value: Some(b"x"),
                ..NewRecord::default()
            },
        );
    }
    let places = broker.topics().produce(records).await.unwrap();
    let found: Vec<u32> = places
        .iter()
        .map(|place| place.partition.partition)
        .collect();
    let expected: Vec<u32> = keys
        .iter()
        .map(|key| java_partition(key.as_bytes(), 16))
        .collect();
    assert_eq!(found, expected);
}

/// `toPositive(murmur2(key)) % partitions`, as Kafka's documentation of its partitioner defines it;
/// its hash is checked against the published values below.
fn java_partition(key: &[u8], partitions: u32) -> u32 {
    (murmur2(key) & 0x7fff_ffff) % partitions
}

fn murmur2(key: &[u8]) -> u32 {
    const M: u32 = 0x5bd1_e995;
    let mut hash = 0x9747_b28c ^ key.len() as u32;
    let chunks = key.chunks_exact(4);
    let rest = chunks.remainder();
    for chunk in chunks {
        let mut word = u32::from_le_bytes(chunk.try_into().unwrap()).wrapping_mul(M);
        word = (word ^ (word >> 24)).wrapping_mul(M);
        hash = hash.wrapping_mul(M) ^ word;
    }
    if !rest.is_empty() {
        let tail = rest
            .iter()
            .rev()
            .fold(0, |tail: u32, byte| (tail << 8) | u32::from(*byte));
        hash = (hash ^ tail).wrapping_mul(M);
    }
    hash = (hash ^ (hash >> 13)).wrapping_mul(M);
    hash ^ (hash >> 15)
}

/// Kafka's own unit test of `Utils.murmur2` has these values.
#[test]
fn the_reference_hash_is_kafkas() {
    for (key, hash) in [
        ("21", -973_932_308_i32),
        ("foobar", -790_332_482),
        ("a-little-bit-long-string", -985_981_536),
        ("a-little-bit-longer-string", -1_486_304_829),
        (
            "lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8",
            -58_897_971,
        ),
    ] {
        assert_eq!(murmur2(key.as_bytes()), hash as u32, "{key}");
    }
}

/// A plugin's thousand outputs at once must not overrun the client's queue.
#[tokio::test(flavor = "multi_thread")]
async fn more_than_the_clients_queue_holds_is_written() {
    let Some(kafka) = kafka::shared() else { return };
    let topic = unique("many");
    kafka.create_topic(&topic, 3).unwrap();
    let properties = [("queue.buffering.max.messages", "500")];
    let broker = crate::member::broker_with(kafka.bootstrap(), &properties, None);
    let member = Member::join(&broker, subscription(&unique("group"), &[&topic]));
    let answer = member
        .sink
        .publish(Arc::new(numbered(&topic, None, 0, 20_000)));
    tokio::time::timeout(Duration::from_secs(60), answer)
        .await
        .unwrap()
        .unwrap();
    let ends = kafka.ends(&topic).unwrap();
    assert_eq!(
        ends.iter().map(|(start, end)| end - start).sum::<u64>(),
        20_000
    );
    member.leave().await;
}
