//! Millstream runs event consumers as sandboxed WebAssembly plugins.

pub mod admin;
pub mod app;
pub mod broker;
pub mod cli;
pub mod clock;
pub mod config;
pub mod consumer;
pub mod decide;
pub mod event;
pub mod fetch;
pub mod json_event;
pub mod logging;
pub mod metrics;
pub mod mutation;
pub mod plugin;
pub mod records;
pub mod tls;
