//! Answers to requests that came with a key, kept for a day beside the events that they wrote.
//!
//! ```text
//! append with a key ─▶ find ─┬─ known, the same records ─▶ the first answer
//!                            ├─ known, other records ────▶ refused
//!                            └─ new ─▶ events and answer in one batch of the store
//! keeper ─▶ forget ─▶ the oldest go, once they are a day old
//! ```
//!
//! The log writer alone asks and changes, so two requests with one key at the same time are one
//! after the other: the second finds the first, in the store or in its own group.
//!
//! ```text
//! key in the keyspace `answers`     value
//! "k" the request's key             version, time, digest of the records, their places
//! "t" time, the request's key       the bytes that the answer takes, both entries together
//! "bytes"                           the bytes of all answers
//! ```

use std::collections::HashMap;
use std::time::Duration;

use fjall::{Keyspace, OwnedWriteBatch, UserValue};

use super::answer_codec::{encode, read_places, split};
use super::codec::{Damaged, Input, put_number};
use super::store::{Store, broken};
use crate::broker::{BrokerError, Place, RequestKey};

/// How long an answer is kept, milliseconds.
pub const KEPT_MS: u64 = 24 * 60 * 60 * 1000;
/// Bytes of all answers; past it no request with a new key is taken. An answer for one event takes
/// about 150.
const MOST_BYTES: u64 = 2 * 1024 * 1024 * 1024;
/// Answers that are forgotten at once, so that the log writer is never held up for long.
const CHUNK: usize = 4_096;
/// Where the bytes of all answers stand.
const BYTES: &[u8] = b"bytes";

/// A request's key, and a digest of what it asked for.
#[derive(Clone, Debug)]
pub struct Once {
    pub key: RequestKey,
    pub digest: u128,
}

/// The log writer's view of the answers that are kept.
#[derive(Debug)]
pub struct Answers {
    /// Of all that are stored.
    bytes: u64,
    /// None is older. A search from the beginning would pass over the marks of all removed ones.
    oldest_ms: u64,
    most_bytes: u64,
}

/// What is known of a key.
#[derive(Debug, PartialEq, Eq)]
pub enum Found {
    /// The same request was answered so.
    Answer(Vec<Place>),
    /// The request is to be done.
    New(New),
}

/// Leave to store an answer under a key.
#[derive(Debug, PartialEq, Eq)]
pub struct New {
    /// The time and bytes of an answer that is too old to be given, and still there.
    replaces: Option<(u64, u64)>,
}

/// The answers of one group of requests.
pub struct GroupAnswers<'a> {
    kept: &'a Answers,
    keyspace: &'a Keyspace,
    now_ms: u64,
    fresh: HashMap<RequestKey, Vec<u8>>,
    /// Entries by time of answers that are replaced.
    replaced: Vec<Vec<u8>>,
    bytes: u64,
}

/// What changed, to be taken over once it is durable.
#[derive(Debug)]
pub struct Change {
    bytes: u64,
    oldest_ms: u64,
    /// How many answers are gone.
    pub forgotten: usize,
}

impl Answers {
    /// What the store holds.
    ///
    /// # Errors
    /// The store fails.
    pub fn open(store: &Store) -> Result<Self, BrokerError> {
        let bytes = store.answers.get(BYTES).map_err(broken)?;
        let bytes = bytes.and_then(|value| value.first_chunk().copied());
        Ok(Self {
            bytes: bytes.map_or(0, u64::from_be_bytes),
            oldest_ms: 0,
            most_bytes: MOST_BYTES,
        })
    }

    /// The answers of a group at the time `now_ms`.
    pub fn group<'a>(&'a self, store: &'a Store, now_ms: i64) -> GroupAnswers<'a> {
        GroupAnswers {
            kept: self,
            keyspace: &store.answers,
            now_ms: u64::try_from(now_ms).unwrap_or(0),
            fresh: HashMap::new(),
            replaced: Vec::new(),
            bytes: self.bytes,
        }
    }

