//! Positions of groups: how they are stored, and where a new group begins.
//!
//! One process owns the store, so a group has one member here: it gets every partition of every
//! topic that it wants.

use super::catalog::{Catalog, Partition};
use super::codec::{Damaged, Input, put_number};
use super::reader;
use super::store::{self, Store, broken};
use crate::broker::BrokerError;
use crate::config::{OnLostPosition, Start};
use crate::decide::crash::Watch;
use crate::decide::offsets::Progress;
use crate::event::TopicPartition;

/// The form of a stored position.
const VERSION: u8 = 1;

/// The value of a position: version, `next`, how many ranges lie above it, and each as its distance
/// from what came before and its length; then the watch, where there is one: life, deaths, the first
/// offset and how many. All but the version as varints.
pub fn encode(progress: &Progress) -> Vec<u8> {
    let mut out = vec![VERSION];
    put_number(&mut out, progress.next);
    put_number(&mut out, progress.above.len() as u64);
    let mut before = progress.next;
    for range in &progress.above {
        put_number(&mut out, range.start.saturating_sub(before));
        put_number(&mut out, range.end.saturating_sub(range.start));
        before = range.end;
    }
    if let Some(watch) = &progress.watch {
        put_number(&mut out, watch.life.into());
        put_number(&mut out, watch.deaths.into());
        put_number(&mut out, watch.from);
        put_number(&mut out, watch.until.saturating_sub(watch.from));
    }
    out
}

/// A position from its value.
///
/// # Errors
/// The value is not one that [`encode`] wrote.
pub fn decode(value: &[u8]) -> Result<Progress, Damaged> {
    let mut input = Input(value);
    let [version] = input.array::<1>()?;
    if version != VERSION {
        return Err(Damaged::Version(version));
    }
    let next = input.number()?;
    let mut progress = Progress::at(next);
    let mut before = next;
    for _ in 0..input.number()? {
        let start = before.checked_add(input.number()?).ok_or(Damaged::Short)?;
        let end = start.checked_add(input.number()?).ok_or(Damaged::Short)?;
        // One that is empty, or touches what is settled below it, was written by nobody.
        if start <= before || end <= start {
            return Err(Damaged::Ranges);
        }
        progress.above.push(start..end);
        before = end;
    }
    if !input.0.is_empty() {
        let small = |number: u64| u32::try_from(number).map_err(|_| Damaged::Short);
        let (life, deaths, from) = (
            small(input.number()?)?,
            small(input.number()?)?,
            input.number()?,
        );
        let until = from.checked_add(input.number()?).ok_or(Damaged::Short)?;
        progress.watch = Some(Watch {
            life,
            deaths,
            from,
            until,
        });
    }
    Ok(progress)
}

/// A group's position in a partition, if it has one.
///
/// # Errors
/// The store fails or the value is damaged.
pub fn position(
    store: &Store,
    group: &str,
    partition: &Partition,
) -> Result<Option<Progress>, BrokerError> {
    let key = store::position_key(group, partition.topic_id, partition.place.partition);
    let value = store.positions.get(key).map_err(broken)?;
    value
        .map(|value| decode(&value).map_err(|e| damaged(group, &partition.place, &e)))
        .transpose()
}

/// All positions of a group, by topic and partition.
///
/// # Errors
/// As [`position`].
pub fn positions(
    store: &Store,
    catalog: &Catalog,
    group: &str,
) -> Result<Vec<(TopicPartition, Progress)>, BrokerError> {
    let mut found = Vec::new();
    for guard in store.positions.prefix(store::positions_prefix(group)) {
        let (key, value) = guard.into_inner().map_err(broken)?;
        let Some((topic, partition)) = store::position_of(&key) else {
            continue;
        };
        let Some(topic) = catalog.by_id(topic) else {
            continue;
        };
        let place = TopicPartition::new(topic.name.clone(), partition);
        let progress = decode(&value).map_err(|e| damaged(group, &place, &e))?;
        found.push((place, progress));
    }
    found.sort_by(|(a, _), (b, _)| a.cmp(b));
    Ok(found)
}

/// Whether the group was ever seen.
///
/// # Errors
/// The store fails.
pub fn known(store: &Store, group: &str) -> Result<bool, BrokerError> {
    store
        .meta
        .contains_key(store::group_key(group))
        .map_err(broken)
}

/// Where a new group starts in a partition that exists already.
///
/// # Errors
/// The store fails.
pub fn start(store: &Store, partition: &Partition, start: Start) -> Result<u64, BrokerError> {
    match start {
        Start::Beginning => Ok(partition.start()),
        Start::End => Ok(partition.end()),
        Start::At(timestamp_ms) => reader::offset_at(store, partition, timestamp_ms),
    }
}

/// What to do where the events from `position` on are not there: go on at an offset, or stop.
pub fn after_loss(partition: &Partition, rule: OnLostPosition) -> Option<u64> {
    match rule {
        OnLostPosition::Stop => None,
        OnLostPosition::Beginning => Some(partition.start()),
        OnLostPosition::End => Some(partition.end()),
    }
}

fn damaged(group: &str, place: &TopicPartition, error: &Damaged) -> BrokerError {
    BrokerError::Store(format!(
        "the position of group {group} in {place} is damaged: {error}"
    ))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_position_is_read_as_it_was_written(
            next in 0..u64::MAX / 4,
            gaps in proptest::collection::vec((1..1_000_u64, 1..1_000_u64), 0..20),
            watch in proptest::option::of((any::<u32>(), any::<u32>(), 0..1_000_u64, 0..1_000_u64)),
        ) {
            let mut progress = Progress::at(next);
            progress.watch = watch.map(|(life, deaths, from, length)| Watch {
                life, deaths, from, until: from + length,
            });
            let mut at = next;
            for (gap, length) in gaps {
                progress.above.push(at + gap..at + gap + length);
                at += gap + length;
            }
            prop_assert_eq!(decode(&encode(&progress)), Ok(progress));
        }

        #[test]
        fn garbage_never_panics(value in proptest::collection::vec(any::<u8>(), 0..60)) {
            let _ = decode(&value);
        }
    }

    #[test]
    fn a_later_form_is_named() {
        assert_eq!(decode(&[7, 0, 0]), Err(Damaged::Version(7)));
        // Touching `next`, empty, and touching the one before.
        for ranges in [&[0, 1][..], &[1, 0], &[1, 1, 0, 1]] {
            let mut value = vec![VERSION, 5, ranges.len() as u8 / 2];
            value.extend_from_slice(ranges);
            assert_eq!(decode(&value), Err(Damaged::Ranges), "{ranges:?}");
        }
    }
}
