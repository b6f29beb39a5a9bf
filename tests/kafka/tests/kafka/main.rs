//! The Kafka adapter against a real Kafka.
//!
//! Each test has topics and groups of its own, so that all can share one broker.

mod consume;
mod control;
mod member;
mod positions;
mod produce;
mod rebalance;
mod restart;
mod topics;
