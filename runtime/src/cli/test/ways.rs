//! Runs events through a plugin in each way that the runtime may choose.
//!
//! ```text
//!          ┌ as one batch ──────────────┐
//! events ─▶├ one by one ────────────────┤─▶ an answer for each event; the ways must agree
//!          └ each on a fresh instance ──┘
//! ```
//! As in the runtime, an event that is not final cuts its batch, and the events of a call that failed
//! run one at a time, so that the one at fault is known. An event that is to be retried has its answer
//! with that: what comes after it runs as if it had been tried again.

use millstream_wire as wire;
use wire::Remedy;

use super::answer::{Answer, Derived, Failed};
use super::event;
use crate::config::{Consumer, Ordering};
use crate::decide::pace;
use crate::decide::verdict::{self, ForGood, Plea, Said, Verdict};
use crate::event::Block;
use crate::json_event::JsonEvent;
use crate::plugin::{CallContext, CallError, Instance, Plugin, StartError};

/// A way to hand events to a plugin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    OneByOne,
    Batch,
    Fresh,
}

impl Way {
    /// All of them; the others are compared with the first.
    pub const ALL: [Self; 3] = [Self::OneByOne, Self::Batch, Self::Fresh];

    /// In words, after "the answer".
    pub fn name(self) -> &'static str {
        match self {
            Self::OneByOne => "one by one",
            Self::Batch => "in one batch",
            Self::Fresh => "with a fresh instance each",
        }
    }
}

/// The plugin's answer to each event, in their order.
///
/// # Errors
/// An instance does not start.
pub async fn answers(
    plugin: &dyn Plugin,
    consumer: &Consumer,
    input: &[JsonEvent],
    way: Way,
) -> Result<Vec<Answer>, StartError> {
    let mut run = Run {
        plugin,
        consumer,
        way,
        instance: None,
    };
    let mut answers = Vec::with_capacity(input.len());
    for block in event::blocks(input) {
        let sources = &input[answers.len()..answers.len() + block.len()];
        answers.extend(run.block(&block, sources).await?);
    }
    Ok(answers)
}

struct Run<'a> {
    plugin: &'a dyn Plugin,
    consumer: &'a Consumer,
    way: Way,
    instance: Option<Box<dyn Instance>>,
}

impl Run<'_> {
    async fn block(
        &mut self,
        block: &Block,
        sources: &[JsonEvent],
    ) -> Result<Vec<Answer>, StartError> {
        let mut answers: Vec<Option<Answer>> = vec![None; block.len()];
        let mut waiting: Vec<usize> = (0..block.len()).collect();
        let mut size = match self.way {
            Way::Batch => self.consumer.batch.max_events.max(1),
            Way::OneByOne | Way::Fresh => 1,
        };
        while !waiting.is_empty() {
            let batch: Vec<usize> = waiting.iter().copied().take(size).collect();
            match self.call(block, sources, &batch).await? {
                Ok(found) => {
                    for (index, answer) in batch.into_iter().zip(found) {
                        answers[index] = answer;
                    }
                }
                // Nobody knows yet who is at fault.
                Err(_) if batch.len() > 1 => size = 1,
                Err(error) => {
                    for index in batch {
                        answers[index] = Some(call_failed(&error));
                    }
                }
            }
            waiting.retain(|index| answers[*index].is_none());
        }
        Ok(answers.into_iter().flatten().collect())
    }

    /// One call; `None` for those that come again.
    async fn call(
        &mut self,
        block: &Block,
        sources: &[JsonEvent],
        indexes: &[usize],
    ) -> Result<Result<Vec<Option<Answer>>, CallError>, StartError> {
        let kept = self.instance.take().filter(|_| self.way != Way::Fresh);
        let mut instance = match kept {
            Some(instance) => instance,
            None => self.plugin.instantiate().await?,
        };
        let limits = &self.consumer.limits;
        let deadline = pace::budget(limits.deadline, limits.call, indexes.len());
        let events: Vec<_> = indexes.iter().map(|index| block.events()[*index]).collect();
        let in_order = self.consumer.ordering == Ordering::Partition;
        let batch = wire::Batch {
            events: &events,
            headers: block.headers(),
            data: block.data(),
            extras: &[],
            budget_ms: u32::try_from(deadline.as_millis()).unwrap_or(u32::MAX),
            bits: if in_order { wire::BATCH_IN_ORDER } else { 0 },
        };
        let answered = instance.process(batch, &CallContext { deadline }).await;
        self.instance = Some(instance).filter(|instance| instance.alive());
        let sources: Vec<_> = indexes.iter().map(|index| &sources[*index]).collect();
        Ok(answered.map(|checked| self.read(&checked, &batch, &sources)))
    }

    fn read(
        &self,
        checked: &wire::Checked,
        batch: &wire::Batch<'_>,
        sources: &[&JsonEvent],
    ) -> Vec<Option<Answer>> {
        let handled = checked.handled() as usize;
        let in_order = batch.bits & wire::BATCH_IN_ORDER != 0;
        let said = |index: usize| match checked.failure(index as u32).map(|one| one.remedy()) {
            _ if index >= handled => Said::Unanswered,
            Some(Remedy::Reject) => Said::Reject,
            Some(_) => Said::Retry,
            None => Said::Handled,
        };
        let verdicts = verdict::verdicts(
            sources.len(),
            said,
            |_| in_order.then_some(0),
            |_, _| Plea::Granted,
            ForGood::DeadLetter,
        );
        let cut = in_order && verdicts.contains(&Verdict::Retry);
        let answer = |(index, verdict): (usize, &Verdict)| match verdict {
            Verdict::Take => Some(self.derived(checked, batch, sources, index)),
            Verdict::DeadLetter | Verdict::Retry | Verdict::Halt | Verdict::Keep => {
                failed(checked, index)
            }
            // The one that ended the call: nothing before it may be tried again first.
            Verdict::Again if index == handled && !cut => failed(checked, index),
            Verdict::Again => None,
        };
        verdicts.iter().enumerate().map(answer).collect()
    }

    fn derived(
        &self,
        checked: &wire::Checked,
        batch: &wire::Batch<'_>,
        sources: &[&JsonEvent],
        index: usize,
    ) -> Answer {
        let mine = checked
            .outputs()
            .filter(|output| output.takes_effect_with() as usize == index);
        let outputs: Vec<_> = mine
            .map(|output| {
                let target = self.consumer.outputs.get(output.output() as usize);
                let name = target.map_or("", |target| &*target.name);
                Derived::of(&output, batch, name, sources[index])
            })
            .collect();
        match outputs.is_empty() {
            true => Answer::Dropped,
            false => Answer::Derived(outputs),
        }
    }
}

