//! The `millstream` binary; all of it is in the library.
//!
//! ```text
//! cli/      what a command does, one file each
//! app/      what `run` puts together: broker, plugins, consumers, HTTP
//! admin/    the HTTP interface of a running runtime
//! ```

/// For librdkafka too, whose seven allocations a record were a third of all processor time on the
/// Kafka path with the C library's allocator (tests/bench). Without huge pages (`no_thp`): blocks and
/// records that cross threads made it take memory anew all the time, and two megabytes were cleared for
/// some kilobytes (tests/bench/LOG.md).
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    millstream::cli::main()
}
