//! What came of a suite, for a person and for a program.

use std::fmt::Write as _;
use std::path::Path;

use serde_json::{Value, json};

use super::difference;
use super::suite::{CaseReport, Difference, Outcome, Report};

/// Columns that what belongs to a case is set in by.
const INDENT: usize = 4;
/// Differences of a case that are shown; the rest is counted.
const SHOWN: usize = 5;

/// The report as text: each case in a line, and what is wrong with it below.
pub fn text(report: &Report, folder: &Path, color: bool) -> String {
    let mut out = String::new();
    for case in &report.cases {
        push_case(&mut out, case, folder, color);
    }
    out.push_str(&summary(report, color));
    out
}

fn push_case(out: &mut String, case: &CaseReport, folder: &Path, color: bool) {
    let paint = |code: &str, text: &str| paint(color, code, text);
    let name = clean(&case.name);
    let file = paint("2", &folder.join(&case.file).display().to_string());
    let _ = match &case.outcome {
        Outcome::Passed => {
            let events = match case.events {
                1 => "1 event".to_owned(),
                several => format!("{several} events"),
            };
            writeln!(out, "{} {name}  {}", paint("32", "✓"), paint("2", &events))
        }
        Outcome::Updated => writeln!(out, "{} {name}  updated {file}", paint("33", "✎")),
        Outcome::Broken(reason) => {
            let reason = clean(reason);
            writeln!(out, "{} {name}  {file}\n    {reason}", paint("31", "✗"))
        }
        Outcome::Failed(differences) => {
            let _ = writeln!(out, "{} {name}  {file}", paint("31", "✗"));
            for difference in differences.iter().take(SHOWN) {
                push_difference(out, difference, case.events, color);
            }
            match differences.len().checked_sub(SHOWN) {
                None | Some(0) => Ok(()),
                Some(more) => writeln!(out, "    and {more} more"),
            }
        }
    };
}

fn push_difference(out: &mut String, difference: &Difference, events: usize, color: bool) {
    let number = difference.event + 1;
    let place = clean(&difference.place);
    let (expected, legend) = match (difference.way, &difference.expected) {
        (None, Some(expected)) => (expected.as_str(), "- expected  + came out".to_owned()),
        (None, None) => (
            "",
            "nobody has said what is expected; this came out".to_owned(),
        ),
        (Some(way), expected) => (
            expected.as_deref().unwrap_or_default(),
            format!(
                "the answer depends on the batch: - one by one  + {}",
                way.name()
            ),
        ),
    };
    let _ = writeln!(out, "    event {number} of {events}, {place}: {legend}");
    let lines = match expected {
        "" => difference::plain(&difference.actual, INDENT + 2),
        expected => difference::render(expected, &difference.actual, INDENT, color),
    };
    out.push_str(&lines);
    if let Some(reason) = &difference.reason {
        let _ = writeln!(out, "    it says: {}", clean(reason));
    }
}

/// `3 cases: 2 passed, 1 failed in 0.2 s`, and what to do about those that failed.
fn summary(report: &Report, color: bool) -> String {
    let count = |wanted: fn(&Outcome) -> bool| {
        report
            .cases
            .iter()
            .filter(|case| wanted(&case.outcome))
            .count()
    };
    let passed = count(|outcome| matches!(outcome, Outcome::Passed));
    let updated = count(|outcome| matches!(outcome, Outcome::Updated));
    let mut parts = vec![format!("{passed} passed")];
    if updated > 0 {
        parts.push(format!("{updated} updated"));
    }
    if report.failed() > 0 {
        parts.push(paint(color, "31", &format!("{} failed", report.failed())));
    }
    let cases = match report.cases.len() {
        1 => "1 case".to_owned(),
        several => format!("{several} cases"),
    };
    let seconds = report.took.as_secs_f64();
    let mut text = format!("{cases}: {} in {seconds:.1} s\n", parts.join(", "));
    let open = |case: &CaseReport| match &case.outcome {
        Outcome::Failed(found) => found.iter().all(|one| one.way.is_none()),
        _ => false,
    };
    if report.cases.iter().any(open) {
        text.push_str("If what came out is right, `millstream test --update` writes it down.\n");
    }
    text
}

