//! Where a consumer stands in each of its partitions, and the commits of it.
//!
//! At least once: an offset is settled here only after everything that follows from its event is
//! acknowledged, so a committed position never claims an unsettled event (I4).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use tokio::time::Instant;

use super::unit::Unit;
use super::work::Work;
use crate::broker::{Commit, CommitError, Sink};
use crate::config::CommitCadence;
use crate::decide::crash::Watch;
use crate::decide::offsets::{Progress, Tracker};
use crate::decide::position_codec::{ADMISSION_LIMIT, encode_above};
use crate::event::TopicPartition;
use crate::mutation::{self, Mutation};

/// A commit that ended.
#[derive(Debug)]
pub struct Committed {
    pub result: Result<(), CommitError>,
    pub took: Duration,
}

struct Committing {
    future: BoxFuture<'static, Result<(), CommitError>>,
    begun: Instant,
    commits: Vec<Commit>,
    /// Events settled between the commit before and this one.
    events: usize,
}

struct Tracked {
    assignment: u64,
    tracker: Tracker,
    /// What is to be committed with the position.
    watch: Option<Watch>,
    committed: Progress,
}

impl Tracked {
    fn progress(&self) -> Progress {
        Progress {
            watch: self.watch,
            ..self.tracker.progress()
        }
    }
}

/// See the module.
pub struct Positions {
    sink: Arc<dyn Sink>,
    cadence: CommitCadence,
    tracked: BTreeMap<TopicPartition, Tracked>,
    committing: Option<Committing>,
    /// Events settled since the last commit began.
    uncommitted: usize,
    /// When positions that moved are committed.
    commit_at: Option<Instant>,
}

impl Positions {
    /// No partitions yet.
    pub fn new(sink: Arc<dyn Sink>, cadence: CommitCadence) -> Self {
        Self {
            sink,
            cadence,
            tracked: BTreeMap::new(),
            committing: None,
            uncommitted: 0,
            commit_at: None,
        }
    }

    /// A partition is ours from now on, under this watch.
    pub fn assigned(
        &mut self,
        partition: &TopicPartition,
        assignment: u64,
        progress: &Progress,
        watch: Option<Watch>,
    ) {
        let tracked = Tracked {
            assignment,
            tracker: Tracker::new(progress),
            watch,
            committed: progress.clone(),
        };
        if watch != progress.watch {
            self.commit_at = Some(Instant::now());
        }
        self.tracked.insert(partition.clone(), tracked);
    }

    /// Commits another watch with a partition's position, at once.
    pub fn watch(&mut self, partition: &TopicPartition, watch: Watch, now: Instant) {
        if let Some(tracked) = self.tracked.get_mut(partition) {
            tracked.watch = Some(watch);
            self.commit_at = Some(now);
        }
    }

    /// The next commit ends the watch over a partition.
    pub fn unwatch(&mut self, partition: &TopicPartition) {
        if let Some(tracked) = self.tracked.get_mut(partition) {
            tracked.watch = None;
        }
    }

    /// Whether the watch over a partition is committed.
    pub fn is_watched(&self, partition: &TopicPartition) -> bool {
        self.tracked
            .get(partition)
            .is_some_and(|tracked| tracked.committed.watch == tracked.watch)
    }

    /// A partition is not ours any more; nothing of it is settled or committed from now on (I6).
    pub fn forget(&mut self, partition: &TopicPartition) {
        self.tracked.remove(partition);
    }

    /// The tracker of a partition that is ours.
    pub fn tracker(&mut self, partition: &TopicPartition) -> Option<&mut Tracker> {
        self.tracked
            .get_mut(partition)
            .map(|tracked| &mut tracked.tracker)
    }

    /// Where each partition that is ours stands.
    pub fn all(&self) -> impl Iterator<Item = (&TopicPartition, u64)> {
        self.tracked
            .iter()
            .map(|(partition, tracked)| (partition, tracked.tracker.position()))
    }

    /// Whether so much is settled above a partition's position that no more may be admitted.
    pub fn is_scattered(&self, partition: &TopicPartition) -> bool {
        self.tracked
            .get(partition)
            .is_some_and(|tracked| encode_above(&tracked.committed).len() > ADMISSION_LIMIT)
    }

