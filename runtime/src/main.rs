//! The `millstream` binary; all of it is in the library.
//!
//! ```text
//! cli/      what a command does, one file each
//! app/      what `run` puts together: broker, plugins, consumers, HTTP
//! admin/    the HTTP interface of a running runtime
//! ```

fn main() -> std::process::ExitCode {
    millstream::cli::main()
}
