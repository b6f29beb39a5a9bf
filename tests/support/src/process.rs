//! The built runtime as a process: its folder, its configuration, its commands, its logs.
//!
//! ```text
//! Site (folder, millstream.toml, admin port) ──▶ start ──▶ Running (kill9, terminate, scrape, logs)
//!                                            ──▶ command ──▶ Finished (code, stdout, stderr)
//! ```

use std::ffi::{OsStr, OsString};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::sync::OnceLock;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail, ensure};
use tempfile::TempDir;

use crate::guard::{Guarded, Plan};
use crate::metrics::Scrape;
use crate::ports::free_port;
use crate::wait::{Deadline, step};
use crate::workspace;

/// Names the binary to test, where it was built already.
pub const BINARY: &str = "MILLSTREAM_BIN";

/// The runtime's binary: the one that [`BINARY`] names, else a debug build made once.
///
/// # Errors
/// It does not compile; cargo's words are in the text.
pub fn binary() -> Result<PathBuf> {
    static BUILT: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    BUILT
        .get_or_init(|| find_binary().map_err(|error| format!("{error:#}")))
        .clone()
        .map_err(|error| anyhow!(error))
}

fn find_binary() -> Result<PathBuf> {
    if let Some(path) = std::env::var_os(BINARY) {
        let path = workspace::root().join(path);
        ensure!(
            path.is_file(),
            "{BINARY} names {}, which is not there",
            path.display()
        );
        return Ok(path);
    }
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    // The whole workspace: another set of packages would give dependencies other features, and
    // build them a second time.
    let output = Command::new(cargo)
        .args(["build", "--quiet", "--workspace", "--bin", "millstream"])
        .current_dir(workspace::root())
        .output()
        .context("cannot start cargo")?;
    ensure!(
        output.status.success(),
        "the runtime does not compile:\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(workspace::target_dir().join("debug/millstream"))
}

/// A folder in which a runtime lives: `millstream.toml`, its data and its logs. Removed on drop.
#[derive(Debug)]
pub struct Site {
    folder: TempDir,
    binary: PathBuf,
    admin: u16,
    environment: Vec<(String, OsString)>,
}

impl Site {
    /// An empty folder and a free port for `[admin] listen`.
    ///
    /// # Errors
    /// The binary does not compile, or no folder or port is to be had.
    pub fn new() -> Result<Self> {
        Self::with_binary(binary()?)
    }

    /// The same for a binary of one's own, such as a release build.
    ///
    /// # Errors
    /// No folder or port is to be had.
    pub fn with_binary(binary: PathBuf) -> Result<Self> {
        Ok(Self {
            folder: tempfile::Builder::new()
                .prefix("millstream-site-")
                .tempdir()
                .context("cannot make a folder for the runtime")?,
            binary,
            admin: free_port()?,
            environment: Vec::new(),
        })
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// `host:port` to write into `[admin] listen`.
    pub fn admin(&self) -> String {
        format!("127.0.0.1:{}", self.admin)
    }

    /// Sets a variable for all that is started from here on.
    pub fn set(&mut self, name: &str, value: impl Into<OsString>) {
        self.environment.push((name.to_owned(), value.into()));
    }

    /// Puts `millstream.toml` in place as a whole: a runtime that reads it meanwhile finds the old or
    /// the new one. `[admin] listen` is the caller's to write, from [`Site::admin`].
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn configure(&self, text: &str) -> Result<()> {
        let draft = self.write("millstream.toml.draft", text.as_bytes())?;
        fs::rename(draft, self.path().join("millstream.toml")).context("cannot be put in place")
    }

    /// Writes a file of the folder and returns its path.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn write(&self, name: &str, content: &[u8]) -> Result<PathBuf> {
        let path = self.path().join(name);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)?;
        }
        fs::write(&path, content).with_context(|| format!("cannot write {}", path.display()))?;
        Ok(path)
    }

    /// Starts `millstream run millstream.toml` with further arguments.
    ///
    /// # Errors
    /// The process cannot be started.
    pub fn start(&self, arguments: &[&str]) -> Result<Running> {
        let mut all = vec!["run", "millstream.toml"];
        all.extend(arguments);
        self.launch(&all)
    }

    /// Starts any command of the binary that goes on until it is stopped.
    ///
    /// # Errors
    /// The process cannot be started.
    pub fn launch(&self, arguments: &[&str]) -> Result<Running> {
        let process = self.guarded(arguments, &self.stdout(), &self.log())?;
        Ok(Running {
            process,
            admin: self.admin(),
            log: self.log(),
            stdout: self.stdout(),
        })
    }

    /// Runs a command of the binary to its end, with the site's folder as the current one.
    ///
    /// # Errors
    /// It cannot be started or does not end within two minutes (it is killed then). An exit code
    /// that is not zero is no error here.
    pub fn command(&self, arguments: &[&str]) -> Result<Finished> {
        self.command_within(Duration::from_secs(120), arguments)
    }

    /// As [`Site::command`], for one that may take longer, such as a build.
    ///
    /// # Errors
    /// It cannot be started or does not end in time (it is killed then).
    pub fn command_within(&self, within: Duration, arguments: &[&str]) -> Result<Finished> {
        let output = tempfile::tempdir().context("cannot make a folder for output")?;
        let (stdout, stderr) = (output.path().join("stdout"), output.path().join("stderr"));
        let mut process = self.guarded(arguments, &stdout, &stderr)?;
        let status = process
            .wait(within)
            .with_context(|| format!("millstream {}: {}", arguments.join(" "), text_of(&stderr)))?;
        Ok(Finished {
            status,
            stdout: text_of(&stdout),
            stderr: text_of(&stderr),
        })
    }

    /// As [`Site::command`], and returns standard output.
    ///
    /// # Errors
    /// As there, and an exit code that is not zero.
    pub fn succeed(&self, arguments: &[&str]) -> Result<String> {
        let finished = self.command(arguments)?;
        ensure!(
            finished.status.success(),
            "millstream {} ended with {}:\n{}",
            arguments.join(" "),
            finished.status,
            finished.stderr
        );
        Ok(finished.stdout)
    }

    fn guarded(&self, arguments: &[&str], stdout: &Path, stderr: &Path) -> Result<Guarded> {
        Guarded::start(&Plan {
            program: self.binary.as_os_str(),
            arguments: arguments.iter().map(OsString::from).collect(),
            environment: self.environment.clone(),
            folder: self.path(),
            stdout: Some(stdout),
            stderr: Some(stderr),
            remove: Some(self.path()),
        })
    }

    fn log(&self) -> PathBuf {
        self.path().join("log.txt")
    }

    fn stdout(&self) -> PathBuf {
        self.path().join("stdout.txt")
    }
}

