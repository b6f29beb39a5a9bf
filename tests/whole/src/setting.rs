//! A folder with a configuration for the embedded broker, and how it is filled.

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use millstream_test_support::process::{Finished, Running, Site, binary};
use millstream_test_support::wait::{Deadline, step};
use millstream_test_support::{plugins, workspace};

/// The embedded broker in `data`, and a compile cache that all tests share.
///
/// # Errors
/// None of note: the text is made in memory.
pub fn head(site: &Site) -> String {
    let cache = workspace::target_dir().join("whole-cache");
    format!(
        "[broker]\nkind = \"embedded\"\ndata_dir = \"data\"\nmin_free_disk = \"64MiB\"\n\n\
         [runtime]\ncache_dir = {:?}\n\n[admin]\nlisten = \"{}\"\n",
        cache.display().to_string(),
        site.admin()
    )
}

/// A site with [`head`] and this text as its configuration.
///
/// # Errors
/// The binary does not compile, or no folder is to be had.
pub fn site(consumers: &str) -> Result<Site> {
    let site = Site::new()?;
    site.configure(&format!("{}\n{consumers}", head(&site)))?;
    Ok(site)
}

/// The plugin that does what the value of its event says.
///
/// # Errors
/// It does not compile.
pub fn hostile() -> Result<PathBuf> {
    plugins::component("hostile")
}

/// `[topics.NAME]` with this many partitions.
pub fn topic(name: &str, partitions: u32) -> String {
    format!("[topics.{name}]\npartitions = {partitions}\n\n")
}

/// A `[[consumer]]` that runs the hostile plugin on `source`, from the beginning, with limits that a
/// test can wait for. Its output is `derived`. `more` is further TOML of the consumer.
///
/// # Errors
/// The plugin does not compile.
pub fn hostile_consumer(name: &str, source: &str, more: &str) -> Result<String> {
    let mut text = String::new();
    write!(
        text,
        "[[consumer]]\nname = \"{name}\"\nplugin = {:?}\ntopics = [\"{source}\"]\n\
         start = \"beginning\"\noutputs = {{ default = \"derived\" }}\n{more}\n",
        hostile()?.display().to_string()
    )?;
    Ok(text)
}

/// The shop's pipeline: order-lines ─▶ enrich ─▶ orders ─▶ alerts ─▶ order-alerts.
///
/// # Errors
/// A plugin does not compile.
pub fn shop() -> Result<String> {
    let component =
        |name: &str| -> Result<String> { Ok(plugins::component(name)?.display().to_string()) };
    Ok(format!(
        "[[consumer]]\nname = \"enrich\"\nplugin = {:?}\ntopics = [\"order-lines\"]\n\
         start = \"beginning\"\nconfig = {{ currency = \"GBP\", alert_above = 10000 }}\n\
         outputs = {{ default = \"orders\", alerts = \"large-orders\" }}\n\
         dead_letter = {{ topic = \"order-lines.dlq\" }}\n\n\
         [[consumer]]\nname = \"alerts\"\nplugin = {:?}\ntopics = [\"orders\"]\n\
         start = \"beginning\"\noutputs = {{ default = \"order-alerts\" }}\n",
        component("enrich")?,
        component("alerts")?,
    ))
}

/// Runs a command with this text as its standard input.
///
/// # Errors
/// It cannot be started or does not take the text. An exit code that is not zero is no error here.
pub fn command_with_input(site: &Site, arguments: &[&str], input: &str) -> Result<Finished> {
    let mut child = Command::new(binary()?)
        .args(arguments)
        .current_dir(site.path())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .context("cannot start millstream")?;
    let mut stdin = child.stdin.take().context("no standard input")?;
    let text = input.as_bytes().to_vec();
    // On a thread of its own: a command that fails early does not read to the end.
    let writer = std::thread::spawn(move || stdin.write_all(&text));
    let output = child.wait_with_output()?;
    let _ = writer.join();
    Ok(Finished {
        status: output.status,
        stdout: String::from_utf8(output.stdout)?,
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    })
}

/// Runs a command that must end with this code, and say why on standard error.
///
/// # Errors
/// It ends otherwise, or says nothing.
pub fn fail(site: &Site, code: i32, arguments: &[&str]) -> Result<Finished> {
    let finished = command_with_input(site, arguments, "")?;
    ensure!(
        finished.status.code() == Some(code) && !finished.stderr.trim().is_empty(),
        "{arguments:?} must fail with {code} and say why: {finished:?}"
    );
    Ok(finished)
}

/// Produces lines of `KEY<tab>VALUE` with further arguments.
///
/// # Errors
/// `produce` fails.
pub fn produce(site: &Site, topic: &str, lines: &str, more: &[&str]) -> Result<()> {
    let file = site.write(&format!("input-{topic}.txt"), lines.as_bytes())?;
    let file = file.to_str().context("a path that is not UTF-8")?;
    let mut arguments = vec!["produce", topic, "--file", file, "--key-separator", "\t"];
    arguments.extend(more);
    site.succeed(&arguments).map(drop)
}

/// Runs until everything is processed.
///
/// # Errors
/// It does not come to that within five minutes.
pub fn until_idle(site: &Site) -> Result<()> {
    let mut running = site.start(&["--until-idle", "--idle-timeout", "60s"])?;
    running.succeed(Duration::from_secs(300))
}

/// Waits until a running runtime has processed what was produced before, by the positions and ends
/// that the broker names: gauges may be a quarter of a second old, from before the last event.
///
/// # Errors
/// The runtime ended, or the deadline passed; its log is in the text.
pub fn until_no_lag(site: &Site, running: &mut Running, within: Duration) -> Result<()> {
    let deadline = Deadline::after(within);
    while let Err(error) = check_no_lag(site) {
        ensure!(
            running.running() && !deadline.passed(),
            "{error:#}\n{}",
            running.logs()
        );
        step();
    }
    Ok(())
}

/// Checks that every partition of every consumer has lag zero.
///
/// # Errors
/// `lag` fails, or names a partition that is behind.
pub fn check_no_lag(site: &Site) -> Result<()> {
    let rows: serde_json::Value = serde_json::from_str(&site.succeed(&["lag", "--json"])?)?;
    let rows = rows.as_array().context("lag is no list")?;
    ensure!(!rows.is_empty(), "no consumer reads anything");
    for row in rows {
        ensure!(row["lag"] == 0, "behind: {row}");
    }
    Ok(())
}
