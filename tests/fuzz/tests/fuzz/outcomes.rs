//! An outcome is taken if and only if a second, plain reading of the contract takes it; and what is
//! taken stays within the limits when it is followed.

use millstream_fuzz_tests::fuzz;
use millstream_wire::*;
use proptest::collection::vec;
use proptest::prelude::*;

const LIMITS: Limits = Limits {
    outputs: 5,
    output_bytes: 300,
    headers: 4,
};
const OUTPUTS: u32 = 2;

/// Bytes that mean something in names, codes and reasons.
const WORDS: &[&str] = &[
    "a",
    "name",
    "millstream-id",
    "MILLSTREAM-",
    "traceparent",
    "too-old",
    "Bad Code",
    "é",
    "\u{1}",
    "",
];

fn number() -> impl Strategy<Value = u32> {
    prop_oneof![
        12 => 0..6_u32,
        4 => 0..60_u32,
        1 => Just(u32::MAX),
        1 => Just(u32::MAX - 1),
        1 => any::<u32>(),
    ]
}

fn span() -> impl Strategy<Value = Span> {
    (number(), number()).prop_map(|(start, length)| Span { start, length })
}

fn bytes() -> impl Strategy<Value = Vec<u8>> {
    let word = prop::sample::select(WORDS).prop_map(|word| word.as_bytes().to_vec());
    let piece = prop_oneof![6 => word, 1 => vec(any::<u8>(), 0..4)];
    let short = vec(piece, 1..8).prop_map(|pieces| pieces.concat());
    // Past the length at which a reason is cut, at every place of a character.
    let long = (1_015..1_040_usize, 0..4_usize).prop_map(|(length, shift)| {
        let mut text = vec![b'x'; shift];
        text.extend("é€😀".repeat(length / 9 + 1).as_bytes());
        text.truncate(length + 8);
        text
    });
    prop_oneof![20 => short, 1 => long].prop_map(|tail| [BEGINNING, &tail].concat())
}

/// What all of an outcome's data begin with, for careful draws to point at.
const BEGINNING: &[u8] = b"name-value-code";

/// One of these, mostly the first.
fn mostly<T: std::fmt::Debug>(
    careful: impl Strategy<Value = T>,
    careless: impl Strategy<Value = T>,
) -> impl Strategy<Value = T> {
    prop_oneof![12 => careful, 1 => careless]
}

fn inside() -> impl Strategy<Value = Span> {
    (0..8_u32, 1..7_u32).prop_map(|(start, length)| Span { start, length })
}

fn header() -> impl Strategy<Value = Header> {
    let bits = prop_oneof![4 => Just(0_u32), 2 => Just(1)];
    let make = |(name, value, bits)| Header { name, value, bits };
    let careful = (inside(), inside(), bits.clone()).prop_map(make);
    let careless = (span(), span(), prop_oneof![bits, number()]).prop_map(make);
    mostly(careful, careless)
}

type DrawnOutput = (Span, Span, (u32, u32, u32), (u32, u32), i64);

fn output() -> impl Strategy<Value = Output> {
    let make = |(
        key,
        value,
        (source, output, edit),
        (headers_start, headers_count),
        timestamp_ms,
    ): DrawnOutput| Output {
        timestamp_ms,
        key,
        value,
        source,
        output,
        edit,
        headers_start,
        headers_count,
    };
    // No third code of header edits, and headers that may be there.
    let edit = (0..16_u32, 0..3_u32, 0..2_u32)
        .prop_map(|(parts, headers, time)| parts | headers << 4 | time << 6);
    let place = (0..3_u32, 0..OUTPUTS, edit);
    let careful = (
        inside(),
        inside(),
        place,
        (0..3_u32, 0..2_u32),
        any::<i64>(),
    )
        .prop_map(make);
    let edit = prop_oneof![1 => 0..256_u32, 1 => any::<u32>()];
    let place = (number(), 0..3_u32, edit);
    let careless = (span(), span(), place, (number(), number()), any::<i64>()).prop_map(make);
    mostly(careful, careless)
}

fn failure() -> impl Strategy<Value = Failure> {
    let make = |(event, remedy, after_ms, code, reason)| Failure {
        event,
        remedy,
        after_ms,
        code,
        reason,
    };
    let careful = (0..5_u32, 1..5_u32, number(), inside(), inside()).prop_map(make);
    let long = (0..20_u32, 1_000..1_060_u32).prop_map(|(start, length)| Span { start, length });
    let reason = prop_oneof![1 => span(), 1 => long];
    let careless = (number(), number(), number(), span(), reason).prop_map(make);
    mostly(careful, careless)
}

