//! Where a member's units go: writes that fail or are refused, commits that are answered wrongly.

use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use millstream::broker::{Commit, CommitError, PublishError, Sink, TransactError};
use millstream::records::Records;
use parking_lot::Mutex;
use tokio::sync::oneshot;

use crate::member::{Member, Standing};
use crate::plugin;
use crate::transactor::{self, Job};
use crate::world::{DEAD, World};
use crate::written::{made_by, source_of};

pub(crate) struct SimSink {
    member: Arc<Member>,
    made: Arc<Mutex<u64>>,
}

impl SimSink {
    pub(crate) fn new(member: Arc<Member>) -> Self {
        Self {
            member,
            made: Arc::default(),
        }
    }
}

/// The first record that the broker does not take, whenever it is sent.
pub(crate) fn refused(world: &World, records: &Records) -> Option<PublishError> {
    let index = records.iter().position(|record| {
        let unwanted = |place: (u32, u64)| {
            let value = world.value(place.0, place.1)?;
            let value = match made_by(&record) {
                Some(number) => world.versions.makes_of(number, place, value),
                None => value,
            };
            Some(plugin::is_unwanted(value))
        };
        &**record.topic() != DEAD && source_of(&record).and_then(unwanted) == Some(true)
    })?;
    Some(PublishError::Event {
        index,
        topic: records.get(index).topic().clone(),
        reason: "too large".to_owned(),
    })
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
                if member.standing() == Standing::Dead {
                    // What was not sent yet is gone with its process.
                    return;
                }
                let mut writing = member.writing.lock().await;
                if *writing + 1 != number {
                    drop(writing);
                    tokio::time::sleep(Duration::from_micros(50)).await;
                    continue;
                }
                let chance = member.joining.hostility.publish_fails;
                let (delay, fails) = member.weather(chance);
                let part = member.random.lock().f64();
                tokio::time::sleep(delay).await;
                *writing = number;
                if number <= *member.fail_until.lock() {
                    break Err(PublishError::Passing("purged".to_owned()));
                }
                let mut world = member.world.lock();
                let refused = refused(&world, &records);
                if fails || refused.is_some() {
                    // Nothing else is written until the consumer has heard of it.
                    *member.fail_until.lock() = u64::MAX;
                }
                if let Some(refused) = refused {
                    break Err(refused);
                }
                let written = match fails {
                    true => (records.len() as f64 * part) as usize,
                    false => records.len(),
                };
                world.append(&records, written, member.life());
                break match fails {
                    true => Err(PublishError::Passing("connection lost".to_owned())),
                    false => Ok(()),
                };
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
            let (delay, fails) = member.weather(member.joining.hostility.commit_fails);
            let effect = member.random.lock().bool();
            tokio::time::sleep(delay).await;
            let mut world = member.world.lock();
            if let Standing::Isolated(_) = member.standing() {
                return Err(CommitError::Fenced("of an earlier generation".to_owned()));
            }
            if !fails || effect {
                for (commit, assignment) in commits.iter().zip(assignments) {
                    // A group lets nobody commit what it took away.
                    if world.owners.get(&commit.partition.partition) == Some(&assignment) {
                        world.commit(commit, member.life());
                    }
                }
            }
            match fails {
                true => Err(CommitError::Passing("timed out".to_owned())),
                false => Ok(()),
            }
        })
    }

    fn transact(
        &self,
        records: Vec<Arc<Records>>,
        commits: Vec<Commit>,
    ) -> BoxFuture<'static, Result<(), TransactError>> {
        let (answer, answered) = oneshot::channel();
        let job = Job {
            assignments: self.member.assignments_of(&commits),
            records,
            commits,
            answer,
        };
        tokio::spawn(transactor::transact(self.member.clone(), job));
        Box::pin(async move {
            answered
                .await
                .unwrap_or_else(|_| Err(TransactError::Aborted("gone".to_owned())))
        })
    }
}
