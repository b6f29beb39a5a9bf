//! What a subscription is given, and when.

use super::*;
use crate::broker::embedded::fetcher::Fetcher;
use crate::broker::embedded::session::SessionShared;
use crate::broker::{Broker, Commit};
use crate::decide::crash::Watch;
use crate::decide::offsets::Progress;

fn block_of(session: &mut Session) -> impl Future<Output = Vec<String>> + '_ {
    told(session, |e| matches!(e, SourceEvent::Block(_)))
}

#[tokio::test]
async fn a_new_group_gets_positions_then_events_then_the_end() {
    let folder = tempfile::tempdir().unwrap();
    let broker = open_with(folder.path(), "t", partitions(1));
    produce(&broker, "t", 0, &["a", "b"]).await;
    let mut session = broker.subscribe(named("t")).unwrap();
    let start = told(&mut session, is_caught_up).await;
    assert_eq!(start, ["assigned t/0 0[]", "a", "b", "caught up t/0 2"]);
    let place = TopicPartition::new("t", 0);
    assert_eq!(session.control.ends(), [(place.clone(), 2)]);
    let positions = broker.topics().positions("g").await.unwrap();
    assert_eq!(positions, [(place, Progress::at(0))]);
    // Later events reach it from memory.
    produce(&broker, "t", 0, &["c"]).await;
    let later = told(&mut session, is_caught_up).await;
    assert_eq!(later, ["c", "caught up t/0 3"]);
}

#[tokio::test]
async fn a_group_goes_on_where_it_stood_with_its_ranges() {
    let folder = tempfile::tempdir().unwrap();
    let broker = open_with(folder.path(), "t", partitions(1));
    produce(&broker, "t", 0, &["a", "b", "c", "d"]).await;
    let mut session = broker.subscribe(named("t")).unwrap();
    told(&mut session, is_caught_up).await;
    let progress = Progress {
        next: 1,
        above: std::iter::once(2..3).collect(),
        watch: Some(Watch::working(7)),
    };
    let commit = Commit {
        partition: TopicPartition::new("t", 0),
        progress: progress.clone(),
    };
    session.sink.commit(vec![commit.clone()]).await.unwrap();
    let unknown = Commit {
        partition: TopicPartition::new("t", 1),
        ..commit.clone()
    };
    assert!(session.sink.commit(vec![unknown]).await.is_err());
    let Session { source, sink, .. } = session;
    source.close().await;
    assert!(sink.commit(vec![commit.clone()]).await.is_err());
    broker.close().await;
    let broker = open(folder.path());
    let positions = broker.topics().positions("g").await.unwrap();
    assert_eq!(positions, [(commit.partition, progress)]);
    let mut session = broker.subscribe(named("t")).unwrap();
    let again = told(&mut session, is_caught_up).await;
    assert_eq!(
        again,
        ["assigned t/0 1[2..3]", "b", "c", "d", "caught up t/0 4"]
    );
}

/// A consumer that was renamed would begin anew, or repeat what is settled above its position; and one
/// that has come further by itself would be set back by what the old name left.
#[tokio::test]
async fn a_group_goes_on_where_the_first_previous_one_that_has_a_position_stood() {
    let folder = tempfile::tempdir().unwrap();
    let broker = open_with(folder.path(), "t", partitions(2));
    produce(&broker, "t", 0, &["a", "b", "c", "d"]).await;
    produce(&broker, "t", 1, &["x"]).await;
    let progress = Progress {
        next: 1,
        above: std::iter::once(2..3).collect(),
        watch: Some(Watch::working(7)),
    };
    let moved = |progress: &Progress| {
        let commit = Commit {
            partition: TopicPartition::new("t", 0),
            progress: progress.clone(),
        };
        vec![commit]
    };
    let topics = broker.topics();
    topics.set_positions("old", moved(&progress)).await.unwrap();
    let older = moved(&Progress::at(3));
    topics.set_positions("older", older).await.unwrap();
    let subscription = Subscription {
        // What the old name has no position in came later, and is read from its beginning.
        start: Start::End,
        previous_groups: vec!["never".into(), "old".into(), "older".into()],
        ..named("t")
    };
    let mut session = broker.subscribe(subscription.clone()).unwrap();
    let first = told(&mut session, |e| matches!(e, SourceEvent::Assigned(_))).await;
    assert_eq!(first, ["assigned t/0 1[2..3]", "assigned t/1 0[]"]);
    let taken = topics.positions("g").await.unwrap();
    assert_eq!(
        taken[0].1, progress,
        "committed before anything is consumed"
    );
    session.source.close().await;
    topics
        .set_positions("g", moved(&Progress::at(4)))
        .await
        .unwrap();
    let mut session = broker.subscribe(subscription).unwrap();
    let again = told(&mut session, |e| matches!(e, SourceEvent::Assigned(_))).await;
    assert_eq!(again, ["assigned t/0 4[]", "assigned t/1 0[]"]);
}

