//! What the guides tell to type works, and prints what they show.

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use millstream_docs_tests::guide::{self, Guide};
use millstream_docs_tests::terminal::{Terminal, shown};
use millstream_docs_tests::transcript;
use millstream_test_support::process::{self, Site};
use millstream_test_support::{plugins, workspace};

/// The tour of the first page: its plugin is built from its snippets, configured by its snippet, and
/// does what is shown.
#[test]
fn the_tour_of_the_first_page() -> Result<()> {
    let guide = Guide::read("README.md")?;
    let mut terminal = Terminal::new()?;
    terminal.write_files(&guide)?;
    // What a build leaves is kept between runs; the lock file spares a look at the registry.
    let built = workspace::target_dir().join("docs");
    fs::create_dir_all(&built)?;
    std::os::unix::fs::symlink(&built, terminal.site.path().join("target"))?;
    for name in ["Cargo.lock", "rust-toolchain.toml"] {
        fs::copy(
            workspace::root().join(name),
            terminal.site.path().join(name),
        )?;
    }
    let tour = guide.blocks.iter().filter(|block| block.has("tour"));
    let mut steps = 0;
    for block in tour {
        for step in transcript::steps(&block.text)? {
            let place = guide.place(block);
            terminal.step(&step).with_context(|| place)?;
            steps += 1;
        }
    }
    ensure!(steps >= 5, "only {steps} steps");
    Ok(())
}

/// `make run` without the building: the script that it calls, on a copy with a port of its own.
#[test]
fn the_quickstart_prints_what_the_first_page_shows() -> Result<()> {
    let guide = Guide::read("README.md")?;
    let block = guide.blocks.iter().find(|block| block.has("quickstart"));
    let block = block.context("README.md shows no quickstart")?;
    let steps = transcript::steps(&block.text)?;
    let step = steps.iter().find(|step| step.command == "make run");
    let step = step.context("the quickstart is `make run`")?;
    let makefile = fs::read_to_string(workspace::root().join("Makefile"))?;
    ensure!(
        makefile.contains("bash config/quickstart.sh"),
        "`make run` calls another script"
    );

    let terminal = Terminal::new()?;
    let root = workspace::root();
    let copy = |name: &str| -> Result<()> {
        let content = fs::read(root.join(name)).context(name.to_owned())?;
        terminal.site.write(name, &content).map(drop)
    };
    copy("config/quickstart.sh")?;
    copy("plugins/enrich/data/online-retail-sample.jsonl")?;
    let config = fs::read_to_string(root.join("config/quickstart.toml"))?;
    ensure!(!config.contains("[admin]"), "two tables [admin]");
    let config = format!(
        "{config}\n[admin]\nlisten = \"{}\"\n",
        terminal.site.admin()
    );
    terminal
        .site
        .write("config/quickstart.toml", config.as_bytes())?;
    for name in ["enrich", "alerts"] {
        let component = fs::read(plugins::component(name)?)?;
        let place = format!("target/wasm32-wasip2/plugin/{name}.wasm");
        terminal.site.write(&place, &component)?;
    }
    let binary = process::binary()?;
    let line = format!(
        "MILLSTREAM_BIN='{}' bash config/quickstart.sh",
        binary.display()
    );
    // The second start finds what the first one left.
    terminal.shell(&line)?;
    shown(step, &terminal.shell(&line)?)
}

/// Consoles that are no tour show commands of make, cargo and their like: what they name exists.
#[test]
fn shown_and_mentioned_commands_exist() -> Result<()> {
    let targets = make_targets()?;
    let packages = packages()?;
    let mut seen = BTreeSet::new();
    for guide in guide::all()? {
        let mut commands = guide.inline_code();
        for block in &guide.blocks {
            let lines = match block.language() {
                "console" => transcript::steps(&block.text)?
                    .into_iter()
                    .map(|step| step.command)
                    .collect(),
                "sh" => block.text.lines().map(str::to_owned).collect(),
                _ => Vec::new(),
            };
            commands.extend(lines.into_iter().map(|line| (block.line, line)));
        }
        for (line, command) in commands {
            let place = format!("{}:{line}: {command}", guide.name);
            let words = command
                .split_whitespace()
                .skip_while(|word| is_assignment(word));
            let words: Vec<&str> = words.collect();
            match words.as_slice() {
                ["make", target, ..] if !target.contains('=') => {
                    ensure!(targets.contains(*target), "{place}: no such target");
                }
                ["cargo", ..] => {
                    let named = words.windows(2).filter(|pair| pair[0] == "-p");
                    for pair in named {
                        ensure!(packages.contains(pair[1]), "{place}: no such package");
                    }
                }
                ["millstream", rest @ ..] => {
                    seen.insert(subcommand(rest));
                }
                _ => {}
            }
        }
    }
    let site = Site::new()?;
    for command in seen {
        let mut arguments: Vec<&str> = command.split_whitespace().collect();
        arguments.push("--help");
        site.succeed(&arguments)?;
    }
    Ok(())
}

fn is_assignment(word: &str) -> bool {
    word.split_once('=')
        .is_some_and(|(name, _)| name.chars().all(|c| c.is_ascii_uppercase() || c == '_'))
}

/// The words that choose a command: at most two, and none that stands for a value.
fn subcommand(words: &[&str]) -> String {
    let nested = ["config", "dlq", "plugin", "topics"];
    let plain = |word: &&str| word.chars().all(|c| c.is_ascii_lowercase());
    let first = words.first().copied().filter(|word| plain(word));
    let second = words.get(1).copied().filter(|word| plain(word));
    match (first, second) {
        (Some(first), Some(second)) if nested.contains(&first) => format!("{first} {second}"),
        (Some(first), _) => first.to_owned(),
        _ => String::new(),
    }
}

fn make_targets() -> Result<BTreeSet<String>> {
    let makefile = fs::read_to_string(workspace::root().join("Makefile"))?;
    let targets = makefile.lines().filter_map(|line| line.split_once(':'));
    Ok(targets
        .filter(|(name, _)| name.chars().all(|c| c.is_ascii_lowercase()))
        .map(|(name, _)| name.to_owned())
        .collect())
}

fn packages() -> Result<BTreeSet<String>> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args([
            "tree",
            "--workspace",
            "--depth",
            "0",
            "--prefix",
            "none",
            "--offline",
        ])
        .current_dir(workspace::root())
        .output()?;
    ensure!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let names = text
        .lines()
        .filter_map(|line| line.split_whitespace().next());
    Ok(names.map(str::to_owned).collect())
}

/// The rule that this file keeps others to.
#[test]
fn a_command_is_found_in_what_is_typed() {
    assert_eq!(subcommand(&["topics", "create", "NAME"]), "topics create");
    assert_eq!(subcommand(&["produce", "orders", "--file"]), "produce");
    assert_eq!(subcommand(&["--version"]), "");
}
