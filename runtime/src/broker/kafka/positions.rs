//! Where to start reading a partition: the committed position, the configured start, or what is
//! left where retention overtook the position.

use std::collections::HashMap;
use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::{Offset, TopicPartitionList};

use super::member::list_of;
use super::raw::committed_of;
use crate::config::{OnLostPosition, Start};
use crate::decide::offsets::Progress;
use crate::event::TopicPartition;

/// Where a partition is taken up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    /// Where the group stands.
    pub(super) progress: Progress,
    /// Where to fetch from.
    pub(super) from: u64,
    pub(super) lost: Option<Lost>,
}

impl Place {
    /// What counts as settled from here on. Behind the end of a topic that was made again, or cut
    /// off, the old position would hide what comes.
    pub(super) fn settled(&self) -> Progress {
        if self.goes_back() {
            Progress::at(self.from)
        } else {
            self.progress.clone()
        }
    }

    /// Whether the topic is to be read again from below the position.
    pub(super) fn goes_back(&self) -> bool {
        self.lost == Some(Lost::Skip) && self.from < self.progress.next
    }
}

/// The broker no longer has what the group stands at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Lost {
    /// Go on at `Place::from`.
    Skip,
    /// Wait for a person.
    Halt(String),
}

/// The offsets that a partition holds: from `low` up to, not including, `high`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Bounds {
    pub(super) low: u64,
    pub(super) high: u64,
}

/// Decides where a partition is taken up. `start` is the offset for a partition without a position.
pub(super) fn place(
    committed: Option<Progress>,
    bounds: Bounds,
    start: u64,
    on_lost: OnLostPosition,
) -> Place {
    let Some(progress) = committed else {
        return Place {
            progress: Progress::at(start),
            from: start,
            lost: None,
        };
    };
    if (bounds.low..=bounds.high).contains(&progress.next) {
        return Place {
            from: progress.next,
            progress,
            lost: None,
        };
    }
    let (from, lost) = match on_lost {
        OnLostPosition::Beginning => (bounds.low, Lost::Skip),
        OnLostPosition::End => (bounds.high, Lost::Skip),
        OnLostPosition::Stop => (
            bounds.low,
            Lost::Halt(format!(
                "the group stands at offset {}, but the topic holds {} to {}: retention or \
                 truncation took events that were not settled. Reset the consumer's offsets, or \
                 set on_lost_position",
                progress.next, bounds.low, bounds.high
            )),
        ),
    };
    Place {
        progress,
        from,
        lost: Some(lost),
    }
}

/// The positions that the group committed. Blocks.
pub(super) fn committed<C: ConsumerContext>(
    client: &BaseConsumer<C>,
    partitions: &[TopicPartition],
    wait: Duration,
) -> KafkaResult<HashMap<TopicPartition, Progress>> {
    let list = list_of(partitions, |_| Offset::Invalid);
    let list = client.committed_offsets(list, wait)?;
    let mut positions = HashMap::new();
    for entry in committed_of(&list) {
        if let Some(code) = entry.error {
            return Err(KafkaError::OffsetFetch(code));
        }
        if let (Some(progress), Ok(number)) = (entry.progress(), u32::try_from(entry.partition)) {
            positions.insert(TopicPartition::new(entry.topic, number), progress);
        }
    }
    Ok(positions)
}

/// What the partitions hold, as a reader of committed events sees it. Blocks.
pub(super) fn bounds<C: ConsumerContext>(
    client: &BaseConsumer<C>,
    partitions: &[TopicPartition],
    wait: Duration,
) -> KafkaResult<HashMap<TopicPartition, Bounds>> {
    let low = offsets_of(client, list_of(partitions, |_| Offset::Beginning), wait)?;
    let high = offsets_of(client, list_of(partitions, |_| Offset::End), wait)?;
    Ok(low
        .into_iter()
        .filter_map(|(partition, low)| {
            let low = low?;
            let high = (*high.get(&partition)?)?.max(low);
            Some((partition, Bounds { low, high }))
        })
        .collect())
}