/// `start` is for what exists when the group is first seen; skipping the first events of a later
/// topic would lose them.
#[tokio::test]
async fn start_counts_for_what_exists_and_later_topics_begin_at_their_beginning() {
    let folder = tempfile::tempdir().unwrap();
    let broker = open_with(folder.path(), "a.1", partitions(1));
    produce(&broker, "a.1", 0, &["old"]).await;
    let pattern = regex::Regex::new("^a\\.").unwrap();
    let subscription = Subscription {
        topics: vec![TopicPattern::Pattern(pattern)],
        excluded: vec!["a.out".into()],
        start: Start::End,
        ..named("")
    };
    let mut session = broker.subscribe(subscription.clone()).unwrap();
    let first = told(&mut session, is_caught_up).await;
    assert_eq!(first, ["assigned a.1/0 1[]", "caught up a.1/0 1"]);
    produce(&broker, "a.out", 0, &["own output"]).await;
    produce(&broker, "b.1", 0, &["other"]).await;
    let topics = broker.topics();
    topics.create("a.2", &partitions(1)).await.unwrap();
    let second = told(&mut session, is_caught_up).await;
    assert_eq!(second, ["assigned a.2/0 0[]", "caught up a.2/0 0"]);
    produce(&broker, "a.2", 0, &["new"]).await;
    assert_eq!(block_of(&mut session).await, ["new"]);
    session.source.close().await;
    // What appeared while the group was away begins at its beginning too.
    topics.create("a.3", &partitions(1)).await.unwrap();
    produce(&broker, "a.3", 0, &["while away"]).await;
    let mut session = broker.subscribe(subscription).unwrap();
    let away = told(
        &mut session,
        |e| matches!(e, SourceEvent::Block(block) if &*block.source().topic == "a.3"),
    );
    assert!(away.await.contains(&"while away".to_owned()));
}

#[tokio::test]
async fn a_group_can_start_at_a_time() {
    let folder = tempfile::tempdir().unwrap();
    let broker = open_with(folder.path(), "t", partitions(1));
    let topic: Arc<str> = "t".into();
    let mut records = Records::new();
    for timestamp_ms in [10, 20, 30] {
        let record = NewRecord {
            timestamp_ms: Some(timestamp_ms),
            ..NewRecord::default()
        };
        records.push(&topic, record);
    }
    broker.topics().produce(records).await.unwrap();
    let subscription = Subscription {
        start: Start::At(15),
        ..named("t")
    };
    let mut session = broker.subscribe(subscription).unwrap();
    let told = told(&mut session, is_caught_up).await;
    assert_eq!(told[0], "assigned t/0 1[]");
}

#[tokio::test]
async fn a_missing_topic_is_waited_for() {
    let folder = tempfile::tempdir().unwrap();
    let broker = open(folder.path());
    let mut session = broker.subscribe(named("later")).unwrap();
    let joined = told(&mut session, |_| true).await;
    assert_eq!(joined, ["assigned nothing"]);
    assert!(broker.topics().list().await.unwrap().is_empty());
    produce(&broker, "later", 3, &["a"]).await;
    assert_eq!(block_of(&mut session).await.last().unwrap(), "a");
}

