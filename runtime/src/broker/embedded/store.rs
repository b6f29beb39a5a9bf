//! The fjall store: its keyspaces, the form of its keys, and how it is tuned.
//!
//! ```text
//! keyspace    key                                                        value
//! log         topic id, partition, base offset │ count, times, bytes     a batch (codec.rs)
//! positions   group's length and name, topic id, partition               a position (groups.rs)
//! meta        "topic/" name                                              TopicRecord, JSON
//!             "start/" topic id, partition                               first offset kept
//!             "group/" name                                              nothing: the group is known
//!             "deleted/" topic id                                        events are yet to be removed
//!             "next-topic", "format"                                     numbers
//! answers     see answers.rs, answer_codec.rs                            answers to keep for a day
//! ```
//!
//! What is asked of a batch without its events (when it was written, its largest timestamp, where it
//! lies in the partition's bytes) stands in its key: values lie in files of their own, and a walk
//! over keys reads none of them. Integers in keys are big-endian, so that they sort as numbers.

use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

use fjall::config::CompressionPolicy;
use fjall::{
    CompressionType, Database, Keyspace, KeyspaceCreateOptions, KvSeparationOptions,
    OwnedWriteBatch, PersistMode, UserKey, UserValue,
};

use super::journals::{self, Journals};
use crate::broker::BrokerError;
use crate::config::Durability;

/// The form of keys and values that this version writes and reads.
const FORMAT: u32 = 1;
const MIB: u64 = 1024 * 1024;
/// Blocks of tables and values that were read lately.
const CACHE_BYTES: u64 = 64 * MIB;
/// Sealed journals beyond this make fjall write out the keyspace that holds them back.
const JOURNAL_BYTES: u64 = 128 * MIB;
/// Written out when full; four may wait at once, so memory is bounded by five times this.
const LOG_MEMTABLE_BYTES: u64 = 32 * MIB;
const SMALL_MEMTABLE_BYTES: u64 = 4 * MIB;
/// Batches above this lie in files of their own, so that compaction moves keys only.
const SEPARATION_BYTES: u32 = 1024;

/// The open store.
pub struct Store {
    db: Database,
    pub log: Keyspace,
    pub positions: Keyspace,
    pub meta: Keyspace,
    pub answers: Keyspace,
    path: PathBuf,
}

impl Store {
    /// Opens the store in `data_dir`, or makes it.
    ///
    /// # Errors
    /// Another process holds it, it is of a later version, or the disk fails.
    pub fn open(data_dir: &Path) -> Result<Self, BrokerError> {
        let path = data_dir.join("store");
        std::fs::create_dir_all(&path).map_err(|e| {
            BrokerError::Store(format!(
                "cannot make the folder {}: {e}; check [broker] data_dir and its permissions",
                path.display()
            ))
        })?;
        let opened = |e| opening(&path, e);
        let journals = Journals::of(&path);
        let db = Database::builder(&path)
            .cache_size(CACHE_BYTES)
            .max_journaling_size(JOURNAL_BYTES)
            // The journal is on the path of every acknowledgement and lives for seconds: compressing
            // it halved the rate at which JSON of 1 KiB an event was written.
            .journal_compression(CompressionType::None)
            // The writer says for each batch how far it must have come.
            .manual_journal_persist(true)
            .worker_threads(2)
            .open()
            .map_err(opened)?;
        for (journal, bytes) in journals.cut() {
            tracing::warn!(
                journal = %journal.display(), bytes,
                "the last write to the store was cut short and is dropped; with durability = \"sync\" nobody was answered for it"
            );
        }
        let store = Self {
            log: db.keyspace("log", log_options).map_err(opened)?,
            positions: db.keyspace("positions", small_options).map_err(opened)?,
            meta: db.keyspace("meta", small_options).map_err(opened)?,
            answers: db.keyspace("answers", small_options).map_err(opened)?,
            db,
            path,
        };
        store.check_format()?;
        Ok(store)
    }

