//! How each series of the contract is called. A new series is another file here.

mod packed;
pub(super) mod v0_1;
