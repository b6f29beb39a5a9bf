//! What the tests of the whole program share: where it lives, and what it left in its topics.
//!
//! ```text
//! Setting (a folder, a configuration, plugins) ─▶ commands, a runtime ─▶ topics ─▶ Events
//! shop: an order line ─▶ what must come of it, calculated without the plugin
//! ```

pub mod events;
pub mod setting;
pub mod shop;
