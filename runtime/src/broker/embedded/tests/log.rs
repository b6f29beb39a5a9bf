//! What is produced is read: whole, in order, and again after a restart.

use super::*;
use crate::broker::embedded::catalog::Catalog;
use crate::broker::embedded::group_commit::Group;
use crate::broker::embedded::reader::{self, Found};
use crate::broker::embedded::store::{BatchKey, Store};
use crate::broker::{BrokerError, Commit, PartitionInfo, Topics, TransactError};
use crate::clock;
use crate::config::Cleanup;
use crate::decide::offsets::Progress;

#[tokio::test]
async fn keys_keep_their_partition_and_order() {
    let folder = tempfile::tempdir().unwrap();
    let broker = open(folder.path());
    let topic: Arc<str> = "orders".into();
    let mut expected: BTreeMap<u32, Vec<String>> = BTreeMap::new();
    for call in 0..20 {
        let mut records = Records::new();
        for n in 0..50 {
            let (key, value) = (format!("k{}", n % 7), format!("{call}.{n}"));
            let record = NewRecord {
                key: Some(key.as_bytes()),
                value: Some(value.as_bytes()),
                ..NewRecord::default()
            };
            records.push(&topic, record);
            let partition = crate::broker::partitioner::partition_of(key.as_bytes(), 4);
            expected.entry(partition).or_default().push(value);
        }
        let places = broker.topics().produce(records).await.unwrap();
        assert_eq!(places.len(), 50);
        let last = places.last().unwrap();
        let chunk = broker
            .topics()
            .read(&last.partition, last.offset, ALL)
            .await
            .unwrap();
        assert_eq!(values(&chunk.block), [format!("{call}.49")]);
    }
    for partition in 0..4 {
        let (start, values, end) = read_all(&broker, "orders", partition).await;
        let expected = expected.remove(&partition).unwrap_or_default();
        assert_eq!((start, end), (0, expected.len() as u64));
        assert_eq!(values, expected);
    }
}

#[tokio::test]
async fn a_restart_finds_what_was_there_and_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let broker = open_with(folder.path(), "t", partitions(2));
    produce(&broker, "t", 0, &["a", "b"]).await;
    produce(&broker, "t", 1, &["x"]).await;
    broker.close().await;
    // The partition count of a topic that exists is fixed.
    let broker = open_with(folder.path(), "t", partitions(9));
    produce(&broker, "t", 0, &["c"]).await;
    assert_eq!(
        read_all(&broker, "t", 0).await,
        (0, vec!["a".into(), "b".into(), "c".into()], 3)
    );
    let topics = broker.topics().list().await.unwrap();
    assert_eq!(topics.len(), 1);
    assert_eq!(
        topics[0].partitions,
        [
            PartitionInfo { start: 0, end: 3 },
            PartitionInfo { start: 0, end: 1 }
        ]
    );
}

#[tokio::test]
async fn null_is_kept_apart_from_empty_and_headers_keep_their_order() {
    let folder = tempfile::tempdir().unwrap();
    let broker = open(folder.path());
    let topic: Arc<str> = "t".into();
    let mut records = Records::new();
    for (key, value) in [(None, Some(&b""[..])), (Some(&b""[..]), None)] {
        let record = NewRecord {
            key,
            value,
            partition: Some(0),
            timestamp_ms: Some(-7),
            ..NewRecord::default()
        };
        records.push(&topic, record);
        records.push_header(b"h", None);
        records.push_header(b"h", Some(b""));
    }
    broker.topics().produce(records).await.unwrap();
    broker.close().await;
    let broker = open(folder.path());
    let place = TopicPartition::new("t", 0);
    let chunk = broker.topics().read(&place, 0, ALL).await.unwrap();
    let event = chunk.block.event(0);
    assert_eq!((event.key(), event.value()), (None, Some(&b""[..])));
    assert_eq!(event.timestamp_ms(), -7);
    let headers: Vec<_> = event.headers().collect();
    assert_eq!(headers, [(&b"h"[..], None), (&b"h"[..], Some(&b""[..]))]);
    let event = chunk.block.event(1);
    assert_eq!((event.key(), event.value()), (Some(&b""[..]), None));
}

/// A call of which half was written would be repeated by its producer, and half of it doubled.
#[tokio::test]
async fn a_refused_call_leaves_nothing_behind() {
    let folder = tempfile::tempdir().unwrap();
    let settings = TopicSettings {
        max_event: Some(10),
        ..TopicSettings::default()
    };
    let broker = open_with(folder.path(), "small", settings);
    let mut call = records("new", 0, &["ok"]);
    call.append_all(&records("small", 0, &["fits", "does not fit"]));
    let error = broker.topics().produce(call).await.unwrap_err();
    let text = error.to_string();
    assert!(matches!(error, BrokerError::TooLarge(_)), "{text}");
    assert!(
        text.contains("event 3") && text.contains("max_event"),
        "{text}"
    );
    let missing = records("small", 7, &["x"]);
    assert!(broker.topics().produce(missing).await.is_err());
    let invalid = records("a b", 0, &["x"]);
    assert!(broker.topics().produce(invalid).await.is_err());
    let topics = broker.topics().list().await.unwrap();
    let names: Vec<_> = topics.iter().map(|topic| &*topic.name).collect();
    assert_eq!(names, ["small"]);
    assert_eq!(topics[0].partitions[0], PartitionInfo { start: 0, end: 0 });
}

