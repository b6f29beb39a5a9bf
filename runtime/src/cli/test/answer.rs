//! What a plugin made of one event, and how a case file says it.
//!
//! ```text
//! "dropped"
//! {"outputs": [{"output": "default", "key": "a", "json": {"id": 1}}]}
//! {"failed": "reject", "code": "decode"}
//! ```
//! As a plugin says only in what its output differs from the source, so does a case: a key, a value,
//! headers or a timestamp that is left out is the source's. Headers that the runtime adds are not
//! part of it.

use std::fmt::Write as _;

use millstream_wire as wire;
use serde_json::Value;
use serde_json::value::RawValue;

use super::event;
use crate::cli::layout;
use crate::consumer::derive;
use crate::json_event::{self, JsonEvent};

/// Names of failures: the remedies of a plugin, and the ways in which a call fails.
pub const FAILURES: &[&str] = &[
    "reject",
    "retry",
    "unavailable",
    "halt",
    "trap",
    "deadline",
    "memory",
    "invalid",
];

/// What became of an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    Dropped,
    /// At least one.
    Derived(Vec<Derived>),
    Failed(Failed),
}

/// A derived event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Derived {
    pub output: String,
    pub key: Option<Vec<u8>>,
    pub value: Option<Vec<u8>>,
    pub headers: Headers,
    pub timestamp_ms: i64,
}

/// Names and values, in order.
pub type Headers = Vec<(Vec<u8>, Option<Vec<u8>>)>;

/// A failure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failed {
    /// One of [`FAILURES`].
    pub kind: String,
    pub code: String,
    pub after_ms: u32,
    /// For a person. `None` where a case does not mind.
    pub reason: Option<String>,
}

/// In which order the keys of JSON values are shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// As the plugin wrote them.
    Written,
    /// By name, so that two values that are the same look the same.
    Sorted,
}

impl Derived {
    /// An output of an outcome; `name` is that of its output, `source` its event.
    pub fn of(
        output: &wire::OutputView<'_>,
        batch: &wire::Batch<'_>,
        name: &str,
        source: &JsonEvent,
    ) -> Self {
        let value = output.value(batch).map(<[u8]>::to_vec);
        let headers = output
            .headers(batch)
            .map(|(name, value)| (name.to_vec(), value.map(<[u8]>::to_vec)));
        let changed = value != source.value;
        Self {
            output: name.to_owned(),
            key: output.key(batch).map(<[u8]>::to_vec),
            headers: headers
                .filter(|header| passes(header, source, changed))
                .collect(),
            timestamp_ms: output.timestamp(batch),
            value,
        }
    }
}

/// Whether a header of an output is the plugin's or the source's, and not one that the runtime puts
/// its own in place of.
fn passes(header: &(Vec<u8>, Option<Vec<u8>>), source: &JsonEvent, value_changed: bool) -> bool {
    let name = header.0.as_slice();
    if name.starts_with(derive::RESERVED) || name == b"traceparent" {
        return false;
    }
    let identity = [&b"ce_id"[..], b"ce_source", b"ce_time"].contains(&name);
    !(identity && value_changed && source.headers.contains(header))
}

/// The headers of an output that says nothing about them.
fn inherited(source: &JsonEvent, value_changed: bool) -> Headers {
    let headers = source.headers.iter();
    headers
        .filter(|header| passes(header, source, value_changed))
        .cloned()
        .collect()
}