    /// Puts the removal of the oldest answers into a batch: of those that are a day old at
    /// `now_ms`, so many as go at once.
    ///
    /// # Errors
    /// The store fails.
    pub fn forget(
        &self,
        store: &Store,
        now_ms: i64,
        batch: &mut OwnedWriteBatch,
    ) -> Result<Change, BrokerError> {
        let now_ms = u64::try_from(now_ms).unwrap_or(0);
        let mut change = Change {
            bytes: self.bytes,
            oldest_ms: self.oldest_ms,
            forgotten: 0,
        };
        for entry in self.by_time(&store.answers) {
            let (written_ms, key, bytes) = entry?;
            change.oldest_ms = written_ms;
            if !is_old(written_ms, now_ms) || change.forgotten == CHUNK {
                break;
            }
            batch.remove(&store.answers, time_entry(written_ms, &key));
            batch.remove(&store.answers, key_entry(&key));
            change.bytes = change.bytes.saturating_sub(bytes);
            change.forgotten += 1;
        }
        batch.insert(&store.answers, BYTES, change.bytes.to_be_bytes());
        Ok(change)
    }

    /// Takes over what is durable now.
    pub fn apply(&mut self, change: &Change) {
        self.bytes = change.bytes;
        self.oldest_ms = change.oldest_ms;
    }

    /// Time, request's key and bytes of each answer, oldest first.
    fn by_time(
        &self,
        keyspace: &Keyspace,
    ) -> impl Iterator<Item = Result<(u64, Vec<u8>, u64), BrokerError>> + use<> {
        let from = time_entry(self.oldest_ms, &[]);
        keyspace.range(from..vec![b't' + 1]).map(|guard| {
            let (entry, bytes) = guard.into_inner().map_err(broken)?;
            let mut input = Input(&entry[1..]);
            let written_ms = input.array().map(u64::from_be_bytes).map_err(damaged)?;
            let bytes = Input(&bytes).number().map_err(damaged)?;
            Ok((written_ms, input.0.to_vec(), bytes))
        })
    }
}

impl GroupAnswers<'_> {
    /// Whether the group stores no answer.
    pub fn is_empty(&self) -> bool {
        self.fresh.is_empty()
    }

    /// What is known of a request.
    ///
    /// # Errors
    /// Its key was used for other records, there is no room for another answer, or the store fails.
    pub fn find(&self, once: &Once) -> Result<Found, BrokerError> {
        let name = once.key.as_str();
        let stored: Option<UserValue>;
        let value = match self.fresh.get(&once.key) {
            Some(value) => Some(&value[..]),
            None => {
                let entry = key_entry(name.as_bytes());
                stored = self.keyspace.get(entry).map_err(broken)?;
                stored.as_deref()
            }
        };
        let mut replaces = None;
        if let Some(value) = value {
            let (written_ms, digest, places) = split(value).map_err(damaged)?;
            if !is_old(written_ms, self.now_ms) {
                if digest != once.digest {
                    return Err(BrokerError::Refused(format!(
                        "the key {name:?} was used for a request with other events within the last \
                         24 hours; nothing was written. Send each request under a key of its own"
                    )));
                }
                return Ok(Found::Answer(read_places(places).map_err(damaged)?));
            }
            replaces = Some((written_ms, size(name, value)));
        }
        if self.bytes >= self.kept.most_bytes {
            return Err(self.full()?);
        }
        Ok(Found::New(New { replaces }))
    }

    /// Stores the answer to a request that [`Self::find`] found to be new.
    pub fn keep(&mut self, once: &Once, new: &New, places: &[Place]) {
        let name = once.key.as_str();
        let value = encode(self.now_ms, once.digest, places);
        if let Some((written_ms, bytes)) = new.replaces {
            self.bytes = self.bytes.saturating_sub(bytes);
            self.replaced.push(time_entry(written_ms, name.as_bytes()));
        }
        self.bytes += size(name, &value);
        self.fresh.insert(once.key.clone(), value);
    }

    /// Fills the store's batch.
    pub fn write(self, batch: &mut OwnedWriteBatch) -> Change {
        for entry in self.replaced {
            batch.remove(self.keyspace, entry);
        }
        let mut oldest_ms = self.kept.oldest_ms;
        for (key, value) in self.fresh {
            // The clock may have been set back.
            oldest_ms = oldest_ms.min(self.now_ms);
            let name = key.as_str();
            let mut bytes = Vec::new();
            put_number(&mut bytes, size(name, &value));
            batch.insert(
                self.keyspace,
                time_entry(self.now_ms, name.as_bytes()),
                bytes,
            );
            batch.insert(self.keyspace, key_entry(name.as_bytes()), value);
        }
        if self.bytes != self.kept.bytes {
            batch.insert(self.keyspace, BYTES, self.bytes.to_be_bytes());
        }
        Change {
            bytes: self.bytes,
            oldest_ms,
            forgotten: 0,
        }
    }

    /// The refusal of a new key, with the time at which the oldest one is forgotten.
    fn full(&self) -> Result<BrokerError, BrokerError> {
        let oldest = self.kept.by_time(self.keyspace).next().transpose()?;
        let oldest_ms = oldest.map_or(self.now_ms, |(written_ms, ..)| written_ms);
        let wait_ms = (oldest_ms + KEPT_MS).saturating_sub(self.now_ms);
        Ok(BrokerError::Overloaded {
            reason: format!(
                "answers to requests with a key take {} MiB, the most that is kept, and each is kept \
                 for 24 hours; nothing was written. Put more events into a request, or send without \
                 `Idempotency-Key`",
                self.kept.most_bytes / (1024 * 1024)
            ),
            retry_after: Duration::from_millis(wait_ms),
        })
    }
}

