//! The valves of partitions: what is handed over, and how much is fetched ahead.
//!
//! ```text
//! hold ─▶ held: fetched, kept in the partition's queue ─ long, or too much of it ─▶ paused: thrown away
//!           └────────────────────────── release ◀──────────────────────────────────────┘
//! ```

use rdkafka::consumer::Consumer;
use tokio::time::Instant;

use super::member::{Member, list_of};
use super::partitions::{Owned, PAUSE_AFTER, Valve};
use super::poll_thread::PollThread;
use crate::event::TopicPartition;

impl PollThread {
    /// The valve closes: what is fetched stays in the partition's own queue.
    pub(super) fn hold(&mut self, partitions: &[TopicPartition], now: Instant) {
        for partition in partitions {
            if let Some(owned) = self.partitions.get_mut(partition)
                && owned.valve == Valve::Open
            {
                owned.valve = Valve::Held(now);
            }
        }
    }

    /// The valve opens for what was fetched meanwhile. A paused partition is fetched again right
    /// after the last event that was handed over.
    pub(super) fn release(&mut self, partitions: &[TopicPartition]) {
        for partition in partitions {
            let Some(owned) = self.partitions.get_mut(partition) else {
                continue;
            };
            let was = std::mem::replace(&mut owned.valve, Valve::Open);
            if was == Valve::Open || !owned.flows() {
                continue;
            }
            if was == Valve::Paused {
                resume(&self.member, partition);
            }
            owned.bell.keep();
        }
    }

    /// Sees to it that what all partitions fetched ahead stays near the budget, which librdkafka
    /// keeps for each alone: those that are held go first, then those with most.
    pub(super) fn relieve(&mut self, now: Instant) {
        let limit = self.subscription.fetch_bytes;
        let mut fetched: usize = self.partitions.values().map(Owned::fetched_bytes).sum();
        for (partition, owned) in &mut self.partitions {
            if let Valve::Held(since) = owned.valve
                && (fetched > 2 * limit || now.duration_since(since) >= PAUSE_AFTER)
            {
                fetched = fetched.saturating_sub(owned.fetched_bytes());
                owned.valve = Valve::Paused;
                owned.crowded_out = false;
                pause(&self.member, partition);
            }
        }
        let mut fullest: Vec<_> = self
            .partitions
            .iter_mut()
            .filter(|(_, owned)| owned.flows())
            .collect();
        if fetched <= limit {
            for (partition, owned) in fullest {
                if std::mem::take(&mut owned.crowded_out) {
                    resume(&self.member, partition);
                }
            }
            return;
        }
        fullest.sort_by_cached_key(|(_, owned)| std::cmp::Reverse(owned.fetched_bytes()));
        for (partition, owned) in fullest {
            if fetched <= 2 * limit {
                return;
            }
            if !std::mem::replace(&mut owned.crowded_out, true) {
                fetched = fetched.saturating_sub(owned.fetched_bytes());
                pause(&self.member, partition);
            }
        }
    }
}

/// Stops fetching; what was fetched and not drained is thrown away and fetched again later.
pub(super) fn pause(member: &Member, partition: &TopicPartition) {
    let list = list_of([partition], |_| rdkafka::Offset::Invalid);
    if let Err(error) = member.pause(&list) {
        tracing::debug!(%partition, "pausing: {error}");
    }
}

/// Fetches again, right after the last event that was drained.
pub(super) fn resume(member: &Member, partition: &TopicPartition) {
    let list = list_of([partition], |_| rdkafka::Offset::Invalid);
    if let Err(error) = member.resume(&list) {
        tracing::debug!(%partition, "resuming: {error}");
    }
}
