//! A whole run by a seed, and its verdict.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use millstream::config::{
    Batch, CircuitBreaker, CommitCadence, Consumer, DeadLetter, Delivery, InFlight, Limits,
    OnLostPosition, Ordering, Output, PluginSource, Rate, Retry, Start, TopicPattern,
};
use millstream::consumer::generation::Generation;
use millstream::consumer::runner::{Parts, Runner};
use millstream::consumer::status;
use millstream::event::TopicPartition;
use millstream::metrics::{Metrics, Outcome};
use millstream_wire as wire;
use parking_lot::Mutex;
use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::broker::{self, Hostility};
use crate::plugin::{self, Outage, SimPlugin};
use crate::world::{DEAD, INPUT, OUTPUT, SharedWorld, World};

/// Virtual time after which lag must have returned to zero.
const LIVENESS: Duration = Duration::from_secs(300);

/// Virtual time after which only events that always fail may be unsettled; then the plugin is mended.
/// After deaths events are tried one at a time, each while the breaker lets it.
const MENDED_AFTER: Duration = Duration::from_secs(60);

/// Deaths after which an event is not run again.
const CRASH_DEATHS: u64 = 3;

/// A budget with room for a block of every partition: with less, events that stay can take all of it.
const ROOMY: usize = 100;

/// Runs a seed and returns everything that it shows to be wrong.
pub fn run(seed: u64) -> Vec<String> {
    fastrand::seed(seed);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build();
    match runtime {
        Ok(runtime) => runtime.block_on(simulate(seed)),
        Err(error) => vec![format!("no runtime: {error}")],
    }
}

async fn simulate(seed: u64) -> Vec<String> {
    let mut random = fastrand::Rng::with_seed(seed);
    let orderings = [Ordering::Partition, Ordering::Key, Ordering::None];
    let ordering = orderings[random.usize(0..3)];
    let deliveries = [
        Delivery::AtLeastOnce,
        Delivery::ExactlyOnce,
        Delivery::AtMostOnce,
    ];
    let delivery = deliveries[random.usize(0..3)];
    let settings = Arc::new(settings(ordering, delivery, &mut random));
    let partitions = random.u32(1..4);
    let events = random.usize(20..120);
    let world: SharedWorld = Arc::new(Mutex::new(World::new(&mut random, partitions, events)));
    {
        let mut world = world.lock();
        world.claims = delivery == Delivery::AtMostOnce;
        world.once = delivery != Delivery::AtLeastOnce;
    }
    let plugin = Arc::new(SimPlugin::new(random.u64(..)));
    let outages = match settings.circuit_breaker {
        Some(_) => outages(&mut random),
        None => Vec::new(),
    };
    plugin.fail_in(outages.clone());
    let crashes = random.u64(0..4);
    for incarnation in 1..=crashes {
        let hostility = Hostility {
            revoke: random.f64() * 0.05,
            publish_fails: random.f64() * 0.2,
            commit_fails: random.f64() * 0.2,
        };
        let session = broker::join(world.clone(), random.u64(..), incarnation, hostility);
        let (runner, _metrics) = incarnate(&settings, &plugin, session);
        let (_drain, drained) = oneshot::channel();
        let lives = Duration::from_millis(random.u64(1..400));
        // A crash: everything that is not durable is gone.
        let _ = tokio::time::timeout(lives, runner.run(drained)).await;
        world.lock().owners.clear();
    }
    let calm = Hostility {
        revoke: 0.0,
        publish_fails: 0.0,
        commit_fails: 0.0,
    };
    let session = broker::join(world.clone(), random.u64(..), crashes + 1, calm);
    let (runner, metrics) = incarnate(&settings, &plugin, session);
    let (drain, drained) = oneshot::channel();
    let task = tokio::spawn(runner.run(drained));
    let begun = Instant::now();
    let mut wrong = Vec::new();
    let mut mended = false;
    while !world.lock().is_done() {
        tokio::time::sleep(Duration::from_millis(50)).await;
        if begun.elapsed() > MENDED_AFTER && !mended {
            // Several events that always fail, and none that succeeds, are an outage to the breaker.
            mended = true;
            wrong.extend(only_poison_stays(&world.lock(), &settings));
            plugin.mend();
        }
        if begun.elapsed() > LIVENESS {
            wrong.push("liveness: lag has not returned to zero".to_owned());
            break;
        }
    }
    let _ = drain.send(Instant::now() + Duration::from_secs(10));
    match task.await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => wrong.push(format!("the consumer failed: {error:#}")),
        Err(panic) => wrong.push(format!("the consumer panicked: {panic}")),
    }
    wrong.extend(accounting(&metrics, &settings));
    let world = world.lock();
    wrong.extend(world.violations.iter().cloned());
    if delivery == Delivery::AtMostOnce {
        wrong.extend(plugin.repeats());
    } else {
        // What is claimed while the breaker was closed is called whatever became of it: it would be
        // lost.
        wrong.extend(plugin.violations());
    }
    // Before the breaker knows of an outage one event may run out of attempts, and again after a
    // crash; no more.
    let spared = outages.len() + crashes as usize;
    wrong.extend(ends(&world, delivery, mended, spared, crashes));
    wrong.extend(order(&world, ordering));
    if !wrong.is_empty() {
        wrong.push(format!("{delivery:?}, {ordering:?}, {crashes} crashes"));
    }
    wrong
}

