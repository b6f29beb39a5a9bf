//! Reads the keys of a table one by one, reports what is wrong, and at the end what is unknown.

use std::fmt::Display;
use std::ops::RangeInclusive;
use std::time::Duration;

use super::checks::Checks;
use super::problem::{Place, Problem};
use super::units;
use super::written::{Entry, Node, Table, Text, Value};

/// A table whose keys are known.
pub struct Section<'a> {
    table: &'a Table,
    place: &'a Place,
    /// `limits`, as keys in it are named in messages; empty for a consumer and the file itself.
    path: String,
    /// Where the section's keys stand in the whole file: `consumer.limits`.
    full_path: String,
    known: Vec<&'static str>,
    reserved: Vec<&'a str>,
    checks: &'a Checks<'a>,
}

static EMPTY: Table = Table::EMPTY;

impl<'a> Section<'a> {
    /// A section for `table`. `path` stands before its keys in messages, `full_path` names them in
    /// the whole file, with `NAME` for what the user names.
    pub fn new(
        checks: &'a Checks<'a>,
        table: &'a Table,
        place: &'a Place,
        path: String,
        full_path: String,
    ) -> Self {
        Self {
            table,
            place,
            path,
            full_path,
            known: Vec::new(),
            reserved: Vec::new(),
            checks,
        }
    }

    /// What all checks share.
    pub fn checks(&self) -> &'a Checks<'a> {
        self.checks
    }

