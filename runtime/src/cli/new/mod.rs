//! `millstream new NAME`: a plugin project that builds and passes at once.

mod name;
mod sdk;
mod template;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context as _;
use clap::ValueEnum;

use self::sdk::Sdk;
use super::{Context, Failure, OutputFormat, terminal};

#[derive(Debug, clap::Args)]
pub struct Args {
    /// What the plugin is called, or the path of its folder, whose last part is the name
    name: PathBuf,

    /// What it is written in
    #[arg(long, env = "MILLSTREAM_NEW_LANGUAGE", default_value = "rust")]
    language: Language,

    /// The SDK's folder, or a checkout of Millstream [default: the checkout that this binary was
    /// built from, else the release of its version]
    #[arg(long, value_name = "PATH", env = "MILLSTREAM_NEW_SDK")]
    sdk: Option<PathBuf>,
}

/// Languages that there is an SDK for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Language {
    Rust,
}

/// Makes the project's folder and says what to do next.
///
/// # Errors
/// [`Failure::Usage`] for a bad name or SDK; the folder is not empty, or cannot be written.
pub async fn run(args: Args, context: &Context) -> anyhow::Result<ExitCode> {
    let Language::Rust = args.language;
    let making = tokio::task::spawn_blocking(move || make(&args.name, args.sdk.as_deref()));
    let made = making.await.context("making the project panicked")??;
    match context.output {
        OutputFormat::Json => terminal::print_json(&made.json()).await?,
        OutputFormat::Text => terminal::print(&made.text(context.color)).await?,
    }
    Ok(ExitCode::SUCCESS)
}

/// A project that was made.
struct Made {
    name: String,
    folder: PathBuf,
    files: Vec<&'static str>,
    sdk: Sdk,
}

fn make(folder: &Path, sdk: Option<&Path>) -> anyhow::Result<Made> {
    let name = folder.file_name().unwrap_or_default().to_string_lossy();
    name::check(&name).map_err(Failure::Usage)?;
    let sdk = Sdk::choose(sdk)?;
    match fs::read_dir(folder) {
        Ok(mut entries) => anyhow::ensure!(
            entries.next().is_none(),
            "{} is there already and not empty; choose another name, or empty the folder",
            folder.display()
        ),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => {
            return Err(error).with_context(|| format!("cannot make {}", folder.display()));
        }
    }
    let mut files = Vec::new();
    for (path, text) in template::rust(&name, &sdk.dependency()) {
        write(&folder.join(path), text.as_bytes())?;
        files.push(path);
    }
    if let Some(lock) = sdk.lock_file() {
        let lock = fs::read(&lock).with_context(|| format!("cannot read {}", lock.display()))?;
        write(&folder.join("Cargo.lock"), &lock)?;
        files.push("Cargo.lock");
    }
    Ok(Made {
        name: name.into_owned(),
        folder: folder.to_owned(),
        files,
        sdk,
    })
}

fn write(path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    let written = || {
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)?;
        }
        fs::write(path, bytes)
    };
    written().with_context(|| format!("cannot write {}", path.display()))
}

/// What a file is for, in a line.
fn purpose(file: &str) -> &'static str {
    match file {
        "Cargo.toml" => "a component, optimized at link time",
        "Cargo.lock" => "the versions of the checkout",
        "src/lib.rs" => "the plugin, and a unit test",
        "millstream.toml" => "a runtime that runs it",
        "README.md" => "its commands",
        ".gitignore" => "what is built and stored",
        _ => "events, and what is to come of them",
    }
}

/// What is typed next, and what for.
const NEXT: &[(&str, &str)] = &[
    ("millstream test", "builds it and runs its cases"),
    ("millstream dev", "the same at each save"),
    ("millstream run --watch", "runs it, and deploys each build"),
];

impl Made {
    fn text(&self, color: bool) -> String {
        let (bold, dim, plain) = match color {
            true => ("\x1b[1m", "\x1b[2m", "\x1b[0m"),
            false => ("", "", ""),
        };
        let mut out = format!("{bold}{}{plain} is made:\n", self.name);
        for file in &self.files {
            let line = format!("  {file:<24} {dim}{}{plain}", purpose(file));
            out.push_str(line.trim_end());
            out.push('\n');
        }
        out.push_str(&format!("\nNote: {}.\n\nNext:\n", self.sdk.describe()));
        out.push_str(&format!("  cd {}\n", self.folder.display()));
        for (command, purpose) in NEXT {
            out.push_str(&format!("  {command:<24} {dim}{purpose}{plain}\n"));
        }
        out
    }

    fn json(&self) -> serde_json::Value {
        let next = NEXT.iter().map(|(command, _)| *command);
        serde_json::json!({
            "name": self.name,
            "folder": self.folder.display().to_string(),
            "files": self.files,
            "sdk": self.sdk.path().map(|path| path.display().to_string()),
            "sdk_version": match self.sdk {
                Sdk::Release(version) => Some(version),
                _ => None,
            },
            "next": next.collect::<Vec<_>>(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What somebody has written must not be mixed with a template.
    #[test]
    fn a_folder_that_holds_something_is_left_alone() {
        let home = tempfile::tempdir().expect("a folder");
        let folder = home.path().join("orders");
        fs::create_dir(&folder).expect("a folder");
        let made = make(&folder, None).expect("an empty folder is taken");
        assert!(made.files.contains(&"Cargo.lock"));
        fs::write(folder.join("src/lib.rs"), "mine").expect("written");
        let error = make(&folder, None).err().map(|error| error.to_string());
        assert!(error.is_some_and(|text| text.contains("not empty")));
        let kept = fs::read_to_string(folder.join("src/lib.rs")).expect("a file");
        assert_eq!(kept, "mine");
    }

    #[test]
    fn a_bad_name_makes_nothing() {
        let home = tempfile::tempdir().expect("a folder");
        let folder = home.path().join("Orders");
        assert!(make(&folder, None).is_err() && !folder.exists());
        assert!(make(Path::new("."), None).is_err());
    }
}
