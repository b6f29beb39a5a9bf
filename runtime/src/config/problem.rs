//! What is wrong with a configuration, and where, as a person or a program wants to read it.

use std::fmt::{self, Write as _};
use std::ops::Range;
use std::sync::Arc;

use miette::{
    Diagnostic, GraphicalReportHandler, GraphicalTheme, LabeledSpan, NamedSource, SourceCode,
};

use super::source::Sources;

/// More problems than anybody reads come from a file that is no configuration; drawing a snippet
/// for each would take minutes.
const MAX_SHOWN: usize = 500;

/// Bytes of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// Index into the sources.
    pub(super) file: usize,
    pub(super) span: Range<usize>,
}

/// Whether a problem stops the runtime.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    Error,
    /// Allowed, and probably not meant.
    Warning,
}

/// One thing that is wrong.
///
/// No text of a problem may hold a value that could be a secret; the snippet is blanked by
/// [`super::redact`].
#[derive(Clone, Debug)]
pub struct Problem {
    severity: Severity,
    code: &'static str,
    message: String,
    place: Option<Place>,
    label: Option<String>,
    cause: Option<String>,
    hint: Option<String>,
}

impl Problem {
    /// Something that stops the runtime. `code` is stable, for programs; `message` says what is
    /// wrong in one line without a full stop.
    pub fn error(code: &'static str, message: impl Into<String>) -> Self {
        Self {
            severity: Severity::Error,
            code,
            message: message.into(),
            place: None,
            label: None,
            cause: None,
            hint: None,
        }
    }

    /// Something allowed that is probably not meant.
    pub fn warning(code: &'static str, message: impl Into<String>) -> Self {
        Self {
            severity: Severity::Warning,
            ..Self::error(code, message)
        }
    }

    /// Where it is.
    #[must_use]
    pub fn at(mut self, place: &Place) -> Self {
        self.place = Some(place.clone());
        self
    }

    /// What stands under the marked text.
    #[must_use]
    pub fn label(mut self, label: impl Into<String>) -> Self {
        self.label = Some(label.into());
        self
    }

    /// Why it is wrong.
    #[must_use]
    pub fn cause(mut self, cause: impl Into<String>) -> Self {
        self.cause = Some(cause.into());
        self
    }

    /// What to do about it.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// The stable name of this kind of problem.
    pub fn code(&self) -> &'static str {
        self.code
    }

    /// Whether it stops the runtime.
    pub fn severity(&self) -> Severity {
        self.severity
    }

    /// What is wrong, in one line.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// For programs and tests that look for one kind.
    pub fn is_error(&self) -> bool {
        self.severity == Severity::Error
    }
}

/// Problems in the order of the files, with the text that they point into.
#[derive(Clone, Debug)]
pub struct Problems {
    sources: Arc<Sources>,
    items: Vec<Problem>,
}

impl Problems {
    pub(super) fn new(sources: Arc<Sources>, mut items: Vec<Problem>) -> Self {
        items.sort_by_key(|problem| {
            problem
                .place
                .as_ref()
                .map_or((0, 0), |place| (place.file, place.span.start))
        });
        if items.len() > MAX_SHOWN {
            let rest = items.split_off(MAX_SHOWN);
            let errors = rest.iter().filter(|problem| problem.is_error()).count();
            let message = format!("{} more problems are not shown", rest.len());
            items.push(match errors {
                0 => Problem::warning("more", message),
                _ => Problem::error("more", message),
            });
        }
        Self { sources, items }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// How many.
    pub fn len(&self) -> usize {
        self.items.len()
    }

    /// All of them, in the order of the files.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &Problem> {
        self.items.iter()
    }

    /// How many stop the runtime.
    pub fn errors(&self) -> usize {
        self.items
            .iter()
            .filter(|problem| problem.is_error())
            .count()
    }

    /// `2 errors, 1 warning`.
    pub fn count(&self) -> String {
        let plural = |count: usize, what: &str| match count {
            0 => None,
            1 => Some(format!("1 {what}")),
            _ => Some(format!("{count} {what}s")),
        };
        let errors = self.errors();
        let counts = [
            plural(errors, "error"),
            plural(self.len() - errors, "warning"),
        ];
        counts.into_iter().flatten().collect::<Vec<_>>().join(", ")
    }

