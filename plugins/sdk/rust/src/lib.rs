//! Write consumers of events in Rust: implement [`Consumer`], or write one function, and name it
//! in [`export!`]. Built for `wasm32-wasip2` the crate is a plugin that Millstream runs.
//!
//! ```
//! use millstream_plugin::prelude::*;
//!
//! /// Passes what customers say on, without the shouting.
//! fn handle(event: Event<'_>, out: &mut Outbox) -> Result {
//!     let text = event.text()?; // not text: rejected, code "decode"
//!     out.text(&text.to_lowercase()) // key and headers stay the source's
//! }
//!
//! export!(fn handle);
//!
//! # fn main() {
//! let run = Harness::function(handle).run([TestEvent::text("HELLO").key("anna")]);
//! assert_eq!(run.only_output().text(), "hello");
//! assert_eq!(run.only_output().key(), Some(&b"anna"[..]));
//! # }
//! ```
//!
//! How it fits together:
//!
//! ```text
//! runtime ── batch ──▶ export! ──▶ Runner ──▶ Consumer::handle(Event, Outbox), event by event
//!         ◀─ outcome ─────────────────┴── Outbox: derived events, failures, one arena of bytes
//! cargo test ────────▶ Harness ──▶ Runner      (the same one, and the runtime's own checks after it)
//! ```
//!
//! - [`Event`] is a borrowed view of what came in; nothing is copied until you ask.
//! - [`Outbox`] takes what goes out. What an event wrote before it failed is taken back.
//! - [`Error`] carries what is to be done: reject, retry, unavailable or halt ([`OrFail`]).
//! - [`Harness`] runs the plugin in a plain `cargo test`.
//!
//! An instance's memory is a cache: any call may meet a fresh instance, and an event may come again.

#[cfg(target_arch = "wasm32")]
#[doc(hidden)]
pub mod bindings;
mod consumer;
mod error;
mod event;
mod export;
#[cfg(not(target_arch = "wasm32"))]
mod harness;
mod host;
pub mod log;
pub mod metrics;
mod outbox;
mod pace;
mod runner;
mod setup;

pub use consumer::Consumer;
pub use error::{Error, OrFail, Result};
pub use event::{Event, Events, Position};
#[cfg(not(target_arch = "wasm32"))]
pub use harness::{Answer, Derived, Failed, Harness, Run, TestEvent};
pub use millstream_wire::{Limits, Remedy};
pub use outbox::{Draft, Outbox, Output};
pub use setup::Setup;

#[doc(hidden)]
pub mod internal {
    //! What [`export!`](crate::export) expands to. Not for use by hand.
    pub use crate::export::assert_consumer;
    #[cfg(target_arch = "wasm32")]
    pub use crate::export::{Slot, init, process};
    #[cfg(target_arch = "wasm32")]
    pub use millstream_wire::Outcome;
}

/// All that a plugin usually needs.
pub mod prelude {
    pub use crate::export;
    #[cfg(not(target_arch = "wasm32"))]
    pub use crate::harness::{Harness, TestEvent};
    pub use crate::{Consumer, Error, Event, Events, OrFail, Outbox, Output, Result, Setup};
    pub use crate::{debug, error, info, trace, warn};
    #[cfg(feature = "derive")]
    pub use serde::{Deserialize, Serialize};
}

/// The guide for plugin authors, so that each of its snippets is compiled and run.
#[cfg(doctest)]
#[doc = include_str!("../../../README.md")]
struct Guide;

/// The crate's own page, likewise.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
