//! Why an outcome is refused, in words that help the author of the plugin.

use std::fmt;

/// Which rule an outcome breaks, and where. The plugin (or its SDK) is at fault in each case.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Invalid {
    /// More events answered than were asked.
    #[error("`handled` is {handled}, but the batch has {events} events")]
    HandledTooMany { handled: u32, events: usize },
    /// Nothing answered and no reason given: the runtime would ask the same again for ever.
    #[error(
        "`handled` is 0 without a failure of remedy 3 (unavailable) or 4 (halt) for event 0; answer at least one event"
    )]
    NothingHandled,
    /// A fact of a kind that this contract does not have.
    #[error("extra of kind {kind}: version 0.1.0 of the contract has no extras in an outcome")]
    UnknownExtra { kind: u32 },
    /// More derived events than the consumer allows.
    #[error(
        "{outputs} outputs, but `limits.outputs` allows {limit} in one answer; raise it or answer fewer events a call"
    )]
    TooManyOutputs { outputs: usize, limit: u32 },
    /// More bytes than the consumer allows, each output counted with what it inherits and shares.
    #[error(
        "the outputs hold more than the {limit} bytes that `limits.output_bytes` allows (output {output} passes it; what an output inherits or shares counts each time)"
    )]
    TooManyBytes { output: usize, limit: u64 },
    /// More headers on one output than the consumer allows.
    #[error(
        "output {output} has {headers} headers, inherited ones included, but `limits.headers` allows {limit}"
    )]
    TooManyHeaders {
        output: usize,
        headers: u64,
        limit: u32,
    },
    /// More header records than all outputs together may use.
    #[error("{headers} header records, more than {outputs} outputs may use")]
    UnusedHeaders { headers: usize, outputs: usize },
    /// A field of an output is out of bounds.
    #[error("output {output}: {fault}")]
    Output { output: usize, fault: OutputFault },
    /// A field of a header record is out of bounds.
    #[error("header record {header}: {fault}")]
    Header { header: usize, fault: HeaderFault },
    /// A field of a failure is out of bounds.
    #[error("failure {failure}: {fault}")]
    Failure { failure: usize, fault: FailureFault },
    /// More failures than events.
    #[error("{failures} failures for {events} events; an event fails at most once")]
    TooManyFailures { failures: usize, events: usize },
    /// Two failures name one event.
    #[error("event {event} fails twice; an event fails at most once")]
    FailsTwice { event: u32 },
}

/// What is wrong with an output.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OutputFault {
    #[error("it derives from event {source_event}, but only {handled} events are handled")]
    SourceNotHandled { source_event: u32, handled: u32 },
    #[error(
        "it derives from event {source_event}, before the output ahead of it (from {before}); keep the order of the events"
    )]
    SourceFalls { source_event: u32, before: u32 },
    #[error(
        "it derives from the batch as a whole, so it has no {0} to inherit; give it one of its own"
    )]
    NothingToInherit(Piece),
    #[error("it goes to output number {output}, but the consumer has {outputs} outputs")]
    NoSuchOutput { output: u32, outputs: u32 },
    #[error("`edit` {0:#x} has bits without a meaning")]
    UnknownEdit(u32),
    #[error("its {piece} leaves the {list} (start {start}, length {length}, list {size})")]
    Span {
        piece: Piece,
        list: List,
        start: u32,
        length: u32,
        size: usize,
    },
    #[error("its headers leave the list (start {start}, count {count}, list {size})")]
    Headers { start: u32, count: u32, size: usize },
}

/// A part of an output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Piece {
    Key,
    Value,
    Headers,
}

impl fmt::Display for Piece {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Key => "key",
            Self::Value => "value",
            Self::Headers => "headers",
        })
    }
}

/// The list that a span points into.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum List {
    Outcome,
    Batch,
}

impl fmt::Display for List {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Outcome => "outcome's data",
            Self::Batch => "batch's data",
        })
    }
}

/// What is wrong with a header record.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HeaderFault {
    #[error("its name leaves the outcome's data")]
    NameSpan,
    #[error("its value leaves the outcome's data")]
    ValueSpan,
    #[error("its name has {0} bytes; a name has 1 to 255")]
    NameLength(u32),
    #[error("its name is not UTF-8")]
    NameNotUtf8,
    #[error("`{0}` is set by the runtime alone; choose another name")]
    Reserved(String),
    #[error("`bits` {0:#x} has bits without a meaning")]
    UnknownBits(u32),
}

/// What is wrong with a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FailureFault {
    #[error(
        "event {event} is rejected or retried, but only {handled} events are handled; count it in `handled`"
    )]
    NotHandled { event: u32, handled: u32 },
    #[error(
        "event {event} is reported unavailable or halted while {handled} events are handled; `handled` must end right before it"
    )]
    NotNext { event: u32, handled: u32 },
    #[error("event {event} is not in the batch of {events}")]
    NoSuchEvent { event: u32, events: usize },
    #[error("{0} is no remedy: 1 reject, 2 retry, 3 unavailable, 4 halt")]
    UnknownRemedy(u32),
    #[error("its code leaves the outcome's data")]
    CodeSpan,
    #[error("its code is not up to 64 bytes of a to z, 0 to 9 and -")]
    BadCode,
    #[error("its reason leaves the outcome's data")]
    ReasonSpan,
    #[error("its reason is not UTF-8")]
    ReasonNotUtf8,
}
