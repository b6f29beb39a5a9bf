//! What the views of a checked outcome resolve to; and outcomes of any bytes at all.

mod common;

use common::*;
use millstream_wire::*;
use proptest::prelude::*;

#[test]
fn views_resolve_what_an_output_says() {
    let mut outcome = outcome();
    outcome.headers = vec![
        Header {
            name: span(0, 4),
            value: span(4, 5),
            bits: 0,
        },
        Header {
            name: span(5, 1),
            bits: HEADER_VALUE_NULL,
            ..Header::default()
        },
    ];
    let of = |edit, count| Output {
        edit,
        key: span(4, 5),
        value: span(25, 2),
        headers_count: count,
        ..Output::default()
    };
    outcome.outputs = vec![
        of(0, 0),
        of(KEY_OUTCOME | 3 << 2 | AMEND | EDIT_TIMESTAMP, 2),
        of(1 | 1 << 2 | REPLACE, 2),
        Output {
            source: 1,
            ..of(0, 0)
        },
    ];
    let checked = verdict(outcome).unwrap();
    with_batch(|batch| {
        let outputs: Vec<_> = checked.outputs().collect();
        assert_eq!(outputs[0].key(batch), Some(&b"key0"[..]));
        assert_eq!(outputs[0].value(batch), Some(&b"value0"[..]));
        assert_eq!(outputs[0].timestamp(batch), 7);
        assert!(!outputs[0].value_changed() && outputs[1].value_changed());
        let headers: Vec<_> = outputs[0].headers(batch).collect();
        assert_eq!(headers, [(&b"a"[..], Some(&b"1"[..])), (b"b", None)]);
        // The amendment's second record drops `a` and adds nothing; `b` stays, null as it was.
        assert_eq!(outputs[1].key(batch), Some(&b"value"[..]));
        assert_eq!(outputs[1].value(batch), Some(&b"a1"[..]));
        assert_eq!(outputs[1].timestamp(batch), 0);
        let headers: Vec<_> = outputs[1].headers(batch).collect();
        assert_eq!(headers, [(&b"b"[..], None), (b"Name", Some(&b"value"[..]))]);
        assert_eq!(outputs[2].key(batch), None);
        assert_eq!(outputs[2].value(batch), None);
        let headers: Vec<_> = outputs[2].headers(batch).collect();
        assert_eq!(headers, [(&b"Name"[..], Some(&b"value"[..])), (b"a", None)]);
        // A tombstone that is passed on stays one.
        assert_eq!(outputs[3].value(batch), None);
        assert_eq!(outputs[3].headers(batch).count(), 0);
    });
}

/// The rest of a long reason is dropped; a character that the cut splits must not refuse it.
#[test]
fn a_reason_is_cut_at_a_character() {
    let long = format!("x{}", "é".repeat(REASON_KEPT));
    let record = Failure {
        code: span(0, 0),
        reason: span(0, long.len() as u32),
        ..failure(0, REMEDY_REJECT)
    };
    let checked = verdict(Outcome {
        failures: vec![record],
        data: long.into_bytes(),
        ..outcome()
    })
    .unwrap();
    let reason = checked.failure(0).unwrap().reason();
    assert_eq!(reason.len(), REASON_KEPT - 1);
    assert!(checked.failure(1).is_none());
}

fn small() -> impl Strategy<Value = u32> {
    prop_oneof![8 => 0_u32..6, 1 => Just(u32::MAX), 1 => any::<u32>()]
}

prop_compose! {
    fn any_span()(start in small(), length in small()) -> Span {
        Span { start, length }
    }
}

prop_compose! {
    fn any_output()(
        timestamp_ms in any::<i64>(), key in any_span(), value in any_span(), source in small(),
        output in small(), edit in prop_oneof![3 => 0_u32..128, 1 => any::<u32>()],
        headers_start in small(), headers_count in small(),
    ) -> Output {
        Output { timestamp_ms, key, value, source, output, edit, headers_start, headers_count }
    }
}

prop_compose! {
    fn any_header()(name in any_span(), value in any_span(), bits in small()) -> Header {
        Header { name, value, bits }
    }
}

prop_compose! {
    fn any_failure()(
        event in small(), remedy in small(), after_ms in small(), code in any_span(),
        reason in any_span(),
    ) -> Failure {
        Failure { event, remedy, after_ms, code, reason }
    }
}

prop_compose! {
    fn any_outcome()(
        handled in small(),
        outputs in prop::collection::vec(any_output(), 0..3),
        headers in prop::collection::vec(any_header(), 0..3),
        failures in prop::collection::vec(any_failure(), 0..3),
        data in prop_oneof![
            Just(b"abcdefghijkl".to_vec()),
            prop::collection::vec(any::<u8>(), 0..16),
        ],
    ) -> Outcome {
        Outcome { handled, outputs, headers, failures, data, extras: Vec::new() }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(20_000))]

    /// No garbage panics, and what is accepted resolves: in its list, in its limits.
    #[test]
    fn what_is_accepted_resolves(outcome in any_outcome()) {
        let Ok(checked) = verdict(outcome) else { return Ok(()) };
        let data = &checked.outcome().data;
        with_batch(|batch| {
            let mut bytes = 0;
            for view in checked.outputs() {
                let record = view.record();
                prop_assert!(view.output() < 2);
                prop_assert!(view.takes_effect_with() < checked.handled());
                for (part, span, resolved) in [
                    (record.key_part(), record.key, view.key(batch)),
                    (record.value_part(), record.value, view.value(batch)),
                ] {
                    match part {
                        Part::Outcome => prop_assert_eq!(resolved, span.of(data)),
                        Part::Batch => prop_assert_eq!(resolved, span.of(batch.data)),
                        Part::Null => prop_assert_eq!(resolved, None),
                        Part::Source => prop_assert!(view.source().is_some()),
                    }
                    prop_assert!(matches!(part, Part::Null | Part::Source) || resolved.is_some());
                    bytes += resolved.map_or(0, <[u8]>::len);
                }
                let mut headers = 0;
                for (name, value) in view.headers(batch) {
                    headers += 1;
                    bytes += name.len() + value.map_or(0, <[u8]>::len);
                    prop_assert!(!name.is_empty() && !is_reserved_header(name));
                    prop_assert!(std::str::from_utf8(name).is_ok());
                }
                prop_assert!(headers <= LIMITS.headers);
            }
            prop_assert!(bytes as u64 <= LIMITS.output_bytes);
            for failure in checked.failures() {
                prop_assert!(is_code(failure.code().as_bytes()));
                let stops = matches!(failure.remedy(), Remedy::Unavailable | Remedy::Halt);
                prop_assert_eq!(failure.event() == checked.handled(), stops);
            }
            Ok(())
        })?;
    }
}
