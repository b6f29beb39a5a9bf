//! Positions: where a group starts and goes on.

use std::time::Duration;

use millstream::broker::Broker;
use millstream::config::{OnLostPosition, Start};
use millstream::decide::crash::Watch;
use millstream::decide::offsets::Progress;
use millstream::event::TopicPartition;
use millstream_test_support::kafka;
use rdkafka::TopicPartitionList;
use rdkafka::admin::{AdminClient, AdminOptions};
use rdkafka::client::DefaultClientContext;

use crate::member::{Member, broker, numbered, subscription, unique};

/// Ranges that are lost with a restart would have their events processed twice.
#[tokio::test(flavor = "multi_thread")]
async fn a_position_with_ranges_above_survives_a_restart() {
    let Some(kafka) = kafka::shared() else { return };
    let (topic, group) = (unique("ranges"), unique("group"));
    kafka.create_topic(&topic, 1).unwrap();
    let broker = broker(kafka.bootstrap());
    broker
        .topics()
        .produce(numbered(&topic, None, 0, 10))
        .await
        .unwrap();
    let partition = TopicPartition::new(topic.as_str(), 0);
    let mut member = Member::join(&broker, subscription(&group, &[&topic]));
    member.until("all events", |m| m.seen.len() == 10).await;
    let progress = Progress {
        next: 3,
        above: vec![4..6, 8..9],
        watch: Some(Watch::working(7)),
    };
    member.commit(&partition, progress.clone()).await;
    member.leave().await;

    let positions = broker.topics().positions(&group).await.unwrap();
    assert_eq!(positions, [(partition.clone(), progress.clone())]);
    let mut member = Member::join(&broker, subscription(&group, &[&topic]));
    member.until("the rest", |m| m.seen.len() == 7).await;
    assert_eq!(member.owned[&partition], progress);
    assert_eq!(member.values(&partition), (3..10).collect::<Vec<_>>());
    member.leave().await;
}

