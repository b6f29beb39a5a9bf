//! The thread behind a session: it finds the group's positions, follows topics as they come and go,
//! and hands over blocks, one a partition in turn. It sleeps until something changes.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use tokio::sync::oneshot;

use super::Shared;
use super::catalog::{Partition, Topic};
use super::groups;
use super::queue::{Positions, Request};
use super::reader::{self, Found};
use super::recent::{Recent, Stretch};
use super::session::SessionShared;
use super::store::Store;
use crate::broker::{Assignment, BrokerError, Commit, ReadLimits, SourceEvent, Subscription};
use crate::config::OnLostPosition;
use crate::decide::offsets::Progress;
use crate::event::TopicPartition;

/// The state of a session's thread.
pub struct Fetcher {
    shared: Arc<Shared>,
    session: Arc<SessionShared>,
    subscription: Subscription,
    /// By topic id and partition, which a topic of the same name made anew does not share.
    cursors: BTreeMap<(u32, u32), Cursor>,
    /// The partition that had the last turn; the one after it has the next.
    last_turn: (u32, u32),
    catalog_version: Option<u64>,
}

/// Where a partition is read.
struct Cursor {
    partition: Arc<Partition>,
    next: u64,
    caught_up: Option<u64>,
    halted: bool,
    /// What was unpacked and not handed over.
    held: Option<Arc<Stretch>>,
}

/// Why the thread ends.
#[derive(Debug)]
pub(super) enum End {
    Closed,
    Failed(BrokerError),
}

impl Fetcher {
    /// A fetcher that has nothing yet.
    pub fn new(
        shared: Arc<Shared>,
        session: Arc<SessionShared>,
        subscription: Subscription,
    ) -> Self {
        Self {
            shared,
            session,
            subscription,
            cursors: BTreeMap::new(),
            last_turn: (u32::MAX, u32::MAX),
            catalog_version: None,
        }
    }

    /// Hands over events until the session is closed or the store fails.
    pub fn run(mut self) {
        if let Err(End::Failed(error)) = self.follow() {
            self.session.outbox.push(SourceEvent::Failed(error));
        }
    }

    fn follow(&mut self) -> Result<(), End> {
        loop {
            let store = self.shared.store().map_err(|_| End::Closed)?;
            self.assign(&store)?;
            while self.round(&store) {
                if self.session.is_closed() {
                    return Err(End::Closed);
                }
                self.assign(&store)?;
            }
            // Nothing of the store is held while asleep, so that a broker that closes closes it.
            drop(store);
            if !self.session.wait() {
                return Err(End::Closed);
            }
        }
    }

    /// Takes up topics that came and gives up those that went.
    pub(super) fn assign(&mut self, store: &Store) -> Result<(), End> {
        let version = self.shared.catalog.version();
        let retaken = self.session.take_retaken();
        if self.catalog_version == Some(version) && retaken.is_empty() {
            return Ok(());
        }
        self.revoke(|cursor| !retaken.contains(&cursor.partition.place));
        let first = self.catalog_version.is_none();
        self.catalog_version = Some(version);
        let wanted: Vec<_> = self
            .shared
            .catalog
            .all()
            .into_iter()
            .filter(|topic| self.wants(topic))
            .collect();
        self.revoke(|cursor| {
            let id = cursor.partition.topic_id;
            wanted.iter().any(|topic| topic.record.id == id)
        });
        let new: Vec<_> = wanted
            .iter()
            .flat_map(|topic| &topic.partitions)
            .filter(|p| !self.cursors.contains_key(&(p.topic_id, p.place.partition)))
            .cloned()
            .collect();
        // An empty assignment says that the group was joined.
        if !new.is_empty() || first {
            let assignments = self.find_positions(store, &new)?;
            self.take_up(new, assignments);
        }
        let assigned = self.cursors.values().map(|c| c.partition.place.clone());
        self.session.set_assigned(assigned.collect());
        Ok(())
    }

    fn wants(&self, topic: &Topic) -> bool {
        let Subscription {
            topics, excluded, ..
        } = &self.subscription;
        topics.iter().any(|pattern| {
            let named = matches!(pattern, crate::config::TopicPattern::Name(_));
            pattern.matches(&topic.name) && (named || !excluded.contains(&topic.name))
        })
    }

