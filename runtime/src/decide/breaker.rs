//! The circuit breaker: when a consumer's calls stop because its plugin fails, or what the plugin
//! depends on is down, and how they begin again.
//!
//! ```text
//!            too many failures, `unavailable`, an outage
//!   closed ──────────────────────────────────────────────▶ open
//!     ▲                                                   │  ▲
//!     │ `probes` single events succeeded         open_for │  │ a probe failed
//!     └───────────────────────── half-open ◀──────────────┘──┘
//! ```
//!
//! An event that fails for good cannot be told from an outage by itself. So the breaker remembers
//! which events failed since the last success. Where two or more did, while it is not closed or
//! with no success in the window, each of them *stays*: no attempt of it counts, and it does not
//! become a dead letter. Where it is one alone it is tried as often as `retry` says and given up,
//! for everything behind it waits for it.

use std::fmt;
use std::time::Duration;

use tokio::time::Instant;

use super::window::{Counts, Window};
use crate::config::CircuitBreaker;
use crate::mutation::{self, Mutation};

/// An event, told apart from all others of its consumer: its assignment and its offset.
pub type EventId = (u64, u64);

/// What the breaker lets through.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Phase {
    #[default]
    Closed,
    Open,
    HalfOpen,
}

impl Phase {
    /// All of them, in the order of [`Breaker::transitions`].
    pub const ALL: [Self; 3] = [Self::Closed, Self::Open, Self::HalfOpen];

    /// One word for metrics and JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Open => "open",
            Self::HalfOpen => "half_open",
        }
    }
}

/// Why it opened last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// The plugin said so.
    Unavailable,
    Consecutive(u32),
    Ratio {
        failed: u64,
        of: u64,
    },
    /// The attempts of an event ran out while others failed and none succeeded.
    Outage,
    Probe,
}

impl fmt::Display for Cause {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unavailable => to.write_str("the plugin says that what it needs is down"),
            Self::Consecutive(failures) => write!(to, "{failures} failures in a row"),
            Self::Ratio { failed, of } => write!(to, "{failed} of the last {of} outcomes failed"),
            Self::Outage => to.write_str("several events fail and none succeeds"),
            Self::Probe => to.write_str("a probe failed"),
        }
    }
}

/// What a call was let through as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pass {
    Free,
    /// A single event, in the half-open phase of this number.
    Probe(u64),
}

/// How an attempt failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Failure {
    pub event: EventId,
    /// Whether it counts towards opening: a trap does once an event, however often it is tried.
    pub counts: bool,
    /// Whether the event has no attempt left.
    pub exhausted: bool,
}

/// What becomes of an event whose attempt failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sentence {
    /// The attempt counts: again after backoff, or given up after the last one.
    Counts,
    /// The event comes again with its attempts as they were.
    Stays,
}

#[derive(Clone, Copy, Debug)]
enum State {
    Closed,
    Open { until: Instant },
    HalfOpen { running: u32, succeeded: u32 },
}

/// See the module.
#[derive(Clone, Debug)]
pub struct Breaker {
    settings: CircuitBreaker,
    state: State,
    window: Window,
    /// Counted failures since the last success.
    consecutive: u32,
    /// The event that failed last since the last success, and the newest failure of another one;
    /// each with its slot of the window.
    latest: Option<(EventId, u64)>,
    other: Option<(EventId, u64)>,
    /// Counts half-open phases, so that a probe's end is not taken for one of a later phase.
    number: u64,
    transitions: [u64; 3],
    cause: Option<Cause>,
}

impl Breaker {
    /// A closed one.
    pub fn new(settings: CircuitBreaker, now: Instant) -> Self {
        Self {
            settings,
            state: State::Closed,
            window: Window::new(settings.window, now),
            consecutive: 0,
            latest: None,
            other: None,
            number: 0,
            transitions: [0; 3],
            cause: None,
        }
    }

    /// Counts on from there, in the place of another one.
    pub fn counts_on(&mut self, transitions: [u64; 3]) {
        self.transitions = transitions;
    }

    /// [`Self::transitions`], and one more where it is not closed and a closed one takes its place.
    pub fn transitions_once_closed(&self) -> [u64; 3] {
        let mut transitions = self.transitions;
        if self.phase() != Phase::Closed {
            transitions[Phase::Closed as usize] += 1;
        }
        transitions
    }

    /// Where it stands, as of the last call.
    pub fn phase(&self) -> Phase {
        match self.state {
            State::Closed => Phase::Closed,
            State::Open { .. } => Phase::Open,
            State::HalfOpen { .. } => Phase::HalfOpen,
        }
    }

    /// How often it became each of [`Phase::ALL`].
    pub fn transitions(&self) -> [u64; 3] {
        self.transitions
    }

    /// Why it opened last; `None` while it is closed.
    pub fn cause(&self) -> Option<Cause> {
        self.cause
    }

    /// When it stops being open.
    pub fn open_until(&self) -> Option<Instant> {
        match self.state {
            State::Open { until } => Some(until),
            _ => None,
        }
    }

