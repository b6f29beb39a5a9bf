//! Seeds of the simulation. `SEEDS=10000 cargo test -p millstream-sim` tries more, and
//! `SEED=17 cargo test -p millstream-sim` one alone.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use millstream_sim::run::{report, run};

/// Failing seeds after which no more are tried.
const ENOUGH: usize = 3;

#[test]
fn no_seed_breaks_an_invariant() {
    let number = |name: &str| {
        let text = std::env::var(name).ok();
        text.and_then(|text| text.parse::<u64>().ok())
    };
    let seeds = match number("SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("SEEDS").unwrap_or(2_000),
    };
    let next = AtomicU64::new(seeds.start);
    let failed = Mutex::new(Vec::new());
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    let enough = || failed.lock().unwrap_or_else(PoisonError::into_inner).len();
                    if seed >= seeds.end || enough() >= ENOUGH {
                        return;
                    }
                    if !run(seed).is_empty() {
                        failed
                            .lock()
                            .unwrap_or_else(PoisonError::into_inner)
                            .push(report(seed));
                    }
                }
            });
        }
    });
    let failed = failed.into_inner().unwrap_or_else(PoisonError::into_inner);
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}
