//! What becomes of events that fail, and what the harness finds out about a plugin.

use std::time::Duration;

use millstream_plugin::prelude::*;
use millstream_plugin::{Answer, Remedy};

/// Fails as the event says: `remedy` or nothing.
fn obey(event: Event<'_>, out: &mut Outbox) -> Result {
    out.text("before")?;
    match event.text()? {
        "reject" => Err(Error::reject("told", "to reject")),
        "retry" => Err(Error::retry("told", "to retry").after(Duration::from_millis(1500))),
        "unavailable" => None.or_unavailable(Duration::from_secs(3)),
        "halt" => Err(Error::halt("told", "to halt")),
        _ => Ok(()),
    }
}

/// With a failure of any kind between them, the others must come out as if it were not there.
#[test]
fn each_remedy_reaches_its_event_and_no_other() {
    let told = ["a", "retry", "b", "unavailable", "halt", "reject", "c"];
    let run = Harness::function(obey).run(told.map(TestEvent::text));
    let remedies: Vec<_> = run.failures().map(|(remedy, _)| remedy).collect();
    assert_eq!(
        remedies,
        [
            Remedy::Retry,
            Remedy::Unavailable,
            Remedy::Halt,
            Remedy::Reject
        ]
    );
    for index in [0, 2, 6] {
        assert_eq!(run.answer(index).outputs().len(), 1, "event {index}");
    }
    let after = |index: usize| run.answer(index).failure().map(|failed| failed.after_ms());
    assert_eq!((after(1), after(3)), (Some(1500), Some(3000)));
    assert_eq!(run.outputs().count(), 3);
}

struct Lookup {
    ready: usize,
}

impl Consumer for Lookup {
    type Settings = ();

    fn init((): (), _setup: &Setup) -> Result<Self> {
        Ok(Self { ready: 0 })
    }

    fn prepare(&mut self, events: Events<'_>) -> Result {
        self.ready = events.len();
        let missing = events.iter().any(|event| event.key().is_none());
        if missing {
            return Err(Error::reject("no-key", "an event has no key"));
        }
        Ok(())
    }

    fn handle(&mut self, event: Event<'_>, out: &mut Outbox) -> Result {
        assert!(self.ready > 0, "prepare runs first");
        out.text(&event.id())
    }
}

#[test]
fn prepare_runs_before_its_batch_and_fails_its_events() {
    let keyed = |key: &str| TestEvent::text("x").key(key).topic("orders").position(3, 9);
    let run = Harness::new::<Lookup>().run([keyed("a"), keyed("b")]);
    assert_eq!(run.outputs().next().unwrap().text(), "orders/3/9");
    let run = Harness::new::<Lookup>().run([TestEvent::text("x")]);
    assert!(
        run.answers()
            .iter()
            .all(|answer| answer.failure().is_some())
    );
}

struct Counts(u32);

impl Consumer for Counts {
    type Settings = ();

    fn init((): (), _setup: &Setup) -> Result<Self> {
        Ok(Self(0))
    }

    fn handle(&mut self, _event: Event<'_>, out: &mut Outbox) -> Result {
        self.0 += 1;
        out.text(&self.0.to_string())
    }
}

/// Such a plugin counts from one again after every restart.
#[test]
#[should_panic(expected = "event 1 has another answer with a fresh instance each")]
fn a_plugin_that_remembers_is_found_out() {
    Harness::new::<Counts>().run([TestEvent::text("a"), TestEvent::text("b")]);
}

/// The id that a queue broker gives holds over redeliveries; the position there does not.
#[test]
fn the_id_of_a_broker_without_offsets_wins() {
    let id = |event: Event<'_>, out: &mut Outbox| out.text(&event.id());
    let queued = TestEvent::text("x").header("millstream-message-id", "m-1");
    let run = Harness::function(id).run([queued.position(0, 77)]);
    assert_eq!(run.only_output().text(), "m-1");
}

#[test]
fn an_event_shows_all_that_came() {
    let show = |event: Event<'_>, out: &mut Outbox| {
        assert_eq!(
            event.header("a"),
            Some(&b"2"[..]),
            "the last of a name wins"
        );
        assert_eq!(event.header_text("bytes"), None);
        assert_eq!(event.header("null"), None);
        assert_eq!(event.headers().len(), 4);
        let position = event.position();
        let place = (position.topic(), position.partition(), position.offset());
        assert_eq!(place, ("orders", 2, 40));
        assert_eq!((event.timestamp(), event.attempt()), (99, 3));
        out.forward()
    };
    let event = TestEvent::text("x")
        .topic("orders")
        .position(2, 40)
        .timestamp(99)
        .attempt(3)
        .header("a", "1")
        .header("a", "2")
        .header("bytes", [0xff])
        .null_header("null");
    let run = Harness::function(show).run([event]);
    assert_eq!(run.answers().iter().map(Answer::outputs).count(), 1);
}
