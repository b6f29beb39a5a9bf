//! Each rule of an outcome, broken one at a time.

mod common;

use common::*;
use millstream_wire::*;

fn with_output(output: Output) -> Result<Checked, Invalid> {
    verdict(Outcome {
        outputs: vec![output],
        ..outcome()
    })
}

fn with_header(header: Header) -> Result<Checked, Invalid> {
    verdict(Outcome {
        outputs: vec![Output::default()],
        headers: vec![header],
        ..outcome()
    })
}

fn with_failure(handled: u32, failure: Failure) -> Result<Checked, Invalid> {
    verdict(Outcome {
        handled,
        failures: vec![failure],
        ..outcome()
    })
}

fn output_fault(output: Output) -> OutputFault {
    match with_output(output) {
        Err(Invalid::Output { fault, .. }) => fault,
        other => panic!("not an output's fault: {other:?}"),
    }
}

fn header_fault(header: Header) -> HeaderFault {
    match with_header(header) {
        Err(Invalid::Header { fault, .. }) => fault,
        other => panic!("not a header's fault: {other:?}"),
    }
}

fn failure_fault(handled: u32, record: Failure) -> FailureFault {
    match with_failure(handled, record) {
        Err(Invalid::Failure { fault, .. }) => fault,
        other => panic!("not a failure's fault: {other:?}"),
    }
}

#[test]
fn handled_answers_something_and_no_more_than_was_asked() {
    assert!(verdict(outcome()).is_ok());
    let handled = |handled| {
        verdict(Outcome {
            handled,
            ..outcome()
        })
    };
    assert!(matches!(
        handled(3),
        Err(Invalid::HandledTooMany {
            handled: 3,
            events: 2
        })
    ));
    assert!(matches!(handled(0), Err(Invalid::NothingHandled)));
    assert!(with_failure(0, failure(0, REMEDY_UNAVAILABLE)).is_ok());
    assert!(with_failure(0, failure(0, REMEDY_HALT)).is_ok());
}

#[test]
fn an_outcome_has_no_extras() {
    let extra = Extra {
        kind: 9,
        ..Extra::default()
    };
    let refused = verdict(Outcome {
        extras: vec![extra],
        ..outcome()
    });
    assert!(matches!(refused, Err(Invalid::UnknownExtra { kind: 9 })));
}

#[test]
fn a_source_is_handled_and_never_falls() {
    let source = |source| Output {
        source,
        ..Output::default()
    };
    assert!(matches!(
        output_fault(source(2)),
        OutputFault::SourceNotHandled {
            source_event: 2,
            handled: 2
        }
    ));
    let falling = verdict(Outcome {
        outputs: vec![source(1), source(0)],
        ..outcome()
    });
    assert!(matches!(
        falling,
        Err(Invalid::Output {
            output: 1,
            fault: OutputFault::SourceFalls { .. }
        })
    ));
}

/// Nothing could be resolved for it: there is no source to take the rest from.
#[test]
fn an_output_of_the_batch_brings_all_of_its_own() {
    let edit = |edit| Output {
        source: SOURCE_BATCH,
        edit,
        ..Output::default()
    };
    assert!(with_output(edit(KEY_OUTCOME | VALUE_OUTCOME | REPLACE)).is_ok());
    for (missing, piece) in [
        (VALUE_OUTCOME | REPLACE, Piece::Key),
        (KEY_OUTCOME | REPLACE, Piece::Value),
        (KEY_OUTCOME | VALUE_OUTCOME, Piece::Headers),
        (KEY_OUTCOME | VALUE_OUTCOME | AMEND, Piece::Headers),
    ] {
        assert_eq!(
            output_fault(edit(missing)),
            OutputFault::NothingToInherit(piece)
        );
    }
    let early = verdict(Outcome {
        handled: 0,
        failures: vec![failure(0, REMEDY_HALT)],
        outputs: vec![edit(KEY_OUTCOME | VALUE_OUTCOME | REPLACE)],
        ..outcome()
    });
    assert!(early.is_err());
}

