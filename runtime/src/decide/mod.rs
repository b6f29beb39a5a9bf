//! Decisions without I/O: values and functions, with `now` as an argument.

pub mod admission;
pub mod backoff;
pub mod breaker;
pub mod crash;
pub mod dead_letter_share;
pub mod deploy_plan;
pub mod doubt;
pub mod offsets;
pub mod pace;
pub mod position_codec;
pub mod rate;
pub mod reminder;
pub mod retrieval;
pub mod routing;
pub mod verdict;
mod window;
