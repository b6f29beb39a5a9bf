//! Names of topics, groups, consumers and outputs.

use super::super::checks::Checks;
use super::super::problem::{Place, Problem};

/// Kafka's rule, kept on the embedded broker too, so that a configuration moves between them.
pub fn topic(checks: &Checks<'_>, shown: &str, name: &str, place: &Place) -> bool {
    let label = if name.is_empty() {
        "empty"
    } else if name.len() > 249 {
        "longer than 249 characters"
    } else if name == "." || name == ".." {
        "`.` and `..` are no names"
    } else if !plain(name) {
        "letters, digits, `.`, `_` and `-` make a name"
    } else {
        return true;
    };
    checks.report(
        Problem::error("topic-name", format!("{shown} is not the name of a topic"))
            .at(place)
            .label(label),
    );
    false
}

/// A topic that events are written to, or that is set up by the configuration.
pub fn own_topic(checks: &Checks<'_>, shown: &str, name: &str, place: &Place) -> bool {
    if !topic(checks, shown, name, place) {
        return false;
    }
    if !name.starts_with("millstream.") && !name.starts_with("__") {
        return true;
    }
    checks.report(
        Problem::error("topic-name", format!("{shown} is a reserved topic"))
            .at(place)
            .label("`millstream.…` is the runtime's, `__…` the broker's")
            .hint("choose another name"),
    );
    false
}

/// A name that becomes part of groups and metrics.
pub fn label(checks: &Checks<'_>, shown: &str, name: &str, place: &Place) -> bool {
    let label = if name.is_empty() {
        "empty"
    } else if name.len() > 100 {
        "longer than 100 characters"
    } else if !plain(name) {
        "letters, digits, `.`, `_` and `-` make a name"
    } else if !name.starts_with(|c: char| c.is_ascii_alphanumeric()) {
        "a letter or a digit begins a name"
    } else {
        return true;
    };
    checks.report(
        Problem::error("name", format!("{shown} is not a valid name"))
            .at(place)
            .label(label),
    );
    false
}

/// A consumer group.
pub fn group(checks: &Checks<'_>, name: &str, place: &Place) -> bool {
    let label = if name.is_empty() {
        "empty"
    } else if name.len() > 200 {
        "longer than 200 characters"
    } else if !plain(name) {
        "letters, digits, `.`, `_` and `-` make a name"
    } else {
        return true;
    };
    checks.report(
        Problem::error("name", "`group` is not the name of a group")
            .at(place)
            .label(label),
    );
    false
}

fn plain(name: &str) -> bool {
    name.chars()
        .all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-'))
}
