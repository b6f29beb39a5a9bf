//! The command line.

pub mod config;
pub mod validate;

use std::path::PathBuf;

/// How a command prints data.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OutputFormat {
    /// For people.
    #[default]
    Text,
    /// For programs.
    Json,
}

/// What every command is given.
#[derive(Clone, Debug)]
pub struct Context {
    /// The configuration file.
    pub config: PathBuf,
    pub output: OutputFormat,
    /// Whether stdout may be coloured.
    pub color: bool,
}
