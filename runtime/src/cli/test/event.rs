//! An event in a case file: as `consume --json` prints it, or with `json` in place of `value`.
//!
//! ```text
//! {"key": "a", "value": "{\"id\":1}"}      {"key": "a", "json": {"id": 1}}
//! ```
//! What is left out of an input is that of an event in a unit test with the SDK's harness.

use std::collections::BTreeMap;

use serde_json::value::RawValue;

use crate::cli::layout;
use crate::event::{Block, BlockBuilder, NewEvent, TopicPartition};
use crate::json_event::{self, JsonEvent};

/// The topic of events that name none.
const TOPIC: &str = "input";
/// The timestamp of events that have none: 2023-11-14 22:13:20 UTC, in milliseconds.
const TIMESTAMP_MS: i64 = 1_700_000_000_000;

/// The members of an object, as they are written.
pub type Members<'a> = BTreeMap<String, &'a RawValue>;

/// The members of an object.
///
/// # Errors
/// It is none, for a person.
pub fn members(written: &RawValue) -> Result<Members<'_>, String> {
    serde_json::from_str(written.get())
        .map_err(|_| format!("expected an object, found {}", shortened(written.get())))
}

/// The event that members say, `json` turned into a value. Without either the value is null.
///
/// # Errors
/// What is wrong with it, for a person.
pub fn read(mut members: Members<'_>) -> Result<JsonEvent, String> {
    let value = match (members.remove("json"), members.get("value")) {
        (Some(_), Some(_)) => return Err("both `value` and `json` are given".to_owned()),
        (Some(json), None) => Some(layout::compact(json.get())),
        (None, _) => None,
    };
    members.entry("value".to_owned()).or_insert(RawValue::NULL);
    let line = serde_json::to_vec(&members).map_err(|error| error.to_string())?;
    let mut event = json_event::parse(&line).map_err(|error| {
        // The columns are those of a line that nobody wrote.
        let text = error.to_string();
        text.split(" at column ")
            .next()
            .unwrap_or_default()
            .to_owned()
    })?;
    if let Some(value) = value {
        event.value = Some(value.into_bytes());
    }
    Ok(event)
}

/// An input, complete; `place` is its place in the case.
///
/// # Errors
/// What is wrong with it, for a person.
pub fn input(written: &RawValue, place: usize) -> Result<JsonEvent, String> {
    let members = members(written)?;
    if !members.contains_key("value") && !members.contains_key("json") {
        return Err(
            "it has neither `value` (text, {\"base64\":\"…\"} or null) nor `json`".to_owned(),
        );
    }
    let mut event = read(members)?;
    let mut names = event.headers.iter().map(|(name, _)| name);
    if names.any(|name| std::str::from_utf8(name).is_err()) {
        return Err("a header's name is not UTF-8: no plugin ever sees such an event".to_owned());
    }
    event.topic.get_or_insert_with(|| TOPIC.to_owned());
    event.partition.get_or_insert(0);
    event.offset.get_or_insert(place as u64);
    event.timestamp_ms.get_or_insert(TIMESTAMP_MS);
    Ok(event)
}

/// Where an input comes from, as `topic/partition@offset`.
pub fn place(event: &JsonEvent) -> String {
    format!("{}@{}", source(event), event.offset.unwrap_or_default())
}

fn source(event: &JsonEvent) -> TopicPartition {
    let topic = event.topic.as_deref().unwrap_or(TOPIC);
    TopicPartition::new(topic, event.partition.unwrap_or_default())
}

/// The inputs as the runtime holds them: a block for each run of one partition, since no batch holds
/// events of two.
pub fn blocks(inputs: &[JsonEvent]) -> Vec<Block> {
    let runs = inputs.chunk_by(|a, b| source(a) == source(b));
    runs.map(block).collect()
}

fn block(run: &[JsonEvent]) -> Block {
    let source = run.first().map(source);
    let source = source.unwrap_or_else(|| TopicPartition::new(TOPIC, 0));
    let mut block = BlockBuilder::new(source, run.len(), 0);
    for event in run {
        block.push(NewEvent {
            offset: event.offset.unwrap_or_default(),
            timestamp_ms: event.timestamp_ms.unwrap_or(TIMESTAMP_MS),
            timestamp_of_broker: false,
            key: event.key.as_deref(),
            value: event.value.as_deref(),
        });
        for (name, value) in &event.headers {
            block.push_header(name, value.as_deref());
        }
    }
    block.build()
}

/// The beginning of a text, for messages.
fn shortened(text: &str) -> String {
    let compact = layout::compact(text);
    match compact.char_indices().nth(60) {
        Some((end, _)) => format!("{}…", &compact[..end]),
        None => compact,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raw(text: &str) -> Box<RawValue> {
        RawValue::from_string(text.to_owned()).expect("JSON")
    }

    #[test]
    fn json_is_a_value_without_blanks_in_the_order_of_the_text() {
        let event = input(&raw("{\"json\": {\"b\": 1,\n \"a\": \"x y\"}}"), 3).expect("an event");
        assert_eq!(event.value.as_deref(), Some(&br#"{"b":1,"a":"x y"}"#[..]));
        assert_eq!(place(&event), "input/0@3");
        let event = input(
            &raw(r#"{"topic":"t","partition":2,"offset":9,"value":null}"#),
            0,
        );
        let event = event.expect("an event");
        assert_eq!((place(&event).as_str(), event.value), ("t/2@9", None));
    }

    /// A misspelt field would run another event than the one that was meant.
    #[test]
    fn what_is_no_event_is_refused_with_the_reason() {
        for (text, wanted) in [
            ("[]", "expected an object"),
            ("{}", "neither `value`"),
            (r#"{"vaule":"a"}"#, "neither `value`"),
            (r#"{"value":"a","json":1}"#, "both"),
            (r#"{"value":{"a":1}}"#, "put JSON into a string"),
            (r#"{"json":1,"header":[]}"#, "unknown field `header`"),
            (
                r#"{"json":1,"headers":[{"name":{"base64":"/w=="},"value":null}]}"#,
                "not UTF-8",
            ),
        ] {
            let error = input(&raw(text), 0).expect_err(text);
            assert!(error.contains(wanted), "{text}: {error}");
            assert!(!error.contains("column"), "{text}: {error}");
        }
    }

    /// A batch of two partitions would be one that no runtime makes.
    #[test]
    fn each_run_of_a_partition_is_a_block() {
        let event = |partition| {
            let text = format!(r#"{{"value":"a","partition":{partition}}}"#);
            input(&raw(&text), 0).expect("an event")
        };
        let lengths = |partitions: &[u32]| {
            let inputs: Vec<_> = partitions.iter().map(|number| event(*number)).collect();
            blocks(&inputs).iter().map(Block::len).collect::<Vec<_>>()
        };
        assert_eq!(lengths(&[0, 0, 1, 0]), [2, 1, 1]);
        assert!(lengths(&[]).is_empty());
    }
}
