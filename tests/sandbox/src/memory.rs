//! How much memory this process has, as the kernel counts it.

use std::fs;

use anyhow::{Context as _, Result};

/// Bytes that are resident now.
///
/// # Errors
/// The kernel does not say.
pub fn resident() -> Result<u64> {
    status("VmRSS:")
}

/// The most that was resident since [`forget_peak`], in bytes.
///
/// # Errors
/// The kernel does not say.
pub fn peak() -> Result<u64> {
    status("VmHWM:")
}

/// Lets [`peak`] begin anew.
///
/// # Errors
/// The kernel does not allow it.
pub fn forget_peak() -> Result<()> {
    fs::write("/proc/self/clear_refs", "5").context("cannot reset the peak of memory")
}

fn status(field: &str) -> Result<u64> {
    let text = fs::read_to_string("/proc/self/status")?;
    let line = text.lines().find_map(|line| line.strip_prefix(field));
    let kibibytes = line.and_then(|rest| rest.trim().strip_suffix(" kB"));
    let kibibytes: u64 = kibibytes
        .with_context(|| format!("no {field} in /proc/self/status"))?
        .trim()
        .parse()?;
    Ok(kibibytes << 10)
}
