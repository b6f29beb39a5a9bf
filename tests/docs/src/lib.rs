//! Runs what the guides show.
//!
//! ```text
//! every README.md ─▶ guide   its fenced blocks, inline code and links
//!                      ├─▶ toml     loads as a configuration, or parses as a fragment of one
//!                      ├─▶ rust     belongs to the doctests of the SDK
//!                      ├─▶ console ─▶ transcript ─▶ terminal: run in order; what is shown must come out
//!                      └─▶ links, `make …`, `cargo … -p …`, `millstream …` name what exists
//! ```

pub mod guide;
pub mod terminal;
pub mod transcript;
