//! A broker that dies and comes back.

use std::sync::Arc;
use std::time::Duration;

use millstream::broker::Broker;
use millstream::decide::offsets::Progress;
use millstream::event::TopicPartition;
use millstream_test_support::kafka;
use tokio::time::{Instant, sleep};

use crate::member::{Member, PATIENCE, broker, numbered, subscription, unique};

async fn becomes(broker: &millstream::broker::kafka::KafkaBroker, up: bool) {
    let deadline = Instant::now() + PATIENCE;
    while broker.up() != up {
        assert!(
            Instant::now() < deadline,
            "the broker should be {}",
            if up { "up" } else { "down" }
        );
        sleep(Duration::from_millis(50)).await;
    }
}

/// An outage is waited out: what was asked for meanwhile happens afterwards, once, and in order.
#[tokio::test(flavor = "multi_thread")]
async fn everything_goes_on_after_the_broker_was_killed() {
    let Some(mut node) = kafka::own() else { return };
    let (topic, group) = (unique("outage"), unique("group"));
    node.tools().create_topic(&topic, 1).unwrap();
    let broker = broker(node.bootstrap());
    becomes(&broker, true).await;
    let partition = TopicPartition::new(topic.as_str(), 0);
    let mut member = Member::join(&broker, subscription(&group, &[&topic]));
    let records = numbered(&topic, None, 0, 10);
    member.sink.publish(Arc::new(records)).await.unwrap();
    member
        .until("the first events", |m| m.seen.len() == 10)
        .await;
    member.commit(&partition, Progress::at(10)).await;

    node.kill9().unwrap();
    becomes(&broker, false).await;
    let answers: Vec<_> = (1..4)
        .map(|unit| {
            member
                .sink
                .publish(Arc::new(numbered(&topic, None, unit * 10, 10)))
        })
        .collect();
    member.listen(Duration::from_secs(1)).await;
    assert_eq!(member.seen.len(), 10);
    tokio::task::block_in_place(|| node.restart()).unwrap();

    for answer in answers {
        answer.await.unwrap();
    }
    becomes(&broker, true).await;
    member
        .until("the later events", |m| m.seen.len() >= 40)
        .await;
    assert_eq!(member.values(&partition), (0..40).collect::<Vec<_>>());
    let deadline = Instant::now() + PATIENCE;
    loop {
        let commit = millstream::broker::Commit {
            partition: partition.clone(),
            progress: Progress::at(40),
        };
        match member.sink.commit(vec![commit]).await {
            Ok(()) => break,
            // The group is put together again first.
            Err(error) => assert!(Instant::now() < deadline, "{error}"),
        }
        member.listen(Duration::from_millis(200)).await;
    }
    member.leave().await;
}

/// A runtime that is started before its broker waits for it.
#[tokio::test(flavor = "multi_thread")]
async fn a_runtime_may_start_before_its_broker() {
    let Some(mut node) = kafka::own() else { return };
    let topic = unique("early");
    node.tools().create_topic(&topic, 1).unwrap();
    node.kill9().unwrap();
    let broker = broker(node.bootstrap());
    let mut member = Member::join(&broker, subscription(&unique("group"), &[&topic]));
    let answer = member.sink.publish(Arc::new(numbered(&topic, None, 0, 5)));
    member.listen(Duration::from_secs(1)).await;
    assert!(!broker.up());
    tokio::task::block_in_place(|| node.restart()).unwrap();
    answer.await.unwrap();
    member.until("the events", |m| m.seen.len() == 5).await;
    member.leave().await;
}
