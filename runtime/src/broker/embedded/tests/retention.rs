//! Retention and what groups are told that it overtook.

use super::*;
use crate::broker::embedded::keeper;
use crate::clock;

const HOUR: i64 = 3_600_000;

async fn keep(broker: &Arc<EmbeddedBroker>, now_ms: i64) {
    let shared = broker.shared.clone();
    tokio::task::spawn_blocking(move || keeper::keep(&shared, now_ms))
        .await
        .unwrap()
        .unwrap();
}

#[tokio::test]
async fn old_events_go_and_offsets_are_never_given_twice() {
    let folder = tempfile::tempdir().unwrap();
    let settings = TopicSettings {
        retention_age: Some(Duration::from_secs(3_600)),
        ..partitions(1)
    };
    let broker = open_with(folder.path(), "t", settings.clone());
    produce(&broker, "t", 0, &["a"]).await;
    produce(&broker, "t", 0, &["b"]).await;
    keep(&broker, clock::now_ms()).await;
    assert_eq!(read_all(&broker, "t", 0).await.0, 0);
    keep(&broker, clock::now_ms() + 2 * HOUR).await;
    assert_eq!(read_all(&broker, "t", 0).await, (2, vec![], 2));
    broker.close().await;
    let broker = open_with(folder.path(), "t", settings);
    produce(&broker, "t", 0, &["c"]).await;
    assert_eq!(read_all(&broker, "t", 0).await, (2, vec!["c".into()], 3));
}

#[tokio::test]
async fn a_topic_without_settings_is_kept_for_seven_days() {
    let folder = tempfile::tempdir().unwrap();
    let broker = open(folder.path());
    produce(&broker, "t", 0, &["a"]).await;
    keep(&broker, clock::now_ms() + 6 * 24 * HOUR).await;
    assert_eq!(read_all(&broker, "t", 0).await.0, 0);
    keep(&broker, clock::now_ms() + 8 * 24 * HOUR).await;
    assert_eq!(read_all(&broker, "t", 0).await.0, 1);
}

#[tokio::test]
async fn a_partition_is_kept_within_its_bytes() {
    let folder = tempfile::tempdir().unwrap();
    let settings = TopicSettings {
        retention_bytes: Some(2_500),
        ..partitions(1)
    };
    let broker = open_with(folder.path(), "t", settings);
    let kilobyte = "x".repeat(1_000);
    for _ in 0..5 {
        produce(&broker, "t", 0, &[&kilobyte]).await;
    }
    keep(&broker, clock::now_ms()).await;
    let (start, values, end) = read_all(&broker, "t", 0).await;
    // Whole batches go, and the one that the bound cuts through stays.
    assert_eq!((start, values.len(), end), (2, 3, 5));
}

/// Told by `rule` after retention took the two events that the group had not settled.
async fn overtaken(rule: OnLostPosition) -> Vec<String> {
    let folder = tempfile::tempdir().unwrap();
    let broker = open_with(folder.path(), "t", partitions(1));
    let mut session = broker.subscribe(named("t")).unwrap();
    told(&mut session, is_caught_up).await;
    session.source.close().await;
    produce(&broker, "t", 0, &["a"]).await;
    produce(&broker, "t", 0, &["b"]).await;
    keep(&broker, clock::now_ms() + 8 * 24 * HOUR).await;
    produce(&broker, "t", 0, &["c"]).await;
    let subscription = Subscription {
        on_lost_position: rule,
        ..named("t")
    };
    let mut session = broker.subscribe(subscription).unwrap();
    told(&mut session, |e| {
        matches!(e, SourceEvent::CaughtUp { .. } | SourceEvent::Halted { .. })
    })
    .await
}

#[tokio::test]
async fn a_lost_position_is_handled_as_the_consumer_says() {
    assert_eq!(
        overtaken(OnLostPosition::Stop).await,
        ["assigned t/0 0[]", "halted t/0"]
    );
    assert_eq!(
        overtaken(OnLostPosition::Beginning).await,
        [
            "assigned t/0 0[]",
            "skipped t/0 0 2",
            "c",
            "caught up t/0 3"
        ]
    );
    assert_eq!(
        overtaken(OnLostPosition::End).await,
        ["assigned t/0 0[]", "skipped t/0 0 3", "caught up t/0 3"]
    );
}

async fn reclaimed(broker: &Arc<EmbeddedBroker>) -> u64 {
    let store = broker.shared.store().unwrap();
    tokio::task::spawn_blocking(move || {
        store.reclaim().unwrap();
        store.log.disk_space()
    })
    .await
    .unwrap()
}

/// Removed events must not hold their place on disk for ever, nor take the events of another topic
/// along that lie in the same files.
#[tokio::test]
async fn disk_space_comes_back_and_the_rest_stays() {
    let folder = tempfile::tempdir().unwrap();
    let broker = open_with(folder.path(), "short", partitions(1));
    let noise: String = (0..200_000).map(|_| fastrand::alphanumeric()).collect();
    for n in 0..100 {
        produce(&broker, "short", 0, &[&noise]).await;
        produce(&broker, "long", 0, &[&n.to_string(), &noise[..20_000]]).await;
    }
    let before = reclaimed(&broker).await;
    assert!(before > 15_000_000, "{before}");
    broker.topics().delete("short").await.unwrap();
    keep(&broker, clock::now_ms()).await;
    let after = reclaimed(&broker).await;
    assert!(after < before / 4, "{before} → {after}");
    broker.close().await;
    let broker = open(folder.path());
    let kept = read_all(&broker, "long", 0).await.1;
    assert_eq!(kept.len(), 200);
    assert_eq!(kept[198], "99");
    keep(&broker, clock::now_ms() + 8 * 24 * HOUR).await;
    let empty = reclaimed(&broker).await;
    assert!(empty < 1_000_000, "{empty}");
}

/// A crash after a topic was deleted must not leave its events on disk for ever.
#[tokio::test]
async fn events_of_a_deleted_topic_are_removed() {
    let folder = tempfile::tempdir().unwrap();
    let broker = open(folder.path());
    produce(&broker, "t", 0, &["a"]).await;
    broker.topics().delete("t").await.unwrap();
    keep(&broker, clock::now_ms()).await;
    let store = broker.shared.store().unwrap();
    assert_eq!(store.log.iter().count(), 0);
    assert_eq!(store.meta.prefix("deleted/").count(), 0);
}
