//! The invariants, as predicates over what a run left behind.

use std::collections::{BTreeMap, BTreeSet};

use millstream::config::{Consumer, Delivery, Ordering};
use millstream::decide::offsets::Progress;
use millstream::event::TopicPartition;
use millstream::metrics::{Ledger, Outcome};

use crate::plugin;
use crate::rollout::Fleet;
use crate::scenario::{HOPS, Scenario};
use crate::trace::About;
use crate::world::{Input, World, place, show};

/// What is wrong, and with what.
pub type Wrong = Vec<(About, String)>;

/// A budget with room for a block of every partition: with less, events that stay can take all of it.
const ROOMY: usize = 100;

/// What is first in line of a partition that does not move must be an event that always fails, and
/// the breaker the one that keeps it. `before` is what was committed some seconds ago.
pub fn only_poison_stays(
    world: &World,
    before: &BTreeMap<TopicPartition, Progress>,
    settings: &Consumer,
) -> Wrong {
    let mut wrong = Wrong::new();
    for (partition, log) in (0..).zip(&world.input) {
        let committed = world.committed.get(&place(partition));
        if committed != before.get(&place(partition)) {
            continue;
        }
        let committed = committed.cloned().unwrap_or_default();
        let mut open = log.iter().filter(|event| !committed.covers(event.offset));
        let Some(first) = open.next() else {
            continue;
        };
        let starved = settings.in_flight.max_events < ROOMY;
        let poison = plugin::is_poison(&first.value);
        if settings.circuit_breaker.is_none() || !poison && !starved {
            let event = show(partition, first.offset);
            let text = format!("liveness: {event} `{}` is not settled", first.value);
            wrong.push((About::event(partition, first.offset), text));
        }
    }
    wrong
}

/// Where an event must end: derived or not, as a dead letter for a reason or not.
fn wanted(event: &Input, delivery: Delivery, dead_letters: bool) -> (bool, Option<&'static str>) {
    let once = delivery == Delivery::AtMostOnce;
    let reason = match plugin::reason(&event.value) {
        _ if event.hops > HOPS => Some("hops"),
        None if once && event.value.starts_with('~') => Some("retries-exhausted"),
        reason => reason,
    };
    let derived = reason.is_none() && !plugin::is_dropped(&event.value);
    (derived, reason.filter(|_| dead_letters))
}

/// Deaths after which an event is not run again.
const CRASH_DEATHS: usize = 3;

/// How many events outages may make dead letters. Before the breaker knows of an outage one event may
/// run out of attempts, and again after a crash. Where the outage shows by traps, which count once an
/// event, `consecutive` events less one may, and again after each that the plugin handles all the same.
fn spared(world: &World, scenario: &Scenario) -> usize {
    let mut outages = scenario.outages.len() + scenario.lives.len();
    if !scenario.outages.is_empty() {
        // Each version begins with a breaker that knows nothing, and may be taken back.
        outages += 2 * scenario.deeds.len();
    }
    let breaker = scenario.settings.circuit_breaker;
    let traps = scenario.outages.iter().any(|outage| outage.sign.is_slow());
    match breaker.filter(|_| traps) {
        Some(breaker) => {
            let handled = |event: &&Input| matches!(&*event.value, "drop" | "reject");
            let handled = world.input.iter().flatten().filter(handled).count();
            (outages + handled) * (breaker.consecutive as usize - 1).max(1)
        }
        None => outages,
    }
}

/// I1, and each dead letter for its reason; once the plugin is mended what always failed may come
/// out. At most once an event may be lost, and has one attempt. What retention took and the consumer
/// was told of is lost; what an operator skipped is nowhere.
pub fn ends(world: &World, scenario: &Scenario, mended: bool) -> Wrong {
    let delivery = scenario.settings.delivery;
    let spared = spared(world, scenario);
    let dead_letters = scenario.settings.dead_letter.is_some();
    let derived: BTreeSet<_> = world
        .derived
        .iter()
        .map(|w| (w.partition, w.offset))
        .collect();
    let reason = |reason: &Option<String>| reason.clone().unwrap_or_default();
    let dead: BTreeMap<_, _> = world
        .dead
        .iter()
        .map(|w| ((w.partition, w.offset), reason(&w.reason)))
        .collect();
    let mut wrong = Wrong::new();
    let mut victims = Vec::new();
    for (partition, log) in (0..).zip(&world.input) {
        for event in log {
            let place = (partition, event.offset);
            let dead = dead.get(&place).map(String::as_str);
            let found = (derived.contains(&place), dead);
            let wanted = wanted(event, delivery, dead_letters);
            let once = delivery == Delivery::AtMostOnce;
            let spoilt = world.spoilt.contains(&place);
            let excused = spoilt
                || world.gone.contains(&place)
                || world.skipping.contains(&place)
                || once && found == (false, None);
            let of_outage = ["retries-exhausted", "trap", "deadline"];
            let poison = plugin::is_poison(&event.value);
            let of_outage = dead.is_some_and(|dead| of_outage.contains(&dead));
            // What was given up for its own sake may come again, and out.
            let its_own = poison && dead == plugin::reason(&event.value);
            let victim = found != wanted && (mended || !poison) && of_outage && !its_own && !spoilt;
            let came_out = mended && poison && found.0;
            if victim && !once {
                victims.push(About::event(partition, event.offset));
            }
            // Three lives may have ended with it in flight.
            let crash = scenario.lives.len() >= CRASH_DEATHS && dead == Some("crash");
            if found != wanted && !victim && !came_out && !excused && !crash {
                let (event, value) = (show(partition, event.offset), &event.value);
                let text = format!("I1: {event} `{value}`: {found:?}, not {wanted:?}");
                wrong.push((About::event(place.0, place.1), text));
            }
        }
    }
    if let Some(about) = victims.get(spared) {
        let text = format!(
            "I1: outages made {} dead letters, not {spared}",
            victims.len()
        );
        wrong.push((*about, text));
    }
    wrong
}

