//! The path of an event, from the broker through a plugin and back.
//!
//! ```text
//!  Source ─▶ intake ─▶ partition ─▶ lane ─▶ call ─▶ assemble ─▶ writer ─▶ positions ─▶ Sink
//!  blocks    permits   its lanes    batch   plugin  unit        in order  settled
//!            filter    its valve    holds           derive,
//!                                                   dead_letter
//! ```
//!
//! One task a consumer owns all of it ([`runner`]), so nothing here is locked; calls into plugins
//! run beside it. Completions are handled before admissions.

pub mod assemble;
pub mod call;
mod claims;
mod conclude;
pub mod dead_letter;
pub mod derive;
pub mod generation;
mod guard;
pub mod instances;
mod intake;
mod lane;
pub mod letter;
mod outlet;
mod partition;
mod positions;
pub mod replay;
pub mod runner;
pub mod skip;
pub mod status;
mod transactions;
pub mod unit;
pub mod work;
mod writer;
