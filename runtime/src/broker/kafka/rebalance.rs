//! Taking partitions up and giving them up, one demand of the group after another.
//!
//! ```text
//! Assign ─▶ committed positions, bounds ─▶ resume, assign at offsets ─▶ Assigned
//! Revoke ─▶ stop handing over ─▶ Revoked, wait for `done` and the commits ─▶ unassign
//! ```

use std::ffi::CString;
use std::sync::Arc;
use std::time::Duration;

use rdkafka::consumer::Consumer;
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::bell::Bell;
use super::first_start::Found;
use super::member::{Demand, list_of, offset};
use super::partitions::{End, Owned};
use super::poll_thread::{PollThread, REQUEST_WAIT, ends_of, queue_of};
use super::positions::{self, Bounds, Lost, Place, place};
use super::predecessors::Left;
use super::valves::{pause, resume};
use crate::broker::{Assignment, SourceEvent};
use crate::config::Start;
use crate::decide::offsets::Progress;
use crate::decide::reminder::Reminder;
use crate::event::TopicPartition;

/// How long the runtime may take to finish with partitions that the group wants back.
const REVOKE_WAIT: Duration = Duration::from_secs(5);
/// How long after the loss of our membership others may have lost theirs for the same reason.
const AFTER_LOSS: Duration = Duration::from_secs(60);
/// How soon a failed look-up of positions is tried again.
const RETRY: Duration = Duration::from_millis(500);

/// The demand that is being served.
pub(super) enum Turn {
    Assign {
        partitions: Vec<TopicPartition>,
        again: Instant,
        reminder: Reminder,
    },
    Revoke {
        /// As the group named them.
        partitions: Vec<TopicPartition>,
        done: oneshot::Receiver<()>,
        deadline: Instant,
    },
}

impl PollThread {
    /// Serves the group's demands as far as they can be served now.
    pub(super) fn serve_group(&mut self, now: Instant) {
        loop {
            let turn = match self.turn.take() {
                Some(turn) => turn,
                None => match self.member.context().next_demand() {
                    Some(demand) => match self.start(demand, now) {
                        Some(turn) => turn,
                        None => continue,
                    },
                    None => return,
                },
            };
            match self.go_on(turn, now) {
                None => {}
                waiting => {
                    self.turn = waiting;
                    return;
                }
            }
        }
    }

    /// Begins with a demand; `None` where that was all.
    fn start(&mut self, demand: Demand, now: Instant) -> Option<Turn> {
        match demand {
            Demand::Assign(partitions) => Some(Turn::Assign {
                partitions,
                again: now,
                reminder: Reminder::new(now),
            }),
            Demand::Revoke { partitions, lost } => {
                if lost {
                    self.session_lost = Some(now);
                }
                let mut ours = Vec::new();
                for partition in &partitions {
                    if let Some(owned) = self.partitions.get_mut(partition) {
                        owned.leaving = true;
                        ours.push(partition.clone());
                    }
                }
                if ours.is_empty() {
                    self.give_up(&partitions);
                    return None;
                }
                let (sender, done) = oneshot::channel();
                let news = SourceEvent::Revoked {
                    partitions: ours.clone(),
                    lost,
                    done: sender,
                };
                if lost {
                    // Another member may own them: nothing is committed any more.
                    self.committer.forget(&ours);
                    self.give_up(&partitions);
                    self.outbox.revoke(&ours, news);
                    return None;
                }
                self.outbox.revoke(&ours, news);
                Some(Turn::Revoke {
                    partitions,
                    done,
                    deadline: now + REVOKE_WAIT,
                })
            }
        }
    }

    /// Goes on with a demand; gives it back where it has to wait.
    fn go_on(&mut self, turn: Turn, now: Instant) -> Option<Turn> {
        match turn {
            Turn::Assign {
                partitions,
                again,
                mut reminder,
            } => {
                if now < again {
                    return Some(Turn::Assign {
                        partitions,
                        again,
                        reminder,
                    });
                }
                match self.assign(&partitions) {
                    Ok(()) => None,
                    Err(error) => {
                        let now = Instant::now();
                        if let Some(lasts) = reminder.due(now) {
                            tracing::warn!(
                                consumer = &*self.subscription.consumer,
                                group = &*self.subscription.group,
                                "nothing is consumed of {} partitions, for {} s the group's \
                                 positions cannot be read: {error}. Where the broker answers \
                                 otherwise, a transaction of the group may hang: \
                                 kafka-transactions.sh find-hanging",
                                partitions.len(),
                                lasts.as_secs(),
                            );
                        }
                        Some(Turn::Assign {
                            partitions,
                            again: now + RETRY,
                            reminder,
                        })
                    }
                }
            }
            Turn::Revoke {
                partitions,
                mut done,
                deadline,
            } => {
                let answered = !matches!(done.try_recv(), Err(oneshot::error::TryRecvError::Empty));
                let finished = answered && self.committer.is_done_with(&partitions);
                if !finished && now < deadline && !self.member.assignment_lost() {
                    return Some(Turn::Revoke {
                        partitions,
                        done,
                        deadline,
                    });
                }
                if !finished {
                    tracing::warn!(
                        group = &*self.subscription.group,
                        "partitions were given up before their events were settled"
                    );
                }
                self.give_up(&partitions);
                None
            }
        }
    }

