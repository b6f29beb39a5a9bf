//! Blanks what could be a secret in text that people are shown.
//!
//! ```text
//! parsed tree ─▶ values of keys that sound like a secret ──┐
//! text, also of a file that does not parse ─▶ the same ────┴▶ *** in the snippet, spans moved along
//! ```

use std::ops::Range;
use std::sync::LazyLock;

use regex::Regex;

use super::written::{Node, Table, Value};

/// What stands for a secret wherever a configuration is shown.
pub const BLANK: &str = "***";

/// A text in which some ranges are blanked, and the way from old offsets to new ones.
#[derive(Debug)]
pub struct Redacted {
    text: String,
    /// The blanked ranges of the original, in order, apart from each other.
    ranges: Vec<Range<usize>>,
}

impl Redacted {
    /// Blanks `ranges` of `text`, and whatever looks like a secret by its text alone.
    pub fn new(text: &str, mut ranges: Vec<Range<usize>>) -> Self {
        ranges.extend(by_text(text));
        ranges.retain(|range| text.get(range.clone()).is_some_and(|part| !part.is_empty()));
        ranges.sort_by_key(|range| range.start);
        let mut apart: Vec<Range<usize>> = Vec::new();
        for range in ranges {
            match apart.last_mut() {
                Some(last) if range.start <= last.end => last.end = last.end.max(range.end),
                _ => apart.push(range),
            }
        }
        let mut shown = String::with_capacity(text.len());
        let mut at = 0;
        for range in &apart {
            shown.push_str(&text[at..range.start]);
            shown.push_str(BLANK);
            at = range.end;
        }
        shown.push_str(&text[at..]);
        Self {
            text: shown,
            ranges: apart,
        }
    }

    /// The text as it may be shown.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Where a range of the original lies in the shown text.
    pub fn map(&self, span: &Range<usize>) -> Range<usize> {
        let start = self.offset(span.start, false);
        let end = self.offset(span.end, true).max(start);
        start..end
    }

    fn offset(&self, original: usize, end: bool) -> usize {
        let mut removed = 0;
        let mut added = 0;
        for range in &self.ranges {
            if original < range.start || (original == range.start && !end) {
                break;
            }
            if original < range.end {
                let inside = range.start - removed + added;
                return if end { inside + BLANK.len() } else { inside };
            }
            removed += range.len();
            added += BLANK.len();
        }
        (original - removed + added).min(self.text.len())
    }
}

/// Whether the name of a key says that its value is a secret, a slip of one letter included.
pub fn sounds_secret(key: &str) -> bool {
    const PARTS: [&str; 10] = [
        "password",
        "passwd",
        "passphrase",
        "secret",
        "token",
        "credential",
        "jaas",
        "apikey",
        "accesskey",
        "oauthbearer",
    ];
    const WHOLE: [&str; 6] = [
        "api_key",
        "api-key",
        "access_key",
        "access-key",
        "private",
        "key.pem",
    ];
    let key = key.to_ascii_lowercase();
    PARTS.iter().chain(&WHOLE).any(|part| key.contains(part))
        || key.split(['.', '_', '-']).any(|word| {
            PARTS
                .iter()
                .any(|part| strsim::damerau_levenshtein(word, part) == 1)
        })
}

