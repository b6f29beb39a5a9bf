//! The headers of a derived event: whatever its source carries and its plugin sets, the runtime's
//! own stay its own.

use std::sync::LazyLock;

use millstream::consumer::derive::{Derived, Deriver, OwnHeader};
use millstream::records::Records;
use millstream_fuzz_tests::fuzz;
use millstream_wire::{HeaderEdit, is_reserved_header};
use proptest::prelude::*;

use super::{Header, event, headers};

const NAMES: &[&str] = &[
    "a",
    "b",
    "millstream-id",
    "millstream-hops",
    "millstream-source",
    "Millstream-Hops",
    "millstream-dlq-count",
    "millstream-replay-of",
    "traceparent",
    "Traceparent",
    "tracestate",
    "baggage",
    "correlation-id",
    "ce_id",
    "ce_source",
    "ce_time",
    "ce_type",
    "",
];
const TRACE: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
const VALUES: &[&str] = &[
    "",
    "1",
    "15",
    "4294967295",
    "-1",
    "x",
    TRACE,
    "orders/1/2",
    "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
    "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
    "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more",
];

/// What a derived event keeps of its source, and has of its plugin, in order.
fn expected(source: &[Header], own: &[Header], edit: HeaderEdit, changed: bool) -> Vec<Header> {
    let is = |name: &[u8], words: &[&str]| words.iter().any(|word| word.as_bytes() == name);
    let correlates = |name: &[u8]| is(name, &["correlation-id"]);
    let kept = source.iter().filter(|(name, value)| {
        let runtimes = name.starts_with(b"millstream-") || is(name, &["traceparent"]);
        let identity = changed && is(name, &["ce_id", "ce_source", "ce_time"]);
        let passes = is(name, &["tracestate", "baggage", "correlation-id"]);
        let replaced = edit == HeaderEdit::Replace && !passes;
        let amends = |(own, value): &Header| own == name && (value.is_some() || !correlates(name));
        let amended = edit != HeaderEdit::Keep && own.iter().any(amends);
        let nothing = correlates(name) && value.is_none();
        !(runtimes || identity || replaced || amended || nothing)
    });
    let added = own.iter().filter(|(name, value)| {
        value.is_some() || (edit != HeaderEdit::Amend && !correlates(name))
    });
    kept.chain(added).cloned().collect()
}

static TRACE_FORM: LazyLock<regex::bytes::Regex> = LazyLock::new(|| {
    regex::bytes::Regex::new("^(?-u)[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}$").unwrap()
});

#[test]
fn derived_events_carry_what_they_must_and_nothing_forged() {
    let edit = prop_oneof![
        Just(HeaderEdit::Keep),
        Just(HeaderEdit::Amend),
        Just(HeaderEdit::Replace)
    ];
    let inputs = (
        headers(NAMES, VALUES, 8),
        headers(NAMES, VALUES, 5),
        edit,
        any::<bool>(),
    );
    fuzz("headers", 2_000, &inputs, |(source, own, edit, changed)| {
        // Others are refused before: see the outcomes.
        let own: Vec<Header> = match edit {
            HeaderEdit::Keep => vec![],
            _ => own
                .into_iter()
                .filter(|(name, _)| !is_reserved_header(name))
                .collect(),
        };
        let block = event(Some(b"k"), &source);
        let borrowed: Vec<OwnHeader<'_>> = own
            .iter()
            .map(|(name, value)| (&name[..], value.as_deref()))
            .collect();
        let mut records = Records::new();
        Deriver::new(&"c".into(), false, 1_700_000_000_000).push(
            &mut records,
            &"out".into(),
            &block.event(0),
            &Derived {
                key: None,
                value: Some(b"v"),
                value_changed: changed,
                timestamp_ms: None,
                edit,
                own: &borrowed,
                number: 7,
                inherits: true,
            },
        );
        let record = records.get(0);
        let written: Vec<Header> = record
            .headers()
            .map(|(name, value)| (name.to_vec(), value.map(<[u8]>::to_vec)))
            .collect();
        let expected = expected(&source, &own, edit, changed);
        prop_assert_eq!(&written[..expected.len()], &expected[..]);

        let tail = &written[expected.len()..];
        let values = |wanted: &str| {
            let of = tail
                .iter()
                .filter(move |(name, _)| name == wanted.as_bytes());
            of.map(|(_, value)| value.clone().unwrap_or_default())
                .collect::<Vec<_>>()
        };
        prop_assert_eq!(values("millstream-source"), vec![b"orders/3/42".to_vec()]);
        prop_assert_eq!(values("millstream-id"), vec![b"orders/3/42/7".to_vec()]);
        let hops = source
            .iter()
            .rev()
            .find(|(name, _)| name == b"millstream-hops");
        let hops = hops.and_then(|(_, value)| std::str::from_utf8(value.as_deref()?).ok());
        let hops: u64 = hops
            .and_then(|text| text.parse::<u32>().ok())
            .unwrap_or(0)
            .into();
        prop_assert_eq!(
            values("millstream-hops"),
            vec![(hops + 1).to_string().into_bytes()]
        );
        let correlated = |(name, value): &Header| name == b"correlation-id" && value.is_some();
        prop_assert!(written.iter().any(correlated));
        let traces = values("traceparent");
        prop_assert!(traces.len() <= 1 && traces.iter().all(|trace| TRACE_FORM.is_match(trace)));
        let known = [
            "millstream-source",
            "millstream-id",
            "millstream-hops",
            "correlation-id",
            "traceparent",
            "ce_id",
            "ce_source",
            "ce_time",
        ];
        prop_assert!(
            tail.iter()
                .all(|(name, _)| known.iter().any(|k| k.as_bytes() == name))
        );
        Ok(())
    });
}
