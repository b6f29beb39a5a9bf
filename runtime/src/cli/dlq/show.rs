//! `millstream dlq show CONSUMER TOPIC/PARTITION@OFFSET`.

use std::fmt::Write as _;

use super::super::place::{EventPlace, Source};
use super::super::{Context, OutputFormat, terminal};
use super::Letters;
use super::case;
use super::line::{Line, visible};
use super::scan::Snapshot;
use crate::config::time;
use crate::consumer::letter::Letter;
use crate::event::EventView;
use crate::json_event;

/// Prints all of the newest dead letter of an event, or its test case.
///
/// # Errors
/// There is none, or the broker fails.
pub async fn run(
    letters: &Letters<'_>,
    place: &EventPlace,
    as_case: bool,
    context: &Context,
) -> anyhow::Result<()> {
    let wanted = Source::from(place);
    let mut found = None;
    if let Some(snapshot) = Snapshot::of(letters.topics, &letters.topic).await? {
        let mut scan = snapshot.scan();
        while let Some(batch) = scan.next(letters.topics).await? {
            for (at, event) in batch.events().enumerate() {
                let Some(letter) = letters.read(&event) else {
                    continue;
                };
                let newer = found
                    .as_ref()
                    .is_none_or(|(_, known): &(_, Letter)| letter.count > known.count);
                if newer && wanted.covers(&letter.source, letter.offset) {
                    found = Some((batch.keep(at), letter));
                }
            }
        }
    }
    let found = found.filter(|((block, index), letter)| {
        let event = block.event(*index);
        letters.filter.wants(letter, event.key())
    });
    let Some(((block, index), letter)) = found else {
        anyhow::bail!(
            "consumer {} has no dead letter of {place} in topic {}",
            letters.consumer.name,
            letters.topic
        );
    };
    let event = block.event(index);
    if as_case {
        let mut out = serde_json::to_string_pretty(&case::of(&event, &letter)?)?;
        out.push('\n');
        return terminal::print(&out).await;
    }
    if context.output == OutputFormat::Text {
        return terminal::print(&text(&event, &letter)).await;
    }
    let mut rendered = Vec::new();
    json_event::render(&event, &mut rendered);
    let mut line = Line::new(&event, &letter);
    line.event = Some(serde_json::from_slice(&rendered)?);
    let mut out = serde_json::to_string(&line)?;
    out.push('\n');
    terminal::print(&out).await
}

fn text(event: &EventView<'_>, letter: &Letter) -> String {
    let shown = |bytes: Option<&[u8]>| bytes.map_or_else(|| "null".to_owned(), visible);
    let clean = |text: &str| visible(text.as_bytes());
    let mut out = String::new();
    let mut row = |name: &str, value: &str| {
        let _ = writeln!(out, "{name:<12} {value}");
    };
    row(
        "source",
        &format!("{}@{}", clean(&letter.source.to_string()), letter.offset),
    );
    row("reason", &clean(&letter.reason));
    row("code", &clean(&letter.code));
    row("error", &clean(&letter.error));
    row("attempts", &letter.attempts.to_string());
    row("count", &letter.count.to_string());
    row("first seen", &time::show(letter.first_seen_ms));
    row("timestamp", &time::show(event.timestamp_ms()));
    row("plugin", &clean(&letter.digest));
    row(
        "dead letter",
        &format!("{}@{}", event.source(), event.offset()),
    );
    row("key", &shown(event.key()));
    for (name, value) in event.headers() {
        row("header", &format!("{}: {}", visible(name), shown(value)));
    }
    row("value", &shown(event.value()));
    // A value of several lines, or none, leaves blanks at the ends of lines.
    out.lines()
        .map(|line| format!("{}\n", line.trim_end()))
        .collect()
}
