//! The records of `millstream:plugin/types`, in Rust.
//!
//! They hold integers only and are laid out as the canonical ABI lays them out, so that a list of
//! them crosses the wall as it lies in memory. The WIT file beside this crate is their definition;
//! field meanings stand there.

#[cfg(feature = "wasmtime")]
use wasmtime::component::{ComponentType, Lift, Lower};

/// `length` bytes from `start` of the list named where the span is used.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "wasmtime", derive(ComponentType, Lift, Lower))]
#[cfg_attr(feature = "wasmtime", component(record))]
pub struct Span {
    pub start: u32,
    pub length: u32,
}

/// A header; names may repeat and order is kept.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "wasmtime", derive(ComponentType, Lift, Lower))]
#[cfg_attr(feature = "wasmtime", component(record))]
pub struct Header {
    pub name: Span,
    pub value: Span,
    pub bits: u32,
}

/// One event of a topic; 64 bytes.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "wasmtime", derive(ComponentType, Lift, Lower))]
#[cfg_attr(feature = "wasmtime", component(record))]
pub struct Event {
    pub offset: u64,
    #[cfg_attr(feature = "wasmtime", component(name = "timestamp-ms"))]
    pub timestamp_ms: i64,
    pub topic: Span,
    pub key: Span,
    pub value: Span,
    pub partition: u32,
    #[cfg_attr(feature = "wasmtime", component(name = "headers-start"))]
    pub headers_start: u32,
    #[cfg_attr(feature = "wasmtime", component(name = "headers-count"))]
    pub headers_count: u32,
    pub attempt: u32,
    pub bits: u32,
    pub reserved: u32,
}

/// A fact beside an event or an output that its record has no field for.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "wasmtime", derive(ComponentType, Lift, Lower))]
#[cfg_attr(feature = "wasmtime", component(record))]
pub struct Extra {
    pub item: u32,
    pub kind: u32,
    pub value: u64,
}

/// A derived event; 48 bytes. All zero but `source` forwards the source event to the first output.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "wasmtime", derive(ComponentType, Lift, Lower))]
#[cfg_attr(feature = "wasmtime", component(record))]
pub struct Output {
    #[cfg_attr(feature = "wasmtime", component(name = "timestamp-ms"))]
    pub timestamp_ms: i64,
    pub key: Span,
    pub value: Span,
    pub source: u32,
    pub output: u32,
    pub edit: u32,
    #[cfg_attr(feature = "wasmtime", component(name = "headers-start"))]
    pub headers_start: u32,
    #[cfg_attr(feature = "wasmtime", component(name = "headers-count"))]
    pub headers_count: u32,
}

/// An event that failed; at most one an event.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "wasmtime", derive(ComponentType, Lift, Lower))]
#[cfg_attr(feature = "wasmtime", component(record))]
pub struct Failure {
    pub event: u32,
    pub remedy: u32,
    #[cfg_attr(feature = "wasmtime", component(name = "after-ms"))]
    pub after_ms: u32,
    pub code: Span,
    pub reason: Span,
}

/// Consecutive events of one lane, borrowed from where the host keeps them.
#[derive(Clone, Copy, Debug)]
#[cfg_attr(feature = "wasmtime", derive(ComponentType, Lower))]
#[cfg_attr(feature = "wasmtime", component(record))]
pub struct Batch<'a> {
    pub events: &'a [Event],
    pub headers: &'a [Header],
    pub data: &'a [u8],
    pub extras: &'a [Extra],
    #[cfg_attr(feature = "wasmtime", component(name = "budget-ms"))]
    pub budget_ms: u32,
    pub bits: u32,
}

/// The answer to a batch, as the plugin gave it: nothing in it is to be trusted before
/// [`crate::check`] has passed it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "wasmtime", derive(ComponentType, Lift))]
#[cfg_attr(feature = "wasmtime", component(record))]
pub struct Outcome {
    pub handled: u32,
    pub outputs: Vec<Output>,
    pub headers: Vec<Header>,
    pub failures: Vec<Failure>,
    pub data: Vec<u8>,
    pub extras: Vec<Extra>,
}

/// [`Event::bits`]: the key is null, not empty.
pub const EVENT_KEY_NULL: u32 = 1;
/// [`Event::bits`]: the value is null (a tombstone), not empty.
pub const EVENT_VALUE_NULL: u32 = 1 << 1;
/// [`Event::bits`]: the timestamp is the broker's, not the producer's.
pub const EVENT_TIMESTAMP_OF_BROKER: u32 = 1 << 2;