/// Also from the store, where such an event is a value of its own.
#[tokio::test]
async fn an_event_of_ten_megabytes_passes() {
    let folder = tempfile::tempdir().unwrap();
    let large = "x".repeat(10_000_000);
    let broker = open(folder.path());
    produce(&broker, "t", 0, &["before", &large, "after"]).await;
    let small = ReadLimits {
        events: 100,
        bytes: 1_000,
    };
    for reopened in [false, true] {
        let broker = if reopened {
            broker.close().await;
            open(folder.path())
        } else {
            broker.clone()
        };
        let place = TopicPartition::new("t", 0);
        let chunk = broker.topics().read(&place, 1, small).await.unwrap();
        assert_eq!((chunk.block.len(), chunk.next, chunk.end), (1, 2, 3));
        assert_eq!(chunk.block.event(0).value(), Some(large.as_bytes()));
    }
}

#[tokio::test]
async fn a_read_keeps_to_its_limits() {
    let folder = tempfile::tempdir().unwrap();
    let broker = open(folder.path());
    for value in ["a", "b", "c", "d"] {
        produce(&broker, "t", 0, &[value]).await;
    }
    let place = TopicPartition::new("t", 0);
    let two = ReadLimits {
        events: 2,
        bytes: usize::MAX,
    };
    let chunk = broker.topics().read(&place, 1, two).await.unwrap();
    assert_eq!(
        (values(&chunk.block), chunk.next),
        (vec!["b".into(), "c".into()], 3)
    );
    let chunk = broker.topics().read(&place, 9, two).await.unwrap();
    assert!(chunk.block.is_empty());
    let missing = TopicPartition::new("t", 4);
    assert!(broker.topics().read(&missing, 0, two).await.is_err());
}

#[tokio::test]
async fn a_time_is_found_though_timestamps_go_back() {
    let folder = tempfile::tempdir().unwrap();
    let broker = open(folder.path());
    let topic: Arc<str> = "t".into();
    for timestamp_ms in [100, 300, 200, 400] {
        let mut records = Records::new();
        let record = NewRecord {
            partition: Some(0),
            timestamp_ms: Some(timestamp_ms),
            ..NewRecord::default()
        };
        records.push(&topic, record);
        broker.topics().produce(records).await.unwrap();
    }
    let place = TopicPartition::new("t", 0);
    for (timestamp, offset) in [(0, 0), (100, 0), (101, 1), (300, 1), (301, 3), (401, 4)] {
        let found = broker.topics().offset_at(&place, timestamp).await.unwrap();
        assert_eq!(found, offset, "{timestamp}");
    }
}

#[tokio::test]
async fn a_deleted_topic_takes_its_events_and_positions_along() {
    let folder = tempfile::tempdir().unwrap();
    let broker = open(folder.path());
    produce(&broker, "t", 0, &["old"]).await;
    let mut session = broker.subscribe(named("t")).unwrap();
    told(&mut session, |e| matches!(e, SourceEvent::Block(_))).await;
    assert!(!broker.topics().positions("g").await.unwrap().is_empty());
    assert!(broker.topics().delete("t").await.unwrap());
    assert!(!broker.topics().delete("t").await.unwrap());
    assert!(broker.topics().positions("g").await.unwrap().is_empty());
    produce(&broker, "t", 0, &["new"]).await;
    assert_eq!(read_all(&broker, "t", 0).await, (0, vec!["new".into()], 1));
    let told = told(&mut session, |e| matches!(e, SourceEvent::Block(_))).await;
    assert!(
        told.contains(&"revoked t/0 lost true".to_owned()),
        "{told:?}"
    );
    assert!(told.contains(&"assigned t/0 0[]".to_owned()), "{told:?}");
    assert_eq!(told.last().unwrap(), "new");
}

#[tokio::test]
async fn compaction_and_a_name_twice_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let broker = open(folder.path());
    let compact = TopicSettings {
        cleanup: Some(Cleanup::Compact),
        ..TopicSettings::default()
    };
    let refused = broker.topics().create("t", &compact).await;
    assert!(matches!(refused, Err(BrokerError::Refused(_))));
    assert!(broker.topics().create("t", &partitions(2)).await.unwrap());
    assert!(!broker.topics().create("t", &partitions(3)).await.unwrap());
}

/// A reader that saw events before their sync would act on what a loss of power takes back.
#[test]
fn nothing_is_visible_before_it_is_durable() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path()).unwrap();
    let catalog = Catalog::default();
    let settings = BTreeMap::new();
    let mut group = Group::new(&catalog, &settings, 1, clock::now_ms());
    group.append(&records("t", 0, &["a", "b"]), false).unwrap();
    let mut batch = store.batch(Durability::Sync);
    let durable = group.write(&store, &mut batch).unwrap();
    assert!(catalog.get("t").is_none());
    batch.commit().unwrap();
    assert!(catalog.get("t").is_none());
    durable.publish(&catalog, |_, _| {});
    let end = catalog.get("t").unwrap().partitions[0].end();
    assert_eq!(end, 2);
}

