//! Two JSON texts and where they differ, line by line.

use similar::{ChangeTag, TextDiff};

use crate::cli::layout;

/// Columns of a line: narrower than a file's, so that what differs stands alone.
const WIDTH: usize = 48;
/// Lines that are the same and are shown around those that differ.
const AROUND: usize = 3;

/// The lines that differ, those of `expected` after `-` and those of `actual` after `+`, set in by
/// `indent`; in colours with `color`.
pub fn render(expected: &str, actual: &str, indent: usize, color: bool) -> String {
    let lines = |json: &str| format!("{}\n", layout::lay_out(json, 0, WIDTH));
    let (expected, actual) = (lines(expected), lines(actual));
    let difference = TextDiff::from_lines(&expected, &actual);
    let blank = " ".repeat(indent);
    let mut out = String::new();
    for (number, group) in difference.grouped_ops(AROUND).iter().enumerate() {
        if number > 0 {
            out.push_str(&format!("{blank}  …\n"));
        }
        for change in group.iter().flat_map(|op| difference.iter_changes(op)) {
            let (sign, begin) = match change.tag() {
                ChangeTag::Delete => ('-', "\x1b[31m"),
                ChangeTag::Insert => ('+', "\x1b[32m"),
                ChangeTag::Equal => (' ', ""),
            };
            // What a plugin wrote must not move the operator's cursor; JSON escapes the rest.
            let line = change
                .value()
                .trim_end_matches('\n')
                .replace('\u{7f}', "\\u007f");
            let end = if begin.is_empty() { "" } else { "\x1b[0m" };
            match color {
                true => out.push_str(&format!("{blank}{begin}{sign} {line}{end}\n")),
                false => out.push_str(&format!("{blank}{sign} {line}\n")),
            }
        }
    }
    out
}

/// JSON that there is nothing to compare with.
pub fn plain(json: &str, indent: usize) -> String {
    let blank = " ".repeat(indent);
    format!("{blank}{}\n", layout::lay_out(json, indent, indent + WIDTH))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_differs_stands_alone_among_its_neighbours() {
        let text = |total: u32| {
            format!(
                r#"{{"outputs":[{{"output":"default","json":{{"id":"a","points":250,"total":{total}}}}}]}}"#
            )
        };
        let found = render(&text(1), &text(2), 2, false);
        let signs: Vec<_> = found
            .lines()
            .filter(|line| !line.starts_with("    "))
            .collect();
        assert_eq!(signs.len(), 2, "{found}");
        assert!(
            signs[0].contains("- ") && signs[0].contains("\"total\": 1"),
            "{found}"
        );
        assert!(
            signs[1].contains("+ ") && signs[1].contains("\"total\": 2"),
            "{found}"
        );
        assert_eq!(render("\"dropped\"", "\"dropped\"", 0, false), "");
    }

    #[test]
    fn colours_are_for_what_differs() {
        let found = render("1", "2", 0, true);
        assert_eq!(found, "\x1b[31m- 1\x1b[0m\n\x1b[32m+ 2\x1b[0m\n");
    }
}
