//! Decisions without I/O: values and functions, with `now` as an argument.

pub mod offsets;
pub mod routing;