impl Answer {
    /// Reads what a case expects of `source`. `null` is `None`: nobody has said it yet.
    ///
    /// # Errors
    /// What is wrong with it, for a person.
    pub fn read(written: &RawValue, source: &JsonEvent) -> Result<Option<Self>, String> {
        match written.get().trim() {
            "null" => return Ok(None),
            "\"dropped\"" => return Ok(Some(Self::Dropped)),
            _ => {}
        }
        let forms = "it is \"dropped\", {\"outputs\": […]}, {\"failed\": \"reject\", \"code\": \"…\"} or null";
        let mut members = event::members(written).map_err(|_| forms.to_owned())?;
        let answer = match (members.remove("outputs"), members.remove("failed")) {
            (Some(outputs), None) => Self::read_outputs(outputs, source)?,
            (None, Some(kind)) => {
                let text = |name: &str, written: &RawValue| {
                    let text: Result<String, _> = serde_json::from_str(written.get());
                    text.map_err(|_| format!("`{name}` is no text"))
                };
                let kind = text("failed", kind)?;
                if !FAILURES.contains(&kind.as_str()) {
                    let known = FAILURES.join(", ");
                    return Err(format!("`failed` is \"{kind}\"; known are {known}"));
                }
                let code = members.remove("code").map(|code| text("code", code));
                let reason = members
                    .remove("reason")
                    .map(|reason| text("reason", reason));
                let after = members.remove("after_ms").map(|after| {
                    let number: Result<u32, _> = serde_json::from_str(after.get());
                    number.map_err(|_| "`after_ms` is no whole number".to_owned())
                });
                Self::Failed(Failed {
                    kind,
                    code: code.transpose()?.unwrap_or_default(),
                    after_ms: after.transpose()?.unwrap_or_default(),
                    reason: reason.transpose()?,
                })
            }
            _ => return Err(forms.to_owned()),
        };
        match members.keys().next() {
            Some(name) => Err(format!("unknown field `{name}`; {forms}")),
            None => Ok(Some(answer)),
        }
    }

    fn read_outputs(written: &RawValue, source: &JsonEvent) -> Result<Self, String> {
        let written: Vec<&RawValue> =
            serde_json::from_str(written.get()).map_err(|_| "`outputs` is no list".to_owned())?;
        let mut outputs = Vec::new();
        for (number, output) in (1..).zip(written) {
            let output = read_output(output, source);
            outputs.push(output.map_err(|error| format!("output {number}: {error}"))?);
        }
        Ok(match outputs.is_empty() {
            true => Self::Dropped,
            false => Self::Derived(outputs),
        })
    }

    /// Whether this is what `expected` says. Values that are JSON objects or lists are compared as
    /// JSON, and a reason only where one is expected.
    pub fn meets(&self, expected: &Self) -> bool {
        match (self, expected) {
            (Self::Derived(these), Self::Derived(those)) => {
                let pairs = these.iter().zip(those);
                let same = |(this, that): (&Derived, &Derived)| {
                    let meta =
                        |one: &Derived| (one.output.clone(), one.key.clone(), one.timestamp_ms);
                    meta(this) == meta(that)
                        && this.headers == that.headers
                        && Content::of(this) == Content::of(that)
                };
                these.len() == those.len() && pairs.into_iter().all(same)
            }
            (Self::Failed(this), Self::Failed(that)) => {
                let parts = |one: &Failed| (one.kind.clone(), one.code.clone(), one.after_ms);
                parts(this) == parts(that) && (that.reason.is_none() || this.reason == that.reason)
            }
            (this, that) => this == that,
        }
    }

    /// The reason of a failure that gives one.
    pub fn reason(&self) -> Option<&str> {
        match self {
            Self::Failed(failed) => failed.reason.as_deref().filter(|text| !text.is_empty()),
            _ => None,
        }
    }

    /// Without the reason of a failure, where `other` has none either.
    pub fn with_reason_like(mut self, other: Option<&Self>) -> Self {
        let wanted = matches!(other, Some(Self::Failed(failed)) if failed.reason.is_some());
        if let Self::Failed(failed) = &mut self
            && !wanted
        {
            failed.reason = None;
        }
        self
    }

    /// The JSON that a case file says it with.
    pub fn text(&self, source: &JsonEvent, order: Order) -> String {
        match self {
            Self::Dropped => "\"dropped\"".to_owned(),
            Self::Derived(outputs) => {
                let outputs: Vec<_> = outputs
                    .iter()
                    .map(|output| output_text(output, source, order))
                    .collect();
                format!("{{\"outputs\":[{}]}}", outputs.join(","))
            }
            Self::Failed(failed) => {
                let mut text = format!("{{\"failed\":{}", Value::from(failed.kind.as_str()));
                if !failed.code.is_empty() {
                    let _ = write!(text, ",\"code\":{}", Value::from(failed.code.as_str()));
                }
                if failed.after_ms > 0 {
                    let _ = write!(text, ",\"after_ms\":{}", failed.after_ms);
                }
                if let Some(reason) = &failed.reason {
                    let _ = write!(text, ",\"reason\":{}", Value::from(reason.as_str()));
                }
                text.push('}');
                text
            }
        }
    }
}

