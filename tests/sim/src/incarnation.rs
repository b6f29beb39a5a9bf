//! One life of the consumer, watched from outside as an operator would.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use millstream::consumer::generation::Generation;
use millstream::consumer::runner::{Parts, Runner};
use millstream::consumer::status::{self, SharedStatus, State};
use millstream::metrics::{Metrics, SharedLedger};
use parking_lot::Mutex;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::checks::{self, Wrong};
use crate::member::{self, Joining, Member};
use crate::plugin::{Caller, SimPlugin};
use crate::rollout::{Desk, Fleet, SharedRollout};
use crate::scenario::Scenario;
use crate::trace::About;
use crate::world::{SharedWorld, place, show};
use crate::written::Wrote;

/// How often it is looked at.
const LOOK: Duration = Duration::from_millis(20);
/// Within this time a consumer that must stop for its dead letters looks back at all of them.
const MINUTE: Duration = Duration::from_secs(50);

/// See the module.
pub struct Incarnation {
    world: SharedWorld,
    scenario: Scenario,
    life: u64,
    member: Arc<Member>,
    status: SharedStatus,
    ledger: SharedLedger,
    desk: Desk,
    drain: oneshot::Sender<Instant>,
    task: JoinHandle<anyhow::Result<()>>,
    begun: Instant,
    random: fastrand::Rng,
    /// Skips that were asked for and not answered.
    asked: Arc<Mutex<BTreeSet<(u32, u64)>>>,
}

impl Incarnation {
    /// The consumer starts.
    pub fn start(
        world: &SharedWorld,
        scenario: &Scenario,
        plugin: &SimPlugin,
        rollout: &SharedRollout,
        joining: Joining,
    ) -> Self {
        let life = joining.life;
        let version = rollout.lock().trusted();
        world
            .lock()
            .trace
            .note(About::All, || format!("life {life} begins with {version}"));
        let status = status::starting(version.number, version.digest().into());
        let (member, session) = member::join(world.clone(), joining, status.clone());
        let metrics = Metrics::new();
        let fleet = Fleet::new(version);
        let plugin = plugin.for_life(Caller {
            life,
            world: world.clone(),
            status: status.clone(),
            fleet: fleet.clone(),
        });
        let settings = scenario.settings.clone();
        let first = Arc::new(plugin.of(version));
        let generation = Arc::new(Generation::new(version.number, first, settings.clone()));
        let ledger = metrics.ledger(&scenario.settings.name);
        let runner = Runner::new(Parts {
            status: status.clone(),
            ledger: ledger.clone(),
            generation,
            session,
            first_instance: None,
        });
        let (drain, drained) = oneshot::channel();
        Self {
            world: world.clone(),
            scenario: scenario.clone(),
            life,
            member,
            status,
            ledger,
            desk: Desk {
                rollout: rollout.clone(),
                fleet,
                world: world.clone(),
                commander: runner.commander(),
                plugin,
                settings,
                life,
            },
            drain,
            task: tokio::spawn(runner.run(drained)),
            begun: Instant::now(),
            random: fastrand::Rng::with_seed(joining.seed),
            asked: Arc::default(),
        }
    }

    /// Lets it work until then, looking at it all the while.
    pub async fn works_until(&mut self, until: Instant) {
        while Instant::now() < until {
            let look = until.min(Instant::now() + LOOK);
            let next = self.desk.due().unwrap_or(look).min(look);
            tokio::time::sleep_until(next).await;
            self.desk.work();
            self.look();
        }
    }

    /// Checks what it shows, and does what an operator does about it.
    pub fn look(&mut self) {
        let status = self.status.lock().clone();
        let undeliverable = {
            let world = self.world.lock();
            let reason = |wrote: &&Wrote| wrote.reason.as_deref() == Some("undeliverable");
            world.dead.iter().filter(reason).count() as u64
        };
        let mut wrong = {
            let ledger = self.ledger.lock();
            let settings = &self.scenario.settings;
            let fleet = self.desk.fleet.lock();
            // Another version is judged by what it does itself.
            let stops =
                !fleet.changed && checks::must_have_stopped(&ledger, settings, undeliverable);
            let mut wrong = checks::accounting(&ledger, settings, false);
            wrong.extend(checks::shadows_count_for_nothing(&ledger, &fleet));
            let stopped = matches!(status.state, State::Stopped(_));
            if stops && !stopped && self.begun.elapsed() < MINUTE {
                let text = "max_ratio: the consumer goes on with too many dead letters".to_owned();
                wrong.push((About::All, text));
            }
            wrong
        };
        for partition in self.member.halted() {
            let shown = status.partitions.get(&place(partition));
            if shown.is_some_and(|shown| shown.halted.is_none()) {
                let text = format!("retention: {} is not shown as halted", place(partition));
                wrong.push((About::Partition(partition), text));
            }
        }
        self.violate(wrong);
        for (name, partition) in &status.partitions {
            if let Some(at) = partition.halted_at
                && self.random.f64() < 0.3
            {
                // Now and then the wrong one, which must be refused.
                let offset = at + u64::from(self.random.f64() < 0.2);
                self.skip(name.partition, offset, offset == at);
            }
        }
    }

