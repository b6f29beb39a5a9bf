//! Runs a plugin in a plain `cargo test`, as the runtime would.
//!
//! ```text
//!                ┌ one batch, in order ──────┐
//!                ├ one batch, in no order ───┤  each: encode ─▶ Runner ─▶ the runtime's checks
//! TestEvents ───▶├ one by one ───────────────┤  ─▶ answers, which must all be equal ───▶ Run
//!                └ each on a fresh instance ─┘
//! ```
//! The runtime may choose any of these ways, and changes its mind from call to call. A plugin whose
//! answers depend on it loses or repeats something at the next restart.

mod answer;
mod event;

use std::rc::Rc;

use millstream_wire as wire;
use wire::{Limits, Remedy};

pub use answer::{Answer, Derived, Failed};
pub use event::TestEvent;

use crate::host::{Instrument, Recorded, Surroundings, surround, take_recorded};
use crate::http;
use crate::log::Level;
use crate::runner::{Handler, Runner};
use crate::{Consumer, Event, Events, Outbox, Result, Setup};
use event::Encoded;

/// Runs a plugin on test events.
///
/// ```
/// use millstream_plugin::prelude::*;
/// use millstream_plugin::Remedy;
///
/// fn even(event: Event<'_>, out: &mut Outbox) -> Result {
///     let number: i64 = event.text()?.parse()?;
///     if number % 2 == 0 {
///         out.to_named("even")?.header("half", (number / 2).to_string()).forward()?;
///     }
///     Ok(())
/// }
///
/// let run = Harness::function(even)
///     .outputs(["even"])
///     .run([TestEvent::text("4").key("k"), TestEvent::text("5"), TestEvent::text("x")]);
///
/// let derived = &run.answer(0).outputs()[0];
/// assert_eq!((derived.key(), derived.text()), (Some(&b"k"[..]), "4"));
/// assert_eq!(derived.header("half"), Some(&b"2"[..]));
/// assert!(run.answer(1).is_dropped());
/// assert_eq!(run.answer(2).failure().unwrap().remedy(), Remedy::Reject);
/// ```
pub struct Harness {
    start: Box<dyn Fn(Setup) -> Result<Box<dyn Process>>>,
    config: String,
    outputs: Vec<String>,
    limits: Limits,
    surroundings: Surroundings,
}

/// An instance, whatever plugin it is of.
trait Process {
    fn process(&mut self, batch: &wire::Batch<'_>) -> wire::Outcome;
}

impl<H: Handler> Process for Runner<H> {
    fn process(&mut self, batch: &wire::Batch<'_>) -> wire::Outcome {
        Runner::process(self, batch)
    }
}

/// A plugin that is one function.
struct Function<F>(F);

impl<F: FnMut(Event<'_>, &mut Outbox) -> Result> Handler for Function<F> {
    fn prepare(&mut self, _events: Events<'_>) -> Result {
        Ok(())
    }

    fn handle(&mut self, event: Event<'_>, out: &mut Outbox) -> Result {
        (self.0)(event, out)
    }
}

impl Harness {
    /// A harness for a consumer, with no config and one output named `default`.
    pub fn new<C: Consumer>() -> Self {
        Self::starting(|setup| {
            let runner: Box<dyn Process> = Box::new(Runner::<C>::start(setup)?);
            Ok(runner)
        })
    }

