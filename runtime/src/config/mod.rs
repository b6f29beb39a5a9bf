//! From a TOML file as written to a checked configuration.
//!
//! ```text
//! file ─▶ include ─▶ written (as the file says) ─▶ ${env:…} ─▶ check ─▶ resolved (what applies)
//!            └──────────────── problems: file, line, column, cause, hint ──────▶ all at once
//! ```

pub mod filter;
mod resolved;
pub mod secret;

pub use resolved::*;
