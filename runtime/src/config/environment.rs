//! References to the environment in string values: `${env:NAME}`, `${env:NAME:-default}`, `$${`.

use super::problem::{Place, Problem};
use super::redact::is_variable_name;
use super::source::Sources;
use super::written::{Node, Table, Value};

/// Looks up a variable; `None` where it is not set.
pub type Environment<'a> = dyn Fn(&str) -> Option<String> + 'a;

/// Replaces the references in every string of a table.
pub fn expand(
    table: &mut Table,
    environment: &Environment<'_>,
    sources: &Sources,
    problems: &mut Vec<Problem>,
) {
    for entry in table.entries_mut() {
        expand_node(&mut entry.node, environment, sources, problems);
    }
}

fn expand_node(
    node: &mut Node,
    environment: &Environment<'_>,
    sources: &Sources,
    problems: &mut Vec<Problem>,
) {
    match &mut node.value {
        Value::Text(text) => match replace(&text.value, environment) {
            Ok(None) => {}
            Ok(Some(value)) => text.written = Some(std::mem::replace(&mut text.value, value)),
            Err(mistake) => {
                let place = narrow(&node.place, &mistake.reference, sources);
                problems.push(mistake.problem(&place));
                text.failed = true;
            }
        },
        Value::List(nodes) => {
            for node in nodes {
                expand_node(node, environment, sources, problems);
            }
        }
        Value::Table(table) => expand(table, environment, sources, problems),
        _ => {}
    }
}

/// The reference's own place in its string, where it can be found as it stands.
fn narrow(place: &Place, reference: &str, sources: &Sources) -> Place {
    let text = sources.text(place.file).get(place.span.clone());
    match text.and_then(|text| text.find(reference)) {
        Some(at) if !reference.is_empty() => {
            let start = place.span.start + at;
            Place {
                file: place.file,
                span: start..start + reference.len(),
            }
        }
        _ => place.clone(),
    }
}

/// A reference that cannot be replaced.
#[derive(Debug, PartialEq, Eq)]
struct Mistake {
    reference: String,
    kind: Kind,
}

#[derive(Debug, PartialEq, Eq)]
enum Kind {
    Unclosed,
    NotEnvironment,
    Name,
    Unset(String),
}

impl Mistake {
    fn problem(&self, place: &Place) -> Problem {
        match &self.kind {
            Kind::Unclosed => Problem::error("reference", "a reference is not closed")
                .at(place)
                .label("`}` is missing")
                .hint("write `${env:NAME}`, or `$${` for the characters `${` themselves"),
            Kind::NotEnvironment => Problem::error("reference", "unknown kind of reference")
                .at(place)
                .label("only `${env:NAME}` is known")
                .hint("write `$${` for the characters `${` themselves"),
            Kind::Name => Problem::error("reference", "this cannot name an environment variable")
                .at(place)
                .label("letters, digits and `_` make a name; a digit does not begin it")
                .hint("write `${env:NAME}`, or `${env:NAME:-default}`"),
            Kind::Unset(name) => Problem::error(
                "environment",
                format!("the environment variable {name} is not set"),
            )
            .at(place)
            .label("nothing to put here")
            .hint(format!(
                "set {name}, or give a default: `${{env:{name}:-default}}`"
            )),
        }
    }
}

/// The string with its references replaced, or `None` where it holds none.
fn replace(text: &str, environment: &Environment<'_>) -> Result<Option<String>, Mistake> {
    if !text.contains("${") {
        return Ok(None);
    }
    let mut value = String::new();
    let mut rest = text;
    while let Some(at) = rest.find("${") {
        if rest[..at].ends_with('$') {
            value.push_str(&rest[..at - 1]);
            value.push_str("${");
            rest = &rest[at + 2..];
            continue;
        }
        value.push_str(&rest[..at]);
        let from = &rest[at..];
        let Some(end) = from.find('}') else {
            return Err(Mistake {
                reference: from.to_owned(),
                kind: Kind::Unclosed,
            });
        };
        let mistake = |kind| Mistake {
            reference: from[..=end].to_owned(),
            kind,
        };
        let inside = from[2..end]
            .strip_prefix("env:")
            .ok_or_else(|| mistake(Kind::NotEnvironment))?;
        let (name, default) = match inside.split_once(":-") {
            Some((name, default)) => (name, Some(default)),
            None => (inside, None),
        };
        if !is_variable_name(name) {
            return Err(mistake(Kind::Name));
        }
        // As in a shell, `:-` also stands in for a variable that is set to nothing.
        match (environment(name), default) {
            (Some(found), None) => value.push_str(&found),
            (Some(found), Some(_)) if !found.is_empty() => value.push_str(&found),
            (_, Some(default)) => value.push_str(default),
            (None, None) => return Err(mistake(Kind::Unset(name.to_owned()))),
        }
        rest = &from[end + 1..];
    }
    value.push_str(rest);
    Ok(Some(value))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn replaced(text: &str) -> Option<String> {
        let environment = |name: &str| match name {
            "HOST" => Some("a:1".to_owned()),
            "EMPTY" => Some(String::new()),
            "NESTED" => Some("${env:HOST}".to_owned()),
            _ => None,
        };
        replace(text, &environment).unwrap_or(Some("mistake".to_owned()))
    }

    #[test]
    fn references_are_replaced_and_escapes_kept() {
        for (text, expected) in [
            ("${env:HOST}", "a:1"),
            ("x-${env:HOST}-${env:HOST}", "x-a:1-a:1"),
            ("${env:NO:-b:2}", "b:2"),
            ("${env:NO:-}", ""),
            ("${env:EMPTY}", ""),
            ("${env:EMPTY:-d}", "d"),
            ("$${env:HOST}", "${env:HOST}"),
            ("$$${env:HOST}", "$${env:HOST}"),
            ("a$${b} ${env:HOST}", "a${b} a:1"),
            ("${env:NO}", "mistake"),
            ("${env:}", "mistake"),
            ("${env:1A}", "mistake"),
            ("${HOST}", "mistake"),
            ("${env:HOST", "mistake"),
        ] {
            assert_eq!(replaced(text).as_deref(), Some(expected), "{text}");
        }
        assert_eq!(replaced("no reference: $ { } $HOME"), None);
    }

    /// Else a variable's value could reach for another variable.
    #[test]
    fn what_was_put_in_is_not_read_again() {
        assert_eq!(replaced("${env:NESTED}").as_deref(), Some("${env:HOST}"));
    }
}
