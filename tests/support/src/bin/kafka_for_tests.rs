//! Runs a command beside one Kafka for all of its tests: `kafka-for-tests cargo test`.
//!
//! The command finds the broker's address in `MILLSTREAM_TEST_KAFKA`. The broker ends with the
//! command, whose exit code this program returns. Where Kafka cannot be had the command runs
//! without it, and its tests leave themselves out; under `CI=true` that is a failure.

use std::process::{Command, ExitCode};

use anyhow::{Context, Result, bail};
use millstream_test_support::kafka::{KafkaNode, Options, SHARED};
use millstream_test_support::workspace;

fn main() -> ExitCode {
    match run() {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            eprintln!("kafka-for-tests: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<u8> {
    let mut arguments = std::env::args_os().skip(1);
    let Some(program) = arguments.next() else {
        bail!("usage: kafka-for-tests COMMAND [ARGUMENT …]");
    };
    let mut command = Command::new(&program);
    command.args(arguments);

    let options = Options {
        heap: 768,
        ..Options::default()
    };
    let node = match KafkaNode::start_with(options) {
        Ok(node) => {
            eprintln!("Kafka for tests answers at {}", node.bootstrap());
            command.env(SHARED, node.bootstrap());
            Some(node)
        }
        Err(error) if workspace::in_ci() => {
            return Err(error.context("CI=true, so tests against Kafka must not be left out"));
        }
        Err(error) => {
            eprintln!("\n*** LEFT OUT: tests against Kafka cannot run: {error:#}\n");
            None
        }
    };
    let status = command
        .status()
        .with_context(|| format!("cannot start {}", program.display()))?;
    drop(node);
    // A command that a signal ended has no code.
    Ok(status
        .code()
        .and_then(|code| u8::try_from(code).ok())
        .unwrap_or(1))
}
