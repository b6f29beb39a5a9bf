//! Runs a part under valgrind, and reads how many instructions it took.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use anyhow::{Context, Result, ensure};
use millstream_test_support::{plugins, workspace};

/// The component that passes events through the wall.
const PLUGIN: &str = "millstream-bench-q0";

/// The C library copies and compares in the way that every x86-64 processor can: the others take a
/// different number of instructions for the same bytes.
const TUNABLES: (&str, &str) = (
    "GLIBC_TUNABLES",
    "glibc.cpu.hwcaps=-AVX_Fast_Unaligned_Load,-AVX512F,-AVX512VL,-AVX2,-AVX,-ERMS,-FSRM,-SSE4_1,-SSE4_2,-SSSE3,-BMI2",
);

/// Valgrind, ready to count.
pub struct Callgrind {
    // Only `find` makes one.
    _found: (),
}

/// The last profile of a part, for `callgrind_annotate`.
pub fn dump(part: &str) -> PathBuf {
    folder().join(format!("{part}.callgrind"))
}

fn folder() -> PathBuf {
    workspace::target_dir().join("cost")
}

impl Callgrind {
    /// `None` where nothing can be counted, which it says.
    ///
    /// # Errors
    /// Nothing can be counted, in a run that stands for a whole check; or the plugin cannot be
    /// compiled.
    pub fn find() -> Result<Option<Self>> {
        // Clippy, which is the compiler in `make test`, leaves more to do than the compiler alone.
        if !cfg!(all(target_arch = "x86_64", debug_assertions, clippy)) {
            left_out("they are those of debug builds by `make test` or `make counts` for x86-64")?;
            return Ok(None);
        }
        match works() {
            Ok(()) => {}
            Err(error) if workspace::in_ci() => {
                return Err(error.context("instructions are not counted"));
            }
            Err(error) => {
                left_out(&format!("{error:#}"))?;
                return Ok(None);
            }
        }
        std::fs::create_dir_all(folder())?;
        // Compiles the plugin where it is not in the cache: the processor that valgrind shows has not
        // all that the real one has, so code that was compiled without it is not taken.
        let folder = tempfile::tempdir()?;
        let mut command = valgrind();
        command.args(["--quiet", "--tool=none"]);
        run(of(command, "wall", 1, folder.path())?)?;
        Ok(Some(Self { _found: () }))
    }

    /// The instructions of a whole run with so many events.
    pub fn instructions(&self, part: &str, events: u64, folder: &Path) -> Result<u64> {
        let mut command = valgrind();
        let dump = format!("--callgrind-out-file={}", dump(part).display());
        command.args(["--tool=callgrind", &dump]);
        let output = run(of(command, part, events, folder)?)?;
        let said = said(&output);
        collected(&said).with_context(|| format!("valgrind does not say what it counted: {said}"))
    }
}

fn works() -> Result<()> {
    let output = Command::new("valgrind").arg("--version").output();
    let output = output.context("valgrind (package valgrind) does not start")?;
    ensure!(
        output.status.success(),
        "valgrind does not work: {}",
        said(&output)
    );
    Ok(())
}

/// With an end, also where the test that waits for it was killed.
fn valgrind() -> Command {
    let mut command = Command::new("timeout");
    command.args(["--kill-after=5", "300", "valgrind"]);
    command
}

/// Runs a part without valgrind.
pub fn plainly(part: &str, events: u64, folder: &Path) -> Result<()> {
    // `env` stands where valgrind does: it runs the rest as it is.
    run(of(Command::new("env"), part, events, folder)?)?;
    Ok(())
}

fn of(mut command: Command, part: &str, events: u64, folder: &Path) -> Result<Command> {
    command
        .env(TUNABLES.0, TUNABLES.1)
        .arg(env!("CARGO_BIN_EXE_cost"))
        .args([part, &events.to_string()])
        .arg(folder)
        .arg(self::folder().join("cache"))
        .arg(plugins::component(PLUGIN)?);
    Ok(command)
}

fn run(mut command: Command) -> Result<Output> {
    let output = command.output();
    let output = output.with_context(|| format!("cannot start {command:?}"))?;
    let status = output.status;
    ensure!(status.success(), "{command:?}: {status}: {}", said(&output));
    Ok(output)
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// The number behind the last `Collected :`.
fn collected(said: &str) -> Option<u64> {
    let (_, rest) = said.rsplit_once("Collected :")?;
    rest.split_whitespace().next()?.parse().ok()
}

/// Says so where the test harness does not keep it to itself.
fn left_out(why: &str) -> Result<()> {
    writeln!(
        std::io::stderr(),
        "\n*** LEFT OUT: instruction counts: {why}\n"
    )?;
    Ok(())
}

#[test]
fn what_valgrind_counted_is_read() {
    let said = "==7== Events    : Ir\n==7== Collected : 123456\n==7== \n==7== I   refs: 123,456\n";
    assert_eq!(collected(said), Some(123_456));
    assert_eq!(collected("killed"), None);
}