fn outcome() -> impl Strategy<Value = Outcome> {
    let extras = prop_oneof![30 => Just(vec![]), 1 => Just(vec![Extra::default()])];
    let handled = mostly(1..4_u32, number());
    (
        handled,
        vec(output(), 0..6),
        vec(header(), 0..5),
        vec(failure(), 0..2),
        bytes(),
        extras,
    )
        .prop_map(|(handled, mut outputs, headers, failures, data, extras)| {
            // In order more often than chance would have it.
            if handled != 3 {
                outputs.sort_by_key(|output| output.source);
            }
            Outcome {
                handled,
                outputs,
                headers,
                failures,
                data,
                extras,
            }
        })
}

#[derive(Clone, Debug)]
struct Given {
    events: Vec<Event>,
    headers: Vec<Header>,
    data: Vec<u8>,
}

impl Given {
    fn batch(&self) -> Batch<'_> {
        Batch {
            events: &self.events,
            headers: &self.headers,
            data: &self.data,
            extras: &[],
            budget_ms: 1_000,
            bits: 0,
        }
    }
}

/// The runtime's own batch, which is sound.
fn given() -> impl Strategy<Value = Given> {
    let header = (0..40_u32, 1..6_u32, 0..20_u32, 0..2_u32);
    let event = (0..60_u32, 0..30_u32, 0..40_u32, 0..4_u32, vec(header, 0..5));
    (vec(event, 2..5), vec(any::<u8>(), 70..120)).prop_map(|(drawn, data)| {
        let mut given = Given {
            events: vec![],
            headers: vec![],
            data,
        };
        for (start, key, value, bits, headers) in drawn {
            given.events.push(Event {
                key: Span {
                    start,
                    length: if bits & 1 == 0 { key.min(10) } else { 0 },
                },
                value: Span {
                    start: 0,
                    length: if bits & 2 == 0 { value } else { 0 },
                },
                bits,
                headers_start: given.headers.len() as u32,
                headers_count: headers.len() as u32,
                ..Event::default()
            });
            let headers = headers
                .into_iter()
                .map(|(start, name, value, bits)| Header {
                    name: Span {
                        start,
                        length: name,
                    },
                    value: Span {
                        start,
                        length: if bits == 0 { value } else { 0 },
                    },
                    bits,
                });
            given.headers.extend(headers);
        }
        given
    })
}

fn piece(span: Span, data: &[u8]) -> Option<Vec<u8>> {
    let (start, length) = (u128::from(span.start), u128::from(span.length));
    if start + length > data.len() as u128 {
        return None;
    }
    Some(
        data.iter()
            .skip(start as usize)
            .take(length as usize)
            .copied()
            .collect(),
    )
}

fn range(headers: &[Header], start: u32, count: u32) -> Option<Vec<Header>> {
    let end = u128::from(start) + u128::from(count);
    (end <= headers.len() as u128).then(|| headers[start as usize..end as usize].to_vec())
}

fn sound_header(header: &Header, data: &[u8]) -> bool {
    let Some(name) = piece(header.name, data) else {
        return false;
    };
    let lower = String::from_utf8_lossy(&name).to_lowercase();
    (1..=255).contains(&name.len())
        && String::from_utf8(name).is_ok()
        && lower != "traceparent"
        && !lower.starts_with("millstream-")
        && header.bits <= 1
        && (header.bits == 1 || piece(header.value, data).is_some())
}

fn size(headers: &[Header]) -> u128 {
    let value = |header: &Header| {
        if header.bits & 1 == 0 {
            header.value.length
        } else {
            0
        }
    };
    headers
        .iter()
        .map(|h| u128::from(h.name.length) + u128::from(value(h)))
        .sum()
}

/// The bytes of an output, or `None` where it breaks a rule.
fn sound_output(given: &Given, outcome: &Outcome, output: &Output) -> Option<u128> {
    let event = match output.source {
        u32::MAX if outcome.handled > 0 => None,
        source if source < outcome.handled => Some(given.events.get(source as usize)?),
        _ => return None,
    };
    if output.output >= OUTPUTS || output.edit >= 128 {
        return None;
    }
    let field = |code: u32, span: Span, inherited: Option<Span>| match code {
        0 => inherited.map(|span| u128::from(span.length)),
        1 => Some(0),
        2 => piece(span, &outcome.data).map(|bytes| bytes.len() as u128),
        _ => piece(span, &given.data).map(|bytes| bytes.len() as u128),
    };
    let key = field(output.edit & 3, output.key, event.map(|event| event.key))?;
    let value = field(
        output.edit >> 2 & 3,
        output.value,
        event.map(|event| event.value),
    )?;
    let inherited = match event {
        Some(event) => range(&given.headers, event.headers_start, event.headers_count)?,
        None => vec![],
    };
    let most = LIMITS.headers as usize;
    let own = || range(&outcome.headers, output.headers_start, output.headers_count);
    let headers = match output.edit >> 4 & 3 {
        0 if event.is_some() && inherited.len() <= most => size(&inherited),
        1 if event.is_some() => {
            let own = own()?;
            let named = |header: &Header| {
                let name = piece(header.name, &given.data);
                own.iter().any(|own| piece(own.name, &outcome.data) == name)
            };
            let kept = inherited.iter().filter(|header| !named(header)).count();
            let added = own.iter().filter(|header| header.bits == 0).count();
            let each = own.len().max(inherited.len());
            if kept + added > most || each > most {
                return None;
            }
            size(&own) + size(&inherited)
        }
        2 => {
            let own = own()?;
            if own.len() > most {
                return None;
            }
            size(&own)
        }
        _ => return None,
    };
    Some(key + value + headers)
}

