//! A filter wants what a regular expression of its patterns wants, of any bytes.

use millstream::config::filter::{Condition, Field, Filter, Value, glob};
use millstream::decide::routing::wants;
use millstream_fuzz_tests::fuzz;
use proptest::collection::vec;
use proptest::prelude::*;

use super::{Header, event, headers};

const NAMES: &[&str] = &["type", "ce_type", "event-type", "x"];
const VALUES: &[&str] = &["", "a", "ab", "ba", "abba", "*", "!a", "aXb"];

/// By a table of all prefixes, as a textbook has it.
fn matches(pattern: &[u8], bytes: &[u8]) -> bool {
    let mut row = vec![false; bytes.len() + 1];
    row[0] = true;
    for byte in pattern {
        let mut next = vec![false; bytes.len() + 1];
        for end in 0..=bytes.len() {
            next[end] = match byte {
                b'*' => row[end] || (end > 0 && next[end - 1]),
                byte => end > 0 && row[end - 1] && bytes[end - 1] == *byte,
            };
        }
        row = next;
    }
    row[bytes.len()]
}

fn wanted(filter: &Filter, key: Option<&[u8]>, headers: &[Header]) -> bool {
    let header = |wanted: &str| {
        let of = headers
            .iter()
            .rev()
            .find(|(name, _)| name == wanted.as_bytes());
        of.and_then(|(_, value)| value.as_deref())
    };
    filter.conditions.iter().all(|condition| {
        let field = match &condition.field {
            Field::Key => key,
            Field::Header(name) => header(name),
            Field::Type => header("ce_type")
                .or(header("type"))
                .or(header("event-type")),
        };
        let is =
            |value: &Value| field.is_some_and(|bytes| matches(value.pattern.as_bytes(), bytes));
        let (no, yes): (Vec<_>, Vec<_>) = condition.values.iter().partition(|v| v.unwanted);
        field.is_some() && !no.into_iter().any(is) && (yes.is_empty() || yes.into_iter().any(is))
    })
}

#[test]
fn filters_want_what_their_patterns_say() {
    let field = prop_oneof![
        Just(Field::Type),
        Just(Field::Key),
        Just(Field::Header("x".into())),
    ];
    let values = vec("!?[ab*]{0,6}".prop_map(|text| Value::parse(&text)), 1..4);
    let condition = (field, values).prop_map(|(field, values)| Condition { field, values });
    let filter = vec(condition, 0..3).prop_map(|conditions| Filter { conditions });
    let key = prop::option::of(vec(prop::sample::select(&b"ab*\xff"[..]), 0..8));
    let inputs = (filter, key, headers(NAMES, VALUES, 5));
    fuzz("filters", 3_000, &inputs, |(filter, key, headers)| {
        let block = event(key.as_deref(), &headers);
        let expected = wanted(&filter, key.as_deref(), &headers);
        prop_assert_eq!(wants(&filter, &block.event(0)), expected);
        Ok(())
    });
}

#[test]
fn patterns_of_any_bytes_match_as_a_textbook_says() {
    let byte = || prop::sample::select(&b"aab*\xff\0"[..]);
    let inputs = (vec(byte(), 0..24), vec(byte(), 0..40));
    fuzz("patterns", 3_000, &inputs, |(pattern, bytes)| {
        prop_assert_eq!(glob(&pattern, &bytes), matches(&pattern, &bytes));
        Ok(())
    });
}
