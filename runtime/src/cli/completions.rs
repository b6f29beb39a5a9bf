//! `millstream completions SHELL`.

use std::process::ExitCode;

use clap_complete::Shell;

use super::{Context, command_line, terminal};

#[derive(Debug, clap::Args)]
pub struct Args {
    /// The shell to complete in
    shell: Shell,
}

/// Prints the script for the shell.
///
/// # Errors
/// Stdout cannot be written to.
pub async fn run(args: Args, _context: &Context) -> anyhow::Result<ExitCode> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut command_line(), "millstream", &mut script);
    terminal::print(&String::from_utf8_lossy(&script)).await?;
    Ok(ExitCode::SUCCESS)
}
