//! A running instance of the plugin: it obeys the value of each event, as its version reads it, and
//! checks that it may be called.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures::future::BoxFuture;
use millstream::decide::breaker::Phase;
use millstream::plugin::{CallContext, CallError, Instance};
use millstream_wire as wire;
use tokio::time::Instant;

use crate::plugin::{Caller, Shared, Sign, VERSION, is_poison};
use crate::trace::About;
use crate::version::Version;
use crate::world::show;

/// See the module.
pub(crate) struct SimInstance {
    pub(crate) shared: Arc<Shared>,
    pub(crate) random: fastrand::Rng,
    pub(crate) version: Version,
    /// Whether nothing follows from what it says.
    pub(crate) shadow: bool,
    pub(crate) caller: Option<Caller>,
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
    /// Remembers what the plugin has had in its hands, and did more with than to be compared.
    fn see(&self, events: &[wire::Event]) {
        if self.shadow {
            return;
        }
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
        let number = self.version.number;
        world.trace.note(about, || {
            let shadow = if self.shadow { " in shadow" } else { "" };
            let events = range(batch);
            format!("called: version {number}{shadow} with {events}, life {life}")
        });
        if self.shadow {
            return;
        }
        let fleet = caller.fleet.lock();
        // What was let through at the very instant was let through before.
        if fleet.current != number && fleet.since < now {
            let current = fleet.current;
            let text = format!("I9: version {number} is called after {current} took over");
            world.trace.violate(about, text);
        }
        // What is claimed would be lost.
        if fleet.paused.is_some_and(|since| since < now) && !world.claims {
            let text = "I9: a call while the consumer is paused".to_owned();
            world.trace.violate(about, text);
        }
        drop(fleet);
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
        let mut met = self.shared.met.lock();
        for event in batch.events {
            let place = (event.partition, event.offset);
            if met.insert((life, number, place)) && event.attempt > 1 {
                let text = format!(
                    "I9: {} is new to version {number}, and comes with attempt {}",
                    show(place.0, place.1),
                    event.attempt
                );
                world.trace.violate(About::event(place.0, place.1), text);
            }
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
            match self.shared.mended.load(Ordering::Relaxed) {
                true if is_poison(value) => value = "forward",
                true => {}
                false => value = self.version.makes_of(event.partition, event.offset, value),
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
                "halt" => {
                    fail(&mut outcome, index, wire::REMEDY_HALT);
                    return Ok(outcome);
                }
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
                    None => self.derive(&mut outcome, index),
                },
            }
            outcome.handled += 1;
        }
        Ok(outcome)
    }

    /// An event is derived, which says by whom.
    fn derive(&self, outcome: &mut wire::Outcome, source: u32) {
        if outcome.headers.is_empty() {
            let number = self.version.number.to_string();
            outcome.data.extend(VERSION.bytes().chain(number.bytes()));
            let (name, value) = (VERSION.len() as u32, number.len() as u32);
            outcome.headers.push(wire::Header {
                name: wire::Span {
                    start: 0,
                    length: name,
                },
                value: wire::Span {
                    start: name,
                    length: value,
                },
                bits: 0,
            });
        }
        outcome.outputs.push(wire::Output {
            source,
            headers_count: 1,
            ..wire::Output::default()
        });
    }

    /// How an event fails that will not always, or not by another version.
    fn pending(&self, value: &str, event: &wire::Event) -> Option<Sign> {
        match value {
            "retry" => return Some(Sign::Retry),
            "down" => return Some(Sign::Unavailable),
            _ => {}
        }
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
        if self.shadow {
            return None;
        }
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
