//! What the host keeps beside an instance: its sandbox, its limits and the call under way.

use std::sync::Arc;
use std::time::Duration;

use millstream_wire as wire;
use tokio::time::Instant;
use wasmtime::component::ResourceTable;
use wasmtime_wasi::{WasiCtx, WasiCtxView, WasiView};
use xxhash_rust::xxh3::Xxh3;

use super::custom_metrics::CustomMetrics;
use super::engine::TICK;
use super::grants::Grants;
use super::journal::Journal;
use super::limiter::Limiter;
use super::outbound::Trace;
use super::reporter::Reporter;
use super::secrets::Known;
use crate::decide::trace_parent::TraceParent;

/// Handles that an instance may hold at once: of WASI (streams, timers), and of resources of its
/// own, which the host keeps a table of as well.
pub(super) const MAX_HANDLES: usize = 1_024;

/// Who an instance belongs to; what `runtime.property` tells.
#[derive(Debug)]
pub(super) struct Identity {
    pub(super) consumer: Arc<str>,
    pub(super) generation: u64,
    pub(super) digest: Arc<str>,
    /// Whether what it derives, writes and asks for goes nowhere: a new version that is tried
    /// beside the one at work.
    pub(super) shadow: bool,
}

impl Identity {
    /// Whether this is a shadow run.
    pub(super) fn in_shadow(&self) -> bool {
        self.shadow
    }
}

/// The data of a store.
pub(super) struct State {
    wasi: WasiCtx,
    pub(super) table: ResourceTable,
    pub(super) limiter: Limiter,
    pub(super) identity: Arc<Identity>,
    pub(super) grants: Arc<Grants>,
    pub(super) journal: Arc<Journal>,
    pub(super) custom_metrics: Arc<CustomMetrics>,
    pub(super) reporter: Reporter,
    pub(super) call: Call,
}

/// The call under way.
pub(super) struct Call {
    deadline: Instant,
    /// Ticks after which the deadline has passed whatever the clock says: a paused clock (of a
    /// simulation) does not move while a guest spins.
    ticks_left: u64,
    /// What the wall clock shows: milliseconds since 1970-01-01 UTC.
    pub(super) now_ms: i64,
    /// By event of the batch.
    offsets: Vec<u64>,
    /// By event of the batch; empty where no request may leave.
    pub(super) traces: Vec<Option<Trace>>,
    pub(super) secrets: Known,
    pub(super) random: Random,
}

/// A guest ran past its deadline. Ends the call as the cause of its error.
#[derive(Debug, thiserror::Error)]
#[error("the deadline has passed")]
pub(super) struct DeadlinePassed;

impl State {
    /// `wasi` has nothing behind it but stdout, stderr and granted variables.
    pub(super) fn new(
        wasi: WasiCtx,
        limiter: Limiter,
        identity: Arc<Identity>,
        grants: Arc<Grants>,
        journal: Arc<Journal>,
        custom_metrics: Arc<CustomMetrics>,
    ) -> Self {
        let mut table = ResourceTable::new();
        table.set_max_capacity(MAX_HANDLES);
        let random = Random::seeded(&identity.consumer, "", 0, 0);
        Self {
            wasi,
            table,
            limiter,
            identity,
            grants,
            journal,
            custom_metrics,
            reporter: Reporter::default(),
            call: Call {
                deadline: Instant::now(),
                ticks_left: 0,
                now_ms: 0,
                offsets: Vec::new(),
                traces: Vec::new(),
                secrets: Known::default(),
                random,
            },
        }
    }

    /// A call begins that may take this long. Returns its start.
    pub(super) fn begin(&mut self, budget: Duration) -> Instant {
        let now = Instant::now();
        self.limiter.forget();
        self.call.deadline = now.checked_add(budget).unwrap_or(now);
        let ticks = budget.as_nanos().div_ceil(TICK.as_nanos());
        self.call.ticks_left = u64::try_from(ticks).unwrap_or(u64::MAX).saturating_add(1);
        now
    }

    /// The call is for this batch: clock, randomness and log speak of it.
    pub(super) fn enter(&mut self, batch: &wire::Batch<'_>) {
        let first = batch.events.first().copied().unwrap_or_default();
        let topic = first.topic.of(batch.data).unwrap_or_default();
        let topic = std::str::from_utf8(topic).unwrap_or_default();
        self.journal.begin(topic, first.partition);
        let call = &mut self.call;
        call.random = Random::seeded(
            &self.identity.consumer,
            topic,
            first.partition,
            first.offset,
        );
        let newest = batch.events.iter().map(|event| event.timestamp_ms).max();
        call.now_ms = newest.unwrap_or_default();
        call.offsets.clear();
        call.offsets
            .extend(batch.events.iter().map(|event| event.offset));
        call.traces.clear();
        if self.grants.outbound.is_some() {
            let traces = batch.events.iter().map(|event| trace(batch, event));
            call.traces.extend(traces);
        }
    }

