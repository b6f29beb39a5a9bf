//! librdkafka's calls that rust-rdkafka does not offer, behind safe types. All `unsafe` of the
//! adapter is in this folder.
//!
//! ```text
//! Queue ── take ──▶ MessageBatch ── iter ──▶ Message (borrowed: key, value, headers)
//!   └──── poll ───▶ Event ── committed, deliveries, group offsets
//! Client ── commit, watermarks, group_offsets, probe
//! Writer ── produce ──▶ deliveries
//!   └──── begin, send offsets, commit, abort
//! ```

mod connection;
mod event;
mod message;
mod offsets;
mod queue;
mod transaction;
mod writer;

pub(super) use event::CommitReport;
pub(super) use message::MessageBatch;
pub(super) use offsets::{
    cached_high_watermark, committed_of, group_offsets, offsets_to_commit, positions, probe,
    send_commit,
};
pub(super) use queue::{Queue, TopicReader};
pub(super) use transaction::{Failure, GroupMetadata};
pub(super) use writer::Writer;