#[test]
fn bits_and_indexes_have_a_meaning() {
    for edit in [3 << EDIT_HEADERS_SHIFT, 1 << 7, 1 << 31] {
        let record = Output {
            edit,
            ..Output::default()
        };
        assert_eq!(output_fault(record), OutputFault::UnknownEdit(edit));
    }
    let record = Output {
        output: 2,
        ..Output::default()
    };
    assert!(matches!(
        output_fault(record),
        OutputFault::NoSuchOutput { output: 2, .. }
    ));
}

#[test]
fn spans_stay_in_their_list() {
    for bad in [span(17, 1), span(0, 18), span(u32::MAX, u32::MAX)] {
        let key = Output {
            edit: KEY_OUTCOME,
            key: bad,
            ..Output::default()
        };
        assert!(matches!(output_fault(key), OutputFault::Span { .. }));
        let value = Output {
            edit: VALUE_OUTCOME,
            value: bad,
            ..Output::default()
        };
        assert!(matches!(output_fault(value), OutputFault::Span { .. }));
    }
    // The batch's list is longer: what the outcome's has not, it may have.
    let in_batch = |length| Output {
        edit: KEY_BATCH,
        key: span(20, length),
        ..Output::default()
    };
    assert!(with_output(in_batch(8)).is_ok());
    assert!(with_output(in_batch(9)).is_err());
    for (start, count) in [(0, 1), (u32::MAX, u32::MAX), (1, 0)] {
        let headers = Output {
            edit: AMEND,
            headers_start: start,
            headers_count: count,
            ..Output::default()
        };
        assert!(matches!(output_fault(headers), OutputFault::Headers { .. }));
    }
}

#[test]
fn a_header_has_a_name_of_its_own() {
    let named = |name| Header {
        name,
        ..Header::default()
    };
    assert!(with_header(named(span(0, 4))).is_ok());
    assert_eq!(header_fault(named(span(0, 0))), HeaderFault::NameLength(0));
    assert_eq!(header_fault(named(span(0, 99))), HeaderFault::NameSpan);
    assert_eq!(header_fault(named(span(15, 2))), HeaderFault::NameNotUtf8);
    let bits = Header {
        bits: 2,
        ..named(span(0, 4))
    };
    assert_eq!(header_fault(bits), HeaderFault::UnknownBits(2));
    let value = Header {
        value: span(17, 1),
        ..named(span(0, 4))
    };
    assert_eq!(header_fault(value), HeaderFault::ValueSpan);
    let long = verdict(Outcome {
        outputs: vec![Output::default()],
        headers: vec![named(span(0, 256))],
        data: vec![b'a'; 256],
        ..outcome()
    });
    assert!(long.is_err());
}

/// A plugin that could write these would forge where an event comes from.
#[test]
fn reserved_names_are_refused_in_any_case() {
    for (name, reserved) in [
        ("millstream-source", true),
        ("MillStream-", true),
        ("TraceParent", true),
        ("millstream", false),
        ("tracestate", false),
        ("correlation-id", false),
    ] {
        let header = Header {
            name: span(0, name.len() as u32),
            ..Header::default()
        };
        let checked = verdict(Outcome {
            outputs: vec![Output::default()],
            headers: vec![header],
            data: name.into(),
            ..outcome()
        });
        assert_eq!(checked.is_err(), reserved, "{name}");
    }
}

