//! The path of an event, from the broker through a plugin and back.
//!
//! ```text
//!  Source ─▶ intake ─▶ partition ─▶ lane ─▶ guard ─▶ call ─▶ assemble ─▶ outlet ─▶ positions ─▶ Sink
//!  blocks    permits   its lanes    batch   breaker  plugin  unit        writer or  settled
//!            filter    its valve    holds   rate             derive,     transactions
//!                                           claims           dead_letter
//! ```
//! At most once, [`claims`] commits the position between guard and call.
//!
//! One task a consumer owns all of it ([`runner`]), so nothing here is locked; calls into plugins
//! run beside it. Completions are handled before admissions.

pub mod assemble;
pub mod call;
mod claims;
pub mod commands;
mod conclude;
pub mod dead_letter;
pub mod derive;
pub mod generation;
mod guard;
pub mod instances;
mod intake;
mod kept_back;
mod lane;
pub mod letter;
mod outlet;
mod partition;
mod pause;
mod positions;
pub mod probation;
pub mod replay;
pub mod runner;
pub mod shadow;
mod skip;
pub mod status;
mod swap;
mod transactions;
pub mod trial_room;
mod trials;
pub mod unit;
pub mod work;
mod writer;
