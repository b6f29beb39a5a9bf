//! Events as `consume --json` prints them, and what must hold of a topic's events.

use std::collections::{BTreeMap, HashMap};
use std::fmt;

use anyhow::{Context, Result, ensure};
use millstream_test_support::process::Site;
use serde_json::Value;

/// Where an event lies in its topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Place {
    pub partition: u64,
    pub offset: u64,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.partition, self.offset)
    }
}

/// One event. Key, value and headers of these tests are UTF-8.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    pub topic: String,
    pub place: Place,
    pub timestamp: i64,
    pub key: Option<String>,
    pub value: Option<String>,
    pub headers: Vec<(String, Option<String>)>,
}

impl Event {
    /// Reads a line of `consume --json`.
    ///
    /// # Errors
    /// It is none.
    pub fn parse(line: &str) -> Result<Self> {
        // `parse` is compiled, and optimized, with serde_json: half a million events are read.
        let json: Value = line.parse().with_context(|| line.to_owned())?;
        let text = |value: &Value| value.as_str().map(str::to_owned);
        let number = |name: &str| {
            json[name]
                .as_u64()
                .with_context(|| format!("{name}: {line}"))
        };
        let headers = json["headers"].as_array().context("no headers")?;
        let header = |header: &Value| Some((text(&header["name"])?, text(&header["value"])));
        Ok(Self {
            topic: text(&json["topic"]).context("no topic")?,
            place: Place {
                partition: number("partition")?,
                offset: number("offset")?,
            },
            timestamp: json["timestamp"].as_i64().context("no timestamp")?,
            key: text(&json["key"]),
            value: text(&json["value"]),
            headers: headers.iter().filter_map(header).collect(),
        })
    }

    /// The only header of this name.
    ///
    /// # Errors
    /// There is none, several, or it is null.
    pub fn header(&self, name: &str) -> Result<&str> {
        let mut found = self.headers.iter().filter(|(known, _)| known == name);
        let first = found
            .next()
            .with_context(|| format!("no {name}: {self:?}"))?;
        ensure!(found.next().is_none(), "{name} is there twice: {self:?}");
        first
            .1
            .as_deref()
            .with_context(|| format!("{name} is null"))
    }

    /// Whether there is a header of this name.
    pub fn has(&self, name: &str) -> bool {
        self.headers.iter().any(|(known, _)| known == name)
    }

    /// The value as JSON.
    ///
    /// # Errors
    /// It is none.
    pub fn json(&self) -> Result<Value> {
        let value = self.value.as_deref().unwrap_or_default();
        value.parse().with_context(|| format!("{self:?}"))
    }

    /// The place of the event that this one was derived from, by `millstream-source`.
    ///
    /// # Errors
    /// The header is missing or is no place of `topic`.
    pub fn source(&self, topic: &str) -> Result<Place> {
        let source = self.header("millstream-source")?;
        let rest = source.strip_prefix(topic).and_then(|r| r.strip_prefix('/'));
        let (partition, offset) = rest
            .and_then(|rest| rest.split_once('/'))
            .with_context(|| format!("{source} is no place of {topic}"))?;
        Ok(Place {
            partition: partition.parse()?,
            offset: offset.parse()?,
        })
    }

    /// The place of the event that this dead letter is of.
    ///
    /// # Errors
    /// The headers are missing.
    pub fn dead(&self) -> Result<Place> {
        Ok(Place {
            partition: self.header("millstream-dlq-partition")?.parse()?,
            offset: self.header("millstream-dlq-offset")?.parse()?,
        })
    }
}

/// All events of a topic, partition by partition in the order of their offsets. A topic that does
/// not exist has none.
///
/// # Errors
/// `consume` fails otherwise, prints what is no event, or prints a partition out of order.
pub fn all(site: &Site, topic: &str) -> Result<Vec<Event>> {
    let finished = site.command(&["consume", topic, "--json"])?;
    if finished.status.code() == Some(1) && finished.stderr.contains(topic) {
        return Ok(Vec::new());
    }
    ensure!(
        finished.status.success(),
        "consume {topic} ended with {}: {}",
        finished.status,
        finished.stderr
    );
    let mut events = Vec::new();
    for line in finished.stdout.lines() {
        events.push(Event::parse(line)?);
    }
    let mut next: BTreeMap<u64, u64> = BTreeMap::new();
    for event in &events {
        let expected = next.entry(event.place.partition).or_default();
        ensure!(
            event.place.offset >= *expected,
            "{topic}/{} is out of order",
            event.place
        );
        *expected = event.place.offset + 1;
    }
    events.sort_by_key(|event| event.place);
    Ok(events)
}

/// Takes repeats out: of each `millstream-id` the first stays, and the others must say the same.
///
/// # Errors
/// Two events of one id differ.
pub fn without_repeats(events: Vec<Event>) -> Result<Vec<Event>> {
    let mut seen: HashMap<String, usize> = HashMap::new();
    let mut kept: Vec<Event> = Vec::new();
    for event in events {
        let id = event.header("millstream-id")?.to_owned();
        match seen.get(&id) {
            Some(first) => {
                let first = &kept[*first];
                ensure!(
                    first.key == event.key && first.value == event.value,
                    "two events of {id} differ: {first:?} and {event:?}"
                );
            }
            None => {
                seen.insert(id, kept.len());
                kept.push(event);
            }
        }
    }
    Ok(kept)
}

/// For each key: the events come in the order of their sources.
///
/// # Errors
/// The first event that comes after a later one.
pub fn check_order(events: &[Event], source_topic: &str) -> Result<()> {
    let mut last: HashMap<(&str, u64), Place> = HashMap::new();
    for event in events {
        let Some(key) = event.key.as_deref() else {
            continue;
        };
        let source = event.source(source_topic)?;
        if let Some(before) = last.insert((key, source.partition), source) {
            ensure!(
                before <= source,
                "{}/{} of key {key} comes from {source}, after one from {before}",
                event.topic,
                event.place
            );
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn derived(offset: u64, source: u64, value: &str) -> Event {
        let line = format!(
            r#"{{"topic":"out","partition":0,"offset":{offset},"timestamp":1,"key":"k","value":"{value}",
                "headers":[{{"name":"millstream-source","value":"in/0/{source}"}},
                {{"name":"millstream-id","value":"in/0/{source}/0"}}]}}"#
        );
        Event::parse(&line).unwrap()
    }

    #[test]
    fn repeats_go_and_those_that_differ_are_noticed() {
        let kept = without_repeats(vec![derived(0, 7, "a"), derived(1, 7, "a")]).unwrap();
        assert_eq!(kept.len(), 1);
        assert!(without_repeats(vec![derived(0, 7, "a"), derived(1, 7, "b")]).is_err());
    }

    #[test]
    fn an_event_after_a_later_one_is_noticed() {
        check_order(&[derived(0, 1, "a"), derived(1, 2, "b")], "in").unwrap();
        assert!(check_order(&[derived(0, 2, "a"), derived(1, 1, "b")], "in").is_err());
        assert!(check_order(&[derived(0, 2, "a")], "other").is_err());
    }
}