    /// Settles the offsets of a unit that was written; false where its partition is not ours any
    /// more.
    pub fn settle(&mut self, unit: &Unit, now: Instant) -> bool {
        let ours = self
            .tracked
            .get_mut(&unit.partition)
            .filter(|tracked| tracked.assignment == unit.assignment);
        let Some(tracked) = ours else {
            return false;
        };
        for settled in &unit.settled {
            tracked.tracker.settle(settled.offset);
        }
        self.moved(unit.settled.len(), now);
        true
    }

    /// The positions as they will be once these units are settled, of those partitions whose position
    /// then differs from the committed one.
    pub fn after(&self, units: &[Unit]) -> Vec<Commit> {
        let mut commits = Vec::new();
        for (partition, tracked) in &self.tracked {
            let of_partition = units.iter().filter(|unit| {
                unit.partition == *partition && unit.assignment == tracked.assignment
            });
            let mut tracker = tracked.tracker.clone();
            for settled in of_partition.flat_map(|unit| &unit.settled) {
                tracker.settle(settled.offset);
            }
            let progress = Progress {
                watch: tracked.watch,
                ..tracker.progress()
            };
            if progress != tracked.committed {
                commits.push(Commit {
                    partition: partition.clone(),
                    progress,
                });
            }
        }
        commits
    }

    /// Whether every position is committed as it stands.
    pub fn are_committed(&self) -> bool {
        let mut tracked = self.tracked.values();
        mutation::is(Mutation::AbortTakenForCommitted)
            || tracked.all(|tracked| tracked.progress() == tracked.committed)
    }

    /// These positions took effect together with the units that they follow from.
    pub fn committed_with(&mut self, commits: Vec<Commit>) {
        for commit in commits {
            if let Some(tracked) = self.tracked.get_mut(&commit.partition)
                && tracked.committed.next <= commit.progress.next
            {
                tracked.committed = commit.progress;
            }
        }
        self.uncommitted = 0;
    }

    /// No commit is due any more: a transaction takes all positions along.
    pub fn taken_along(&mut self) {
        self.commit_at = None;
    }

    /// Whether a commit is under way.
    pub fn is_committing(&self) -> bool {
        self.committing.is_some()
    }

    /// Settles the events of a batch before the plugin sees them.
    pub fn claim(&mut self, partition: &TopicPartition, work: &Work, now: Instant) {
        if let Some(tracker) = self.tracker(partition) {
            for index in 0..work.len() {
                tracker.settle(work.event(index).offset());
            }
            self.moved(work.len(), now);
        }
    }

    /// Whether an assignment is still ours.
    pub fn owns(&self, partition: &TopicPartition, assignment: u64) -> bool {
        self.tracked
            .get(partition)
            .is_some_and(|tracked| tracked.assignment == assignment)
    }

    /// Positions moved, by so many events (none for offsets that no event carries).
    pub fn moved(&mut self, events: usize, now: Instant) {
        self.uncommitted += events;
        let due = if self.uncommitted >= self.cadence.max_events {
            now
        } else {
            now + self.cadence.interval
        };
        self.commit_at = Some(self.commit_at.map_or(due, |at| at.min(due)));
    }

    /// Whether so many settled events are not known to be committed that no call may start: they
    /// are what a crash repeats, besides what is in flight, and commits can fail for long. A commit
    /// begins at half of it, so that calls go on while it is under way.
    pub fn is_far_ahead(&self) -> bool {
        let committing = self.committing.as_ref().map_or(0, |commit| commit.events);
        self.uncommitted + committing >= self.cadence.max_events.saturating_mul(2)
    }

    /// When [`Self::commit`] is due; `None` where nothing moved or a commit is under way.
    pub fn commit_due(&self) -> Option<Instant> {
        self.commit_at.filter(|_| self.committing.is_none())
    }

