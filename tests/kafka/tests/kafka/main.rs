//! The Kafka adapter against a real Kafka.
//!
//! Each test has topics and groups of its own, so that all can share one broker.

#![allow(
    clippy::unwrap_used,
    reason = "allowed in tests; the lint knows helpers of an integration test as plain code"
)]

mod consume;
mod control;
mod member;
mod positions;
mod produce;
mod rebalance;
mod restart;
mod topics;