    /// Gives up all partitions but those to be kept.
    fn revoke(&mut self, keeps: impl Fn(&Cursor) -> bool) {
        let mut gone = Vec::new();
        self.cursors.retain(|_, cursor| {
            let kept = keeps(cursor);
            if !kept {
                gone.push(cursor.partition.place.clone());
            }
            kept
        });
        if !gone.is_empty() {
            // A topic that is gone and a partition that halted have nothing to finish: nobody is
            // waited for.
            let (done, _) = oneshot::channel();
            let news = SourceEvent::Revoked {
                partitions: gone.clone(),
                lost: true,
                done,
            };
            self.session.outbox.revoke(&gone, news);
        }
    }

    /// The group's positions in partitions that are new to the session; those it has none in are
    /// committed at once.
    fn find_positions(
        &mut self,
        store: &Store,
        new: &[Arc<Partition>],
    ) -> Result<Vec<Assignment>, End> {
        let group = &self.subscription.group;
        let known = groups::known(store, group).map_err(End::Failed)?;
        let stored = positions_of(store, group, new)?;
        let left = match stored.len() < new.len() {
            true => self.left_by_previous(store, new, &stored)?,
            false => BTreeMap::new(),
        };
        // Who goes on under another name is new to none of its topics.
        let seen_before = known || !left.is_empty();
        let mut assignments = Vec::with_capacity(new.len());
        let mut commits = Vec::new();
        for partition in new {
            let progress = match stored.get(&partition.place) {
                Some(progress) => progress.clone(),
                None => {
                    let progress = match left.get(&partition.place) {
                        Some(progress) => Ok(progress.clone()),
                        None if seen_before => Ok(Progress::at(partition.start())),
                        None => groups::start(store, partition, self.subscription.start)
                            .map(Progress::at),
                    };
                    let progress = progress.map_err(End::Failed)?;
                    commits.push(Commit {
                        partition: partition.place.clone(),
                        progress: progress.clone(),
                    });
                    progress
                }
            };
            assignments.push(Assignment {
                after_loss: false,
                partition: partition.place.clone(),
                progress,
            });
        }
        if !known || !commits.is_empty() {
            self.commit(commits)?;
        }
        Ok(assignments)
    }

    /// What the first previous group that has any has where this one has none.
    fn left_by_previous(
        &self,
        store: &Store,
        new: &[Arc<Partition>],
        stored: &BTreeMap<TopicPartition, Progress>,
    ) -> Result<BTreeMap<TopicPartition, Progress>, End> {
        let missing = |partition: &&Arc<Partition>| !stored.contains_key(&partition.place);
        let missing: Vec<_> = new.iter().filter(missing).cloned().collect();
        for previous in &self.subscription.previous_groups {
            let left = positions_of(store, previous, &missing)?;
            if !left.is_empty() {
                tracing::info!(
                    consumer = %self.subscription.consumer, group = %self.subscription.group,
                    from = %previous, partitions = left.len(),
                    "the positions of the consumer under its name before are carried over"
                );
                return Ok(left);
            }
        }
        Ok(BTreeMap::new())
    }

    fn commit(&self, commits: Vec<Commit>) -> Result<(), End> {
        let (reply, answer) = oneshot::channel();
        let request = Request::Commit(Positions {
            group: self.subscription.group.clone(),
            commits,
            found: true,
            reply,
        });
        if self.shared.queue.push(request).is_err() {
            return Err(End::Closed);
        }
        match answer.blocking_recv() {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => {
                // A topic that was deleted meanwhile changes the catalog, and all is found anew;
                // a store that fails ends every session.
                if self.shared.is_poisoned() {
                    return Err(End::Failed(BrokerError::Store(error.to_string())));
                }
                Ok(())
            }
            Err(_) => Err(End::Closed),
        }
    }

