//! A plugin that does what the first byte of each event's value says.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures::future::BoxFuture;
use millstream::consumer::status::SharedStatus;
use millstream::decide::breaker::Phase;
use millstream::plugin::{CallContext, CallError, Instance, Plugin, PluginInfo, StartError};
use millstream_wire as wire;
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::trace::About;
use crate::world::{SharedWorld, show};

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
struct Shared {
    attempts: Attempts,
    outages: Mutex<Vec<Outage>>,
    /// From when on it handles what it failed at before.
    mended: AtomicBool,
    seen: Mutex<BTreeMap<(u32, u64), u32>>,
}

/// The plugin under test, as one life of the consumer has it.
pub struct SimPlugin {
    info: PluginInfo,
    shared: Arc<Shared>,
    seed: u64,
    caller: Option<Caller>,
}

/// Who calls.
#[derive(Clone)]
struct Caller {
    life: u64,
    world: SharedWorld,
    status: SharedStatus,
}

impl SimPlugin {
    /// A plugin whose accidents follow `seed`.
    pub fn new(seed: u64) -> Self {
        Self {
            info: PluginInfo {
                digest: "sha256:00".into(),
                contract: "0.1.0".into(),
                size: 1,
            },
            shared: Arc::default(),
            seed,
            caller: None,
        }
    }

    /// The same one, called by this life of the consumer. Checks that it makes no call while its
    /// breaker is open (I7), and none for what an operator skipped.
    pub fn for_life(&self, life: u64, world: SharedWorld, status: SharedStatus) -> Self {
        Self {
            info: self.info.clone(),
            shared: self.shared.clone(),
            seed: self.seed ^ life,
            caller: Some(Caller {
                life,
                world,
                status,
            }),
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
        let instance = SimInstance {
            shared: self.shared.clone(),
            random: fastrand::Rng::with_seed(self.seed),
            caller: self.caller.clone(),
        };
        Box::pin(async move { Ok(Box::new(instance) as Box<dyn Instance>) })
    }

    fn info(&self) -> &PluginInfo {
        &self.info
    }
}

struct SimInstance {
    shared: Arc<Shared>,
    random: fastrand::Rng,
    caller: Option<Caller>,
}

impl Instance for SimInstance {
    fn process<'a>(
        &'a mut self,
        batch: wire::Batch<'a>,
        context: &'a CallContext,
    ) -> BoxFuture<'a, Result<wire::Checked, CallError>> {
        Box::pin(async move {
            self.check_call(&batch);
            tokio::time::sleep(Duration::from_micros(self.random.u64(0..3_000))).await;
            let answered = self.answer(&batch, context).await;
            self.note_answer(&batch, &answered);
            let handled = match &answered {
                Ok(outcome) => outcome.handled as usize,
                // Whatever it did to any of them it may have done.
                Err(_) => batch.events.len(),
            };
            self.see(&batch.events[..handled.min(batch.events.len())]);
            let outcome = answered?;
            let limits = wire::Limits {
                outputs: 10_000,
                output_bytes: 1 << 24,
                headers: 64,
            };
            wire::check(&batch, outcome, 1, &limits)
                .map_err(|error| CallError::Invalid(error.to_string()))
        })
    }

    fn memory_bytes(&self) -> u64 {
        1
    }
}

impl SimInstance {
    /// Remembers what the plugin has had in its hands.
    fn see(&self, events: &[wire::Event]) {
        let mut seen = self.shared.seen.lock();
        for event in events {
            *seen.entry((event.partition, event.offset)).or_default() += 1;
        }
    }

    /// A call that was let through at the very instant of the breaker's opening was let through
    /// before it. At most once, what is claimed while it was closed is called whatever became of it:
    /// it would be lost.
    fn check_call(&self, batch: &wire::Batch<'_>) {
        let Some(caller) = &self.caller else {
            return;
        };
        let (breaker, now) = (caller.status.lock().breaker.clone(), Instant::now());
        let world = &mut *caller.world.lock();
        let (life, events, about) = (caller.life, batch.events.len(), about(batch));
        world
            .trace
            .note(about, || format!("called: {}, life {life}", range(batch)));
        let wrong = match breaker.phase {
            Phase::Open => breaker.since < now,
            Phase::HalfOpen => breaker.since < now && events > 1,
            Phase::Closed => false,
        };
        if wrong && !world.claims {
            let phase = breaker.phase.name();
            let text = format!("I7: a call with {events} events while the breaker is {phase}");
            world.trace.violate(about, text);
        }
        for event in batch.events {
            let place = (event.partition, event.offset);
            if life == world.life && world.skipped.contains(&place) {
                let text = format!("skip: {} comes again", show(place.0, place.1));
                world.trace.violate(About::event(place.0, place.1), text);
            }
        }
    }