/// The start is committed at once: a runtime that ends before its first commit must not skip, at
/// its next start, what came meanwhile.
#[tokio::test(flavor = "multi_thread")]
async fn a_new_groups_start_is_committed_at_once() {
    let Some(kafka) = kafka::shared() else { return };
    let (topic, group) = (unique("start"), unique("group"));
    kafka.create_topic(&topic, 2).unwrap();
    let broker = broker(kafka.bootstrap());
    broker
        .topics()
        .produce(numbered(&topic, Some(0), 0, 5))
        .await
        .unwrap();
    let mut wanted = subscription(&group, &[&topic]);
    wanted.start = Start::End;
    let mut member = Member::join(&broker, wanted.clone());
    member.until("the assignment", |m| m.owned.len() == 2).await;
    member.leave().await;
    let partition = TopicPartition::new(topic.as_str(), 0);
    let positions = broker.topics().positions(&group).await.unwrap();
    assert_eq!(positions[0], (partition.clone(), Progress::at(5)));
    assert_eq!(positions[1].1, Progress::at(0));

    broker
        .topics()
        .produce(numbered(&topic, Some(0), 5, 2))
        .await
        .unwrap();
    let mut member = Member::join(&broker, wanted);
    member
        .until("what came meanwhile", |m| m.seen.len() == 2)
        .await;
    assert_eq!(member.values(&partition), [5, 6]);
    member.leave().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_at_a_time_is_the_first_event_of_that_time() {
    let Some(kafka) = kafka::shared() else { return };
    let topic = unique("time");
    kafka.create_topic(&topic, 1).unwrap();
    let broker = broker(kafka.bootstrap());
    let name: std::sync::Arc<str> = topic.as_str().into();
    let mut records = millstream::records::Records::new();
    for number in 0..5_i64 {
        records.push(
            &name,
            millstream::records::NewRecord {
                value: Some(number.to_string().as_bytes()),
                timestamp_ms: Some(1_700_000_000_000 + number * 1_000),
                ..Default::default()
            },
        );
    }
    broker.topics().produce(records).await.unwrap();
    let mut wanted = subscription(&unique("group"), &[&topic]);
    wanted.start = Start::At(1_700_000_002_500);
    let mut member = Member::join(&broker, wanted);
    member
        .until("the later events", |m| m.seen.len() == 2)
        .await;
    let partition = TopicPartition::new(topic.as_str(), 0);
    assert_eq!(member.values(&partition), [3, 4]);
    assert_eq!(
        broker
            .topics()
            .offset_at(&partition, 1_700_000_002_500)
            .await
            .unwrap(),
        3
    );
    assert_eq!(
        broker
            .topics()
            .offset_at(&partition, 1_800_000_000_000)
            .await
            .unwrap(),
        5
    );
    member.leave().await;
}

async fn delete_records(bootstrap: &str, topic: &str, below: i64) {
    let mut config = rdkafka::ClientConfig::new();
    config.set("bootstrap.servers", bootstrap);
    let admin: AdminClient<DefaultClientContext> = config.create().unwrap();
    let mut list = TopicPartitionList::new();
    list.add_partition_offset(topic, 0, rdkafka::Offset::Offset(below))
        .unwrap();
    admin
        .delete_records(&list, &AdminOptions::new())
        .await
        .unwrap();
}

/// Going on silently where events are missing would hide their loss.
#[tokio::test(flavor = "multi_thread")]
async fn a_position_that_retention_overtook_halts_or_skips_as_told() {
    let Some(kafka) = kafka::shared() else { return };
    let topic = unique("lost");
    kafka.create_topic(&topic, 1).unwrap();
    let broker = broker(kafka.bootstrap());
    let partition = TopicPartition::new(topic.as_str(), 0);
    broker
        .topics()
        .produce(numbered(&topic, None, 0, 10))
        .await
        .unwrap();
    let groups = [unique("stop"), unique("begin")];
    for group in &groups {
        let mut member = Member::join(&broker, subscription(group, &[&topic]));
        member.until("all events", |m| m.seen.len() == 10).await;
        member.commit(&partition, Progress::at(2)).await;
        member.leave().await;
    }
    delete_records(kafka.bootstrap(), &topic, 6).await;

    let mut stopped = Member::join(&broker, subscription(&groups[0], &[&topic]));
    stopped.until("the halt", |m| m.halted.len() == 1).await;
    stopped.listen(Duration::from_secs(2)).await;
    assert!(stopped.seen.is_empty());
    stopped.leave().await;

    let mut wanted = subscription(&groups[1], &[&topic]);
    wanted.on_lost_position = OnLostPosition::Beginning;
    let mut skipping = Member::join(&broker, wanted);
    skipping.until("what is left", |m| m.seen.len() == 4).await;
    assert_eq!(skipping.skipped, [(partition.clone(), 2, 6)]);
    assert_eq!(skipping.values(&partition), [6, 7, 8, 9]);
    skipping.leave().await;
}

/// The same while the partition is being read: it must not fall silent.
#[tokio::test(flavor = "multi_thread")]
async fn a_partition_that_loses_its_events_while_held_goes_on() {
    let Some(kafka) = kafka::shared() else { return };
    let topic = unique("held-lost");
    kafka.create_topic(&topic, 1).unwrap();
    let broker = broker(kafka.bootstrap());
    let partition = TopicPartition::new(topic.as_str(), 0);
    let mut wanted = subscription(&unique("group"), &[&topic]);
    wanted.on_lost_position = OnLostPosition::Beginning;
    let mut member = Member::join(&broker, wanted);
    member.until("the assignment", |m| m.owned.len() == 1).await;
    member.control.hold(std::slice::from_ref(&partition));
    // Held for over a second it is paused, and what was fetched is thrown away.
    member.listen(Duration::from_millis(2_500)).await;
    broker
        .topics()
        .produce(numbered(&topic, None, 0, 10))
        .await
        .unwrap();
    delete_records(kafka.bootstrap(), &topic, 6).await;
    member.control.release(std::slice::from_ref(&partition));
    member.until("what is left", |m| m.seen.len() == 4).await;
    assert_eq!(member.skipped, [(partition.clone(), 0, 6)]);
    assert_eq!(member.values(&partition), [6, 7, 8, 9]);
    member.leave().await;
}
