//! What a seed chooses: the consumer's settings, its lives, and what befalls them.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use millstream::config::{
    Batch, Capabilities, CircuitBreaker, CommitCadence, Consumer, DeadLetter, Delivery, Deploy,
    InFlight, Limits, OnLostPosition, Ordering, Output, PluginSource, Rate, Retry, Start,
    TopicPattern,
};
use millstream::decide::admission::Budget;
use tokio::time::Instant;

use crate::member::Hostility;
use crate::plugin::{Outage, Sign};
use crate::rollout::{self, Deed};
use crate::world::{DEAD, INPUT, OUTPUT};

/// Through how many consumers an event may come where a topology feeds itself.
pub const HOPS: u32 = 3;

/// How a life of the consumer ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Everything that is not durable is gone.
    Crash,
    /// The group goes on without it; it hears of it after this time, and goes on for a while.
    Zombie(Duration),
    /// Its store takes nothing any more, and some time later it ends itself.
    Poisoned(Duration),
}

/// A life of the consumer.
#[derive(Clone, Copy, Debug)]
pub struct Life {
    pub lasts: Duration,
    pub hostility: Hostility,
    pub end: End,
    /// Whether an operator mends lost positions before it.
    pub reset: bool,
    /// Whether it has a transactional id of its own, so that it does not end what the one before
    /// left open.
    pub fresh_id: bool,
    /// When retention overtakes a partition, and which.
    pub retention: Option<(Duration, u32)>,
}

/// See the module.
#[derive(Clone, Debug)]
pub struct Scenario {
    pub settings: Arc<Consumer>,
    pub partitions: u32,
    /// Events in each of them.
    pub events: usize,
    pub lives: Vec<Life>,
    pub outages: Vec<Outage>,
    /// Whether derived events come to the input again.
    pub feeds_back: bool,
    /// Whether retention is short.
    pub loses: bool,
    /// Deploys and the like, in order.
    pub deeds: Vec<Deed>,
}

impl fmt::Display for Scenario {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Consumer {
            delivery, ordering, ..
        } = &*self.settings;
        let (partitions, events) = (self.partitions, self.events);
        write!(
            to,
            "{delivery:?}, {ordering:?}, {partitions} partitions of {events} events"
        )?;
        for (number, life) in (1..).zip(&self.lives) {
            write!(to, "; life {number}: {:?}, then {:?}", life.lasts, life.end)?;
        }
        let breaker = self.settings.circuit_breaker.is_some();
        let dead_letters = self.settings.dead_letter.is_some();
        for (is, what) in [
            (!breaker, "no breaker"),
            (!dead_letters, "no dead letters"),
            (self.feeds_back, "feeds itself"),
            (self.loses, "retention overtakes"),
            (!self.outages.is_empty(), "outages"),
        ] {
            if is {
                write!(to, "; {what}")?;
            }
        }
        for deed in &self.deeds {
            write!(to, "; {deed}")?;
        }
        Ok(())
    }
}

impl Scenario {
    /// Chooses all of it.
    pub fn choose(random: &mut fastrand::Rng) -> Self {
        let orderings = [Ordering::Partition, Ordering::Key, Ordering::None];
        let ordering = orderings[random.usize(0..3)];
        let deliveries = [
            Delivery::AtLeastOnce,
            Delivery::ExactlyOnce,
            Delivery::AtMostOnce,
        ];
        let delivery = deliveries[random.usize(0..3)];
        let feeds_back = random.f64() < 0.1;
        let loses = !feeds_back && random.f64() < 0.25;
        let mut settings = settings(ordering, delivery, feeds_back, random);
        let mut outages = Vec::new();
        if let Some(breaker) = &mut settings.circuit_breaker {
            outages.extend((0..2).map(|_| outage(random)));
            // What takes longer than the window to fail is not seen together.
            if outages.iter().any(|outage: &Outage| outage.sign.is_slow()) {
                breaker.window += Duration::from_millis(500);
            }
        }
        let partitions = random.u32(1..4);
        let events = random.usize(
            20..match feeds_back {
                true => 40,
                false => 120,
            },
        );
        let lives = random.usize(0..4);
        Self {
            settings: Arc::new(settings),
            partitions,
            events,
            lives: (0..lives)
                .map(|_| life(loses, partitions, random))
                .collect(),
            outages,
            feeds_back,
            loses,
            deeds: Vec::new(),
        }
    }

