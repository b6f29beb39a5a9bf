//! Room for one event that is tried alone, in all of the process, and a note of whether it is being
//! called.
//!
//! ```text
//! file: starts │ slot │ slot │ …      slot: life, what it does, whose event, offset
//!                  ▲ this start's: "calls" before such a call, "idle" after it
//! ```
//! The mark in the broker says which event is tried, from before its call until what follows from it
//! is written: most of that time the plugin has no part in a death. The note tells. The kernel keeps
//! it when the process dies, so it is never synced: a loss of power is no plugin's fault. Where the
//! next start may be on another machine there is no note, and the mark alone counts.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use xxhash_rust::xxh3::Xxh3;

use crate::event::TopicPartition;

/// Starts that are remembered: a partition may find the mark of one long before the last.
const SLOTS: usize = 64;
const HEAD: usize = 8;
const SLOT: usize = 24;
const IDLE: u32 = 1;
const CALLS: u32 = 2;

/// One event of two deaths at a time: whoever was tried at the third is at fault, and not who
/// happened to be tried beside it.
#[derive(Debug)]
pub struct TrialRoom {
    room: Arc<Semaphore>,
    life: u32,
    notes: Option<Notes>,
}

#[derive(Debug)]
struct Notes {
    file: File,
    /// Where this life's slot is.
    at: u64,
    before: Vec<Note>,
}

/// What a life was doing when last heard of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Note {
    life: u32,
    calls: Option<(u64, u64)>,
}

/// An event of a consumer, told apart from those of others.
#[derive(Clone, Copy, Debug)]
pub struct Tried<'a> {
    pub consumer: &'a str,
    pub partition: &'a TopicPartition,
    pub offset: u64,
}

impl TrialRoom {
    /// Room without a note.
    pub fn unnoted() -> Arc<Self> {
        Self::new(fastrand::u32(..), None)
    }

    /// Room with a note in this file, which this process alone has. Blocks on the disk for a moment.
    pub fn noted(path: &Path) -> Arc<Self> {
        let life = fastrand::u32(..);
        let notes = Notes::open(path, life).map_err(|error| {
            tracing::warn!(path = %path.display(), %error, "it cannot be noted which event is called; SIGKILLs may be blamed on the event that is tried");
        });
        Self::new(life, notes.ok())
    }

    fn new(life: u32, notes: Option<Notes>) -> Arc<Self> {
        Arc::new(Self {
            room: Arc::new(Semaphore::new(1)),
            life,
            notes,
        })
    }

    /// Tells this start of the process from all others.
    pub fn life(&self) -> u32 {
        self.life
    }

    /// Enters, where it is free.
    pub fn enter(&self) -> Option<OwnedSemaphorePermit> {
        self.room.clone().try_acquire_owned().ok()
    }

    /// Waits in turn until it is free, and enters. It is never closed.
    pub fn wait(&self) -> impl Future<Output = Option<OwnedSemaphorePermit>> + Send + use<> {
        let room = self.room.clone();
        async move { room.acquire_owned().await.ok() }
    }

    /// The note of a call that who is in the room is about to make.
    pub fn noting(self: &Arc<Self>, event: Tried<'_>) -> Noting {
        Noting {
            room: self.clone(),
            calls: (event.whose(), event.offset),
        }
    }

    fn note(&self, calls: Option<(u64, u64)>) {
        let Some(notes) = &self.notes else {
            return;
        };
        let note = Note {
            life: self.life,
            calls,
        };
        if let Err(error) = notes.file.write_all_at(&note.encode(), notes.at) {
            tracing::warn!(%error, "it was not noted which event is called");
        }
    }

    /// Whether an earlier life ended while it called the event; `None` where nobody knows.
    pub fn died_in_call(&self, life: u32, event: Tried<'_>) -> Option<bool> {
        let before = &self.notes.as_ref()?.before;
        let note = before.iter().find(|note| note.life == life)?;
        Some(note.calls == Some((event.whose(), event.offset)))
    }
}

/// The note of a call.
#[derive(Debug)]
pub struct Noting {
    room: Arc<TrialRoom>,
    calls: (u64, u64),
}

/// A call that is noted until this is dropped.
#[derive(Debug)]
pub struct Noted<'a>(&'a TrialRoom);

impl Noting {
    /// The plugin gets the event now.
    pub fn begin(&self) -> Noted<'_> {
        self.room.note(Some(self.calls));
        Noted(&self.room)
    }
}

impl Drop for Noted<'_> {
    fn drop(&mut self) {
        self.0.note(None);
    }
}

impl Tried<'_> {
    fn whose(&self) -> u64 {
        let mut hash = Xxh3::new();
        let TopicPartition { topic, partition } = self.partition;
        for part in [self.consumer.as_bytes(), topic.as_bytes()] {
            hash.update(&(part.len() as u64).to_le_bytes());
            hash.update(part);
        }
        hash.update(&partition.to_le_bytes());
        hash.digest()
    }
}