/// Times in which every event fails that would be forwarded.
fn outages(random: &mut fastrand::Rng) -> Vec<Outage> {
    let mut outage = |_| {
        let from = Instant::now() + Duration::from_millis(random.u64(0..300));
        let remedies = [
            wire::REMEDY_RETRY,
            wire::REMEDY_RETRY,
            wire::REMEDY_UNAVAILABLE,
        ];
        Outage {
            from,
            until: from + Duration::from_millis(random.u64(20..2_000)),
            remedy: remedies[random.usize(0..3)],
        }
    };
    (0..2).map(&mut outage).collect()
}

/// What is first in line of a partition that does not move must be an event that always fails, and
/// the breaker the one that keeps it.
fn only_poison_stays(world: &World, settings: &Consumer) -> Vec<String> {
    let mut wrong = Vec::new();
    for (partition, log) in (0..).zip(&world.input) {
        let name = TopicPartition::new(INPUT, partition);
        let committed = world.committed.get(&name).cloned().unwrap_or_default();
        let mut open = log.iter().filter(|event| !committed.covers(event.offset));
        let Some(first) = open.next() else {
            continue;
        };
        let starved = settings.in_flight.max_events < ROOMY;
        let poison = plugin::reason(&first.value).is_some();
        if settings.circuit_breaker.is_none() || !poison && !starved {
            let (offset, value) = (first.offset, &first.value);
            wrong.push(format!("liveness: {name} stands at {offset} `{value}`"));
        }
    }
    wrong
}

fn incarnate(
    settings: &Arc<Consumer>,
    plugin: &Arc<SimPlugin>,
    session: millstream::broker::Session,
) -> (Runner, Metrics) {
    let metrics = Metrics::new();
    let generation = Arc::new(Generation {
        number: 1,
        plugin: plugin.clone(),
        settings: settings.clone(),
    });
    let status = status::starting(1, generation.digest().clone());
    plugin.watch(status.clone());
    let runner = Runner::new(Parts {
        status,
        ledger: metrics.ledger(&settings.name),
        generation,
        session,
        first_instance: None,
    });
    (runner, metrics)
}

/// I1, and each dead letter for its reason; once the plugin is mended what always failed may come
/// out. At most `spared` others are dead letters, from outages. At most once an event may be lost, and
/// has one attempt.
fn ends(
    world: &World,
    delivery: Delivery,
    mended: bool,
    spared: usize,
    crashes: u64,
) -> Vec<String> {
    let derived: BTreeSet<_> = world
        .derived
        .iter()
        .map(|w| (w.partition, w.offset))
        .collect();
    let dead: BTreeMap<_, _> = world
        .dead
        .iter()
        .map(|w| {
            (
                (w.partition, w.offset),
                w.reason.clone().unwrap_or_default(),
            )
        })
        .collect();
    let mut wrong = Vec::new();
    let mut victims = 0;
    for (partition, log) in world.input.iter().enumerate() {
        for event in log {
            let place = (partition as u32, event.offset);
            let found = (
                derived.contains(&place),
                dead.get(&place).map(String::as_str),
            );
            let wanted = match plugin::reason(&event.value) {
                Some(reason) => (false, Some(reason)),
                None => (!plugin::is_dropped(&event.value), None),
            };
            let once = delivery == Delivery::AtMostOnce;
            let wanted = match once && event.value.starts_with('~') {
                true => (false, Some("retries-exhausted")),
                false => wanted,
            };
            let lost = once && found == (false, None);
            let victim = wanted.1.is_none() && found.1 == Some("retries-exhausted");
            victims += usize::from(victim && !once);
            let came_out = mended && wanted.1.is_some() && found.0;
            // Three lives ended with it in flight.
            let crash = crashes >= CRASH_DEATHS && found.1 == Some("crash");
            if found != wanted && !victim && !came_out && !lost && !crash {
                wrong.push(format!(
                    "I1: {place:?} `{}`: {found:?}, not {wanted:?}",
                    event.value
                ));
            }
        }
    }
    if victims > spared {
        wrong.push(format!(
            "I1: an outage made {victims} dead letters, not {spared}"
        ));
    }
    wrong
}

