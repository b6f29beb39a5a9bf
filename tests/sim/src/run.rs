//! A whole run by a seed, and its verdict.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use millstream::config::{Delivery, OnLostPosition};
use millstream::decide::offsets::Progress;
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::checks;
use crate::incarnation::Incarnation;
use crate::member::{Hostility, Joining};
use crate::plugin::SimPlugin;
use crate::rollout::{Rollout, SharedRollout};
use crate::scenario::{End, HOPS, Scenario};
use crate::trace::{About, Trace};
use crate::world::{SharedWorld, World, place};

/// Virtual time after which lag must have returned to zero.
const LIVENESS: Duration = Duration::from_secs(300);
/// Virtual time after which only partitions may stand still that are at an event that always fails.
const CALM_AFTER: Duration = Duration::from_secs(20);
/// They are looked at for so long; then the plugin is mended.
const STANDS_FOR: Duration = Duration::from_secs(10);
/// Tells the dice of deploys from the others.
const DEPLOYS: u64 = 0xde91_0175;
/// Violations that a report shows.
const SHOWN: usize = 5;

/// What a run showed.
#[derive(Debug)]
pub struct Verdict {
    seed: u64,
    scenario: String,
    trace: Trace,
}

impl Verdict {
    /// What is wrong, the first that was seen first.
    pub fn wrong(&self) -> Vec<String> {
        let violations = self.trace.violations().iter();
        violations.map(|violation| violation.to_string()).collect()
    }

    /// What is wrong, what the seed chose, and what happened around the first violation.
    pub fn report(&self) -> String {
        let violations = self.trace.violations();
        let mut text = format!("seed {}: {}\n", self.seed, self.scenario);
        for violation in violations.iter().take(SHOWN) {
            let _ = writeln!(text, "  {violation}");
        }
        if violations.len() > SHOWN {
            let _ = writeln!(text, "  … and {} more", violations.len() - SHOWN);
        }
        if let Some(first) = violations.first() {
            let _ = write!(
                text,
                "What concerns the first of it:\n{}",
                self.trace.about(first)
            );
        }
        text
    }
}

/// Runs a seed and returns everything that it shows to be wrong.
pub fn run(seed: u64) -> Vec<String> {
    verdict(seed, false).wrong()
}

/// Runs a seed once more, and tells what happened.
pub fn report(seed: u64) -> String {
    verdict(seed, true).report()
}

fn verdict(seed: u64, keeps_trace: bool) -> Verdict {
    fastrand::seed(seed);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build();
    match runtime {
        Ok(runtime) => runtime.block_on(simulate(seed, keeps_trace)),
        Err(error) => {
            let mut trace = Trace::new(false);
            trace.violate(About::All, format!("no runtime: {error}"));
            Verdict {
                seed,
                scenario: String::new(),
                trace,
            }
        }
    }
}

async fn simulate(seed: u64, keeps_trace: bool) -> Verdict {
    let mut random = fastrand::Rng::with_seed(seed);
    let trace = Trace::new(keeps_trace);
    // With dice of their own: what else a seed chooses is the same with deploys and without.
    let mut deploys = fastrand::Rng::with_seed(seed ^ DEPLOYS);
    let scenario = Scenario::choose(&mut random).with_deeds(&mut deploys);
    let world = World::new(&mut random, scenario.partitions, scenario.events, trace);
    let world: SharedWorld = Arc::new(Mutex::new(world));
    let delivery = scenario.settings.delivery;
    {
        let mut world = world.lock();
        world.claims = delivery == Delivery::AtMostOnce;
        world.once = delivery != Delivery::AtLeastOnce;
        if scenario.feeds_back {
            // One that came through too many is there too. At least once repeats some at each fault.
            let repeats = if world.once { 1 } else { 8 };
            let produced = scenario.events * scenario.partitions as usize;
            world.most_events = produced * (HOPS as usize + 2) * repeats + 1;
        }
    }
    let mut run = Run {
        plugin: SimPlugin::new(random.u64(..)),
        rollout: Rollout::new(scenario.deeds.clone()),
        world,
        scenario,
        random,
        life: 0,
        mended: false,
    };
    run.plugin.fail_in(run.scenario.outages.clone());
    run.hostile_lives().await;
    run.calm_lives().await;
    run.judge();
    let trace = std::mem::replace(&mut run.world.lock().trace, Trace::new(false));
    Verdict {
        seed,
        scenario: run.scenario.to_string(),
        trace,
    }
}

struct Run {
    plugin: SimPlugin,
    rollout: SharedRollout,
    world: SharedWorld,
    scenario: Scenario,
    random: fastrand::Rng,
    life: u64,
    mended: bool,
}

