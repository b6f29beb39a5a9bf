//! Another generation handles live events beside the one that works, and what it says is thrown away.
//!
//! ```text
//! call ─▶ answer ─▶ unit, as ever
//!  │        └────────────────────────┐
//!  └─▶ the same work, one call at a time, ─▶ compared event by event ─▶ ShadowReport
//!      by an instance of the new generation
//! ```
//! A call that is not compared costs nothing: while one is, the others pass.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::task::{JoinError, JoinSet};
use tokio::time::Instant;

use super::assemble::{Answer, Fate};
use super::call::{self, Trouble};
use super::dead_letter;
use super::generation::Generation;
use super::guard::Witness;
use super::runner::Runner;
use super::work::Work;
use crate::metrics::Outcome;
use crate::mutation::{self, Mutation};
use crate::plugin::{CallError, Instance};
use crate::records::{RecordView, Records};

/// Examples that a report shows.
const EXAMPLES: usize = 5;
/// Headers that the runtime makes anew at each attempt.
const NEW_EACH_TIME: [&[u8]; 3] = [b"traceparent", b"correlation-id", b"ce_time"];
/// Bytes of a value that an example shows.
const SHOWN: usize = 120;

/// What comparing showed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ShadowReport {
    /// Events for which both said the same.
    pub equal: u64,
    /// Events from which other outputs followed, or an outcome that is no failure.
    pub different: u64,
    /// Events that the old generation handled and the new one failed.
    pub failed: u64,
    /// Of the first that were not equal: where the event stands, and what was not.
    pub examples: Vec<String>,
    /// What the calls took, by the old and by the new generation.
    pub took_before: Duration,
    pub took: Duration,
}

impl ShadowReport {
    /// Events that were compared.
    pub fn events(&self) -> u64 {
        self.equal + self.different + self.failed
    }

    fn example(&mut self, text: impl FnOnce() -> String) {
        if self.examples.len() < EXAMPLES {
            self.examples.push(text());
        }
    }

    fn add(&mut self, other: Self) {
        self.equal += other.equal;
        self.different += other.different;
        self.failed += other.failed;
        self.took_before += other.took_before;
        self.took += other.took;
        for example in other.examples {
            self.example(|| example);
        }
    }
}

/// A generation that runs in shadow.
pub(super) struct Shadow {
    generation: Arc<Generation>,
    instance: Option<Box<dyn Instance>>,
    /// How many events it is to handle, and until when.
    events: u64,
    until: Instant,
    report: ShadowReport,
    /// The one call that runs.
    calls: JoinSet<Compared>,
    tell: oneshot::Sender<Told>,
}

/// What whoever asked for a shadow run is told; an error where the plugin does not start.
pub type Told = Result<ShadowReport, String>;

/// The instance, where it lives on, and what its call showed.
type Compared = (Option<Box<dyn Instance>>, Told);

/// What the generation that works said of some work.
struct Before {
    work: Work,
    fates: Vec<Fate>,
    records: Records,
    took: Duration,
}

impl Runner {
    /// Lets a generation run in shadow until it has handled so many events, the time is over, or
    /// nobody waits for the report any more. One that ran before ends.
    pub(super) fn begin_shadow(
        &mut self,
        generation: Arc<Generation>,
        events: u64,
        until: Instant,
        tell: oneshot::Sender<Told>,
    ) {
        if mutation::is(Mutation::ShadowTakesOver) {
            self.generation = generation.clone();
        }
        self.shadow = Some(Shadow {
            generation,
            instance: None,
            events,
            until,
            report: ShadowReport::default(),
            calls: JoinSet::new(),
            tell,
        });
    }

    /// A call was answered: the shadow may have its work too.
    pub(super) fn shadow(&mut self, work: &Work, answer: &Answer, took: Duration) {
        let Some(shadow) = &mut self.shadow else {
            return;
        };
        if shadow.tell.is_closed() {
            self.shadow = None;
            return;
        }
        if !shadow.calls.is_empty() {
            return;
        }
        let before = Before {
            work: work.clone(),
            fates: answer.fates.clone(),
            records: answer.records.clone(),
            took,
        };
        let (generation, instance) = (shadow.generation.clone(), shadow.instance.take());
        shadow.calls.spawn(compare(generation, instance, before));
    }

    /// Ends a shadow run whose time is over, with what there is.
    pub(super) fn end_shadow_in_time(&mut self, now: Instant) {
        let over = self
            .shadow
            .as_ref()
            .is_some_and(|shadow| shadow.until <= now);
        if let Some(shadow) = self.shadow.take_if(|_| over) {
            let _ = shadow.tell.send(Ok(shadow.report));
        }
    }

