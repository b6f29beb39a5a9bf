//! The embedded broker: a durable log, the groups' positions and the topics in one fjall store.
//!
//! ```text
//! Topics::produce ─┐                ┌─────────────── log writer (one thread) ──────────────┐
//! Sink::publish ───┼─▶ queue ──────▶│ group ▶ one atomic batch ▶ commit, sync ▶ ends, tails │
//! Sink::commit ────┘  (in order)    └───────┬─────────────────────────────────────┬────────┘
//!                                           ▼                                     │ wake
//!                                     store (fjall)                               ▼
//!                          log · positions · meta ◀──read── fetcher (a thread a session)
//!                                           ▲                     │ blocks, bounded
//!                    keeper (retention) ────┘                     ▼
//!                                                     Source::next ──▶ intake
//! ```
//!
//! # The store for those who run it
//!
//! Everything lies in the folder `store` within `[broker] data_dir`: events, positions of groups and
//! topics. The file `trial` beside it is the runtime's, see its README on crashes. Copy the store
//! only while no runtime runs. One process at a time opens it; a second one is told
//! who holds it and ends with exit code 70. A write that a crash cut short is dropped at the next
//! start, which logs how much it was. Other processes produce and read through the first one's HTTP interface.
//!
//! **What an acknowledgement means.** With `durability = "sync"`, the default, an answered event is
//! on disk: it survives a kill and a loss of power. With `"os"` it is with the kernel: it survives a
//! kill. Many producers share one sync: all that waits while the disk works goes into the next
//! batch, so throughput rises with load while latency stays near one sync. What one call produces is
//! written as a whole or not at all, over all its topics and partitions. Nothing can be read,
//! counted as lag or seen as an end before it is durable.
//!
//! **Topics** are made on first use with 4 partitions, or as `[topics.NAME]` says; those named in
//! the configuration are made at the start. The partition count of a topic that exists never
//! changes; retention and `max_event` follow the configuration at each start. A key's partition is
//! the one that Kafka's Java producer would choose; events without a key go to the partitions in
//! turn.
//!
//! **Retention** is 7 days unless a topic says otherwise, counted from when an event was written,
//! not from its own timestamp: a replay of last year's events is not removed at once. `bytes` is a
//! bound for each partition. Whole batches are removed, up to 256 KiB or 4,096 events at a time, so
//! a little more than asked may stay. Disk space comes back when 64 MiB and a tenth of the store were
//! removed. Besides the events, journals take up to about 200 MiB, and while files are rewritten the
//! space of both forms is taken. Compaction by key is not supported.
//!
//! **Groups** have one member, this process, which has all partitions of all topics that the
//! consumer names or whose name its pattern matches, and takes up new ones as they appear. `start`
//! counts for the partitions that exist when the group is first seen; others begin at their
//! beginning.
//!
//! **Requests with a key** (HTTP's `Idempotency-Key`) are written once: their answer is stored in
//! the batch that writes their events, and for 24 hours the same request under the same key gets it
//! again, also after a kill. Keys are kept up to 2 GiB, about 14 million requests of one event; past
//! that new keys are refused until old ones go, and none is forgotten early.
//!
//! **A full disk.** What would leave less than `min_free_disk` free is not appended: producers are
//! told, consumers wait and go on by themselves when there is room. Positions still move, and
//! retention still removes.
//!
//! **A broken disk.** After a failed write or sync nothing is known of the disk's state, so the
//! store takes no more writes: [`EmbeddedBroker::poisoned`] says so, and the process ends with exit
//! code 70. A start after it, or after a kill at any moment, finds what was acknowledged and no half
//! of anything. Every batch has a checksum; one that does not match halts its partition and names
//! the place, and nothing of it is handed out.
//!
//! Memory: 64 MiB of cache, up to 160 MiB of events on their way into files, 32 MiB of newest
//! batches for readers at the end and as much again of their decoded form, 16 MiB of what
//! was read from the store last, and each consumer's own fetch budget, and
//! as much again of what it unpacked ahead.

pub mod answer_codec;
mod answers;
mod catalog;
pub mod codec;
mod disk;
mod fetcher;
mod group_commit;
pub mod groups;
mod journals;
mod keeper;
mod log_writer;
mod queue;
mod reader;
mod recent;
mod session;
mod sink;
mod store;
mod tail;
mod topics;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};
use std::thread::JoinHandle;

use futures::future::BoxFuture;
use parking_lot::{Mutex, RwLock};
use tokio::sync::{Semaphore, watch};