#[tokio::test]
async fn a_damaged_batch_is_named_and_nothing_of_it_is_read() {
    let folder = tempfile::tempdir().unwrap();
    let broker = open(folder.path());
    produce(&broker, "t", 0, &["a"]).await;
    broker.close().await;
    let store = Store::open(folder.path()).unwrap();
    let (key, value) = store.batches(1, 0, 0).next().unwrap().unwrap();
    let key: BatchKey = key;
    let mut value = value.to_vec();
    *value.last_mut().unwrap() ^= 1;
    store.log.insert(key.encode(), value).unwrap();
    store.sync().unwrap();
    drop(store);
    let broker = open(folder.path());
    let place = TopicPartition::new("t", 0);
    let error = broker
        .topics()
        .read(&place, 0, ALL)
        .await
        .unwrap_err()
        .to_string();
    assert!(error.contains("t/0 offset 0 is damaged"), "{error}");
    let mut session = broker.subscribe(named("t")).unwrap();
    let told = told(&mut session, |e| matches!(e, SourceEvent::Halted { .. })).await;
    assert_eq!(told.last().unwrap(), "halted t/0");
}

#[tokio::test]
async fn a_poisoned_store_says_so_and_writes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let broker = open(folder.path());
    produce(&broker, "t", 0, &["a"]).await;
    assert!(broker.up() && !broker.poisoned());
    broker.shared.poison("test");
    assert!(!broker.up() && broker.poisoned() && *broker.watch_poisoned().borrow());
    let topics: Arc<dyn Topics> = broker.topics();
    let error = topics.produce(records("t", 0, &["b"])).await.unwrap_err();
    assert!(matches!(error, BrokerError::Store(_)), "{error}");
    assert_eq!(read_all(&broker, "t", 0).await.2, 1);
}

#[tokio::test]
async fn a_full_disk_refuses_appends_and_takes_positions() {
    let folder = tempfile::tempdir().unwrap();
    let broker = open(folder.path());
    produce(&broker, "t", 0, &["a"]).await;
    broker.close().await;
    let full = Embedded {
        min_free_disk: u64::MAX,
        ..config(folder.path())
    };
    let broker = EmbeddedBroker::open(&full, &BTreeMap::new()).unwrap();
    let refused = broker.topics().produce(records("t", 0, &["b"])).await;
    assert!(
        matches!(refused, Err(BrokerError::DiskFull(_))),
        "{refused:?}"
    );
    let mut session = broker.subscribe(named("t")).unwrap();
    assert!(
        told(&mut session, is_caught_up)
            .await
            .contains(&"a".to_owned())
    );
    let position = || Commit {
        partition: TopicPartition::new("t", 0),
        progress: Progress::at(1),
    };
    let records = Arc::new(records("t", 0, &["b"]));
    let aborted = session.sink.transact(vec![records], vec![position()]);
    assert!(matches!(aborted.await, Err(TransactError::Aborted(_))));
    assert_eq!(read_all(&broker, "t", 0).await.2, 1);
    let alone = session.sink.transact(Vec::new(), vec![position()]);
    assert!(alone.await.is_ok());
}

#[tokio::test]
async fn a_closed_broker_refuses_and_lets_the_store_go() {
    let folder = tempfile::tempdir().unwrap();
    let broker = open(folder.path());
    let _session = broker.subscribe(named("t")).unwrap();
    broker.close().await;
    let refused = broker.topics().produce(records("t", 0, &["b"])).await;
    assert!(matches!(refused, Err(BrokerError::Store(_))));
    assert!(!broker.up());
    open(folder.path());
}

/// A hundred consumers of a backlog would unpack each event a hundred times; and what is kept must
/// hold nobody in the past.
#[tokio::test]
async fn readers_of_a_backlog_share_its_blocks() {
    let folder = tempfile::tempdir().unwrap();
    let broker = open_with(folder.path(), "t", partitions(1));
    produce(&broker, "t", 0, &["a", "b", "c"]).await;
    broker.close().await;
    let broker = open(folder.path());
    let store = broker.shared.store().unwrap();
    let place = TopicPartition::new("t", 0);
    let partition = broker.shared.catalog.partition(&place).unwrap();
    let recent = &broker.shared.recent;
    let found = |from| reader::read(&store, recent, &partition, from, ALL, &mut None).unwrap();
    let block = |from| match found(from) {
        Found::Events { block, .. } => block,
        Found::End | Found::Lost => panic!("nothing from {from} on"),
    };
    assert!(Arc::ptr_eq(&block(0), &block(0)));
    assert_eq!(values(&block(0)), ["a", "b", "c"]);
    assert_eq!(values(&block(1)), ["b", "c"]);
    partition.publish_start(1);
    assert!(matches!(found(0), Found::Lost));
    drop(store);
    broker.close().await;
}
