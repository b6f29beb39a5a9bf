use proptest::prelude::*;

use super::*;

const SETTINGS: CircuitBreaker = CircuitBreaker {
    failure_ratio: 0.5,
    min_events: 10,
    consecutive: 3,
    window: Duration::from_secs(10),
    open_for: Duration::from_secs(5),
    probes: 2,
};
const NEVER: CircuitBreaker = CircuitBreaker {
    consecutive: 1_000,
    min_events: 1_000,
    ..SETTINGS
};

fn failure(event: u64) -> Failure {
    Failure {
        event: (1, event),
        counts: true,
        exhausted: false,
    }
}

fn last(event: u64) -> Failure {
    Failure {
        exhausted: true,
        ..failure(event)
    }
}

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

#[test]
fn failures_in_a_row_open_it_and_a_success_between_starts_over() {
    let now = Instant::now();
    let mut breaker = Breaker::new(SETTINGS, now);
    for event in [1, 2] {
        breaker.failed(Pass::Free, failure(event), now);
    }
    breaker.succeeded(Pass::Free, 1, now);
    for event in [1, 2] {
        breaker.failed(Pass::Free, failure(event), now);
    }
    assert_eq!(breaker.phase(), Phase::Closed);
    assert_eq!(breaker.failed(Pass::Free, failure(3), now), Sentence::Stays);
    assert_eq!(breaker.phase(), Phase::Open);
    assert_eq!(breaker.cause(), Some(Cause::Consecutive(3)));
    assert_eq!(breaker.lets(now + seconds(4)), None);
}

#[test]
fn a_ratio_of_the_window_opens_it_once_there_is_enough_to_judge_by() {
    let now = Instant::now();
    let settings = CircuitBreaker {
        consecutive: 1_000,
        ..SETTINGS
    };
    let mut breaker = Breaker::new(settings, now);
    for event in 0..4 {
        breaker.failed(Pass::Free, failure(event), now);
    }
    breaker.succeeded(Pass::Free, 5, now);
    assert_eq!(breaker.phase(), Phase::Closed);
    breaker.failed(Pass::Free, failure(5), now);
    assert_eq!(breaker.cause(), Some(Cause::Ratio { failed: 5, of: 10 }));
    // The same, but half of it is older than the window.
    let mut breaker = Breaker::new(settings, now);
    for event in 0..5 {
        breaker.failed(Pass::Free, failure(event), now);
    }
    let later = now + seconds(10);
    breaker.succeeded(Pass::Free, 5, later);
    breaker.failed(Pass::Free, failure(9), later);
    assert_eq!(breaker.phase(), Phase::Closed);
}

#[test]
fn probes_are_few_and_close_it_and_one_that_fails_opens_it_again() {
    let now = Instant::now();
    let mut breaker = Breaker::new(SETTINGS, now);
    breaker.unavailable(Duration::ZERO, now);
    assert_eq!(breaker.open_until(), Some(now + seconds(5)));
    let now = now + seconds(5);
    let first = breaker.lets(now).expect("a probe");
    breaker.began(first);
    let second = breaker.lets(now).expect("another probe");
    breaker.began(second);
    assert_eq!(breaker.lets(now), None, "more probes at once than allowed");
    assert_eq!(
        breaker.failed(first, failure(1), now),
        Sentence::Counts,
        "nothing else is known to fail"
    );
    assert_eq!(breaker.phase(), Phase::Open);
    // The other one comes too late to close what was opened again.
    breaker.succeeded(second, 1, now);
    let now = now + seconds(5);
    for _ in 0..2 {
        assert_ne!(breaker.phase(), Phase::Closed);
        let probe = breaker.lets(now).expect("a probe");
        breaker.began(probe);
        breaker.succeeded(probe, 1, now);
        breaker.ended(probe);
    }
    assert_eq!(breaker.phase(), Phase::Closed);
    assert_eq!(breaker.transitions(), [1, 2, 2]);
}

/// A call that found nothing out (no instance to be had) must not use a probe up.
#[test]
fn a_probe_without_a_result_gives_its_place_back() {
    let now = Instant::now();
    let mut breaker = Breaker::new(SETTINGS, now);
    breaker.unavailable(seconds(1), now);
    let now = now + seconds(1);
    for _ in 0..5 {
        let probe = breaker.lets(now).expect("a probe");
        breaker.began(probe);
        breaker.ended(probe);
    }
    assert_eq!(breaker.phase(), Phase::HalfOpen);
}

#[test]
fn an_outage_keeps_every_event_but_the_first_alone() {
    let now = Instant::now();
    let mut breaker = Breaker::new(NEVER, now);
    assert_eq!(
        breaker.failed(Pass::Free, last(1), now),
        Sentence::Counts,
        "one alone may be at fault itself"
    );
    assert_eq!(breaker.failed(Pass::Free, last(2), now), Sentence::Stays);
    assert_eq!(breaker.cause(), Some(Cause::Outage));
    let mut now = now;
    for _ in 0..100 {
        now += seconds(5);
        let probe = breaker.lets(now).expect("a probe");
        breaker.began(probe);
        assert_eq!(breaker.failed(probe, last(2), now), Sentence::Stays);
        breaker.ended(probe);
    }
}

