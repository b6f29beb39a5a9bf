//! Partitions that come and go.

use std::collections::BTreeMap;
use std::time::Duration;

use millstream::broker::{Broker, Commit, CommitError};
use millstream::decide::offsets::Progress;
use millstream::event::TopicPartition;
use millstream_test_support::kafka;
use tokio::time::Instant;

use crate::member::{Member, PATIENCE, broker, numbered, subscription, unique};

/// Listens for a moment and commits all that was seen, as a consumer without work to do would.
async fn settle(member: &mut Member) {
    member.listen(Duration::from_millis(50)).await;
    let commits: Vec<Commit> = member
        .next
        .iter()
        .map(|(partition, next)| Commit {
            partition: partition.clone(),
            progress: Progress::at(*next),
        })
        .collect();
    if !commits.is_empty() {
        // A rebalance under way may refuse it; the next one carries the position then.
        let _ = member.sink.commit(commits).await;
    }
}

/// Two members come and go while events flow: nothing is lost, and no partition falls silent after
/// it has come back, which is what split queues of librdkafka are known for.
#[tokio::test(flavor = "multi_thread")]
async fn partitions_move_between_members_and_none_falls_silent() {
    let Some(kafka) = kafka::shared() else { return };
    const PARTITIONS: u32 = 6;
    const ROUNDS: u64 = 4;
    let (topic, group) = (unique("moving"), unique("group"));
    kafka.create_topic(&topic, PARTITIONS).unwrap();
    let broker = broker(kafka.bootstrap());
    let mut first = Member::join(&broker, subscription(&group, &[&topic]));
    first
        .until("all partitions", |m| m.owned.len() == PARTITIONS as usize)
        .await;
    let mut all_seen = Vec::new();
    for round in 0..ROUNDS {
        let mut second = Member::join(&broker, subscription(&group, &[&topic]));
        let deadline = Instant::now() + PATIENCE;
        while second.owned.len() != 3 || first.owned.len() != 3 {
            settle(&mut first).await;
            settle(&mut second).await;
            assert!(Instant::now() < deadline, "the partitions were not shared");
        }
        for partition in 0..PARTITIONS {
            let records = numbered(&topic, Some(partition), round * 100, 100);
            broker.topics().produce(records).await.unwrap();
        }
        let wanted = (round + 1) as usize * 100 * PARTITIONS as usize;
        while distinct(&[&all_seen, &first.seen, &second.seen]) < wanted {
            settle(&mut first).await;
            settle(&mut second).await;
            assert!(
                Instant::now() < deadline,
                "a partition fell silent in round {round}: the first has {:?}, the second {:?}, \
                 missing are {:?}",
                first.next,
                second.next,
                missing(&[&all_seen, &first.seen, &second.seen], (round + 1) * 100)
            );
        }
        settle(&mut second).await;
        all_seen.append(&mut second.seen);
        second.leave().await;
        while first.owned.len() != PARTITIONS as usize {
            settle(&mut first).await;
            assert!(
                Instant::now() < deadline,
                "the partitions did not come back"
            );
        }
    }
    all_seen.append(&mut first.seen);
    first.leave().await;
    // All was committed before each move, so nothing came twice.
    let total = ROUNDS as usize * 100 * PARTITIONS as usize;
    assert_eq!(distinct(&[&all_seen]), total);
    assert_eq!(
        all_seen.len(),
        total,
        "events were repeated though committed"
    );
}

/// The numbers below `end` that no list has, by partition.
fn missing(lists: &[&Vec<crate::member::Seen>], end: u64) -> BTreeMap<u32, Vec<u64>> {
    let mut found: BTreeMap<u32, Vec<u64>> = BTreeMap::new();
    for seen in lists.iter().flat_map(|list| list.iter()) {
        found
            .entry(seen.partition.partition)
            .or_default()
            .push(seen.offset);
    }
    for offsets in found.values_mut() {
        *offsets = (0..end)
            .filter(|offset| !offsets.contains(offset))
            .collect();
    }
    found
}