/// Whether an answer is not to be given any more. One from the future is: the clock was set back.
fn is_old(written_ms: u64, now_ms: u64) -> bool {
    written_ms.saturating_add(KEPT_MS) <= now_ms
}

fn key_entry(key: &[u8]) -> Vec<u8> {
    [b"k", key].concat()
}

fn time_entry(written_ms: u64, key: &[u8]) -> Vec<u8> {
    [b"t", &written_ms.to_be_bytes()[..], key].concat()
}

/// What an answer takes with both of its entries, as near as makes no difference.
fn size(name: &str, value: &[u8]) -> u64 {
    (2 * name.len() + value.len() + 16) as u64
}

fn damaged(reason: Damaged) -> BrokerError {
    BrokerError::Store(format!("a stored answer is damaged: {reason}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Durability;
    use crate::event::TopicPartition;

    const DAY: i64 = KEPT_MS as i64;

    fn place(topic: &str, partition: u32, offset: u64) -> Place {
        Place {
            partition: TopicPartition::new(topic, partition),
            offset,
        }
    }

    fn once(key: &str, digest: u128) -> Once {
        Once {
            key: RequestKey::new(key.as_bytes()).unwrap(),
            digest,
        }
    }

    /// A store with its answers, asked as the log writer asks.
    struct Bench {
        store: Store,
        answers: Answers,
        _folder: tempfile::TempDir,
    }

    impl Bench {
        fn new(most_bytes: u64) -> Self {
            let folder = tempfile::tempdir().unwrap();
            let store = Store::open(folder.path()).unwrap();
            let answers = Answers {
                most_bytes,
                ..Answers::open(&store).unwrap()
            };
            Self {
                store,
                answers,
                _folder: folder,
            }
        }

        /// The answer that is known, or the one given, stored.
        fn ask(&mut self, once: &Once, now_ms: i64, offset: u64) -> Result<u64, BrokerError> {
            let mut group = self.answers.group(&self.store, now_ms);
            let new = match group.find(once)? {
                Found::Answer(places) => return Ok(places[0].offset),
                Found::New(new) => new,
            };
            group.keep(once, &new, &[place("t", 0, offset)]);
            let mut batch = self.store.batch(Durability::Os);
            let change = group.write(&mut batch);
            batch.commit().unwrap();
            self.answers.apply(&change);
            Ok(offset)
        }

        fn forget(&mut self, now_ms: i64) -> usize {
            let mut batch = self.store.batch(Durability::Os);
            let change = self
                .answers
                .forget(&self.store, now_ms, &mut batch)
                .unwrap();
            batch.commit().unwrap();
            self.answers.apply(&change);
            change.forgotten
        }

        /// Entries besides the count of bytes.
        fn entries(&self) -> usize {
            self.store.answers.iter().count() - 1
        }
    }

    #[test]
    fn an_answer_is_given_for_a_day_and_then_the_request_is_new() {
        let mut bench = Bench::new(MOST_BYTES);
        let request = once("a", 7);
        assert_eq!(bench.ask(&request, 1_000, 5).unwrap(), 5);
        assert_eq!(bench.ask(&request, 1_000 + DAY - 1, 6).unwrap(), 5);
        let other = bench.ask(&once("a", 8), 2_000, 6).unwrap_err();
        assert!(matches!(other, BrokerError::Refused(_)), "{other}");
        // Too old, though the keeper has not come by; any request may take its place.
        assert_eq!(bench.ask(&once("a", 8), 1_000 + DAY, 9).unwrap(), 9);
        assert_eq!(bench.entries(), 2);
        let alone = bench.answers.bytes;
        assert_eq!(bench.forget(1_000 + 2 * DAY - 1), 0);
        assert_eq!(bench.ask(&once("a", 8), 1_000 + DAY, 10).unwrap(), 9);
        assert_eq!(bench.forget(1_000 + 2 * DAY), 1);
        assert_eq!((bench.entries(), bench.answers.bytes), (0, 0));
        assert!(alone > 0);
    }

    /// A clock that was set back must not hide an answer from the keeper for ever.
    #[test]
    fn the_oldest_go_first_and_none_is_overlooked() {
        let mut bench = Bench::new(MOST_BYTES);
        for (key, now_ms) in [("a", 3_000), ("b", 1_000), ("c", 2_000)] {
            bench.ask(&once(key, 1), now_ms, 0).unwrap();
        }
        assert_eq!(bench.forget(DAY + 2_000), 2);
        bench.ask(&once("d", 1), 500, 0).unwrap();
        assert_eq!(bench.forget(DAY + 500), 1);
        assert_eq!(bench.ask(&once("a", 1), DAY, 9).unwrap(), 0);
        assert_eq!(bench.forget(DAY + 3_000), 1);
        assert_eq!((bench.entries(), bench.answers.bytes), (0, 0));
    }

    #[test]
    fn many_are_forgotten_a_part_at_a_time() {
        let mut bench = Bench::new(MOST_BYTES);
        let mut group = bench.answers.group(&bench.store, 0);
        for n in 0..=CHUNK {
            let request = once(&format!("key {n}"), 1);
            let Found::New(new) = group.find(&request).unwrap() else {
                panic!("{n} is known");
            };
            group.keep(&request, &new, &[]);
        }
        let mut batch = bench.store.batch(Durability::Os);
        let change = group.write(&mut batch);
        batch.commit().unwrap();
        bench.answers.apply(&change);
        assert_eq!(bench.forget(DAY), CHUNK);
        assert_eq!(bench.forget(DAY), 1);
        assert_eq!(bench.forget(DAY), 0);
        assert_eq!((bench.entries(), bench.answers.bytes), (0, 0));
    }

    /// To forget a key in silence would double its events; to keep all would fill the disk.
    #[test]
    fn without_room_new_keys_are_refused_and_known_ones_answered() {
        let mut bench = Bench::new(1);
        bench.ask(&once("a", 1), 1_000, 5).unwrap();
        let refused = bench.ask(&once("b", 1), 61_000, 6).unwrap_err();
        let BrokerError::Overloaded { retry_after, .. } = refused else {
            panic!("{refused}");
        };
        assert_eq!(retry_after, Duration::from_secs(24 * 60 * 60 - 60));
        assert_eq!(bench.ask(&once("a", 1), 61_000, 6).unwrap(), 5);
        assert_eq!(bench.forget(1_000 + DAY), 1);
        assert_eq!(bench.ask(&once("b", 1), 1_000 + DAY, 6).unwrap(), 6);
    }

    /// The count is what bounds them: one that begins at zero after a start would bound nothing.
    #[test]
    fn the_bytes_are_known_after_a_start() {
        let mut bench = Bench::new(MOST_BYTES);
        bench.ask(&once("a", 1), 0, 0).unwrap();
        bench.ask(&once("b", 1), 0, 0).unwrap();
        let reopened = Answers::open(&bench.store).unwrap();
        assert_eq!(reopened.bytes, bench.answers.bytes);
        assert!(reopened.bytes > 0);
    }
}