    /// What the next call may be, if one may begin now. Ends an open phase whose time is over.
    pub fn lets(&mut self, now: Instant) -> Option<Pass> {
        if let State::Open { until } = self.state
            && until <= now
        {
            self.number += 1;
            self.turn(State::HalfOpen {
                running: 0,
                succeeded: 0,
            });
        }
        match self.state {
            State::Closed => Some(Pass::Free),
            State::Open { .. } if mutation::is(Mutation::BreakerLetsThrough) => Some(Pass::Free),
            State::Open { .. } => None,
            State::HalfOpen { running, .. } => {
                (running < self.settings.probes).then_some(Pass::Probe(self.number))
            }
        }
    }

    /// A call begins with what [`Self::lets`] gave.
    pub fn began(&mut self, pass: Pass) {
        if let Some((running, _)) = self.probing(pass) {
            *running += 1;
        }
    }

    /// The call ended, whatever came of it; once for each that began.
    pub fn ended(&mut self, pass: Pass) {
        if let Some((running, _)) = self.probing(pass) {
            *running = running.saturating_sub(1);
        }
    }

    /// So many events of a call succeeded: were handled, or rejected by the plugin.
    pub fn succeeded(&mut self, pass: Pass, events: u64, now: Instant) {
        if events == 0 {
            return;
        }
        self.consecutive = 0;
        (self.latest, self.other) = (None, None);
        if let State::Closed = self.state {
            let counts = Counts {
                good: events,
                bad: 0,
            };
            self.window.add(counts, now);
        }
        let probes = self.settings.probes;
        if let Some((_, succeeded)) = self.probing(pass) {
            *succeeded += 1;
            if *succeeded >= probes {
                self.window.clear();
                self.cause = None;
                self.turn(State::Closed);
            }
        }
    }

    /// An attempt failed.
    pub fn failed(&mut self, pass: Pass, failure: Failure, now: Instant) -> Sentence {
        if mutation::is(Mutation::BreakerForgets) {
            return Sentence::Counts;
        }
        self.remember(failure.event, now);
        if let State::Closed = self.state {
            if failure.counts {
                self.consecutive += 1;
                self.window.add(Counts { good: 0, bad: 1 }, now);
            }
            let counts = self.window.counts(now);
            let outage = failure.exhausted && !self.is_alone(now) && counts.good == 0;
            let Some(cause) = self.too_much(counts, failure.counts, outage) else {
                return Sentence::Counts;
            };
            self.open(cause, self.settings.open_for, now);
        } else if self.probing(pass).is_some() {
            self.open(Cause::Probe, self.settings.open_for, now);
        }
        match self.is_alone(now) {
            true => Sentence::Counts,
            false => Sentence::Stays,
        }
    }

    /// The plugin says that what every event needs is down. `after` is its own time; zero leaves it
    /// to `open_for`.
    pub fn unavailable(&mut self, after: Duration, now: Instant) {
        let after = match after {
            Duration::ZERO => self.settings.open_for,
            after => after,
        };
        self.open(Cause::Unavailable, after, now);
    }

    fn too_much(&self, counts: Counts, counted: bool, outage: bool) -> Option<Cause> {
        let of = counts.good + counts.bad;
        let ratio = self.settings.failure_ratio;
        if counted && self.consecutive >= self.settings.consecutive {
            Some(Cause::Consecutive(self.consecutive))
        } else if counted
            && of >= u64::from(self.settings.min_events)
            && counts.bad as f64 >= ratio * of as f64
        {
            let failed = counts.bad;
            Some(Cause::Ratio { failed, of })
        } else {
            outage.then_some(Cause::Outage)
        }
    }

    fn remember(&mut self, event: EventId, now: Instant) {
        let slot = self.window.slot(now);
        if let Some((before, _)) = self.latest
            && before != event
        {
            self.other = self.latest;
        }
        self.latest = Some((event, slot));
    }

    /// Whether no other event than the one that failed last is known to have failed: in the window
    /// while closed, since the opening or shortly before it else.
    fn is_alone(&self, now: Instant) -> bool {
        let closed = self.phase() == Phase::Closed;
        self.other
            .is_none_or(|(_, slot)| closed && !self.window.holds(slot, now))
    }

    fn probing(&mut self, pass: Pass) -> Option<(&mut u32, &mut u32)> {
        match &mut self.state {
            State::HalfOpen { running, succeeded } if pass == Pass::Probe(self.number) => {
                Some((running, succeeded))
            }
            _ => None,
        }
    }

    fn open(&mut self, cause: Cause, open_for: Duration, now: Instant) {
        let mut until = now + open_for;
        match self.state {
            State::Closed => {
                // From here on they are remembered until something succeeds, but not what is old.
                let window = &self.window;
                let recent = |(_, slot): &(EventId, u64)| window.holds(*slot, now);
                self.latest = self.latest.filter(recent);
                self.other = self.other.filter(recent);
                self.consecutive = 0;
            }
            State::Open { until: before } => until = until.max(before),
            State::HalfOpen { .. } => {}
        }
        self.cause = Some(cause);
        match self.phase() {
            Phase::Open => self.state = State::Open { until },
            _ => self.turn(State::Open { until }),
        }
    }

    fn turn(&mut self, state: State) {
        self.state = state;
        self.transitions[self.phase() as usize] += 1;
    }
}

#[cfg(test)]
mod tests;
