//! A case file: events, and what is to come of each.
//!
//! ```text
//! {"name": "…",                                      by default the file's name
//!  "config": {…}, "outputs": ["default", …],         by default those of the configuration
//!  "input": [event, …], "expected": [answer, …]}     null where nobody has said it yet
//! ```
//! `failed` says where a case came from, as `dlq show --as-case` writes it, and is not read.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use super::answer::Answer;
use super::event;
use crate::cli::layout;
use crate::json_event::JsonEvent;

/// Bytes that a case file may have.
const MAX_FILE: u64 = 16 << 20;
/// Columns that a line of what is written may have.
const WIDTH: usize = 100;
/// Case files that a folder may hold.
const MAX_FILES: usize = 10_000;

/// A case.
#[derive(Clone, Debug)]
pub struct Case {
    pub name: String,
    /// A JSON object.
    pub config: Option<String>,
    /// Names of outputs.
    pub outputs: Option<Vec<String>>,
    /// Complete: each has topic, partition, offset and timestamp.
    pub input: Vec<JsonEvent>,
    /// By input; `None` where nobody has said it yet.
    pub expected: Vec<Option<Answer>>,
    /// The JSON that says so, by input; empty where nothing does.
    pub written: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written<'a> {
    name: Option<String>,
    #[serde(borrow)]
    config: Option<&'a RawValue>,
    outputs: Option<Vec<String>>,
    #[serde(borrow)]
    input: Vec<&'a RawValue>,
    #[serde(default, rename = "failed")]
    _failed: serde::de::IgnoredAny,
    #[serde(borrow, default, deserialize_with = "present")]
    expected: Option<&'a RawValue>,
}

/// Tells a field that is null from one that is missing.
fn present<'de: 'a, 'a, D: Deserializer<'de>>(from: D) -> Result<Option<&'a RawValue>, D::Error> {
    <&RawValue>::deserialize(from).map(Some)
}

/// The case files of a folder and those below it, by name.
///
/// # Errors
/// The folder cannot be read, or holds too many.
pub fn files(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let (mut folders, mut files) = (vec![folder.to_owned()], Vec::new());
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder)? {
            let entry = entry?;
            let (path, kind) = (entry.path(), entry.file_type()?);
            if kind.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|end| end == "json") {
                files.push(path);
            }
            if files.len() + folders.len() > MAX_FILES {
                return Err(io::Error::other(format!(
                    "more than {MAX_FILES} files and folders"
                )));
            }
        }
    }
    files.sort();
    Ok(files)
}

/// The text of a case file. Blocks.
///
/// # Errors
/// It cannot be read, is no text, or too large.
pub fn read(path: &Path) -> Result<String, String> {
    let size = fs::metadata(path).map_err(|error| error.to_string())?.len();
    if size > MAX_FILE {
        return Err(format!("it has {size} bytes; at most {MAX_FILE} are read"));
    }
    fs::read_to_string(path).map_err(|error| error.to_string())
}

impl Case {
    /// Reads the text of a file; `name` is what it is called where it does not say.
    ///
    /// # Errors
    /// What is wrong with it and where, for a person.
    pub fn parse(text: &str, name: &str) -> Result<Self, String> {
        let written = written(text)?;
        if written.input.is_empty() {
            return Err("`input` is empty: there is no event to run".to_owned());
        }
        let mut input = Vec::new();
        for (index, event) in written.input.iter().enumerate() {
            let event = event::input(event, index);
            input.push(event.map_err(|error| format!("input {}: {error}", index + 1))?);
        }
        if let Some(config) = written.config {
            event::members(config).map_err(|error| format!("config: {error}"))?;
        }
        Ok(Self {
            name: written.name.unwrap_or_else(|| name.to_owned()),
            config: written.config.map(|config| layout::compact(config.get())),
            outputs: written.outputs,
            expected: expected(written.expected, &input)?,
            written: texts(written.expected),
            input,
        })
    }

    /// The text of a case file with these answers (in JSON) as what is expected; nothing else of it
    /// changes.
    ///
    /// # Errors
    /// It is no case.
    pub fn with_expected(text: &str, answers: &[String]) -> Result<String, String> {
        let answers: Vec<_> = answers
            .iter()
            .map(|answer| format!("    {}", layout::lay_out(answer, 4, WIDTH)))
            .collect();
        let answers = format!("[\n{}\n  ]", answers.join(",\n"));
        if let Some(old) = written(text)?.expected {
            // What was borrowed from the text says where it stands in it.
            let begin = old.get().as_ptr().addr() - text.as_ptr().addr();
            let end = begin + old.get().len();
            return Ok(format!("{}{answers}{}", &text[..begin], &text[end..]));
        }
        let Some(end) = text.rfind('}') else {
            return Err("it is no object".to_owned());
        };
        let before = text[..end].trim_end();
        Ok(format!("{before},\n  \"expected\": {answers}\n}}\n"))
    }
}

fn written(text: &str) -> Result<Written<'_>, String> {
    serde_json::from_str(text).map_err(|error| error.to_string())
}

