//! The client's side of transactions, as an adapter has it: one at a time, and those in doubt
//! resolved by the runtime's own rules (`decide/doubt.rs`).
//!
//! ```text
//! register ─▶ write ─▶ positions, if still ours ─▶ end ─▶ certain ─▶ answer
//!                │ failed: abort                     └ in doubt ─▶ register, read ─▶ answer
//! ```

use std::sync::Arc;
use std::time::Duration;

use millstream::broker::{Commit, PublishError, TransactError};
use millstream::decide::doubt::{self, Doubt, Resolution, Step};
use millstream::records::Records;
use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::coordinator::Ticket;
use crate::member::Member;
use crate::sink;
use crate::trace::About;

/// One transaction.
pub(crate) struct Job {
    pub(crate) records: Vec<Arc<Records>>,
    pub(crate) commits: Vec<Commit>,
    /// To which assignments the commits belong.
    pub(crate) assignments: Vec<u64>,
    pub(crate) answer: oneshot::Sender<Result<(), TransactError>>,
}

enum Ended {
    Aborted(String),
    Refused(usize, PublishError),
    InDoubt(Doubt),
}

/// What becomes of a request to end a transaction.
#[derive(Clone, Copy, Debug)]
enum Fate {
    Prompt,
    /// It never arrives, and the wait for its answer runs out.
    Lost,
    /// It takes effect, and its answer is lost.
    AnswerLost,
    /// It takes effect later than its sender waits.
    Delayed,
    /// It was sent again over a new connection; the first one is still on its way.
    SentTwice,
    /// Sent again by a client that waited for long.
    Long,
}

/// Makes a transaction and answers once its outcome is certain.
pub(crate) async fn transact(member: Arc<Member>, job: Job) {
    let mut producer = member.producer.lock().await;
    let result = match attempt(&member, &job, &mut producer).await {
        Ok(()) => Ok(()),
        Err(Ended::Aborted(reason)) => {
            abort(&member, &mut producer, &reason).await;
            Err(TransactError::Aborted(reason))
        }
        Err(Ended::Refused(batch, error)) => {
            abort(&member, &mut producer, "a record is refused").await;
            Err(TransactError::Refused { batch, error })
        }
        Err(Ended::InDoubt(doubt)) => {
            let life = member.life();
            member.world.lock().trace.note(About::All, || {
                format!("transaction in doubt: {doubt}, life {life}")
            });
            *producer = None;
            resolve(&member, &job, &mut producer, &doubt).await
        }
    };
    drop(producer);
    // The consumer may have crashed.
    let _ = job.answer.send(result);
}

async fn attempt(
    member: &Arc<Member>,
    job: &Job,
    producer: &mut Option<Ticket>,
) -> Result<(), Ended> {
    let hostility = member.joining.hostility;
    let ticket = match *producer {
        Some(ticket) => ticket,
        None => register(member).await.map_err(Ended::Aborted)?,
    };
    *producer = Some(ticket);
    let life = member.life();
    let fenced = || Ended::Aborted("fenced by a newer producer".to_owned());
    for (batch, records) in job.records.iter().enumerate() {
        let chance = hostility.publish_fails / job.records.len() as f64;
        member.request(chance).await.map_err(Ended::Aborted)?;
        let mut world = member.world.lock();
        if let Some(error) = sink::refused(&world, records) {
            return Err(Ended::Refused(batch, error));
        }
        let written = world.transactions.write(ticket, life, records.clone());
        written.map_err(|_| fenced())?;
    }
    if !job.commits.is_empty() {
        let chance = hostility.commit_fails / 2.0;
        member.request(chance).await.map_err(Ended::Aborted)?;
        let mut world = member.world.lock();
        let mut places = job.commits.iter().zip(&job.assignments);
        let ours = places.all(|(commit, assignment)| {
            world.owners.get(&commit.partition.partition) == Some(assignment)
        });
        if !ours {
            let reason = "the group took partitions of it back".to_owned();
            return Err(Ended::Aborted(reason));
        }
        let added = world
            .transactions
            .add_positions(ticket, life, job.commits.clone());
        added.map_err(|_| fenced())?;
    }
    let begun = Instant::now();
    let (answer, faults) = end(member, ticket).await;
    doubt::of(answer, faults, begun.elapsed()).map_err(Ended::InDoubt)
}

