//! Reads the main file and the files that it includes.
//!
//! ```text
//! millstream.toml ─▶ parse ─▶ ${env:…} ─▶ include = [...] ─▶ the same for each file ─▶ Written
//! ```

use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use super::environment::{self, Environment};
use super::problem::{Place, Problem};
use super::redact;
use super::source::Sources;
use super::written::{self, Node, Table, Value};

/// The largest file that is read, in bytes.
const MAX_FILE: u64 = 1 << 20;
/// The most files that one configuration may hold.
const MAX_FILES: usize = 10_000;

/// All files of a configuration as written, references to the environment replaced.
#[derive(Debug, Default)]
pub struct Written {
    pub main: Table,
    /// The `[consumer]` of each included file, in the order of the entries and of file names.
    pub included: Vec<Included>,
    /// The main file was not understood: nothing can be said about what it lacks.
    pub unreadable: bool,
    /// An included file was not understood, so that consumers are missing.
    pub partial: bool,
}

/// A file's `[consumer]`.
#[derive(Debug)]
pub struct Included {
    pub consumer: Table,
    pub place: Place,
}

/// Reads everything.
pub fn read(
    path: &Path,
    environment: &Environment<'_>,
    sources: &mut Sources,
    problems: &mut Vec<Problem>,
) -> Written {
    let Some(main) = read_file(path, None, environment, sources, problems) else {
        return Written {
            unreadable: true,
            ..Written::default()
        };
    };
    let mut written = Written::default();
    for (file, place) in files(path, &main.table, sources, problems) {
        match read_file(&file, Some(&place), environment, sources, problems) {
            Some(parsed) => written.included.extend(consumer(parsed, problems)),
            None => written.partial = true,
        }
    }
    written.main = main.table;
    written
}

struct Parsed {
    file: usize,
    table: Table,
}

fn read_file(
    path: &Path,
    wanted_at: Option<&Place>,
    environment: &Environment<'_>,
    sources: &mut Sources,
    problems: &mut Vec<Problem>,
) -> Option<Parsed> {
    let text = match contents(path) {
        Ok(text) => text,
        Err(cause) => {
            let message = format!("cannot read {}", path.display());
            let problem = Problem::error("file", message).cause(cause);
            problems.push(match wanted_at {
                Some(place) => problem
                    .at(place)
                    .label("named here")
                    .hint("paths are relative to the file that names them"),
                None => problem.hint("name the configuration with --config FILE"),
            });
            return None;
        }
    };
    let file = sources.add(path, text);
    let (mut table, mistakes) = written::parse(file, sources.text(file));
    sources.blank(file, redact::by_tree(&table));
    if !mistakes.is_empty() {
        problems.extend(mistakes);
        return None;
    }
    environment::expand(&mut table, environment, sources, problems);
    Some(Parsed { file, table })
}

fn contents(path: &Path) -> Result<String, String> {
    let file = File::open(path).map_err(|error| error.to_string())?;
    let mut bytes = Vec::new();
    file.take(MAX_FILE + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| error.to_string())?;
    if bytes.len() as u64 > MAX_FILE {
        return Err("the file is larger than 1 MiB".to_owned());
    }
    String::from_utf8(bytes).map_err(|error| {
        let before = &error.as_bytes()[..error.utf8_error().valid_up_to()];
        let line = before.iter().filter(|byte| **byte == b'\n').count() + 1;
        format!("line {line} holds bytes that are not UTF-8")
    })
}

/// The files that `include` names, each once, with the place of the entry that named it.
fn files(
    main: &Path,
    table: &Table,
    sources: &Sources,
    problems: &mut Vec<Problem>,
) -> Vec<(PathBuf, Place)> {
    let mut found: Vec<(PathBuf, Place)> = Vec::new();
    let Some(entry) = table.get("include") else {
        return found;
    };
    let Value::List(nodes) = &entry.node.value else {
        problems.push(
            Problem::error("type", "`include` must be a list of files")
                .at(&entry.node.place)
                .label(format!("this is {}", entry.node.value.kind()))
                .hint("write `include = [\"consumers/*.toml\"]`"),
        );
        return found;
    };
    for node in nodes {
        for file in matching(node, sources, problems) {
            if file != main && !found.iter().any(|(known, _)| *known == file) {
                found.push((file, node.place.clone()));
            }
        }
    }
    if found.len() > MAX_FILES {
        problems.push(
            Problem::error("include", format!("`include` names {} files", found.len()))
                .at(&entry.node.place)
                .label(format!("at most {MAX_FILES} are read")),
        );
        found.truncate(MAX_FILES);
    }
    found
}

