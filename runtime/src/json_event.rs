//! An event as one line of JSON: what `consume --json` prints and `produce --json` takes.
//!
//! ```text
//! {"topic":"orders","partition":0,"offset":7,"timestamp":1700000000000,
//!  "key":"k","value":"v","headers":[{"name":"a","value":null}]}
//!
//! null ▶ null   UTF-8 ▶ a string   other bytes ▶ {"base64":"…"}
//! ```
//!
//! Rendering and parsing lose nothing: null stays apart from empty, headers keep their order and
//! may repeat.

use std::borrow::Cow;
use std::fmt;
use std::io::Write as _;
use std::marker::PhantomData;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::de::value::MapAccessDeserializer;
use serde::de::{Error as _, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};

use crate::event::EventView;
use crate::records::{NewRecord, RecordView, Records};

/// Appends the line form of an event, without a line end.
pub fn render(event: &EventView<'_>, out: &mut Vec<u8>) {
    let source = event.source();
    push_place(out, &source.topic, Some(source.partition));
    let _ = write!(
        out,
        ",\"offset\":{},\"timestamp\":{}",
        event.offset(),
        event.timestamp_ms()
    );
    push_content(out, event.key(), event.value(), event.headers());
}

/// Appends the line form of a record that has no offset yet; partition and timestamp are left out
/// where the record leaves them open.
pub fn render_record(record: &RecordView<'_>, out: &mut Vec<u8>) {
    push_place(out, record.topic(), record.partition());
    if let Some(timestamp) = record.timestamp_ms() {
        let _ = write!(out, ",\"timestamp\":{timestamp}");
    }
    push_content(out, record.key(), record.value(), record.headers());
}

fn push_place(out: &mut Vec<u8>, topic: &str, partition: Option<u32>) {
    out.extend_from_slice(b"{\"topic\":");
    push_string(out, topic);
    if let Some(partition) = partition {
        let _ = write!(out, ",\"partition\":{partition}");
    }
}

fn push_content<'a>(
    out: &mut Vec<u8>,
    key: Option<&[u8]>,
    value: Option<&[u8]>,
    headers: impl Iterator<Item = (&'a [u8], Option<&'a [u8]>)>,
) {
    out.extend_from_slice(b",\"key\":");
    push_bytes(out, key);
    out.extend_from_slice(b",\"value\":");
    push_bytes(out, value);
    out.extend_from_slice(b",\"headers\":[");
    for (index, (name, value)) in headers.enumerate() {
        if index > 0 {
            out.push(b',');
        }
        out.extend_from_slice(b"{\"name\":");
        push_bytes(out, Some(name));
        out.extend_from_slice(b",\"value\":");
        push_bytes(out, value);
        out.push(b'}');
    }
    out.extend_from_slice(b"]}");
}

/// Bytes as they stand in the line form: null, a string, or `{"base64":"…"}`.
pub fn piece(bytes: Option<&[u8]>) -> serde_json::Value {
    match bytes.map(std::str::from_utf8) {
        None => serde_json::Value::Null,
        Some(Ok(text)) => text.into(),
        Some(Err(_)) => {
            serde_json::json!({"base64": STANDARD.encode(bytes.unwrap_or_default())})
        }
    }
}

fn push_bytes(out: &mut Vec<u8>, bytes: Option<&[u8]>) {
    let Some(bytes) = bytes else {
        out.extend_from_slice(b"null");
        return;
    };
    match std::str::from_utf8(bytes) {
        Ok(text) => push_string(out, text),
        Err(_) => {
            out.extend_from_slice(b"{\"base64\":\"");
            out.extend_from_slice(STANDARD.encode(bytes).as_bytes());
            out.extend_from_slice(b"\"}");
        }
    }
}

fn push_string(out: &mut Vec<u8>, text: &str) {
    // Writing JSON into a vector cannot fail: there is no I/O and a string is always valid JSON.
    let _ = serde_json::to_writer(out, text);
}

/// A line as it was read. `topic`, `partition` and `offset` say where the event once was; whether
/// they matter is the caller's decision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JsonEvent {
    pub topic: Option<String>,
    pub partition: Option<u32>,
    pub offset: Option<u64>,
    /// Milliseconds since 1970-01-01 UTC.
    pub timestamp_ms: Option<i64>,
    pub key: Option<Vec<u8>>,
    pub value: Option<Vec<u8>>,
    pub headers: Vec<(Vec<u8>, Option<Vec<u8>>)>,
}

/// A line that is not an event; the text says why and what is wanted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct NotAnEvent(pub String);

/// Longest header name, in bytes; a longer one could not be shown to a plugin.
pub const MAX_HEADER_NAME: usize = 255;