async fn register(member: &Arc<Member>) -> Result<Ticket, String> {
    member
        .request(member.joining.hostility.commit_fails)
        .await?;
    let (id, life) = (member.joining.transactional_id, member.life());
    let mut world = member.world.lock();
    let ticket = world.transactions.register(id);
    world.trace.note(About::All, || {
        format!("registered: {ticket:?}, which ends what is open, life {life}")
    });
    Ok(ticket)
}

/// Sends the request to commit; its answer, and how many connections failed meanwhile.
async fn end(member: &Arc<Member>, ticket: Ticket) -> (Result<(), String>, u64) {
    let (fate, delay, late) = {
        let mut random = member.random.lock();
        let fates = [
            Fate::Lost,
            Fate::AnswerLost,
            Fate::Delayed,
            Fate::SentTwice,
            Fate::Long,
        ];
        let fate = match random.f64() < member.joining.hostility.commit_fails {
            true => fates[random.usize(0..fates.len())],
            false => Fate::Prompt,
        };
        let delay = match fate {
            Fate::Prompt | Fate::SentTwice => Duration::from_micros(random.u64(10..3_000)),
            Fate::Long => Duration::from_millis(random.u64(2_100..3_000)),
            _ => Duration::from_millis(random.u64(5..300)),
        };
        (fate, delay, Duration::from_millis(random.u64(1..400)))
    };
    let ends = move |member: &Member| {
        let mut world = member.world.lock();
        let ended = world.end_transaction(ticket);
        ended.map_err(|_| "fenced by a newer producer".to_owned())
    };
    if let Fate::Delayed | Fate::SentTwice | Fate::Long = fate {
        let member = member.clone();
        tokio::spawn(async move {
            tokio::time::sleep(late).await;
            // It may have been fenced; nobody waits for the answer.
            let _ = ends(&member);
        });
    }
    let timed_out = Err("timed out".to_owned());
    if let Fate::AnswerLost = fate {
        let _ = ends(member);
    }
    tokio::time::sleep(delay).await;
    match fate {
        Fate::Prompt | Fate::Long => (ends(member), 0),
        Fate::SentTwice => (ends(member), 1),
        Fate::AnswerLost | Fate::Lost | Fate::Delayed => (timed_out, 0),
    }
}

async fn abort(member: &Arc<Member>, producer: &mut Option<Ticket>, reason: &str) {
    let Some(ticket) = *producer else {
        return;
    };
    let life = member.life();
    member.world.lock().trace.note(About::All, || {
        format!("transaction aborted: {reason}, life {life}")
    });
    let sent = member
        .request(member.joining.hostility.commit_fails / 2.0)
        .await;
    let aborted = sent.is_ok() && member.world.lock().transactions.abort(ticket).is_ok();
    if !aborted {
        // The registration of the next one aborts as well.
        *producer = None;
    }
}

async fn resolve(
    member: &Arc<Member>,
    job: &Job,
    producer: &mut Option<Ticket>,
    doubt: &Doubt,
) -> Result<(), TransactError> {
    let mut resolution = Resolution::default();
    while !job.answer.is_closed() {
        match resolution.step() {
            Step::Register => {
                if let Ok(ticket) = register(member).await {
                    *producer = Some(ticket);
                    resolution.registered();
                }
            }
            Step::Read => {
                let read = member.request(member.joining.hostility.commit_fails).await;
                let mut world = member.world.lock();
                let partitions = job.commits.iter().map(|commit| &commit.partition);
                let mut numbers = partitions.map(|partition| partition.partition);
                if read.is_err() || !numbers.all(|p| world.transactions.is_stable(p)) {
                    continue;
                }
                let commits = job.commits.iter();
                let committed = |commit: &Commit| world.committed.get(&commit.partition);
                let took_effect =
                    resolution.took_effect(commits.map(|c| (&c.progress, committed(c))));
                world.trace.note(About::All, || {
                    let what = if took_effect {
                        "took effect"
                    } else {
                        "had none"
                    };
                    format!("transaction in doubt: it {what}")
                });
                return match took_effect {
                    true => Ok(()),
                    false => Err(TransactError::Aborted(doubt.to_string())),
                };
            }
        }
    }
    Err(TransactError::Aborted(doubt.to_string()))
}
