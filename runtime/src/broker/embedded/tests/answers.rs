//! Requests with a key: written once, and answered as the first time.

use super::*;
use crate::broker::embedded::answers::KEPT_MS;
use crate::broker::embedded::keeper;
use crate::broker::{BrokerError, Place, RequestKey};
use crate::clock;

fn key(text: &str) -> RequestKey {
    RequestKey::new(text.as_bytes()).unwrap()
}

async fn once(
    broker: &EmbeddedBroker,
    name: &str,
    records: Records,
) -> Result<Vec<Place>, BrokerError> {
    broker.topics().produce_once(records, key(name)).await
}

/// Events without a key or a partition: where they go differs from call to call.
fn anywhere(values: &[&str]) -> Records {
    let mut records = Records::new();
    for value in values {
        let value = Some(value.as_bytes());
        records.push(
            &"t".into(),
            NewRecord {
                value,
                ..NewRecord::default()
            },
        );
    }
    records
}

async fn count(broker: &EmbeddedBroker) -> u64 {
    let topics = broker.topics().list().await.unwrap();
    let partitions = topics.iter().flat_map(|topic| &topic.partitions);
    partitions.map(|partition| partition.end).sum()
}

#[tokio::test]
async fn the_same_request_is_written_once_also_after_a_start() {
    let folder = tempfile::tempdir().unwrap();
    let broker = open(folder.path());
    let first = once(&broker, "a", anywhere(&["x", "y", "z"]))
        .await
        .unwrap();
    let again = once(&broker, "a", anywhere(&["x", "y", "z"]))
        .await
        .unwrap();
    assert_eq!(first, again);
    let other = once(&broker, "a", anywhere(&["x", "y"])).await.unwrap_err();
    assert!(matches!(other, BrokerError::Refused(_)), "{other}");
    assert!(other.to_string().contains("\"a\""), "{other}");
    assert_eq!(count(&broker).await, 3);
    broker.close().await;
    let broker = open(folder.path());
    let again = once(&broker, "a", anywhere(&["x", "y", "z"]))
        .await
        .unwrap();
    assert_eq!(first, again);
    assert_eq!(count(&broker).await, 3);
}

/// Two requests that both find the key new would both write.
#[tokio::test]
async fn requests_at_the_same_time_are_written_once() {
    let folder = tempfile::tempdir().unwrap();
    let broker = open(folder.path());
    for round in 0..20 {
        let name = format!("round {round}");
        let calls = (0..8).map(|_| once(&broker, &name, anywhere(&["x", "y"])));
        let answers = futures::future::join_all(calls).await;
        let answers: Vec<_> = answers.into_iter().map(Result::unwrap).collect();
        assert!(answers.iter().all(|answer| *answer == answers[0]));
        assert_eq!(count(&broker).await, 2 * (round + 1));
    }
    // One that asks for something else is refused, whichever comes first.
    let (one, other) = futures::join!(
        once(&broker, "b", anywhere(&["x"])),
        once(&broker, "b", anywhere(&["y"])),
    );
    assert!(one.is_ok() != other.is_ok());
    assert_eq!(count(&broker).await, 41);
}

/// A key that is taken by a request of which nothing was written would lose its events.
#[tokio::test]
async fn a_refused_request_leaves_its_key_free() {
    let folder = tempfile::tempdir().unwrap();
    let settings = TopicSettings {
        max_event: Some(3),
        ..TopicSettings::default()
    };
    let broker = open_with(folder.path(), "t", settings);
    let refused = once(&broker, "a", anywhere(&["x", "large"])).await;
    assert!(matches!(refused, Err(BrokerError::TooLarge(_))));
    assert_eq!(count(&broker).await, 0);
    once(&broker, "a", anywhere(&["x"])).await.unwrap();
    assert_eq!(count(&broker).await, 1);
}

#[tokio::test]
async fn a_full_disk_refuses_new_requests_and_repeats_answers() {
    let folder = tempfile::tempdir().unwrap();
    let broker = open(folder.path());
    let first = once(&broker, "a", anywhere(&["x"])).await.unwrap();
    broker.close().await;
    let full = Embedded {
        min_free_disk: u64::MAX,
        ..config(folder.path())
    };
    let broker = EmbeddedBroker::open(&full, &BTreeMap::new()).unwrap();
    let refused = once(&broker, "b", anywhere(&["x"])).await;
    assert!(matches!(refused, Err(BrokerError::DiskFull(_))));
    assert_eq!(once(&broker, "a", anywhere(&["x"])).await.unwrap(), first);
    assert_eq!(count(&broker).await, 1);
}

#[tokio::test]
async fn the_keeper_removes_answers_that_are_a_day_old() {
    let folder = tempfile::tempdir().unwrap();
    let broker = open(folder.path());
    let before = clock::now_ms();
    for name in ["a", "b"] {
        once(&broker, name, anywhere(&["x"])).await.unwrap();
    }
    let keep = async |now_ms: i64| {
        let shared = broker.shared.clone();
        let kept = tokio::task::spawn_blocking(move || keeper::keep(&shared, now_ms));
        kept.await.unwrap().unwrap();
        let store = broker.shared.store().unwrap();
        store.answers.prefix("k").count()
    };
    let day = KEPT_MS as i64;
    assert_eq!(keep(before + day - 1).await, 2);
    assert_eq!(keep(clock::now_ms() + day).await, 0);
    once(&broker, "a", anywhere(&["y"])).await.unwrap();
    assert_eq!(count(&broker).await, 3);
}
