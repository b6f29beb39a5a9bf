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
        _ => "forward".to_owned(),
    }
}

/// Whether the plugin drops an event with this value.
pub fn is_dropped(value: &str) -> bool {
    value == "drop"
}

/// Where an event with this value must end: as a dead letter with this reason, or derived.
pub fn reason(value: &str) -> Option<&'static str> {
    match value {
        "trap" => Some("trap"),
        "hang" => Some("deadline"),
        "reject" => Some("rejected"),
        "garbage" => Some("invalid"),
        _ => None,
    }
}

/// Counts attempts over instances, as a service outside of the sandbox would.
type Attempts = Arc<Mutex<BTreeMap<(u32, u64), u32>>>;

/// A time in which what the plugin depends on is down.
#[derive(Clone, Copy, Debug)]
pub struct Outage {
    pub from: Instant,
    pub until: Instant,
    /// What the plugin says of every event that it would forward.
    pub remedy: u32,
}

/// What all instances share.
#[derive(Default)]
struct Shared {
    attempts: Attempts,
    outages: Mutex<Vec<Outage>>,
    /// From when on it handles what it failed at before.
    mended: AtomicBool,
    /// Of the consumer that calls it.
    watched: Mutex<Option<SharedStatus>>,
    violations: Mutex<Vec<String>>,
    seen: Mutex<BTreeMap<(u32, u64), u32>>,
}

/// The plugin under test.
pub struct SimPlugin {
    info: PluginInfo,
    shared: Arc<Shared>,
    seed: u64,
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

    /// Checks from now on that this consumer makes no call while its breaker is open (I7).
    pub fn watch(&self, status: SharedStatus) {
        *self.shared.watched.lock() = Some(status);
    }

    /// What was seen of calls that must not be.
    pub fn violations(&self) -> Vec<String> {
        self.shared.violations.lock().clone()
    }

    /// I2, at most once: the plugin sees no event again.
    pub fn repeats(&self) -> Vec<String> {
        let seen = self.shared.seen.lock();
        let repeated = seen.iter().filter(|(_, times)| **times > 1);
        repeated
            .map(|(place, times)| format!("I2: the plugin saw {place:?} {times} times"))
            .collect()
    }
}

impl Plugin for SimPlugin {
    fn instantiate(&self) -> BoxFuture<'_, Result<Box<dyn Instance>, StartError>> {
        let instance = SimInstance {
            shared: self.shared.clone(),
            random: fastrand::Rng::with_seed(self.seed),
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
}

impl Instance for SimInstance {
    fn process<'a>(
        &'a mut self,
        batch: wire::Batch<'a>,
        context: &'a CallContext,
    ) -> BoxFuture<'a, Result<wire::Checked, CallError>> {
        Box::pin(async move {
            self.check_breaker(&batch);
            tokio::time::sleep(Duration::from_micros(self.random.u64(0..3_000))).await;
            let answered = self.answer(&batch, context).await;
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

    /// I7. A call that was let through at the very instant of the opening was let through before.
    fn check_breaker(&self, batch: &wire::Batch<'_>) {
        let Some(status) = self.shared.watched.lock().clone() else {
            return;
        };
        let (breaker, now) = (status.lock().breaker.clone(), Instant::now());
        let wrong = match breaker.phase {
            Phase::Open => breaker.since < now,
            Phase::HalfOpen => breaker.since < now && batch.events.len() > 1,
            Phase::Closed => false,
        };
        if wrong {
            let (phase, events) = (breaker.phase.name(), batch.events.len());
            let text = format!("I7: a call with {events} events while the breaker is {phase}");
            self.shared.violations.lock().push(text);
        }
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
            let value = std::str::from_utf8(value).unwrap_or_default();
            let index = index as u32;
            match value {
                _ if self.shared.mended.load(Ordering::Relaxed) && reason(value).is_some() => {
                    outcome.outputs.push(wire::Output {
                        source: index,
                        ..wire::Output::default()
                    });
                }
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
                    Some(wire::REMEDY_UNAVAILABLE) => {
                        fail(&mut outcome, index, wire::REMEDY_UNAVAILABLE);
                        return Ok(outcome);
                    }
                    Some(remedy) => {
                        fail(&mut outcome, index, remedy);
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

    /// The remedy of an event that still fails this time.
    fn pending(&self, value: &str, event: &wire::Event) -> Option<u32> {
        let now = Instant::now();
        let outages = self.shared.outages.lock();
        let mut outages = outages.iter();
        if let Some(outage) = outages.find(|outage| outage.from <= now && now < outage.until) {
            return Some(outage.remedy);
        }
        let (remedy, times) = match value.strip_prefix('~') {
            Some(times) => (wire::REMEDY_RETRY, times),
            None => (wire::REMEDY_UNAVAILABLE, value.strip_prefix("unavailable")?),
        };
        let mut attempts = self.shared.attempts.lock();
        let attempt = attempts.entry((event.partition, event.offset)).or_default();
        *attempt += 1;
        let fails = times.parse().is_ok_and(|times: u32| *attempt <= times);
        fails.then_some(remedy)
    }
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
