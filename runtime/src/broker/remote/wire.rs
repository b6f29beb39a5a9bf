//! What crosses HTTP between a running runtime and the command line, besides events.

use serde::{Deserialize, Serialize};
use std::time::Duration;

use crate::broker::{BrokerError, PartitionInfo, Place, TopicInfo};
use crate::config::{Cleanup, TopicSettings};
use crate::decide::offsets::Progress;
use crate::event::TopicPartition;

/// Header of an answer with events: where to read on.
pub const NEXT: &str = "millstream-next";
/// Header of an answer with events: the partition's end at the time.
pub const END: &str = "millstream-end";
/// Header of a request to produce: its sender's name for it.
pub const IDEMPOTENCY_KEY: &str = "idempotency-key";
/// Content type of JSON lines.
pub const NDJSON: &str = "application/x-ndjson";

/// Who answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RuntimeReport {
    /// Always `millstream`.
    pub name: String,
    pub version: String,
    /// A digest that tells one broker's data from another's.
    pub store: String,
}

/// A topic.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TopicReport {
    pub name: String,
    pub partitions: Vec<PartitionReport>,
}

/// A partition, with offsets from `start` up to, not including, `end`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartitionReport {
    pub partition: u32,
    pub start: u64,
    pub end: u64,
}

impl From<&TopicInfo> for TopicReport {
    fn from(info: &TopicInfo) -> Self {
        let partitions = (0..).zip(&info.partitions);
        Self {
            name: info.name.to_string(),
            partitions: partitions
                .map(|(partition, bounds)| PartitionReport {
                    partition,
                    start: bounds.start,
                    end: bounds.end,
                })
                .collect(),
        }
    }
}

impl From<TopicReport> for TopicInfo {
    fn from(report: TopicReport) -> Self {
        let mut partitions = report.partitions;
        partitions.sort_by_key(|bounds| bounds.partition);
        Self {
            name: report.name.into(),
            partitions: partitions
                .iter()
                .map(|bounds| PartitionInfo {
                    start: bounds.start,
                    end: bounds.end,
                })
                .collect(),
        }
    }
}

/// A topic to make.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewTopic {
    pub name: String,
    #[serde(default)]
    pub partitions: Option<u32>,
    /// Milliseconds.
    #[serde(default)]
    pub retention_age: Option<u64>,
    #[serde(default)]
    pub retention_bytes: Option<u64>,
    /// `delete` or `compact`.
    #[serde(default)]
    pub cleanup: Option<CleanupName>,
    #[serde(default)]
    pub max_event: Option<u64>,
}

/// How `cleanup` is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CleanupName {
    Delete,
    Compact,
}

impl NewTopic {
    /// A request for a topic of this name and these settings.
    pub fn new(name: &str, settings: &TopicSettings) -> Self {
        Self {
            name: name.to_owned(),
            partitions: settings.partitions,
            retention_age: settings
                .retention_age
                .map(|age| u64::try_from(age.as_millis()).unwrap_or(u64::MAX)),
            retention_bytes: settings.retention_bytes,
            cleanup: settings.cleanup.map(|cleanup| match cleanup {
                Cleanup::Delete => CleanupName::Delete,
                Cleanup::Compact => CleanupName::Compact,
            }),
            max_event: settings.max_event,
        }
    }

    /// What is asked for; what is not, is as in `defaults`.
    pub fn settings(&self, defaults: &TopicSettings) -> TopicSettings {
        TopicSettings {
            partitions: self.partitions.or(defaults.partitions),
            retention_age: self
                .retention_age
                .map(Duration::from_millis)
                .or(defaults.retention_age),
            retention_bytes: self.retention_bytes.or(defaults.retention_bytes),
            cleanup: self
                .cleanup
                .map(|cleanup| match cleanup {
                    CleanupName::Delete => Cleanup::Delete,
                    CleanupName::Compact => Cleanup::Compact,
                })
                .or(defaults.cleanup),
            max_event: self.max_event.or(defaults.max_event),
        }
    }
}

/// Whether a topic was made or deleted; false where there was nothing to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Changed {
    pub changed: bool,
}

/// An offset.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OffsetReport {
    pub offset: u64,
}

/// Where an event was written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlaceReport {
    pub topic: String,
    pub partition: u32,
    pub offset: u64,
}

impl From<&Place> for PlaceReport {
    fn from(place: &Place) -> Self {
        Self {
            topic: place.partition.topic.to_string(),
            partition: place.partition.partition,
            offset: place.offset,
        }
    }
}