/// I3: with repeats removed, derived events come in the order of their sources.
fn order(world: &World, ordering: Ordering) -> Vec<String> {
    let mut seen = BTreeSet::new();
    let mut last: BTreeMap<(u32, Option<String>), u64> = BTreeMap::new();
    let mut wrong = Vec::new();
    // A dead letter that a crash forgot may be derived when it is read again.
    let dead: BTreeSet<_> = world.dead.iter().map(|w| (w.partition, w.offset)).collect();
    for wrote in &world.derived {
        if dead.contains(&(wrote.partition, wrote.offset)) {
            continue;
        }
        if !seen.insert((wrote.partition, wrote.offset)) {
            continue;
        }
        let scope = match (ordering, &wrote.key) {
            (Ordering::Partition, _) => (wrote.partition, None),
            (Ordering::Key, Some(key)) => (wrote.partition, Some(key.clone())),
            (Ordering::Key, None) | (Ordering::None, _) => continue,
        };
        let before = last.entry(scope.clone()).or_insert(0);
        if wrote.offset < *before {
            wrong.push(format!("I3: {scope:?}: {} after {before}", wrote.offset));
        }
        *before = (*before).max(wrote.offset);
    }
    wrong
}

/// I10, and a budget that is free again.
fn accounting(metrics: &Metrics, settings: &Consumer) -> Vec<String> {
    let ledger = metrics.ledger(&settings.name);
    let ledger = ledger.lock();
    let consumed: u64 = ledger.consumed.values().map(|volume| volume.events).sum();
    let outcomes = [
        Outcome::Ok,
        Outcome::Filtered,
        Outcome::Dropped,
        Outcome::DeadLettered,
        Outcome::Abandoned,
    ];
    let settled: u64 = outcomes
        .iter()
        .map(|outcome| ledger.settled_as(*outcome))
        .sum();
    let mut wrong = Vec::new();
    if consumed != settled + ledger.in_flight.events as u64 {
        let in_flight = ledger.in_flight.events;
        wrong.push(format!(
            "I10: consumed {consumed}, settled {settled}, in flight {in_flight}"
        ));
    }
    if ledger.in_flight.events != 0 || ledger.in_flight.bytes != 0 {
        wrong.push(format!(
            "permits are lost: {:?} in flight at the end",
            ledger.in_flight
        ));
    }
    wrong
}

fn settings(ordering: Ordering, delivery: Delivery, random: &mut fastrand::Rng) -> Consumer {
    Consumer {
        name: "sim".into(),
        group: "millstream.sim".into(),
        enabled: true,
        plugin: PluginSource {
            path: "sim.wasm".into(),
            sha256: None,
        },
        topics: vec![TopicPattern::Name(INPUT.into())],
        start: Some(Start::Beginning),
        delivery,
        ordering,
        concurrency: random.u32(1..5),
        filter: Default::default(),
        batch: Batch {
            max_events: random.usize(1..20),
            max_bytes: 1 << 20,
        },
        in_flight: InFlight {
            max_events: random.usize(8..200),
            max_bytes: 1 << 20,
        },
        commit: CommitCadence {
            interval: Duration::from_millis(random.u64(1..50)),
            max_events: random.usize(1..100),
        },
        limits: Limits {
            memory: 1 << 20,
            deadline: Duration::from_millis(50),
            call: Duration::from_secs(1),
            init: Duration::from_secs(1),
            outputs: 10_000,
            output_bytes: 1 << 24,
            headers: 64,
            hops: 16,
        },
        retry: Retry {
            max_attempts: 5,
            initial: Duration::from_millis(5),
            max: Duration::from_millis(100),
            factor: 2.0,
            jitter: true,
            max_age: Duration::from_secs(3_600),
        },
        circuit_breaker: (random.f64() < 0.8).then(|| CircuitBreaker {
            failure_ratio: 0.3 + random.f64() * 0.7,
            min_events: random.u32(5..20),
            consecutive: random.u32(2..8),
            window: Duration::from_millis(random.u64(20..500)),
            open_for: Duration::from_millis(random.u64(5..80)),
            probes: random.u32(1..4),
        }),
        rate: (random.f64() < 0.2).then(|| Rate {
            events: random.u32(200..5_000),
            per: Duration::from_secs(1),
        }),
        dead_letter: Some(DeadLetter {
            topic: DEAD.into(),
            max_ratio: None,
        }),
        config: "{}".into(),
        outputs: vec![Output {
            name: "default".into(),
            topic: Some(OUTPUT.into()),
            partitions: None,
        }],
        on_lost_position: OnLostPosition::Stop,
    }
}
