//! What the tests of the whole program share: where it lives, and what it left in its topics.
//!
//! ```text
//! Setting (a folder, a configuration, plugins) ─▶ commands, a runtime ─▶ topics ─▶ Events
//! flow: order lines that go on while something happens to their consumer
//! Project (what `millstream new` made) ─▶ millstream test, dev
//! shop: an order line ─▶ what must come of it, calculated without the plugin
//! ```

pub mod events;
pub mod flow;
pub mod project;
pub mod setting;
pub mod shop;