    fn take_up(&mut self, new: Vec<Arc<Partition>>, assignments: Vec<Assignment>) {
        let starts: Vec<_> = assignments.iter().map(|a| a.progress.next).collect();
        self.session.outbox.push(SourceEvent::Assigned(assignments));
        for (partition, next) in new.into_iter().zip(starts) {
            let key = (partition.topic_id, partition.place.partition);
            let cursor = Cursor {
                partition,
                next,
                caught_up: None,
                halted: false,
                held: None,
            };
            self.cursors.insert(key, cursor);
        }
    }

    /// Hands over one block a partition; whether there may be more to do.
    pub(super) fn round(&mut self, store: &Store) -> bool {
        let rule = self.subscription.on_lost_position;
        let after = (Bound::Excluded(self.last_turn), Bound::Unbounded);
        let mut turns: Vec<_> = self.cursors.range(after).map(|(key, _)| *key).collect();
        turns.extend(self.cursors.range(..=self.last_turn).map(|(key, _)| *key));
        let count = self.cursors.len();
        let mut more = false;
        for turn in turns {
            let Some(cursor) = self.cursors.get_mut(&turn) else {
                continue;
            };
            if cursor.halted || self.session.outbox.is_held(&cursor.partition.place) {
                continue;
            }
            let Some(limits) = self.session.room(&cursor.partition.place, count) else {
                continue;
            };
            let recent = &self.shared.recent;
            if cursor.advance(&self.session, store, recent, limits, rule) {
                self.last_turn = turn;
                more = true;
            }
            // Of many partitions each would hold what the budget has not.
            let budget = self.subscription.fetch_bytes / count;
            cursor.held.take_if(|stretch| stretch.bytes() > budget);
        }
        more
    }
}

impl Cursor {
    /// Hands over the next block, or says why there is none; whether anything changed.
    fn advance(
        &mut self,
        session: &SessionShared,
        store: &Store,
        recent: &Recent,
        limits: ReadLimits,
        rule: OnLostPosition,
    ) -> bool {
        let Self {
            partition, held, ..
        } = self;
        let found = reader::read(store, recent, partition, self.next, limits, held);
        let changed = match found {
            Ok(Found::Events { block, next }) => {
                self.next = next;
                session.outbox.push(SourceEvent::Block(block));
                true
            }
            Ok(Found::End) => false,
            Ok(Found::Lost) => {
                self.lose(session, rule);
                true
            }
            Err(error) => {
                self.halted = true;
                session.outbox.push(SourceEvent::Halted {
                    partition: self.partition.place.clone(),
                    reason: error.to_string(),
                });
                true
            }
        };
        self.say_caught_up(session);
        changed
    }

    fn lose(&mut self, session: &SessionShared, rule: OnLostPosition) {
        let partition = self.partition.place.clone();
        match groups::after_loss(&self.partition, rule) {
            Some(to) => {
                session.outbox.push(SourceEvent::Skipped {
                    partition,
                    from: self.next,
                    to,
                });
                self.next = to;
            }
            None => {
                self.halted = true;
                let reason = lost_reason(&partition, self.next, &self.partition);
                session
                    .outbox
                    .push(SourceEvent::Halted { partition, reason });
            }
        }
    }

    fn say_caught_up(&mut self, session: &SessionShared) {
        let at_end = !self.halted && self.next == self.partition.end();
        if at_end && self.caught_up != Some(self.next) {
            self.caught_up = Some(self.next);
            session.outbox.push(SourceEvent::CaughtUp {
                partition: self.partition.place.clone(),
                next: self.next,
            });
        }
    }
}

/// The positions that a group has in these partitions.
fn positions_of(
    store: &Store,
    group: &str,
    partitions: &[Arc<Partition>],
) -> Result<BTreeMap<TopicPartition, Progress>, End> {
    let mut found = BTreeMap::new();
    for partition in partitions {
        if let Some(progress) = groups::position(store, group, partition).map_err(End::Failed)? {
            found.insert(partition.place.clone(), progress);
        }
    }
    Ok(found)
}

fn lost_reason(place: &TopicPartition, position: u64, partition: &Partition) -> String {
    format!(
        "the group stands at offset {position} of {place}, which holds {} up to {}: retention \
         removed what was not settled yet, or the store lost it; set on_lost_position to \
         \"beginning\" or \"end\", or reset the group's offsets",
        partition.start(),
        partition.end()
    )
}