    /// Adds a problem found later, such as one in a plugin's component.
    pub fn push(&mut self, problem: Problem) {
        self.items.push(problem);
        *self = Self::new(self.sources.clone(), std::mem::take(&mut self.items));
    }

    /// Takes out all problems of this code.
    pub(super) fn remove(&mut self, code: &str) {
        self.items.retain(|problem| problem.code != code);
    }

    /// Text for a person, each problem with its snippet; with colours if asked.
    pub fn render(&self, color: bool) -> String {
        let theme = if color {
            GraphicalTheme::unicode()
        } else {
            GraphicalTheme::unicode_nocolor()
        };
        let handler = GraphicalReportHandler::new_themed(theme)
            .with_width(100)
            .with_links(false)
            // A place that is cut in two could not be followed.
            .with_wrap_lines(false)
            .with_context_lines(1)
            .without_primary_span_start()
            .without_syntax_highlighting();
        let mut text = String::new();
        for problem in &self.items {
            let report = self.report(problem);
            if handler.render_report(&mut text, &report).is_err() {
                // Formatting into a string fails only if the renderer itself does; the message
                // must reach the user even so.
                let _ = writeln!(text, "{report}");
            }
            text.push('\n');
        }
        text
    }

    /// One object a problem: `severity`, `code`, `message`, and where known `file`, `line`,
    /// `column`, `label`, `cause`, `hint`.
    pub fn to_json(&self) -> serde_json::Value {
        self.items
            .iter()
            .map(|problem| {
                let mut object = serde_json::Map::new();
                let severity = match problem.severity {
                    Severity::Error => "error",
                    Severity::Warning => "warning",
                };
                object.insert("severity".into(), severity.into());
                object.insert("code".into(), problem.code.into());
                object.insert("message".into(), problem.message.clone().into());
                if let Some(place) = &problem.place {
                    let (line, column) = self.sources.line_and_column(place);
                    object.insert("file".into(), self.sources.name(place.file).into());
                    object.insert("line".into(), line.into());
                    object.insert("column".into(), column.into());
                }
                for (name, text) in [
                    ("label", &problem.label),
                    ("cause", &problem.cause),
                    ("hint", &problem.hint),
                ] {
                    if let Some(text) = text {
                        object.insert(name.into(), text.clone().into());
                    }
                }
                serde_json::Value::Object(object)
            })
            .collect()
    }

    fn report<'a>(&'a self, problem: &'a Problem) -> Report<'a> {
        let snippet = problem.place.as_ref().map(|place| {
            let (text, span) = self.sources.snippet(place);
            let named = NamedSource::new(self.sources.describe(place), text);
            (named, span)
        });
        Report {
            problem,
            cause: problem.cause.clone().map(Cause),
            snippet,
        }
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.render(false).trim_end())
    }
}

impl std::error::Error for Problems {}

/// A problem in the form that miette renders.
#[derive(Debug)]
struct Report<'a> {
    problem: &'a Problem,
    cause: Option<Cause>,
    snippet: Option<(NamedSource<String>, Range<usize>)>,
}

#[derive(Debug)]
struct Cause(String);

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Cause {}

impl fmt::Display for Report<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.problem.message)
    }
}

impl std::error::Error for Report<'_> {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.cause.as_ref().map(|cause| cause as _)
    }
}

impl Diagnostic for Report<'_> {
    fn severity(&self) -> Option<miette::Severity> {
        Some(match self.problem.severity {
            Severity::Error => miette::Severity::Error,
            Severity::Warning => miette::Severity::Warning,
        })
    }

    fn help<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        let hint = self.problem.hint.as_ref()?;
        Some(Box::new(hint))
    }

    fn source_code(&self) -> Option<&dyn SourceCode> {
        self.snippet.as_ref().map(|(source, _)| source as _)
    }

    fn labels(&self) -> Option<Box<dyn Iterator<Item = LabeledSpan> + '_>> {
        let (_, span) = self.snippet.as_ref()?;
        let label = LabeledSpan::new_primary_with_span(self.problem.label.clone(), span.clone());
        Some(Box::new(std::iter::once(label)))
    }
}