    /// Chooses deploys too, for every other scenario.
    pub fn with_deeds(mut self, random: &mut fastrand::Rng) -> Self {
        if random.bool() {
            self.deeds = rollout::choose(random);
            if self.deeds.iter().any(Deed::takes_breaker) {
                self.outages.clear();
            }
        }
        self
    }

    /// The most events in a block. By the budget, a third of the scenarios has blocks that may not
    /// fit beside what is in flight, as a large event does, and must be kept back.
    pub fn most(&self) -> usize {
        let in_flight = self.settings.in_flight;
        match in_flight.max_events % 3 {
            0 => in_flight.max_events.min(12),
            _ => Budget::ahead(in_flight).events.min(12),
        }
    }
}

fn life(loses: bool, partitions: u32, random: &mut fastrand::Rng) -> Life {
    // Early on much is under way; later on much has failed.
    let lasts = match random.u32(0..10) {
        0..4 => random.u64(1..60),
        4..9 => random.u64(1..400),
        _ => random.u64(400..6_000),
    };
    let end = match random.u32(0..10) {
        0..3 => End::Zombie(Duration::from_millis(random.u64(1..800))),
        3 => End::Poisoned(Duration::from_millis(random.u64(5..500))),
        _ => End::Crash,
    };
    let retention = (loses && random.f64() < 0.7).then(|| {
        let at = Duration::from_millis(random.u64(0..lasts.min(300) + 1));
        (at, random.u32(0..partitions))
    });
    Life {
        lasts: Duration::from_millis(lasts),
        hostility: Hostility {
            revoke: random.f64() * 0.05,
            publish_fails: random.f64() * 0.2,
            commit_fails: random.f64() * 0.2,
            slow: random.f64() * 0.03,
            sticky: random.f64() * 0.3,
        },
        end,
        reset: random.bool(),
        fresh_id: random.f64() < 0.3,
        retention,
    }
}

/// A time in which every event fails that would be forwarded.
fn outage(random: &mut fastrand::Rng) -> Outage {
    let from = Instant::now() + Duration::from_millis(random.u64(0..300));
    let signs = [
        Sign::Retry,
        Sign::Retry,
        Sign::Unavailable,
        Sign::Trap,
        Sign::Hang,
    ];
    Outage {
        from,
        until: from + Duration::from_millis(random.u64(20..2_000)),
        sign: signs[random.usize(0..signs.len())],
    }
}

fn settings(
    ordering: Ordering,
    delivery: Delivery,
    feeds_back: bool,
    random: &mut fastrand::Rng,
) -> Consumer {
    Consumer {
        name: "sim".into(),
        previous_names: Vec::new(),
        group: "millstream.sim".into(),
        enabled: true,
        plugin: PluginSource {
            path: "sim.wasm".into(),
            sha256: None,
            remote: None,
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
            hops: HOPS,
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
        deploy: Deploy::default(),
        rate: (random.f64() < 0.2).then(|| Rate {
            events: random.u32(200..5_000),
            per: Duration::from_secs(1),
        }),
        // What feeds itself ends in dead letters, all of it.
        dead_letter: (feeds_back || random.f64() < 0.85).then(|| DeadLetter {
            topic: DEAD.into(),
            max_ratio: (!feeds_back && random.f64() < 0.2).then(|| random.f64() * 0.4),
        }),
        config: "{}".into(),
        outputs: vec![Output {
            name: "default".into(),
            topic: Some(if feeds_back { INPUT } else { OUTPUT }.into()),
            partitions: None,
        }],
        on_lost_position: [
            OnLostPosition::Stop,
            OnLostPosition::Beginning,
            OnLostPosition::End,
        ][random.usize(0..3)],
        capabilities: Capabilities::default(),
        secrets: BTreeMap::new(),
    }
}