    /// A batch that takes effect as a whole, and that is as durable as asked when its commit
    /// returns.
    pub fn batch(&self, durability: Durability) -> OwnedWriteBatch {
        self.db.batch().durability(Some(match durability {
            Durability::Sync => PersistMode::SyncData,
            Durability::Os => PersistMode::Buffer,
        }))
    }

    /// Forces all that was written to disk.
    pub fn sync(&self) -> Result<(), BrokerError> {
        self.db.persist(PersistMode::SyncAll).map_err(broken)
    }

    /// The folder of the store.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Bytes that the store takes on disk.
    pub fn disk_bytes(&self) -> Result<u64, BrokerError> {
        self.db.disk_space().map_err(broken)
    }

    /// Gives the disk space of removed batches back. Costs a pass over the log's keys, and rewrites
    /// files of which a quarter or more is removed.
    pub fn reclaim(&self) -> Result<(), BrokerError> {
        // A file of values that nothing points into any more is dropped by the compaction after the
        // one that found so, and an empty log has nothing to compact: the second pass gets the mark
        // of a removed key to work on. No topic has the number 0.
        for _ in 0..2 {
            self.log.remove([0; 4]).map_err(broken)?;
            self.log.rotate_memtable_and_wait().map_err(broken)?;
            self.log.major_compact().map_err(broken)?;
        }
        Ok(())
    }

    fn check_format(&self) -> Result<(), BrokerError> {
        match self.meta.get("format").map_err(broken)? {
            None => {
                self.meta
                    .insert("format", FORMAT.to_be_bytes())
                    .map_err(broken)?;
                self.sync()
            }
            Some(value) if *value == FORMAT.to_be_bytes() => Ok(()),
            Some(_) => Err(BrokerError::Store(format!(
                "{} was written by a later version of Millstream; run that version, or name \
                 another [broker] data_dir",
                self.path.display()
            ))),
        }
    }

    /// The last batch whose first offset is at most `offset`.
    pub fn batch_at(
        &self,
        topic: u32,
        partition: u32,
        offset: u64,
    ) -> Result<Option<BatchKey>, BrokerError> {
        let found = self
            .log
            .range(log_range(topic, partition, 0..=offset))
            .next_back();
        found.map(|guard| key_of(guard.key())).transpose()
    }

    /// The keys of batches whose first offset is `from` or later, oldest first.
    pub fn keys(
        &self,
        topic: u32,
        partition: u32,
        from: u64,
    ) -> impl Iterator<Item = Result<BatchKey, BrokerError>> + use<> {
        self.log
            .range(log_range(topic, partition, from..=u64::MAX))
            .map(|guard| key_of(guard.key()))
    }

    /// Batches whose first offset is `from` or later, oldest first.
    pub fn batches(
        &self,
        topic: u32,
        partition: u32,
        from: u64,
    ) -> impl Iterator<Item = Result<(BatchKey, UserValue), BrokerError>> + use<> {
        self.log
            .range(log_range(topic, partition, from..=u64::MAX))
            .map(|guard| {
                let (key, value) = guard.into_inner().map_err(broken)?;
                Ok((key_of(Ok(key))?, value))
            })
    }
}

fn log_options() -> KeyspaceCreateOptions {
    KeyspaceCreateOptions::default()
        .max_memtable_size(LOG_MEMTABLE_BYTES)
        .manual_journal_persist(true)
        .data_block_compression_policy(CompressionPolicy::all(CompressionType::None))
        .with_kv_separation(Some(
            KvSeparationOptions::default()
                .separation_threshold(SEPARATION_BYTES)
                // On a thread of fjall's own; reading is as quick with it as without.
                .compression(CompressionType::Lz4)
                .staleness_threshold(0.25)
                // Every file that is stale enough, not only the oldest: topics are kept for
                // different times, and what one leaves lies in all files.
                .age_cutoff(1.0)
                .file_target_size(64 * MIB),
        ))
}

fn small_options() -> KeyspaceCreateOptions {
    KeyspaceCreateOptions::default()
        .max_memtable_size(SMALL_MEMTABLE_BYTES)
        .manual_journal_persist(true)
}

