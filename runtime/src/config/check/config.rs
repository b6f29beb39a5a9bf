//! `config` of a consumer: any TOML, as the JSON that the plugin's `init` gets.

use std::sync::Arc;

use serde_json::{Map, Number, Value as Json};

use super::super::checks::Checks;
use super::super::problem::Problem;
use super::super::section::Section;
use super::super::written::{Node, Table, Value};

/// The JSON object; `{}` where nothing is written.
pub fn config(consumer: &mut Section<'_>) -> Arc<str> {
    let Some(node) = consumer.node("config") else {
        return "{}".into();
    };
    match &node.value {
        Value::Table(table) => Json::Object(object(consumer.checks(), table))
            .to_string()
            .into(),
        _ => {
            consumer.wrong_type("config", node, "a table");
            "{}".into()
        }
    }
}

fn object(checks: &Checks<'_>, table: &Table) -> Map<String, Json> {
    table
        .entries()
        .iter()
        .map(|entry| (entry.key.clone(), json(checks, &entry.node)))
        .collect()
}

fn json(checks: &Checks<'_>, node: &Node) -> Json {
    match &node.value {
        Value::Text(text) => Json::String(text.value.clone()),
        Value::Integer(number) => Json::Number((*number).into()),
        Value::Float(number) => match Number::from_f64(*number) {
            Some(number) => Json::Number(number),
            None => {
                checks.report(
                    Problem::error("config", "`config` holds a number that JSON has not")
                        .at(&node.place)
                        .label("the plugin gets `config` as JSON")
                        .hint("write it as a string"),
                );
                Json::Null
            }
        },
        Value::Boolean(value) => Json::Bool(*value),
        Value::Time(time) => Json::String(time.to_string()),
        Value::List(nodes) => nodes.iter().map(|node| json(checks, node)).collect(),
        Value::Table(table) => Json::Object(object(checks, table)),
    }
}
