//! Ports for servers that tests start.

use std::net::TcpListener;

use anyhow::{Result, bail};

/// Below the range that the kernel takes for outgoing connections, so that a server that is
/// restarted finds its port free.
const RANGE: std::ops::Range<u16> = 15_000..30_000;

/// A port of the loopback that nothing listens on. Another process may still take it first: whoever
/// starts a server on it tries again with another.
///
/// # Errors
/// A hundred ports in turn were taken.
pub fn free_port() -> Result<u16> {
    for _ in 0..100 {
        let port = fastrand::u16(RANGE);
        if TcpListener::bind(("0.0.0.0", port)).is_ok() {
            return Ok(port);
        }
    }
    bail!("a hundred ports between {RANGE:?} were taken")
}