fn opening(path: &Path, error: fjall::Error) -> BrokerError {
    let holder = match journals::holder(path) {
        Some(process) => format!("process {process}"),
        None => "another process".to_owned(),
    };
    let path = path.display();
    BrokerError::Store(match error {
        fjall::Error::Locked => format!(
            "{path} is in use by {holder}; stop that process or use its HTTP interface, or give this \
             one another [broker] data_dir"
        ),
        fjall::Error::InvalidVersion(_) => format!(
            "{path} has a format that this version of Millstream does not read; run the version \
             that wrote it, or name another [broker] data_dir"
        ),
        other => format!("cannot open {path}: {other}"),
    })
}

/// An error of fjall in the words of the seam.
pub fn broken(error: fjall::Error) -> BrokerError {
    BrokerError::Store(match error {
        fjall::Error::Poisoned => "an earlier write failed, so nothing more is written; check the \
                                   disk and start again"
            .to_owned(),
        other => other.to_string(),
    })
}

/// What the key of a batch says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchKey {
    pub topic: u32,
    pub partition: u32,
    /// The offset of the first event.
    pub base: u64,
    /// How many events.
    pub count: u32,
    /// The largest timestamp among the batch's events.
    pub max_timestamp: i64,
    /// The largest timestamp of the partition up to the end of this batch, for a search by halves.
    pub running_max_timestamp: i64,
    /// When the batch was written, milliseconds since 1970-01-01 UTC.
    pub written_ms: i64,
    /// Bytes of all batches that the partition ever held, up to the end of this one.
    pub bytes_end: u64,
}

impl BatchKey {
    /// One past the offset of the last event.
    pub fn next(&self) -> u64 {
        self.base.saturating_add(u64::from(self.count))
    }

    /// The key as it is stored.
    pub fn encode(&self) -> [u8; 52] {
        let mut out = [0; 52];
        out[..4].copy_from_slice(&self.topic.to_be_bytes());
        out[4..8].copy_from_slice(&self.partition.to_be_bytes());
        out[8..16].copy_from_slice(&self.base.to_be_bytes());
        out[16..20].copy_from_slice(&self.count.to_be_bytes());
        out[20..28].copy_from_slice(&self.max_timestamp.to_be_bytes());
        out[28..36].copy_from_slice(&self.running_max_timestamp.to_be_bytes());
        out[36..44].copy_from_slice(&self.written_ms.to_be_bytes());
        out[44..].copy_from_slice(&self.bytes_end.to_be_bytes());
        out
    }

    fn decode(key: &[u8]) -> Option<Self> {
        let mut input = super::codec::Input(key);
        let decoded = Self {
            topic: u32::from_be_bytes(input.array().ok()?),
            partition: u32::from_be_bytes(input.array().ok()?),
            base: u64::from_be_bytes(input.array().ok()?),
            count: u32::from_be_bytes(input.array().ok()?),
            max_timestamp: i64::from_be_bytes(input.array().ok()?),
            running_max_timestamp: i64::from_be_bytes(input.array().ok()?),
            written_ms: i64::from_be_bytes(input.array().ok()?),
            bytes_end: u64::from_be_bytes(input.array().ok()?),
        };
        input.0.is_empty().then_some(decoded)
    }
}

fn key_of(key: Result<UserKey, fjall::Error>) -> Result<BatchKey, BrokerError> {
    let key = key.map_err(broken)?;
    BatchKey::decode(&key)
        .ok_or_else(|| BrokerError::Store("a key of the log is damaged".to_owned()))
}

/// All keys of batches whose first offset is in the range.
fn log_range(topic: u32, partition: u32, bases: RangeInclusive<u64>) -> RangeInclusive<Vec<u8>> {
    let bound = |base: u64, rest: u8| {
        let mut key = Vec::with_capacity(52);
        key.extend_from_slice(&topic.to_be_bytes());
        key.extend_from_slice(&partition.to_be_bytes());
        key.extend_from_slice(&base.to_be_bytes());
        key.resize(52, rest);
        key
    };
    bound(*bases.start(), 0)..=bound(*bases.end(), u8::MAX)
}

