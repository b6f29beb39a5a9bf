//! All guarantees at once while a cluster, its connections and the runtimes fail by a seed.
//!
//! ```text
//! order lines ─▶ Kafka nodes ◀─ proxies ◀─ two runtimes, each: at most, at least, exactly once
//!                  ▲     ▲         ▲          ▲
//!                  │     └─────────┴──────────┴── strike: one fault of the deck (fault) a round
//!                  └── Kafka's console consumer ─▶ verify ─▶ report
//! ```
//! A round feeds lines, strikes, heals, and waits until everything is settled and both runtimes are
//! whole again (arena). What the topics hold is looked at behind the last round.

mod arena;
mod cases;
mod fault;
mod figures;
mod report;
mod rounds;
mod strike;