/// Reads one line.
///
/// # Errors
/// It is not JSON, has a field of another name, no `value` (a null must be written out, or a
/// misspelt field would produce tombstones), or a header's name is empty or longer than 255 bytes.
pub fn parse(line: &[u8]) -> Result<JsonEvent, NotAnEvent> {
    let read: Result<Object<Written<'_>>, _> = serde_json::from_slice(line);
    let Object(written) = read.map_err(|error| {
        // The parser sees one line: its own line number would name the wrong one.
        let text = error.to_string();
        let text = text.split(" at line ").next().unwrap_or_default();
        match error.column() {
            0 => NotAnEvent(text.to_owned()),
            column => NotAnEvent(format!("{text} at column {column}")),
        }
    })?;
    let Some(value) = written.value else {
        return Err(NotAnEvent(
            "`value` is missing; write \"value\":null for a tombstone".to_owned(),
        ));
    };
    let mut headers = Vec::with_capacity(written.headers.len());
    for Object(header) in written.headers {
        let Some(name) = header.name.bytes("a header's `name`")? else {
            return Err(NotAnEvent("a header's `name` is null".to_owned()));
        };
        if name.is_empty() || name.len() > MAX_HEADER_NAME {
            return Err(NotAnEvent(format!(
                "a header's `name` has {} bytes; 1 to {MAX_HEADER_NAME} are allowed",
                name.len()
            )));
        }
        headers.push((name, header.value.bytes("a header's `value`")?));
    }
    Ok(JsonEvent {
        topic: written.topic.map(Cow::into_owned),
        partition: written.partition,
        offset: written.offset,
        timestamp_ms: written.timestamp,
        key: written.key.bytes("`key`")?,
        value: value.bytes("`value`")?,
        headers,
    })
}

impl JsonEvent {
    /// Adds the event to `records`, for this topic and partition.
    pub fn push_to(&self, records: &mut Records, topic: &Arc<str>, partition: Option<u32>) {
        records.push(
            topic,
            NewRecord {
                key: self.key.as_deref(),
                value: self.value.as_deref(),
                partition,
                timestamp_ms: self.timestamp_ms,
                tag: 0,
            },
        );
        for (name, value) in &self.headers {
            records.push_header(name, value.as_deref());
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written<'a> {
    #[serde(borrow, default)]
    topic: Option<Cow<'a, str>>,
    #[serde(default)]
    partition: Option<u32>,
    #[serde(default)]
    offset: Option<u64>,
    #[serde(default)]
    timestamp: Option<i64>,
    #[serde(borrow, default)]
    key: Piece<'a>,
    #[serde(borrow, default, deserialize_with = "present")]
    value: Option<Piece<'a>>,
    #[serde(borrow, default)]
    headers: Vec<Object<WrittenHeader<'a>>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenHeader<'a> {
    #[serde(borrow)]
    name: Piece<'a>,
    #[serde(borrow, default)]
    value: Piece<'a>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Encoded<'a> {
    #[serde(borrow)]
    base64: Cow<'a, str>,
}

/// A key, a value or a part of a header.
#[derive(Default)]
enum Piece<'a> {
    #[default]
    Null,
    Text(Cow<'a, str>),
    Base64(Cow<'a, str>),
}

impl<'de: 'a, 'a> Deserialize<'de> for Piece<'a> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Pieces;
        impl<'de> Visitor<'de> for Pieces {
            type Value = Piece<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("null, a string or {\"base64\":\"…\"} (put JSON into a string)")
            }

            fn visit_unit<E>(self) -> Result<Piece<'de>, E> {
                Ok(Piece::Null)
            }

            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Piece<'de>, E> {
                Ok(Piece::Text(Cow::Borrowed(text)))
            }

            fn visit_str<E>(self, text: &str) -> Result<Piece<'de>, E> {
                Ok(Piece::Text(Cow::Owned(text.to_owned())))
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Piece<'de>, A::Error> {
                let encoded = Encoded::deserialize(MapAccessDeserializer::new(map));
                let encoded = encoded.map_err(|_| A::Error::custom(Wanted(&self)))?;
                Ok(Piece::Base64(encoded.base64))
            }
        }
        struct Wanted<'a>(&'a Pieces);
        impl fmt::Display for Wanted<'_> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("invalid object, expected ")?;
                self.0.expecting(f)
            }
        }
        from.deserialize_any(Pieces)
    }
}

/// A value that is written as an object: derived structs would take an array of their fields too.
struct Object<T>(T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Objects<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for Objects<T> {
            type Value = Object<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Object<T>, A::Error> {
                T::deserialize(MapAccessDeserializer::new(map)).map(Object)
            }
        }
        from.deserialize_map(Objects(PhantomData))
    }
}

impl Piece<'_> {
    fn bytes(self, what: &str) -> Result<Option<Vec<u8>>, NotAnEvent> {
        match self {
            Self::Null => Ok(None),
            Self::Text(text) => Ok(Some(text.into_owned().into_bytes())),
            Self::Base64(encoded) => STANDARD
                .decode(encoded.as_bytes())
                .map(Some)
                .map_err(|error| NotAnEvent(format!("{what} is not base64: {error}"))),
        }
    }
}

