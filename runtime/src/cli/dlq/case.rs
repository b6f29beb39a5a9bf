//! A dead letter as a test case of its plugin.
//!
//! ```text
//! {"name": "orders/0@7", "input": [the event as it was], "failed": {reason, code, …}, "expected": null}
//! ```

use serde_json::{Value, json};

use crate::consumer::dead_letter::PREFIX;
use crate::consumer::derive;
use crate::consumer::letter::Letter;
use crate::event::EventView;
use crate::json_event;

/// The case of a dead letter: the event that failed, where it was and with its own headers, in the
/// form of `consume --json`.
///
/// # Errors
/// None of note: an event is always rendered as JSON.
pub fn of(event: &EventView<'_>, letter: &Letter) -> serde_json::Result<Value> {
    let mut rendered = Vec::new();
    json_event::render(event, &mut rendered);
    let mut input: Value = serde_json::from_slice(&rendered)?;
    input["topic"] = (*letter.source.topic).into();
    input["partition"] = letter.source.partition.into();
    input["offset"] = letter.offset.into();
    if let Some(headers) = input["headers"].as_array_mut() {
        headers.retain(|header| {
            let name = header["name"].as_str().unwrap_or_default();
            !name.starts_with(PREFIX) && name != derive::HOPS
        });
        // Dead-lettering counted as one.
        let hops = derive::hops(event).saturating_sub(1);
        if hops > 0 {
            headers.push(json!({"name": derive::HOPS, "value": hops.to_string()}));
        }
    }
    Ok(json!({
        "name": format!("{}@{}", letter.source, letter.offset),
        "input": [input],
        "failed": {
            "reason": letter.reason,
            "code": letter.code,
            "error": letter.error,
            "attempts": letter.attempts,
            "digest": letter.digest,
        },
        "expected": null,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::consumer::dead_letter::Reason;
    use crate::consumer::letter::tests::{dead_letter_of, event};

    /// A case with the dead letter's place or headers would show the plugin another event.
    #[test]
    fn a_case_is_the_event_as_it_was() {
        for headers in [
            &[("colour", "blue")][..],
            &[("colour", "blue"), ("millstream-hops", "2")],
        ] {
            let source = event("orders", 9, headers);
            let dead = dead_letter_of(&source, false, Reason::Rejected);
            let letter = Letter::read(&dead.event(0)).expect("a dead letter");
            let case = of(&dead.event(0), &letter).expect("JSON");
            let mut rendered = Vec::new();
            json_event::render(&source.event(0), &mut rendered);
            let wanted: Value = serde_json::from_slice(&rendered).expect("JSON");
            assert_eq!(case["input"], json!([wanted]));
            assert_eq!(case["name"], "orders/1@9");
            assert_eq!(case["failed"]["code"], "too-old");
            assert_eq!(case["expected"], Value::Null);
        }
    }
}
