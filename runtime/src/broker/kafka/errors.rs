//! What librdkafka's error codes mean for the runtime: whose fault, and what to do.

use std::sync::Arc;

use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};

use crate::broker::{BrokerError, CommitError, PublishError};

/// Whose fault it is that a record was not written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// The record's: no broker setting of today takes it.
    Event,
    /// The topic's: nothing is written to it.
    Topic,
    /// Nobody's for good: written again, it may pass.
    Passing,
}

/// Whose fault a failed delivery is.
pub(super) fn fault(code: Code) -> Fault {
    match code {
        Code::MessageSizeTooLarge
        | Code::InvalidMessageSize
        | Code::MessageBatchTooLarge
        | Code::InvalidRecord
        | Code::InvalidTimestamp
        | Code::InvalidMessage
        | Code::UnknownPartition => Fault::Event,
        Code::UnknownTopic
        | Code::UnknownTopicOrPartition
        | Code::InvalidTopic
        | Code::TopicAuthorizationFailed
        | Code::PolicyViolation => Fault::Topic,
        _ => Fault::Passing,
    }
}

/// The error of a publication whose record at `index` failed with `code`.
pub(super) fn publish_error(index: usize, topic: &Arc<str>, code: Code) -> PublishError {
    match fault(code) {
        Fault::Event => PublishError::Event {
            index,
            topic: topic.clone(),
            reason: code.to_string(),
        },
        Fault::Topic => PublishError::Topic {
            index,
            topic: topic.clone(),
            reason: code.to_string(),
        },
        Fault::Passing => PublishError::Passing(format!("topic {topic}: {code}")),
    }
}

/// The error of a commit that the coordinator refused with `code`.
pub(super) fn commit_error(code: Code) -> CommitError {
    match code {
        Code::UnknownMemberId
        | Code::IllegalGeneration
        | Code::FencedInstanceId
        | Code::FencedMemberEpoch => CommitError::Fenced(code.to_string()),
        _ => CommitError::Passing(code.to_string()),
    }
}

/// Whether the broker refuses this membership for good, so that waiting is no remedy.
pub(super) fn refuses_membership(code: Code) -> bool {
    matches!(
        code,
        Code::TopicAuthorizationFailed
            | Code::GroupAuthorizationFailed
            | Code::ClusterAuthorizationFailed
            | Code::FencedInstanceId
            | Code::InvalidTopic
            | Code::InvalidGroupId
            | Code::InconsistentGroupProtocol
            | Code::UnsupportedVersion
    )
}

/// What a failed request for `what` tells the caller.
pub(super) fn broker_error(what: &str, error: &KafkaError) -> BrokerError {
    match error {
        KafkaError::ClientConfig(_, description, key, value) => BrokerError::Refused(format!(
            "[broker.properties] {key}{}: {description}",
            if value.is_empty() {
                ""
            } else {
                " has a value that librdkafka does not take"
            },
        )),
        KafkaError::ClientCreation(text) => {
            BrokerError::Refused(format!("[broker.properties]: {text}"))
        }
        other => match other.rdkafka_error_code() {
            Some(code) => code_error(what, code),
            None => BrokerError::Refused(format!("{what}: {other}")),
        },
    }
}

/// As [`broker_error`], from the code alone.
pub(super) fn code_error(what: &str, code: Code) -> BrokerError {
    match code {
        Code::UnknownTopic
        | Code::UnknownTopicOrPartition
        | Code::UnknownPartition
        | Code::InvalidTopic => BrokerError::UnknownTopic(what.to_owned()),
        Code::BrokerTransportFailure
        | Code::AllBrokersDown
        | Code::OperationTimedOut
        | Code::RequestTimedOut
        | Code::WaitingForCoordinator
        | Code::CoordinatorNotAvailable
        | Code::CoordinatorLoadInProgress
        | Code::NotCoordinator
        | Code::Resolve
        | Code::LeaderNotAvailable
        | Code::NotLeaderForPartition
        | Code::Authentication
        | Code::SaslAuthenticationFailed
        | Code::NetworkException => BrokerError::Unreachable(format!("{what}: {code}")),
        other => BrokerError::Refused(format!("{what}: the broker says {other}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A record that is blamed on nobody would be written again for ever and hold its partition.
    #[test]
    fn a_record_too_large_is_the_events_fault() {
        let topic: Arc<str> = "orders".into();
        assert!(matches!(
            publish_error(3, &topic, Code::MessageSizeTooLarge),
            PublishError::Event { index: 3, .. }
        ));
    }

    /// Blaming an outage on the event would send good events to the dead letters.
    #[test]
    fn an_outage_is_nobodys_fault() {
        for code in [
            Code::BrokerTransportFailure,
            Code::MessageTimedOut,
            Code::NotEnoughReplicas,
            Code::PurgeQueue,
            Code::Fatal,
        ] {
            assert_eq!(fault(code), Fault::Passing, "{code:?}");
        }
    }

    /// A value is never quoted: it may be a secret.
    #[test]
    fn a_refused_property_shows_no_value() {
        let error = KafkaError::ClientConfig(
            rdkafka::types::RDKafkaConfRes::RD_KAFKA_CONF_INVALID,
            "Invalid value".into(),
            "sasl.password".into(),
            "hunter2".into(),
        );
        let text = broker_error("connect", &error).to_string();
        assert!(
            text.contains("sasl.password") && !text.contains("hunter2"),
            "{text}"
        );
    }

    /// A fenced member that takes the failure for a passing one would commit for another's work.
    #[test]
    fn a_member_that_the_group_forgot_is_fenced() {
        assert!(matches!(
            commit_error(Code::IllegalGeneration),
            CommitError::Fenced(_)
        ));
        assert!(matches!(
            commit_error(Code::RebalanceInProgress),
            CommitError::Passing(_)
        ));
    }
}
