//! How each series of the contract is called. A new series is another file here.

pub(super) mod v0_1;