/// A command that ended.
#[derive(Clone, Debug)]
pub struct Finished {
    pub status: ExitStatus,
    pub stdout: String,
    pub stderr: String,
}

/// A runtime that runs. Dropping it kills it.
#[derive(Debug)]
pub struct Running {
    process: Guarded,
    admin: String,
    log: PathBuf,
    stdout: PathBuf,
}

impl Running {
    /// The process id.
    pub fn id(&self) -> u32 {
        self.process.id()
    }

    /// Whether it still runs.
    pub fn running(&mut self) -> bool {
        self.process.running()
    }

    /// SIGKILL, as a crash.
    ///
    /// # Errors
    /// The process is stuck in the kernel.
    pub fn kill9(&mut self) -> Result<()> {
        self.process.kill9()
    }

    /// SIGTERM: it drains and ends.
    ///
    /// # Errors
    /// The signal could not be sent.
    pub fn terminate(&mut self) -> Result<()> {
        self.process.terminate()
    }

    /// SIGINT, as Ctrl-C sends it.
    ///
    /// # Errors
    /// The signal could not be sent.
    pub fn interrupt(&mut self) -> Result<()> {
        self.process.signal(libc::SIGINT)
    }

    /// SIGHUP: it reads its configuration again.
    ///
    /// # Errors
    /// The signal could not be sent.
    pub fn hang_up(&mut self) -> Result<()> {
        self.process.signal(libc::SIGHUP)
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// It did not end in time; its log is in the text.
    pub fn wait(&mut self, within: Duration) -> Result<ExitStatus> {
        self.process.wait(within).with_context(|| self.logs())
    }

    /// Waits for an end with exit code 0.
    ///
    /// # Errors
    /// It did not end in time, or otherwise; its log is in the text.
    pub fn succeed(&mut self, within: Duration) -> Result<()> {
        let status = self.wait(within)?;
        ensure!(
            status.success(),
            "the runtime ended with {status}:\n{}",
            self.logs()
        );
        Ok(())
    }

    /// The process itself, for what it has used.
    pub fn process(&mut self) -> &mut Guarded {
        &mut self.process
    }

    /// Memory resident now, in bytes.
    ///
    /// # Errors
    /// The process has ended.
    pub fn resident(&self) -> Result<u64> {
        self.process.resident().context("the runtime has ended")
    }

    /// The most memory that was resident at once so far, in bytes.
    ///
    /// # Errors
    /// The process has ended.
    pub fn peak_resident(&self) -> Result<u64> {
        self.process.high_water().context("the runtime has ended")
    }

    /// What it has logged so far.
    pub fn logs(&self) -> String {
        text_of(&self.log)
    }

    /// What it has written to standard output so far.
    pub fn stdout(&self) -> String {
        text_of(&self.stdout)
    }

    /// The answer to `GET path`: status and body. Any status is an answer.
    ///
    /// # Errors
    /// Nothing answers within ten seconds.
    pub fn get(&self, path: &str) -> Result<(u16, String)> {
        get(&self.admin, path)
    }

    /// Posts JSON lines to `path`, and returns status and body. Any status is an answer.
    ///
    /// # Errors
    /// Nothing answers within thirty seconds: whether the lines were taken is not known.
    pub fn post_lines(&self, path: &str, lines: &str) -> Result<(u16, String)> {
        post_lines(&self.admin, path, lines)
    }

    /// One scrape.
    ///
    /// # Errors
    /// Nothing answers, or what answers is no scrape.
    pub fn scrape(&self) -> Result<Scrape> {
        let (status, body) = self.get("/metrics")?;
        ensure!(status == 200, "/metrics answers {status}: {body}");
        Scrape::parse(&body)
    }

    /// Waits until `/readyz` says yes.
    ///
    /// # Errors
    /// The runtime ended, or is not ready in time; its log is in the text.
    pub fn until_ready(&mut self, within: Duration) -> Result<()> {
        self.until("ready", within, |runtime| {
            matches!(runtime.get("/readyz"), Ok((200, _)))
        })
    }

    /// Waits until a scrape shows what `condition` looks for.
    ///
    /// # Errors
    /// The runtime ended, or the deadline passed; its log is in the text.
    pub fn until_scrape(
        &mut self,
        what: &str,
        within: Duration,
        mut condition: impl FnMut(&Scrape) -> bool,
    ) -> Result<()> {
        self.until(what, within, |runtime| {
            runtime.scrape().is_ok_and(|scrape| condition(&scrape))
        })
    }

    fn until(
        &mut self,
        what: &str,
        within: Duration,
        mut condition: impl FnMut(&Self) -> bool,
    ) -> Result<()> {
        let deadline = Deadline::after(within);
        while !condition(self) {
            if let Some(status) = self.process.poll()? {
                bail!(
                    "the runtime ended with {status}, not {what}:\n{}",
                    self.logs()
                );
            }
            if deadline.passed() {
                bail!(
                    "the runtime is not {what} within {within:?}:\n{}",
                    self.logs()
                );
            }
            step();
        }
        Ok(())
    }
}

/// The answer to `GET http://{admin}{path}`, whoever answers there: status and body. Any status is
/// an answer.
///
/// # Errors
/// Nothing answers within ten seconds.
pub fn get(admin: &str, path: &str) -> Result<(u16, String)> {
    let url = format!("http://{admin}{path}");
    let agent = ureq::Agent::new_with_config(
        ureq::Agent::config_builder()
            .http_status_as_error(false)
            .timeout_global(Some(Duration::from_secs(10)))
            .build(),
    );
    let mut answer = agent.get(&url).call().with_context(|| url.clone())?;
    let body = answer.body_mut().read_to_string().context(url)?;
    Ok((answer.status().as_u16(), body))
}

/// Posts JSON lines to `http://{admin}{path}`, whoever answers there; returns status and body.
///
/// # Errors
/// Nothing answers within thirty seconds: whether the lines were taken is not known.
pub fn post_lines(admin: &str, path: &str, lines: &str) -> Result<(u16, String)> {
    let kind = ("content-type", "application/x-ndjson");
    let answer = post(admin, path, &[kind], lines)?;
    Ok((answer.status, answer.body))
}

/// What was answered to a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    pub status: u16,
    /// The header `Retry-After`.
    pub retry_after: Option<String>,
    pub body: String,
}