    /// Where the section stands.
    pub fn place(&self) -> &'a Place {
        self.place
    }

    /// Whether nothing is set.
    pub fn is_empty(&self) -> bool {
        self.table.entries().is_empty()
    }

    /// The key as messages name it.
    pub fn shown(&self, key: &str) -> String {
        format!("`{}`", join(&self.path, key))
    }

    /// The entry of a key, which is known from then on.
    pub fn entry(&mut self, key: &'static str) -> Option<&'a Entry> {
        self.known.push(key);
        self.checks.note(join(&self.full_path, key));
        self.table.get(key)
    }

    /// The value of a key.
    pub fn node(&mut self, key: &'static str) -> Option<&'a Node> {
        self.entry(key).map(|entry| &entry.node)
    }

    /// Where the value of a key stands, or else the section.
    pub fn place_of(&self, key: &str) -> &'a Place {
        self.table
            .get(key)
            .map_or(self.place, |entry| &entry.node.place)
    }

    /// The entry of a key that was asked for before.
    pub fn get(&self, key: &str) -> Option<&'a Entry> {
        self.table.get(key)
    }

    /// Whether the key is set.
    pub fn has(&self, key: &str) -> bool {
        self.table.get(key).is_some()
    }

    /// The table of a key; an empty one where it is missing or is no table.
    pub fn section(&mut self, key: &'static str) -> Section<'a> {
        let (table, place) = match self.entry(key) {
            None => (&EMPTY, self.place),
            Some(entry) => match &entry.node.value {
                Value::Table(table) => (table, &entry.key_place),
                _ => {
                    self.wrong_type(key, &entry.node, "a table");
                    (&EMPTY, self.place)
                }
            },
        };
        let path = join(&self.path, key);
        Section::new(self.checks, table, place, path, join(&self.full_path, key))
    }

    /// Reports a value of the wrong type, unless its mistake was reported before.
    pub fn wrong_type(&self, key: &str, node: &Node, wanted: &str) {
        let label = match &node.value {
            Value::Text(Text { failed: true, .. }) => return,
            Value::Text(Text {
                written: Some(_), ..
            }) => "the environment gives another text".to_owned(),
            value => format!("this is {}", value.kind()),
        };
        let problem = Problem::error("type", format!("{} must be {wanted}", self.shown(key)))
            .at(&node.place)
            .label(label);
        self.checks.report(match key {
            "topics" | "hosts" => problem.hint(format!("write `{key} = [\"…\"]`")),
            "circuit_breaker" => problem.hint("write `circuit_breaker = { … }`, or `false`"),
            "dead_letter" => problem.hint("write `dead_letter = { topic = \"…\" }`"),
            _ => problem,
        });
    }

    /// Reports a value out of range.
    pub fn out_of_range(&self, key: &str, node: &Node, least: impl Display, most: impl Display) {
        self.checks.report(
            Problem::error(
                "range",
                format!("{} must lie between {least} and {most}", self.shown(key)),
            )
            .at(&node.place)
            .label("out of range"),
        );
    }

    /// A string.
    pub fn text(&mut self, key: &'static str) -> Option<(&'a str, &'a Node)> {
        let node = self.node(key)?;
        match &node.value {
            Value::Text(text) if text.failed => None,
            Value::Text(text) => Some((&text.value, node)),
            _ => {
                self.wrong_type(key, node, "a string");
                None
            }
        }
    }

    /// A whole number, or a string that holds one.
    pub fn integer(&mut self, key: &'static str, range: RangeInclusive<u64>) -> Option<u64> {
        let node = self.node(key)?;
        let number = match &node.value {
            Value::Integer(number) => Some(i128::from(*number)),
            Value::Text(text) if text.failed => return None,
            Value::Text(text) => text.value.trim().parse().ok(),
            _ => None,
        };
        let Some(number) = number else {
            self.wrong_type(key, node, "a whole number");
            return None;
        };
        match u64::try_from(number) {
            Ok(number) if range.contains(&number) => Some(number),
            _ => {
                self.out_of_range(key, node, range.start(), range.end());
                None
            }
        }
    }

    /// A number, or a string that holds one.
    pub fn number(&mut self, key: &'static str, range: RangeInclusive<f64>) -> Option<f64> {
        let node = self.node(key)?;
        let number = match &node.value {
            Value::Integer(number) => Some(*number as f64),
            Value::Float(number) => Some(*number),
            Value::Text(text) if text.failed => return None,
            Value::Text(text) => text.value.trim().parse().ok(),
            _ => None,
        };
        match number {
            Some(number) if range.contains(&number) => Some(number),
            Some(_) => {
                self.out_of_range(key, node, range.start(), range.end());
                None
            }
            None => {
                self.wrong_type(key, node, "a number");
                None
            }
        }
    }

    /// True or false, or a string that says so.
    pub fn boolean(&mut self, key: &'static str) -> Option<bool> {
        let node = self.node(key)?;
        match &node.value {
            Value::Boolean(value) => Some(*value),
            Value::Text(text) if text.value == "true" && !text.failed => Some(true),
            Value::Text(text) if text.value == "false" && !text.failed => Some(false),
            _ => {
                self.wrong_type(key, node, "true or false");
                None
            }
        }
    }

    /// A duration with its unit.
    pub fn duration(
        &mut self,
        key: &'static str,
        range: RangeInclusive<Duration>,
    ) -> Option<Duration> {
        let hint = "write a whole number and one of ms, s, m, h, d, w, such as \"30s\"";
        let (value, node) = self.with_unit(key, "a duration", hint, units::duration)?;
        if range.contains(&value) {
            return Some(value);
        }
        let least = units::show_duration(*range.start());
        self.out_of_range(key, node, least, units::show_duration(*range.end()));
        None
    }

    /// A size with its unit, in bytes.
    pub fn size(&mut self, key: &'static str, range: RangeInclusive<u64>) -> Option<u64> {
        let hint = "write a whole number and one of B, KiB, MiB, GiB, TiB, such as \"64MiB\"";
        let (value, node) = self.with_unit(key, "a size", hint, units::size)?;
        if range.contains(&value) {
            return Some(value);
        }
        let least = units::show_size(*range.start());
        self.out_of_range(key, node, least, units::show_size(*range.end()));
        None
    }

    /// A string that `read` understands.
    pub fn with_unit<T>(
        &mut self,
        key: &'static str,
        what: &str,
        hint: &str,
        read: impl Fn(&str) -> Result<T, units::Mistake>,
    ) -> Option<(T, &'a Node)> {
        let node = self.node(key)?;
        let mistake = match &node.value {
            Value::Text(text) if text.failed => return None,
            Value::Text(text) => match read(&text.value) {
                Ok(value) => return Some((value, node)),
                Err(mistake) => mistake.describe(),
            },
            Value::Integer(_) => units::Mistake::NoUnit.describe(),
            other => other.kind(),
        };
        self.checks.report(
            Problem::error(
                "unit",
                format!("{} must be {what} with its unit", self.shown(key)),
            )
            .at(&node.place)
            .label(mistake)
            .hint(hint),
        );
        None
    }

    /// One of a few words.
    pub fn choice<T: Copy>(&mut self, key: &'static str, choices: &[(&str, T)]) -> Option<T> {
        let (text, node) = self.text(key)?;
        if let Some((_, value)) = choices.iter().find(|(name, _)| *name == text) {
            return Some(*value);
        }
        let names: Vec<_> = choices.iter().map(|(name, _)| *name).collect();
        let listed = names
            .iter()
            .map(|name| format!("\"{name}\""))
            .collect::<Vec<_>>()
            .join(", ");
        let problem = Problem::error(
            "choice",
            format!("{} must be one of {listed}", self.shown(key)),
        )
        .at(&node.place)
        .label("none of them");
        self.checks.report(match similar(text, &names) {
            Some(name) => problem.hint(format!("did you mean \"{name}\"?")),
            None => problem,
        });
        None
    }

    /// The strings of a list; the list may not be empty.
    pub fn texts(&mut self, key: &'static str, wanted: &str) -> Option<Vec<(&'a str, &'a Node)>> {
        let node = self.node(key)?;
        let Value::List(nodes) = &node.value else {
            self.wrong_type(key, node, wanted);
            return None;
        };
        let mut texts = Vec::new();
        for node in nodes {
            match &node.value {
                Value::Text(text) if text.failed => {}
                Value::Text(text) => texts.push((&*text.value, node)),
                _ => self.checks.report(
                    Problem::error(
                        "type",
                        format!("the entries of {} must be strings", self.shown(key)),
                    )
                    .at(&node.place)
                    .label(format!("this is {}", node.value.kind())),
                ),
            }
        }
        Some(texts)
    }

    /// Reports a key that must be there and is not.
    pub fn missing(&self, key: &str, what: &str, hint: &str) {
        self.checks.report(
            Problem::error("missing", format!("{} is missing", self.shown(key)))
                .at(self.place)
                .label(what)
                .hint(hint),
        );
    }

    /// Reports a key that asks for what does not work yet; `what` ends "this version has no".
    pub fn unsupported(&self, key: &str, place: &Place, what: &str) {
        self.checks.report(
            Problem::error(
                "unsupported",
                format!("{} is not supported by this version", self.shown(key)),
            )
            .at(place)
            .label(format!("this version has no {what}"))
            .hint("remove it; a later version will know it"),
        );
    }

    /// Accepts a key that was reported on by the caller.
    pub fn ignore(&mut self, key: &'a str) {
        self.reserved.push(key);
    }

    /// Keys of a later version, each with what it will be: refused if set, and never suggested.
    pub fn reserve(&mut self, keys: &[(&'static str, &str)]) {
        for (key, what) in keys {
            self.reserved.push(key);
            if let Some(entry) = self.table.get(key) {
                self.unsupported(key, &entry.key_place, what);
            }
        }
    }

    /// Reports every key that nobody asked for.
    pub fn finish(self) {
        for entry in self.table.entries() {
            if self.known.contains(&&*entry.key) || self.reserved.contains(&&*entry.key) {
                continue;
            }
            let problem = Problem::error(
                "unknown-key",
                format!("unknown key {}", self.shown(&entry.key)),
            )
            .at(&entry.key_place);
            self.checks.report(match similar(&entry.key, &self.known) {
                Some(name) => problem
                    .label("not a key of this table")
                    .hint(format!("did you mean `{name}`?")),
                None => problem.label("not a key of this table").hint(format!(
                    "the keys here are {}",
                    self.known
                        .iter()
                        .map(|key| format!("`{key}`"))
                        .collect::<Vec<_>>()
                        .join(", ")
                )),
            });
        }
    }
}

fn join(path: &str, key: &str) -> String {
    match path {
        "" => key.to_owned(),
        path => format!("{path}.{key}"),
    }
}

/// The name that was probably meant.
pub fn similar<'n>(text: &str, names: &[&'n str]) -> Option<&'n str> {
    let text = text.to_ascii_lowercase().replace('-', "_");
    names
        .iter()
        .map(|name| {
            let plain = name.to_ascii_lowercase().replace('-', "_");
            (strsim::jaro_winkler(&text, &plain), *name)
        })
        .filter(|(likeness, _)| *likeness > 0.84)
        .max_by(|(a, _), (b, _)| a.total_cmp(b))
        .map(|(_, name)| name)
}