/// Where `start` is in each partition. Blocks.
pub(super) fn starts<C: ConsumerContext>(
    client: &BaseConsumer<C>,
    bounds: &HashMap<TopicPartition, Bounds>,
    start: Start,
    wait: Duration,
) -> KafkaResult<HashMap<TopicPartition, u64>> {
    let at = match start {
        Start::At(milliseconds) if !bounds.is_empty() => {
            let list = list_of(bounds.keys(), |_| Offset::Offset(milliseconds.max(0)));
            offsets_of(client, list, wait)?
        }
        _ => HashMap::new(),
    };
    Ok(bounds
        .iter()
        .map(|(partition, bounds)| {
            let offset = match start {
                Start::Beginning => bounds.low,
                Start::End => bounds.high,
                // No such event yet: the next one is.
                Start::At(_) => at.get(partition).copied().flatten().unwrap_or(bounds.high),
            };
            (partition.clone(), offset)
        })
        .collect())
}

/// The offsets for the times in `list`; `None` where no event is that young. Blocks.
pub(super) fn offsets_of<C: ConsumerContext>(
    client: &BaseConsumer<C>,
    list: TopicPartitionList,
    wait: Duration,
) -> KafkaResult<HashMap<TopicPartition, Option<u64>>> {
    if list.count() == 0 {
        return Ok(HashMap::new());
    }
    let list = client.offsets_for_times(list, wait)?;
    let mut offsets = HashMap::new();
    for entry in committed_of(&list) {
        if let Some(code) = entry.error {
            return Err(KafkaError::MetadataFetch(code));
        }
        if let Ok(number) = u32::try_from(entry.partition) {
            let offset = u64::try_from(entry.offset).ok();
            offsets.insert(TopicPartition::new(entry.topic, number), offset);
        }
    }
    Ok(offsets)
}

#[cfg(test)]
#[expect(
    clippy::single_range_in_vec_init,
    reason = "one settled range is what is meant"
)]
mod tests {
    use super::*;

    const BOUNDS: Bounds = Bounds { low: 10, high: 20 };

    #[test]
    fn a_position_within_the_log_is_taken_up_with_its_ranges() {
        let progress = Progress {
            next: 12,
            above: vec![14..16],
            watch: None,
        };
        let place = place(Some(progress.clone()), BOUNDS, 10, OnLostPosition::Stop);
        assert_eq!(
            (place.progress, place.from, place.lost),
            (progress, 12, None)
        );
    }

    /// The end itself is a good position: everything is settled.
    #[test]
    fn a_position_at_either_edge_is_not_lost() {
        for next in [10, 20] {
            let place = place(Some(Progress::at(next)), BOUNDS, 0, OnLostPosition::Stop);
            assert_eq!((place.from, place.lost), (next, None));
        }
    }

    /// Going on silently would lose events without anyone knowing.
    #[test]
    fn a_position_that_retention_overtook_halts_unless_told_otherwise() {
        for next in [3, 30] {
            let at = |policy| place(Some(Progress::at(next)), BOUNDS, 0, policy);
            assert!(matches!(at(OnLostPosition::Stop).lost, Some(Lost::Halt(_))));
            assert_eq!(at(OnLostPosition::Beginning).from, 10);
            assert_eq!(at(OnLostPosition::End).from, 20);
            assert_eq!(at(OnLostPosition::End).lost, Some(Lost::Skip));
        }
    }

    /// Behind retention all below the position stays settled; behind the end of a topic that was
    /// made again nothing is, or its events would pass for events of the old one.
    #[test]
    fn a_position_behind_the_end_settles_nothing_of_what_comes() {
        let lost = |next, policy| {
            let progress = Progress {
                above: vec![next + 2..next + 4],
                ..Progress::at(next)
            };
            place(Some(progress.clone()), BOUNDS, 0, policy).settled() == progress
        };
        assert!(lost(3, OnLostPosition::Beginning));
        assert!(lost(3, OnLostPosition::End));
        assert!(lost(30, OnLostPosition::Stop));
        for (policy, from) in [(OnLostPosition::Beginning, 10), (OnLostPosition::End, 20)] {
            let place = place(Some(Progress::at(30)), BOUNDS, 0, policy);
            assert_eq!(place.settled(), Progress::at(from));
        }
    }

    #[test]
    fn a_partition_without_a_position_starts_where_it_is_told() {
        let place = place(None, BOUNDS, 15, OnLostPosition::Stop);
        assert_eq!((place.progress, place.from), (Progress::at(15), 15));
    }
}