fn failed(checked: &wire::Checked, index: usize) -> Option<Answer> {
    let failure = checked.failure(index as u32)?;
    let kind = match failure.remedy() {
        Remedy::Reject => "reject",
        Remedy::Retry => "retry",
        Remedy::Unavailable => "unavailable",
        Remedy::Halt => "halt",
    };
    Some(Answer::Failed(Failed {
        kind: kind.to_owned(),
        code: failure.code().to_owned(),
        after_ms: failure.after_ms(),
        reason: Some(failure.reason().to_owned()),
    }))
}

fn call_failed(error: &CallError) -> Answer {
    Answer::Failed(Failed {
        kind: error.kind().to_owned(),
        code: String::new(),
        after_ms: 0,
        reason: Some(error.to_string()),
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

    use futures::FutureExt as _;
    use futures::future::BoxFuture;
    use serde_json::value::RawValue;

    use super::super::settings;
    use super::*;
    use crate::plugin::PluginInfo;

    /// Answers as the value of each event says, and counts its instances and calls.
    struct Scripted {
        info: PluginInfo,
        instances: AtomicU32,
        calls: Arc<AtomicU32>,
    }

    impl Scripted {
        fn new() -> Self {
            Self {
                info: PluginInfo {
                    digest: "sha256:0".into(),
                    contract: "0.1.0".to_owned(),
                    size: 1,
                },
                instances: AtomicU32::new(0),
                calls: Arc::default(),
            }
        }
    }

    impl Plugin for Scripted {
        fn instantiate(&self) -> BoxFuture<'_, Result<Box<dyn Instance>, StartError>> {
            self.instances.fetch_add(1, Relaxed);
            let instance: Box<dyn Instance> = Box::new(ScriptedInstance {
                calls: self.calls.clone(),
                alive: true,
            });
            async { Ok(instance) }.boxed()
        }

        fn info(&self) -> &PluginInfo {
            &self.info
        }
    }

    struct ScriptedInstance {
        calls: Arc<AtomicU32>,
        alive: bool,
    }

    impl ScriptedInstance {
        fn answer(&mut self, batch: &wire::Batch<'_>) -> Result<wire::Outcome, CallError> {
            let mut outcome = wire::Outcome::default();
            for (index, event) in (0..).zip(batch.events) {
                let word = event.value.of(batch.data).unwrap_or_default();
                let remedy = match word {
                    b"trap" => {
                        self.alive = false;
                        return Err(CallError::Trap("boom".to_owned()));
                    }
                    b"reject" => wire::REMEDY_REJECT,
                    b"retry" => wire::REMEDY_RETRY,
                    b"unavailable" => wire::REMEDY_UNAVAILABLE,
                    b"enough" if index > 0 => return Ok(outcome),
                    b"forward" => {
                        outcome.outputs.push(wire::Output {
                            source: index,
                            ..wire::Output::default()
                        });
                        0
                    }
                    _ => 0,
                };
                if remedy != 0 {
                    outcome.failures.push(wire::Failure {
                        event: index,
                        remedy,
                        ..wire::Failure::default()
                    });
                }
                if remedy == wire::REMEDY_UNAVAILABLE {
                    return Ok(outcome);
                }
                outcome.handled = index + 1;
                if remedy == wire::REMEDY_RETRY && batch.bits & wire::BATCH_IN_ORDER != 0 {
                    return Ok(outcome);
                }
            }
            Ok(outcome)
        }
    }

    impl Instance for ScriptedInstance {
        fn process<'a>(
            &'a mut self,
            batch: wire::Batch<'a>,
            _context: &'a CallContext,
        ) -> BoxFuture<'a, Result<wire::Checked, CallError>> {
            self.calls.fetch_add(1, Relaxed);
            let limits = wire::Limits {
                outputs: 100,
                output_bytes: 1 << 20,
                headers: 8,
            };
            let checked = self.answer(&batch).and_then(|outcome| {
                wire::check(&batch, outcome, 1, &limits)
                    .map_err(|error| CallError::Invalid(error.to_string()))
            });
            async { checked }.boxed()
        }

        fn memory_bytes(&self) -> u64 {
            0
        }

        fn alive(&self) -> bool {
            self.alive
        }
    }

    fn input(values: &[&str]) -> Vec<JsonEvent> {
        let event = |(index, value): (usize, &&str)| {
            let text = format!("{{\"value\":\"{value}\"}}");
            let raw = RawValue::from_string(text).expect("JSON");
            event::input(&raw, index).expect("an event")
        };
        values.iter().enumerate().map(event).collect()
    }

    /// What became of each, and how many calls and instances that took.
    async fn run(values: &[&str], ordering: Ordering, way: Way) -> (Vec<String>, u32, u32) {
        let plugin = Scripted::new();
        let mut consumer = settings::plain("p", "default").expect("a consumer");
        consumer.ordering = ordering;
        let answers = answers(&plugin, &consumer, &input(values), way).await;
        let words = answers
            .expect("instances start")
            .into_iter()
            .map(|answer| match answer {
                Answer::Dropped => "dropped".to_owned(),
                Answer::Derived(outputs) => outputs[0].output.clone(),
                Answer::Failed(failed) => failed.kind,
            });
        (
            words.collect(),
            plugin.calls.load(Relaxed),
            plugin.instances.load(Relaxed),
        )
    }

    const VALUES: &[&str] = &[
        "forward",
        "retry",
        "reject",
        "unavailable",
        "x",
        "trap",
        "forward",
    ];
    const ANSWERS: [&str; 7] = [
        "default",
        "retry",
        "reject",
        "unavailable",
        "dropped",
        "trap",
        "default",
    ];

    /// Cuts, unanswered events and traps are the runtime's business; to a case the ways look alike.
    #[tokio::test]
    async fn the_ways_agree_on_a_plugin_that_answers_by_the_event_alone() {
        for ordering in [Ordering::Partition, Ordering::Key, Ordering::None] {
            for way in Way::ALL {
                let (words, ..) = run(VALUES, ordering, way).await;
                assert_eq!(words, ANSWERS, "{ordering:?} {way:?}");
            }
        }
    }

    #[tokio::test]
    async fn each_way_is_what_it_says() {
        let values = ["x", "x", "x"];
        let counts = async |way| {
            let (_, calls, instances) = run(&values, Ordering::Partition, way).await;
            (calls, instances)
        };
        assert_eq!(counts(Way::Batch).await, (1, 1));
        assert_eq!(counts(Way::OneByOne).await, (3, 1));
        assert_eq!(counts(Way::Fresh).await, (3, 3));
        // After a trap the instance is gone, and the batch runs one at a time.
        let (_, calls, instances) = run(&["x", "trap", "x"], Ordering::Partition, Way::Batch).await;
        assert_eq!((calls, instances), (4, 3));
        // What was not answered comes again, and nothing else does.
        let (_, calls, _) = run(&["x", "enough", "x"], Ordering::Partition, Way::Batch).await;
        assert_eq!(calls, 2);
    }
}