impl Notes {
    fn open(path: &Path, life: u32) -> io::Result<Self> {
        let file = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)?;
        let length = HEAD + SLOTS * SLOT;
        let mut bytes = Vec::with_capacity(length);
        (&file).take(length as u64).read_to_end(&mut bytes)?;
        // A new file, or one that was cut off: an empty slot knows nothing.
        bytes.resize(length, 0);
        let (head, slots) = bytes.split_at_mut(HEAD);
        let before = slots.chunks_exact(SLOT).filter_map(Note::decode).collect();
        let starts = head
            .first_chunk()
            .map_or(0, |head| u64::from_le_bytes(*head));
        head.copy_from_slice(&starts.wrapping_add(1).to_le_bytes());
        let begin = (starts % SLOTS as u64) as usize * SLOT;
        let idle = Note { life, calls: None };
        slots[begin..begin + SLOT].copy_from_slice(&idle.encode());
        file.write_all_at(&bytes, 0)?;
        Ok(Self {
            file,
            at: (HEAD + begin) as u64,
            before,
        })
    }
}

impl Note {
    fn encode(&self) -> [u8; SLOT] {
        let (whose, offset) = self.calls.unwrap_or_default();
        let does = if self.calls.is_some() { CALLS } else { IDLE };
        let mut slot = [0; SLOT];
        slot[..4].copy_from_slice(&self.life.to_le_bytes());
        slot[4..8].copy_from_slice(&does.to_le_bytes());
        slot[8..16].copy_from_slice(&whose.to_le_bytes());
        slot[16..].copy_from_slice(&offset.to_le_bytes());
        slot
    }

    fn decode(slot: &[u8]) -> Option<Self> {
        let number = |at: usize| Some(u64::from_le_bytes(*slot.get(at..)?.first_chunk()?));
        let head = number(0)?;
        let calls = match (head >> 32) as u32 {
            IDLE => None,
            CALLS => Some((number(8)?, number(16)?)),
            _ => return None,
        };
        Some(Self {
            life: head as u32,
            calls,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(partition: &TopicPartition, offset: u64) -> Tried<'_> {
        Tried {
            consumer: "enrich",
            partition,
            offset,
        }
    }

    fn dies_in_call(room: &Arc<TrialRoom>, event: Tried<'_>) {
        std::mem::forget(room.noting(event).begin());
    }

    /// A note that the next start could not read, or took for another event's, would let a plugin
    /// kill the process for ever, or give up whoever was tried when someone else killed it.
    #[test]
    fn the_next_start_knows_whether_the_last_one_died_in_a_call() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("trial");
        let (one, other) = (TopicPartition::new("in", 1), TopicPartition::new("in", 2));
        let first = TrialRoom::noted(&path);
        assert_eq!(first.died_in_call(first.life(), event(&one, 7)), None);
        dies_in_call(&first, event(&one, 7));
        let second = TrialRoom::noted(&path);
        let died = |room: &TrialRoom, event| room.died_in_call(first.life(), event);
        assert_eq!(died(&second, event(&one, 7)), Some(true));
        assert_eq!(died(&second, event(&one, 8)), Some(false));
        assert_eq!(died(&second, event(&other, 7)), Some(false));
        let consumer = "alerts";
        let foreign = Tried {
            consumer,
            ..event(&one, 7)
        };
        assert_eq!(died(&second, foreign), Some(false));
        drop(second.noting(event(&other, 9)).begin());
        let third = TrialRoom::noted(&path);
        assert_eq!(
            third.died_in_call(second.life(), event(&other, 9)),
            Some(false)
        );
        assert_eq!(died(&third, event(&one, 7)), Some(true), "some starts ago");
        assert_eq!(third.died_in_call(third.life() ^ 1, event(&one, 7)), None);
        for _ in 0..SLOTS {
            TrialRoom::noted(&path);
        }
        assert_eq!(died(&TrialRoom::noted(&path), event(&one, 7)), None);
    }

    #[test]
    fn a_file_that_is_something_else_is_taken_over() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("trial");
        std::fs::write(&path, b"\xffgarbage").unwrap();
        let partition = TopicPartition::new("in", 0);
        let first = TrialRoom::noted(&path);
        dies_in_call(&first, event(&partition, 1));
        let second = TrialRoom::noted(&path);
        assert_eq!(
            second.died_in_call(first.life(), event(&partition, 1)),
            Some(true)
        );
        // A folder cannot be one: then nothing is known.
        let nowhere = TrialRoom::noted(folder.path());
        assert_eq!(
            nowhere.died_in_call(first.life(), event(&partition, 1)),
            None
        );
    }

    #[tokio::test]
    async fn who_waits_enters_when_the_other_leaves() {
        let room = TrialRoom::unnoted();
        let inside = room.enter();
        assert!(inside.is_some() && room.enter().is_none());
        let waits = tokio::spawn(room.wait());
        tokio::task::yield_now().await;
        drop(inside);
        assert!(waits.await.unwrap().is_some());
        assert!(room.enter().is_some());
    }
}
