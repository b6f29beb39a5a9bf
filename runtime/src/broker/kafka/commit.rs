//! Commits of a member, one request at a time.
//!
//! Two requests under way could be retried past one another, and the older would take the position
//! back. So what arrives meanwhile is merged, the newest position of a partition winning, and sent
//! when the answer is there.
//!
//! A request that was on its way when its connection broke can still arrive, after its repetition
//! and what followed, and librdkafka does not tell of each such connection. So once there is nothing
//! new to commit the newest positions are sent again a few times.

use std::collections::HashMap;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::Instant;

use rdkafka::error::RDKafkaErrorCode;

use super::errors::commit_error;
use super::raw::CommitReport;
use crate::broker::{Commit, CommitError};
use crate::decide::offsets::Progress;
use crate::event::TopicPartition;

/// How long after the last new position the positions are sent again: a request that is later than
/// the last of these takes a position back until the next commit of its partition.
const AGAIN_AFTER: [Duration; 4] = [
    Duration::from_secs(3),
    Duration::from_secs(10),
    Duration::from_secs(30),
    Duration::from_secs(60),
];

/// Who waits for a commit.
pub(super) type Reply = oneshot::Sender<Result<(), CommitError>>;

/// The commits of one member.
#[derive(Default)]
pub(super) struct Committer {
    waiting: HashMap<TopicPartition, Progress>,
    waiters: Vec<Reply>,
    under_way: Option<UnderWay>,
    last_id: usize,
    /// The newest position of each partition that was sent.
    sent: HashMap<TopicPartition, Progress>,
    /// Whether a position came since [`Self::send_again`] looked last.
    fresh: bool,
    /// Since when there is no new position, and how often the positions were sent again since.
    rests: Option<(Instant, usize)>,
}

struct UnderWay {
    id: usize,
    partitions: Vec<TopicPartition>,
    waiters: Vec<Reply>,
}

impl Committer {
    /// Takes new positions. Those of partitions that are not `owned` are left out, and the caller
    /// hears of it.
    pub(super) fn add(
        &mut self,
        commits: Vec<Commit>,
        reply: Reply,
        owned: impl Fn(&TopicPartition) -> bool,
    ) {
        let mut foreign = Vec::new();
        for commit in commits {
            if owned(&commit.partition) {
                self.waiting.insert(commit.partition, commit.progress);
                self.fresh = true;
            } else {
                foreign.push(commit.partition.to_string());
            }
        }
        if foreign.is_empty() {
            self.waiters.push(reply);
        } else {
            // Nobody may listen any more.
            let _ = reply.send(Err(CommitError::Fenced(format!(
                "{} no longer belongs to this member",
                foreign.join(", ")
            ))));
        }
    }

    /// What to send now under which number, if anything.
    pub(super) fn next(&mut self) -> Option<(usize, Vec<Commit>)> {
        if self.under_way.is_some() {
            return None;
        }
        if self.waiting.is_empty() {
            for waiter in self.waiters.drain(..) {
                let _ = waiter.send(Ok(()));
            }
            return None;
        }
        self.last_id += 1;
        self.under_way = Some(UnderWay {
            id: self.last_id,
            partitions: self.waiting.keys().cloned().collect(),
            waiters: std::mem::take(&mut self.waiters),
        });
        let commits = self
            .waiting
            .drain()
            .map(|(partition, progress)| Commit {
                partition,
                progress,
            })
            .collect::<Vec<_>>();
        for commit in &commits {
            (self.sent).insert(commit.partition.clone(), commit.progress.clone());
        }
        Some((self.last_id, commits))
    }

    /// Has the positions sent again where a request that was lost from sight may have arrived.
    pub(super) fn send_again(&mut self, now: Instant) {
        if std::mem::take(&mut self.fresh) {
            self.rests = Some((now, 0));
        }
        let Some((since, times)) = self.rests else {
            return;
        };
        if now < since + AGAIN_AFTER[times] {
            return;
        }
        self.rests = (times + 1 < AGAIN_AFTER.len()).then_some((since, times + 1));
        for (partition, progress) in &self.sent {
            (self.waiting.entry(partition.clone())).or_insert_with(|| progress.clone());
        }
    }

    /// Takes the answer to a request.
    pub(super) fn report(&mut self, report: &CommitReport) {
        self.finish(report.id, report.error);
    }

    /// The request with this number ended so.
    pub(super) fn finish(&mut self, id: usize, error: Option<RDKafkaErrorCode>) {
        if self.under_way.as_ref().is_none_or(|sent| sent.id != id) {
            return;
        }
        let Some(sent) = self.under_way.take() else {
            return;
        };
        // `_NO_OFFSET` says that every position was committed before.
        let error = error.filter(|code| *code != RDKafkaErrorCode::NoOffset);
        for waiter in sent.waiters {
            let _ = waiter.send(error.map_or(Ok(()), |code| Err(commit_error(code))));
        }
    }

    /// Whether nothing of these partitions is under way or waits. Others do not count: at most once
    /// they are committed again and again, and a revoke would wait for a moment when none is.
    pub(super) fn is_done_with(&self, partitions: &[TopicPartition]) -> bool {
        let under_way = self.under_way.iter().flat_map(|sent| &sent.partitions);
        let mut open = under_way.chain(self.waiting.keys());
        !open.any(|partition| partitions.contains(partition))
    }

    /// Drops what waits for these partitions; its callers hear that the group has moved on.
    pub(super) fn forget(&mut self, partitions: &[TopicPartition]) {
        let before = self.waiting.len();
        for partition in partitions {
            self.waiting.remove(partition);
            self.sent.remove(partition);
        }
        if self.waiting.len() < before {
            for waiter in self.waiters.drain(..) {
                let _ = waiter.send(Err(CommitError::Fenced(
                    "the partitions were given up before their positions were sent".to_owned(),
                )));
            }
        }
    }