    fn note_answer(&self, batch: &wire::Batch<'_>, answered: &Result<wire::Outcome, CallError>) {
        let Some(caller) = &self.caller else {
            return;
        };
        let life = caller.life;
        caller.world.lock().trace.note(about(batch), || {
            let what = match answered {
                Ok(outcome) => {
                    let (outputs, failures) = (outcome.outputs.len(), outcome.failures.len());
                    let handled = outcome.handled;
                    format!("{handled} handled, {outputs} derived, {failures} failed")
                }
                Err(error) => error.to_string(),
            };
            format!("answered: {}: {what}, life {life}", range(batch))
        });
    }

    async fn answer(
        &mut self,
        batch: &wire::Batch<'_>,
        context: &CallContext,
    ) -> Result<wire::Outcome, CallError> {
        let mut outcome = wire::Outcome::default();
        // Now and then it answers less than it was asked, as a plugin short of time does.
        let patience = match self.random.f64() < 0.1 {
            true => self.random.usize(1..=batch.events.len()),
            false => batch.events.len(),
        };
        for (index, event) in batch.events.iter().take(patience).enumerate() {
            let value = event.value.of(batch.data).unwrap_or_default();
            let mut value = std::str::from_utf8(value).unwrap_or_default();
            if self.shared.mended.load(Ordering::Relaxed) && is_poison(value) {
                value = "forward";
            }
            let index = index as u32;
            match value {
                "trap" => return Err(CallError::Trap("unreachable".to_owned())),
                "hang" => {
                    tokio::time::sleep(context.deadline).await;
                    return Err(CallError::Deadline(context.deadline));
                }
                "garbage" => outcome.outputs.push(wire::Output {
                    source: u32::MAX - 1,
                    ..wire::Output::default()
                }),
                "drop" => {}
                "reject" => fail(&mut outcome, index, wire::REMEDY_REJECT),
                _ => match self.pending(value, event) {
                    Some(Sign::Trap) => return Err(CallError::Trap("unreachable".to_owned())),
                    Some(Sign::Hang) => {
                        tokio::time::sleep(context.deadline).await;
                        return Err(CallError::Deadline(context.deadline));
                    }
                    Some(Sign::Unavailable) => {
                        fail(&mut outcome, index, wire::REMEDY_UNAVAILABLE);
                        return Ok(outcome);
                    }
                    Some(Sign::Retry) => {
                        fail(&mut outcome, index, wire::REMEDY_RETRY);
                        if batch.bits & wire::BATCH_IN_ORDER != 0 {
                            outcome.handled += 1;
                            return Ok(outcome);
                        }
                    }
                    None => outcome.outputs.push(wire::Output {
                        source: index,
                        ..wire::Output::default()
                    }),
                },
            }
            outcome.handled += 1;
        }
        Ok(outcome)
    }

    /// How an event fails that will not always.
    fn pending(&self, value: &str, event: &wire::Event) -> Option<Sign> {
        let now = Instant::now();
        let outages = self.shared.outages.lock();
        let mut outages = outages.iter();
        if let Some(outage) = outages.find(|outage| outage.from <= now && now < outage.until) {
            return Some(outage.sign);
        }
        let (sign, times) = match value.strip_prefix('~') {
            Some(times) => (Sign::Retry, times),
            None => (Sign::Unavailable, value.strip_prefix("unavailable")?),
        };
        let mut attempts = self.shared.attempts.lock();
        let attempt = attempts.entry((event.partition, event.offset)).or_default();
        *attempt += 1;
        let fails = times.parse().is_ok_and(|times: u32| *attempt <= times);
        fails.then_some(sign)
    }
}

/// The events of a batch, which are of one partition.
fn about(batch: &wire::Batch<'_>) -> About {
    let ends = batch.events.first().zip(batch.events.last());
    ends.map_or(About::All, |(first, last)| {
        About::Events(first.partition, first.offset, last.offset)
    })
}

fn range(batch: &wire::Batch<'_>) -> String {
    let ends = batch.events.first().zip(batch.events.last());
    ends.map_or(String::new(), |(first, last)| match batch.events.len() {
        1 => show(first.partition, first.offset),
        events => format!(
            "{events} events from {} to {}",
            show(first.partition, first.offset),
            last.offset
        ),
    })
}

fn fail(outcome: &mut wire::Outcome, event: u32, remedy: u32) {
    outcome.failures.push(wire::Failure {
        event,
        remedy,
        // Now its own time, now the runtime's.
        after_ms: event % 3 * 5,
        ..wire::Failure::default()
    });
}