    /// The shadow's call ended.
    pub(super) fn on_shadow(&mut self, compared: Result<Compared, JoinError>) {
        let Some(shadow) = &mut self.shadow else {
            return;
        };
        let (instance, told) = match compared {
            Ok(compared) => compared,
            Err(error) => (None, Err(format!("a call panicked in the host: {error}"))),
        };
        shadow.instance = instance;
        let told = match told {
            Ok(report) => {
                shadow.report.add(report);
                if shadow.report.events() < shadow.events {
                    return;
                }
                Ok(std::mem::take(&mut shadow.report))
            }
            Err(reason) => Err(reason),
        };
        if let Some(shadow) = self.shadow.take() {
            // Whoever waited may have gone.
            let _ = shadow.tell.send(told);
        }
    }
}

/// The end of the shadow's call; waits for ever where there is none. Dropping the future loses
/// nothing.
pub(super) async fn ended(shadow: &mut Option<Shadow>) -> Result<Compared, JoinError> {
    let calls = shadow.as_mut().map(|shadow| &mut shadow.calls);
    match calls.filter(|calls| !calls.is_empty()) {
        Some(calls) => match calls.join_next().await {
            Some(ended) => ended,
            None => std::future::pending().await,
        },
        None => std::future::pending().await,
    }
}

/// Calls the generation with the same work, and compares. A batch that fails is run event by event,
/// or nobody would know which of them it was.
async fn compare(
    generation: Arc<Generation>,
    mut instance: Option<Box<dyn Instance>>,
    before: Before,
) -> Compared {
    let mut report = ShadowReport {
        took_before: before.took,
        ..ShadowReport::default()
    };
    let begun = Instant::now();
    let whole = call_once(&generation, &mut instance, &before.work).await;
    report.took = begun.elapsed();
    match whole {
        Err(reason) => return (None, Err(reason)),
        Ok(Ok(answer)) => report.compare(&before, 0, &answer),
        Ok(Err(_)) => {
            for index in 0..before.work.len() {
                let mut alone = Work::default();
                let item = before.work.items[index];
                alone.push(before.work.block(&item), item);
                match call_once(&generation, &mut instance, &alone).await {
                    Err(reason) => return (None, Err(reason)),
                    Ok(Ok(answer)) => report.compare(&before, index, &answer),
                    Ok(Err(error)) => report.failed(&before, index, &error.to_string()),
                }
            }
        }
    }
    (instance, Ok(report))
}

/// One call, by an instance that is started where there is none. The outer error: it does not start.
async fn call_once(
    generation: &Generation,
    instance: &mut Option<Box<dyn Instance>>,
    work: &Work,
) -> Result<Result<Answer, CallError>, String> {
    let mut running = match instance.take() {
        Some(running) => running,
        None => match generation.plugin.instantiate().await {
            Ok(started) => started,
            Err(error) => return Err(error.to_string()),
        },
    };
    let witness = Witness::silent();
    let answered = call::process(generation, running.as_mut(), work, &witness, Instant::now());
    let answered = match answered.await {
        Ok(answer) => Ok(Ok(answer)),
        Err(Trouble::Call(error, _)) => Ok(Err(error)),
        Err(Trouble::Start(error)) => Err(error.to_string()),
    };
    *instance = running.alive().then_some(running);
    answered
}

impl ShadowReport {
    /// Compares what an answer to the events from `first` on says with what was said before.
    fn compare(&mut self, before: &Before, first: usize, answer: &Answer) {
        let (old, new) = (by_source(&before.records), by_source(&answer.records));
        for (index, fate) in (first..).zip(&answer.fates) {
            let offset = before.work.event(index).offset();
            let Some(Fate::Settled(was, why)) = before.fates.get(index) else {
                // It comes again, and nobody knows yet what the old generation makes of it.
                continue;
            };
            match fate {
                Fate::Settled(Outcome::DeadLettered, now) if *was == Outcome::DeadLettered => {
                    match now == why {
                        true => self.equal += 1,
                        false => self.differs(before, index, "another reason to fail"),
                    }
                }
                Fate::Settled(Outcome::DeadLettered, reason) => {
                    let reason = reason.map_or("dead-lettered", dead_letter::Reason::name);
                    self.failed(before, index, reason);
                }
                Fate::Settled(is, _) if is == was => {
                    match difference(of(&old, offset), of(&new, offset)) {
                        None => self.equal += 1,
                        Some(difference) => self.differs(before, index, &difference),
                    }
                }
                Fate::Settled(..) => self.differs(before, index, "another outcome"),
                Fate::Halt(reason) | Fate::Kept(reason) | Fate::Lost(reason) => {
                    self.failed(before, index, reason);
                }
                Fate::Retry(_) => self.failed(before, index, "it asks for a retry"),
                Fate::Again => {}
            }
        }
    }

