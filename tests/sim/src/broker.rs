//! One membership of the group: hands out blocks, takes partitions away, fails writes and commits.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use millstream::broker::{
    Assignment, Commit, CommitError, Control, PublishError, Session, Sink, Source, SourceEvent,
    TransactError,
};
use millstream::event::TopicPartition;
use millstream::records::Records;
use parking_lot::Mutex;
use tokio::sync::{Mutex as AsyncMutex, oneshot};

use crate::world::{INPUT, SharedWorld};

/// How hostile the broker is: chances from 0 to 1.
#[derive(Clone, Copy, Debug)]
pub struct Hostility {
    pub revoke: f64,
    pub publish_fails: f64,
    pub commit_fails: f64,
}

struct Member {
    world: SharedWorld,
    random: Mutex<fastrand::Rng>,
    hostility: Hostility,
    /// Partitions that are ours: their assignment and where to fetch next.
    owned: Mutex<BTreeMap<u32, Owned>>,
    held: Mutex<BTreeSet<u32>>,
    retaken: Mutex<Vec<u32>>,
    incarnation: u64,
    /// Writes go one after the other: how many were tried.
    writing: AsyncMutex<u64>,
    /// Publications up to this one fail, with one that failed.
    fail_until: Mutex<u64>,
}

#[derive(Clone, Copy)]
struct Owned {
    assignment: u64,
    next: u64,
    told_end: bool,
}

impl Member {
    /// The assignments to which commits that are made now belong.
    fn assignments_of(&self, commits: &[Commit]) -> Vec<u64> {
        let owned = self.owned.lock();
        let of = |commit: &Commit| {
            owned
                .get(&commit.partition.partition)
                .map_or(0, |o| o.assignment)
        };
        commits.iter().map(of).collect()
    }
}

/// A membership in `world`; `incarnation` tells it from those before a crash.
pub fn join(world: SharedWorld, seed: u64, incarnation: u64, hostility: Hostility) -> Session {
    world.lock().life = incarnation;
    let member = Arc::new(Member {
        world,
        random: Mutex::new(fastrand::Rng::with_seed(seed)),
        hostility,
        owned: Mutex::default(),
        held: Mutex::default(),
        retaken: Mutex::default(),
        incarnation,
        writing: AsyncMutex::default(),
        fail_until: Mutex::default(),
    });
    Session {
        source: Box::new(SimSource {
            member: member.clone(),
            assigned: 0,
            revoking: None,
        }),
        control: Arc::new(SimControl(member.clone())),
        sink: Arc::new(SimSink {
            member,
            made: Arc::default(),
        }),
    }
}

struct SimSource {
    member: Arc<Member>,
    assigned: u64,
    revoking: Option<(u32, oneshot::Receiver<()>)>,
}

impl SimSource {
    fn assign(&mut self, partitions: &[u32]) -> SourceEvent {
        let mut world = self.member.world.lock();
        let mut owned = self.member.owned.lock();
        let mut assignments = Vec::new();
        for partition in partitions {
            self.assigned += 1;
            let assignment = self.member.incarnation << 32 | self.assigned;
            let name = TopicPartition::new(INPUT, *partition);
            let progress = world.committed.get(&name).cloned().unwrap_or_default();
            world.owners.insert(*partition, assignment);
            let mine = Owned {
                assignment,
                next: progress.next,
                told_end: false,
            };
            owned.insert(*partition, mine);
            // An application's hold does not outlive an assignment.
            self.member.held.lock().remove(partition);
            assignments.push(Assignment {
                partition: name,
                progress,
            });
        }
        SourceEvent::Assigned(assignments)
    }

