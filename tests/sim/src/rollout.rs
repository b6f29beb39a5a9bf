//! What an operator deploys, tries in shadow, rolls back and pauses while events flow, and what of it
//! is known at any moment: the versions' own calls and records are checked against that.
//!
//! ```text
//! Deed ─▶ Rollout (of the run) ─▶ Desk (of one life) ─ Commander ─▶ swap, shadow, pause, resume
//!                                   │ answers, judgements
//!                                   └─▶ Fleet: which version makes the calls ─▶ checks
//! ```

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use millstream::config::{Consumer, Deploy};
use millstream::consumer::commands::Commander;
use millstream::consumer::generation::Generation;
use millstream::consumer::probation::Ended;
use millstream::plugin::Plugin;
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::plugin::SimPlugin;
use crate::trace::About;
use crate::version::{FAULTS, Manner, Version};
use crate::world::SharedWorld;

/// What is done.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum What {
    Deploy {
        manner: Manner,
        probation: Duration,
        max_failure_ratio: f64,
        /// Whether its configuration leaves the circuit breaker as it is.
        breaker: bool,
    },
    /// By hand, to what is known to be good.
    RollBack,
    Shadow {
        manner: Manner,
        events: u64,
        within: Duration,
        /// Whether who asked goes away half-way.
        gives_up: bool,
    },
    /// It goes on after this time.
    Pause(Duration),
}

/// What is done, and when after the begin of the run.
#[derive(Clone, Copy, Debug)]
pub struct Deed {
    pub at: Duration,
    pub what: What,
}

impl Deed {
    /// Whether nothing keeps an outage from the dead letters any more.
    pub fn takes_breaker(&self) -> bool {
        matches!(self.what, What::Deploy { breaker: false, .. })
    }
}

impl fmt::Display for Deed {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { at, what } = self;
        match what {
            What::Deploy {
                manner, breaker, ..
            } => {
                let without = if *breaker { "" } else { " without a breaker" };
                write!(to, "deploy of {manner:?}{without} at {at:?}")
            }
            What::RollBack => write!(to, "rollback at {at:?}"),
            What::Shadow { manner, .. } => write!(to, "shadow of {manner:?} at {at:?}"),
            What::Pause(lasts) => write!(to, "pause at {at:?} for {lasts:?}"),
        }
    }
}

/// Chooses what is done in a run, mostly while events are under way. Whatever it is, a good version is
/// deployed in the end; where its consumer ends before it takes it up, the next one gets it.
pub fn choose(random: &mut fastrand::Rng) -> Vec<Deed> {
    let mut deeds = Vec::new();
    let mut paused_until = Duration::ZERO;
    let mut at = Duration::ZERO;
    for _ in 0..random.usize(1..7) {
        at += Duration::from_micros(match random.u32(0..10) {
            0..6 => random.u64(0..30_000),
            6..9 => random.u64(0..200_000),
            _ => random.u64(0..800_000),
        });
        let what = match random.u32(0..10) {
            0..6 => deploy(random),
            6 => What::RollBack,
            7..9 => What::Shadow {
                manner: manner(random),
                events: random.u64(1..60),
                within: Duration::from_millis(random.u64(10..600)),
                gives_up: random.f64() < 0.3,
            },
            _ if at <= paused_until => deploy(random),
            _ => {
                let lasts = Duration::from_millis(random.u64(1..300));
                paused_until = at + lasts;
                What::Pause(lasts)
            }
        };
        deeds.push(Deed { at, what });
    }
    at = at.max(paused_until) + Duration::from_millis(random.u64(10..500));
    let what = What::Deploy {
        manner: Manner::Good,
        // Nothing leads back from it.
        probation: Duration::ZERO,
        max_failure_ratio: 0.0,
        breaker: true,
    };
    deeds.push(Deed { at, what });
    deeds
}

fn deploy(random: &mut fastrand::Rng) -> What {
    let manner = manner(random);
    let probation = match manner {
        // A deploy tries the start before anything else.
        Manner::NeverStarts { .. } => Duration::from_millis(random.u64(5..400)),
        Manner::Good | Manner::Fails { .. } => probation(random),
    };
    What::Deploy {
        manner,
        probation,
        max_failure_ratio: random.f64() * 0.3,
        breaker: random.f64() < 0.9,
    }
}

