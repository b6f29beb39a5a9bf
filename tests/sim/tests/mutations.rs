//! The simulation is tried itself: each deliberate bug must be caught within the seeds that are run
//! anyway. Optimized builds have none of the bugs, and this test with them.
#![cfg(debug_assertions)]

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use millstream::mutation::{self, Mutation};
use millstream_sim::run::run;

/// The seeds of `no_seed_breaks_an_invariant`.
const SEEDS: u64 = 2_000;

/// The first seed that shows the bug, with what it shows.
fn caught(mutation: Mutation) -> Option<(u64, String)> {
    mutation::with(mutation, || {
        (0..SEEDS).find_map(|seed| {
            // A bug may also break an assertion of the code itself.
            match catch_unwind(AssertUnwindSafe(|| run(seed))) {
                Ok(wrong) => wrong.into_iter().next().map(|first| (seed, first)),
                Err(_) => Some((seed, "an assertion of the code failed".to_owned())),
            }
        })
    })
}

#[test]
fn every_deliberate_bug_is_caught() {
    let next = AtomicUsize::new(0);
    let missed = Mutex::new(Vec::new());
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while let Some(mutation) = Mutation::ALL.get(next.fetch_add(1, Ordering::Relaxed)) {
                    match caught(*mutation) {
                        Some((seed, shown)) => println!("{mutation:?}: seed {seed}: {shown}"),
                        None => missed.lock().unwrap().push(*mutation),
                    }
                }
            });
        }
    });
    let missed = missed.into_inner().unwrap();
    assert!(missed.is_empty(), "no seed catches {missed:?}");
}
