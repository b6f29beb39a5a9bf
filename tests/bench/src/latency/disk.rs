//! Delays of the disk: each event is appended to a plain file, and synced.

use std::fs::{self, File};
use std::io::Write as _;

use anyhow::{Context, Result};

use super::due::Due;
use super::{Delays, Plan, Sent};
use crate::bid::Bids;

/// Appends and syncs at a steady rate.
///
/// # Errors
/// The file cannot be written.
pub fn measure(plan: &Plan<'_>) -> Result<Delays> {
    let path = plan.folder.join(plan.name());
    let mut file = File::create(&path).context("cannot make a file")?;
    let events = plan.events();
    let sent = Sent::new(events);
    let mut due = Due::new(Bids::new(plan.seed, events), 0, plan.rate, &sent);
    let mut delays = Vec::new();
    let mut lines = Vec::new();
    while let Some(bids) = due.take(&sent)? {
        lines.clear();
        for (_, bid) in &bids {
            bid.write(&mut lines);
        }
        file.write_all(&lines)?;
        file.sync_data()?;
        for (number, _) in bids {
            delays.push(sent.since(number)?);
        }
    }
    fs::remove_file(path)?;
    Delays::of(delays, plan)
}
