//! What the hostile plugin is told to do, and how each of it must end.

/// How a call ends, and words that its error must have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ends {
    /// The instance is gone.
    Trap(&'static str),
    /// The instance is gone.
    Deadline,
    /// The instance is gone.
    Memory,
    /// The answer is refused whole. Whether the instance is kept is told apart by [`Case::lives`].
    Invalid(&'static str),
    /// The call is taken; with the text, if any, that the plugin must have answered.
    Taken(Option<&'static str>),
}

impl Ends {
    /// As the guide's table calls it; `taken`, or the reason of the dead letter.
    pub fn name(self) -> &'static str {
        match self {
            Self::Trap(_) => "trap",
            Self::Deadline => "deadline",
            Self::Memory => "memory",
            Self::Invalid(_) => "invalid",
            Self::Taken(_) => "taken",
        }
    }
}

/// A command to the hostile plugin.
#[derive(Clone, Copy, Debug)]
pub struct Case {
    /// The value of the event.
    pub command: &'static str,
    pub ends: Ends,
    /// Bytes to which the event is filled up with spaces.
    pub padded: usize,
    /// Whether the instance can be called again.
    pub lives: bool,
}

const fn case(command: &'static str, ends: Ends) -> Case {
    Case {
        command,
        ends,
        padded: 0,
        lives: matches!(ends, Ends::Invalid(_) | Ends::Taken(_)),
    }
}

const fn forged(command: &'static str, words: &'static str) -> Case {
    case(command, Ends::Invalid(words))
}

const fn taken(command: &'static str, answer: &'static str) -> Case {
    case(command, Ends::Taken(Some(answer)))
}

/// The words of a refusal by the bytes that an answer stands for.
const TOO_MUCH: &str = "limits.output_bytes";

/// Every command that is run by `tests/deeds.rs`, each as the second of two events.
pub const DEEDS: &[Case] = &[
    case("trap", Ends::Trap("unreachable")),
    case("panic", Ends::Trap("boom (")),
    case("logged-trap", Ends::Trap("price is negative")),
    case("abort", Ends::Trap("unreachable")),
    case("exit", Ends::Trap("exit(")),
    case("recurse", Ends::Trap("call stack exhausted")),
    case("recurse-wide", Ends::Trap("out of bounds")),
    case("spin", Ends::Deadline),
    case("sleep", Ends::Deadline),
    case("alloc", Ends::Memory),
    case("long-reply 20", Ends::Memory),
    forged("handled-zero", "`handled` is 0"),
    forged("garbage-span", "its value leaves"),
    forged("too-many-outputs", "limits.outputs"),
    forged("duplicate-failure", "fails twice"),
    forged("reserved-header", "`millstream-id` is set by the runtime"),
    forged("forge value-span-wraps", "its value leaves"),
    forged("forge key-span-leaves-batch", "its key leaves"),
    forged("forge header-range-leaves", "its headers leave"),
    forged("forge edit-bit-7", "bits without a meaning"),
    forged("forge edit-headers-3", "bits without a meaning"),
    forged("forge output-9", "output number 9"),
    forged("forge source-not-handled", "only 2 events are handled"),
    forged("forge source-falls", "keep the order"),
    forged("forge batch-inherits", "to inherit"),
    forged("forge handled-beyond", "the batch has 2 events"),
    forged("forge extra", "extra of kind 1"),
    forged("forge header-bit-1", "bits without a meaning"),
    forged("forge header-unnamed", "has 0 bytes"),
    forged("forge header-long", "has 256 bytes"),
    forged("forge header-not-utf8", "not UTF-8"),
    forged(
        "forge header-traceparent",
        "`traceparent` is set by the runtime",
    ),
    forged("forge header-dead-letter", "set by the runtime"),
    forged("forge headers-unused", "header records"),
    forged("forge remedy-0", "0 is no remedy"),
    forged("forge remedy-9", "9 is no remedy"),
    forged("forge failure-beyond", "is not in the batch"),
    forged("forge failure-too-early", "`handled` must end right before"),
    forged("forge failures-many", "failures for 2 events"),
    forged("forge code-shouts", "its code is not"),
    forged("forge code-long", "its code is not"),
    forged("forge reason-not-utf8", "its reason is not UTF-8"),
    forged("forge reason-span", "its reason leaves"),
    forged("forge shared-value", TOO_MUCH),
    forged("forge overlapping-values", TOO_MUCH),
    forged("forge shared-headers", TOO_MUCH),
    Case {
        padded: 16 << 10,
        ..forged("forge forward-often", TOO_MUCH)
    },
    case("huge-log", Ends::Taken(None)),
    case("many-logs", Ends::Taken(None)),
    case("many-fields", Ends::Taken(None)),
    case("unprintable-log", Ends::Taken(None)),
    case("log-of-no-event", Ends::Taken(None)),
    case("flood-lines", Ends::Taken(None)),
    case("endless-line", Ends::Taken(None)),
    // One series each, and then all that are left of the consumer's hundred.
    taken("declare-again", "0"),
    case("impossible-points", Ends::Taken(None)),
    taken("labels", "98"),
    taken("long-label", "refused"),
    taken("bad-metric", "refused"),
    taken("unprintable-name", "refused in 1024 bytes"),
    case("many-points", Ends::Taken(None)),
    taken("long-property", "none"),
    taken("input", "0 bytes"),
    taken(
        "sandbox",
        "variables=none arguments=none file=none folder=none made=none tcp=none udp=none name=none",
    ),
    taken(
        "beyond",
        "thread=refused process=refused listen=refused folder=refused link=refused \
         removal=refused here=refused",
    ),
    taken("clocks", "wall=stands monotonic=goes"),
];