    fn fetch(&mut self) -> Option<SourceEvent> {
        let mut random = self.member.random.lock();
        let world = self.member.world.lock();
        let mut owned = self.member.owned.lock();
        let held = self.member.held.lock();
        let open: Vec<u32> = owned
            .keys()
            .copied()
            .filter(|p| !held.contains(p))
            .collect();
        if open.is_empty() {
            return None;
        }
        let partition = open[random.usize(0..open.len())];
        let mine = owned.get_mut(&partition)?;
        match world.block(partition, mine.next, random.usize(1..12)) {
            Some(block) => {
                mine.next = block
                    .events()
                    .last()
                    .map_or(mine.next, |event| event.offset + 1);
                Some(SourceEvent::Block(Arc::new(block)))
            }
            None if !mine.told_end => {
                mine.told_end = true;
                Some(SourceEvent::CaughtUp {
                    partition: TopicPartition::new(INPUT, partition),
                    next: world.ends[partition as usize],
                })
            }
            None => None,
        }
    }

    fn revoke(&mut self) -> Option<SourceEvent> {
        let mut random = self.member.random.lock();
        let retaken = self.member.retaken.lock().pop();
        let (partition, lost) = match retaken {
            Some(partition) => (partition, true),
            None if random.f64() >= self.member.hostility.revoke => return None,
            None => {
                let partitions: Vec<u32> = self.member.owned.lock().keys().copied().collect();
                let partition = *partitions.get(random.usize(0..partitions.len().max(1)))?;
                (partition, random.f64() < 0.3)
            }
        };
        if lost {
            self.member.world.lock().owners.remove(&partition);
        }
        let (done, waits) = oneshot::channel();
        self.revoking = Some((partition, waits));
        Some(SourceEvent::Revoked {
            partitions: vec![TopicPartition::new(INPUT, partition)],
            lost,
            done,
        })
    }
}

impl Source for SimSource {
    fn next(&mut self) -> BoxFuture<'_, SourceEvent> {
        Box::pin(async move {
            if self.assigned == 0 {
                let all: Vec<u32> = (0..self.member.world.lock().input.len() as u32).collect();
                return self.assign(&all);
            }
            loop {
                let pause = self.member.random.lock().u64(10..2_000);
                tokio::time::sleep(Duration::from_micros(pause)).await;
                if let Some((partition, waits)) = &mut self.revoking {
                    // Sent or dropped: either way it is let go.
                    let _ = waits.await;
                    let partition = *partition;
                    self.revoking = None;
                    self.member.owned.lock().remove(&partition);
                    self.member.world.lock().owners.remove(&partition);
                    return self.assign(&[partition]);
                }
                if let Some(event) = self.revoke() {
                    return event;
                }
                if let Some(event) = self.fetch() {
                    return event;
                }
            }
        })
    }

    fn close(self: Box<Self>) -> BoxFuture<'static, ()> {
        Box::pin(std::future::ready(()))
    }
}

struct SimControl(Arc<Member>);

impl Control for SimControl {
    fn hold(&self, partitions: &[TopicPartition]) {
        self.0
            .held
            .lock()
            .extend(partitions.iter().map(|p| p.partition));
    }

    fn release(&self, partitions: &[TopicPartition]) {
        let mut held = self.0.held.lock();
        for partition in partitions {
            held.remove(&partition.partition);
        }
    }

    fn retake(&self, partitions: &[TopicPartition]) {
        let numbers = partitions.iter().map(|partition| partition.partition);
        self.0.retaken.lock().extend(numbers);
    }

    fn ends(&self) -> Vec<(TopicPartition, u64)> {
        let world = self.0.world.lock();
        let owned = self.0.owned.lock();
        let ends = owned
            .keys()
            .map(|p| (TopicPartition::new(INPUT, *p), world.ends[*p as usize]));
        ends.collect()
    }
}

struct SimSink {
    member: Arc<Member>,
    made: Arc<Mutex<u64>>,
}

