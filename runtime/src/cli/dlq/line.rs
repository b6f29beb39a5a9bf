//! A dead letter as it is printed: a line of JSON, or a row of a table.

use serde::Serialize;
use serde_json::Value;

use super::super::format;
use super::super::table::Table;
use crate::config::time;
use crate::consumer::letter::Letter;
use crate::event::EventView;
use crate::json_event;

/// Characters of an error or a key that a row shows.
const SHOWN: usize = 60;

/// A dead letter as JSON.
#[derive(Debug, Serialize)]
pub struct Line<'a> {
    /// The event that failed.
    pub topic: &'a str,
    pub partition: u32,
    pub offset: u64,
    pub reason: &'a str,
    pub code: &'a str,
    pub error: &'a str,
    pub attempts: u32,
    pub digest: &'a str,
    pub count: u32,
    /// Milliseconds since 1970-01-01 UTC.
    pub first_seen: i64,
    pub timestamp: i64,
    pub key: Value,
    /// Where the dead letter itself lies.
    pub dead_letter: Place<'a>,
    /// The dead letter itself, as `consume --json` prints it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub event: Option<Value>,
}

/// Where an event lies.
#[derive(Debug, Serialize)]
pub struct Place<'a> {
    topic: &'a str,
    partition: u32,
    offset: u64,
}

impl<'a> Line<'a> {
    /// The line of a dead letter and what its headers say.
    pub fn new(event: &EventView<'a>, letter: &'a Letter) -> Self {
        let lies = event.source();
        Self {
            topic: &letter.source.topic,
            partition: letter.source.partition,
            offset: letter.offset,
            reason: &letter.reason,
            code: &letter.code,
            error: &letter.error,
            attempts: letter.attempts,
            digest: &letter.digest,
            count: letter.count,
            first_seen: letter.first_seen_ms,
            timestamp: event.timestamp_ms(),
            key: json_event::piece(event.key()),
            dead_letter: Place {
                topic: &lies.topic,
                partition: lies.partition,
                offset: event.offset(),
            },
            event: None,
        }
    }
}

/// An empty table of dead letters.
pub fn table() -> Table {
    Table::new(&[
        "SOURCE",
        "REASON",
        "CODE",
        "#ATTEMPTS",
        "#COUNT",
        "FIRST SEEN",
        "KEY",
        "ERROR",
    ])
}

/// Adds a dead letter to [`table`].
pub fn add_row(table: &mut Table, event: &EventView<'_>, letter: &Letter) {
    table.row([
        format!("{}@{}", letter.source, letter.offset),
        letter.reason.clone(),
        letter.code.clone(),
        letter.attempts.to_string(),
        letter.count.to_string(),
        time::show(letter.first_seen_ms),
        event
            .key()
            .map_or_else(|| "-".to_owned(), |key| short(&visible(key))),
        short(&letter.error),
    ]);
}

/// Bytes as a person can read them.
pub fn visible(bytes: &[u8]) -> String {
    let mut out = Vec::new();
    // Writing into a vector cannot fail.
    let _ = format::push(Some(bytes), true, &mut out);
    String::from_utf8_lossy(&out).into_owned()
}

fn short(text: &str) -> String {
    let line = text.lines().next().unwrap_or_default();
    let mut short: String = line.chars().take(SHOWN).collect();
    if short.len() < text.len() {
        short.push('…');
    }
    short
}