    /// A harness for a plugin that is one function.
    pub fn function<F>(handler: F) -> Self
    where
        F: Fn(Event<'_>, &mut Outbox) -> Result + Clone + 'static,
    {
        Self::starting(move |setup| {
            let runner: Box<dyn Process> = Box::new(Runner::new(Function(handler.clone()), setup));
            Ok(runner)
        })
    }

    fn starting(start: impl Fn(Setup) -> Result<Box<dyn Process>> + 'static) -> Self {
        Self {
            start: Box::new(start),
            config: "{}".to_owned(),
            outputs: vec!["default".to_owned()],
            limits: Limits {
                outputs: 10_000,
                output_bytes: 16 << 20,
                headers: 64,
            },
            surroundings: Surroundings::default(),
        }
    }

    /// Sets the consumer's `config`, a JSON object.
    #[must_use]
    pub fn config(mut self, json: impl Into<String>) -> Self {
        self.config = json.into();
        self
    }

    /// Sets the names of the consumer's outputs.
    #[must_use]
    pub fn outputs<N: Into<String>>(mut self, names: impl IntoIterator<Item = N>) -> Self {
        self.outputs = names.into_iter().map(Into::into).collect();
        self
    }

    /// Sets what one answer may hold; a consumer's defaults otherwise.
    #[must_use]
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// Answers the plugin's requests; without it each is denied. Called once for each request in each
    /// of the ways that a case is run, so equal requests should get equal answers.
    #[must_use]
    pub fn http(
        mut self,
        answer: impl Fn(&http::Request) -> std::result::Result<http::Response, http::Error> + 'static,
    ) -> Self {
        self.surroundings.http = Some(Rc::new(answer));
        self
    }

    /// Adds one to the consumer's `secrets`.
    #[must_use]
    pub fn secret(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.surroundings.secrets.insert(name.into(), value.into());
        self
    }

    /// Starts an instance and nothing more.
    ///
    /// # Errors
    /// What the plugin's `init` says.
    pub fn start(&self) -> Result {
        self.instance().map(|_| ())
    }

    /// Runs the events in each way that the runtime may choose.
    ///
    /// # Panics
    /// When the plugin does not start, when an answer breaks the rules of the wall or a limit, or
    /// when the ways differ. The message says where.
    #[track_caller]
    pub fn run(&self, events: impl IntoIterator<Item = TestEvent>) -> Run {
        let events: Vec<_> = events.into_iter().collect();
        take_recorded();
        let by_one = self.answers(&events, Way::OneByOne);
        let recorded = take_recorded();
        for way in [Way::InOrder, Way::InNoOrder, Way::Fresh] {
            let answers = self.answers(&events, way);
            let differing = (0..events.len()).find(|&index| answers[index] != by_one[index]);
            if let Some(index) = differing {
                panic!(
                    "event {index} has another answer {} than {}; an instance's memory is a cache, on which no answer may depend\n  {}: {:?}\n  {}: {:?}",
                    way.name(),
                    Way::OneByOne.name(),
                    Way::OneByOne.name(),
                    by_one[index],
                    way.name(),
                    answers[index],
                );
            }
        }
        take_recorded();
        Run {
            answers: by_one,
            recorded,
        }
    }

    fn instance(&self) -> Result<Box<dyn Process>> {
        surround(self.surroundings.clone());
        (self.start)(Setup::new(self.config.clone(), self.outputs.clone()))
    }

    #[track_caller]
    fn started(&self) -> Box<dyn Process> {
        match self.instance() {
            Ok(instance) => instance,
            Err(error) => panic!("the plugin does not start: {error:?}"),
        }
    }

    /// The answer to each event, whatever the size of the batches.
    #[track_caller]
    fn answers(&self, events: &[TestEvent], way: Way) -> Vec<Answer> {
        let mut instance = self.started();
        let mut answers = Vec::with_capacity(events.len());
        while answers.len() < events.len() {
            let first = answers.len();
            let end = match way {
                Way::InOrder | Way::InNoOrder => events.len(),
                Way::OneByOne | Way::Fresh => first + 1,
            };
            if way == Way::Fresh && first > 0 {
                instance = self.started();
            }
            let encoded = Encoded::new(&events[first..end], first);
            let batch = encoded.batch(match way {
                Way::InNoOrder => 0,
                _ => wire::BATCH_IN_ORDER,
            });
            let outcome = instance.process(&batch);
            let outputs = self.outputs.len() as u32;
            let checked = match wire::check(&batch, outcome, outputs, &self.limits) {
                Ok(checked) => checked,
                Err(error) => panic!(
                    "the runtime would refuse the answer to events {first} to {}, {}: {error}",
                    end - 1,
                    way.name(),
                ),
            };
            let next = answered(&checked);
            let answer = |event| Answer::of(event, &checked, &batch, &self.outputs);
            answers.extend((0..next).map(answer));
        }
        answers
    }
}

/// How many events an outcome has a word for: those handled, and the one that stopped it.
fn answered(checked: &wire::Checked) -> u32 {
    let stopped = checked.failure(checked.handled()).is_some();
    checked.handled() + u32::from(stopped)
}

/// A way to present a case to the plugin.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    InOrder,
    InNoOrder,
    OneByOne,
    Fresh,
}

impl Way {
    fn name(self) -> &'static str {
        match self {
            Self::InOrder => "in one batch",
            Self::InNoOrder => "in one batch without order",
            Self::OneByOne => "one by one",
            Self::Fresh => "with a fresh instance each",
        }
    }
}

/// What a plugin made of a case.
#[derive(Clone, Debug)]
pub struct Run {
    answers: Vec<Answer>,
    recorded: Recorded,
}

impl Run {
    /// The answer to each event.
    pub fn answers(&self) -> &[Answer] {
        &self.answers
    }

    /// The answer to the event at this place.
    ///
    /// # Panics
    /// Past the end of the case.
    #[track_caller]
    pub fn answer(&self, index: usize) -> &Answer {
        &self.answers[index]
    }

    /// All derived events in order.
    pub fn outputs(&self) -> impl Iterator<Item = &Derived> {
        self.answers.iter().flat_map(Answer::outputs)
    }

    /// The one derived event of the whole case.
    ///
    /// # Panics
    /// When there is none or more than one.
    #[track_caller]
    pub fn only_output(&self) -> &Derived {
        let mut outputs = self.outputs();
        match (outputs.next(), outputs.next()) {
            (Some(output), None) => output,
            _ => panic!("not exactly one derived event: {:?}", self.answers),
        }
    }

    /// Codes and remedies of the events that failed, in order.
    pub fn failures(&self) -> impl Iterator<Item = (Remedy, &str)> {
        self.answers
            .iter()
            .filter_map(Answer::failure)
            .map(|failure| (failure.remedy(), failure.code()))
    }

    /// What the plugin logged while the events ran one by one; fields follow the message.
    pub fn logs(&self) -> &[(Level, String)] {
        &self.recorded.logs
    }

    /// The requests that the plugin sent while the events ran one by one, in order.
    pub fn requests(&self) -> &[http::Request] {
        &self.recorded.requests
    }

    /// What was reported to a metric while the events ran one by one, by `name`, or
    /// `name{label=value,…}`: the last value of a gauge, else the sum. `None` where it was not
    /// declared.
    pub fn metric(&self, series: &str) -> Option<f64> {
        let known = &self.recorded.series;
        let index = known.iter().position(|(known, _)| known == series)?;
        let points = self.recorded.points.iter();
        let mut values = points
            .filter(|(metric, _)| *metric as usize == index)
            .map(|(_, value)| *value);
        Some(match known[index].1 {
            Instrument::Gauge => values.next_back().unwrap_or_default(),
            Instrument::Counter | Instrument::Histogram => values.sum(),
        })
    }
}

impl std::fmt::Debug for Harness {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Harness")
            .field("config", &self.config)
            .field("outputs", &self.outputs)
            .field("limits", &self.limits)
            .finish_non_exhaustive()
    }
}