fn probation(random: &mut fastrand::Rng) -> Duration {
    match random.f64() < 0.15 {
        true => Duration::ZERO,
        false => Duration::from_millis(random.u64(5..400)),
    }
}

fn manner(random: &mut fastrand::Rng) -> Manner {
    match random.u32(0..10) {
        0..3 => Manner::Good,
        3..9 => Manner::Fails {
            with: FAULTS[random.usize(0..FAULTS.len())],
            share: 0.05 + random.f64() * 0.95,
        },
        _ => Manner::NeverStarts {
            misconfigured: random.bool(),
        },
    }
}

/// The deeds of a run that are still to be done, and which version is trusted.
#[derive(Debug)]
pub struct Rollout {
    deeds: VecDeque<Deed>,
    begun: Instant,
    /// The number of the last version that was made.
    made: u64,
    /// What the next life begins with.
    trusted: Version,
}

/// Shared by all lives.
pub type SharedRollout = Arc<Mutex<Rollout>>;

impl Rollout {
    /// Begins now.
    pub fn new(deeds: Vec<Deed>) -> SharedRollout {
        Arc::new(Mutex::new(Self {
            deeds: deeds.into(),
            begun: Instant::now(),
            made: Version::FIRST.number,
            trusted: Version::FIRST,
        }))
    }

    /// The version that a life begins with.
    pub fn trusted(&self) -> Version {
        self.trusted
    }

    /// A version that was saved earlier may pass its probation later.
    fn trust(&mut self, version: Version) {
        if version.number > self.trusted.number {
            self.trusted = version;
        }
    }

    fn due(&self) -> Option<Instant> {
        Some(self.begun + self.deeds.front()?.at)
    }

    fn version(&mut self, manner: Manner) -> Version {
        self.made += 1;
        Version {
            number: self.made,
            manner,
        }
    }
}

/// What is known of one life's versions.
#[derive(Debug)]
pub struct Fleet {
    /// The version that makes the calls, and since when.
    pub current: u64,
    pub since: Instant,
    /// Whether one took over since the life began.
    pub changed: bool,
    /// Since when no call may begin.
    pub paused: Option<Instant>,
    /// Instances that were started, those in shadow left out.
    pub started: u64,
}

/// Shared by a life's desk and its plugin.
pub type SharedFleet = Arc<Mutex<Fleet>>;

impl Fleet {
    /// One with which a life begins.
    pub fn new(version: Version) -> SharedFleet {
        Arc::new(Mutex::new(Self {
            current: version.number,
            since: Instant::now(),
            changed: false,
            paused: None,
            started: 0,
        }))
    }

    fn take_over(&mut self, number: u64) {
        self.current = number;
        self.since = Instant::now();
        self.changed = true;
    }
}

/// Where the operator reaches one life of the consumer.
#[derive(Clone)]
pub struct Desk {
    pub rollout: SharedRollout,
    pub fleet: SharedFleet,
    pub world: SharedWorld,
    pub commander: Commander,
    /// As this life has it.
    pub plugin: SimPlugin,
    pub settings: Arc<Consumer>,
    pub life: u64,
}

impl Desk {
    /// When the next deed is due.
    pub fn due(&self) -> Option<Instant> {
        self.rollout.lock().due()
    }

    /// Does what is due.
    pub fn work(&self) {
        while self.due().is_some_and(|due| due <= Instant::now()) {
            let Some(deed) = self.rollout.lock().deeds.pop_front() else {
                return;
            };
            self.clone().carry_out(deed.what);
        }
    }