fn distinct(lists: &[&Vec<crate::member::Seen>]) -> usize {
    let mut all: Vec<_> = lists
        .iter()
        .flat_map(|list| {
            list.iter()
                .map(|seen| (seen.partition.clone(), seen.offset))
        })
        .collect();
    all.sort_unstable();
    all.dedup();
    all.len()
}

/// A partition that is let go before its events are settled is processed twice.
#[tokio::test(flavor = "multi_thread")]
async fn a_revocation_waits_for_the_runtime_and_its_last_commit() {
    let Some(kafka) = kafka::shared() else { return };
    let (topic, group) = (unique("revoke"), unique("group"));
    kafka.create_topic(&topic, 2).unwrap();
    let broker = broker(kafka.bootstrap());
    for partition in 0..2 {
        let records = numbered(&topic, Some(partition), 0, 10);
        broker.topics().produce(records).await.unwrap();
    }
    let mut first = Member::join(&broker, subscription(&group, &[&topic]));
    first.until("all events", |m| m.seen.len() == 20).await;
    first.answers = false;
    let mut second = Member::join(&broker, subscription(&group, &[&topic]));
    first
        .until("the revocation", |m| !m.revoked.is_empty())
        .await;
    second.listen(Duration::from_secs(1)).await;
    assert!(second.owned.is_empty(), "taken before it was given up");
    let (partitions, done) = first.revoked.remove(0);
    assert_eq!(partitions.len(), 1);
    // Still ours to commit.
    first.commit(&partitions[0], Progress::at(7)).await;
    done.send(()).unwrap();
    second.until("the partition", |m| m.owned.len() == 1).await;
    assert_eq!(second.owned[&partitions[0]], Progress::at(7));
    second.until("the rest", |m| m.seen.len() == 3).await;
    // And now no more.
    let late = Commit {
        partition: partitions[0].clone(),
        progress: Progress::at(9),
    };
    assert!(matches!(
        first.sink.commit(vec![late]).await,
        Err(CommitError::Fenced(_))
    ));
    first.leave().await;
    second.leave().await;
}

/// A runtime that never answers must not hold the group for ever.
#[tokio::test(flavor = "multi_thread")]
async fn a_revocation_that_is_not_answered_goes_through_in_the_end() {
    let Some(kafka) = kafka::shared() else { return };
    let (topic, group) = (unique("silent"), unique("group"));
    kafka.create_topic(&topic, 2).unwrap();
    let broker = broker(kafka.bootstrap());
    let mut first = Member::join(&broker, subscription(&group, &[&topic]));
    first.until("all partitions", |m| m.owned.len() == 2).await;
    first.answers = false;
    let mut second = Member::join(&broker, subscription(&group, &[&topic]));
    first
        .until("the revocation", |m| !m.revoked.is_empty())
        .await;
    second.until("its share", |m| m.owned.len() == 1).await;
    first.leave().await;
    second.leave().await;
}

/// A static member that restarts takes its partitions up again without a rebalance of the others.
#[tokio::test(flavor = "multi_thread")]
async fn a_static_member_comes_back_to_its_partitions() {
    let Some(kafka) = kafka::shared() else { return };
    let (topic, group) = (unique("static"), unique("group"));
    kafka.create_topic(&topic, 2).unwrap();
    let named = crate::member::broker_with(kafka.bootstrap(), &[], Some("one"));
    let mut member = Member::join(&named, subscription(&group, &[&topic]));
    member.until("all partitions", |m| m.owned.len() == 2).await;
    member.leave().await;
    let mut again = Member::join(&named, subscription(&group, &[&topic]));
    again.until("them again", |m| m.owned.len() == 2).await;
    named
        .topics()
        .produce(numbered(&topic, Some(1), 0, 5))
        .await
        .unwrap();
    let partition = TopicPartition::new(topic.as_str(), 1);
    again
        .until("events", |m| m.values(&partition).len() == 5)
        .await;
    again.leave().await;
}