    /// Takes partitions up at explicit offsets. Blocks for the look-up of positions.
    fn assign(&mut self, partitions: &[TopicPartition]) -> KafkaResult<()> {
        let places = self.places(partitions)?;
        self.take(places)
    }

    /// Takes partitions up at their places.
    fn take(&mut self, places: Vec<(TopicPartition, Place, Bounds)>) -> KafkaResult<()> {
        let mut taken = Vec::with_capacity(places.len());
        let mut told = Vec::new();
        for (partition, place, bounds) in places {
            let number = i32::try_from(partition.partition).unwrap_or(i32::MAX);
            let Ok(name) = CString::new(&*partition.topic) else {
                continue;
            };
            let Some(queue) = queue_of(&self.member, &partition) else {
                return Err(KafkaError::MetadataFetch(
                    RDKafkaErrorCode::UnknownPartition,
                ));
            };
            let end = Arc::new(End::new(name, number, bounds.high));
            let mut owned = Owned::new(queue, Bell::new(self.wake.clone()), place.from, end);
            match &place.lost {
                Some(Lost::Halt(reason)) => {
                    owned.halted = true;
                    pause(&self.member, &partition);
                    told.push(SourceEvent::Halted {
                        partition: partition.clone(),
                        reason: reason.clone(),
                    });
                }
                lost => {
                    // A pause outlives an assignment.
                    resume(&self.member, &partition);
                    if lost.is_some() {
                        told.push(SourceEvent::Skipped {
                            partition: partition.clone(),
                            from: place.progress.next,
                            to: place.from,
                        });
                    }
                }
            }
            taken.push((partition, place, owned));
        }
        let list = list_of(taken.iter().map(|(partition, ..)| partition), |wanted| {
            taken
                .iter()
                .find(|(partition, ..)| partition == wanted)
                .map_or(rdkafka::Offset::Invalid, |(_, place, _)| offset(place.from))
        });
        if let Err(error) = self.member.incremental_assign(&list) {
            // The group has moved on meanwhile; its next demand is on its way.
            tracing::warn!(
                group = &*self.subscription.group,
                "taking partitions up: {error}"
            );
            return Ok(());
        }
        let after_loss = (self.session_lost).is_some_and(|lost| lost.elapsed() < AFTER_LOSS);
        let mut assignments = Vec::with_capacity(taken.len());
        for (partition, place, owned) in taken {
            assignments.push(Assignment {
                after_loss,
                partition: partition.clone(),
                progress: place.settled(),
            });
            self.partitions.insert(partition, owned);
        }
        self.ends.set(ends_of(&self.partitions));
        let news = std::iter::once(SourceEvent::Assigned(assignments)).chain(told);
        self.outbox.push_all(news);
        Ok(())
    }

    fn places(
        &self,
        partitions: &[TopicPartition],
    ) -> KafkaResult<Vec<(TopicPartition, Place, Bounds)>> {
        if partitions.is_empty() {
            return Ok(Vec::new());
        }
        let mut committed = positions::committed(&*self.member, partitions, REQUEST_WAIT)?;
        // Of a topic that could not be seen when the group was looked up first.
        let new = partitions.iter().filter(|one| !committed.contains_key(one));
        let new: Vec<_> = new.cloned().collect();
        match self.predecessors.left(&new, REQUEST_WAIT)? {
            Left::Nothing => {}
            Left::Positions { positions, .. } => committed.extend(positions),
            Left::InUse { .. } => {
                let code = RDKafkaErrorCode::RebalanceInProgress;
                return Err(KafkaError::OffsetFetch(code));
            }
        }
        let bounds = positions::bounds(&*self.member, partitions, REQUEST_WAIT)?;
        // A partition that came after the group's first start begins at its beginning.
        let start = match self.found {
            Some(Found::Occupied) => self.subscription.start,
            _ => Start::Beginning,
        };
        let starts = positions::starts(&*self.member, &bounds, start, REQUEST_WAIT)?;
        partitions
            .iter()
            .map(|partition| {
                let (Some(bounds), Some(start)) = (bounds.get(partition), starts.get(partition))
                else {
                    return Err(KafkaError::MetadataFetch(
                        RDKafkaErrorCode::UnknownPartition,
                    ));
                };
                let place = place(
                    committed.remove(partition),
                    *bounds,
                    *start,
                    self.subscription.on_lost_position,
                );
                Ok((partition.clone(), place, *bounds))
            })
            .collect()
    }

