//! Secrets: `{ file = "…" }` and `{ env = "NAME" }`.

use std::io::Read as _;

use super::super::checks::Checks;
use super::super::problem::Problem;
use super::super::redact::is_variable_name;
use super::super::secret::Secret;
use super::super::written::{Node, Table, Text, Value};

/// The largest secret that is read, in bytes.
const MAX_SECRET: u64 = 64 << 10;

/// Whether a table is meant as the reference to a secret.
pub fn is_reference(table: &Table) -> bool {
    table.get("file").is_some() || table.get("env").is_some()
}

/// Where a secret comes from, without reading it.
pub enum Reference<'a> {
    File(&'a str),
    Environment(&'a str),
}

/// Checks the form of a reference.
pub fn reference<'a>(checks: &Checks<'_>, shown: &str, node: &'a Node) -> Option<Reference<'a>> {
    let hint = "write `{ file = \"…\" }` or `{ env = \"NAME\" }`";
    let wrong = |label: &str| {
        checks.report(
            Problem::error("secret", format!("{shown} must say where its secret is"))
                .at(&node.place)
                .label(label)
                .hint(hint),
        );
        None
    };
    let table = match &node.value {
        Value::Table(table) => table,
        Value::Text(Text { failed: true, .. }) => return None,
        Value::Text(_) => return wrong("a secret never stands in the file itself"),
        _ => return wrong("neither a file nor a variable"),
    };
    let [entry] = table.entries() else {
        return wrong("exactly one of `file` and `env` is needed");
    };
    match (&*entry.key, &entry.node.value) {
        (_, Value::Text(Text { failed: true, .. })) => None,
        ("file", Value::Text(path)) => Some(Reference::File(&path.value)),
        ("env", Value::Text(name)) if is_variable_name(&name.value) => {
            Some(Reference::Environment(&name.value))
        }
        ("env", _) => wrong("`env` must name an environment variable"),
        ("file", _) => wrong("`file` must be a path"),
        _ => wrong("only `file` and `env` are known"),
    }
}

/// Reads a secret. `shown` names it in messages.
pub fn secret(checks: &Checks<'_>, shown: &str, node: &Node) -> Option<Secret> {
    let value = match reference(checks, shown, node)? {
        Reference::Environment(name) => match (checks.environment)(name) {
            Some(value) => value,
            None => {
                checks.report(
                    Problem::error(
                        "environment",
                        format!("the environment variable {name} is not set"),
                    )
                    .at(&node.place)
                    .label(format!("the secret of {shown} is to come from it"))
                    .hint(format!("set {name}, or take the secret from a file")),
                );
                return None;
            }
        },
        Reference::File(path) => {
            let path = checks.sources.resolve(node.place.file, path);
            let mut text = String::new();
            let read = std::fs::File::open(&path)
                .and_then(|file| file.take(MAX_SECRET + 1).read_to_string(&mut text));
            match read {
                Ok(length) if length as u64 <= MAX_SECRET => {
                    text.trim_end_matches(['\r', '\n']).to_owned()
                }
                other => {
                    let cause = match other {
                        Ok(_) => "the file is larger than 64 KiB".to_owned(),
                        Err(error) => error.to_string(),
                    };
                    checks.report(
                        Problem::error("secret", format!("cannot read the secret of {shown}"))
                            .at(&node.place)
                            .label(format!("from {}", path.display()))
                            .cause(cause)
                            .hint("paths are relative to the file that names them"),
                    );
                    return None;
                }
            }
        }
    };
    if value.is_empty() {
        checks.report(
            Problem::error("secret", format!("the secret of {shown} is empty"))
                .at(&node.place)
                .label("holds nothing"),
        );
        return None;
    }
    Some(Secret::new(value))
}
