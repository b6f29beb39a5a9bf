//! Children that never outlive the one who started them.
//!
//! ```text
//! we ── pipe ──▶ watchdog (a shell) ── the pipe closed without a word ──▶ SIGKILL, remove folder
//!  └── child (same pid as the shell that started it, by exec) ◀──────────────┘
//! ```
//!
//! A test process that is killed runs no destructor; the kernel closes its end of the pipe all the
//! same. `PR_SET_PDEATHSIG` would not do: it fires when the *thread* that started the child ends,
//! and each test is a thread.

use std::ffi::OsStr;
use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::wait::{Deadline, step};

/// The shell keeps the pipe as descriptor 3 for the watchdog alone, then becomes the child. A word
/// on the pipe ends the watchdog in peace; its closing without one is the death of the parent. It
/// ignores the signals of a terminal, which end the parent and would leave the folder behind.
const SCRIPT: &str = r#"
folder=$1; shift
exec 3<&0
( trap '' INT TERM HUP
  if ! read -r word <&3; then
    kill -9 $$
    tries=0
    while kill -0 $$ 2>/dev/null && [ $tries -lt 50 ]; do sleep 0.1; tries=$((tries + 1)); done
    tries=0
    while [ -n "$folder" ] && ! rm -rf "$folder" && [ $tries -lt 20 ]; do sleep 0.5; tries=$((tries + 1)); done
  fi ) >/dev/null 2>&1 &
exec 3<&- "$@" </dev/null
"#;

/// A running child.
#[derive(Debug)]
pub struct Guarded {
    child: Child,
    watchdog: Option<ChildStdin>,
    /// How it ended, and the processor time that it used.
    ended: Option<(ExitStatus, Duration)>,
}

/// What to start, and where its output goes.
#[derive(Debug)]
pub struct Plan<'a> {
    pub program: &'a OsStr,
    pub arguments: Vec<std::ffi::OsString>,
    pub environment: Vec<(String, std::ffi::OsString)>,
    pub folder: &'a Path,
    /// Standard output is appended to this file; with `None` it is that of this process.
    pub stdout: Option<&'a Path>,
    /// The same for standard error.
    pub stderr: Option<&'a Path>,
    /// Removed where this process dies without ending the child.
    pub remove: Option<&'a Path>,
}

impl Guarded {
    /// Starts a child.
    ///
    /// # Errors
    /// The shell or an output file could not be opened. A program that does not exist shows as a
    /// child that ends with 127.
    pub fn start(plan: &Plan<'_>) -> Result<Self> {
        let mut command = Command::new("sh");
        command
            .arg("-c")
            .arg(SCRIPT)
            .arg("guarded")
            .arg(plan.remove.map_or(OsStr::new(""), Path::as_os_str))
            .arg(plan.program)
            .args(&plan.arguments)
            .envs(plan.environment.iter().map(|(name, value)| (name, value)))
            .current_dir(plan.folder)
            .stdin(Stdio::piped());
        if let Some(path) = plan.stdout {
            command.stdout(append(path)?);
        }
        if let Some(path) = plan.stderr {
            command.stderr(append(path)?);
        }
        let mut child = command
            .spawn()
            .with_context(|| format!("cannot start {}", plan.program.display()))?;
        let watchdog = child.stdin.take();
        Ok(Self {
            child,
            watchdog,
            ended: None,
        })
    }

    /// The process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Whether it still runs.
    pub fn running(&mut self) -> bool {
        matches!(self.poll(), Ok(None))
    }

    /// Its exit status, where it has ended.
    ///
    /// # Errors
    /// The kernel does not know the child.
    pub fn poll(&mut self) -> Result<Option<ExitStatus>> {
        self.reap(libc::WNOHANG)?;
        Ok(self.ended.map(|(status, _)| status))
    }