/// Posts a body to `http://{admin}{path}`, whoever answers there. Any status is an answer.
///
/// # Errors
/// Nothing answers within thirty seconds: whether the body was taken is not known.
pub fn post(admin: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Result<Answer> {
    let url = format!("http://{admin}{path}");
    let agent = ureq::Agent::new_with_config(
        ureq::Agent::config_builder()
            .http_status_as_error(false)
            .timeout_global(Some(Duration::from_secs(30)))
            .build(),
    );
    let mut request = agent.post(&url);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let mut answer = request.send(body).with_context(|| url.clone())?;
    let retry_after = answer.headers().get("retry-after");
    let retry_after = retry_after
        .map(|value| value.to_str().map(str::to_owned))
        .transpose()?;
    let body = answer
        .body_mut()
        .with_config()
        .limit(256 << 20)
        .read_to_string()
        .context(url)?;
    Ok(Answer {
        status: answer.status().as_u16(),
        retry_after,
        body,
    })
}

fn text_of(path: impl AsRef<OsStr>) -> String {
    let bytes = fs::read(Path::new(path.as_ref())).unwrap_or_default();
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Stands in for the runtime: these tests are about the handling of a process.
    fn stand_in(script: &str) -> Site {
        let site = Site::with_binary("sh".into()).unwrap();
        site.write("run", script.as_bytes()).unwrap();
        site
    }

    #[test]
    fn a_runtime_that_ends_early_is_told_with_its_log() {
        let site = stand_in("echo broken >&2; exit 78");
        let mut running = site.start(&[]).unwrap();
        let error = running.until_ready(Duration::from_secs(60)).unwrap_err();
        assert!(error.to_string().contains("broken"), "{error:#}");
    }

    #[test]
    fn a_command_returns_code_and_both_outputs() {
        let mut site = stand_in("");
        site.set("GREETING", "hello");
        let finished = site
            .command(&["-c", "echo $GREETING; echo oops >&2; exit 3"])
            .unwrap();
        assert_eq!(finished.status.code(), Some(3));
        assert_eq!(finished.stdout, "hello\n");
        assert_eq!(finished.stderr, "oops\n");
        assert!(site.succeed(&["-c", "exit 1"]).is_err());
    }

    #[test]
    fn resident_memory_is_read_while_it_runs() {
        let site = stand_in("exec sleep 600");
        let mut running = site.start(&[]).unwrap();
        assert!(running.resident().unwrap() > 0);
        running.kill9().unwrap();
        assert!(!running.running());
    }
}
