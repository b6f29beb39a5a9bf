//! One call into a plugin: borrow an instance, lower the batch, put the answer together.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::assemble::{self, Answer, Context};
use super::generation::Generation;
use super::guard::Witness;
use super::instances::Borrowed;
use super::trial_room::Noting;
use super::work::{Packed, Work};
use crate::clock;
use crate::config::Ordering;
use crate::decide::pace;
use crate::plugin::{CallContext, CallError, Instance, StartError};

/// What is to be done.
pub struct Call {
    pub generation: Arc<Generation>,
    /// An idle instance of that generation, or none.
    pub borrowed: Borrowed,
    pub work: Work,
    /// Tells the breaker how it went.
    pub witness: Witness,
    /// Where a death in the call is to be known for one.
    pub noting: Option<Noting>,
}

/// What came of it.
pub struct Done {
    pub generation: Arc<Generation>,
    pub witness: Witness,
    /// Gone after a trap.
    pub instance: Option<Box<dyn Instance>>,
    /// The linear memory that the instance began with, in bytes.
    pub memory: u64,
    pub work: Work,
    pub result: Result<Answer, Trouble>,
    /// How long the plugin took; without the start of the instance.
    pub took: Duration,
    /// How long the instance took to start, where one was started.
    pub started: Option<Result<Duration, ()>>,
}

/// Why there is no ordinary answer.
#[derive(Debug)]
pub enum Trouble {
    /// The instance did not start; the events were not touched.
    Start(StartError),
    /// The call failed; the answer says what becomes of its events.
    Call(CallError, Box<Answer>),
}

/// Makes the call. Never fails: trouble is part of the result.
pub async fn run(call: Call) -> Done {
    let Call {
        generation,
        borrowed: Borrowed { instance, memory },
        work,
        witness,
        noting,
    } = call;
    let (mut instance, started) = match instance {
        Some(instance) => (instance, None),
        None => {
            let begun = Instant::now();
            match generation.plugin.instantiate().await {
                Ok(instance) => (instance, Some(Ok(begun.elapsed()))),
                Err(error) => {
                    return Done {
                        generation,
                        witness,
                        instance: None,
                        memory,
                        work,
                        result: Err(Trouble::Start(error)),
                        took: Duration::ZERO,
                        started: Some(Err(())),
                    };
                }
            }
        }
    };
    let begun = Instant::now();
    // Not before: the start of an instance is no event's fault.
    let noted = noting.as_ref().map(Noting::begin);
    let result = process(&generation, instance.as_mut(), &work, &witness, begun).await;
    drop(noted);
    let took = begun.elapsed();
    Done {
        generation,
        witness,
        instance: instance.alive().then_some(instance),
        memory,
        work,
        result,
        took,
        started,
    }
}

/// Hands a batch to an instance and puts the answer together. `begun` is when the call began.
pub async fn process(
    generation: &Generation,
    instance: &mut dyn Instance,
    work: &Work,
    witness: &Witness,
    begun: Instant,
) -> Result<Answer, Trouble> {
    let settings = &generation.settings;
    let deadline = pace::budget(settings.limits.deadline, settings.limits.call, work.len());
    let packed = Packed::new(work, work.is_of(|topic| settings.is_replay_topic(topic)));
    let budget_ms = u32::try_from(deadline.as_millis()).unwrap_or(u32::MAX);
    let batch = packed.batch(budget_ms, settings.ordering == Ordering::Partition);
    let answered = instance.process(batch, &CallContext { deadline }).await;
    let context = Context {
        generation,
        now: begun.max(Instant::now()),
        now_ms: clock::now_ms(),
        dice: fastrand::f64(),
    };
    match answered {
        Ok(checked) => Ok(assemble::answered(
            &context, work, &batch, &checked, witness,
        )),
        Err(error) => {
            let answer = assemble::call_failed(&context, work, &error, witness);
            Err(Trouble::Call(error, Box::new(answer)))
        }
    }
}
