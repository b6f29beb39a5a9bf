//! How far a contender is, watched from outside.

use std::time::Duration;

use anyhow::Result;
use millstream_test_support::kafka_tools::KafkaTools;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::{Offset, TopicPartitionList};

use crate::contender::{Job, Started};
use crate::embedded;

/// A watcher of the positions that a contender's groups have committed.
pub enum Progress {
    Kafka {
        consumers: Vec<BaseConsumer>,
        list: TopicPartitionList,
    },
    Embedded {
        admin: String,
        groups: Vec<String>,
    },
}

impl Progress {
    /// Watches groups on Kafka.
    ///
    /// # Errors
    /// No client can be made.
    pub fn on_kafka(kafka: &KafkaTools, job: &Job<'_>) -> Result<Self> {
        // Else an answer waits until no transaction of the group holds positions: under exactly once
        // that can be the end.
        let consumer = |group: &String| {
            let mut client = kafka.client();
            client.set("isolation.level", "read_uncommitted");
            client.set("group.id", group).create()
        };
        let consumers = job.groups.iter().map(consumer).collect::<Result<_, _>>()?;
        let mut list = TopicPartitionList::new();
        for partition in 0..job.partitions.try_into()? {
            list.add_partition(job.input, partition);
        }
        Ok(Self::Kafka { consumers, list })
    }

    /// Watches groups on the embedded broker of a contender.
    pub fn embedded(started: &Started, job: &Job<'_>) -> Self {
        Self::Embedded {
            admin: started.admin.clone().unwrap_or_default(),
            groups: job.groups.clone(),
        }
    }

    /// How many events all groups together have committed; zero where it is not known yet.
    pub fn committed(&self) -> u64 {
        match self {
            Self::Kafka { consumers, list } => {
                consumers.iter().map(|one| committed(one, list)).sum()
            }
            Self::Embedded { admin, groups } => embedded::settled(admin, groups).unwrap_or(0),
        }
    }
}

fn committed(consumer: &BaseConsumer, list: &TopicPartitionList) -> u64 {
    let Ok(committed) = consumer.committed_offsets(list.clone(), Duration::from_secs(5)) else {
        return 0;
    };
    let offsets = committed.elements();
    let known = offsets.iter().filter_map(|element| match element.offset() {
        Offset::Offset(offset) => u64::try_from(offset).ok(),
        _ => None,
    });
    known.sum()
}