    fn differs(&mut self, before: &Before, index: usize, what: &str) {
        self.different += 1;
        let event = before.work.event(index);
        self.example(|| format!("{}@{}: {what}", event.source(), event.offset()));
    }

    fn failed(&mut self, before: &Before, index: usize, why: &str) {
        self.failed += 1;
        let event = before.work.event(index);
        self.example(|| format!("{}@{} failed: {why}", event.source(), event.offset()));
    }
}

/// The records that follow from each event, by its offset.
fn by_source(records: &Records) -> BTreeMap<u64, Vec<RecordView<'_>>> {
    let mut by_source: BTreeMap<u64, Vec<_>> = BTreeMap::new();
    for record in records.iter() {
        by_source.entry(record.tag()).or_default().push(record);
    }
    by_source
}

fn of<'a, 'r>(
    records: &'a BTreeMap<u64, Vec<RecordView<'r>>>,
    offset: u64,
) -> &'a [RecordView<'r>] {
    records.get(&offset).map_or(&[], Vec::as_slice)
}

/// What two versions do not agree on, in words; `None` where there is nothing.
fn difference(old: &[RecordView<'_>], new: &[RecordView<'_>]) -> Option<String> {
    if old.len() != new.len() {
        return Some(format!("{} outputs became {}", old.len(), new.len()));
    }
    for (number, (old, new)) in (1..).zip(old.iter().zip(new)) {
        let became = |what: &str, old: Option<&[u8]>, new: Option<&[u8]>| {
            let (old, new) = (shown(old), shown(new));
            Some(format!("{what} of output {number}: {old} became {new}"))
        };
        if old.topic() != new.topic() {
            let (old, new) = (old.topic().as_bytes(), new.topic().as_bytes());
            return became("topic", Some(old), Some(new));
        }
        if old.key() != new.key() {
            return became("key", old.key(), new.key());
        }
        if old.value() != new.value() {
            return became("value", old.value(), new.value());
        }
        if old.timestamp_ms() != new.timestamp_ms() {
            return Some(format!("timestamp of output {number}"));
        }
        let lasting = |record: &RecordView<'_>| -> Vec<(Vec<u8>, Option<Vec<u8>>)> {
            let headers = record.headers();
            let lasting = headers.filter(|(name, _)| !NEW_EACH_TIME.contains(name));
            let owned = lasting.map(|(name, value)| (name.to_vec(), value.map(<[u8]>::to_vec)));
            owned.collect()
        };
        let (were, are) = (lasting(old), lasting(new));
        if were != are {
            let odd = were.iter().zip(&are).find(|(old, new)| old != new);
            let name = odd.map_or_else(
                || format!("{} became {}", were.len(), are.len()),
                |((name, _), _)| String::from_utf8_lossy(name).into_owned(),
            );
            return Some(format!("headers of output {number}: {name}"));
        }
    }
    None
}

fn shown(bytes: Option<&[u8]>) -> String {
    let Some(bytes) = bytes else {
        return "null".to_owned();
    };
    let text = String::from_utf8_lossy(bytes);
    let cut = dead_letter::cut(&text, SHOWN);
    match cut.len() < text.len() {
        true => format!("{cut}…"),
        false => cut.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::records::NewRecord;

    fn records(value: &str, headers: &[(&str, &str)]) -> Records {
        let mut records = Records::new();
        let record = NewRecord {
            partition: None,
            timestamp_ms: Some(7),
            key: Some(b"k"),
            value: Some(value.as_bytes()),
            tag: 3,
        };
        records.push(&"orders".into(), record);
        for (name, value) in headers {
            records.push_header(name.as_bytes(), Some(value.as_bytes()));
        }
        records
    }

    fn between(old: &Records, new: &Records) -> Option<String> {
        let views = |records| by_source(records).remove(&3).unwrap_or_default();
        difference(&views(old), &views(new))
    }

    /// Every event would be reported as different.
    #[test]
    fn what_the_runtime_makes_anew_is_no_difference() {
        let old = records("1", &[("traceparent", "a"), ("total", "5")]);
        let new = records("1", &[("traceparent", "b"), ("total", "5")]);
        assert_eq!(between(&old, &new), None);
    }

    #[test]
    fn a_difference_is_named_with_both_values() {
        let old = records("1", &[("total", "5")]);
        let found = between(&old, &records("2", &[("total", "5")]));
        assert_eq!(found.unwrap(), "value of output 1: 1 became 2");
        let found = between(&old, &records("1", &[("total", "6")]));
        assert_eq!(found.unwrap(), "headers of output 1: total");
        let found = between(&old, &Records::new());
        assert_eq!(found.unwrap(), "1 outputs became 0");
    }
}
