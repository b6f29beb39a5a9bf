//! The files of a configuration, and places in them.

use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};

use super::problem::Place;
use super::redact::Redacted;

/// A file that was read.
pub struct Source {
    /// As the user would name it.
    pub name: String,
    /// Relative paths in the file start here.
    pub folder: PathBuf,
    pub text: String,
    /// The text as it may be shown.
    pub shown: Redacted,
}

impl fmt::Debug for Source {
    /// The text could hold a secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Source").field(&self.name).finish()
    }
}

/// All files that were read, the main one first.
#[derive(Debug, Default)]
pub struct Sources {
    files: Vec<Source>,
}

impl Sources {
    /// Adds a file and answers its index.
    pub fn add(&mut self, path: &Path, text: String) -> usize {
        let folder = path.parent().unwrap_or(Path::new("")).to_path_buf();
        self.files.push(Source {
            name: path.display().to_string(),
            folder,
            shown: Redacted::new(&text, Vec::new()),
            text,
        });
        self.files.len() - 1
    }

    /// Blanks these bytes of a file wherever it is shown.
    pub fn blank(&mut self, file: usize, secret: Vec<Range<usize>>) {
        if let Some(source) = self.files.get_mut(file) {
            source.shown = Redacted::new(&source.text, secret);
        }
    }

    /// The name of a file; empty where there is no such file.
    pub fn name(&self, file: usize) -> &str {
        self.files.get(file).map_or("", |source| &source.name)
    }

    /// The text of a file as it was read.
    pub fn text(&self, file: usize) -> &str {
        self.files.get(file).map_or("", |source| &source.text)
    }

    /// Names and texts of all files, as they may be shown.
    pub fn shown(&self) -> Vec<(String, String)> {
        self.files
            .iter()
            .map(|source| (source.name.clone(), source.shown.text().to_owned()))
            .collect()
    }

    /// Names and texts of all files, in a number: another one where a byte differs.
    pub fn fingerprint(&self) -> u64 {
        let mut hasher = xxhash_rust::xxh3::Xxh3Default::new();
        for part in self.files.iter().flat_map(|file| [&file.name, &file.text]) {
            hasher.update(&part.len().to_le_bytes());
            hasher.update(part.as_bytes());
        }
        hasher.digest()
    }

    /// A path written in a file, as seen from the working folder.
    pub fn resolve(&self, file: usize, path: &str) -> PathBuf {
        self.files
            .get(file)
            .map_or_else(|| PathBuf::from(path), |source| source.folder.join(path))
    }

    /// Line and column of a place's start, both from 1; columns are characters.
    pub fn line_and_column(&self, place: &Place) -> (usize, usize) {
        let text = self.text(place.file);
        let before = text.get(..place.span.start).unwrap_or(text);
        let line = before.matches('\n').count() + 1;
        let start = before.rfind('\n').map_or(0, |newline| newline + 1);
        (line, before[start..].chars().count() + 1)
    }

    /// `FILE:LINE:COLUMN`.
    pub fn describe(&self, place: &Place) -> String {
        let (line, column) = self.line_and_column(place);
        format!("{}:{line}:{column}", self.name(place.file))
    }

    /// The text that may be shown around a place, and the place in it.
    pub fn snippet(&self, place: &Place) -> (String, Range<usize>) {
        self.files.get(place.file).map_or_else(
            || (String::new(), 0..0),
            |source| {
                (
                    source.shown.text().to_owned(),
                    source.shown.map(&place.span),
                )
            },
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An editor jumps to the place: a column in bytes would miss it behind an umlaut.
    #[test]
    fn lines_and_columns_count_from_one_in_characters() {
        let mut sources = Sources::default();
        let file = sources.add(Path::new("a.toml"), "x = 1\nn = [\"ü\", 2]\n".to_owned());
        let two = sources.text(file).find('2').unwrap();
        let place = Place {
            file,
            span: two..two + 1,
        };
        assert_eq!(sources.describe(&place), "a.toml:2:11");
    }
}
