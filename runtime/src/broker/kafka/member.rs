//! The client that is a member of a group, and what it tells while it is polled.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use rdkafka::TopicPartitionList;
use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::KafkaError;
use rdkafka::types::RDKafkaRespErr;

use super::client::Listener;
use crate::event::TopicPartition;

/// A member of a group.
pub(super) type Member = BaseConsumer<MemberContext>;

/// What the group asks of the member.
#[derive(Debug)]
pub(super) enum Demand {
    /// Take these partitions.
    Assign(Vec<TopicPartition>),
    /// Give these up; with `lost` another member may have them already.
    Revoke {
        partitions: Vec<TopicPartition>,
        lost: bool,
    },
}

/// Keeps the group's demands for the poll loop, which serves them one after another. librdkafka
/// waits for that: it goes on once the partitions are assigned or unassigned.
pub(super) struct MemberContext {
    listener: Listener,
    demands: Mutex<VecDeque<Demand>>,
    /// The member leaves: demands are granted on the spot, for nobody serves them any more.
    leaving: AtomicBool,
}

impl MemberContext {
    pub(super) fn new(listener: Listener) -> Self {
        Self {
            listener,
            demands: Mutex::default(),
            leaving: AtomicBool::new(false),
        }
    }

    /// The oldest demand that was not served yet.
    pub(super) fn next_demand(&self) -> Option<Demand> {
        self.demands.lock().pop_front()
    }

    /// Adds a demand of our own, after those of the group.
    pub(super) fn demand(&self, demand: Demand) {
        self.demands.lock().push_back(demand);
    }

    /// From now on partitions are given up without asking.
    pub(super) fn leave(&self) {
        self.leaving.store(true, Ordering::Relaxed);
    }
}

impl ClientContext for MemberContext {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        self.listener.log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.listener.error(error, reason);
    }
}

impl ConsumerContext for MemberContext {
    fn rebalance(
        &self,
        member: &BaseConsumer<Self>,
        kind: RDKafkaRespErr,
        list: &mut TopicPartitionList,
    ) {
        let assign = kind == RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS;
        if self.leaving.load(Ordering::Relaxed) {
            let empty = TopicPartitionList::new();
            let granted = if assign {
                member.incremental_assign(&empty)
            } else {
                member.incremental_unassign(list)
            };
            if let Err(error) = granted {
                tracing::debug!("a rebalance while leaving the group: {error}");
            }
            return;
        }
        let partitions = partitions_of(list);
        self.demands.lock().push_back(if assign {
            Demand::Assign(partitions)
        } else {
            Demand::Revoke {
                partitions,
                lost: member.assignment_lost(),
            }
        });
    }
}

/// The partitions of a list; those without a number are left out.
pub(super) fn partitions_of(list: &TopicPartitionList) -> Vec<TopicPartition> {
    list.elements()
        .iter()
        .filter_map(|element| {
            let number = u32::try_from(element.partition()).ok()?;
            Some(TopicPartition::new(element.topic(), number))
        })
        .collect()
}

/// A list of partitions, each with the offset that `offset` gives.
pub(super) fn list_of<'a>(
    partitions: impl IntoIterator<Item = &'a TopicPartition>,
    offset: impl Fn(&TopicPartition) -> rdkafka::Offset,
) -> TopicPartitionList {
    let mut list = TopicPartitionList::new();
    for partition in partitions {
        let number = i32::try_from(partition.partition).unwrap_or(i32::MAX);
        let mut element = list.add_partition(&partition.topic, number);
        // Fails for offsets that Kafka cannot express; such an element stays invalid, and the
        // call that uses the list says so.
        let _ = element.set_offset(offset(partition));
    }
    list
}

/// An offset as rdkafka wants it.
pub(super) fn offset(number: u64) -> rdkafka::Offset {
    rdkafka::Offset::Offset(i64::try_from(number).unwrap_or(i64::MAX))
}

/// The member as what a [`super::raw::Queue`] keeps alive.
pub(super) fn keep(member: &Arc<Member>) -> Arc<dyn std::any::Any + Send + Sync> {
    member.clone()
}