    /// Takes the child's end from the kernel, which tells it once, with the processor time that the
    /// child used.
    fn reap(&mut self, options: libc::c_int) -> Result<()> {
        use std::os::unix::process::ExitStatusExt;

        while self.ended.is_none() {
            let mut raw = 0;
            // SAFETY: all-zero bytes are a valid `rusage`, which holds integers only.
            let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
            // SAFETY: `raw` and `usage` are valid for writing for the whole call, and the process
            // is our child that nothing has reaped yet, so its id cannot name another.
            let pid = unsafe { libc::wait4(self.pid(), &raw mut raw, options, &raw mut usage) };
            if pid == self.pid() {
                let cpu = time(usage.ru_utime) + time(usage.ru_stime);
                self.ended = Some((ExitStatus::from_raw(raw), cpu));
            } else if pid == 0 {
                break;
            } else {
                let error = std::io::Error::last_os_error();
                if error.kind() != std::io::ErrorKind::Interrupted {
                    return Err(error).context("cannot wait for a child");
                }
            }
        }
        Ok(())
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// It did not end in time; it runs on.
    pub fn wait(&mut self, within: Duration) -> Result<ExitStatus> {
        let deadline = Deadline::after(within);
        loop {
            if let Some(status) = self.poll()? {
                return Ok(status);
            }
            if deadline.passed() {
                bail!("process {} did not end within {within:?}", self.id());
            }
            step();
        }
    }

    /// Waits for its end, however long, and returns the processor time that it used, user and
    /// system together.
    ///
    /// # Errors
    /// The kernel does not know the child.
    pub fn wait_for_cpu(&mut self) -> Result<(ExitStatus, Duration)> {
        self.reap(0)?;
        self.ended
            .context("the kernel did not tell how the child ended")
    }

    /// The most memory that was resident at once so far, in bytes; `None` once it has ended. Not
    /// from `rusage`, whose `ru_maxrss` counts what the parent held when it started the child.
    pub fn high_water(&self) -> Option<u64> {
        self.memory("VmHWM:")
    }

    /// Memory resident now, in bytes; `None` once it has ended.
    pub fn resident(&self) -> Option<u64> {
        self.memory("VmRSS:")
    }

    fn memory(&self, field: &str) -> Option<u64> {
        let text = std::fs::read_to_string(format!("/proc/{}/status", self.id())).ok()?;
        let line = text.lines().find_map(|line| line.strip_prefix(field))?;
        let kibibytes: u64 = line.split_whitespace().next()?.parse().ok()?;
        Some(kibibytes * 1024)
    }

    /// SIGTERM: asks it to end.
    ///
    /// # Errors
    /// The signal could not be sent.
    pub fn terminate(&mut self) -> Result<()> {
        self.signal(libc::SIGTERM)
    }

    /// SIGKILL: ends it as a crash would, and waits until the kernel is done with it.
    ///
    /// # Errors
    /// The signal could not be sent, or the process is stuck in the kernel.
    pub fn kill9(&mut self) -> Result<()> {
        self.signal(libc::SIGKILL)?;
        self.wait(Duration::from_secs(30)).map(drop)
    }

    /// SIGSTOP: it does nothing until [`Guarded::thaw`]. SIGKILL ends it all the same.
    ///
    /// # Errors
    /// The signal could not be sent.
    pub fn freeze(&mut self) -> Result<()> {
        self.signal(libc::SIGSTOP)
    }

    /// SIGCONT: it goes on.
    ///
    /// # Errors
    /// The signal could not be sent.
    pub fn thaw(&mut self) -> Result<()> {
        self.signal(libc::SIGCONT)
    }

    /// Sends a signal; nothing happens where the child has ended.
    ///
    /// # Errors
    /// The signal could not be sent.
    pub fn signal(&mut self, signal: libc::c_int) -> Result<()> {
        if self.poll()?.is_some() {
            return Ok(());
        }
        // SAFETY: `kill` touches no memory of ours, and the id names our own child: it has not been
        // reaped, as the poll above says.
        if unsafe { libc::kill(self.pid(), signal) } == 0 {
            return Ok(());
        }
        Err(std::io::Error::last_os_error())
            .with_context(|| format!("cannot send signal {signal} to {}", self.id()))
    }

    fn pid(&self) -> libc::pid_t {
        libc::pid_t::try_from(self.child.id()).unwrap_or(libc::pid_t::MAX)
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        if let Err(error) = self.kill9() {
            eprintln!("a child may be left behind: {error:#}");
        }
        // The child is reaped: the watchdog must not send a signal to an id that may be another's.
        if let Some(mut watchdog) = self.watchdog.take()
            && let Err(error) = watchdog.write_all(b"ended\n")
            && error.kind() != std::io::ErrorKind::BrokenPipe
        {
            eprintln!("the watchdog of a child cannot be reached: {error}");
        }
    }
}

fn append(path: &Path) -> Result<File> {
    File::options()
        .create(true)
        .append(true)
        .open(path)
        .with_context(|| format!("cannot write {}", path.display()))
}

fn time(value: libc::timeval) -> Duration {
    Duration::from_secs(u64::try_from(value.tv_sec).unwrap_or(0))
        + Duration::from_micros(u64::try_from(value.tv_usec).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan<'a>(folder: &'a Path, script: &str) -> Plan<'a> {
        Plan {
            program: OsStr::new("sh"),
            arguments: vec!["-c".into(), script.into()],
            environment: Vec::new(),
            folder,
            stdout: None,
            stderr: None,
            remove: None,
        }
    }

    fn alive(pid: u32) -> bool {
        // A zombie still has a folder in /proc, but no executable.
        Path::new(&format!("/proc/{pid}/exe")).read_link().is_ok()
    }

    #[test]
    fn the_exit_code_is_that_of_the_child() {
        let folder = tempfile::tempdir().unwrap();
        let mut child = Guarded::start(&plan(folder.path(), "exit 7")).unwrap();
        let status = child.wait(Duration::from_secs(60)).unwrap();
        assert_eq!(status.code(), Some(7));
    }

    #[test]
    fn dropping_ends_the_child() {
        let folder = tempfile::tempdir().unwrap();
        let child = Guarded::start(&plan(folder.path(), "exec sleep 600")).unwrap();
        let pid = child.id();
        drop(child);
        assert!(!alive(pid));
    }

    #[test]
    fn a_parent_that_dies_takes_child_and_folder_along() {
        let folder = tempfile::tempdir().unwrap();
        let doomed = folder.path().join("doomed");
        std::fs::create_dir(&doomed).unwrap();
        let mut plan = plan(folder.path(), "exec sleep 600");
        plan.remove = Some(&doomed);
        let mut child = Guarded::start(&plan).unwrap();
        let pid = child.id();
        drop(child.watchdog.take());
        crate::wait::eventually("the child is gone", Duration::from_secs(60), || !alive(pid))
            .unwrap();
        child.wait(Duration::from_secs(60)).unwrap();
        crate::wait::eventually("the folder is gone", Duration::from_secs(60), || {
            !doomed.exists()
        })
        .unwrap();
    }

    #[test]
    fn processor_time_counts_the_work_of_the_child() {
        let folder = tempfile::tempdir().unwrap();
        let script = "i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done";
        let mut child = Guarded::start(&plan(folder.path(), script)).unwrap();
        assert!(child.high_water().unwrap() > 0);
        let (status, cpu) = child.wait_for_cpu().unwrap();
        assert!(status.success());
        assert!(cpu > Duration::ZERO);
    }
}