    /// The call is over: what must not outlive it goes.
    pub(super) fn end(&mut self) {
        self.call.secrets.forget();
    }

    /// WASI as it is made by default, for what is granted of it.
    pub(super) fn real(&mut self) -> &mut WasiCtx {
        &mut self.wasi
    }

    /// Another tick has passed while the guest ran.
    ///
    /// # Errors
    /// The guest's time is up.
    pub(super) fn tick(&mut self) -> Result<(), DeadlinePassed> {
        self.call.ticks_left = self.call.ticks_left.saturating_sub(1);
        if self.call.ticks_left == 0 || Instant::now() >= self.call.deadline {
            return Err(DeadlinePassed);
        }
        Ok(())
    }
}

/// Bytes of a `tracestate` that are passed on; more may be cut by anyone, says the standard.
const MAX_TRACE_STATE: usize = 512;

/// The trace of an event, if it has a valid one.
fn trace(batch: &wire::Batch<'_>, event: &wire::Event) -> Option<Trace> {
    let start = event.headers_start as usize;
    let end = start.checked_add(event.headers_count as usize)?;
    let headers = batch.headers.get(start..end)?;
    let value = |name: &[u8]| {
        let mut named = headers
            .iter()
            .filter(|header| header.name.of(batch.data) == Some(name));
        named.next_back()?.value.of(batch.data)
    };
    let parent = value(b"traceparent").and_then(TraceParent::parse)?;
    let state = value(b"tracestate").filter(|state| state.len() <= MAX_TRACE_STATE);
    Some(Trace {
        parent: parent.to_string(),
        state: state.map(<[u8]>::to_vec),
    })
}

impl Call {
    /// When the call must be over.
    pub(super) fn deadline(&self) -> Instant {
        self.deadline
    }

    /// The offset of the event at this index of the batch.
    pub(super) fn offset(&self, index: u32) -> Option<u64> {
        self.offsets.get(index as usize).copied()
    }

    /// What is left of the budget.
    pub(super) fn time_left(&self) -> Duration {
        self.deadline.saturating_duration_since(Instant::now())
    }
}

impl WasiView for State {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        WasiCtxView {
            ctx: &mut self.wasi,
            table: &mut self.table,
        }
    }
}

/// Reproducible numbers (SplitMix64): the same consumer, topic, partition and first offset give the
/// same ones on every machine and in every version.
#[derive(Clone, Debug)]
pub(super) struct Random(u64);

impl Random {
    /// The sequence of this place.
    pub(super) fn seeded(consumer: &str, topic: &str, partition: u32, offset: u64) -> Self {
        let mut hasher = Xxh3::new();
        hasher.update(consumer.as_bytes());
        hasher.update(&[0]);
        hasher.update(topic.as_bytes());
        hasher.update(&[0]);
        hasher.update(&partition.to_le_bytes());
        hasher.update(&offset.to_le_bytes());
        Self(hasher.digest())
    }

    /// The next number.
    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// The next `length` bytes.
    pub(super) fn bytes(&mut self, length: usize) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(length + 8);
        while bytes.len() < length {
            bytes.extend_from_slice(&self.next().to_le_bytes());
        }
        bytes.truncate(length);
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Another sequence after an upgrade would break the promise that a plugin is reproducible.
    #[test]
    fn the_sequence_of_a_place_is_fixed() {
        let mut random = Random::seeded("enrich", "orders", 3, 42);
        let again = Random::seeded("enrich", "orders", 3, 42);
        assert_eq!(random.clone().bytes(5), again.clone().bytes(5));
        assert_eq!(random.clone().bytes(16)[..8], random.next().to_le_bytes());
        for (topic, partition, offset) in [("orders", 3, 43), ("orders", 4, 42), ("other", 3, 42)] {
            let other = Random::seeded("enrich", topic, partition, offset);
            assert_ne!(other.clone().bytes(8), again.clone().bytes(8));
        }
        // The first output of SplitMix64 for the state 0, as published with the algorithm.
        assert_eq!(Random(0).next(), 0xe220_a839_7b1d_cdaf);
    }
}
