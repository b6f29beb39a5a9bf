//! The first start of a group: its start position is committed before anyone joins.
//!
//! Two runtimes may start at once, and one must never set back what the other has done. So the
//! start is committed as by no member: Kafka takes that for an empty group alone. Whoever joins
//! afterwards finds a position; partitions that appear later have none and start at their beginning.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use rdkafka::consumer::Consumer;
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};

use super::member::Member;
use super::positions::{bounds, committed, starts};
use super::raw::{self, Queue};
use super::watch;
use crate::broker::{Commit, Subscription};
use crate::decide::offsets::Progress;
use crate::event::TopicPartition;

/// How a group was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// It has positions, by now at least.
    Known,
    /// It has none, but members of another program: `start` applies when partitions come.
    Occupied,
}

/// Commits the start of a new group for all partitions that exist. Blocks for a few times `wait`.
///
/// # Errors
/// Where the broker does not answer; again later.
pub(super) fn settle(
    member: &Arc<Member>,
    subscription: &Subscription,
    answers: &Queue,
    wait: Duration,
) -> KafkaResult<Found> {
    let wait_ms = i32::try_from(wait.as_millis()).unwrap_or(i32::MAX);
    let partitions = partitions_of(member, subscription, wait)?;
    // Not the admin client's question for all positions of a group: where the coordinator is out
    // of reach, librdkafka can abort the process over it.
    if partitions.is_empty() || !committed(&**member, &partitions, wait)?.is_empty() {
        return Ok(Found::Known);
    }
    let bounds = bounds(member, &partitions, wait)?;
    let starts = starts(member, &bounds, subscription.start, wait)?;
    match commit(member, &starts, answers, wait_ms) {
        Ok(()) => Ok(Found::Known),
        Err(
            RDKafkaErrorCode::UnknownMemberId
            | RDKafkaErrorCode::IllegalGeneration
            | RDKafkaErrorCode::FencedInstanceId
            | RDKafkaErrorCode::RebalanceInProgress,
        ) => Ok(Found::Occupied),
        Err(code) => Err(KafkaError::ConsumerCommit(code)),
    }
}

fn partitions_of(
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

fn commit(
    member: &Arc<Member>,
    starts: &HashMap<TopicPartition, u64>,
    answers: &Queue,
    wait_ms: i32,
) -> Result<(), RDKafkaErrorCode> {
    let commits: Vec<Commit> = starts
        .iter()
        .map(|(partition, offset)| Commit {
            partition: partition.clone(),
            progress: Progress::at(*offset),
        })
        .collect();
    let list = raw::offsets_to_commit(commits.iter());
    // No member's commit has this number, so an answer that comes too late disturbs none.
    raw::send_commit(member.client(), &list, answers, usize::MAX)?;
    let report = answers
        .commit_report(wait_ms.saturating_mul(2))
        .ok_or(RDKafkaErrorCode::OperationTimedOut)?;
    report.error.map_or(Ok(()), Err)
}
