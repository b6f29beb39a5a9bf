//! The jars of Apache Kafka, fetched by Maven as `tests/support/kafka/pom.xml` names them.

use std::fs::{self, File};
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

use crate::workspace;

/// The oldest Java that Kafka 4 runs on.
const JAVA: u32 = 17;

/// Fetches the jars unless they are there, and returns their folder. Processes that ask at the same
/// time wait for one another.
///
/// # Errors
/// No Java 17, no Maven, or Maven cannot fetch; the text says what to install.
pub fn fetch() -> Result<PathBuf> {
    let java = java_version().context("Kafka needs Java 17 or later: no `java` that runs")?;
    ensure!(
        java >= JAVA,
        "Kafka needs Java {JAVA} or later; `java` is version {java}"
    );
    let pom = workspace::root().join("tests/support/kafka/pom.xml");
    let wanted = fs::read(&pom).with_context(|| format!("cannot read {}", pom.display()))?;
    let folder = workspace::target_dir().join("kafka-libs");
    fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let lock = File::create(folder.join(".lock")).context("cannot lock the jars of Kafka")?;
    lock.lock().context("cannot lock the jars of Kafka")?;

    // The file is written last: what an interrupted fetch left behind is fetched anew.
    let complete = folder.join(".complete");
    if fs::read(&complete).is_ok_and(|fetched| fetched == wanted) {
        return Ok(folder);
    }
    eprintln!("fetching Apache Kafka by Maven into {}", folder.display());
    let output = Command::new("mvn")
        .args(["-q", "-B", "-f"])
        .arg(&pom)
        .arg("dependency:copy-dependencies")
        .arg("-DincludeScope=runtime")
        .arg(format!("-DoutputDirectory={}", folder.display()))
        .output()
        .context("fetching Kafka needs Maven: no `mvn` that runs")?;
    if !output.status.success() {
        bail!(
            "Maven could not fetch Kafka ({}):\n{}{}",
            output.status,
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
    }
    fs::write(&complete, wanted).context("cannot mark the jars of Kafka as complete")?;
    Ok(folder)
}

/// The major version of `java`.
fn java_version() -> Result<u32> {
    let output = Command::new("java").arg("-version").output()?;
    let text = String::from_utf8_lossy(&output.stderr);
    major(&text).with_context(|| format!("no version in what `java -version` says: {text}"))
}

/// Reads `17` in `openjdk version "17.0.15" 2025-04-15`.
fn major(text: &str) -> Option<u32> {
    let version = text.split('"').nth(1)?;
    let first: u32 = version.split(['.', '-', '+']).next()?.parse().ok()?;
    Some(first)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_old_and_new_are_told_apart() {
        assert_eq!(major("openjdk version \"17.0.15\" 2025-04-15"), Some(17));
        assert_eq!(major("openjdk version \"21\" 2023-09-19"), Some(21));
        assert_eq!(major("java version \"1.8.0_402\""), Some(1));
        assert_eq!(major("openjdk version \"25-ea\" 2025-09-16"), Some(25));
        assert_eq!(major("command not found"), None);
    }
}