impl From<PlaceReport> for Place {
    fn from(report: PlaceReport) -> Self {
        Self {
            partition: TopicPartition::new(report.topic, report.partition),
            offset: report.offset,
        }
    }
}

/// Where events were written, in their order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlacesReport {
    pub events: Vec<PlaceReport>,
}

/// The body of `POST /api/v1/consumers/{consumer}/skip`: the event to move past.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SkipRequest {
    pub topic: String,
    pub partition: u32,
    pub offset: u64,
}

/// A group's position in a partition.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PositionReport {
    pub topic: String,
    pub partition: u32,
    pub next: u64,
    /// Settled ranges above `next`, each from its first offset to one past its last.
    pub above: Vec<(u64, u64)>,
}

impl From<&(TopicPartition, Progress)> for PositionReport {
    fn from((partition, progress): &(TopicPartition, Progress)) -> Self {
        Self {
            topic: partition.topic.to_string(),
            partition: partition.partition,
            next: progress.next,
            above: progress.above.iter().map(|r| (r.start, r.end)).collect(),
        }
    }
}

impl From<PositionReport> for (TopicPartition, Progress) {
    fn from(report: PositionReport) -> Self {
        let partition = TopicPartition::new(report.topic, report.partition);
        let above = report.above.iter().map(|&(start, end)| start..end);
        let progress = Progress {
            next: report.next,
            above: above.collect(),
            watch: None,
        };
        (partition, progress)
    }
}

/// An answer that says no.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorReport {
    pub error: String,
    /// Which [`BrokerError`] it is, where it is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<ErrorKind>,
    /// The lines of the request that are at fault; the first hundred.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub lines: Vec<LineError>,
}

/// A line of the request that is at fault.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LineError {
    /// The first line is 1.
    pub line: usize,
    pub error: String,
}

/// The kinds of [`BrokerError`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorKind {
    Unreachable,
    UnknownTopic,
    Refused,
    Store,
    DiskFull,
    TooLarge,
    Overloaded,
    Unsupported,
}

impl From<&BrokerError> for ErrorReport {
    fn from(error: &BrokerError) -> Self {
        let kind = match error {
            BrokerError::Unreachable(_) => ErrorKind::Unreachable,
            BrokerError::UnknownTopic(_) => ErrorKind::UnknownTopic,
            BrokerError::Refused(_) => ErrorKind::Refused,
            BrokerError::Store(_) => ErrorKind::Store,
            BrokerError::DiskFull(_) => ErrorKind::DiskFull,
            BrokerError::TooLarge(_) => ErrorKind::TooLarge,
            BrokerError::Overloaded { .. } => ErrorKind::Overloaded,
            BrokerError::Unsupported(_) => ErrorKind::Unsupported,
        };
        Self {
            error: error.to_string(),
            kind: Some(kind),
            lines: Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A setting lost on the way would make a topic with other partitions or another retention.
    #[test]
    fn topic_settings_survive_the_way_there() {
        let settings = TopicSettings {
            partitions: Some(8),
            retention_age: Some(Duration::from_secs(3600)),
            retention_bytes: Some(1 << 30),
            cleanup: Some(Cleanup::Compact),
            max_event: Some(1 << 20),
        };
        let json = serde_json::to_string(&NewTopic::new("t", &settings)).expect("JSON");
        let read: NewTopic = serde_json::from_str(&json).expect("the request");
        assert_eq!(read.settings(&TopicSettings::default()), settings);
    }

    #[test]
    fn what_is_not_asked_for_comes_from_the_configuration() {
        let defaults = TopicSettings {
            partitions: Some(3),
            max_event: Some(10),
            ..TopicSettings::default()
        };
        let asked = NewTopic {
            name: "t".to_owned(),
            partitions: Some(5),
            ..NewTopic::default()
        };
        let settings = asked.settings(&defaults);
        assert_eq!(
            (settings.partitions, settings.max_event),
            (Some(5), Some(10))
        );
    }

    #[test]
    fn positions_keep_what_is_settled_above() {
        let position = (
            TopicPartition::new("t", 1),
            Progress {
                next: 4,
                above: vec![6..9, 12..13],
                watch: None,
            },
        );
        let there = PositionReport::from(&position);
        assert_eq!(<(TopicPartition, Progress)>::from(there), position);
    }
}
