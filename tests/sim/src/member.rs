//! One membership of the group, and how hostile the broker is to it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use millstream::broker::{Commit, Session};
use millstream::config::OnLostPosition;
use millstream::consumer::status::SharedStatus;
use parking_lot::Mutex;
use tokio::sync::Mutex as AsyncMutex;
use tokio::time::Instant;

use crate::coordinator::Ticket;
use crate::sink::SimSink;
use crate::source::{SimControl, SimSource};
use crate::trace::About;
use crate::world::SharedWorld;

/// How hostile the broker is: chances from 0 to 1.
#[derive(Clone, Copy, Debug, Default)]
pub struct Hostility {
    pub revoke: f64,
    pub publish_fails: f64,
    pub commit_fails: f64,
    /// That a request takes long, up to a second and a half.
    pub slow: f64,
    /// That what failed goes on failing for up to a second and a half.
    pub sticky: f64,
}

/// What a consumer joins with.
#[derive(Clone, Copy, Debug)]
pub struct Joining {
    /// Tells this life of the consumer from those before.
    pub life: u64,
    pub seed: u64,
    pub hostility: Hostility,
    pub transactional_id: u64,
    pub on_lost: OnLostPosition,
    /// The most events in a block.
    pub most: usize,
}

/// How a member stands to its group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    Alive,
    /// The group took its partitions away and it hears of it then: a zombie.
    Isolated(Instant),
    /// Its process is gone; what it has sent is on its way still.
    Dead,
}

/// Partitions that are ours: their assignment and where to fetch next.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Owned {
    pub(crate) assignment: u64,
    pub(crate) next: u64,
    pub(crate) told_end: Option<u64>,
    pub(crate) halted: bool,
}

/// See the module.
pub struct Member {
    pub(crate) world: SharedWorld,
    pub(crate) random: Mutex<fastrand::Rng>,
    pub(crate) joining: Joining,
    pub(crate) owned: Mutex<BTreeMap<u32, Owned>>,
    pub(crate) held: Mutex<BTreeSet<u32>>,
    pub(crate) retaken: Mutex<Vec<u32>>,
    /// Writes go one after the other: how many were tried.
    pub(crate) writing: AsyncMutex<u64>,
    /// Publications up to this one fail, with one that failed.
    pub(crate) fail_until: Mutex<u64>,
    pub(crate) producer: AsyncMutex<Option<Ticket>>,
    standing: Mutex<Standing>,
    failing_until: Mutex<Option<Instant>>,
    poisoned: Mutex<bool>,
    /// Offsets that the consumer was told to have jumped over.
    pub(crate) jumped: Mutex<u64>,
    /// What its consumer shows of itself.
    pub(crate) status: SharedStatus,
}

/// A membership in `world` of a consumer that shows this of itself.
pub fn join(world: SharedWorld, joining: Joining, status: SharedStatus) -> (Arc<Member>, Session) {
    world.lock().life = joining.life;
    let member = Arc::new(Member {
        world,
        random: Mutex::new(fastrand::Rng::with_seed(joining.seed)),
        joining,
        owned: Mutex::default(),
        held: Mutex::default(),
        retaken: Mutex::default(),
        writing: AsyncMutex::default(),
        fail_until: Mutex::default(),
        producer: AsyncMutex::default(),
        standing: Mutex::new(Standing::Alive),
        failing_until: Mutex::default(),
        poisoned: Mutex::default(),
        jumped: Mutex::default(),
        status,
    });
    let session = Session {
        source: Box::new(SimSource::new(member.clone())),
        control: Arc::new(SimControl(member.clone())),
        sink: Arc::new(SimSink::new(member.clone())),
    };
    (member, session)
}

impl Member {
    pub(crate) fn standing(&self) -> Standing {
        *self.standing.lock()
    }

    pub(crate) fn life(&self) -> u64 {
        self.joining.life
    }

    /// Its process ends.
    pub fn die(&self) {
        *self.standing.lock() = Standing::Dead;
    }

    /// The group gives its partitions to others; it hears of it after this time.
    pub fn isolate(&self, hears_after: Duration) {
        *self.standing.lock() = Standing::Isolated(Instant::now() + hears_after);
    }

    /// From now on nothing is stored for it.
    pub fn poison(&self) {
        *self.poisoned.lock() = true;
        self.world.lock().trace.note(About::All, || {
            "the store is poisoned: every write fails".to_owned()
        });
    }

    /// Offsets that its consumer was told to have jumped over.
    pub fn jumped(&self) -> u64 {
        *self.jumped.lock()
    }

    /// Partitions of which its consumer was told that it cannot go on.
    pub fn halted(&self) -> Vec<u32> {
        let owned = self.owned.lock();
        let halted = owned.iter().filter(|(_, owned)| owned.halted);
        halted.map(|(partition, _)| *partition).collect()
    }

    /// How long a request takes, and whether it fails.
    pub(crate) fn weather(&self, chance: f64) -> (Duration, bool) {
        let Hostility { slow, sticky, .. } = self.joining.hostility;
        let mut random = self.random.lock();
        let delay = match random.f64() < slow {
            true => Duration::from_millis(random.u64(50..1_500)),
            false => Duration::from_micros(random.u64(10..3_000)),
        };
        let now = Instant::now();
        let mut until = self.failing_until.lock();
        let fails = *self.poisoned.lock()
            || until.is_some_and(|until| now < until)
            || random.f64() < chance;
        if fails && random.f64() < sticky {
            *until = Some(now + Duration::from_millis(random.u64(10..1_500)));
        }
        (delay, fails)
    }

    /// A request to the broker and its answer.
    pub(crate) async fn request(&self, chance: f64) -> Result<(), String> {
        let (delay, fails) = self.weather(chance);
        tokio::time::sleep(delay).await;
        if self.standing() == Standing::Dead {
            // Nobody is there to go on.
            std::future::pending::<()>().await;
        }
        match fails {
            true => Err("timed out".to_owned()),
            false => Ok(()),
        }
    }

    /// The assignments to which commits that are made now belong. A consumer commits nothing of a
    /// partition that it gave up itself (I6).
    pub(crate) fn assignments_of(&self, commits: &[Commit]) -> Vec<u64> {
        let owned = self.owned.lock();
        let of = |commit: &Commit| {
            let partition = commit.partition.partition;
            let mine = owned.get(&partition).map(|owned| owned.assignment);
            if mine.is_none() {
                let text = format!(
                    "I6: {} is committed after it was given up",
                    commit.partition
                );
                let about = About::Partition(partition);
                self.world.lock().trace.violate(about, text);
            }
            mine.unwrap_or(0)
        };
        commits.iter().map(of).collect()
    }
}
