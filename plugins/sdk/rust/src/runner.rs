//! A running instance: takes batches, calls the plugin event by event, gives outcomes.

use millstream_wire as wire;
use wire::Remedy;

use crate::pace::Pace;
use crate::{Consumer, Error, Event, Events, Outbox, Result, Setup, host, log, metrics};

/// What the runner calls: a [`Consumer`], or in tests a plain function.
pub(crate) trait Handler {
    fn prepare(&mut self, events: Events<'_>) -> Result;
    fn handle(&mut self, event: Event<'_>, out: &mut Outbox) -> Result;
}

impl<C: Consumer> Handler for C {
    fn prepare(&mut self, events: Events<'_>) -> Result {
        Consumer::prepare(self, events)
    }

    fn handle(&mut self, event: Event<'_>, out: &mut Outbox) -> Result {
        Consumer::handle(self, event, out)
    }
}

/// An instance of a plugin and its outbox.
pub(crate) struct Runner<H> {
    handler: H,
    out: Outbox,
}

impl<C: Consumer> Runner<C> {
    /// Starts an instance.
    pub(crate) fn start(setup: Setup) -> Result<Self> {
        log::forget_levels();
        let handler = C::init(setup.settings()?, &setup)?;
        Ok(Self::new(handler, setup))
    }
}

impl<H: Handler> Runner<H> {
    pub(crate) fn new(handler: H, setup: Setup) -> Self {
        Self {
            handler,
            out: Outbox::new(setup.into_outputs()),
        }
    }

    /// Answers a batch.
    pub(crate) fn process(&mut self, batch: &wire::Batch<'_>) -> wire::Outcome {
        log::forget_levels();
        let events = Events::new(batch);
        self.out.begin(events);
        let prepared = self.handler.prepare(events);
        metrics::keep();
        let in_order = batch.bits & wire::BATCH_IN_ORDER != 0;
        let mut pace = Pace::new(batch.budget_ms);
        let mut handled = 0;
        for (index, event) in (0_u32..).zip(events.iter()) {
            host::set_current_event(Some(index));
            self.out.begin_event(index);
            let result = match &prepared {
                Ok(()) => self.handler.handle(event, &mut self.out),
                Err(error) => Err(error.duplicate()),
            };
            let next = match result {
                Ok(()) => {
                    self.out.keep_event();
                    metrics::keep();
                    Next::Go
                }
                Err(error) => {
                    self.out.fail_event(index, &error);
                    metrics::drop_current();
                    next(&error, in_order)
                }
            };
            if next != Next::StopBefore {
                handled = index + 1;
            }
            if next != Next::Go || pace.stop(handled, host::time_left_ms) {
                break;
            }
        }
        host::set_current_event(None);
        metrics::flush();
        self.out.finish(handled)
    }
}

/// How the batch goes on after an event.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Next {
    Go,
    /// The event is the last of the handled ones.
    StopAfter,
    /// The event is the first of those not handled.
    StopBefore,
}

fn next(error: &Error, in_order: bool) -> Next {
    match error.remedy() {
        Remedy::Reject => Next::Go,
        Remedy::Retry if in_order => Next::StopAfter,
        Remedy::Retry => Next::Go,
        Remedy::Unavailable | Remedy::Halt => Next::StopBefore,
    }
}
