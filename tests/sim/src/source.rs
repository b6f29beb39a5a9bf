//! Where a member's events come from: assignments, blocks, revocations, lost positions.

use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use millstream::broker::{Assignment, Control, Source, SourceEvent};
use millstream::config::OnLostPosition;
use millstream::consumer::status::State;
use millstream::event::TopicPartition;
use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::member::{Member, Owned, Standing};
use crate::trace::About;
use crate::world::place;

pub(crate) struct SimSource {
    member: Arc<Member>,
    assigned: u64,
    /// Partitions whose positions are read, and when the answer is there.
    reading: Option<(Vec<u32>, Instant)>,
    revoking: Option<(u32, oneshot::Receiver<()>)>,
}

impl SimSource {
    pub(crate) fn new(member: Arc<Member>) -> Self {
        let partitions = (0..member.world.lock().input.len() as u32).collect();
        Self {
            member,
            assigned: 0,
            reading: Some((partitions, Instant::now())),
            revoking: None,
        }
    }

    /// Reads positions: as often as it fails, and until no transaction holds any of them.
    fn read(&mut self, partitions: Vec<u32>) -> Option<SourceEvent> {
        let chance = self.member.joining.hostility.commit_fails;
        let (delay, fails) = self.member.weather(chance);
        let mut world = self.member.world.lock();
        let stable = |partition: &u32| world.transactions.is_stable(*partition);
        let alive = self.member.standing() == Standing::Alive;
        if fails || !alive || !partitions.iter().all(stable) {
            self.reading = Some((partitions, Instant::now() + delay));
            return None;
        }
        let mut owned = self.member.owned.lock();
        let mut assignments = Vec::new();
        for partition in &partitions {
            self.assigned += 1;
            let life = self.member.life();
            let assignment = life << 32 | self.assigned;
            let name = place(*partition);
            let progress = world.committed.get(&name).cloned().unwrap_or_default();
            let (next, above) = (progress.next, progress.above.clone());
            world.trace.note(About::Partition(*partition), || {
                format!("assigned: {name} at {next}, above {above:?}, life {life}")
            });
            world.owners.insert(*partition, assignment);
            let mine = Owned {
                assignment,
                next,
                told_end: None,
                halted: false,
            };
            owned.insert(*partition, mine);
            // An application's hold does not outlive an assignment.
            self.member.held.lock().remove(partition);
            assignments.push(Assignment {
                after_loss: false,
                partition: name,
                progress,
            });
        }
        Some(SourceEvent::Assigned(assignments))
    }

    fn fetch(&mut self) -> Option<SourceEvent> {
        let mut random = self.member.random.lock();
        let mut world = self.member.world.lock();
        let mut owned = self.member.owned.lock();
        let held = self.member.held.lock();
        let flows = |(p, mine): &(&u32, &Owned)| !held.contains(*p) && !mine.halted;
        let open: Vec<u32> = owned.iter().filter(flows).map(|(p, _)| *p).collect();
        if open.is_empty() {
            return None;
        }
        let partition = open[random.usize(0..open.len())];
        let mine = owned.get_mut(&partition)?;
        let (start, end) = (
            world.starts[partition as usize],
            world.ends[partition as usize],
        );
        let life = self.member.life();
        if mine.next < start {
            let from = mine.next;
            let about = About::Partition(partition);
            let to = match self.member.joining.on_lost {
                OnLostPosition::Stop => {
                    mine.halted = true;
                    let reason = format!("retention took what lies from {from} to {start}");
                    world
                        .trace
                        .note(about, || format!("told: {reason}, life {life}"));
                    return Some(SourceEvent::Halted {
                        partition: place(partition),
                        reason,
                    });
                }
                OnLostPosition::Beginning => start,
                OnLostPosition::End => end,
            };
            world.trace.note(about, || {
                format!("told: skipped from {from} to {to}, life {life}")
            });
            world.told_of_gap(partition, from, to);
            *self.member.jumped.lock() += to - from;
            mine.next = to;
            return Some(SourceEvent::Skipped {
                partition: place(partition),
                from,
                to,
            });
        }
        let most = random.usize(1..=self.member.joining.most);
        if let Some(block) = world.block(partition, mine.next, most) {
            let (first, last) = (
                block.events().first()?.offset,
                block.events().last()?.offset,
            );
            mine.next = last + 1;
            world.trace.note(About::Events(partition, first, last), || {
                format!(
                    "fetched: {} from {first} to {last}, life {life}",
                    place(partition)
                )
            });
            return Some(SourceEvent::Block(Arc::new(block)));
        }
        if mine.told_end == Some(end) {
            return None;
        }
        mine.told_end = Some(end);
        Some(SourceEvent::CaughtUp {
            partition: place(partition),
            next: end,
        })
    }

