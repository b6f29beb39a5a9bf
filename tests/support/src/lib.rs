//! What whole-program tests and the benchmark share.
//!
//! ```text
//! a test ──▶ process  the built runtime, its folder, its logs ──▶ guard  no child outlives us
//!        ──▶ kafka    a real broker ──▶ kafka_libs  its jars; kafka_tools  a reader not ours
//!        ──▶ cluster  several of them, each behind a proxy ──▶ proxy  cuts and delays ──▶ frames
//!        ──▶ plugins  components, built once ──▶ origin  a server that they send requests to
//!        ──▶ retail   order lines; metrics  what a scrape says; wait  polls with a deadline
//!        ──▶ web      a server that answers as the test says ──▶ certificates  whom to trust
//!        ──▶ vitals   what a process takes of the machine; budget  what a consumer holds
//! ```

pub mod budget;
pub mod certificates;
pub mod cluster;
pub mod frames;
pub mod guard;
pub mod kafka;
pub mod kafka_libs;
pub mod kafka_tools;
pub mod metrics;
pub mod origin;
pub mod plugins;
pub mod ports;
pub mod process;
pub mod proxy;
pub mod retail;
pub mod vitals;
pub mod wait;
pub mod web;
pub mod workspace;
