//! What whole-program tests and the benchmark share.
//!
//! ```text
//! a test ──▶ process  the built runtime, its folder, its logs ──▶ guard  no child outlives us
//!        ──▶ kafka    a real broker ──▶ kafka_libs  its jars; kafka_tools  a reader not ours
//! ```

pub mod guard;
pub mod kafka;
pub mod kafka_libs;
pub mod kafka_tools;
pub mod ports;
pub mod wait;
pub mod workspace;
