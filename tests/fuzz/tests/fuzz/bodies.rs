//! Bodies and headers of a request to produce.

use std::sync::Arc;

use axum::http::{HeaderMap, HeaderName, HeaderValue};
use millstream::admin::produce::{Params, lines, single};
use millstream::json_event::{MAX_HEADER_NAME, parse, render_record};
use millstream::records::Records;
use millstream_fuzz_tests::{fuzz, mutated};
use proptest::collection::vec;
use proptest::prelude::*;

const LINES: &[&str] = &[
    r#"{"value":"v"}"#,
    r#"{"topic":"orders","partition":0,"offset":7,"timestamp":-5,"key":null,"value":{"base64":"/w=="},"headers":[{"name":"a","value":null}]}"#,
    r#"{"key":"k","value":null,"headers":[{"name":{"base64":"aA=="},"value":"\u0000"},{"name":"a"}]}"#,
    "{\"value\":\"a\"}\n\n  \r\n{\"value\":\"b\"}\n{\"value\":1}\n",
];
const WORDS: &[&[u8]] = &[
    b"null",
    b"\"value\":",
    b"{\"base64\":\"",
    b"\\ud800",
    b"\\u0000",
    b"[[[[[[",
    b"{\"name\":\"",
    b"\n",
    b"18446744073709551616",
    b"1e999",
    b"\xff",
    b"\"\"",
    b"-0",
    b",",
    b"}",
];

#[test]
fn json_lines_are_read_whole_or_refused_by_line() {
    let corpus = LINES.iter().map(|line| line.as_bytes().to_vec()).collect();
    let inputs = mutated(corpus, WORDS);
    let topic: Arc<str> = "orders".into();
    fuzz("JSON lines", 5_000, &inputs, |body| {
        let read = lines(&body, |event, records| {
            event.push_to(records, &topic, None);
            Ok(())
        });
        let full = body
            .split(|byte| *byte == b'\n')
            .filter(|line| !line.trim_ascii().is_empty());
        let full: Vec<&[u8]> = full.collect();
        match read {
            Ok(records) => {
                prop_assert_eq!(records.len(), full.len());
                for record in records.iter() {
                    let mut line = Vec::new();
                    render_record(&record, &mut line);
                    prop_assert!(!line.contains(&b'\n'));
                    let event = parse(&line).expect("what is rendered is read");
                    prop_assert_eq!(event.key.as_deref(), record.key());
                    prop_assert_eq!(event.value.as_deref(), record.value());
                    let headers = event.headers.iter().map(|(n, v)| (&n[..], v.as_deref()));
                    prop_assert!(headers.eq(record.headers()));
                    let mut names = record.headers().map(|(name, _)| name.len());
                    prop_assert!(names.all(|length| (1..=MAX_HEADER_NAME).contains(&length)));
                }
            }
            Err(refused) => {
                prop_assert_eq!(refused.status.as_u16(), 400);
                let bad = full.iter().filter(|line| parse(line).is_err()).count();
                prop_assert!(bad > 0, "refused without a bad line");
                let text = serde_json::to_string(&refused.report).unwrap();
                prop_assert!(text.len() < 2_000 + 2_000 * bad.min(100), "{}", text.len());
            }
        }
        Ok(())
    });
}

#[test]
fn headers_of_a_request_become_those_of_its_event() {
    let names = prop::sample::select(
        &[
            "ce-id",
            "ce-",
            "x-event-",
            "x-event-a",
            "ce-partitionkey",
            "x-other",
            "content-type",
        ][..],
    );
    let name = (names, "[a-z0-9-]{0,3}").prop_map(|(name, more)| format!("{name}{more}"));
    let value = vec(
        prop_oneof![32..127_u8, Just(0xff), Just(b'%'), Just(b'\t')],
        0..12,
    );
    let inputs = (vec((name, value), 0..6), prop::option::of("[a-z]{0,4}"));
    let topic: Arc<str> = "orders".into();
    fuzz("request headers", 3_000, &inputs, |(sent, key)| {
        let mut map = HeaderMap::new();
        for (name, value) in &sent {
            let value = HeaderValue::from_bytes(value);
            if let (Ok(name), Ok(value)) = (name.parse::<HeaderName>(), value) {
                map.append(name, value);
            }
        }
        let params = Params {
            key: key.clone(),
            partition: None,
        };
        let stored = |map: &HeaderMap| {
            map.keys()
                .filter(|n| n.as_str().starts_with("ce-") || n.as_str().starts_with("x-event-"))
                .map(|name| map.get_all(name).iter().count())
                .sum::<usize>()
        };
        let records: Records = match single(&topic, &params, &map, b"value") {
            Ok(records) => records,
            Err(refused) => {
                prop_assert_eq!(refused.status.as_u16(), 400);
                return Ok(());
            }
        };
        prop_assert_eq!(records.len(), 1);
        let record = records.get(0);
        prop_assert_eq!(record.value(), Some(&b"value"[..]));
        prop_assert_eq!(record.headers().count(), stored(&map));
        prop_assert!(
            record
                .headers()
                .all(|(name, _)| !name.is_empty() && name != b"ce_")
        );
        if let Some(key) = &key {
            prop_assert_eq!(record.key(), Some(key.as_bytes()));
        }
        Ok(())
    });
}
