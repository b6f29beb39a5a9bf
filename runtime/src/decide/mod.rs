//! Decisions without I/O: values and functions, with `now` as an argument.

pub mod admission;
pub mod backoff;
pub mod offsets;
pub mod pace;
pub mod position_codec;
pub mod routing;
pub mod verdict;
