//! The guide for authors: from nothing to a deployed plugin, every step of it, timed.

use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use millstream_docs_tests::guide::Guide;
use millstream_docs_tests::terminal::Terminal;
use millstream_docs_tests::transcript::{self, Step};
use millstream_test_support::wait::{Deadline, step as wait_a_little};
use millstream_test_support::workspace;

/// What the guide calls its plugin: another name than that of the first page, for their components
/// lie in one folder.
const PLUGIN: &str = "loyalty";
const PATIENCE: Duration = Duration::from_secs(60);

/// What differs on this machine: a folder of builds that is kept, and a port that is free.
fn settle_in(terminal: &Terminal) -> Result<()> {
    let folder = terminal.site.path().join(PLUGIN);
    let built = workspace::target_dir().join("docs");
    fs::create_dir_all(&built)?;
    std::os::unix::fs::symlink(&built, folder.join("target"))?;
    let config = folder.join("millstream.toml");
    let text = fs::read_to_string(&config)?;
    ensure!(!text.contains("[admin]"), "two tables [admin]");
    let admin = terminal.site.admin();
    fs::write(config, format!("{text}\n[admin]\nlisten = \"{admin}\"\n"))?;
    Ok(())
}

/// A person types slower than the runtime works; a test does not.
fn type_until_it_fits(terminal: &mut Terminal, step: &Step) -> Result<()> {
    let deadline = Deadline::after(PATIENCE);
    loop {
        match terminal.step(step) {
            Err(_) if !deadline.passed() => wait_a_little(),
            result => return result,
        }
    }
}

fn until_deployed(terminal: &mut Terminal, generation: f64) -> Result<()> {
    let Some(running) = &mut terminal.running else {
        return Ok(());
    };
    running.until_scrape("deploying what was built", PATIENCE, |scrape| {
        scrape.sum("millstream_config_generation", &[]) >= generation
    })
}

/// The figure is of this machine while it does other things; a person on a quiet one is faster at
/// building and slower at typing.
#[test]
#[expect(
    clippy::disallowed_methods,
    reason = "measures a wall-clock time that nothing is decided by"
)]
fn from_nothing_to_a_deployed_plugin() -> Result<()> {
    let guide = Guide::read("plugins/README.md")?;
    let mut terminal = Terminal::new()?;
    let toolchain = fs::read(workspace::root().join("rust-toolchain.toml"))?;
    terminal.site.write("rust-toolchain.toml", &toolchain)?;
    let begun = Instant::now();
    let (mut steps, mut builds) = (0, 0);
    for block in guide.blocks.iter().filter(|block| block.has("minutes")) {
        for step in transcript::steps(&block.text)? {
            let (place, command) = (guide.place(block), step.command.as_str());
            let began = Instant::now();
            let result = match command.starts_with("millstream consume") {
                true => type_until_it_fits(&mut terminal, &step),
                false => terminal.step(&step),
            };
            result.with_context(|| place)?;
            println!("{:6.1} s  {command}", began.elapsed().as_secs_f64());
            steps += 1;
            if command.starts_with("millstream new") {
                settle_in(&terminal)?;
            }
            if command.starts_with("millstream test") {
                builds += 1;
                until_deployed(&mut terminal, f64::from(builds))?;
            }
        }
    }
    println!(
        "{:6.1} s  from nothing to a deployed plugin",
        begun.elapsed().as_secs_f64()
    );
    ensure!(
        steps >= 8 && builds >= 2,
        "only {steps} steps, {builds} builds"
    );
    Ok(())
}