    fn revoke(&mut self) -> Option<SourceEvent> {
        let mut random = self.member.random.lock();
        let retaken = self.member.retaken.lock().pop();
        let (partition, lost) = match retaken {
            Some(partition) => (partition, true),
            None if random.f64() >= self.member.joining.hostility.revoke => return None,
            None => {
                let partitions: Vec<u32> = self.member.owned.lock().keys().copied().collect();
                let partition = *partitions.get(random.usize(0..partitions.len().max(1)))?;
                (partition, random.f64() < 0.3)
            }
        };
        let mut world = self.member.world.lock();
        let life = self.member.life();
        world.trace.note(About::Partition(partition), || {
            let what = if lost { "lost" } else { "revoked" };
            format!("{what}: {}, life {life}", place(partition))
        });
        if lost {
            let mine = self
                .member
                .owned
                .lock()
                .get(&partition)
                .map(|mine| mine.assignment);
            world.disown(partition, mine);
        }
        let (done, waits) = oneshot::channel();
        self.revoking = Some((partition, waits));
        Some(SourceEvent::Revoked {
            partitions: vec![place(partition)],
            lost,
            done,
        })
    }

    /// A zombie hears that its partitions are gone, and then nothing any more.
    async fn hear(&mut self, at: Instant) -> SourceEvent {
        tokio::time::sleep_until(at).await;
        let gone: Vec<u32> = std::mem::take(&mut *self.member.owned.lock())
            .into_keys()
            .collect();
        if gone.is_empty() {
            return std::future::pending().await;
        }
        let life = self.member.life();
        self.member.world.lock().trace.note(About::All, || {
            format!("life {life} hears that its partitions are gone")
        });
        let (done, _) = oneshot::channel();
        SourceEvent::Revoked {
            partitions: gone.into_iter().map(place).collect(),
            lost: true,
            done,
        }
    }
}

impl Source for SimSource {
    fn next(&mut self) -> BoxFuture<'_, SourceEvent> {
        Box::pin(async move {
            loop {
                if let Standing::Isolated(hears_at) = self.member.standing() {
                    return self.hear(hears_at).await;
                }
                if let Some((_, at)) = &self.reading {
                    tokio::time::sleep_until(*at).await;
                    if let Some((partitions, _)) = self.reading.take()
                        && let Some(assigned) = self.read(partitions)
                    {
                        return assigned;
                    }
                    continue;
                }
                let pause = self.member.random.lock().u64(10..2_000);
                tokio::time::sleep(Duration::from_micros(pause)).await;
                if let Some((partition, waits)) = &mut self.revoking {
                    // Sent or dropped: either way it is let go.
                    let _ = waits.await;
                    let partition = *partition;
                    self.revoking = None;
                    let mine = self.member.owned.lock().remove(&partition);
                    let mine = mine.map(|mine| mine.assignment);
                    self.member.world.lock().disown(partition, mine);
                    self.reading = Some((vec![partition], Instant::now()));
                    continue;
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

pub(crate) struct SimControl(pub(crate) Arc<Member>);

impl Control for SimControl {
    fn hold(&self, partitions: &[TopicPartition]) {
        let numbers = partitions.iter().map(|partition| partition.partition);
        self.0.held.lock().extend(numbers);
    }

    fn release(&self, partitions: &[TopicPartition]) {
        let mut held = self.0.held.lock();
        for partition in partitions {
            held.remove(&partition.partition);
        }
    }

    /// I9: only what stands still is taken again, whoever takes over.
    fn retake(&self, partitions: &[TopicPartition]) {
        let status = self.0.status.lock();
        let stopped = matches!(status.state, State::Stopped(_));
        let mut world = self.0.world.lock();
        for name in partitions {
            let shown = status.partitions.get(name);
            let stands = shown.is_none_or(|shown| shown.halted.is_some());
            world.retakes(name.partition, self.0.life());
            if !stands && !stopped {
                let text = format!("I9: {name} is given up though it goes on");
                world.trace.violate(About::Partition(name.partition), text);
            }
        }
        let numbers = partitions.iter().map(|partition| partition.partition);
        self.0.retaken.lock().extend(numbers);
    }

    fn ends(&self) -> Vec<(TopicPartition, u64)> {
        let world = self.0.world.lock();
        let owned = self.0.owned.lock();
        let ends = owned.keys().map(|p| (place(*p), world.ends[*p as usize]));
        ends.collect()
    }
}
