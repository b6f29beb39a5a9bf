//! A plugin that does what the first byte of each event's value says.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use millstream::plugin::{CallContext, CallError, Instance, Plugin, PluginInfo, StartError};
use millstream_wire as wire;
use parking_lot::Mutex;

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

/// The plugin under test.
pub struct SimPlugin {
    info: PluginInfo,
    attempts: Attempts,
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
            attempts: Attempts::default(),
            seed,
        }
    }
}

impl Plugin for SimPlugin {
    fn instantiate(&self) -> BoxFuture<'_, Result<Box<dyn Instance>, StartError>> {
        let instance = SimInstance {
            attempts: self.attempts.clone(),
            random: fastrand::Rng::with_seed(self.seed),
        };
        Box::pin(async move { Ok(Box::new(instance) as Box<dyn Instance>) })
    }

    fn info(&self) -> &PluginInfo {
        &self.info
    }
}

struct SimInstance {
    attempts: Attempts,
    random: fastrand::Rng,
}

impl Instance for SimInstance {
    fn process<'a>(
        &'a mut self,
        batch: wire::Batch<'a>,
        context: &'a CallContext,
    ) -> BoxFuture<'a, Result<wire::Checked, CallError>> {
        Box::pin(async move {
            tokio::time::sleep(Duration::from_micros(self.random.u64(0..3_000))).await;
            let outcome = self.answer(&batch, context).await?;
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
        let (remedy, times) = match value.strip_prefix('~') {
            Some(times) => (wire::REMEDY_RETRY, times),
            None => (wire::REMEDY_UNAVAILABLE, value.strip_prefix("unavailable")?),
        };
        let mut attempts = self.attempts.lock();
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
        ..wire::Failure::default()
    });
}