#[test]
fn a_failure_names_an_event_a_remedy_and_a_code() {
    assert!(with_failure(2, failure(1, REMEDY_REJECT)).is_ok());
    assert!(with_failure(2, failure(1, REMEDY_RETRY)).is_ok());
    assert!(with_failure(1, failure(1, REMEDY_UNAVAILABLE)).is_ok());
    assert!(matches!(
        failure_fault(1, failure(1, REMEDY_RETRY)),
        FailureFault::NotHandled { .. }
    ));
    for event in [0, 1] {
        assert!(matches!(
            failure_fault(2, failure(event, REMEDY_HALT)),
            FailureFault::NotNext { .. }
        ));
    }
    assert!(matches!(
        failure_fault(2, failure(2, REMEDY_HALT)),
        FailureFault::NoSuchEvent { .. }
    ));
    for remedy in [0, 5, u32::MAX] {
        assert_eq!(
            failure_fault(2, failure(0, remedy)),
            FailureFault::UnknownRemedy(remedy)
        );
    }
    let code = |code| Failure {
        code,
        ..failure(0, REMEDY_REJECT)
    };
    assert!(with_failure(2, code(span(0, 0))).is_ok());
    assert_eq!(failure_fault(2, code(span(0, 4))), FailureFault::BadCode);
    assert_eq!(failure_fault(2, code(span(17, 1))), FailureFault::CodeSpan);
    let reason = |reason| Failure {
        reason,
        ..failure(0, REMEDY_REJECT)
    };
    assert_eq!(
        failure_fault(2, reason(span(15, 2))),
        FailureFault::ReasonNotUtf8
    );
    assert_eq!(
        failure_fault(2, reason(span(3, u32::MAX))),
        FailureFault::ReasonSpan
    );
}

#[test]
fn an_event_fails_once() {
    let failures = |events: &[u32]| {
        verdict(Outcome {
            failures: events
                .iter()
                .map(|event| failure(*event, REMEDY_REJECT))
                .collect(),
            ..outcome()
        })
    };
    assert!(matches!(
        failures(&[1, 1]),
        Err(Invalid::FailsTwice { event: 1 })
    ));
    assert!(matches!(
        failures(&[0, 1, 0]),
        Err(Invalid::TooManyFailures { .. })
    ));
    let checked = failures(&[1, 0]).unwrap();
    let order: Vec<_> = checked.failures().map(|failure| failure.event()).collect();
    assert_eq!(order, [0, 1]);
}

/// Spans may overlap: four outputs of one short value could otherwise stand for gigabytes.
#[test]
fn limits_count_what_is_inherited_and_shared_each_time() {
    let outputs = |outputs| {
        verdict(Outcome {
            outputs,
            ..outcome()
        })
    };
    // Key 4, value 6, headers a: 1 and b: 3 bytes. Twelve more than the limit with the value shared.
    let forward = Output::default();
    assert!(outputs(vec![forward; 4]).is_ok());
    assert!(matches!(
        outputs(vec![forward; 5]),
        Err(Invalid::TooManyOutputs { .. })
    ));
    let shared = Output {
        edit: VALUE_OUTCOME,
        value: span(0, 17),
        ..forward
    };
    assert!(outputs(vec![shared; 4]).is_ok());
    let larger = Output {
        edit: VALUE_OUTCOME | KEY_OUTCOME,
        key: span(0, 6),
        ..shared
    };
    assert!(matches!(
        outputs(vec![larger; 4]),
        Err(Invalid::TooManyBytes { output: 3, .. })
    ));
}

#[test]
fn headers_are_counted_as_they_will_be() {
    let added = |names: &[&str], edit| {
        let mut data = Vec::new();
        let mut headers = Vec::new();
        for name in names {
            let name = span(data.len() as u32, name.len() as u32);
            headers.push(Header {
                name,
                ..Header::default()
            });
            data.extend_from_slice(names[headers.len() - 1].as_bytes());
        }
        let output = Output {
            edit,
            headers_count: names.len() as u32,
            ..Output::default()
        };
        verdict(Outcome {
            outputs: vec![output],
            headers,
            data,
            ..outcome()
        })
    };
    assert!(added(&["x"], AMEND).is_ok());
    assert!(matches!(
        added(&["x", "y"], AMEND),
        Err(Invalid::TooManyHeaders { headers: 4, .. })
    ));
    assert!(added(&["a", "y"], AMEND).is_ok());
    assert!(added(&["x", "y", "z"], REPLACE).is_ok());
    assert!(matches!(
        added(&["x", "y", "z", "w"], REPLACE),
        Err(Invalid::UnusedHeaders { .. })
    ));
}