fn matching(node: &Node, sources: &Sources, problems: &mut Vec<Problem>) -> Vec<PathBuf> {
    let Value::Text(text) = &node.value else {
        problems.push(
            Problem::error("type", "an entry of `include` must be a string")
                .at(&node.place)
                .label(format!("this is {}", node.value.kind())),
        );
        return Vec::new();
    };
    if text.failed {
        return Vec::new();
    }
    let path = sources.resolve(node.place.file, &text.value);
    let folder = path.parent().map(Path::to_path_buf).unwrap_or_default();
    let Some(name) = path.file_name().and_then(|name| name.to_str()) else {
        problems.push(
            Problem::error("include", "an entry of `include` must name a file")
                .at(&node.place)
                .label("names no file"),
        );
        return Vec::new();
    };
    if folder.to_string_lossy().contains('*') {
        problems.push(
            Problem::error("include", "`*` stands in the name of a folder")
                .at(&node.place)
                .label("only the last part of a path may hold `*`"),
        );
        return Vec::new();
    }
    if !name.contains('*') {
        return vec![path];
    }
    let listed = folder_of(&folder).and_then(|folder| {
        std::fs::read_dir(folder)?
            .take(MAX_FILES * 10)
            .map(|entry| Ok(entry?.file_name()))
            .collect::<std::io::Result<Vec<_>>>()
    });
    let mut names: Vec<String> = match listed {
        Ok(names) => names
            .into_iter()
            .filter_map(|name| name.into_string().ok())
            // As in a shell, hidden files (an editor's, a volume's `..data`) need their dot.
            .filter(|found| found.starts_with('.') == name.starts_with('.'))
            .filter(|found| super::filter::glob(name.as_bytes(), found.as_bytes()))
            .collect(),
        Err(error) => {
            problems.push(
                Problem::error("include", format!("cannot list {}", folder.display()))
                    .at(&node.place)
                    .label("the folder of this pattern")
                    .cause(error.to_string()),
            );
            return Vec::new();
        }
    };
    if names.is_empty() {
        problems.push(
            Problem::warning("include", "no file matches this entry of `include`")
                .at(&node.place)
                .label("matches nothing"),
        );
    }
    // A folder lists its files in any order; the configuration must not depend on it.
    names.sort();
    names.into_iter().map(|name| folder.join(name)).collect()
}

fn folder_of(folder: &Path) -> std::io::Result<&Path> {
    Ok(if folder.as_os_str().is_empty() {
        Path::new(".")
    } else {
        folder
    })
}

/// The one `[consumer]` of an included file.
fn consumer(parsed: Parsed, problems: &mut Vec<Problem>) -> Option<Included> {
    let mut consumer = None;
    for entry in parsed.table.entries() {
        match (&*entry.key, &entry.node.value) {
            ("consumer", Value::Table(table)) => {
                consumer = Some(Included {
                    consumer: table.clone(),
                    place: entry.key_place.clone(),
                });
            }
            ("consumer", _) => {
                problems.push(
                    Problem::error("include", "an included file holds one consumer")
                        .at(&entry.key_place)
                        .label("not a single table")
                        .hint("write `[consumer]`, and one file for each consumer"),
                );
                return None;
            }
            (key, _) => problems.push(
                Problem::error(
                    "include",
                    format!("`{key}` does not belong into an included file"),
                )
                .at(&entry.key_place)
                .label("only `[consumer]` does")
                .hint("move it to the main file"),
            ),
        }
    }
    if consumer.is_none() {
        let place = Place {
            file: parsed.file,
            span: 0..0,
        };
        problems.push(
            Problem::error("include", "an included file holds no consumer")
                .at(&place)
                .label("`[consumer]` is missing"),
        );
    }
    consumer
}