impl Sink for SimSink {
    fn publish(&self, records: Arc<Records>) -> BoxFuture<'static, Result<(), PublishError>> {
        let member = self.member.clone();
        let number = {
            let mut made = self.made.lock();
            *made += 1;
            *made
        };
        // Written when its turn comes, whether or not anyone waits for it.
        let (answer, answered) = oneshot::channel();
        let (made, hearing) = (self.made.clone(), member.clone());
        tokio::spawn(async move {
            let result = loop {
                let mut writing = member.writing.lock().await;
                if *writing + 1 != number {
                    drop(writing);
                    tokio::time::sleep(Duration::from_micros(50)).await;
                    continue;
                }
                let (delay, chance, part) = {
                    let mut random = member.random.lock();
                    (random.u64(10..3_000), random.f64(), random.f64())
                };
                tokio::time::sleep(Duration::from_micros(delay)).await;
                *writing = number;
                if number <= *member.fail_until.lock() {
                    break Err(PublishError::Passing("purged".to_owned()));
                }
                if chance < member.hostility.publish_fails {
                    // A part may be written; nothing else is until the consumer has heard of it.
                    *member.fail_until.lock() = u64::MAX;
                    let written = (records.len() as f64 * part) as usize;
                    member
                        .world
                        .lock()
                        .append(&records, written, member.incarnation);
                    break Err(PublishError::Passing("connection lost".to_owned()));
                }
                member
                    .world
                    .lock()
                    .append(&records, records.len(), member.incarnation);
                break Ok(());
            };
            // The consumer may have crashed.
            let _ = answer.send(result);
        });
        Box::pin(async move {
            let result = answered
                .await
                .unwrap_or_else(|_| Err(PublishError::Passing("gone".to_owned())));
            // The consumer has heard of it: what it makes from now on is taken again.
            let mut fail_until = hearing.fail_until.lock();
            if result.is_err() && *fail_until == u64::MAX {
                *fail_until = *made.lock();
            }
            result
        })
    }

    fn commit(&self, commits: Vec<Commit>) -> BoxFuture<'static, Result<(), CommitError>> {
        let member = self.member.clone();
        let assignments = member.assignments_of(&commits);
        Box::pin(async move {
            let (delay, chance, effect) = {
                let mut random = member.random.lock();
                (random.u64(10..3_000), random.f64(), random.bool())
            };
            tokio::time::sleep(Duration::from_micros(delay)).await;
            let fails = chance < member.hostility.commit_fails;
            if !fails || effect {
                let mut world = member.world.lock();
                for (commit, assignment) in commits.iter().zip(assignments) {
                    // A group lets nobody commit what it took away.
                    if world.owners.get(&commit.partition.partition) == Some(&assignment) {
                        world.commit(commit, assignment);
                    }
                }
            }
            match fails {
                true => Err(CommitError::Passing("timed out".to_owned())),
                false => Ok(()),
            }
        })
    }

    /// All or nothing, at one moment; nothing where a partition was taken away before it.
    fn transact(
        &self,
        records: Vec<Arc<Records>>,
        commits: Vec<Commit>,
    ) -> BoxFuture<'static, Result<(), TransactError>> {
        let member = self.member.clone();
        let assignments = member.assignments_of(&commits);
        // It goes on when nobody waits for it any more, as a request on its way does.
        let (answer, answered) = oneshot::channel();
        tokio::spawn(async move {
            let (before, after, chance) = {
                let mut random = member.random.lock();
                (random.u64(10..3_000), random.u64(10..3_000), random.f64())
            };
            tokio::time::sleep(Duration::from_micros(before)).await;
            let result = {
                let mut world = member.world.lock();
                let mut places = commits.iter().zip(&assignments);
                let ours = places.all(|(commit, assignment)| {
                    world.owners.get(&commit.partition.partition) == Some(assignment)
                });
                if !ours || chance < member.hostility.commit_fails {
                    Err(TransactError::Aborted("fenced or failed".to_owned()))
                } else {
                    for records in &records {
                        world.append(records, records.len(), member.incarnation);
                    }
                    for (commit, assignment) in commits.iter().zip(&assignments) {
                        world.commit(commit, *assignment);
                    }
                    Ok(())
                }
            };
            tokio::time::sleep(Duration::from_micros(after)).await;
            // The consumer may have crashed.
            let _ = answer.send(result);
        });
        Box::pin(async move {
            answered
                .await
                .unwrap_or_else(|_| Err(TransactError::Aborted("gone".to_owned())))
        })
    }
}
