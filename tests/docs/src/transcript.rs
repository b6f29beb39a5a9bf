//! A terminal session as a guide shows it: commands after `$ `, and below each what it printed.
//!
//! `…` stands for anything within a line; a line that is `…` alone stands for any lines.

use anyhow::{Result, ensure};

/// A command and what it prints.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    pub command: String,
    /// Lines shown below it.
    pub shown: Vec<String>,
}

/// Reads a `console` block. A command that ends with `\` goes on in the next line.
///
/// # Errors
/// Something stands before the first command.
pub fn steps(text: &str) -> Result<Vec<Step>> {
    let mut steps: Vec<Step> = Vec::new();
    for line in text.lines() {
        if let Some(command) = line.strip_prefix("$ ") {
            steps.push(Step {
                command: command.to_owned(),
                shown: Vec::new(),
            });
            continue;
        }
        let Some(step) = steps.last_mut() else {
            ensure!(
                line.trim().is_empty(),
                "{line:?} stands before the first command"
            );
            continue;
        };
        match step.command.strip_suffix('\\') {
            Some(command) => step.command = format!("{command}{}", line.trim_start()),
            None => step.shown.push(line.to_owned()),
        }
    }
    Ok(steps)
}

/// Whether `printed` is what a guide shows; nothing shown fits everything.
pub fn fits(shown: &[String], printed: &str) -> bool {
    let printed: Vec<&str> = printed.lines().map(str::trim_end).collect();
    let shown: Vec<&str> = shown.iter().map(|line| line.trim_end()).collect();
    let shown = match shown.iter().rposition(|line| !line.is_empty()) {
        Some(last) => &shown[..=last],
        None => return true,
    };
    lines_fit(shown, &printed)
}

fn lines_fit(shown: &[&str], printed: &[&str]) -> bool {
    match shown {
        [] => printed.iter().all(|line| line.is_empty()),
        [first, rest @ ..] if first.trim() == "…" => {
            (0..=printed.len()).any(|skipped| lines_fit(rest, &printed[skipped..]))
        }
        [first, rest @ ..] => match printed {
            [line, below @ ..] => line_fits(first, line) && lines_fit(rest, below),
            [] => false,
        },
    }
}

fn line_fits(shown: &str, printed: &str) -> bool {
    let mut pieces = shown.split('…');
    let first = pieces.next().unwrap_or_default();
    let Some(mut rest) = printed.strip_prefix(first) else {
        return false;
    };
    let mut pieces: Vec<&str> = pieces.collect();
    let Some(last) = pieces.pop() else {
        return rest.is_empty();
    };
    for piece in pieces {
        match rest.split_once(piece) {
            Some((_, behind)) => rest = behind,
            None => return false,
        }
    }
    rest.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_is_commands_with_what_they_print() {
        let found = steps("$ a | \\\n    b\none\n\n$ c\n").unwrap();
        let step = |command: &str, shown: &[&str]| Step {
            command: command.to_owned(),
            shown: shown.iter().map(|line| (*line).to_owned()).collect(),
        };
        assert_eq!(found, [step("a | b", &["one", ""]), step("c", &[])]);
        assert!(steps("one\n$ a\n").is_err());
    }

    #[test]
    fn dots_stand_for_text_and_for_lines() {
        let shown = |lines: &[&str]| -> Vec<String> {
            lines.iter().map(|line| (*line).to_owned()).collect()
        };
        assert!(fits(&shown(&["a", "…", "d"]), "a\nb\nc\nd\n"));
        assert!(fits(
            &shown(&["took … s, … out", ""]),
            "took 1.5 s, 3 out\n"
        ));
        assert!(fits(&[], "whatever"));
        assert!(!fits(&shown(&["took … s"]), "took 1.5 ms"));
        assert!(!fits(&shown(&["a"]), "a\nb\n"));
        assert!(!fits(&shown(&["a", "b"]), "a\n"));
    }
}
