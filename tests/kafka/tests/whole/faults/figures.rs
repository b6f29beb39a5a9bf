//! How long a failover and a revoke take.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use millstream_test_support::cluster::{self, Cluster};
use millstream_test_support::frames::api;
use millstream_test_support::wait::eventually;
use tokio::time::Instant;

use super::super::order_lines;
use super::super::setup::{self, Names, PARTITIONS, PATIENCE};
use super::super::verify::Promise;
use super::arena::{Arena, CHUNK};

const PROMISES: [Promise; 3] = [Promise::AtMost, Promise::AtLeast, Promise::Exactly];

/// `session.timeout.ms` of the runtimes, and what may come on top until work goes on elsewhere.
const SESSION: Duration = Duration::from_secs(6);
const REBALANCE: Duration = Duration::from_secs(2);
/// A transaction that the killed runtime left open holds its positions back until the coordinator
/// ends it: `transaction.timeout.ms`, and the ten seconds between two looks of the coordinator.
const OPEN_TRANSACTION: Duration = Duration::from_secs(15 + 10);
const FAILOVERS: usize = 3;

/// What a runtime has in flight when partitions are taken from it, and how long that may take.
const IN_FLIGHT: usize = 10_000;
/// Of it three quarters are for admitted events, and work begins again at five eighths.
const BUDGET: usize = IN_FLIGHT * 8 / 5;
const REVOKE: Duration = Duration::from_millis(500);
/// Commits go one at a time: the one on its way, that of the partitions, and some by chance.
const FEW_COMMITS: usize = 20;

#[test]
#[ignore = "measures: make faults"]
fn the_partitions_of_a_killed_runtime_are_taken_over_after_its_session() -> Result<()> {
    let _turn = setup::turn();
    let Some(cluster) = cluster::with(1, &[]) else {
        return Ok(());
    };
    let mut arena = Arena::start(cluster, &PROMISES)?;
    let mut late = Vec::new();
    for at in (0..2).cycle().take(FAILOVERS) {
        arena.feed_until(CHUNK, |arena| {
            arena.runtimes[at].kill9()?;
            let killed = Instant::now();
            let mut waiting: Vec<Promise> = PROMISES.into();
            arena.runtimes[1 - at].until_scrape("given all partitions", PATIENCE, |scrape| {
                waiting.retain(|promise| {
                    let of = [("consumer", promise.delivery())];
                    // A partition counts once its position is known and it is fetched.
                    let back = scrape.sum("millstream_assigned_partitions", &of)
                        > f64::from(PARTITIONS) - 0.5;
                    let allowed = match promise {
                        Promise::Exactly => SESSION + REBALANCE + OPEN_TRANSACTION,
                        Promise::AtMost | Promise::AtLeast => SESSION + REBALANCE,
                    };
                    let took = killed.elapsed();
                    if back {
                        let told = format!("{}: failover in {took:.1?}", promise.delivery());
                        eprintln!("{told}");
                        late.extend((took > allowed).then_some(told));
                    }
                    !back
                });
                waiting.is_empty()
            })
        })?;
        arena.runtimes[at] = arena.sites[at].start(&[])?;
        arena.until_calm()?;
    }
    arena.finish()?;
    ensure!(late.is_empty(), "sessions last {SESSION:?}, but {late:?}");
    Ok(())
}

/// At most once the partitions that stay are committed again and again: a revoke that waited until
/// nothing is on its way to the broker would wait for hundreds of commits.
#[test]
fn a_revoke_does_not_wait_for_commits_of_other_partitions() -> Result<()> {
    let _turn = setup::turn();
    let Some(cluster) = cluster::with(1, &[]) else {
        return Ok(());
    };
    let revoke = revoke(&cluster, Promise::AtMost)?;
    ensure!(revoke.commits <= FEW_COMMITS, "{revoke:?}");
    Ok(())
}

#[test]
#[ignore = "measures: make faults"]
fn a_revoke_with_thousands_in_flight_is_short() -> Result<()> {
    let _turn = setup::turn();
    let Some(cluster) = cluster::with(1, &[]) else {
        return Ok(());
    };
    let mut longest = Duration::ZERO;
    for promise in PROMISES {
        let revoke = revoke(&cluster, promise)?;
        eprintln!("{}: {revoke:.1?}", promise.delivery());
        longest = longest.max(revoke.took);
    }
    ensure!(
        longest <= REVOKE,
        "a revoke took {longest:?} with {IN_FLIGHT} events in flight"
    );
    Ok(())
}

/// What happened between the request for the answer that takes partitions away and the next request
/// to join.
#[derive(Debug)]
struct Revoke {
    took: Duration,
    /// Commits that were sent meanwhile.
    commits: usize,
}

/// Lets a second runtime take half the partitions of one that is full.
fn revoke(cluster: &Cluster, promise: Promise) -> Result<Revoke> {
    let names = Names::fresh("revoke");
    names.create(cluster.tools())?;
    let lines = order_lines::some(60_000)?;
    setup::produce(cluster.tools(), &names.source, &lines)?;
    let consumer = names.consumer(
        &format!("[\"{}\"]", names.source),
        &format!(
            "delivery = \"{}\"\nordering = \"key\"\nrate = \"4000/s\"\n\
             in_flight = {{ max_events = {BUDGET} }}",
            promise.delivery()
        ),
    )?;
    let sites = [
        setup::site(&cluster.bootstrap(), &consumer)?,
        setup::site(cluster.tools().bootstrap(), &consumer)?,
    ];
    let mut one = sites[0].start(&[])?;
    one.until_scrape("full", PATIENCE, |scrape| {
        let in_flight = scrape.sum("millstream_in_flight_events", &[]);
        in_flight >= IN_FLIGHT as f64 && setup::settled(scrape) > 1000
    })?;
    // Only the first runtime is seen by the proxy.
    let proxy = &cluster.proxies()[0];
    proxy.note(&[api::JOIN_GROUP, api::SYNC_GROUP, api::OFFSET_COMMIT]);
    let mut other = sites[1].start(&[])?;
    other.until_scrape("given its share", PATIENCE, |scrape| {
        scrape.sum("millstream_assigned_partitions", &[]) > 1.5
    })?;
    let mut found = None;
    eventually("the group is joined again", PATIENCE, || {
        found = found_in(&proxy.times());
        found.is_some()
    })?;
    for runtime in [&mut one, &mut other] {
        runtime.kill9()?;
    }
    found.context("no revoke")
}

/// The first revoke among the requests.
fn found_in(requests: &[(Instant, i16)]) -> Option<Revoke> {
    let first = |wanted: i16, from: usize| {
        let found = requests[from..]
            .iter()
            .position(|(_, kind)| *kind == wanted);
        found.map(|found| from + found)
    };
    let synced = first(api::SYNC_GROUP, 0)?;
    let joined = first(api::JOIN_GROUP, synced)?;
    Some(Revoke {
        took: requests[joined].0.duration_since(requests[synced].0),
        commits: joined - synced - 1,
    })
}