    fn carry_out(self, what: What) {
        match what {
            What::Deploy {
                manner,
                probation,
                max_failure_ratio,
                breaker,
            } => {
                let version = self.rollout.lock().version(manner);
                let circuit_breaker = self.settings.circuit_breaker.filter(|_| breaker);
                let settings = Consumer {
                    circuit_breaker,
                    deploy: Deploy {
                        probation,
                        max_failure_ratio,
                        ..Deploy::default()
                    },
                    ..(*self.settings).clone()
                };
                tokio::spawn(self.deploy(version, Arc::new(settings)));
            }
            What::RollBack => {
                self.note(|| "an operator rolls back".to_owned());
                let version = self.rollout.lock().version(Manner::Good);
                let settings = self.settings.clone();
                tokio::spawn(self.deploy(version, settings));
            }
            What::Shadow {
                manner,
                events,
                within,
                gives_up,
            } => {
                let version = self.rollout.lock().version(manner);
                tokio::spawn(self.shadow(version, events, within, gives_up));
            }
            What::Pause(lasts) => {
                tokio::spawn(self.pause(lasts));
            }
        }
    }

    async fn deploy(self, version: Version, settings: Arc<Consumer>) {
        let probation = settings.deploy.probation;
        self.note(|| format!("deploy of {version}, probation {probation:?}"));
        let proves_itself = !probation.is_zero();
        self.world.lock().versions.deployed(version, proves_itself);
        if !proves_itself {
            // A life that ends before it takes the version leaves it to the next one: it is saved.
            self.rollout.lock().trust(version);
        }
        let plugin = Arc::new(self.plugin.of(version));
        let first = match version.number % 2 {
            0 => plugin.instantiate().await.ok(),
            _ => None,
        };
        let generation = Generation::new(version.number, plugin, settings);
        let Ok(told) = self.commander.swap(Arc::new(generation), first).await else {
            if version.manner == Manner::Good && !proves_itself {
                self.note(|| format!("deploy: {version} was not taken up, and comes again"));
                self.rollout.lock().deeds.push_front(Deed {
                    at: Duration::ZERO,
                    what: What::RollBack,
                });
            }
            return;
        };
        self.fleet.lock().take_over(version.number);
        self.note(|| format!("deployed: {version} takes over"));
        match told.await {
            Ok(Ended::Passed) => {
                self.note(|| format!("deploy: {version} is trusted"));
                self.world.lock().versions.trusted(version);
                self.rollout.lock().trust(version);
            }
            Ok(Ended::RolledBack { to, reason }) => {
                self.note(|| {
                    format!("deploy: {version} is taken back, version {to} takes over: {reason}")
                });
                self.fleet.lock().take_over(to);
            }
            Ok(Ended::Replaced) => {
                self.note(|| format!("deploy: {version} is replaced before it is judged"));
            }
            // The life ended.
            Err(_) => {}
        }
    }

    async fn shadow(self, version: Version, events: u64, within: Duration, gives_up: bool) {
        self.note(|| format!("shadow: {version} for {events} events, within {within:?}"));
        self.world.lock().versions.shadowed(version);
        let plugin = Arc::new(self.plugin.in_shadow_of(version));
        let generation = Generation::new(version.number, plugin, self.settings.clone());
        let asked = self.commander.shadow(Arc::new(generation), events, within);
        let Ok(told) = asked.await else {
            return;
        };
        let told = match gives_up {
            true => tokio::time::timeout(within / 2, told).await.ok(),
            false => Some(told.await),
        };
        self.note(|| match told {
            Some(Ok(Ok(report))) => format!(
                "shadow: {version} is reported on: {} events, {} failed",
                report.events(),
                report.failed
            ),
            Some(Ok(Err(reason))) => format!("shadow: {version} ends: {reason}"),
            Some(Err(_)) | None => format!("shadow: {version} ends without a report"),
        });
    }

    async fn pause(self, lasts: Duration) {
        if self.commander.pause().await.is_err() {
            return;
        }
        self.fleet.lock().paused = Some(Instant::now());
        self.note(|| "an operator pauses the consumer".to_owned());
        tokio::time::sleep(lasts).await;
        self.fleet.lock().paused = None;
        self.note(|| "an operator lets the consumer go on".to_owned());
        // Who ended meanwhile is not paused either.
        let _ = self.commander.resume().await;
    }

    fn note(&self, text: impl FnOnce() -> String) {
        let life = self.life;
        let text = || format!("{}, life {life}", text());
        self.world.lock().trace.note(About::All, text);
    }
}