fn sound_failure(given: &Given, outcome: &Outcome, failure: &Failure) -> bool {
    let place = match failure.remedy {
        1 | 2 => failure.event < outcome.handled,
        3 | 4 => failure.event == outcome.handled,
        _ => false,
    };
    let is_code = |code: Vec<u8>| {
        let known = b"abcdefghijklmnopqrstuvwxyz0123456789-";
        code.len() <= 64 && code.iter().all(|byte| known.contains(byte))
    };
    let is_text = |reason: Vec<u8>| match reason.len() {
        0..=1_024 => String::from_utf8(reason).is_ok(),
        // Up to three bytes of a character that the cut splits.
        _ => (1_021..=1_024).any(|end| std::str::from_utf8(&reason[..end]).is_ok()),
    };
    place
        && (failure.event as usize) < given.events.len()
        && piece(failure.code, &outcome.data).is_some_and(is_code)
        && piece(failure.reason, &outcome.data).is_some_and(is_text)
}

/// The contract, read plainly.
fn sound(given: &Given, outcome: &Outcome) -> bool {
    let events = given.events.len();
    let outputs: Option<Vec<u128>> = outcome
        .outputs
        .iter()
        .map(|output| sound_output(given, outcome, output))
        .collect();
    let mut failed: Vec<u32> = outcome
        .failures
        .iter()
        .map(|failure| failure.event)
        .collect();
    failed.sort_unstable();
    failed.dedup();
    outcome.handled as usize <= events
        && outcome.extras.is_empty()
        && outcome.outputs.len() <= LIMITS.outputs as usize
        && outcome.headers.len() <= outcome.outputs.len() * LIMITS.headers as usize
        && outcome
            .headers
            .iter()
            .all(|header| sound_header(header, &outcome.data))
        && outcome.outputs.is_sorted_by_key(|output| output.source)
        && outputs.is_some_and(|sizes| sizes.iter().sum::<u128>() <= LIMITS.output_bytes.into())
        && outcome
            .failures
            .iter()
            .all(|failure| sound_failure(given, outcome, failure))
        && failed.len() == outcome.failures.len()
        && (outcome.handled > 0 || outcome.failures.iter().any(|failure| failure.remedy >= 3))
}

/// What is taken can be followed, and is within the limits.
fn follow(given: &Given, checked: &Checked) -> Result<(), TestCaseError> {
    let batch = given.batch();
    let mut bytes = 0;
    for output in checked.outputs() {
        let headers: Vec<_> = output.headers(&batch).collect();
        prop_assert!(headers.len() <= LIMITS.headers as usize);
        let own = headers
            .iter()
            .map(|(name, value)| name.len() + value.unwrap_or_default().len());
        bytes += own.sum::<usize>();
        bytes += output.key(&batch).unwrap_or_default().len();
        bytes += output.value(&batch).unwrap_or_default().len();
        prop_assert!(output.takes_effect_with() < checked.handled());
        output.timestamp(&batch);
    }
    prop_assert!(
        bytes as u64 <= LIMITS.output_bytes,
        "{bytes} bytes were taken"
    );
    let mut before = None;
    for failure in checked.failures() {
        prop_assert!(before.is_none_or(|before| before < failure.event()));
        before = Some(failure.event());
        prop_assert!(failure.reason().len() <= REASON_KEPT && failure.code().len() <= CODE_MAX);
        prop_assert!(checked.failure(failure.event()).is_some());
    }
    Ok(())
}

#[test]
fn outcomes_are_taken_as_the_contract_says() {
    let inputs = (given(), outcome());
    fuzz("outcomes", 3_000, &inputs, |(given, outcome)| {
        let expected = sound(&given, &outcome);
        match check(&given.batch(), outcome, OUTPUTS, &LIMITS) {
            Ok(checked) => {
                prop_assert!(expected, "taken against the contract");
                follow(&given, &checked)
            }
            Err(error) => {
                prop_assert!(!expected, "refused without a reason: {error}");
                prop_assert!(error.to_string().len() < 1_000);
                Ok(())
            }
        }
    });
}

/// Of outcomes drawn so, enough must be sound, or the property above says little.
#[test]
fn many_of_the_drawn_outcomes_are_sound() {
    use proptest::strategy::ValueTree as _;
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let inputs = (given(), outcome());
    let drawn = (0..4_000).map(|_| inputs.new_tree(&mut runner).unwrap().current());
    let taken = drawn
        .filter(|(given, outcome)| sound(given, outcome))
        .count();
    assert!(taken > 100, "{taken} of 4,000");
}
