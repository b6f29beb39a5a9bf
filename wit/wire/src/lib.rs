//! The values that cross the wall between the Millstream runtime and a plugin, and the rules that
//! an outcome must keep. The runtime and the SDK's test harness share them, so that a plugin's own
//! tests meet the very checks that production makes.

mod check;
mod invalid;
mod types;
mod view;

pub use check::{Checked, Limits, check};
pub use invalid::{FailureFault, HeaderFault, Invalid, List, OutputFault, Piece};
pub use types::*;
pub use view::{FailureView, Headers, OutputView, Remedy};

/// Bytes of a failure's reason that are kept; what is longer is cut at a character.
pub const REASON_KEPT: usize = 1024;
/// Longest failure code in bytes.
pub const CODE_MAX: usize = 64;
/// Longest header name in bytes.
pub const HEADER_NAME_MAX: usize = 255;

/// Whether only the runtime may set a header of this name: `millstream-…` and `traceparent`, in any
/// mixture of upper and lower case.
pub fn is_reserved_header(name: &[u8]) -> bool {
    const PREFIX: &[u8] = b"millstream-";
    name.eq_ignore_ascii_case(b"traceparent")
        || name
            .get(..PREFIX.len())
            .is_some_and(|start| start.eq_ignore_ascii_case(PREFIX))
}

/// Whether `code` may name a failure: up to 64 bytes of `a` to `z`, `0` to `9` and `-`.
pub fn is_code(code: &[u8]) -> bool {
    code.len() <= CODE_MAX
        && code
            .iter()
            .all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-'))
}