/// I3: with repeats removed, derived events come in the order of their sources. What was jumped over
/// may still come from a zombie that had read it.
pub fn order(world: &World, ordering: Ordering) -> Wrong {
    let mut seen = BTreeSet::new();
    let mut last: BTreeMap<(u32, Option<String>), u64> = BTreeMap::new();
    let mut wrong = Wrong::new();
    // A dead letter that a crash forgot may be derived when it is read again.
    let dead: BTreeSet<_> = world.dead.iter().map(|w| (w.partition, w.offset)).collect();
    for wrote in &world.derived {
        let place = (wrote.partition, wrote.offset);
        if dead.contains(&place) || world.gone.contains(&place) || !seen.insert(place) {
            continue;
        }
        let scope = match (ordering, &wrote.key) {
            (Ordering::Partition, _) => (wrote.partition, None),
            (Ordering::Key, Some(key)) => (wrote.partition, Some(key.clone())),
            (Ordering::Key, None) | (Ordering::None, _) => continue,
        };
        let before = last.entry(scope.clone()).or_insert(0);
        if wrote.offset < *before {
            let text = format!("I3: {scope:?}: {} after {before}", wrote.offset);
            wrong.push((About::Events(wrote.partition, wrote.offset, *before), text));
        }
        *before = (*before).max(wrote.offset);
    }
    wrong
}

/// I10 and I5, at any moment; with `ended` nothing may be in flight.
pub fn accounting(ledger: &Ledger, settings: &Consumer, ended: bool) -> Wrong {
    let mut wrong = Wrong::new();
    let consumed: u64 = ledger.consumed.values().map(|volume| volume.events).sum();
    let settled: u64 = settled(ledger).iter().sum();
    let in_flight = ledger.in_flight;
    if consumed != settled + in_flight.events as u64 {
        let in_flight = in_flight.events;
        let text = format!("I10: consumed {consumed}, settled {settled}, in flight {in_flight}");
        wrong.push((About::All, text));
    }
    if in_flight.events > settings.in_flight.max_events {
        let (found, most) = (in_flight.events, settings.in_flight.max_events);
        let text = format!("I5: {found} events are in flight, more than {most}");
        wrong.push((About::All, text));
    }
    if ended && (in_flight.events != 0 || in_flight.bytes != 0) {
        let text = format!("I5: permits are lost: {in_flight:?} in flight at the end");
        wrong.push((About::All, text));
    }
    wrong
}

fn settled(ledger: &Ledger) -> [u64; 5] {
    [
        Outcome::Ok,
        Outcome::Filtered,
        Outcome::Dropped,
        Outcome::DeadLettered,
        Outcome::Abandoned,
    ]
    .map(|outcome| ledger.settled_as(outcome))
}

/// I9: what versions in shadow do is in no metric.
pub fn shadows_count_for_nothing(ledger: &Ledger, fleet: &Fleet) -> Wrong {
    let (counted, started) = (ledger.instantiations_ok, fleet.started);
    match counted > started {
        true => {
            let text = format!("I9: {counted} instances are counted, and {started} were started");
            vec![(About::All, text)]
        }
        false => Wrong::new(),
    }
}

/// Whether a consumer that goes on had to stop for its dead letters; asked within the minute that
/// is looked back. The `undeliverable` ones, which the broker's refusals made, are not the plugin's.
pub fn must_have_stopped(ledger: &Ledger, settings: &Consumer, undeliverable: u64) -> bool {
    let max_ratio = settings.dead_letter.as_ref().and_then(|to| to.max_ratio);
    let dead = ledger.dead_letters().saturating_sub(undeliverable);
    let events = settled(ledger).iter().sum::<u64>() + ledger.in_flight.events as u64;
    max_ratio.is_some_and(|ratio| dead >= 20 && dead as f64 > ratio * events as f64)
}