/// The report as JSON; `component` is the file that was run.
pub fn json(report: &Report, component: &Path, folder: &Path) -> Value {
    let cases = report.cases.iter().map(|case| {
        let (result, problem, differences) = match &case.outcome {
            Outcome::Passed => ("passed", None, &[][..]),
            Outcome::Updated => ("updated", None, &[][..]),
            Outcome::Broken(reason) => ("failed", Some(reason), &[][..]),
            Outcome::Failed(differences) => ("failed", None, &differences[..]),
        };
        json!({
            "file": folder.join(&case.file).display().to_string(),
            "name": case.name,
            "events": case.events,
            "result": result,
            "problem": problem,
            "differences": differences.iter().map(json_of).collect::<Vec<_>>(),
        })
    });
    json!({
        "component": component.display().to_string(),
        "digest": report.digest,
        "cases": cases.collect::<Vec<_>>(),
        "failed": report.failed(),
        "seconds": report.took.as_secs_f64(),
    })
}

fn json_of(difference: &Difference) -> Value {
    let answer = |text: &str| serde_json::from_str(text).unwrap_or(Value::Null);
    json!({
        "event": difference.event,
        "place": difference.place,
        "way": difference.way.map(|way| way.name()),
        "expected": difference.expected.as_deref().map(answer),
        "actual": answer(&difference.actual),
        "reason": difference.reason,
    })
}

fn paint(color: bool, code: &str, text: &str) -> String {
    match color {
        true => format!("\x1b[{code}m{text}\x1b[0m"),
        false => text.to_owned(),
    }
}

/// What came from elsewhere, without what would move the cursor.
fn clean(text: &str) -> String {
    let shown = |character: char| match character {
        '\n' => "\n    ".to_owned(),
        other if other.is_control() => other.escape_default().to_string(),
        other => other.to_string(),
    };
    text.trim_end().chars().map(shown).collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::ways::Way;
    use super::*;

    fn report() -> Report {
        let case = |name: &str, outcome| CaseReport {
            file: format!("{name}.json").into(),
            name: name.to_owned(),
            events: 2,
            outcome,
        };
        let difference = |way, expected: Option<&str>| Difference {
            event: 1,
            place: "input/0@1".to_owned(),
            way,
            expected: expected.map(str::to_owned),
            actual: r#"{"failed":"trap"}"#.to_owned(),
            reason: Some("boom\x1b[2J".to_owned()),
        };
        let dropped = Some("\"dropped\"");
        Report {
            digest: "sha256:0".to_owned(),
            cases: vec![
                case("a", Outcome::Passed),
                case("b", Outcome::Failed(vec![difference(None, dropped)])),
                case("c", Outcome::Failed(vec![difference(None, None)])),
                case(
                    "d",
                    Outcome::Failed(vec![difference(Some(Way::Batch), dropped)]),
                ),
                case("e", Outcome::Broken("line 1".to_owned())),
                case("f", Outcome::Updated),
            ],
            took: Duration::from_millis(1_234),
        }
    }

    #[test]
    fn a_person_reads_what_is_wrong_and_what_to_do() {
        let wanted = "\
✓ a  2 events
✗ b  cases/b.json
    event 2 of 2, input/0@1: - expected  + came out
    - \"dropped\"
    + {\"failed\": \"trap\"}
    it says: boom\\u{1b}[2J
✗ c  cases/c.json
    event 2 of 2, input/0@1: nobody has said what is expected; this came out
      {\"failed\": \"trap\"}
    it says: boom\\u{1b}[2J
✗ d  cases/d.json
    event 2 of 2, input/0@1: the answer depends on the batch: - one by one  + in one batch
    - \"dropped\"
    + {\"failed\": \"trap\"}
    it says: boom\\u{1b}[2J
✗ e  cases/e.json
    line 1
✎ f  updated cases/f.json
6 cases: 1 passed, 1 updated, 4 failed in 1.2 s
If what came out is right, `millstream test --update` writes it down.
";
        assert_eq!(text(&report(), Path::new("cases"), false), wanted);
        assert!(text(&report(), Path::new("cases"), true).contains("\x1b[31m✗"));
    }

    #[test]
    fn a_program_reads_the_same() {
        let json = json(&report(), Path::new("p.wasm"), Path::new("cases"));
        assert_eq!(
            (&json["failed"], &json["digest"]),
            (&4.into(), &"sha256:0".into())
        );
        let b = &json["cases"][1];
        assert_eq!(
            (&b["result"], &b["file"]),
            (&"failed".into(), &"cases/b.json".into())
        );
        assert_eq!(b["differences"][0]["actual"]["failed"], "trap");
        assert_eq!(json["cases"][3]["differences"][0]["way"], "in one batch");
        assert_eq!(json["cases"][4]["problem"], "line 1");
    }
}