impl Run {
    fn start(&mut self, hostility: Hostility, fresh_id: bool) -> Incarnation {
        self.life += 1;
        let joining = Joining {
            life: self.life,
            seed: self.random.u64(..),
            hostility,
            transactional_id: if fresh_id { self.life } else { 0 },
            on_lost: self.scenario.settings.on_lost_position,
            most: self.scenario.most(),
        };
        let (world, rollout) = (&self.world, &self.rollout);
        Incarnation::start(world, &self.scenario, &self.plugin, rollout, joining)
    }

    async fn hostile_lives(&mut self) {
        for life in self.scenario.lives.clone() {
            if life.reset {
                self.reset_positions();
            }
            let mut consumer = self.start(life.hostility, life.fresh_id);
            let end = Instant::now() + life.lasts;
            if let Some((after, partition)) = life.retention {
                consumer.works_until(end.min(Instant::now() + after)).await;
                self.overtake(partition);
            }
            consumer.works_until(end).await;
            match life.end {
                End::Crash => consumer.crash(),
                End::Zombie(hears_after) => consumer.isolate(hears_after),
                End::Poisoned(after) => {
                    consumer.poison();
                    consumer.works_until(Instant::now() + after).await;
                    consumer.crash();
                }
            }
        }
    }

    /// Without faults from here on: one life, and another whenever someone has to act.
    async fn calm_lives(&mut self) {
        let begun = Instant::now();
        let mut before = None;
        while !self.is_over(begun) {
            self.reset_positions();
            self.world.lock().calm_down(self.life + 1);
            let mut consumer = self.start(Hostility::default(), false);
            while !self.is_over(begun) && !consumer.wants_help() {
                let now = Instant::now();
                consumer.works_until(now + Duration::from_millis(50)).await;
                if begun.elapsed() > CALM_AFTER && before.is_none() {
                    before = Some(self.world.lock().committed.clone());
                }
                if begun.elapsed() > CALM_AFTER + STANDS_FOR && !self.mended {
                    // Several events that always fail, and none that succeeds, are an outage to
                    // the breaker.
                    let before = before.clone().unwrap_or_default();
                    let settings = &self.scenario.settings;
                    let wrong = checks::only_poison_stays(&self.world.lock(), &before, settings);
                    self.violate(wrong);
                    self.mend();
                }
            }
            if consumer.wants_help() {
                // Whoever reads why it stopped mends the plugin.
                self.mend();
            }
            consumer.drain().await;
        }
    }

    /// Whether there is nothing more to wait for.
    fn is_over(&self, begun: Instant) -> bool {
        let mut world = self.world.lock();
        if begun.elapsed() > LIVENESS {
            let text = "liveness: lag has not returned to zero".to_owned();
            world.trace.violate(About::All, text);
        }
        world.is_done() || !world.trace.violations().is_empty()
    }

    fn mend(&mut self) {
        self.mended = true;
        self.plugin.mend();
        let mut world = self.world.lock();
        world.versions.mend();
        world
            .trace
            .note(About::All, || "the plugin is mended".to_owned());
    }

    /// Retention takes events that the group has not settled, some or all.
    fn overtake(&mut self, partition: u32) {
        let mut world = self.world.lock();
        let committed = world.committed.get(&place(partition));
        let next = committed.map_or(0, |progress| progress.next);
        let end = world.ends[partition as usize];
        if next < end {
            let most = end.min(next + 30);
            let start = self.random.u64(next + 1..=most);
            world.retain(partition, start);
        }
    }

    /// An operator moves positions that retention overtook, where the consumer does not by itself.
    fn reset_positions(&mut self) {
        if self.scenario.settings.on_lost_position != OnLostPosition::Stop {
            return;
        }
        let mut world = self.world.lock();
        for partition in 0..self.scenario.partitions {
            let start = world.starts[partition as usize];
            let name = place(partition);
            let progress = world.committed.get(&name).cloned().unwrap_or_default();
            if progress.next >= start || !world.transactions.is_stable(partition) {
                continue;
            }
            world.told_of_gap(partition, progress.next, start);
            world.trace.note(About::Partition(partition), || {
                format!("an operator moves {name} from {} to {start}", progress.next)
            });
            let above = progress.above.into_iter().filter(|range| range.end > start);
            let above = above
                .map(|range| range.start.max(start)..range.end)
                .collect();
            let moved = Progress {
                next: start,
                above,
                watch: progress.watch,
            };
            world.committed.insert(name, moved);
        }
    }

    fn judge(&mut self) {
        let finished = self.world.lock().is_done();
        if finished {
            let world = self.world.lock();
            let mut wrong = checks::ends(&world, &self.scenario, self.mended);
            wrong.extend(checks::order(&world, self.scenario.settings.ordering));
            drop(world);
            self.violate(wrong);
        }
        if self.scenario.settings.delivery == Delivery::AtMostOnce {
            self.violate(self.plugin.repeats());
        }
    }

    fn violate(&self, wrong: checks::Wrong) {
        let mut world = self.world.lock();
        for (about, text) in wrong {
            world.trace.violate(about, text);
        }
    }
}