use self::catalog::Catalog;
use self::disk::DiskGuard;
use self::fetcher::Fetcher;
use self::keeper::Keeper;
use self::log_writer::LogWriter;
use self::queue::Queue;
use self::recent::{RECENT_BYTES, Recent};
use self::session::{EmbeddedControl, EmbeddedSource, SessionShared};
use self::sink::EmbeddedSink;
use self::store::Store;
use super::{Broker, BrokerError, Session, Subscription, Topics};
use crate::config::{Durability, Embedded, TopicSettings};

/// The broker within this process.
pub struct EmbeddedBroker {
    shared: Arc<Shared>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

/// What all parts of the broker share.
struct Shared {
    /// `None` once closed.
    store: RwLock<Option<Arc<Store>>>,
    catalog: Catalog,
    recent: Recent,
    queue: Queue,
    keeper: Keeper,
    settings: BTreeMap<Arc<str>, TopicSettings>,
    durability: Durability,
    disk: DiskGuard,
    /// Bytes of the store and bytes free beside them, as the keeper last measured.
    size: Mutex<Option<(u64, u64)>>,
    poisoned: watch::Sender<bool>,
    produce_room: Semaphore,
    sessions: Mutex<Vec<OpenSession>>,
}

struct OpenSession {
    session: Weak<SessionShared>,
    group: Arc<str>,
    thread: JoinHandle<()>,
}

impl OpenSession {
    fn is_member(&self, group: &str) -> bool {
        *self.group == *group && self.session.upgrade().is_some_and(|s| !s.is_closed())
    }
}

impl EmbeddedBroker {
    /// Opens the store in the configured folder, or makes it, recovers what it holds, and makes the
    /// topics that the configuration names. Blocks on the disk: call it off the executors.
    ///
    /// # Errors
    /// The store is held by another process, is damaged or of a later version, or the settings of a
    /// topic ask for what the embedded broker does not do.
    pub fn open(
        config: &Embedded,
        topics: &BTreeMap<Arc<str>, TopicSettings>,
    ) -> Result<Arc<Self>, BrokerError> {
        let store = Arc::new(Store::open(&config.data_dir)?);
        let shared = Arc::new(Shared {
            catalog: Catalog::recover(&store, topics)?,
            recent: Recent::new(RECENT_BYTES),
            store: RwLock::new(Some(store.clone())),
            queue: Queue::default(),
            keeper: Keeper::default(),
            settings: topics.clone(),
            durability: config.durability,
            disk: DiskGuard {
                min_free: config.min_free_disk,
            },
            size: Mutex::default(),
            poisoned: watch::Sender::new(false),
            produce_room: Semaphore::new(topics::PRODUCE_PERMITS),
            sessions: Mutex::default(),
        });
        let mut writer = LogWriter::new(shared.clone(), store)?;
        for (name, settings) in topics {
            writer.create(name, settings)?;
        }
        let broker = Arc::new(Self {
            shared: shared.clone(),
            threads: Mutex::default(),
        });
        broker.spawn("log-writer", move || writer.run())?;
        broker.spawn("log-keeper", move || keeper::run(&shared))?;
        Ok(broker)
    }

    /// Whether a write failed, after which the store takes no more: the process is to end with exit
    /// code 70.
    pub fn poisoned(&self) -> bool {
        self.shared.is_poisoned()
    }

    /// Turns true when the store is poisoned.
    pub fn watch_poisoned(&self) -> watch::Receiver<bool> {
        self.shared.poisoned.subscribe()
    }

    /// Bytes that the store takes on disk; blocks.
    ///
    /// # Errors
    /// The store fails or is closed.
    pub fn store_bytes(&self) -> Result<u64, BrokerError> {
        self.shared.store()?.disk_bytes()
    }

    /// Bytes that are free on the store's disk, where the system says so; blocks.
    pub fn free_bytes(&self) -> Option<u64> {
        let store = self.shared.store().ok()?;
        disk::free_bytes(store.path())
    }