    /// Fails everything: the member leaves.
    pub(super) fn end(&mut self) {
        self.waiting.clear();
        self.sent.clear();
        let under_way = self.under_way.take().map(|sent| sent.waiters);
        for waiter in self
            .waiters
            .drain(..)
            .chain(under_way.into_iter().flatten())
        {
            let _ = waiter.send(Err(CommitError::Fenced("the member has left".to_owned())));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn commit(next: u64) -> Vec<Commit> {
        vec![Commit {
            partition: TopicPartition::new("orders", 0),
            progress: Progress::at(next),
        }]
    }

    /// Two requests on their way may arrive in either order, and the position would go back.
    #[test]
    fn a_second_request_waits_for_the_first_and_carries_the_newest_position() {
        let mut committer = Committer::default();
        let (first, mut first_answer) = oneshot::channel();
        let (second, mut second_answer) = oneshot::channel();
        let (third, mut third_answer) = oneshot::channel();
        committer.add(commit(1), first, |_| true);
        let (id, sent) = committer.next().expect("a request");
        assert_eq!(sent, commit(1));
        committer.add(commit(2), second, |_| true);
        committer.add(commit(3), third, |_| true);
        assert!(committer.next().is_none());
        committer.finish(id, None);
        assert!(matches!(first_answer.try_recv(), Ok(Ok(()))));
        assert!(second_answer.try_recv().is_err());
        let (id, sent) = committer.next().expect("a request");
        assert_eq!(sent, commit(3));
        committer.finish(id, None);
        assert!(matches!(second_answer.try_recv(), Ok(Ok(()))));
        assert!(matches!(third_answer.try_recv(), Ok(Ok(()))));
        assert!(committer.is_done_with(&[TopicPartition::new("orders", 0)]));
    }

    /// Where commits of other partitions follow one upon another a revoke would wait for long, and
    /// where one of its own is on its way another member could start before it.
    #[test]
    fn a_revoke_waits_for_the_commits_of_its_own_partitions_alone() {
        let mut committer = Committer::default();
        let ours = [TopicPartition::new("orders", 0)];
        let others = [TopicPartition::new("orders", 1)];
        committer.add(commit(1), oneshot::channel().0, |_| true);
        assert!(!committer.is_done_with(&ours));
        let (id, _) = committer.next().expect("a request");
        assert!(!committer.is_done_with(&ours));
        assert!(committer.is_done_with(&others));
        committer.finish(id, None);
        assert!(committer.is_done_with(&ours));
    }

    /// A position of a partition that another member owns by now would overwrite that member's.
    #[test]
    fn a_partition_that_is_not_ours_is_never_committed() {
        let mut committer = Committer::default();
        let (reply, mut answer) = oneshot::channel();
        committer.add(commit(1), reply, |_| false);
        assert!(matches!(answer.try_recv(), Ok(Err(CommitError::Fenced(_)))));
        assert!(committer.next().is_none());
    }

    #[test]
    fn what_waits_for_a_partition_given_up_is_not_sent() {
        let mut committer = Committer::default();
        let (reply, mut answer) = oneshot::channel();
        committer.add(commit(1), reply, |_| true);
        committer.forget(&[TopicPartition::new("orders", 0)]);
        assert!(matches!(answer.try_recv(), Ok(Err(CommitError::Fenced(_)))));
        assert!(committer.next().is_none());
    }

    /// A request of a connection that broke may arrive behind all others and take the position back;
    /// that of a partition given up belongs to its new owner.
    #[test]
    fn the_newest_positions_are_sent_again_while_there_are_no_new_ones_and_then_no_more() {
        let mut committer = Committer::default();
        let start = Instant::now();
        let send = |committer: &mut Committer, commits: Vec<Commit>| {
            committer.add(commits, oneshot::channel().0, |_| true);
            let (id, _) = committer.next().expect("a request");
            committer.finish(id, None);
        };
        committer.send_again(start);
        assert!(committer.next().is_none(), "nothing was committed");
        let mut other = commit(7);
        other[0].partition = TopicPartition::new("orders", 1);
        send(&mut committer, commit(1));
        send(&mut committer, commit(2));
        send(&mut committer, other.clone());
        committer.send_again(start);
        committer.send_again(start + AGAIN_AFTER[0] - Duration::from_millis(1));
        assert!(committer.next().is_none(), "too early");
        committer.forget(&[other[0].partition.clone()]);
        for after in AGAIN_AFTER {
            committer.send_again(start + after);
            let (id, sent) = committer.next().expect("a request");
            assert_eq!(sent, commit(2));
            committer.finish(id, None);
            assert!(committer.next().is_none());
        }
        committer.send_again(start + 10 * AGAIN_AFTER[3]);
        assert!(committer.next().is_none(), "it goes on for ever");
    }

    /// An answer that came late must not be taken for the next request's.
    #[test]
    fn an_answer_to_another_request_is_ignored() {
        let mut committer = Committer::default();
        let (reply, mut answer) = oneshot::channel();
        committer.add(commit(1), reply, |_| true);
        let (id, _) = committer.next().expect("a request");
        committer.finish(id + 1, None);
        assert!(answer.try_recv().is_err());
        committer.finish(id, Some(RDKafkaErrorCode::RebalanceInProgress));
        assert!(matches!(
            answer.try_recv(),
            Ok(Err(CommitError::Passing(_)))
        ));
    }
}