#[test]
fn poison_among_events_that_succeed_is_given_up() {
    let now = Instant::now();
    let mut breaker = Breaker::new(NEVER, now);
    breaker.succeeded(Pass::Free, 1, now);
    for event in 1..5 {
        assert_eq!(
            breaker.failed(Pass::Free, last(event), now),
            Sentence::Counts
        );
    }
    // The success is forgotten with the window, and so are the failures.
    let now = now + seconds(10);
    assert_eq!(breaker.failed(Pass::Free, last(5), now), Sentence::Counts);
    assert_eq!(breaker.failed(Pass::Free, last(6), now), Sentence::Stays);
}

/// Everything behind an event that fails alone waits for it: it must end, breaker or not.
#[test]
fn a_lone_event_opens_it_and_is_given_up_even_so() {
    let now = Instant::now();
    let mut breaker = Breaker::new(SETTINGS, now);
    for _ in 0..3 {
        assert_eq!(
            breaker.failed(Pass::Free, failure(1), now),
            Sentence::Counts
        );
    }
    let now = now + seconds(5);
    let probe = breaker.lets(now).expect("a probe");
    assert_eq!(breaker.failed(probe, last(1), now), Sentence::Counts);
    // What comes after it and fails too shows that it was not alone.
    let now = now + seconds(5);
    let probe = breaker.lets(now).expect("a probe");
    assert_eq!(breaker.failed(probe, last(2), now), Sentence::Stays);
}

#[test]
fn what_does_not_count_opens_nothing() {
    let now = Instant::now();
    let mut breaker = Breaker::new(SETTINGS, now);
    for _ in 0..50 {
        let again = Failure {
            counts: false,
            ..failure(1)
        };
        breaker.failed(Pass::Free, again, now);
    }
    assert_eq!(breaker.phase(), Phase::Closed);
}

#[test]
fn the_plugins_own_time_is_kept_and_the_longest_holds() {
    let now = Instant::now();
    let mut breaker = Breaker::new(SETTINGS, now);
    breaker.unavailable(seconds(60), now);
    breaker.unavailable(seconds(1), now);
    assert_eq!(breaker.open_until(), Some(now + seconds(60)));
    assert_eq!(breaker.transitions(), [0, 1, 0]);
}

/// The same rules over a list of all that ever happened.
struct Naive {
    settings: CircuitBreaker,
    phase: Phase,
    until: u64,
    running: Vec<usize>,
    succeeded: u32,
    /// Slot and whether it was good, since it last closed.
    counted: Vec<(u64, bool)>,
    in_a_row: u32,
    /// Since the last success.
    failing: Vec<(u64, u64)>,
    transitions: [u64; 3],
}

impl Naive {
    fn turn(&mut self, phase: Phase) {
        self.phase = phase;
        self.transitions[phase as usize] += 1;
    }

    fn slot(&self, at: u64) -> u64 {
        at / (self.settings.window.as_millis() as u64 / 10)
    }

    fn tick(&mut self, at: u64) {
        if self.phase == Phase::Open && self.until <= at {
            self.turn(Phase::HalfOpen);
            self.running.clear();
            self.succeeded = 0;
        }
    }

    fn open(&mut self, until: u64, at: u64) {
        if self.phase == Phase::Closed {
            let oldest = (self.slot(at) + 1).saturating_sub(10);
            self.failing.retain(|(_, slot)| *slot >= oldest);
            self.in_a_row = 0;
        }
        self.until = match self.phase {
            Phase::Open => self.until.max(until),
            _ => until,
        };
        if self.phase != Phase::Open {
            self.turn(Phase::Open);
        }
    }

    fn others(&self, event: u64, at: u64) -> bool {
        let oldest = match self.phase {
            Phase::Closed => (self.slot(at) + 1).saturating_sub(10),
            _ => 0,
        };
        self.failing
            .iter()
            .any(|(other, slot)| *other != event && *slot >= oldest)
    }

    fn good(&mut self, call: usize, events: u64, at: u64) {
        self.in_a_row = 0;
        self.failing.clear();
        match self.phase {
            Phase::Closed => {
                let slot = self.slot(at);
                self.counted.extend((0..events).map(|_| (slot, true)));
            }
            Phase::HalfOpen if self.running.contains(&call) => {
                self.succeeded += 1;
                if self.succeeded >= self.settings.probes {
                    self.counted.clear();
                    self.turn(Phase::Closed);
                }
            }
            _ => {}
        }
    }

