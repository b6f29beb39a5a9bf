//! What stands between lanes and plugin: the breaker, the rate, and the share of dead letters that
//! stops the consumer.
//!
//! ```text
//! dispatch ─▶ room: rate, breaker ─▶ call ─▶ witness: what failed ─▶ breaker
//!                                                                     │ opens, closes
//! valves, state, metrics ◀──────────── runner: follow_breaker ◀───────┘
//! ```
//!
//! A call tells the breaker itself how each event went, before it decides what becomes of them: of
//! calls that end at once, the second must know of the first. So the breaker has a lock.

use std::sync::Arc;

use parking_lot::{Mutex, MutexGuard};
use tokio::time::Instant;

use super::assemble::Unavailable;
use super::runner::Runner;
use super::status::{BreakerStatus, State};
use crate::config::Consumer;
use crate::decide::breaker::{Breaker, Failure, Pass, Phase, Sentence};
use crate::decide::dead_letter_share::{DeadLetterShare, TooMany, WINDOW};
use crate::decide::rate::RateLimit;
use crate::mutation::{self, Mutation};

type SharedBreaker = Arc<Mutex<Breaker>>;

/// See the module.
pub struct Guard {
    /// `None` where it is turned off.
    breaker: Option<SharedBreaker>,
    rate: Option<RateLimit>,
    dead_letters: Option<DeadLetterShare>,
    /// What the runner has acted on.
    transitions: [u64; 3],
    /// What the breaker of an earlier generation counted, where this one has none.
    counted: [u64; 3],
    /// What the plugin said when an attempt last failed.
    complaint: String,
}

/// What the next call may be.
#[derive(Clone, Copy, Debug)]
pub struct Room {
    pass: Pass,
    /// The most events in it; at least 1.
    pub events: usize,
}

impl Guard {
    /// A closed breaker, and a rate that nothing was taken from.
    pub fn new(settings: &Consumer, now: Instant) -> Self {
        let share = |dead_letter: &crate::config::DeadLetter| dead_letter.max_ratio;
        Self {
            breaker: settings
                .circuit_breaker
                .map(|settings| Arc::new(Mutex::new(Breaker::new(settings, now)))),
            rate: settings.rate.map(|rate| RateLimit::new(rate, now)),
            dead_letters: settings
                .dead_letter
                .as_ref()
                .and_then(share)
                .map(|max_ratio| DeadLetterShare::new(max_ratio, now)),
            transitions: [0; 3],
            counted: [0; 3],
            complaint: String::new(),
        }
    }

    /// One that knows nothing of what failed before, for another generation. What was counted goes on
    /// from where it was; a breaker that is not there any more is closed.
    pub fn renewed(&self, settings: &Consumer, now: Instant) -> Self {
        let fresh = Self::new(settings, now);
        let counted = match &self.breaker {
            Some(before) => before.lock().transitions_once_closed(),
            None => self.counted,
        };
        if let Some(breaker) = &fresh.breaker {
            breaker.lock().counts_on(counted);
        }
        Self {
            transitions: self.transitions,
            counted,
            ..fresh
        }
    }

    /// What the next call may be, if one may begin now. From here on it counts as begun: give it
    /// back with [`Self::unused`], or go on with [`Self::begin`].
    pub fn room(&mut self, now: Instant) -> Option<Room> {
        let tokens = match &mut self.rate {
            Some(rate) => rate.available(now),
            None => usize::MAX,
        };
        if tokens == 0 {
            return None;
        }
        let pass = match &self.breaker {
            Some(breaker) => {
                let mut breaker = breaker.lock();
                let pass = breaker.lets(now)?;
                breaker.began(pass);
                pass
            }
            None => Pass::Free,
        };
        let events = match pass {
            Pass::Free => tokens,
            Pass::Probe(_) if mutation::is(Mutation::ProbesNotSingle) => tokens,
            Pass::Probe(_) => 1,
        };
        Some(Room { pass, events })
    }

    /// There was nothing to call for.
    pub fn unused(&self, room: Room) {
        if let Some(breaker) = &self.breaker {
            breaker.lock().ended(room.pass);
        }
    }

    /// The call with so many events of an assignment begins.
    pub fn begin(&mut self, room: Room, assignment: u64, events: usize) -> Witness {
        if let Some(rate) = &mut self.rate {
            rate.take(events);
        }
        Witness {
            breaker: self.breaker.clone(),
            pass: room.pass,
            assignment,
        }
    }

    /// When [`Self::room`] may answer otherwise than now, by itself.
    pub fn due(&mut self, now: Instant) -> Option<Instant> {
        let mut due = self.open_until();
        if let Some(rate) = &mut self.rate
            && rate.available(now) == 0
        {
            due = due.max(Some(rate.due()));
        }
        due
    }

    fn open_until(&self) -> Option<Instant> {
        self.breaker.as_ref()?.lock().open_until()
    }

    /// Whether no call may begin.
    pub fn is_open(&self) -> bool {
        self.open_until().is_some()
    }

    /// Whether calls are single events that are tried.
    pub fn is_probing(&self) -> bool {
        let phase = |breaker: &SharedBreaker| breaker.lock().phase();
        self.breaker.as_ref().map(phase) == Some(Phase::HalfOpen)
    }

