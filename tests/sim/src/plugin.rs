//! A plugin whose good versions do what the value of each event says, and what a run knows of it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use futures::future::BoxFuture;
use millstream::consumer::status::SharedStatus;
use millstream::plugin::{CallError, Instance, Plugin, PluginInfo, StartError};
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::instance::SimInstance;
use crate::rollout::SharedFleet;
use crate::trace::About;
use crate::version::{Manner, Version};
use crate::world::{SharedWorld, show};

/// The header of a derived event that says which version made it.
pub const VERSION: &str = "version";

/// A command for an event: mostly forward.
pub fn command(random: &mut fastrand::Rng) -> String {
    let tries = random.u32(1..4);
    match random.u32(0..100) {
        0..3 => "trap".to_owned(),
        3..5 => "hang".to_owned(),
        5..8 => "reject".to_owned(),
        8..12 => format!("~{tries}"),
        12..15 => "drop".to_owned(),
        15..17 => "garbage".to_owned(),
        17..20 => format!("unavailable{tries}"),
        20..22 => "unwanted".to_owned(),
        _ => "forward".to_owned(),
    }
}

/// Whether the plugin drops an event with this value.
pub fn is_dropped(value: &str) -> bool {
    value == "drop"
}

/// Whether the broker takes no event that is derived from one with this value.
pub fn is_unwanted(value: &str) -> bool {
    value == "unwanted"
}

/// Whether the plugin fails at an event with this value until it is mended.
pub fn is_poison(value: &str) -> bool {
    !is_unwanted(value) && reason(value).is_some()
}

/// Where an event with this value must end: as a dead letter with this reason, or derived.
pub fn reason(value: &str) -> Option<&'static str> {
    match value {
        "trap" => Some("trap"),
        "hang" => Some("deadline"),
        "reject" => Some("rejected"),
        "garbage" => Some("invalid"),
        "unwanted" => Some("undeliverable"),
        _ => None,
    }
}

/// Counts attempts over instances, as a service outside of the sandbox would.
type Attempts = Arc<Mutex<BTreeMap<(u32, u64), u32>>>;

/// A life, a version of it, and the partition and offset of an event that it was called with.
pub(crate) type Met = (u64, u64, (u32, u64));

/// How it shows that what the plugin depends on is down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sign {
    Retry,
    Unavailable,
    /// It does not even notice, and breaks.
    Trap,
    /// It waits for it.
    Hang,
}

impl Sign {
    /// Whether an event that fails so takes all of its attempts to count more than once.
    pub fn is_slow(self) -> bool {
        matches!(self, Self::Trap | Self::Hang)
    }
}

/// A time in which what the plugin depends on is down.
#[derive(Clone, Copy, Debug)]
pub struct Outage {
    pub from: Instant,
    pub until: Instant,
    /// What becomes of every event that would be forwarded.
    pub sign: Sign,
}

/// What all instances share.
#[derive(Default)]
pub(crate) struct Shared {
    pub(crate) attempts: Attempts,
    pub(crate) outages: Mutex<Vec<Outage>>,
    /// From when on it handles what it failed at before.
    pub(crate) mended: AtomicBool,
    pub(crate) seen: Mutex<BTreeMap<(u32, u64), u32>>,
    pub(crate) met: Mutex<BTreeSet<Met>>,
}

/// A version of the plugin under test, as one life of the consumer has it.
#[derive(Clone)]
pub struct SimPlugin {
    info: PluginInfo,
    shared: Arc<Shared>,
    seed: u64,
    version: Version,
    /// Whether nothing follows from what it says.
    shadow: bool,
    caller: Option<Caller>,
}

/// Who calls.
#[derive(Clone)]
pub struct Caller {
    pub life: u64,
    pub world: SharedWorld,
    pub status: SharedStatus,
    pub fleet: SharedFleet,
}

impl SimPlugin {
    /// A plugin whose accidents follow `seed`.
    pub fn new(seed: u64) -> Self {
        Self {
            info: PluginInfo {
                digest: Version::FIRST.digest().into(),
                contract: "0.1.0".into(),
                size: 1,
            },
            shared: Arc::default(),
            seed,
            version: Version::FIRST,
            shadow: false,
            caller: None,
        }
    }

    /// The same one, called by this life of the consumer. Checks that it makes no call while its
    /// breaker is open (I7), none for what an operator skipped, none while it is paused, and none of
    /// a version after another one took over (I9).
    pub fn for_life(&self, caller: Caller) -> Self {
        Self {
            seed: self.seed ^ caller.life,
            caller: Some(caller),
            ..self.clone()
        }
    }

    /// Another version of it.
    pub fn of(&self, version: Version) -> Self {
        let mut plugin = self.clone();
        plugin.info.digest = version.digest().into();
        plugin.seed ^= (version.number - Version::FIRST.number) << 32;
        plugin.version = version;
        plugin
    }

    /// Another version of it, from whose calls nothing may follow.
    pub fn in_shadow_of(&self, version: Version) -> Self {
        Self {
            shadow: true,
            ..self.of(version)
        }
    }

    /// Events fail in these times.
    pub fn fail_in(&self, outages: Vec<Outage>) {
        *self.shared.outages.lock() = outages;
    }

    /// From now on every event is handled.
    pub fn mend(&self) {
        self.shared.mended.store(true, Ordering::Relaxed);
    }

    /// I2, at most once: the plugin sees no event again.
    pub fn repeats(&self) -> Vec<(About, String)> {
        let seen = self.shared.seen.lock();
        let repeated = seen.iter().filter(|(_, times)| **times > 1);
        let text = |(&(partition, offset), times): (&(u32, u64), &u32)| {
            let event = show(partition, offset);
            let text = format!("I2: the plugin saw {event} {times} times");
            (About::event(partition, offset), text)
        };
        repeated.map(text).collect()
    }
}

impl Plugin for SimPlugin {
    fn instantiate(&self) -> BoxFuture<'_, Result<Box<dyn Instance>, StartError>> {
        let mended = self.shared.mended.load(Ordering::Relaxed);
        if let Manner::NeverStarts { misconfigured } = self.version.manner
            && !mended
        {
            let error = match misconfigured {
                true => StartError::Misconfigured("no such table".to_owned()),
                false => StartError::Failed(CallError::Trap("unreachable".to_owned())),
            };
            return Box::pin(std::future::ready(Err(error)));
        }
        if let Some(caller) = self.caller.as_ref().filter(|_| !self.shadow) {
            caller.fleet.lock().started += 1;
        }
        let instance = SimInstance {
            shared: self.shared.clone(),
            random: fastrand::Rng::with_seed(self.seed),
            version: self.version,
            shadow: self.shadow,
            caller: self.caller.clone(),
        };
        Box::pin(async move { Ok(Box::new(instance) as Box<dyn Instance>) })
    }

    fn info(&self) -> &PluginInfo {
        &self.info
    }
}
