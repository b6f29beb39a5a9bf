//! The built runtime against a real Kafka, from outside: processes and commands of ours, topics read
//! by Kafka's own reader, and what must come out calculated a second time.
//!
//! ```text
//! order_lines ─▶ produced ─▶ Kafka ◀──▶ runtimes (setup) ─▶ Kafka ─▶ its console consumer
//!      └── calculated from the README of `enrich` ────────▶ verify ◀────────────┘
//! ```
//! Each test has topics and groups of its own, so that all can share one broker.

mod broker;
mod budget;
mod commands;
mod crash;
mod deploy;
mod dlq;
mod exactly_once;
mod example;
mod faults;
mod kill;
mod late_topics;
mod order_lines;
mod outcome;
mod rename;
mod retail;
mod setup;
mod soak;
mod stuck_key;
mod verify;