    /// Begins to commit every position that moved; does nothing while a commit is under way.
    pub fn commit(&mut self) {
        if self.committing.is_some() {
            return;
        }
        let events = std::mem::take(&mut self.uncommitted);
        self.commit_at = None;
        let commits: Vec<Commit> = self
            .tracked
            .iter()
            .filter_map(|(partition, tracked)| {
                let progress = tracked.progress();
                (progress != tracked.committed).then(|| Commit {
                    partition: partition.clone(),
                    progress,
                })
            })
            .collect();
        if !commits.is_empty() {
            self.committing = Some(Committing {
                future: self.sink.commit(commits.clone()),
                begun: Instant::now(),
                commits,
                events,
            });
        }
    }

    /// The end of the commit that is under way; waits for ever where there is none. Dropping the
    /// future loses nothing.
    pub async fn committed(&mut self) -> Committed {
        let Some(committing) = &mut self.committing else {
            return std::future::pending().await;
        };
        let result = (&mut committing.future).await;
        let took = committing.begun.elapsed();
        let (commits, events) = self
            .committing
            .take()
            .map(|done| (done.commits, done.events))
            .unwrap_or_default();
        let fenced = matches!(result, Err(CommitError::Fenced(_)));
        let result = match fenced && mutation::is(Mutation::FenceIgnored) {
            true => Ok(()),
            false => result,
        };
        if result.is_ok() {
            for commit in commits {
                if let Some(tracked) = self.tracked.get_mut(&commit.partition) {
                    tracked.committed = commit.progress;
                }
            }
        } else {
            self.uncommitted += events;
            self.commit_at = Some(Instant::now() + self.cadence.interval);
        }
        Committed { result, took }
    }

    /// Commits until everything settled is committed, or `deadline` has passed; false then.
    pub async fn commit_all(&mut self, deadline: Instant) -> bool {
        let all = async {
            loop {
                if self.committing.is_some() && self.committed().await.result.is_err() {
                    tokio::time::sleep(self.cadence.interval).await;
                }
                self.commit();
                if self.committing.is_none() {
                    return;
                }
            }
        };
        tokio::time::timeout_at(deadline, all).await.is_ok()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;
    use crate::broker::{PublishError, TransactError};
    use crate::records::Records;

    /// Takes commits or fails them, as it is told.
    #[derive(Default)]
    struct Fickle {
        takes: AtomicBool,
    }

    impl Sink for Fickle {
        fn publish(&self, _: Arc<Records>) -> BoxFuture<'static, Result<(), PublishError>> {
            Box::pin(std::future::ready(Ok(())))
        }

        fn commit(&self, _: Vec<Commit>) -> BoxFuture<'static, Result<(), CommitError>> {
            let result = match self.takes.load(Ordering::Relaxed) {
                true => Ok(()),
                false => Err(CommitError::Passing("not now".to_owned())),
            };
            Box::pin(std::future::ready(result))
        }

        fn transact(
            &self,
            _: Vec<Arc<Records>>,
            _: Vec<Commit>,
        ) -> BoxFuture<'static, Result<(), TransactError>> {
            Box::pin(std::future::ready(Ok(())))
        }
    }

    /// Commits that fail for an hour would otherwise be an hour of events that a crash repeats.
    #[tokio::test]
    async fn while_commits_fail_only_so_many_events_are_settled() {
        let sink = Arc::new(Fickle::default());
        let cadence = CommitCadence {
            interval: Duration::from_millis(100),
            max_events: 10,
        };
        let mut positions = Positions::new(sink.clone(), cadence);
        let partition = TopicPartition::new("orders", 0);
        positions.assigned(&partition, 1, &Progress::at(0), None);
        let settle = |positions: &mut Positions, offsets: std::ops::Range<u64>| {
            let events = offsets.clone().count();
            for offset in offsets {
                if let Some(tracker) = positions.tracker(&partition) {
                    tracker.admit(offset);
                    tracker.settle(offset);
                }
            }
            positions.moved(events, Instant::now());
        };
        settle(&mut positions, 0..10);
        positions.commit();
        assert!(!positions.is_far_ahead(), "calls stop at every commit");
        settle(&mut positions, 10..20);
        assert!(positions.is_far_ahead());
        assert!(positions.committed().await.result.is_err());
        assert!(positions.is_far_ahead());
        assert!(positions.commit_due().is_some());
        sink.takes.store(true, Ordering::Relaxed);
        positions.commit();
        assert!(positions.committed().await.result.is_ok());
        assert!(!positions.is_far_ahead());
    }
}
