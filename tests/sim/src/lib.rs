//! A simulation of one consumer: its real code, on one thread with a paused clock, between a broker
//! and a plugin that fail by a seed. A seed reproduces its run.
//!
//! ```text
//! world.rs    what a broker keeps: input, derived events, committed positions; checks each commit
//! broker.rs   a membership in that world: blocks, revokes, failing writes and commits
//! plugin.rs   a plugin that obeys the first byte of an event's value
//! run.rs      incarnations of the consumer, each ended by a crash or at the end; the verdict
//! ```

pub mod broker;
pub mod plugin;
pub mod run;
pub mod world;
