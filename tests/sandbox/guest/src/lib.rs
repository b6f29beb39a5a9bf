//! A plugin that does what no plugin should. The value of an event is a command, see `deeds`; the
//! `init` of its configuration is one of `trap`, `spin`, `misconfigured`, `unavailable`, `hungry`,
//! `verbose`, `sleep`, `exit`, or `honest`: then it forwards all events without a look at them, for measurements of the wall.
//!
//! It is written on the bare bindings, so that it can break the rules that an SDK keeps.
#![cfg(target_family = "wasm")]
#![allow(
    clippy::disallowed_methods,
    reason = "the guest's clock and sleep are what is tested"
)]

mod answer;
mod deeds;
mod excess;
mod forgery;

wit_bindgen::generate!({
    path: "../../../wit/0.1",
    world: "consumer",
});

use std::cell::Cell;

use answer::Answer;
use exports::millstream::plugin::handler::{Batch, Guest, InitError, Outcome, Setup};

struct Hostile;

thread_local! {
    /// How many calls this instance has had: its memory, which must be its own.
    static CALLS: Cell<u32> = const { Cell::new(0) };
    static HONEST: Cell<bool> = const { Cell::new(false) };
}

impl Guest for Hostile {
    fn init(setup: Setup) -> Result<(), InitError> {
        let asked = |deed: &str| setup.config.contains(&format!("\"init\":\"{deed}\""));
        if asked("trap") {
            panic!("init was told to");
        }
        if asked("spin") {
            deeds::spin();
        }
        if asked("misconfigured") {
            return Err(InitError::Misconfigured("no currency".into()));
        }
        if asked("unavailable") {
            return Err(InitError::Unavailable("rates are loading".into()));
        }
        if asked("hungry") {
            deeds::eat(usize::MAX);
        }
        if asked("verbose") {
            return Err(InitError::Misconfigured("x".repeat(8 << 20)));
        }
        if asked("sleep") {
            std::thread::sleep(std::time::Duration::from_secs(3_600));
        }
        if asked("exit") {
            std::process::exit(0);
        }
        HONEST.set(asked("honest"));
        Ok(())
    }

    fn process(batch: Batch) -> Outcome {
        CALLS.set(CALLS.get() + 1);
        let mut answer = Answer::new(batch.events.len());
        if HONEST.get() {
            answer.0.outputs.reserve_exact(batch.events.len());
            (0..batch.events.len() as u32).for_each(|event| {
                answer.forward(event);
            });
            return answer.finish();
        }
        for (index, event) in batch.events.iter().enumerate() {
            let span = event.value;
            let value = &batch.data[span.start as usize..][..span.length as usize];
            let command = std::str::from_utf8(value).unwrap_or_default();
            let call = deeds::Call {
                number: CALLS.get(),
                attempt: event.attempt,
            };
            deeds::act(&mut answer, index as u32, command, call);
            // An event that ends the batch before its end: what follows comes again.
            if (answer.0.handled as usize) < batch.events.len() {
                break;
            }
        }
        answer.finish()
    }
}

export!(Hostile);
