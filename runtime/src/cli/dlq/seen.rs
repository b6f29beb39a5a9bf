//! Which dead letters there are, one small entry an event: what listing and replaying go by.

use std::collections::HashMap;
use std::collections::hash_map::Entry as Place;
use std::sync::Arc;

use crate::consumer::letter::Letter;
use crate::event::TopicPartition;

/// Events that are told apart at most; they take about 70 MB.
pub const MOST: usize = 1_000_000;
/// Topics that they may come from; a forged header must not fill the memory.
const MOST_TOPICS: usize = 4_096;

/// The identities of one consumer's dead letters.
pub struct Seen {
    most: usize,
    topics: Vec<Arc<str>>,
    events: HashMap<Identity, Known>,
    left_out: u64,
}

/// An event: index of its topic, partition, offset.
type Identity = (u32, u32, u64);

#[derive(Clone, Copy, Default)]
struct Known {
    /// The highest count of its dead letters: that of the newest.
    count: u32,
    /// Up to which count it was sent back; 0 is never.
    replayed: u32,
    taken: bool,
}

impl Seen {
    /// Nothing yet; at most `most` events are told apart.
    pub fn new(most: usize) -> Self {
        Self {
            most,
            topics: Vec::new(),
            events: HashMap::new(),
            left_out: 0,
        }
    }

    /// Takes note of a dead letter.
    pub fn note(&mut self, letter: &Letter) {
        let Some(identity) = self.make(&letter.source, letter.offset) else {
            self.left_out += 1;
            return;
        };
        let full = self.events.len() >= self.most;
        match self.events.entry(identity) {
            Place::Occupied(mut known) => {
                let known = known.get_mut();
                known.count = known.count.max(letter.count);
            }
            Place::Vacant(_) if full => self.left_out += 1,
            Place::Vacant(vacant) => {
                vacant.insert(Known {
                    count: letter.count,
                    ..Known::default()
                });
            }
        }
    }

    /// Takes note that an event was sent back after it was dead-lettered for the `count`th time.
    pub fn note_replayed(&mut self, source: &TopicPartition, offset: u64, count: u32) {
        let identity = self.find(source, offset);
        if let Some(known) = identity.and_then(|identity| self.events.get_mut(&identity)) {
            known.replayed = known.replayed.max(count);
        }
    }

    /// Whether this dead letter is the newest of its event, and the first such: a dead letter may
    /// have been written twice. Of events that were left out every dead letter is.
    pub fn take(&mut self, letter: &Letter) -> bool {
        let identity = self.find(&letter.source, letter.offset);
        match identity.and_then(|identity| self.events.get_mut(&identity)) {
            None => true,
            Some(known) if known.taken || known.count != letter.count => false,
            Some(known) => {
                known.taken = true;
                true
            }
        }
    }

    /// Whether the event was sent back since this dead letter of it.
    pub fn is_replayed(&self, letter: &Letter) -> bool {
        let identity = self.find(&letter.source, letter.offset);
        identity
            .and_then(|identity| self.events.get(&identity))
            .is_some_and(|known| known.replayed >= letter.count)
    }

    /// Dead letters that could not be told apart any more.
    pub fn left_out(&self) -> u64 {
        self.left_out
    }

    fn find(&self, source: &TopicPartition, offset: u64) -> Option<Identity> {
        let topic = self
            .topics
            .iter()
            .position(|known| *known == source.topic)?;
        Some((topic as u32, source.partition, offset))
    }

    fn make(&mut self, source: &TopicPartition, offset: u64) -> Option<Identity> {
        if let Some(identity) = self.find(source, offset) {
            return Some(identity);
        }
        if self.topics.len() >= MOST_TOPICS {
            return None;
        }
        self.topics.push(source.topic.clone());
        self.find(source, offset)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn letter(offset: u64, count: u32) -> Letter {
        Letter {
            consumer: "enrich".into(),
            source: TopicPartition::new("orders", 3),
            offset,
            reason: "trap".into(),
            code: String::new(),
            error: String::new(),
            attempts: 1,
            count,
            first_seen_ms: 0,
            digest: String::new(),
        }
    }

    proptest! {
        /// Against the plain way: of each event its newest dead letter, once.
        #[test]
        fn the_newest_dead_letter_of_each_event_is_taken_once(
            letters in proptest::collection::vec((0..6_u64, 1..4_u32), 0..40),
        ) {
            let mut newest: BTreeMap<u64, u32> = BTreeMap::new();
            let mut seen = Seen::new(MOST);
            for (offset, count) in &letters {
                let known = newest.entry(*offset).or_default();
                *known = (*known).max(*count);
                seen.note(&letter(*offset, *count));
            }
            let mut taken: Vec<(u64, u32)> = letters
                .iter()
                .copied()
                .filter(|(offset, count)| seen.take(&letter(*offset, *count)))
                .collect();
            taken.sort_unstable();
            prop_assert_eq!(taken, newest.into_iter().collect::<Vec<_>>());
        }
    }

    /// A partition or topic that were mistaken for another would hide dead letters.
    #[test]
    fn places_are_kept_apart() {
        let mut seen = Seen::new(MOST);
        let mut others = [letter(1, 1), letter(1, 1), letter(2, 1)];
        others[0].source = TopicPartition::new("other", 3);
        others[1].source = TopicPartition::new("orders", 4);
        seen.note(&letter(1, 1));
        others.iter().for_each(|other| seen.note(other));
        assert!(seen.take(&letter(1, 1)));
        assert!(!seen.take(&letter(1, 1)));
        assert!(others.iter().all(|other| seen.take(other)));
    }

    /// What failed again after it was sent back may be sent back again; nothing else may.
    #[test]
    fn an_event_counts_as_sent_back_until_it_fails_again() {
        let mut seen = Seen::new(MOST);
        seen.note(&letter(1, 1));
        seen.note(&letter(2, 2));
        let orders = TopicPartition::new("orders", 3);
        for offset in [1, 2, 3] {
            seen.note_replayed(&orders, offset, 1);
        }
        assert!(seen.is_replayed(&letter(1, 1)));
        assert!(!seen.is_replayed(&letter(2, 2)));
        assert!(
            !seen.is_replayed(&letter(3, 1)),
            "it was never dead-lettered"
        );
    }

    #[test]
    fn past_the_bound_nothing_is_remembered_and_it_is_told() {
        let mut seen = Seen::new(2);
        for offset in [1, 2, 3, 3, 1] {
            seen.note(&letter(offset, 1));
        }
        assert_eq!((seen.left_out(), seen.events.len()), (2, 2));
        assert!(seen.take(&letter(3, 1)) && seen.take(&letter(3, 1)));
    }
}
