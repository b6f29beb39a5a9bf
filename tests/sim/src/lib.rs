//! A simulation of one consumer: its real code, on one thread with a paused clock, between a broker
//! and a plugin that fail by a seed. A seed reproduces its run.
//!
//! ```text
//! scenario.rs     what a seed chooses
//! run.rs          lives of the consumer, hostile ones and calm ones; the verdict
//! rollout.rs      deploys, shadows, rollbacks and pauses, and which version makes the calls
//! version.rs      good versions of the plugin, and others
//! incarnation.rs  one life, watched, its halted partitions skipped; how it ends
//! checks.rs       the invariants
//! trace.rs        what happened, and what of it concerns a violation
//! world.rs        what a broker keeps: input, derived events, committed positions; checks each commit
//! coordinator.rs  its transactions: who may write, what is open
//! member.rs       a membership in that world, alive, cut off or dead; its weather
//! source.rs       its assignments, blocks and lost positions
//! sink.rs         its writes and commits
//! written.rs      what is written, and the checks of each record
//! transactor.rs   its transactions, and those in doubt
//! plugin.rs       a plugin that obeys the value of an event
//! instance.rs     its calls, and the checks of each call
//! ```

pub mod checks;
pub mod coordinator;
pub mod incarnation;
mod instance;
pub mod member;
pub mod plugin;
pub mod rollout;
pub mod run;
pub mod scenario;
mod sink;
mod source;
pub mod trace;
mod transactor;
pub mod version;
pub mod world;
pub mod written;
