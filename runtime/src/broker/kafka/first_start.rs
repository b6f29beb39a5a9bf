//! The first start of a group: its start position is committed before anyone joins. Where the consumer
//! had another name before, that is the position that its group left.
//!
//! Two runtimes may start at once, and one must never set back what the other has done. So the
//! start is committed as by no member: Kafka takes that for an empty group alone. Whoever joins
//! afterwards finds a position; partitions that appear later have none and start at their beginning.

use std::sync::Arc;
use std::time::Duration;

use rdkafka::consumer::Consumer;
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};

use super::member::Member;
use super::positions::{bounds, committed, starts};
use super::predecessors::{Left, Predecessors};
use super::raw::{self, Queue};
use super::watch;
use crate::broker::{Commit, Subscription};
use crate::decide::offsets::Progress;
use crate::event::TopicPartition;

/// How a group was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// It has positions, by now at least.
    Known,
    /// It has none, but members of another program: `start` applies when partitions come.
    Occupied,
    /// Others are at work in the group that it takes over from: again later.
    InUse { group: Arc<str>, members: usize },
}

/// Commits the start of a new group for these partitions, all that exist. Blocks for a few times `wait`.
///
/// # Errors
/// Where the broker does not answer; again later.
pub(super) fn settle(
    member: &Arc<Member>,
    subscription: &Subscription,
    partitions: &[TopicPartition],
    predecessors: &Predecessors,
    answers: &Queue,
    wait: Duration,
) -> KafkaResult<Found> {
    if partitions.is_empty() {
        return Ok(Found::Known);
    }
    // Not the admin client's question for all positions of a group: where the coordinator is out
    // of reach, librdkafka can abort the process over it.
    let known = committed(&**member, partitions, wait)?;
    let mut missing = partitions.to_vec();
    missing.retain(|partition| !known.contains_key(partition));
    if !missing.is_empty() {
        match predecessors.left(&missing, wait)? {
            Left::Nothing => {}
            Left::InUse { group, members } => return Ok(Found::InUse { group, members }),
            Left::Positions { group, positions } => {
                let count = positions.len();
                let taken = commit(member, positions, answers, wait)?;
                // Another runtime may have been first, and is at work: then they are there.
                if !taken {
                    return Err(KafkaError::ConsumerCommit(
                        RDKafkaErrorCode::RebalanceInProgress,
                    ));
                }
                tracing::info!(
                    consumer = &*subscription.consumer,
                    group = &*subscription.group,
                    from = &*group,
                    partitions = count,
                    "the positions of the consumer under its name before are carried over"
                );
                return Ok(Found::Known);
            }
        }
    }
    if !known.is_empty() {
        return Ok(Found::Known);
    }
    let bounds = bounds(member, partitions, wait)?;
    let starts = starts(member, &bounds, subscription.start, wait)?;
    let starts = starts
        .into_iter()
        .map(|(partition, offset)| (partition, Progress::at(offset)));
    Ok(match commit(member, starts, answers, wait)? {
        true => Found::Known,
        false => Found::Occupied,
    })
}

/// The partitions of the subscription that exist. Blocks.
///
/// # Errors
/// Where the broker does not answer; again later.
pub(super) fn partitions_of(
    member: &Arc<Member>,
    subscription: &Subscription,
    wait: Duration,
) -> KafkaResult<Vec<TopicPartition>> {
    let mut partitions = Vec::new();
    for (topic, count) in watch::existing(member, subscription, wait)? {
        partitions.extend((0..count).map(|number| TopicPartition::new(topic.clone(), number)));
    }
    Ok(partitions)
}

/// Commits as by no member; false where the group has some.
fn commit(
    member: &Arc<Member>,
    positions: impl IntoIterator<Item = (TopicPartition, Progress)>,
    answers: &Queue,
    wait: Duration,
) -> KafkaResult<bool> {
    let commits = positions.into_iter().map(|(partition, progress)| Commit {
        partition,
        progress,
    });
    let commits: Vec<Commit> = commits.collect();
    let list = raw::offsets_to_commit(commits.iter());
    // No member's commit has this number, so an answer that comes too late disturbs none.
    raw::send_commit(member.client(), &list, answers, usize::MAX)
        .map_err(KafkaError::ConsumerCommit)?;
    let wait_ms = i32::try_from(wait.as_millis()).unwrap_or(i32::MAX);
    let report = answers.commit_report(wait_ms.saturating_mul(2));
    let report = report.ok_or(KafkaError::ConsumerCommit(
        RDKafkaErrorCode::OperationTimedOut,
    ))?;
    match report.error {
        None => Ok(true),
        Some(
            RDKafkaErrorCode::UnknownMemberId
            | RDKafkaErrorCode::IllegalGeneration
            | RDKafkaErrorCode::FencedInstanceId
            | RDKafkaErrorCode::RebalanceInProgress,
        ) => Ok(false),
        Some(code) => Err(KafkaError::ConsumerCommit(code)),
    }
}
