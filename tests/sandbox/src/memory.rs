//! How much memory this process has, as the kernel counts it.

use std::fs;

use anyhow::{Context as _, Result};

/// Bytes that are resident now.
///
/// # Errors
/// The kernel does not say.
pub fn resident() -> Result<u64> {
    field("/proc/self/status", "VmRSS:")
}

/// Bytes that this process takes up: of pages that are mapped several times, as the image of a plugin
/// is by each of its instances, each mapping counts its part, where [`resident`] counts all of them.
///
/// # Errors
/// The kernel does not say.
pub fn taken() -> Result<u64> {
    field("/proc/self/smaps_rollup", "Pss:")
}

/// The most that was resident since [`forget_peak`], in bytes.
///
/// # Errors
/// The kernel does not say.
pub fn peak() -> Result<u64> {
    field("/proc/self/status", "VmHWM:")
}

/// Lets [`peak`] begin anew.
///
/// # Errors
/// The kernel does not allow it.
pub fn forget_peak() -> Result<()> {
    fs::write("/proc/self/clear_refs", "5").context("cannot reset the peak of memory")
}

fn field(file: &str, field: &str) -> Result<u64> {
    let text = fs::read_to_string(file).with_context(|| format!("cannot read {file}"))?;
    let line = text.lines().find_map(|line| line.strip_prefix(field));
    let kibibytes = line.and_then(|rest| rest.trim().strip_suffix(" kB"));
    let kibibytes: u64 = kibibytes
        .with_context(|| format!("no {field} in {file}"))?
        .trim()
        .parse()?;
    Ok(kibibytes << 10)
}
