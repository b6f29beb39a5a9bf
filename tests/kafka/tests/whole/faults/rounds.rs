//! Rounds of faults: many on three nodes, a few on one.

use anyhow::{Context, Result, ensure};
use fastrand::Rng;
use millstream_test_support::cluster::{self, Cluster};
use millstream_test_support::frames::api;
use millstream_test_support::proxy::Catch;
use tokio::time::Instant;

use super::super::outcome::Outcome;
use super::super::setup;
use super::super::verify::Promise;
use super::arena::Arena;
use super::fault::{self, Fault, Node, Request};
use super::report::{self, Round};

/// How many rounds, by which seed, and of one guarantee alone: `make faults ROUNDS=10 SEED=7
/// DELIVERY=exactly-once`.
const ROUNDS: &str = "FAULT_ROUNDS";
const SEED: &str = "FAULT_SEED";
const DELIVERY: &str = "FAULT_DELIVERY";

/// Every fault twice.
const MANY: usize = 2 * fault::ALL.len();

/// A commit taken for done, or for aborted, that was not; a position ahead of its events; a zombie
/// that still writes; partitions that nobody takes any more; a wait without an end: each shows here.
#[test]
#[ignore = "a fault test of many minutes: make faults"]
fn three_nodes_that_fail_in_every_way_break_no_promise() -> Result<()> {
    let _turn = setup::turn();
    let Some(cluster) = cluster::with(3, &[]) else {
        return Ok(());
    };
    let seed = asked_for(SEED)?.unwrap_or_else(|| fastrand::u64(..1_000_000));
    let rounds = asked_for(ROUNDS)?.map_or(Ok(MANY), usize::try_from)?;
    let faults = fault::deal(&mut Rng::with_seed(seed), &promises()?, rounds);
    let text = play(cluster, &faults, seed)?;
    let path = report::keep("report.md", &text)?;
    eprintln!("{text}\nwritten to {}", path.display());
    Ok(())
}

/// The same in short: what is wrong at every such fault shows before the long run.
#[test]
fn a_killed_broker_and_lost_answers_to_commits_break_no_promise() -> Result<()> {
    let _turn = setup::turn();
    let Some(cluster) = cluster::with(3, &[]) else {
        return Ok(());
    };
    let faults = [
        Fault::CatchRequest(Request::EndTransaction, Catch::AfterTheBroker),
        Fault::KillNode(Node::TransactionCoordinator),
        Fault::CutAll,
    ];
    let text = play(cluster, &faults, 1)?;
    eprintln!("{text}");
    Ok(())
}

/// All, or the one that is to be tried alone.
fn promises() -> Result<Vec<Promise>> {
    let mut all = vec![Promise::AtMost, Promise::AtLeast, Promise::Exactly];
    if let Ok(only) = std::env::var(DELIVERY)
        && !only.is_empty()
    {
        all.retain(|promise| promise.delivery() == only);
        ensure!(!all.is_empty(), "{DELIVERY}={only} is no guarantee");
    }
    Ok(all)
}

fn asked_for(name: &str) -> Result<Option<u64>> {
    let Some(value) = std::env::var(name).ok().filter(|value| !value.is_empty()) else {
        return Ok(None);
    };
    let number = value.parse().with_context(|| format!("{name}={value}"))?;
    Ok(Some(number))
}

/// Plays one round a fault and returns the report. What everyone logged is kept where it fails.
fn play(mut cluster: Cluster, faults: &[Fault], seed: u64) -> Result<String> {
    let nodes = cluster.nodes().len();
    let mut arena = Arena::start(cluster, &promises()?)?;
    let mut rounds = Vec::new();
    match play_in(&mut arena, faults, seed, &mut rounds) {
        Ok(outcomes) => Ok(report::written(seed, nodes, &rounds, &outcomes)),
        Err(error) => {
            for (name, text) in arena.logs() {
                report::keep(&format!("failed-{seed}-{name}"), &text)?;
            }
            Err(error.context(format!(
                "seed {seed}, after {} rounds; the logs are kept as failed-{seed}-* beside the report",
                rounds.len()
            )))
        }
    }
}

fn play_in(
    arena: &mut Arena,
    faults: &[Fault],
    seed: u64,
    rounds: &mut Vec<Round>,
) -> Result<Vec<Outcome>> {
    let mut random = Rng::with_seed(seed);
    let start = Instant::now();
    for (number, fault) in faults.iter().enumerate() {
        let head_start = random.usize(100..1000);
        let told = || format!("round {}, {fault}", number + 1);
        eprintln!("{:>6.1} s  {}", start.elapsed().as_secs_f64(), told());
        let lines = arena
            .feed_until(head_start, |arena| arena.strike(*fault, &mut random))
            .with_context(told)?;
        let healed = Instant::now();
        arena.until_calm().with_context(told)?;
        rounds.push(Round {
            fault: *fault,
            lines,
            recovery: healed.elapsed(),
        });
    }
    let commits = |apis: &[i16]| -> u64 {
        let proxies = arena.cluster.proxies().iter();
        proxies.map(|proxy| proxy.seen(apis)).sum()
    };
    eprintln!(
        "{:>6.1} s  {} transactions and {} commits passed the proxies",
        start.elapsed().as_secs_f64(),
        commits(&[api::END_TXN]),
        commits(&[api::OFFSET_COMMIT]),
    );
    arena.finish()
}