/// The prefix of all topics' records in `meta`.
pub const TOPIC: &str = "topic/";
/// The prefix of all deleted topics' ids in `meta`.
pub const DELETED: &str = "deleted/";
/// Where the id of the next topic stands in `meta`.
pub const NEXT_TOPIC: &str = "next-topic";

/// A topic's record in `meta`.
pub fn topic_key(name: &str) -> Vec<u8> {
    [TOPIC.as_bytes(), name.as_bytes()].concat()
}

/// A partition's first offset in `meta`.
pub fn start_key(topic: u32, partition: u32) -> Vec<u8> {
    [
        b"start/".as_slice(),
        &topic.to_be_bytes(),
        &partition.to_be_bytes(),
    ]
    .concat()
}

/// The mark of a deleted topic in `meta`.
pub fn deleted_key(topic: u32) -> Vec<u8> {
    [DELETED.as_bytes(), &topic.to_be_bytes()].concat()
}

/// The mark of a group that was seen, in `meta`.
pub fn group_key(group: &str) -> Vec<u8> {
    [b"group/".as_slice(), group.as_bytes()].concat()
}

/// The prefix of a group's positions. The length in front keeps a group from being taken for
/// another whose name begins alike.
pub fn positions_prefix(group: &str) -> Vec<u8> {
    [&(group.len() as u32).to_be_bytes(), group.as_bytes()].concat()
}

/// A group's position in a partition.
pub fn position_key(group: &str, topic: u32, partition: u32) -> Vec<u8> {
    let mut key = positions_prefix(group);
    key.extend_from_slice(&topic.to_be_bytes());
    key.extend_from_slice(&partition.to_be_bytes());
    key
}

/// Topic id and partition of a position's key.
pub fn position_of(key: &[u8]) -> Option<(u32, u32)> {
    let tail = key.last_chunk::<8>()?;
    let mut input = super::codec::Input(tail);
    Some((
        u32::from_be_bytes(input.array().ok()?),
        u32::from_be_bytes(input.array().ok()?),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(topic: u32, partition: u32, base: u64) -> BatchKey {
        BatchKey {
            topic,
            partition,
            base,
            count: 3,
            max_timestamp: -5,
            running_max_timestamp: i64::MAX,
            written_ms: 7,
            bytes_end: 9,
        }
    }

    #[test]
    fn keys_of_batches_are_read_as_written_and_sort_by_offset() {
        let keys = [key(1, 0, 255), key(1, 0, 256), key(1, 1, 0), key(2, 0, 0)];
        let mut encoded: Vec<_> = keys.iter().map(BatchKey::encode).collect();
        encoded.reverse();
        encoded.sort();
        let decoded: Vec<_> = encoded.iter().filter_map(|k| BatchKey::decode(k)).collect();
        assert_eq!(decoded, keys);
        assert_eq!(BatchKey::decode(&encoded[0][..51]), None);
    }

    #[test]
    fn a_groups_positions_are_not_found_under_a_shorter_name() {
        let key = position_key("orders-2", 4, 5);
        assert!(key.starts_with(&positions_prefix("orders-2")));
        assert!(!key.starts_with(&positions_prefix("orders")));
        assert_eq!(position_of(&key), Some((4, 5)));
    }

    #[test]
    fn a_second_opening_says_which_folder_and_what_to_do() {
        let folder = tempfile::tempdir().unwrap();
        let _held = Store::open(folder.path()).unwrap();
        let error = Store::open(folder.path()).err().unwrap().to_string();
        let holder = format!("in use by process {}", std::process::id());
        assert!(error.contains(&holder), "{error}");
        assert!(error.contains("data_dir"), "{error}");
    }

    #[test]
    fn a_later_format_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        store.meta.insert("format", 2_u32.to_be_bytes()).unwrap();
        store.sync().unwrap();
        drop(store);
        let error = Store::open(folder.path()).err().unwrap().to_string();
        assert!(error.contains("later version"), "{error}");
    }
}
