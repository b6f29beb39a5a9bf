//! What consumers write: in order, and in order again after a failure.

use super::*;
use crate::broker::PublishError;

async fn session(broker: &EmbeddedBroker) -> Session {
    broker.subscribe(named("source")).unwrap()
}

/// The order of the calls is the order of the log, whoever is awaited first.
#[tokio::test]
async fn publications_are_written_in_the_order_of_the_calls() {
    let folder = tempfile::tempdir().unwrap();
    let broker = open(folder.path());
    let session = session(&broker).await;
    let expected: Vec<String> = (0..500).map(|n| n.to_string()).collect();
    let mut calls: Vec<_> = expected
        .iter()
        .map(|value| session.sink.publish(Arc::new(records("out", 0, &[value]))))
        .collect();
    while let Some(last) = calls.pop() {
        last.await.unwrap();
    }
    assert_eq!(read_all(&broker, "out", 0).await.1, expected);
}

/// Written after the failed one, they would come before it once it is written again.
#[tokio::test]
async fn publications_behind_a_failed_one_fail_too() {
    let folder = tempfile::tempdir().unwrap();
    let settings = TopicSettings {
        max_event: Some(5),
        ..TopicSettings::default()
    };
    let broker = open_with(folder.path(), "out", settings);
    let session = session(&broker).await;
    let publish = |value: &str| session.sink.publish(Arc::new(records("out", 0, &[value])));
    let before = publish("a");
    let refused = publish("too large");
    let behind = publish("b");
    assert!(before.await.is_ok());
    assert!(matches!(
        refused.await,
        Err(PublishError::Event { index: 0, .. })
    ));
    assert!(matches!(behind.await, Err(PublishError::Passing(_))));
    publish("b").await.unwrap();
    assert_eq!(read_all(&broker, "out", 0).await.1, ["a", "b"]);
}

#[tokio::test]
async fn a_topic_that_cannot_be_is_the_topics_fault() {
    let folder = tempfile::tempdir().unwrap();
    let broker = open(folder.path());
    let session = session(&broker).await;
    let refused = session.sink.publish(Arc::new(records("a b", 0, &["x"])));
    assert!(matches!(
        refused.await,
        Err(PublishError::Topic { index: 0, .. })
    ));
}

#[tokio::test]
async fn a_full_disk_is_passing_for_a_consumer() {
    let folder = tempfile::tempdir().unwrap();
    let full = Embedded {
        min_free_disk: u64::MAX,
        ..config(folder.path())
    };
    let broker = EmbeddedBroker::open(&full, &BTreeMap::new()).unwrap();
    let session = session(&broker).await;
    let refused = session.sink.publish(Arc::new(records("out", 0, &["x"])));
    assert!(matches!(refused.await, Err(PublishError::Passing(_))));
}
