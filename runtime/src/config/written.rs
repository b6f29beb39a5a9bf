//! A configuration file as it is written: a tree of values that know their places.
//!
//! A tree, and not structs that serde fills, because serde stops at the first error and forgets the
//! place of what it has read; every error is to be shown at once, at its place.

use toml::Spanned;
use toml::de::{DeTable, DeValue};
use toml::value::Datetime;

use super::problem::{Place, Problem};

/// A value and where it stands.
#[derive(Clone, Debug)]
pub struct Node {
    pub value: Value,
    pub place: Place,
}

/// What TOML knows.
#[derive(Clone, Debug)]
pub enum Value {
    Text(Text),
    Integer(i64),
    Float(f64),
    Boolean(bool),
    Time(Datetime),
    List(Vec<Node>),
    Table(Table),
}

/// A string.
#[derive(Clone, Debug)]
pub struct Text {
    /// With references to the environment replaced.
    pub value: String,
    /// As the file has it, where it held a reference.
    pub written: Option<String>,
    /// A reference in it could not be replaced and was reported: it fits everywhere, so that one
    /// mistake is one problem.
    pub failed: bool,
}

/// A table in the order of the file.
#[derive(Clone, Debug, Default)]
pub struct Table {
    entries: Vec<Entry>,
}

/// A key with its value.
#[derive(Clone, Debug)]
pub struct Entry {
    pub key: String,
    pub key_place: Place,
    pub node: Node,
}

impl Table {
    /// A table without entries.
    pub const EMPTY: Self = Self {
        entries: Vec::new(),
    };

    /// All entries in the order of the file.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// The same, to change values in place.
    pub fn entries_mut(&mut self) -> &mut [Entry] {
        &mut self.entries
    }

    /// The entry of this key.
    pub fn get(&self, key: &str) -> Option<&Entry> {
        self.entries.iter().find(|entry| entry.key == key)
    }
}

impl Value {
    /// What it is, with an article.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Text(_) => "a string",
            Self::Integer(_) => "a whole number",
            Self::Float(_) => "a fraction",
            Self::Boolean(_) => "a boolean",
            Self::Time(_) => "a time",
            Self::List(_) => "a list",
            Self::Table(_) => "a table",
        }
    }
}

/// Parses a file.
///
/// # Errors
/// Every error of its syntax. What was understood is returned beside them, for finding secrets in
/// it; nothing else should be read from it then.
pub fn parse(file: usize, text: &str) -> (Table, Vec<Problem>) {
    let (table, errors) = DeTable::parse_recoverable(text);
    let mut problems: Vec<Problem> = errors
        .iter()
        .map(|error| {
            let span = error.span().unwrap_or(0..0);
            let end = span.end.min(text.len());
            let place = Place {
                file,
                span: span.start.min(end)..end,
            };
            // The parser's own text never quotes a value, only what it expected.
            Problem::error("syntax", "this is not valid TOML")
                .at(&place)
                .label(error.message().trim().replace('\n', ", "))
        })
        .collect();
    let table = convert_table(file, table.get_ref(), &mut problems);
    (table, problems)
}

fn convert_table(file: usize, table: &DeTable<'_>, problems: &mut Vec<Problem>) -> Table {
    let mut entries: Vec<Entry> = table
        .iter()
        .map(|(key, value)| Entry {
            key: key.get_ref().to_string(),
            key_place: Place {
                file,
                span: key.span(),
            },
            node: convert(file, value, problems),
        })
        .collect();
    entries.sort_by_key(|entry| entry.key_place.span.start);
    Table { entries }
}

fn convert(file: usize, node: &Spanned<DeValue<'_>>, problems: &mut Vec<Problem>) -> Node {
    let place = Place {
        file,
        span: node.span(),
    };
    let value = match node.get_ref() {
        DeValue::String(text) => Value::Text(Text {
            value: text.to_string(),
            written: None,
            failed: false,
        }),
        DeValue::Integer(number) => match i64::from_str_radix(number.as_str(), number.radix()) {
            Ok(number) => Value::Integer(number),
            Err(error) => {
                problems.push(
                    Problem::error("syntax", "this number is too large")
                        .at(&place)
                        .label("does not fit into 64 bits")
                        .cause(error.to_string()),
                );
                Value::Integer(0)
            }
        },
        DeValue::Float(number) => match number.as_str().parse() {
            Ok(number) => Value::Float(number),
            Err(_) => {
                problems.push(
                    Problem::error("syntax", "this is not a number")
                        .at(&place)
                        .label("not a number"),
                );
                Value::Float(0.0)
            }
        },
        DeValue::Boolean(value) => Value::Boolean(*value),
        DeValue::Datetime(time) => Value::Time(*time),
        DeValue::Array(nodes) => Value::List(
            nodes
                .iter()
                .map(|node| convert(file, node, problems))
                .collect(),
        ),
        DeValue::Table(table) => Value::Table(convert_table(file, table, problems)),
    };
    Node { value, place }
}
