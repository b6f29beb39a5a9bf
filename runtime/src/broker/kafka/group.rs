//! Positions of a group that is moved from outside, by nobody's member.

use std::sync::Arc;

use rdkafka::consumer::Consumer;
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};

use super::client::{Listener, Settings};
use super::errors::{broker_error, code_error};
use super::member::{Member, MemberContext, keep};
use super::raw::{self, Queue};
use super::reader::WAIT;
use crate::broker::{BrokerError, Commit};

/// Commits positions as no member does, which Kafka takes for an empty group alone. Blocks.
///
/// # Errors
/// `Refused` where the group has members; `Unreachable` where its coordinator does not answer.
pub(super) fn set_positions(
    settings: &Settings,
    listener: Listener,
    group: &str,
    commits: &[Commit],
) -> Result<(), BrokerError> {
    let mut config = settings.reader();
    config.set("group.id", group);
    let client: Arc<Member> = config
        .create_with_context(MemberContext::new(listener))
        .map(Arc::new)
        .map_err(|error: KafkaError| broker_error("the Kafka client", &error))?;
    let what = format!("moving the positions of group {group}");
    let queue = Queue::new(client.client(), keep(&client));
    let answers = queue.ok_or_else(|| BrokerError::Refused(format!("{what}: no queue")))?;
    let list = raw::offsets_to_commit(commits.iter());
    let failed = |code: Code| match code {
        Code::UnknownMemberId
        | Code::IllegalGeneration
        | Code::FencedInstanceId
        | Code::RebalanceInProgress => BrokerError::Refused(format!(
            "group {group} has members, which would not hear of it: ask the runtime that reads \
             the partition, or stop them all (one that was killed is missed after its session \
             time-out)"
        )),
        code => code_error(&what, code),
    };
    raw::send_commit(client.client(), &list, &answers, 0).map_err(failed)?;
    let wait_ms = i32::try_from(WAIT.as_millis()).unwrap_or(i32::MAX);
    let report = answers
        .commit_report(wait_ms)
        .ok_or_else(|| failed(Code::OperationTimedOut))?;
    report.error.map_or(Ok(()), |code| Err(failed(code)))
}