/// [`Header::bits`]: the value is null; in an amendment, remove the header.
pub const HEADER_VALUE_NULL: u32 = 1;

/// [`Batch::bits`]: in order; no event may overtake one that is to be retried.
pub const BATCH_IN_ORDER: u32 = 1;

/// [`Output::source`]: derives from the batch as a whole.
pub const SOURCE_BATCH: u32 = u32::MAX;

/// Where an output's key or value comes from: bits 0–1 and 2–3 of [`Output::edit`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// As in the source, null included.
    Source,
    Null,
    /// The span, of the outcome's data.
    Outcome,
    /// The span, of the batch's data.
    Batch,
}

impl Part {
    /// Decodes the two bits of a part.
    pub const fn from_bits(bits: u32) -> Self {
        match bits & 3 {
            0 => Self::Source,
            1 => Self::Null,
            2 => Self::Outcome,
            _ => Self::Batch,
        }
    }

    /// The two bits of a part.
    pub const fn bits(self) -> u32 {
        match self {
            Self::Source => 0,
            Self::Null => 1,
            Self::Outcome => 2,
            Self::Batch => 3,
        }
    }
}

/// What becomes of the source's headers: bits 4–5 of [`Output::edit`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeaderEdit {
    Keep,
    /// Drop those named in the range, add those of the range that have a value.
    Amend,
    Replace,
}

/// First bit of the header edit in [`Output::edit`].
pub const EDIT_HEADERS_SHIFT: u32 = 4;
/// [`Output::edit`]: the output gives its own timestamp.
pub const EDIT_TIMESTAMP: u32 = 1 << 6;
/// Every bit of [`Output::edit`] that has a meaning.
pub const EDIT_KNOWN: u32 = (1 << 7) - 1;

impl Output {
    /// Where the key comes from.
    pub const fn key_part(&self) -> Part {
        Part::from_bits(self.edit)
    }

    /// Where the value comes from.
    pub const fn value_part(&self) -> Part {
        Part::from_bits(self.edit >> 2)
    }

    /// What becomes of the source's headers; `None` for the reserved fourth code.
    pub const fn header_edit(&self) -> Option<HeaderEdit> {
        match (self.edit >> EDIT_HEADERS_SHIFT) & 3 {
            0 => Some(HeaderEdit::Keep),
            1 => Some(HeaderEdit::Amend),
            2 => Some(HeaderEdit::Replace),
            _ => None,
        }
    }
}

/// [`Failure::remedy`]: it can never succeed; dead-letter it now.
pub const REMEDY_REJECT: u32 = 1;
/// [`Failure::remedy`]: it may succeed; again after backoff.
pub const REMEDY_RETRY: u32 = 2;
/// [`Failure::remedy`]: what every event needs is down.
pub const REMEDY_UNAVAILABLE: u32 = 3;
/// [`Failure::remedy`]: going on would do harm; stop the consumer.
pub const REMEDY_HALT: u32 = 4;

impl Span {
    /// The bytes of this span, or `None` where it leaves `data`.
    pub fn of(self, data: &[u8]) -> Option<&[u8]> {
        let start = self.start as usize;
        let end = start.checked_add(self.length as usize)?;
        data.get(start..end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The canonical ABI fixes these sizes; a drift would read another field's bytes.
    #[test]
    fn records_are_as_large_as_the_canonical_abi_says() {
        assert_eq!(size_of::<Span>(), 8);
        assert_eq!(size_of::<Header>(), 20);
        assert_eq!(size_of::<Event>(), 64);
        assert_eq!(size_of::<Extra>(), 16);
        assert_eq!(size_of::<Output>(), 48);
        assert_eq!(size_of::<Failure>(), 28);
    }

    #[test]
    fn a_span_never_leaves_its_data() {
        let data = b"abcdef";
        assert_eq!(
            Span {
                start: 2,
                length: 3
            }
            .of(data),
            Some(&b"cde"[..])
        );
        assert_eq!(
            Span {
                start: 6,
                length: 0
            }
            .of(data),
            Some(&b""[..])
        );
        assert_eq!(
            Span {
                start: 6,
                length: 1
            }
            .of(data),
            None
        );
        assert_eq!(
            Span {
                start: u32::MAX,
                length: u32::MAX
            }
            .of(data),
            None
        );
    }
}
