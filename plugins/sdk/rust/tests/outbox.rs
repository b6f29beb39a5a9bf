//! What a plugin's author may rely on when writing to the outbox.

use millstream_plugin::prelude::*;
use millstream_plugin::{Derived, Limits, Remedy};

fn run(handler: fn(Event<'_>, &mut Outbox) -> Result, event: TestEvent) -> Derived {
    Harness::function(handler)
        .run([event])
        .only_output()
        .clone()
}

fn event() -> TestEvent {
    TestEvent::text("value")
        .key("key")
        .header("a", "1")
        .header("b", "2")
        .header("a", "3")
}

fn headers(derived: &Derived) -> Vec<(String, String)> {
    let text = |bytes: Option<&[u8]>| match bytes {
        Some(bytes) => String::from_utf8_lossy(bytes).into_owned(),
        None => "null".to_owned(),
    };
    derived
        .headers()
        .map(|(name, value)| (name.to_owned(), text(value)))
        .collect()
}

fn pairs(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect()
}

#[test]
fn forward_changes_nothing_and_keeps_null_apart_from_empty() {
    let derived = run(|_, out| out.forward(), event());
    assert_eq!(
        (derived.key(), derived.text()),
        (Some(&b"key"[..]), "value")
    );
    assert_eq!(
        headers(&derived),
        pairs(&[("a", "1"), ("b", "2"), ("a", "3")])
    );
    assert_eq!(derived.timestamp(), TestEvent::TIMESTAMP);
    let tombstone = run(
        |_, out| out.forward(),
        TestEvent::tombstone().null_header("n"),
    );
    assert_eq!((tombstone.key(), tombstone.value()), (None, None));
    assert_eq!(headers(&tombstone), pairs(&[("n", "null")]));
    let empty = run(|_, out| out.forward(), TestEvent::text("").key(""));
    assert_eq!(
        (empty.key(), empty.value()),
        (Some(&b""[..]), Some(&b""[..]))
    );
}

#[test]
fn a_header_takes_the_place_of_all_of_its_name() {
    let derived = run(
        |_, out| {
            out.to_named("default")?
                .header("a", "4")
                .header("a", "5")
                .without_header("b")
                .forward()
        },
        event(),
    );
    assert_eq!(headers(&derived), pairs(&[("a", "4"), ("a", "5")]));
}

/// In a replacement a record that only removes would come out as a header with a null value.
#[test]
fn fresh_headers_are_only_those_set() {
    let derived = run(
        |_, out| {
            out.to_named("default")?
                .header("c", "4")
                .without_header("a")
                .fresh_headers()
                .forward()
        },
        event(),
    );
    assert_eq!(headers(&derived), pairs(&[("c", "4")]));
    let none = run(
        |_, out| out.to_named("default")?.fresh_headers().forward(),
        event(),
    );
    assert_eq!(headers(&none), []);
}

#[test]
fn key_value_and_timestamp_are_the_draft_s() {
    let derived = run(
        |event, out| {
            let value = event.value().unwrap_or_default();
            out.to_named("default")?
                .key(&value[1..3])
                .timestamp(5)
                .bytes(&value[2..])
        },
        event(),
    );
    assert_eq!((derived.key(), derived.text()), (Some(&b"al"[..]), "lue"));
    assert_eq!(derived.timestamp(), 5);
    let derived = run(
        |_, out| out.to_named("default")?.null_key().json(&[1, 2]),
        event(),
    );
    assert_eq!((derived.key(), derived.text()), (None, "[1,2]"));
    assert_eq!(run(|_, out| out.tombstone(), event()).value(), None);
}

/// One such name would make the runtime refuse the answer to the whole batch.
#[test]
fn a_bad_header_fails_its_event_alone() {
    let handler = |event: Event<'_>, out: &mut Outbox| {
        let name = event.text()?;
        out.to_named("default")?.header(name, "x").forward()
    };
    let names = ["Millstream-Id", "TRACEPARENT", "", "fine"];
    let run = Harness::function(handler).run(names.map(TestEvent::text));
    let rejected = (Remedy::Reject, "bad-header");
    assert_eq!(run.failures().collect::<Vec<_>>(), [rejected; 3]);
    assert_eq!(run.only_output().header("fine"), Some(&b"x"[..]));
}

#[test]
fn a_draft_without_an_end_and_an_event_that_fails_leave_nothing() {
    let handler = |event: Event<'_>, out: &mut Outbox| {
        out.to_named("default")?.header("kept", "1").text("first")?;
        let _ = out.to_named("default")?.header("lost", "2").key("lost");
        if event.text()? == "fails" {
            return Err(Error::reject("no", "taken back"));
        }
        out.text("second")
    };
    let run = Harness::function(handler).run(["ok", "fails", "ok"].map(TestEvent::text));
    assert_eq!(run.answer(1).outputs(), []);
    for index in [0, 2] {
        let outputs = run.answer(index).outputs();
        let texts: Vec<_> = outputs.iter().map(Derived::text).collect();
        assert_eq!(texts, ["first", "second"]);
        assert_eq!(headers(&outputs[0]), pairs(&[("kept", "1")]));
        assert_eq!(headers(&outputs[1]), []);
        assert_eq!(outputs[1].key(), None);
    }
}

#[test]
fn the_main_output_is_default_else_the_first() {
    let forward = |_: Event<'_>, out: &mut Outbox| out.forward();
    let goes_to = |names: &[&str]| {
        let run = Harness::function(forward)
            .outputs(names.iter().copied())
            .run([event()]);
        run.only_output().output().to_owned()
    };
    assert_eq!(goes_to(&["alerts", "default"]), "default");
    assert_eq!(goes_to(&["alerts", "orders"]), "alerts");
    let none = Harness::function(forward)
        .outputs(Vec::<String>::new())
        .run([event()]);
    let halted = (Remedy::Halt, "no-output");
    assert_eq!(none.failures().collect::<Vec<_>>(), [halted]);
}

#[test]
#[should_panic(expected = "the 4 bytes that `limits.output_bytes` allows")]
fn an_answer_above_a_limit_is_refused_with_the_runtime_s_words() {
    let limits = Limits {
        outputs: 10,
        output_bytes: 4,
        headers: 64,
    };
    let forward = |_: Event<'_>, out: &mut Outbox| out.forward();
    Harness::function(forward).limits(limits).run([event()]);
}