    fn spawn(&self, name: &str, work: impl FnOnce() + Send + 'static) -> Result<(), BrokerError> {
        let thread = spawn(name, work)?;
        self.threads.lock().push(thread);
        Ok(())
    }
}

impl Broker for EmbeddedBroker {
    fn subscribe(&self, subscription: Subscription) -> Result<Session, BrokerError> {
        let session = Arc::new(SessionShared::new(&subscription));
        let group = subscription.group.clone();
        let mut sessions = self.shared.sessions.lock();
        if sessions.iter().any(|open| open.is_member(&group)) {
            return Err(BrokerError::Refused(format!(
                "group {group} has a member already; on the embedded broker a group has one: give \
                 consumer {} a group of its own",
                subscription.consumer
            )));
        }
        let fetcher = Fetcher::new(self.shared.clone(), session.clone(), subscription);
        let thread = spawn("log-fetcher", move || fetcher.run())?;
        sessions.push(OpenSession {
            session: Arc::downgrade(&session),
            group,
            thread,
        });
        drop(sessions);
        Ok(Session {
            source: Box::new(EmbeddedSource {
                shared: self.shared.clone(),
                session: session.clone(),
            }),
            control: Arc::new(EmbeddedControl {
                shared: self.shared.clone(),
                session: session.clone(),
            }),
            sink: Arc::new(EmbeddedSink {
                shared: self.shared.clone(),
                session,
                turns: Arc::default(),
            }),
        })
    }

    fn topics(&self) -> Arc<dyn Topics> {
        Arc::new(topics::EmbeddedTopics {
            shared: self.shared.clone(),
        })
    }

    fn up(&self) -> bool {
        !self.shared.is_poisoned() && self.shared.store.read().is_some()
    }

    fn store_size(&self) -> Option<(u64, u64)> {
        *self.shared.size.lock()
    }

    fn broken(&self) -> BoxFuture<'_, BrokerError> {
        let mut poisoned = self.watch_poisoned();
        Box::pin(async move {
            if poisoned.wait_for(|poisoned| *poisoned).await.is_err() {
                return std::future::pending().await;
            }
            BrokerError::Store(
                "a write failed half-way and nothing may be written after it; look at the disk, then \
                 start again: what was acknowledged is there"
                    .to_owned(),
            )
        })
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        let shared = self.shared.clone();
        let threads = std::mem::take(&mut *self.threads.lock());
        Box::pin(async move {
            let ended = tokio::task::spawn_blocking(move || shared.end(threads)).await;
            if let Err(error) = ended {
                tracing::warn!(%error, "the embedded broker did not close in order");
            }
        })
    }
}

impl Drop for EmbeddedBroker {
    fn drop(&mut self) {
        let threads = std::mem::take(&mut *self.threads.lock());
        self.shared.end(threads);
    }
}

impl Shared {
    fn store(&self) -> Result<Arc<Store>, BrokerError> {
        self.store.read().clone().ok_or_else(closed)
    }

    fn is_poisoned(&self) -> bool {
        *self.poisoned.borrow()
    }

    fn poison(&self, reason: &str) {
        if !self.poisoned.send_replace(true) {
            tracing::error!(reason, "the store takes no more writes");
        }
    }

    fn wake_sessions(&self) {
        for open in self.sessions.lock().iter() {
            if let Some(session) = open.session.upgrade() {
                session.wake();
            }
        }
    }

    /// Whether somebody is a member of the group.
    fn has_member(&self, group: &str) -> bool {
        let sessions = self.sessions.lock();
        sessions.iter().any(|open| open.is_member(group))
    }

    /// Waits for the threads of sessions that ended, this one's among them. Blocks.
    fn end_session(&self, session: &Arc<SessionShared>) {
        session.close();
        let mut sessions = self.sessions.lock();
        let ended: Vec<_> = sessions
            .extract_if(.., |open| {
                open.session.upgrade().is_none_or(|s| s.is_closed())
            })
            .collect();
        drop(sessions);
        join(ended.into_iter().map(|open| open.thread));
    }

    /// Ends every thread and closes the store. Blocks.
    fn end(&self, threads: Vec<JoinHandle<()>>) {
        let sessions = std::mem::take(&mut *self.sessions.lock());
        for open in &sessions {
            if let Some(session) = open.session.upgrade() {
                session.close();
            }
        }
        self.keeper.close();
        self.queue.close();
        self.produce_room.close();
        join(sessions.into_iter().map(|open| open.thread));
        join(threads);
        self.store.write().take();
    }
}

fn join(threads: impl IntoIterator<Item = JoinHandle<()>>) {
    for thread in threads {
        if thread.join().is_err() {
            tracing::error!("a thread of the embedded broker panicked");
        }
    }
}

fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>, BrokerError> {
    std::thread::Builder::new()
        .name(name.to_owned())
        .spawn(work)
        .map_err(|e| BrokerError::Store(format!("cannot start the thread {name}: {e}")))
}

fn closed() -> BrokerError {
    BrokerError::Store("it is closed, or more requests wait than it takes".to_owned())
}