    /// Asks it to skip an event; `right` says that it stands at it.
    fn skip(&self, partition: u32, offset: u64, right: bool) {
        let event = (partition, offset);
        if !self.asked.lock().insert(event) {
            return;
        }
        let about = About::event(partition, offset);
        if right {
            let mut world = self.world.lock();
            world.skipping.insert(event);
            let text = || format!("skip asked for: {}", show(partition, offset));
            world.trace.note(about, text);
        }
        let (commander, asked, world) = (
            self.desk.commander.clone(),
            self.asked.clone(),
            self.world.clone(),
        );
        tokio::spawn(async move {
            let answer = commander.skip(place(partition), offset).await;
            asked.lock().remove(&event);
            let mut world = world.lock();
            match answer {
                Ok(()) if world.skipping.contains(&event) => {
                    world
                        .trace
                        .note(about, || format!("skipped: {}", show(partition, offset)));
                    world.skipped.insert(event);
                }
                Ok(()) => {
                    let text = format!("skip: {} was not halted at", show(partition, offset));
                    world.trace.violate(about, text);
                }
                // Refused, or not answered in time: it is asked for again.
                Err(_) => {}
            }
        });
    }

    /// Whether it waits for someone to act: for lost positions, or after too many dead letters.
    pub fn wants_help(&self) -> bool {
        let stopped = matches!(self.status.lock().state, State::Stopped(_));
        stopped || !self.member.halted().is_empty()
    }

    /// Everything that it was told to have jumped over must be in its metrics.
    fn check_jumped(&self) {
        let counted: u64 = {
            let ledger = self.ledger.lock();
            let lost = ledger
                .skipped
                .iter()
                .filter(|((_, why), _)| *why == "lost-position");
            lost.map(|(_, events)| events).sum()
        };
        let told = self.member.jumped();
        if counted != told {
            let text = format!("retention: {counted} skipped offsets are counted, not {told}");
            self.violate(vec![(About::All, text)]);
        }
    }

    /// Its process ends; what it has sent is on its way still.
    pub fn crash(self) {
        self.task.abort();
        self.member.die();
        let life = self.life;
        let mut world = self.world.lock();
        world
            .trace
            .note(About::All, || format!("life {life} crashes"));
        world.owners.clear();
        drop(world);
        self.check_jumped();
    }

    /// Its writes fail from now on.
    pub fn poison(&self) {
        self.member.poison();
    }

    /// The group goes on without it. It goes on for a while too, and ends a second after it heard.
    pub fn isolate(self, hears_after: Duration) {
        self.member.isolate(hears_after);
        let life = self.life;
        let mut world = self.world.lock();
        world.trace.note(About::All, || {
            format!("life {life} is cut off from its group and goes on as a zombie")
        });
        world.owners.clear();
        drop(world);
        tokio::spawn(async move {
            // All of it: without the sender it would begin to drain.
            let zombie = self;
            tokio::time::sleep(hears_after + Duration::from_secs(1)).await;
            zombie.member.die();
            zombie.task.abort();
            zombie
                .world
                .lock()
                .trace
                .note(About::All, || format!("life {life} ends"));
        });
    }

    /// Drains it, and checks how it ends.
    pub async fn drain(self) {
        self.check_jumped();
        let life = self.life;
        self.world
            .lock()
            .trace
            .note(About::All, || format!("life {life} drains"));
        let _ = self.drain.send(Instant::now() + Duration::from_secs(10));
        let mut wrong = match self.task.await {
            Ok(Ok(())) => Wrong::new(),
            Ok(Err(error)) => vec![(About::All, format!("the consumer failed: {error:#}"))],
            Err(panic) => vec![(About::All, format!("the consumer panicked: {panic}"))],
        };
        let ledger = self.ledger.lock();
        wrong.extend(checks::accounting(&ledger, &self.scenario.settings, true));
        drop(ledger);
        let mut world = self.world.lock();
        world.owners.clear();
        for (about, text) in wrong {
            world.trace.violate(about, text);
        }
    }

    fn violate(&self, wrong: Wrong) {
        let mut world = self.world.lock();
        for (about, text) in wrong {
            world.trace.violate(about, text);
        }
    }
}
