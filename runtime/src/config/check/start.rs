//! `start` of a consumer.

use toml::value::Datetime;

use super::super::problem::Problem;
use super::super::resolved::Start;
use super::super::section::{Section, similar};
use super::super::time::milliseconds;
use super::super::written::{Text, Value};

/// Where a new group starts; `None` where the file does not say.
pub fn start(consumer: &mut Section<'_>) -> Option<Start> {
    let node = consumer.node("start")?;
    let time = match &node.value {
        Value::Text(Text { failed: true, .. }) => return None,
        Value::Text(text) => match &*text.value {
            "beginning" => return Some(Start::Beginning),
            "end" => return Some(Start::End),
            time => time.parse::<Datetime>().ok(),
        },
        Value::Time(time) => Some(*time),
        _ => None,
    };
    match time.map(|time| milliseconds(&time)) {
        Some(Some(time)) => return Some(Start::At(time)),
        Some(None) => consumer.checks().report(
            Problem::error("start", "the time of `start` is not complete")
                .at(&node.place)
                .label("date, time and zone are needed")
                .hint("write it as in \"2026-01-31T12:00:00Z\" or with an offset such as +01:00"),
        ),
        None => {
            let meant = match &node.value {
                Value::Text(text) => similar(&text.value, &["beginning", "end"]),
                _ => None,
            };
            let hint = match meant {
                Some(word) => format!("did you mean \"{word}\"?"),
                None => "write a time as in \"2026-01-31T12:00:00Z\" (RFC 3339)".to_owned(),
            };
            let message = "`start` must be \"beginning\", \"end\" or a time";
            consumer.checks().report(
                Problem::error("start", message)
                    .at(&node.place)
                    .label("none of them")
                    .hint(hint),
            );
        }
    }
    None
}