/// Whether a text can name an environment variable.
pub fn is_variable_name(text: &str) -> bool {
    !text.is_empty()
        && !text.starts_with(|c: char| c.is_ascii_digit())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

/// The values of a parsed file that could be secrets.
pub fn by_tree(table: &Table) -> Vec<Range<usize>> {
    let mut ranges = Vec::new();
    for entry in table.entries() {
        if sounds_secret(&entry.key) {
            blank_values(&entry.node, &mut ranges);
        } else {
            descend(&entry.node, &mut ranges);
        }
    }
    ranges
}

fn descend(node: &Node, ranges: &mut Vec<Range<usize>>) {
    match &node.value {
        Value::Table(table) => ranges.extend(by_tree(table)),
        Value::List(nodes) => nodes.iter().for_each(|node| descend(node, ranges)),
        _ => {}
    }
}

/// Blanks everything in a value but the reference that says where a secret is.
fn blank_values(node: &Node, ranges: &mut Vec<Range<usize>>) {
    match &node.value {
        Value::Table(table) => {
            for entry in table.entries() {
                let reference = match (&*entry.key, &entry.node.value) {
                    ("file", Value::Text(_)) => true,
                    // The secret itself written where the variable's name belongs.
                    ("env", Value::Text(text)) => is_variable_name(&text.value),
                    _ => false,
                };
                if !reference {
                    blank_values(&entry.node, ranges);
                }
            }
        }
        Value::List(nodes) => nodes.iter().for_each(|node| blank_values(node, ranges)),
        // `capabilities = { secrets = true }` grants something, and is no secret.
        Value::Boolean(_) => {}
        _ => ranges.push(node.place.span.clone()),
    }
}

/// What could be a secret in a text that need not be TOML: `password = …`, what follows a header
/// such as `[consumer.secrets]`, `//user:password@`, and the query of a URL, where a signed link has
/// its key.
fn by_text(text: &str) -> Vec<Range<usize>> {
    static ASSIGNMENT: LazyLock<Option<Regex>> =
        LazyLock::new(|| Regex::new(r#"([\w.\-]+)["']?[ \t]*=[ \t]*"#).ok());
    static HEADER: LazyLock<Option<Regex>> =
        LazyLock::new(|| Regex::new(r"(?m)^[ \t]*\[+([^\]\n]*)").ok());
    static USER: LazyLock<Option<Regex>> = LazyLock::new(|| Regex::new(r#"://([^/\s"'@]+)@"#).ok());
    let mut ranges = Vec::new();
    // Tables in a table that was blanked are done; looking again would take the square of the time.
    let mut done = 0;
    for found in ASSIGNMENT
        .iter()
        .flat_map(|pattern| pattern.captures_iter(text))
    {
        let (Some(whole), Some(key)) = (found.get(0), found.get(1)) else {
            continue;
        };
        let rest = &text[whole.end()..];
        if whole.start() < done || !sounds_secret(key.as_str()) || is_boolean(rest) {
            continue;
        }
        if rest.starts_with('{') {
            done = whole.end() + table_length(rest);
            blank_in_table(text, whole.end()..done, &mut ranges);
        } else {
            ranges.push(whole.end()..whole.end() + value_length(rest));
        }
    }
    let mut headers = HEADER
        .iter()
        .flat_map(|pattern| pattern.captures_iter(text))
        .filter_map(|found| found.get(1))
        .peekable();
    while let Some(header) = headers.next() {
        let end = headers.peek().map_or(text.len(), |next| next.start());
        if sounds_secret(header.as_str()) {
            blank_in_table(text, header.end()..end, &mut ranges);
        }
    }
    // The private key of TLS, written out where its file belongs. Other keys of this name are lists.
    static KEY: LazyLock<Option<Regex>> = LazyLock::new(|| {
        Regex::new(r#"(?m)(?:\btls\b[^\n]*?[{,.]|^)[ \t]*["']?key["']?[ \t]*=[ \t]*"#).ok()
    });
    for found in KEY.iter().flat_map(|pattern| pattern.find_iter(text)) {
        let rest = &text[found.end()..];
        if rest.starts_with(['"', '\'']) {
            ranges.push(found.end()..found.end() + value_length(rest));
        }
    }
    static QUERY: LazyLock<Option<Regex>> =
        LazyLock::new(|| Regex::new(r#"://[^\s"'?]*\?([^\s"']+)"#).ok());
    for found in QUERY.iter().flat_map(|pattern| pattern.captures_iter(text)) {
        ranges.extend(found.get(1).map(|query| query.range()));
    }
    for found in USER.iter().flat_map(|pattern| pattern.captures_iter(text)) {
        ranges.extend(found.get(1).map(|user| user.range()));
    }
    ranges
}

/// Whether a value is `true` or `false` and nothing more.
fn is_boolean(rest: &str) -> bool {
    ["true", "false"].iter().any(|word| {
        rest.strip_prefix(word).is_some_and(|after| {
            !after.starts_with(|c: char| !c.is_whitespace() && !matches!(c, ',' | '}' | ']' | '#'))
        })
    })
}

/// Blanks the strings and bare values of a part of the text, references to secrets aside.
fn blank_in_table(text: &str, part: Range<usize>, ranges: &mut Vec<Range<usize>>) {
    static VALUE: LazyLock<Option<Regex>> = LazyLock::new(|| {
        let reference = r"(?:\b(file|env)\s*=\s*)?";
        let quoted = r#"("(?:[^"\\\n]|\\.)*"?|'[^'\n]*'?)"#;
        let key = r"(\s*=[^=])?";
        let bare = r#"=\s*([^\s"'{}\[\],]+)"#;
        Regex::new(&format!("{reference}{quoted}{key}|{bare}")).ok()
    });
    let Some(inside) = text.get(part.clone()) else {
        return;
    };
    for found in VALUE
        .iter()
        .flat_map(|pattern| pattern.captures_iter(inside))
    {
        let kept = match (found.get(1), found.get(2)) {
            _ if found.get(3).is_some() => true,
            (Some(kind), Some(value)) if kind.as_str() == "env" => {
                is_variable_name(value.as_str().trim_matches(['"', '\'']))
            }
            (kind, _) => kind.is_some(),
        };
        if let (false, Some(value)) = (kept, found.get(2).or(found.get(4))) {
            ranges.push(part.start + value.start()..part.start + value.end());
        }
    }
}

/// How many bytes at the start of `rest` an inline table takes; a broken one takes everything.
fn table_length(rest: &str) -> usize {
    let mut depth = 0;
    for (at, byte) in rest.bytes().enumerate() {
        match byte {
            b'{' => depth += 1,
            b'}' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return at + 1;
        }
    }
    rest.len()
}

/// How many bytes at the start of `rest` a value takes; a broken one takes the line.
fn value_length(rest: &str) -> usize {
    let line = rest.find('\n').unwrap_or(rest.len());
    for quotes in ["\"\"\"", "'''"] {
        if let Some(inside) = rest.strip_prefix(quotes) {
            return inside
                .find(quotes)
                .map_or(rest.len(), |end| end + 2 * quotes.len());
        }
    }
    match rest.as_bytes().first() {
        Some(b'\'') => rest[1..line].find('\'').map_or(line, |end| end + 2),
        Some(b'"') => {
            let mut escaped = false;
            rest.bytes()
                .take(line)
                .enumerate()
                .skip(1)
                .find(|(_, byte)| {
                    let end = *byte == b'"' && !escaped;
                    escaped = *byte == b'\\' && !escaped;
                    end
                })
                .map_or(line, |(end, _)| end + 1)
        }
        _ => line,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str) -> String {
        Redacted::new(text, Vec::new()).text().to_owned()
    }

    #[test]
    fn a_secret_is_blanked_in_text_that_does_not_parse() {
        for text in [
            "password = \"hunter2\"",
            "\"sasl.password\" = 'hunter2'",
            "token = \"hunter2",
            "token = \"\"\"\nhunter2\n",
            "pasword = \"a\\\"hunter2\" # note",
            "x = [1\napi_key = hunter2 ]]",
            "secrets = { stripe = \"hunter2\" ",
            "secrets = { a = { env = \"A\" }, b = 'hunter2', c = [\"x\", \"hunter2\"] }",
            "secrets = { a = hunter2, }",
            "[consumer.secrets]\nstripe = \"hunter2\"\n[x",
            "token = { env = \"hunter2!\" }",
            "token = truehunter2",
            "url = \"https://me:hunter2@example.com/\"",
            "url = \"https://example.com/a.wasm?sig=hunter2\"",
            "tls = { certificate = \"c.pem\", key = \"hunter2\" }",
            "[admin.tls]\nkey = \"\"\"-----BEGIN\nhunter2\n\"\"\"",
            "tls.key = 'hunter2'",
        ] {
            assert!(
                !shown(text).contains("hunter2"),
                "{text} -> {}",
                shown(text)
            );
        }
    }

    /// The reference is what a person needs to see to find the mistake.
    #[test]
    fn a_reference_to_a_secret_stays_readable() {
        let text = "capabilities = { secrets = true, http = [\"a\"] }\nsecrets = { a = { env = \"A\" }, \"b\" = { file = 'b' } }\ntoken = { file = \"secrets/admin\" }\nkey = [\"!test*\"]\ntopics = [\"t\"]";
        assert_eq!(shown(text), text);
    }

    /// A label that moved would point at the wrong text.
    #[test]
    fn places_move_with_the_text() {
        let text = "token = \"hunter2\" , x = 1";
        let redacted = Redacted::new(text, Vec::new());
        let x = text.find('x').unwrap();
        let span = redacted.map(&(x..x + 1));
        assert_eq!(&redacted.text()[span], "x");
        let secret = text.find('"').unwrap();
        let span = redacted.map(&(secret..secret + 9));
        assert_eq!(&redacted.text()[span], BLANK);
    }

    proptest::proptest! {
        #[test]
        fn any_span_maps_into_the_text(
            text in "[a-z=\" \n{}ü]{0,40}(token = \"x\")?[a-z\n]{0,9}",
            a in 0usize..60, b in 0usize..60,
        ) {
            let floor = |at: usize| (0..=at.min(text.len())).rev().find(|at| text.is_char_boundary(*at)).unwrap();
            let (a, b) = (floor(a), floor(b));
            let redacted = Redacted::new(&text, std::iter::once(a.min(b)..a.max(b)).collect());
            let span = redacted.map(&(a.min(b)..a.max(b)));
            proptest::prop_assert!(redacted.text().get(span).is_some());
        }
    }
}