#[tokio::test]
async fn a_held_partition_waits_and_loses_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let broker = open_with(folder.path(), "t", partitions(2));
    let mut session = broker.subscribe(named("t")).unwrap();
    let caught_up = |e: &SourceEvent| matches!(e, SourceEvent::CaughtUp { partition, .. } if partition.partition == 1);
    told(&mut session, caught_up).await;
    let held = [TopicPartition::new("t", 0)];
    session.control.hold(&held);
    produce(&broker, "t", 0, &["a", "b"]).await;
    produce(&broker, "t", 1, &["x"]).await;
    let meanwhile = told(&mut session, is_caught_up).await;
    assert_eq!(meanwhile, ["x", "caught up t/1 1"]);
    session.control.release(&held);
    let released = told(&mut session, is_caught_up).await;
    assert_eq!(released, ["a", "b", "caught up t/0 2"]);
}

/// The fetch budget is part of the consumer's: more would let a slow plugin's topic into memory.
#[tokio::test]
async fn blocks_stay_within_the_fetch_budget_and_all_arrive() {
    let folder = tempfile::tempdir().unwrap();
    let broker = open_with(folder.path(), "t", partitions(1));
    let many: Vec<String> = (0..20_000).map(|n| format!("{n:0100}")).collect();
    let refs: Vec<&str> = many.iter().map(String::as_str).collect();
    for call in refs.chunks(1_000) {
        produce(&broker, "t", 0, call).await;
    }
    broker.close().await;
    let broker = open(folder.path());
    let subscription = Subscription {
        fetch_events: 500,
        fetch_bytes: 64 << 10,
        ..named("t")
    };
    let mut session = broker.subscribe(subscription).unwrap();
    let mut received = Vec::new();
    while received.len() < many.len() {
        if let SourceEvent::Block(block) = next(&mut session).await {
            assert!(block.len() <= 500 && block.bytes() <= 64 << 10);
            received.extend(values(&block));
        }
    }
    assert_eq!(received, many);
}

/// With room for one block at a time, beginning with the first partition each time would leave the
/// others unread for as long as the first has events.
#[tokio::test]
async fn every_partition_has_its_turn() {
    let folder = tempfile::tempdir().unwrap();
    let broker = open_with(folder.path(), "t", partitions(3));
    for partition in 0..3 {
        for _ in 0..4 {
            produce(&broker, "t", partition, &["x"; 100]).await;
        }
    }
    let subscription = Subscription {
        fetch_events: 100,
        ..named("t")
    };
    let shared = broker.shared.clone();
    // The fetcher is driven by hand: its own thread would race with the one that takes the blocks.
    let order = tokio::task::spawn_blocking(move || {
        let session = Arc::new(SessionShared::new(&subscription));
        let store = shared.store().unwrap();
        let mut fetcher = Fetcher::new(shared, session.clone(), subscription);
        fetcher.assign(&store).unwrap();
        let mut order = Vec::new();
        while order.len() < 9 {
            while fetcher.round(&store) {}
            while let Some(event) = session.outbox.take() {
                if let SourceEvent::Block(block) = event {
                    order.push(block.source().partition);
                }
            }
        }
        order
    });
    assert_eq!(order.await.unwrap(), [0, 1, 2, 0, 1, 2, 0, 1, 2]);
}

#[tokio::test]
async fn a_group_has_one_member() {
    let folder = tempfile::tempdir().unwrap();
    let broker = open(folder.path());
    let first = broker.subscribe(named("t")).unwrap();
    let refused = broker.subscribe(named("t")).err().unwrap();
    assert!(refused.to_string().contains("group g"), "{refused}");
    first.source.close().await;
    assert!(broker.subscribe(named("t")).is_ok());
}

/// Every reader at the end gets the same block from memory.
#[tokio::test]
async fn consumers_at_the_end_share_a_decoded_batch() {
    let folder = tempfile::tempdir().unwrap();
    let broker = open_with(folder.path(), "t", partitions(1));
    let mut one = broker.subscribe(named("t")).unwrap();
    let other = Subscription {
        group: "other".into(),
        ..named("t")
    };
    let mut two = broker.subscribe(other).unwrap();
    told(&mut one, is_caught_up).await;
    told(&mut two, is_caught_up).await;
    let large = "x".repeat(100_000);
    produce(&broker, "t", 0, &[&large, &large]).await;
    let mut blocks = Vec::new();
    for session in [&mut one, &mut two] {
        let SourceEvent::Block(block) = next(session).await else {
            panic!("a block is next");
        };
        blocks.push(block);
    }
    assert_eq!(blocks[0].len(), 2);
    assert!(Arc::ptr_eq(&blocks[0], &blocks[1]));
}