fn read_output(written: &RawValue, source: &JsonEvent) -> Result<Derived, String> {
    let mut members = event::members(written)?;
    let output = members.remove("output").ok_or("`output` is missing")?;
    let output: String =
        serde_json::from_str(output.get()).map_err(|_| "`output` is no name".to_owned())?;
    for place in ["topic", "partition", "offset"] {
        if members.contains_key(place) {
            return Err(format!(
                "`{place}` is the runtime's to say, not the plugin's"
            ));
        }
    }
    let given = |name: &str| members.contains_key(name);
    let (key, headers) = (given("key"), given("headers"));
    let value = given("value") || given("json");
    let event = event::read(members)?;
    let value = match value {
        true => event.value,
        false => source.value.clone(),
    };
    Ok(Derived {
        output,
        key: match key {
            true => event.key,
            false => source.key.clone(),
        },
        headers: match headers {
            true => event.headers,
            false => inherited(source, value != source.value),
        },
        timestamp_ms: event
            .timestamp_ms
            .or(source.timestamp_ms)
            .unwrap_or_default(),
        value,
    })
}

fn output_text(output: &Derived, source: &JsonEvent, order: Order) -> String {
    let mut text = format!("{{\"output\":{}", Value::from(output.output.as_str()));
    if output.key != source.key {
        let _ = write!(
            text,
            ",\"key\":{}",
            json_event::piece(output.key.as_deref())
        );
    }
    let changed = output.value != source.value;
    if changed {
        match (Content::of(output), order) {
            (Content::Json(value), Order::Sorted) => {
                let _ = write!(text, ",\"json\":{value}");
            }
            (Content::Json(_), Order::Written) => {
                let bytes = output.value.as_deref().unwrap_or_default();
                let written = layout::compact(&String::from_utf8_lossy(bytes));
                let _ = write!(text, ",\"json\":{written}");
            }
            (Content::Bytes(bytes), _) => {
                let _ = write!(text, ",\"value\":{}", json_event::piece(bytes));
            }
        }
    }
    if output.headers != inherited(source, changed) {
        let headers = output.headers.iter().map(|(name, value)| {
            let name = json_event::piece(Some(name));
            let value = json_event::piece(value.as_deref());
            format!("{{\"name\":{name},\"value\":{value}}}")
        });
        let headers: Vec<_> = headers.collect();
        let _ = write!(text, ",\"headers\":[{}]", headers.join(","));
    }
    if Some(output.timestamp_ms) != source.timestamp_ms {
        let _ = write!(text, ",\"timestamp\":{}", output.timestamp_ms);
    }
    text.push('}');
    text
}

/// A value as it is compared.
#[derive(PartialEq)]
enum Content<'a> {
    /// An object or a list.
    Json(Value),
    Bytes(Option<&'a [u8]>),
}

impl<'a> Content<'a> {
    fn of(output: &'a Derived) -> Self {
        let bytes = output.value.as_deref();
        match bytes.map(serde_json::from_slice) {
            Some(Ok(value @ (Value::Object(_) | Value::Array(_)))) => Self::Json(value),
            _ => Self::Bytes(bytes),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raw(text: &str) -> Box<RawValue> {
        RawValue::from_string(text.to_owned()).expect("JSON")
    }

    fn source() -> JsonEvent {
        let text = r#"{"key":"k","value":"v","headers":[{"name":"a","value":"1"},
            {"name":"millstream-hops","value":"2"},{"name":"ce_id","value":"7"}]}"#;
        event::input(&raw(text), 0).expect("an event")
    }

    fn read(text: &str) -> Answer {
        let answer = Answer::read(&raw(text), &source());
        answer
            .unwrap_or_else(|error| panic!("{text}: {error}"))
            .expect("an answer")
    }