    fn bad(&mut self, call: usize, failure: Failure, at: u64) -> Sentence {
        let event = failure.event.1;
        let slot = self.slot(at);
        self.failing.push((event, slot));
        let open_for = self.settings.open_for.as_millis() as u64;
        match self.phase {
            Phase::Closed => {
                if failure.counts {
                    self.in_a_row += 1;
                    self.counted.push((slot, false));
                }
                let recent = self.counted.iter().filter(|(then, _)| then + 10 > slot);
                let all = recent.clone().count();
                let good = recent.filter(|(_, good)| *good).count();
                let row = self.in_a_row >= self.settings.consecutive;
                let ratio = all >= self.settings.min_events as usize
                    && (all - good) as f64 >= self.settings.failure_ratio * all as f64;
                let outage = failure.exhausted && good == 0 && self.others(event, at);
                if !(failure.counts && (row || ratio) || outage) {
                    return Sentence::Counts;
                }
                self.open(at + open_for, at);
            }
            Phase::HalfOpen if self.running.contains(&call) => self.open(at + open_for, at),
            _ => {}
        }
        match self.others(event, at) {
            true => Sentence::Stays,
            false => Sentence::Counts,
        }
    }
}

#[derive(Clone, Debug)]
enum Step {
    Wait(u64),
    Begin,
    Good(usize, u64),
    Bad(usize, u64, bool, bool),
    Unavailable(usize, u64),
    Nothing(usize),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0_u64..400).prop_map(Step::Wait),
        8 => Just(Step::Begin),
        3 => (any::<usize>(), 1_u64..5).prop_map(|(call, events)| Step::Good(call, events)),
        6 => (any::<usize>(), 0_u64..4, any::<bool>(), any::<bool>())
            .prop_map(|(call, event, counts, last)| Step::Bad(call, event, counts, last)),
        1 => (any::<usize>(), 0_u64..300).prop_map(|(call, after)| Step::Unavailable(call, after)),
        1 => any::<usize>().prop_map(Step::Nothing),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn it_agrees_with_a_naive_model(
        steps in prop::collection::vec(step(), 1..150),
        failure_ratio in 0.1..=1.0,
        min_events in 1_u32..12,
        consecutive in 1_u32..6,
        window in 1_u64..40,
        open_for in 1_u64..300,
        probes in 1_u32..4,
    ) {
        let settings = CircuitBreaker {
            failure_ratio,
            min_events,
            consecutive,
            window: Duration::from_millis(window * 10),
            open_for: Duration::from_millis(open_for),
            probes,
        };
        let begun = Instant::now();
        let mut breaker = Breaker::new(settings, begun);
        let mut naive = Naive {
            settings,
            phase: Phase::Closed,
            until: 0,
            running: Vec::new(),
            succeeded: 0,
            counted: Vec::new(),
            in_a_row: 0,
            failing: Vec::new(),
            transitions: [0; 3],
        };
        let mut at = 0;
        let mut calls: Vec<(usize, Pass)> = Vec::new();
        let mut number = 0;
        for step in steps {
            let now = begun + Duration::from_millis(at);
            let pick = |which: usize, calls: &mut Vec<(usize, Pass)>| {
                (!calls.is_empty()).then(|| calls.swap_remove(which % calls.len()))
            };
            let ended = match step {
                Step::Wait(millis) => {
                    at += millis;
                    None
                }
                Step::Begin => {
                    let pass = breaker.lets(now);
                    naive.tick(at);
                    let wanted = match naive.phase {
                        Phase::Closed => true,
                        Phase::Open => false,
                        Phase::HalfOpen => naive.running.len() < probes as usize,
                    };
                    prop_assert_eq!(pass.is_some(), wanted);
                    if let Some(pass) = pass {
                        let probe = naive.phase == Phase::HalfOpen;
                        prop_assert_eq!(matches!(pass, Pass::Probe(_)), probe);
                        breaker.began(pass);
                        number += 1;
                        calls.push((number, pass));
                        if probe {
                            naive.running.push(number);
                        }
                    }
                    None
                }
                Step::Good(which, events) => {
                    let call = pick(which, &mut calls);
                    if let Some((call, pass)) = call {
                        let events = if pass == Pass::Free { events } else { 1 };
                        breaker.succeeded(pass, events, now);
                        naive.good(call, events, at);
                    }
                    call
                }
                Step::Bad(which, event, counts, exhausted) => {
                    let call = pick(which, &mut calls);
                    if let Some((call, pass)) = call {
                        let failure = Failure { event: (1, event), counts, exhausted };
                        let found = breaker.failed(pass, failure, now);
                        prop_assert_eq!(found, naive.bad(call, failure, at));
                    }
                    call
                }
                Step::Unavailable(which, after) => {
                    let call = pick(which, &mut calls);
                    if call.is_some() {
                        breaker.unavailable(Duration::from_millis(after), now);
                        let after = if after == 0 { open_for } else { after };
                        naive.open(at + after, at);
                    }
                    call
                }
                Step::Nothing(which) => pick(which, &mut calls),
            };
            if let Some((call, pass)) = ended {
                breaker.ended(pass);
                naive.running.retain(|running| *running != call);
            }
            prop_assert_eq!(breaker.phase(), naive.phase);
            prop_assert_eq!(breaker.transitions(), naive.transitions);
        }
    }
}
