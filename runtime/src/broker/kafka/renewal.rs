//! A new membership in the place of one that was fenced by itself.
//!
//! ```text
//! session over ─▶ joins anew ─▶ a commit of before is sent at last ─▶ fenced ─▶ new client, joins
//! ```
//! With a static identity (`group.instance.id`, KIP-345) the coordinator takes the member that joins
//! anew for the successor of the old one, and refuses what still comes in the old one's name. librdkafka
//! ends for good then. Another process of the same identity looks alike, but comes without the end of
//! our session; against it we do not fight.

use std::sync::Arc;
use std::time::Duration;

use rdkafka::consumer::Consumer;
use rdkafka::error::RDKafkaErrorCode;
use tokio::time::Instant;

use super::commit::Committer;
use super::member::Member;
use super::poll_thread::{PollThread, queues};
use crate::broker::BrokerError;
use crate::broker::wake::Wake;
use crate::event::TopicPartition;

/// How long after the end of its session a member may be fenced by its own successor.
const BY_ITSELF: Duration = Duration::from_secs(60);
/// How long the old client is waited for by those who use it for a moment.
const IN_USE: Duration = Duration::from_secs(15);
const LOOK: Duration = Duration::from_millis(20);

/// Makes a client for the group, whose topics have so many partitions.
pub(super) type MakeMember = Box<dyn Fn(usize) -> Result<Arc<Member>, BrokerError> + Send>;

/// Whether a member that failed with `code` is to be replaced; its session ended at `lost`.
pub(super) fn replaces(code: RDKafkaErrorCode, lost: Option<Instant>, now: Instant) -> bool {
    code == RDKafkaErrorCode::FencedInstanceId && lost.is_some_and(|lost| now < lost + BY_ITSELF)
}

impl PollThread {
    /// Joins the group with a new client, without what the old one had.
    ///
    /// # Errors
    /// The client cannot be made.
    pub(super) fn renew(&mut self) -> Result<(), BrokerError> {
        tracing::warn!(
            consumer = &*self.subscription.consumer,
            "a late request fenced the membership, the group is joined anew"
        );
        // It keeps the old client alive.
        self.watcher = None;
        let all: Vec<TopicPartition> = self.partitions.keys().cloned().collect();
        self.lose(&all);
        self.turn = None;
        self.lost.clear();
        self.retaken.clear();
        self.committer.end();
        self.committer = Committer::default();
        self.session_lost = None;
        self.replace_member()?;
        self.join();
        Ok(())
    }

    /// Goes on with another client, which has joined nothing.
    ///
    /// # Errors
    /// It cannot be made.
    pub(super) fn replace_member(&mut self) -> Result<(), BrokerError> {
        let member = (self.make_member)(self.partitions_seen)?;
        let (commits, main) = queues(&member, &self.wake)
            .ok_or_else(|| BrokerError::Refused("the Kafka consumer has no queue".to_owned()))?;
        self.commits = commits;
        self.main = main;
        self.ends.close();
        let old = std::mem::replace(&mut self.member, member.clone());
        self.ends.renew(member);
        end(old);
        Ok(())
    }
}

/// Closes a client on a thread of its own: it can take long.
fn end(old: Arc<Member>) {
    old.context().leave();
    let ended = std::thread::Builder::new()
        .name("kafka-in-end".to_owned())
        .spawn(move || {
            // The last reference must not go where it would block others.
            let (deadline, pause) = (Instant::now() + IN_USE, Wake::default());
            while Arc::strong_count(&old) > 1 && Instant::now() < deadline {
                pause.wait(LOOK);
            }
            drop(old);
        });
    if let Err(error) = ended {
        tracing::warn!("ending a Kafka consumer: {error}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A second process of the same identity would be fought for ever; a member that fenced itself
    /// would stand still until a person comes.
    #[test]
    fn only_what_fenced_itself_is_replaced() {
        let now = Instant::now();
        let fenced = RDKafkaErrorCode::FencedInstanceId;
        assert!(replaces(fenced, Some(now), now + BY_ITSELF / 2));
        assert!(!replaces(fenced, Some(now), now + BY_ITSELF));
        assert!(!replaces(fenced, None, now));
        let forbidden = RDKafkaErrorCode::GroupAuthorizationFailed;
        assert!(!replaces(forbidden, Some(now), now));
    }
}