    /// What `--update` writes must be what the next run expects.
    #[test]
    fn what_is_written_is_read_as_the_same() {
        for text in [
            r#""dropped""#,
            r#"{"failed":"reject","code":"decode"}"#,
            r#"{"failed":"retry","after_ms":20,"reason":"later"}"#,
            r#"{"outputs":[{"output":"default"}]}"#,
            r#"{"outputs":[{"output":"a","key":null,"json":{"b":[1.0,"x y"]},"timestamp":5}]}"#,
            r#"{"outputs":[{"output":"a","value":"{broken"},{"output":"b","value":null,"headers":[]}]}"#,
            r#"{"outputs":[{"output":"a","value":{"base64":"/w=="},"headers":[{"name":"n","value":null}]}]}"#,
        ] {
            for order in [Order::Written, Order::Sorted] {
                assert_eq!(read(text).text(&source(), order), text);
            }
        }
        let keys = r#"{"outputs":[{"output":"a","json":{"b":1,"a":2}}]}"#;
        let sorted = r#"{"outputs":[{"output":"a","json":{"a":2,"b":1}}]}"#;
        assert_eq!(read(keys).text(&source(), Order::Sorted), sorted);
    }

    #[test]
    fn what_is_left_out_is_the_sources_without_what_the_runtime_adds() {
        let Answer::Derived(outputs) =
            read(r#"{"outputs":[{"output":"a"},{"output":"a","value":"w"}]}"#)
        else {
            panic!("outputs");
        };
        let names = |index: usize| {
            let headers = outputs[index].headers.iter();
            headers
                .map(|(name, _)| String::from_utf8_lossy(name).into_owned())
                .collect::<Vec<_>>()
        };
        assert_eq!(outputs[0].key.as_deref(), Some(&b"k"[..]));
        assert_eq!(outputs[0].value.as_deref(), Some(&b"v"[..]));
        assert_eq!(names(0), ["a", "ce_id"]);
        // With another value the runtime gives it an identity of its own.
        assert_eq!(names(1), ["a"]);
    }

    #[test]
    fn json_is_compared_as_json_and_text_as_text() {
        let json = |text: &str| read(&format!(r#"{{"outputs":[{{"output":"a",{text}}}]}}"#));
        let wanted = json(r#""json":{"a":1,"b":2}"#);
        assert!(json(r#""value":"{ \"b\": 2, \"a\": 1 }""#).meets(&wanted));
        assert!(!json(r#""value":"{ \"b\": 2 }""#).meets(&wanted));
        assert!(!json(r#""value":"5 ""#).meets(&json(r#""json":5"#)));
        assert!(json(r#""value":"5""#).meets(&json(r#""json":5"#)));
        assert!(!json(r#""value":null"#).meets(&json(r#""value":"""#)));
    }

    /// The text of an error may change from build to build; its code is what others rely on.
    #[test]
    fn a_reason_counts_where_one_is_expected() {
        let answer = read(r#"{"failed":"reject","code":"c","reason":"because"}"#);
        assert!(answer.meets(&read(r#"{"failed":"reject","code":"c"}"#)));
        assert!(!answer.meets(&read(r#"{"failed":"reject","code":"c","reason":"other"}"#)));
        assert!(!answer.meets(&read(r#"{"failed":"reject"}"#)));
        let written = answer.clone().with_reason_like(None);
        assert_eq!(written.reason(), None);
        assert_eq!(
            answer.clone().with_reason_like(Some(&answer)).reason(),
            Some("because")
        );
    }

    #[test]
    fn what_is_no_answer_is_refused_with_the_reason() {
        for (text, wanted) in [
            (r#""drop""#, "it is \"dropped\""),
            ("[]", "it is \"dropped\""),
            (r#"{"outputs":[],"failed":"trap"}"#, "it is \"dropped\""),
            (r#"{"failed":"rejected"}"#, "known are reject"),
            (r#"{"failed":"reject","cod":"x"}"#, "unknown field `cod`"),
            (r#"{"failed":"retry","after_ms":"1s"}"#, "whole number"),
            (
                r#"{"outputs":[{"key":"a"}]}"#,
                "output 1: `output` is missing",
            ),
            (
                r#"{"outputs":[{"output":"a","topic":"t"}]}"#,
                "the runtime's to say",
            ),
            (
                r#"{"outputs":[{"output":"a","vaule":"t"}]}"#,
                "unknown field `vaule`",
            ),
        ] {
            let error = Answer::read(&raw(text), &source()).expect_err(text);
            assert!(error.contains(wanted), "{text}: {error}");
        }
        assert_eq!(Answer::read(&raw("null"), &source()), Ok(None));
    }
}
