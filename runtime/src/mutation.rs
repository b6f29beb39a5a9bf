//! Deliberate bugs, one at a time, by which the simulation proves that it would notice them.
//!
//! A build without debug assertions has none: [`is`] is then always false, and the compiler takes
//! the branches out.

#[cfg(debug_assertions)]
use std::cell::Cell;

/// A bug in the consumer's code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mutation {
    /// Units are settled before the broker acknowledged them.
    SettledBeforeAcknowledged,
    /// A position is one too high.
    PositionOneTooHigh,
    /// A position stands behind everything that was read.
    PositionAtWhatWasRead,
    /// Ranges settled above a position are not committed.
    RangesForgotten,
    /// Ranges settled above a position are not taken over at an assignment.
    RangesIgnored,
    /// What is known of a partition's end without an event is not used.
    EndIgnored,
    /// A retry lets what must not overtake it pass.
    RetryOvertaken,
    /// What comes behind a failed event in its batch is taken.
    BatchNotCut,
    /// An event that comes again is dropped.
    ReturnedDropped,
    /// A retry's time is not noted.
    RetryTimeForgotten,
    /// The first failure is the last.
    NoRetries,
    /// A failed batch is blamed on all of its events.
    WholeBatchBlamed,
    /// A lane whose call ended does not ask for the next one.
    LaneForgotten,
    /// A held partition is never released.
    ValveStuck,
    /// What is abandoned keeps its place in the budget.
    PermitLost,
    /// A unit that was not written is taken for written.
    FailureIgnored,
    /// Units are written again in the wrong order.
    RewrittenInReverse,
    /// A unit is left out when units are written again.
    RewriteIncomplete,
    /// The plugin is called before its batch is claimed.
    CalledUnclaimed,
    /// A claimed batch of a partition that was given up is called.
    GivenUpCalled,
    /// A transaction does not move the positions.
    TransactionWithoutPositions,
    /// A transaction moves the positions alone.
    TransactionWithoutRecords,
    /// A transaction that took effect is made again.
    TransactionTwice,
    /// Dead letters are written outside of their transaction.
    DeadLettersOutside,
    /// A commit that may have been sent twice is believed.
    DoubtIgnored,
    /// A transaction in doubt is taken for one without effect.
    DoubtTakenForAbort,
    /// A transaction in doubt is taken for one with effect.
    DoubtTakenForEffect,
    /// A commit of who was fenced is taken for stored.
    FenceIgnored,
    /// Positions whose transaction was aborted are taken for committed.
    AbortTakenForCommitted,
    /// A skipped event is not settled.
    SkipForgotten,
    /// A partition is taken up again before the skip of its event is committed.
    SkipUncommitted,
    /// What retention took is not counted.
    GapUncounted,
    /// A partition that cannot go on is not halted.
    HaltIgnored,
    /// What was under way behind an event that a partition halted at is settled.
    BehindHaltSettled,
    /// A partition that was lost is committed on.
    LostKept,
    /// Events do not remember through how many consumers they came.
    HopsNotCounted,
    /// The share of dead letters stops nobody.
    MaxRatioForgotten,
    /// An event whose derived event is refused is settled without a dead letter.
    RefusedDropped,
    /// The breaker forgets what failed before.
    BreakerForgets,
    /// An open breaker lets calls begin.
    BreakerLetsThrough,
    /// A probe is a whole batch.
    ProbesNotSingle,
    /// No valve is ever closed.
    BudgetIgnored,
    /// What waits for its retry is forgotten when another version takes over.
    SwapDropsHeld,
    /// What waits for its retry goes behind what waited for it when another version takes over.
    SwapBreaksOrder,
    /// A call that ends late puts its version back.
    LateCallSwapsBack,
    /// A version counts on from the attempts of the one before it.
    AttemptsInherited,
    /// What a version on probation fails is settled.
    KeptSettled,
    /// What was kept for the judgement is not let go after it.
    KeptForgotten,
    /// What a version on probation fails is given up at once.
    ProbationGivesUp,
    /// A version that did not prove itself goes on.
    RolledBackInWord,
    /// What a version in shadow says is written.
    ShadowTakesOver,
    /// Calls begin while the consumer is paused.
    PauseIgnored,
    /// A paused consumer never goes on.
    ResumeForgotten,
}

impl Mutation {
    /// All of them.
    pub const ALL: [Self; 53] = [
        Self::SettledBeforeAcknowledged,
        Self::PositionOneTooHigh,
        Self::PositionAtWhatWasRead,
        Self::RangesForgotten,
        Self::RangesIgnored,
        Self::EndIgnored,
        Self::RetryOvertaken,
        Self::BatchNotCut,
        Self::ReturnedDropped,
        Self::RetryTimeForgotten,
        Self::NoRetries,
        Self::WholeBatchBlamed,
        Self::LaneForgotten,
        Self::ValveStuck,
        Self::PermitLost,
        Self::FailureIgnored,
        Self::RewrittenInReverse,
        Self::RewriteIncomplete,
        Self::CalledUnclaimed,
        Self::GivenUpCalled,
        Self::TransactionWithoutPositions,
        Self::TransactionWithoutRecords,
        Self::TransactionTwice,
        Self::DeadLettersOutside,
        Self::DoubtIgnored,
        Self::DoubtTakenForAbort,
        Self::DoubtTakenForEffect,
        Self::FenceIgnored,
        Self::AbortTakenForCommitted,
        Self::SkipForgotten,
        Self::SkipUncommitted,
        Self::GapUncounted,
        Self::HaltIgnored,
        Self::BehindHaltSettled,
        Self::LostKept,
        Self::HopsNotCounted,
        Self::MaxRatioForgotten,
        Self::RefusedDropped,
        Self::BreakerForgets,
        Self::BreakerLetsThrough,
        Self::ProbesNotSingle,
        Self::BudgetIgnored,
        Self::SwapDropsHeld,
        Self::SwapBreaksOrder,
        Self::LateCallSwapsBack,
        Self::AttemptsInherited,
        Self::KeptSettled,
        Self::KeptForgotten,
        Self::ProbationGivesUp,
        Self::RolledBackInWord,
        Self::ShadowTakesOver,
        Self::PauseIgnored,
        Self::ResumeForgotten,
    ];
}

#[cfg(debug_assertions)]
thread_local! {
    static ACTIVE: Cell<Option<Mutation>> = const { Cell::new(None) };
}

/// Whether this bug is active on this thread.
#[inline]
pub fn is(mutation: Mutation) -> bool {
    #[cfg(debug_assertions)]
    {
        ACTIVE.get() == Some(mutation)
    }
    #[cfg(not(debug_assertions))]
    {
        let _ = mutation;
        false
    }
}

/// Runs `work` on this thread with a bug, where the build has them.
pub fn with<T>(mutation: Mutation, work: impl FnOnce() -> T) -> T {
    #[cfg(debug_assertions)]
    ACTIVE.set(Some(mutation));
    #[cfg(not(debug_assertions))]
    let _ = mutation;
    let result = work();
    #[cfg(debug_assertions)]
    ACTIVE.set(None);
    result
}