    /// Events of the consumer were settled, so many of them as dead letters; the reason to stop
    /// where they are too many.
    pub fn settled(&mut self, events: u64, dead_letters: u64, now: Instant) -> Option<String> {
        let share = self.dead_letters.as_mut()?;
        let TooMany {
            dead_letters,
            events,
        } = share
            .settled(events, dead_letters, now)
            .filter(|_| !mutation::is(Mutation::MaxRatioForgotten))?;
        Some(format!(
            "{dead_letters} of the last {events} events ({} s) went to the dead letters, more than dead_letter.max_ratio allows; \
             read there why (millstream consume TOPIC --json), mend the plugin, its configuration or the source, then start again",
            WINDOW.as_secs()
        ))
    }
}

/// What a call tells the breaker.
pub struct Witness {
    breaker: Option<SharedBreaker>,
    pass: Pass,
    assignment: u64,
}

impl Witness {
    /// One that tells nobody: of calls that count for nothing.
    pub fn silent() -> Self {
        Self {
            breaker: None,
            pass: Pass::Free,
            assignment: 0,
        }
    }

    /// Begins to tell; the breaker hears nobody else until it is dropped.
    pub fn hearing(&self, now: Instant) -> Hearing<'_> {
        Hearing {
            breaker: self.breaker.as_ref().map(|breaker| breaker.lock()),
            pass: self.pass,
            assignment: self.assignment,
            coped: 0,
            now,
        }
    }

    /// The call ended.
    pub fn ended(&self) {
        if let Some(breaker) = &self.breaker {
            breaker.lock().ended(self.pass);
        }
    }
}

/// A call's words to the breaker, event by event.
pub struct Hearing<'a> {
    breaker: Option<MutexGuard<'a, Breaker>>,
    pass: Pass,
    assignment: u64,
    /// Events that were said to have gone well.
    coped: usize,
    now: Instant,
}

impl Hearing<'_> {
    /// So many events of the call have gone well so far.
    pub fn coped(&mut self, events: usize) {
        let more = events.saturating_sub(self.coped) as u64;
        self.coped = events;
        if let Some(breaker) = &mut self.breaker {
            breaker.succeeded(self.pass, more, self.now);
        }
    }

    /// When an event that stays may be tried again at the earliest.
    pub fn again_at(&self) -> Instant {
        let breaker = self.breaker.as_ref();
        breaker
            .and_then(|breaker| breaker.open_until())
            .unwrap_or(self.now)
    }

    /// An attempt of an event failed, see [`Failure`].
    pub fn failed(&mut self, offset: u64, counts: bool, exhausted: bool) -> Sentence {
        let failure = Failure {
            event: (self.assignment, offset),
            counts,
            exhausted,
        };
        match &mut self.breaker {
            Some(breaker) => breaker.failed(self.pass, failure, self.now),
            None => Sentence::Counts,
        }
    }
}

impl Runner {
    /// Opens the breaker at once; where there is none, calls wait as they do for an instance.
    pub(super) fn on_unavailable(&mut self, unavailable: Unavailable, now: Instant) {
        match &self.guard.breaker {
            Some(breaker) => {
                breaker.lock().unavailable(unavailable.after, now);
                self.guard.complaint = unavailable.reason;
            }
            None => self.wait(unavailable, now),
        }
    }

    /// Keeps what was said of the last failure, for the reason that is shown.
    pub(super) fn complain(&mut self, complaint: Option<&String>) {
        if let Some(complaint) = complaint {
            self.guard.complaint.clone_from(complaint);
        }
    }

    /// Acts on what the breaker did since last time: valves, state, metrics.
    pub(super) fn follow_breaker(&mut self, now: Instant) {
        let (phase, transitions, cause) = match &self.guard.breaker {
            Some(breaker) => {
                let mut breaker = breaker.lock();
                // An open phase ends by itself.
                breaker.lets(now);
                (breaker.phase(), breaker.transitions(), breaker.cause())
            }
            None => (Phase::Closed, self.guard.counted, None),
        };
        if phase == Phase::Open {
            self.room_due = self.guard.due(now);
        }
        if transitions == self.guard.transitions {
            return;
        }
        self.guard.transitions = transitions;
        // Until now the valves were closed for the reason before.
        self.open_valves(now);
        {
            let mut ledger = self.ledger.lock();
            ledger.breaker = phase;
            ledger.breaker_transitions = transitions;
        }
        let consumer = &self.settings().name;
        let complaint = &self.guard.complaint;
        let why = match cause {
            Some(cause) if complaint.is_empty() => cause.to_string(),
            Some(cause) => format!("{cause}: {complaint}"),
            None => String::new(),
        };
        match phase {
            Phase::Open => {
                tracing::warn!(%consumer, reason = %why, "the circuit breaker opens; calls wait, no attempt is counted, nothing is dead-lettered");
            }
            Phase::HalfOpen => tracing::info!(%consumer, "the circuit breaker tries single events"),
            Phase::Closed => {
                tracing::info!(%consumer, "the circuit breaker closes; calls go on as before");
            }
        }
        self.status.lock().breaker = BreakerStatus {
            phase,
            since: now,
            reason: cause.map(|_| why.clone()),
        };
        match phase {
            Phase::Open if self.roll_back_if_useless(&why, now) => return,
            Phase::Open => {
                if matches!(self.state, State::Running | State::Waiting(_)) {
                    self.state = State::Waiting(format!("the circuit breaker is open: {why}"));
                }
                self.close_all_valves(now);
            }
            _ => self.go_on(now),
        }
        self.show(now);
    }

    /// Calls may begin again, unless something else is waited for.
    pub(super) fn go_on(&mut self, now: Instant) {
        if self.no_calls_until.is_none() && !self.guard.is_open() {
            if matches!(self.state, State::Waiting(_)) {
                self.state = State::Running;
            }
            self.open_valves(now);
        }
    }
}
