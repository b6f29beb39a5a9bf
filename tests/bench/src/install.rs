//! Installs the contenders of others below `target/contenders`, as their folders in
//! `tests/bench/contenders` pin them.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use millstream_test_support::workspace;

/// The sources of a contender.
pub fn sources(name: &str) -> PathBuf {
    workspace::root().join("tests/bench/contenders").join(name)
}

/// What was installed of it.
pub fn installed(name: &str) -> PathBuf {
    workspace::target_dir().join("contenders").join(name)
}

/// Builds a contender into its folder, unless it was built from the same sources before.
/// Processes that ask at the same time wait for one another.
///
/// # Errors
/// `build` fails; it is given the sources and the folder.
pub fn once(name: &str, build: impl FnOnce(&Path, &Path) -> Result<()>) -> Result<()> {
    let (from, to) = (sources(name), installed(name));
    fs::create_dir_all(&to).with_context(|| format!("cannot make {}", to.display()))?;
    let lock = File::create(to.join(".lock")).context("cannot lock a contender")?;
    lock.lock().context("cannot lock a contender")?;
    let mut wanted = String::new();
    read(&from, &mut wanted)?;
    // Written last: what an interrupted installation left behind is installed anew.
    let complete = to.join(".complete");
    if fs::read_to_string(&complete).is_ok_and(|found| found == wanted) {
        return Ok(());
    }
    eprintln!("installing {name} into {}", to.display());
    build(&from, &to)?;
    fs::write(&complete, wanted).context("cannot note that a contender is complete")
}

/// All files of a folder with their names.
fn read(folder: &Path, into: &mut String) -> Result<()> {
    let entries = fs::read_dir(folder).with_context(|| format!("{}", folder.display()))?;
    let mut paths: Vec<PathBuf> = entries
        .map(|entry| Ok(entry?.path()))
        .collect::<Result<_>>()?;
    paths.sort();
    for path in paths {
        if path.is_dir() {
            read(&path, into)?;
        } else {
            let text = fs::read_to_string(&path).with_context(|| format!("{}", path.display()))?;
            into.push_str(&format!("{}\n{text}\n", path.display()));
        }
    }
    Ok(())
}

/// Runs a tool to its end.
///
/// # Errors
/// It is missing (the text says what was wanted of it), or fails.
pub fn tool<S: AsRef<OsStr>>(
    what: &str,
    folder: &Path,
    program: impl AsRef<OsStr>,
    arguments: impl IntoIterator<Item = S>,
) -> Result<()> {
    let name = program.as_ref().to_string_lossy().into_owned();
    let output = Command::new(program)
        .args(arguments)
        .current_dir(folder)
        .output()
        .with_context(|| format!("{what}: no `{name}` that runs"))?;
    ensure!(
        output.status.success(),
        "{what}: `{name}` ended with {}:\n{}{}",
        output.status,
        last(&output.stdout),
        last(&output.stderr)
    );
    Ok(())
}

/// The last lines of what a tool said.
fn last(words: &[u8]) -> String {
    String::from_utf8_lossy(&words[words.len().saturating_sub(2000)..]).into_owned()
}

/// What follows `before` in a source of a contender, up to the end of the line or a `<`.
pub fn pinned(name: &str, file: &str, before: &str) -> String {
    let text = fs::read_to_string(sources(name).join(file)).unwrap_or_default();
    let found = text.split_once(before).map(|(_, rest)| rest);
    let end = |rest: &str| rest.find(['\n', '<', ' ']).unwrap_or(rest.len());
    found.map_or_else(String::new, |rest| rest[..end(rest)].to_owned())
}

/// The first line that a program says of its version, on either output.
pub fn says(program: impl AsRef<OsStr>, argument: &str) -> String {
    let Ok(output) = Command::new(program).arg(argument).output() else {
        return String::new();
    };
    let words = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&words);
    text.lines().next().unwrap_or_default().to_owned()
}

/// The version of Java: `17.0.15` of `openjdk version "17.0.15" 2025-04-15`.
pub fn java() -> String {
    let line = says("java", "-version");
    line.split('"').nth(1).unwrap_or(&line).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_where_they_are_pinned() {
        let of = |name, file, before| pinned(name, file, before);
        for version in [
            of("kafka-streams", "pom.xml", "<kafka.version>"),
            of("python", "requirements.txt", "confluent-kafka=="),
            of("redpanda-connect", "go.mod", "redpanda-data/connect/v4 v"),
        ] {
            assert!(
                version.starts_with(|c: char| c.is_ascii_digit()),
                "{version:?}"
            );
        }
    }

    #[test]
    fn a_tool_that_is_missing_is_named() {
        let nothing: [&str; 0] = [];
        let error = tool("milling", Path::new("."), "no-such-mill", nothing).unwrap_err();
        assert_eq!(error.to_string(), "milling: no `no-such-mill` that runs");
    }
}
