//! The valves.

use std::time::Duration;

use millstream::broker::Broker;
use millstream::event::TopicPartition;
use millstream_test_support::kafka;

use crate::member::{Member, broker, numbered, subscription, unique};

/// A held partition that still hands over breaks the budget; one that loses its place after the
/// release loses events; one that stops the others stops the consumer.
#[tokio::test(flavor = "multi_thread")]
async fn a_held_partition_waits_and_goes_on_where_it_was() {
    let Some(kafka) = kafka::shared() else { return };
    let topic = unique("valve");
    kafka.create_topic(&topic, 2).unwrap();
    let broker = broker(kafka.bootstrap());
    let held = TopicPartition::new(topic.as_str(), 0);
    let other = TopicPartition::new(topic.as_str(), 1);
    for partition in 0..2 {
        let records = numbered(&topic, Some(partition), 0, 30_000);
        broker.topics().produce(records).await.unwrap();
    }
    let mut member = Member::join(&broker, subscription(&unique("group"), &[&topic]));
    member
        .until("some events", |m| m.values(&held).len() > 500)
        .await;
    // Once shorter than a second (kept) and once longer (paused in librdkafka).
    for pause in [200, 2_500] {
        member.control.hold(std::slice::from_ref(&held));
        // Blocks already on their way may still arrive.
        member.listen(Duration::from_millis(pause / 4)).await;
        let before = member.values(&held).len();
        member.listen(Duration::from_millis(pause)).await;
        let after = member.values(&held).len();
        assert!(
            after - before <= 1_000,
            "{} came while held",
            after - before
        );
        member.control.release(std::slice::from_ref(&held));
        member
            .until("more", |m| {
                m.values(&held).len() > (after + 500).min(29_999)
            })
            .await;
    }
    member.until("all events", |m| m.seen.len() >= 60_000).await;
    for partition in [&held, &other] {
        assert_eq!(member.values(partition), (0..30_000).collect::<Vec<_>>());
    }
    member.leave().await;
}

/// A member that does not listen must stay one, and what was fetched meanwhile must not be lost when
/// librdkafka pauses and drops it.
#[tokio::test(flavor = "multi_thread")]
async fn a_member_that_does_not_listen_stays_one_and_misses_nothing() {
    let Some(kafka) = kafka::shared() else { return };
    let topic = unique("deaf");
    kafka.create_topic(&topic, 1).unwrap();
    let broker = broker(kafka.bootstrap());
    broker
        .topics()
        .produce(numbered(&topic, None, 0, 50_000))
        .await
        .unwrap();
    let mut wanted = subscription(&unique("group"), &[&topic]);
    wanted.fetch_events = 1_000;
    let mut member = Member::join(&broker, wanted);
    member.until("the assignment", |m| m.owned.len() == 1).await;
    // Not to wait for something: it is the deafness itself, for longer than fetched events may
    // stand still before their partition is paused.
    tokio::time::sleep(Duration::from_secs(2)).await;
    member.until("all events", |m| m.seen.len() == 50_000).await;
    let partition = TopicPartition::new(topic.as_str(), 0);
    assert_eq!(member.values(&partition), (0..50_000).collect::<Vec<_>>());
    member.leave().await;
}
