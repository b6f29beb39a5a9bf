//! Decisions without I/O: values and functions, with `now` as an argument.

pub mod address;
pub mod admission;
pub mod backoff;
pub mod breaker;
pub mod crash;
pub mod dead_letter_share;
pub mod deploy_plan;
pub mod doubt;
pub mod gathering;
pub mod offsets;
pub mod outbound;
pub mod overrides;
pub mod pace;
pub mod position_codec;
pub mod probation;
pub mod rate;
pub mod reminder;
pub mod retrieval;
pub mod routing;
pub mod trace_parent;
pub mod verdict;
mod window;
