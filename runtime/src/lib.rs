//! Millstream runs event consumers as sandboxed WebAssembly plugins.

pub mod broker;
pub mod clock;
pub mod config;
pub mod decide;
pub mod event;
pub mod plugin;
pub mod records;
