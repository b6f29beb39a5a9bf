//! How many instructions an event costs in each part, compared with what was recorded.
//!
//! ```text
//! main ──▶ callgrind  runs a part under valgrind: so many instructions
//!     └──▶ recorded   counts.toml, and what is wrong beside it
//! ```

mod callgrind;
mod recorded;

use std::collections::BTreeMap;
use std::io::Write as _;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, Result, ensure};

use callgrind::Callgrind;
use recorded::Recorded;

/// A part is run with few events and with many: what both cost beside the events (the start, the
/// loading, the end) falls out of the difference.
#[derive(Clone, Copy, Debug)]
struct Part {
    /// As `src/main.rs` knows it.
    name: &'static str,
    few: u64,
    many: u64,
    /// Whether the store holds the events before.
    stored: bool,
}

const PARTS: [Part; 5] = [
    part("wall", 1_024, 33_792),
    part("path", 1_000, 5_000),
    part("path-exactly-once", 1_000, 5_000),
    part("append", 1_000, 21_000),
    Part {
        stored: true,
        ..part("read", 1_000, 5_000)
    },
];

const fn part(name: &'static str, few: u64, many: u64) -> Part {
    Part {
        name,
        few,
        many,
        stored: false,
    }
}

impl Part {
    fn instructions_an_event(&self, callgrind: &Callgrind) -> Result<u64> {
        let count = |events| {
            let folder = tempfile::tempdir()?;
            if self.stored {
                callgrind::plainly("append", self.many, folder.path())?;
                // The first opening cuts off what the journal has in reserve: 64 MiB of zeros, which
                // take valgrind a minute to look at.
                callgrind::plainly("read", 0, folder.path())?;
            }
            callgrind.instructions(self.name, events, folder.path())
        };
        let (few, many) = (count(self.few)?, count(self.many)?);
        let more = many.checked_sub(few);
        let more =
            more.with_context(|| format!("{few} instructions, but {many} for more events"))?;
        Ok(more / (self.many - self.few))
    }
}

/// All parts, on all cores: what others do meanwhile costs time and no instructions.
fn count(callgrind: &Callgrind) -> Result<BTreeMap<String, u64>> {
    let (next, found) = (AtomicUsize::new(0), Mutex::new(BTreeMap::new()));
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while let Some(part) = PARTS.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let count = part.instructions_an_event(callgrind);
                    let mut found = found.lock().unwrap_or_else(PoisonError::into_inner);
                    found.insert(part.name, count);
                }
            });
        }
    });
    let found = found.into_inner().unwrap_or_else(PoisonError::into_inner);
    let counts = found.into_iter().map(|(part, count)| {
        let count = count.with_context(|| format!("counting {part}"))?;
        Ok((part.to_owned(), count))
    });
    counts.collect()
}

#[test]
fn an_event_costs_what_was_recorded() -> Result<()> {
    let Some(callgrind) = Callgrind::find()? else {
        return Ok(());
    };
    let found = count(&callgrind)?;
    let recorded = Recorded::read()?;
    // Not captured: beside a failure of one part the others are of interest, and a success is short.
    let mut table = String::from("instructions an event:");
    for (part, count) in &found {
        table += &format!(" {part} {count}");
    }
    writeln!(std::io::stderr(), "{table}")?;
    if std::env::var_os("COST_RECORD").is_some_and(|value| value == "1") {
        return recorded.with(found).write();
    }
    let wrong = recorded.compare(&found);
    ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    Ok(())
}