fn texts(written: Option<&RawValue>) -> Vec<String> {
    let list: Option<Vec<&RawValue>> =
        written.and_then(|written| serde_json::from_str(written.get()).ok());
    let list = list.unwrap_or_default().into_iter();
    list.map(|text| text.get().to_owned()).collect()
}

fn expected(
    written: Option<&RawValue>,
    input: &[JsonEvent],
) -> Result<Vec<Option<Answer>>, String> {
    let list: Option<Vec<&RawValue>> = match written {
        Some(written) => serde_json::from_str(written.get())
            .map_err(|_| "`expected` is no list with an answer for each input".to_owned())?,
        None => None,
    };
    let Some(list) = list else {
        return Ok(vec![None; input.len()]);
    };
    if list.len() != input.len() {
        return Err(format!(
            "`input` has {} and `expected` {}; each event needs an answer, which may be null",
            input.len(),
            list.len()
        ));
    }
    let mut answers = Vec::new();
    for (number, (answer, source)) in (1..).zip(list.into_iter().zip(input)) {
        let answer = Answer::read(answer, source);
        answers.push(answer.map_err(|error| format!("expected {number}: {error}"))?);
    }
    Ok(answers)
}

#[cfg(test)]
mod tests {
    use super::*;

    const CASE: &str = "{\n  \"name\": \"n\",\n  \"input\": [{\"value\": \"a\"},   {\"json\": 1}],\n  \
                        \"expected\": [null, \"dropped\"]\n}\n";

    #[test]
    fn what_nobody_has_said_is_told_from_what_was_said() {
        let case = Case::parse(CASE, "file").expect("a case");
        assert_eq!(case.name, "n");
        assert_eq!(case.expected, [None, Some(Answer::Dropped)]);
        assert_eq!(case.written, ["null", "\"dropped\""]);
        for open in [
            r#"{"input":[{"value":"a"}]}"#,
            r#"{"input":[{"value":"a"}],"expected":null}"#,
        ] {
            let case = Case::parse(open, "file").expect("a case");
            assert_eq!(
                (case.name.as_str(), &case.expected[..]),
                ("file", &[None][..])
            );
        }
    }

    /// An author's own layout and order of keys must survive an update.
    #[test]
    fn an_update_changes_what_is_expected_and_nothing_else() {
        let answers = ["\"dropped\"".to_owned(), r#"{"failed":"trap"}"#.to_owned()];
        let updated = Case::with_expected(CASE, &answers).expect("a case");
        let wanted = CASE.replace(
            "[null, \"dropped\"]",
            "[\n    \"dropped\",\n    {\"failed\": \"trap\"}\n  ]",
        );
        assert_eq!(updated, wanted);
        let again = Case::with_expected(&updated, &answers).expect("a case");
        assert_eq!(
            again, updated,
            "an update of what is up to date changes nothing"
        );
        let open = "{\"input\": [{\"value\": \"}\"}]}\n";
        let updated = Case::with_expected(open, &answers[..1]).expect("a case");
        assert!(updated.starts_with("{\"input\": [{\"value\": \"}\"}],\n  \"expected\": ["));
        let case = Case::parse(&updated, "file").expect("a case");
        assert_eq!(case.expected, [Some(Answer::Dropped)]);
    }

    #[test]
    fn mistakes_are_told_with_their_place() {
        for (text, wanted) in [
            ("{\n  \"input\": [}\n", "line 2 column"),
            (r#"{"input":[]}"#, "`input` is empty"),
            (
                r#"{"input":[{"value":"a"}],"expect":[]}"#,
                "unknown field `expect`",
            ),
            (r#"{"input":[{"value":"a"},{}]}"#, "input 2: it has neither"),
            (r#"{"input":[{"value":"a"}],"expected":[]}"#, "`expected` 0"),
            (
                r#"{"input":[{"value":"a"}],"expected":"dropped"}"#,
                "no list",
            ),
            (
                r#"{"input":[{"value":"a"}],"expected":[1]}"#,
                "expected 1: it is",
            ),
            (
                r#"{"input":[{"value":"a"}],"config":[]}"#,
                "config: expected an object",
            ),
        ] {
            let error = Case::parse(text, "file").expect_err(text);
            assert!(error.contains(wanted), "{text}: {error}");
        }
    }

    /// Case files may be sorted into folders; what is no case lies beside them.
    #[test]
    fn files_are_found_in_folders_too() {
        let folder = tempfile::tempdir().expect("a folder");
        for name in ["b.json", "deep/a.json", "README.md"] {
            let path = folder.path().join(name);
            fs::create_dir_all(path.parent().expect("a parent")).expect("a folder");
            fs::write(path, "").expect("written");
        }
        let found = files(folder.path()).expect("files");
        let names: Vec<_> = found
            .iter()
            .filter_map(|path| path.strip_prefix(folder.path()).ok()?.to_str())
            .collect();
        assert_eq!(names, ["b.json", "deep/a.json"]);
    }
}
