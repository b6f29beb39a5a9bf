//! The values that cross the wall between the Millstream runtime and a plugin, and the rules that
//! an outcome must keep. The runtime and the SDK's test harness share them, so that a plugin's own
//! tests meet the very checks that production makes.

mod check;
mod types;

pub use check::{Checked, Invalid, Limits, check};
pub use types::*;
