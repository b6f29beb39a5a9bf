//! JSON laid out for people: on one line where it fits, else a member a line.
//!
//! Keys keep the order of the text; a `serde_json::Value` would sort them.

/// Columns that each level is set in by.
const STEP: usize = 2;

/// JSON without blanks between its parts. The text must be valid.
pub fn compact(json: &str) -> String {
    let mut out = String::with_capacity(json.len());
    let (mut quoted, mut escaped) = (false, false);
    for character in json.chars() {
        match character {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            _ if !quoted && character.is_ascii_whitespace() => continue,
            _ => {}
        }
        out.push(character);
    }
    out
}

/// JSON laid out in lines of `width` columns where it can be, all but the first set in by `indent`.
/// The text must be valid.
pub fn lay_out(json: &str, indent: usize, width: usize) -> String {
    let compact = compact(json);
    let mut out = String::with_capacity(2 * compact.len());
    write(&compact, indent, indent, width, &mut out);
    out
}

/// Appends a value without blanks; `column` is where it begins.
fn write(value: &str, indent: usize, column: usize, width: usize, out: &mut String) {
    let line = on_one_line(value);
    let Some((open, members, close)) = members(value) else {
        out.push_str(&line);
        return;
    };
    if members.is_empty() || column + line.chars().count() <= width {
        out.push_str(&line);
        return;
    }
    out.push(open);
    let inner = indent + STEP;
    for (index, member) in members.iter().enumerate() {
        out.push_str(if index > 0 { ",\n" } else { "\n" });
        out.push_str(&" ".repeat(inner));
        match key_end(member) {
            Some(end) if open == '{' => {
                out.push_str(&member[..=end]);
                out.push(' ');
                let column = inner + member[..=end].chars().count() + 1;
                write(&member[end + 1..], inner, column, width, out);
            }
            _ => write(member, inner, inner, width, out),
        }
    }
    out.push('\n');
    out.push_str(&" ".repeat(indent));
    out.push(close);
}

/// The members of an object or a list without blanks, and what is around them.
fn members(value: &str) -> Option<(char, Vec<&str>, char)> {
    let (open, close) = match value.as_bytes().first()? {
        b'{' => ('{', '}'),
        b'[' => ('[', ']'),
        _ => return None,
    };
    let inner = value.get(1..value.len().checked_sub(1)?)?;
    let mut members = Vec::new();
    let mut begin = 0;
    let mut depth = 0_usize;
    for (at, character) in outside_strings(inner) {
        match character {
            '{' | '[' => depth += 1,
            '}' | ']' => depth = depth.saturating_sub(1),
            ',' if depth == 0 => {
                members.push(&inner[begin..at]);
                begin = at + 1;
            }
            _ => {}
        }
    }
    if !inner.is_empty() {
        members.push(&inner[begin..]);
    }
    Some((open, members, close))
}

/// Where the colon after a member's key is.
fn key_end(member: &str) -> Option<usize> {
    let mut found = outside_strings(member);
    found.find_map(|(at, character)| (character == ':').then_some(at))
}

/// One line, with a blank after each comma and colon.
fn on_one_line(value: &str) -> String {
    let mut out = String::with_capacity(value.len() + 16);
    let mut begin = 0;
    for (at, character) in outside_strings(value) {
        if matches!(character, ',' | ':') {
            out.push_str(&value[begin..=at]);
            out.push(' ');
            begin = at + 1;
        }
    }
    out.push_str(&value[begin..]);
    out
}

/// The characters that stand in no string, with their places.
fn outside_strings(text: &str) -> impl Iterator<Item = (usize, char)> {
    let (mut quoted, mut escaped) = (false, false);
    text.char_indices().filter(move |(_, character)| {
        let was_quoted = quoted;
        match character {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            _ => {}
        }
        !was_quoted && !quoted
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;

    #[test]
    fn what_fits_stays_on_a_line_and_keys_keep_their_order() {
        let text = "{\"b\" :1,\n \"a\":[ 1,2 ], \"c\":\"x, {y}: \\\" z\"}";
        let wanted = r#"{"b": 1, "a": [1, 2], "c": "x, {y}: \" z"}"#;
        assert_eq!(lay_out(text, 0, 100), wanted);
        assert_eq!(compact(text), r#"{"b":1,"a":[1,2],"c":"x, {y}: \" z"}"#);
        assert_eq!(lay_out("[]", 0, 100), "[]");
    }

    #[test]
    fn what_does_not_fit_has_a_member_a_line() {
        let long = "x".repeat(90);
        let text = format!(r#"{{"outputs":[{{"key":"a","value":"{long}"}}],"b":{{}}}}"#);
        let wanted = format!(
            "{{\n    \"outputs\": [\n      {{\n        \"key\": \"a\",\n        \"value\": \
             \"{long}\"\n      }}\n    ],\n    \"b\": {{}}\n  }}"
        );
        assert_eq!(lay_out(&text, 2, 100), wanted);
    }

    fn any_json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            "[ -~]{0,12}|\\PC{0,6}".prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 40, 6, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
                prop::collection::btree_map("[ -~]{0,8}", inner, 0..6)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    proptest! {
        /// A layout that changed a value would write another case than the one that ran.
        #[test]
        fn the_value_stays_the_same(value in any_json(), indent in 0_usize..40, width in 0_usize..60) {
            let text = value.to_string();
            let laid_out = lay_out(&text, indent, width);
            prop_assert_eq!(&serde_json::from_str::<Value>(&laid_out).expect("JSON"), &value);
            prop_assert_eq!(compact(&laid_out), text);
        }
    }
}
