//! `filter` of a consumer.

use super::super::checks::Checks;
use super::super::filter::{Condition, Field, Filter, Value as Wanted};
use super::super::problem::Problem;
use super::super::section::Section;
use super::super::written::{Node, Text, Value};

/// Checks the filter; without one everything is wanted.
pub fn filter(consumer: &mut Section<'_>) -> Filter {
    let mut section = consumer.section("filter");
    let checks = section.checks();
    let mut conditions = Vec::new();
    for (key, field) in [("type", Field::Type), ("key", Field::Key)] {
        if let Some(node) = section.node(key) {
            conditions.extend(condition(checks, &section.shown(key), field, node));
        }
    }
    if let Some(entry) = section.entry("header") {
        match &entry.node.value {
            Value::Table(table) => {
                for entry in table.entries() {
                    let shown = format!("`filter.header.{}`", entry.key);
                    let field = Field::Header(entry.key.clone());
                    conditions.extend(condition(checks, &shown, field, &entry.node));
                }
            }
            _ => {
                section.wrong_type("header", &entry.node, "a table with a key for each header");
            }
        }
    }
    section.finish();
    Filter { conditions }
}

fn condition(checks: &Checks<'_>, shown: &str, field: Field, node: &Node) -> Option<Condition> {
    let wrong = |node: &Node| {
        let problem = Problem::error("filter", format!("{shown} must be a list of strings"))
            .at(&node.place)
            .label(format!("this is {}", node.value.kind()));
        checks.report(match node.value {
            Value::Table(_) => problem.hint("the name of a header that holds dots needs quotes"),
            _ => problem,
        });
    };
    let mut values = Vec::new();
    match &node.value {
        Value::Text(Text { failed: true, .. }) => return None,
        Value::Text(text) => values.push(Wanted::parse(&text.value)),
        Value::List(nodes) if nodes.is_empty() => {
            checks.report(
                Problem::error("filter", format!("{shown} names no value"))
                    .at(&node.place)
                    .label("empty")
                    .hint("remove the key to want any value, or write \"*\" for any value at all"),
            );
            return None;
        }
        Value::List(nodes) => {
            for node in nodes {
                match &node.value {
                    Value::Text(text) => values.push(Wanted::parse(&text.value)),
                    _ => wrong(node),
                }
            }
        }
        _ => {
            wrong(node);
            return None;
        }
    }
    (!values.is_empty()).then_some(Condition { field, values })
}