/// Tells a field that is null from one that is missing.
fn present<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Piece<'de>>, D::Error> {
    Piece::deserialize(from).map(Some)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::event::{Block, BlockBuilder, NewEvent, TopicPartition};

    fn block(event: &JsonEvent) -> Block {
        let source = TopicPartition::new(
            event.topic.as_deref().unwrap_or("t"),
            event.partition.unwrap_or(0),
        );
        let mut builder = BlockBuilder::new(source, 1, 64);
        builder.push(NewEvent {
            offset: event.offset.unwrap_or(0),
            timestamp_ms: event.timestamp_ms.unwrap_or(0),
            timestamp_of_broker: false,
            key: event.key.as_deref(),
            value: event.value.as_deref(),
        });
        for (name, value) in &event.headers {
            builder.push_header(name, value.as_deref());
        }
        builder.build()
    }

    fn line(event: &JsonEvent) -> String {
        let mut out = Vec::new();
        render(&block(event).event(0), &mut out);
        String::from_utf8(out).expect("JSON is UTF-8")
    }

    fn piece() -> impl Strategy<Value = Option<Vec<u8>>> {
        prop_oneof![
            Just(None),
            Just(Some(Vec::new())),
            any::<String>().prop_map(|text| Some(text.into_bytes())),
            proptest::collection::vec(any::<u8>(), 0..40).prop_map(Some),
        ]
    }

    proptest! {
        /// Any loss here would corrupt events on a `consume --json | produce --json` copy.
        #[test]
        fn what_is_rendered_is_read_back(
            topic in "[a-z]{1,9}",
            partition in any::<u32>(),
            offset in any::<u64>(),
            timestamp in any::<i64>(),
            key in piece(),
            value in piece(),
            headers in proptest::collection::vec(
                (proptest::collection::vec(any::<u8>(), 1..20), piece()), 0..4),
        ) {
            let event = JsonEvent {
                topic: Some(topic), partition: Some(partition), offset: Some(offset),
                timestamp_ms: Some(timestamp), key, value, headers,
            };
            let line = line(&event);
            prop_assert!(!line.contains('\n'));
            prop_assert_eq!(parse(line.as_bytes()), Ok(event));
        }

        /// Parsing must never panic, whatever is posted.
        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = parse(&bytes);
        }
    }

    #[test]
    fn a_line_is_exactly_as_documented() {
        let event = JsonEvent {
            topic: Some("orders".to_owned()),
            partition: Some(2),
            offset: Some(7),
            timestamp_ms: Some(1000),
            key: None,
            value: Some(b"a\"\n".to_vec()),
            headers: vec![(b"h".to_vec(), Some(vec![0xff])), (b"n".to_vec(), None)],
        };
        assert_eq!(
            line(&event),
            r#"{"topic":"orders","partition":2,"offset":7,"timestamp":1000,"key":null,"value":"a\"\n","headers":[{"name":"h","value":{"base64":"/w=="}},{"name":"n","value":null}]}"#
        );
    }

    /// Each of these would otherwise be produced as something that its author did not mean.
    #[test]
    fn lines_that_are_not_events_are_refused_with_the_reason() {
        let cases: [(&str, &str); 13] = [
            ("", "EOF while parsing a value"),
            ("[]", "expected an object"),
            ("[\"t\",0,0,0,\"k\",\"v\",[]]", "expected an object"),
            ("{\"value\":[\"aGk=\"]}", "invalid type: sequence"),
            ("{\"value\":\"a\",\"headers\":[[\"a\",\"b\"]]}", "an object"),
            ("{\"key\":\"a\"}", "`value` is missing"),
            ("{\"value\":\"a\",\"vaule\":1}", "unknown field `vaule`"),
            ("{\"value\":{\"a\":1}}", "put JSON into a string"),
            ("{\"value\":{\"base64\":\"%\"}}", "`value` is not base64"),
            ("{\"value\":\"a\",\"partition\":-1}", "invalid value"),
            (
                "{\"value\":\"a\",\"headers\":[{\"name\":\"\",\"value\":\"x\"}]}",
                "1 to 255",
            ),
            (
                "{\"value\":\"a\",\"headers\":[{\"value\":\"x\"}]}",
                "missing field `name`",
            ),
            ("{\"value\":\"a\"} {}", "trailing characters"),
        ];
        for (line, wanted) in cases {
            let error = parse(line.as_bytes()).expect_err(line).to_string();
            assert!(error.contains(wanted), "{line}: {error}");
        }
    }

    #[test]
    fn an_explicit_null_is_a_tombstone() {
        let event = parse(b"{\"key\":\"k\",\"value\":null}").expect("an event");
        assert_eq!(event.value, None);
        assert_eq!(event.key.as_deref(), Some(&b"k"[..]));
    }

    #[test]
    fn a_record_is_rendered_without_what_it_leaves_open() {
        let mut records = Records::new();
        records.push(
            &"t".into(),
            NewRecord {
                value: Some(b"v"),
                ..NewRecord::default()
            },
        );
        let mut out = Vec::new();
        render_record(&records.get(0), &mut out);
        let event = parse(&out).expect("an event");
        assert_eq!((event.partition, event.timestamp_ms), (None, None));
        assert_eq!(event.topic.as_deref(), Some("t"));
    }
}