    /// Lets partitions go.
    fn give_up(&mut self, partitions: &[TopicPartition]) {
        self.committer.forget(partitions);
        for partition in partitions {
            self.partitions.remove(partition);
            self.lost.retain(|lost| lost != partition);
        }
        self.ends.set(ends_of(&self.partitions));
        let list = list_of(partitions, |_| rdkafka::Offset::Invalid);
        if let Err(error) = self.member.incremental_unassign(&list) {
            tracing::debug!(
                group = &*self.subscription.group,
                "giving partitions up: {error}"
            );
        }
    }

    /// Gives up the partitions that are to be taken again, and puts the taking among the group's
    /// demands: what the group wants of them afterwards comes after it.
    pub(super) fn retake(&mut self) {
        // A demand that waits may be about them; with none, the next comes with the next poll.
        if self.retaken.is_empty() || self.turn.is_some() {
            return;
        }
        let mut ours = std::mem::take(&mut self.retaken);
        ours.sort_unstable();
        ours.dedup();
        ours.retain(|partition| self.partitions.contains_key(partition));
        if ours.is_empty() {
            return;
        }
        self.lose(&ours);
        self.member.context().demand(Demand::Assign(ours));
        self.wake.notify();
    }

    /// Lets partitions go at once, without what is in flight of them.
    pub(super) fn lose(&mut self, partitions: &[TopicPartition]) {
        self.give_up(partitions);
        let (done, _) = oneshot::channel();
        let news = SourceEvent::Revoked {
            partitions: partitions.to_vec(),
            lost: true,
            done,
        };
        self.outbox.revoke(partitions, news);
    }

    /// Grants what the group still waits for, so that leaving does not wait for us.
    pub(super) fn grant_all(&mut self) {
        let mut waiting = Vec::new();
        match self.turn.take() {
            Some(Turn::Revoke { partitions, .. }) => waiting.push(Demand::Revoke {
                partitions,
                lost: false,
            }),
            Some(Turn::Assign { partitions, .. }) => waiting.push(Demand::Assign(partitions)),
            None => {}
        }
        while let Some(demand) = self.member.context().next_demand() {
            waiting.push(demand);
        }
        for demand in waiting {
            match demand {
                Demand::Assign(_) => {
                    let none = rdkafka::TopicPartitionList::new();
                    if let Err(error) = self.member.incremental_assign(&none) {
                        tracing::debug!("leaving the group: {error}");
                    }
                }
                Demand::Revoke { partitions, .. } => self.give_up(&partitions),
            }
        }
    }

    /// Takes partitions up anew whose position the broker lost while they were read.
    pub(super) fn take_up_lost(&mut self, now: Instant) {
        if self.lost.is_empty() || self.turn.is_some() || now < self.retry_lost_at {
            return;
        }
        let mut lost = std::mem::take(&mut self.lost);
        lost.sort_unstable();
        lost.dedup();
        lost.retain(|partition| {
            self.partitions
                .get(partition)
                .is_some_and(|owned| !owned.leaving)
        });
        let bounds = match positions::bounds(&*self.member, &lost, REQUEST_WAIT) {
            Ok(bounds) => bounds,
            Err(error) => {
                tracing::debug!("the bounds of partitions cannot be looked up yet: {error}");
                self.lost = lost;
                self.retry_lost_at = Instant::now() + RETRY;
                return;
            }
        };
        for partition in lost {
            let (Some(owned), Some(bounds)) =
                (self.partitions.get_mut(&partition), bounds.get(&partition))
            else {
                continue;
            };
            let from = owned.next;
            let policy = self.subscription.on_lost_position;
            let place = place(Some(Progress::at(from)), *bounds, bounds.low, policy);
            if place.goes_back() {
                // Nothing that is known of the partition holds any more.
                self.lose(std::slice::from_ref(&partition));
                let places = vec![(partition.clone(), place, *bounds)];
                if let Err(error) = self.take(places) {
                    tracing::warn!(%partition, "taking the partition up anew: {error}");
                    self.member
                        .context()
                        .demand(Demand::Assign(vec![partition]));
                    self.wake.notify();
                }
                continue;
            }
            owned.next = place.from;
            owned.astray = false;
            if let Some(Lost::Halt(reason)) = place.lost {
                owned.halted = true;
                pause(&self.member, &partition);
                self.outbox.push(SourceEvent::Halted { partition, reason });
                continue;
            }
            // A partition in error does not take a seek; it starts afresh.
            let list = list_of([&partition], |_| offset(place.from));
            let restarted = self
                .member
                .incremental_unassign(&list)
                .and_then(|()| self.member.incremental_assign(&list));
            if let Err(error) = restarted {
                tracing::warn!(%partition, "taking the partition up anew: {error}");
                self.retry_lost_at = Instant::now() + RETRY;
                self.lost.push(partition);
                continue;
            }
            if place.lost.is_some() {
                self.outbox.push(SourceEvent::Skipped {
                    partition,
                    from,
                    to: place.from,
                });
            }
        }
    }
}
