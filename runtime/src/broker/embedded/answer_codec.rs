//! An answer to a request with a key as one value of the store. Pure.
//!
//! ```text
//! 0       1     9       25
//! ┌───────┬─────┬───────┬──────┬──────────────────────────┬────────┬────────────────────────
//! │version│time │digest │ runs │ topic, partition, offset │ places │ of each place, its run
//! └───────┴─────┴───────┴──────┴──────────────────────────┴────────┴────────────────────────
//! ```
//!
//! Numbers after the digest are varints. Where there is one run, the places do not name it.

use std::collections::HashMap;
use std::sync::Arc;

use super::codec::{Damaged, Input, put_bytes, put_number};
use crate::broker::Place;
use crate::event::TopicPartition;

/// The form of a stored answer.
const VERSION: u8 = 1;

/// Events of one request: a body of 16 MiB has fewer lines that are events.
const MOST_PLACES: u64 = 2_000_000;

/// An answer's value. Within a call the offsets of a partition mostly follow one another: a run of
/// them is written once, and each record says only which run goes on.
pub fn encode(written_ms: u64, digest: u128, places: &[Place]) -> Vec<u8> {
    let mut runs: Vec<&Place> = Vec::new();
    let mut last: HashMap<&TopicPartition, (usize, u64)> = HashMap::new();
    let mut run_of = Vec::with_capacity(places.len());
    for place in places {
        let (run, next) = match last.get(&place.partition) {
            Some(&(run, next)) if next == place.offset => (run, next),
            _ => {
                runs.push(place);
                (runs.len() - 1, place.offset)
            }
        };
        last.insert(&place.partition, (run, next + 1));
        run_of.push(run);
    }
    let mut out = vec![VERSION];
    out.extend_from_slice(&written_ms.to_be_bytes());
    out.extend_from_slice(&digest.to_be_bytes());
    put_number(&mut out, runs.len() as u64);
    for place in &runs {
        put_bytes(&mut out, Some(place.partition.topic.as_bytes()));
        put_number(&mut out, u64::from(place.partition.partition));
        put_number(&mut out, place.offset);
    }
    put_number(&mut out, places.len() as u64);
    if runs.len() > 1 {
        for run in run_of {
            put_number(&mut out, run as u64);
        }
    }
    out
}

/// Time and digest of a value, and the rest of it: the places.
///
/// # Errors
/// The value is none that [`encode`] wrote.
pub fn split(value: &[u8]) -> Result<(u64, u128, Input<'_>), Damaged> {
    let mut input = Input(value);
    let [version] = input.array()?;
    if version != VERSION {
        return Err(Damaged::Version(version));
    }
    let written_ms = u64::from_be_bytes(input.array()?);
    let digest = u128::from_be_bytes(input.array()?);
    Ok((written_ms, digest, input))
}

/// The places of a value, from what [`split`] left.
///
/// # Errors
/// They are none that [`encode`] wrote.
pub fn read_places(mut input: Input<'_>) -> Result<Vec<Place>, Damaged> {
    let mut runs: Vec<Place> = Vec::new();
    for _ in 0..input.number()? {
        let topic = input.bytes()?.unwrap_or_default();
        let topic = std::str::from_utf8(topic).map_err(|_| Damaged::Short)?;
        // Of few topics, mostly one.
        let known = runs.iter().map(|run| &run.partition.topic);
        let topic: Arc<str> = match known.clone().find(|known| ***known == *topic) {
            Some(known) => known.clone(),
            None => topic.into(),
        };
        let partition = u32::try_from(input.number()?).map_err(|_| Damaged::Short)?;
        runs.push(Place {
            partition: TopicPartition::new(topic, partition),
            offset: input.number()?,
        });
    }
    let mut places = Vec::new();
    let count = input.number()?;
    // Where there is one run, no byte behind the count would end the loop.
    if count > MOST_PLACES {
        return Err(Damaged::Count(count));
    }
    for _ in 0..count {
        let run = match runs.len() {
            1 => 0,
            _ => usize::try_from(input.number()?).map_err(|_| Damaged::Short)?,
        };
        let run = runs.get_mut(run).ok_or(Damaged::Short)?;
        places.push(run.clone());
        run.offset = run.offset.wrapping_add(1);
    }
    Ok(places)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn place(topic: &str, partition: u32, offset: u64) -> Place {
        Place {
            partition: TopicPartition::new(topic, partition),
            offset,
        }
    }

    proptest! {
        #[test]
        fn places_are_read_as_written(
            given in proptest::collection::vec((0..3_u32, 0..3_u32, 0..4_u64), 0..40),
            digest in any::<u128>(),
            written_ms in any::<u64>(),
        ) {
            let places: Vec<Place> = given
                .iter()
                .map(|&(topic, partition, offset)| place(&format!("t{topic}"), partition, offset))
                .collect();
            let value = encode(written_ms, digest, &places);
            let (time, read, rest) = split(&value).unwrap();
            prop_assert_eq!((time, read), (written_ms, digest));
            prop_assert_eq!(read_places(rest).unwrap(), places);
        }

        #[test]
        fn any_value_is_read_or_refused(value in proptest::collection::vec(0..4_u8, 0..60)) {
            let _ = split(&value).map(|(.., rest)| read_places(rest));
        }
    }

    /// A count that changed on the disk would otherwise be followed until the memory is used up.
    #[test]
    fn a_count_beyond_any_request_is_refused() {
        let mut value = encode(1, 2, &[place("t", 0, 7)]);
        value.pop();
        put_number(&mut value, u64::MAX);
        let (.., rest) = split(&value).unwrap();
        assert_eq!(read_places(rest), Err(Damaged::Count(u64::MAX)));
    }

    /// Each answer is kept for a day: ten thousand events must not cost megabytes.
    #[test]
    fn a_call_of_many_events_has_a_small_answer() {
        let places: Vec<Place> = (0..10_000)
            .map(|n| place("orders", n % 4, u64::from(1_000 + n / 4)))
            .collect();
        assert!(encode(0, 0, &places).len() < 10_200);
        let one = encode(0, 0, &places[..1]);
        assert!(one.len() < 50);
    }
}
