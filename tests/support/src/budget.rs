//! The budget of what is in flight, seen from outside: loads of tiny and of huge events in one
//! partition and in hundreds, and the most that a consumer held of each.

use std::time::Duration;

use anyhow::{Result, ensure};

use crate::metrics::Scrape;
use crate::process::Running;
use crate::wait::{Deadline, step};

/// A topic, and what the consumer of the same name may hold of it.
#[derive(Debug)]
pub struct Load {
    /// Of topic and consumer; begins with `large` where an event has ten megabytes.
    pub name: &'static str,
    pub partitions: u32,
    pub events: usize,
    max_events: f64,
    max_bytes: f64,
    /// The budget and what else its consumer needs, as TOML.
    pub more: &'static str,
}

const SMALL: &str = "in_flight = { max_events = 200, max_bytes = \"1MiB\" }\nrate = \"500/s\"\n";
/// On a busy machine ten megabytes take more than the usual second to cross the wall.
const LARGE: &str =
    "in_flight = { max_events = 200, max_bytes = \"16MiB\" }\nlimits = { deadline = \"25s\" }\n";

/// A byte and ten megabytes, one partition and hundreds.
pub const LOADS: [Load; 4] = [
    small("small-1", 1),
    small("small-500", 500),
    large("large-1", 1),
    large("large-500", 500),
];

const fn small(name: &'static str, partitions: u32) -> Load {
    Load {
        name,
        partitions,
        events: 2_000,
        max_events: 200.0,
        max_bytes: 1_048_576.0,
        more: SMALL,
    }
}

const fn large(name: &'static str, partitions: u32) -> Load {
    Load {
        name,
        partitions,
        events: 3,
        max_events: 200.0,
        max_bytes: 16_777_216.0,
        more: LARGE,
    }
}

impl Load {
    /// Whether its events have ten megabytes.
    pub fn is_large(&self) -> bool {
        self.name.starts_with("large")
    }

    /// The value of each of its events, for the plugin `hostile`: one byte that it knows nothing of,
    /// or ten megabytes on which it spends a fifth of a second.
    pub fn value(&self) -> String {
        if self.is_large() {
            format!("busy 200{}", " ".repeat(10_000_000))
        } else {
            "x".to_owned()
        }
    }

    /// Events of its consumer that are settled.
    pub fn settled(&self, scrape: &Scrape) -> f64 {
        let of = [("consumer", self.name)];
        scrape.sum("millstream_events_settled_total", &of)
    }
}

/// Looks until everything is settled, and checks that no consumer ever held more than its budget.
/// What each held at most goes to the test's output.
///
/// # Errors
/// One held more, a scrape does not account for all events, or it takes longer than `patience`.
pub fn check(running: &Running, patience: Duration) -> Result<()> {
    let deadline = Deadline::after(patience);
    let mut most = [(0.0_f64, 0.0_f64); LOADS.len()];
    loop {
        let scrape = running.scrape()?;
        scrape.check_accounting()?;
        for (load, most) in LOADS.iter().zip(&mut most) {
            let of = [("consumer", load.name)];
            let events = scrape.sum("millstream_in_flight_events", &of);
            let bytes = scrape.sum("millstream_in_flight_bytes", &of);
            *most = (most.0.max(events), most.1.max(bytes));
        }
        let done = |load: &Load| load.settled(&scrape) >= load.events as f64;
        if LOADS.iter().all(done) {
            break;
        }
        ensure!(!deadline.passed(), "it does not end:\n{}", running.logs());
        step();
    }
    for (load, (events, bytes)) in LOADS.iter().zip(most) {
        println!("{}: {events} events, {bytes} bytes at most", load.name);
        ensure!(events <= load.max_events, "{}: {events} events", load.name);
        ensure!(bytes <= load.max_bytes, "{}: {bytes} bytes", load.name);
    }
    Ok(())
}
