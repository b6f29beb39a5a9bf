//! What comes in is what was written.

use std::time::Duration;

use millstream::broker::{Broker, SourceEvent};
use millstream::config::{Start, TopicPattern};
use millstream::event::TopicPartition;
use millstream_test_support::kafka;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};

use crate::member::{Member, PATIENCE, broker, numbered, subscription, unique};

#[tokio::test(flavor = "multi_thread")]
async fn each_partition_comes_whole_and_in_order() {
    let Some(kafka) = kafka::shared() else { return };
    let topic = unique("order");
    kafka.create_topic(&topic, 4).unwrap();
    let broker = broker(kafka.bootstrap());
    for partition in 0..4 {
        let records = numbered(&topic, Some(partition), 0, 5_000);
        broker.topics().produce(records).await.unwrap();
    }
    let mut member = Member::join(&broker, subscription(&unique("group"), &[&topic]));
    member.until("all events", |m| m.seen.len() >= 20_000).await;
    for partition in 0..4 {
        let values = member.values(&TopicPartition::new(topic.as_str(), partition));
        assert_eq!(values, (0..5_000).collect::<Vec<_>>());
    }
    let ends = member.control.ends();
    assert_eq!(ends.len(), 4);
    assert!(ends.iter().all(|(_, end)| *end == 5_000), "{ends:?}");
    member.leave().await;
}

/// Header names are bytes to Kafka, may repeat, and values may be null.
#[tokio::test(flavor = "multi_thread")]
async fn headers_come_as_they_were_written() {
    let Some(kafka) = kafka::shared() else { return };
    let topic = unique("headers");
    kafka.create_topic(&topic, 1).unwrap();
    let broker = broker(kafka.bootstrap());
    let mut records = millstream::records::Records::new();
    let name: std::sync::Arc<str> = topic.as_str().into();
    records.push(
        &name,
        millstream::records::NewRecord {
            key: Some(b""),
            value: None,
            timestamp_ms: Some(1_234),
            ..Default::default()
        },
    );
    records.push_header(b"twice", Some(b"1"));
    records.push_header(b"twice", Some(b"2"));
    records.push_header(b"null", None);
    records.push_header(b"empty", Some(b""));
    records.push_header(&[0xff, 0xfe], Some(b"x"));
    broker.topics().produce(records).await.unwrap();
    let mut member = Member::join(&broker, subscription(&unique("group"), &[&topic]));
    let block = loop {
        match tokio::time::timeout(PATIENCE, member.source.next())
            .await
            .unwrap()
        {
            SourceEvent::Block(block) => break block,
            SourceEvent::Failed(error) => panic!("{error}"),
            _ => {}
        }
    };
    let event = block.event(0);
    let headers: Vec<_> = event.headers().collect();
    assert_eq!(
        headers,
        [
            (&b"twice"[..], Some(&b"1"[..])),
            (b"twice", Some(b"2")),
            (b"null", None),
            (b"empty", Some(b"")),
            (&[0xff, 0xfe], Some(b"x")),
        ]
    );
    assert!(!event.decodable());
    assert_eq!((event.key(), event.value()), (Some(&b""[..]), None));
    assert_eq!(event.timestamp_ms(), 1_234);
    member.leave().await;
}

/// Markers hold offsets that no event carries: without the news the position would never reach the
/// end, and a run until idle would never stop. Aborted events are never handed over.
#[tokio::test(flavor = "multi_thread")]
async fn the_end_behind_a_transaction_is_reached() {
    let Some(kafka) = kafka::shared() else { return };
    let topic = unique("markers");
    kafka.create_topic(&topic, 1).unwrap();
    let name = topic.clone();
    let mut config = kafka.client();
    config.set("transactional.id", unique("tx"));
    tokio::task::spawn_blocking(move || {
        let producer: BaseProducer = config.create().unwrap();
        producer.init_transactions(PATIENCE).unwrap();
        for (value, commit) in [("1", true), ("2", false), ("3", true)] {
            producer.begin_transaction().unwrap();
            producer
                .send(BaseRecord::<(), str>::to(&name).payload(value))
                .unwrap();
            producer.flush(PATIENCE).unwrap();
            if commit {
                producer.commit_transaction(PATIENCE).unwrap();
            } else {
                producer.abort_transaction(PATIENCE).unwrap();
            }
        }
    })
    .await
    .unwrap();
    let broker = broker(kafka.bootstrap());
    let mut member = Member::join(&broker, subscription(&unique("group"), &[&topic]));
    let partition = TopicPartition::new(topic.as_str(), 0);
    member
        .until("the end", |m| m.caught_up.get(&partition) == Some(&6))
        .await;
    assert_eq!(member.values(&partition), [1, 3]);
    assert_eq!(member.control.ends(), [(partition, 6)]);
    member.leave().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_topic_is_waited_for() {
    let Some(kafka) = kafka::shared() else { return };
    let topic = unique("late");
    let broker = broker(kafka.bootstrap());
    let mut wanted = subscription(&unique("group"), &[&topic]);
    // What appears later is read from its beginning, whatever the start was.
    wanted.start = Start::End;
    let mut member = Member::join(&broker, wanted);
    member.listen(Duration::from_secs(2)).await;
    assert!(member.owned.is_empty());
    kafka.create_topic(&topic, 1).unwrap();
    broker
        .topics()
        .produce(numbered(&topic, None, 0, 3))
        .await
        .unwrap();
    member.until("the late events", |m| m.seen.len() == 3).await;
    member.leave().await;
}

/// A consumer that reads its own output multiplies events without end.
#[tokio::test(flavor = "multi_thread")]
async fn a_pattern_finds_new_topics_and_leaves_out_excluded_ones() {
    let Some(kafka) = kafka::shared() else { return };
    let stem = unique("pattern");
    let (first, second, output) = (
        format!("{stem}.a"),
        format!("{stem}.b"),
        format!("{stem}.out"),
    );
    kafka.create_topic(&first, 1).unwrap();
    kafka.create_topic(&output, 1).unwrap();
    let broker = broker(kafka.bootstrap());
    for topic in [&first, &output] {
        broker
            .topics()
            .produce(numbered(topic, None, 0, 2))
            .await
            .unwrap();
    }
    let mut wanted = subscription(&unique("group"), &[]);
    let pattern = format!("^(?:{})", stem.replace('.', "\\."));
    wanted.topics = vec![TopicPattern::Pattern(regex::Regex::new(&pattern).unwrap())];
    wanted.excluded = vec![output.as_str().into()];
    let mut member = Member::join(&broker, wanted);
    member.until("the first topic", |m| m.seen.len() == 2).await;
    kafka.create_topic(&second, 1).unwrap();
    broker
        .topics()
        .produce(numbered(&second, None, 0, 2))
        .await
        .unwrap();
    member
        .until("the second topic", |m| m.seen.len() == 4)
        .await;
    assert!(
        member
            .seen
            .iter()
            .all(|seen| *seen.partition.topic != *output)
    );
    member.leave().await;
}
