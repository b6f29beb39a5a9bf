//! The broker's side of transactions: who may write one, what is open, and how it ends.
//!
//! ```text
//! register ─▶ epoch ─▶ write, add positions ─▶ end: all of it appears, or abort: nothing does
//!     └ ends what an older producer of the same id left open; its epoch is refused from then on
//! ```
//! As in a real one (without KIP-890), an end that comes late ends whatever its epoch has open by
//! then.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use millstream::broker::Commit;
use millstream::records::Records;
use tokio::time::Instant;

use crate::trace::About;
use crate::world::World;

/// A transaction that nobody ends is aborted after this time.
const TIME_OUT: Duration = Duration::from_secs(15);

/// Another producer of the same transactional id took over.
#[derive(Clone, Copy, Debug)]
pub struct Fenced;

/// A producer's right to write: its transactional id and epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ticket {
    id: u64,
    epoch: u64,
}

#[derive(Debug)]
struct Open {
    records: Vec<Arc<Records>>,
    commits: Vec<Commit>,
    life: u64,
    begun: Instant,
}

/// By transactional id: its newest epoch, and what it has open.
#[derive(Debug, Default)]
pub struct Coordinator {
    producers: BTreeMap<u64, (u64, Option<Open>)>,
}

impl Coordinator {
    /// Registers a producer of this transactional id; what an older one has open is aborted.
    pub fn register(&mut self, id: u64) -> Ticket {
        let (epoch, open) = self.producers.entry(id).or_default();
        *epoch += 1;
        *open = None;
        Ticket { id, epoch: *epoch }
    }

    fn producer(&mut self, ticket: Ticket) -> Result<&mut Option<Open>, Fenced> {
        match self.producers.get_mut(&ticket.id) {
            Some((epoch, open)) if *epoch == ticket.epoch => Ok(open),
            _ => Err(Fenced),
        }
    }

    fn open(&mut self, ticket: Ticket, life: u64) -> Result<&mut Open, Fenced> {
        let open = self.producer(ticket)?;
        Ok(open.get_or_insert_with(|| Open {
            records: Vec::new(),
            commits: Vec::new(),
            life,
            begun: Instant::now(),
        }))
    }

    /// Adds records to the open transaction; the first ones open it.
    ///
    /// # Errors
    /// Where the producer was replaced.
    pub fn write(
        &mut self,
        ticket: Ticket,
        life: u64,
        records: Arc<Records>,
    ) -> Result<(), Fenced> {
        self.open(ticket, life)?.records.push(records);
        Ok(())
    }

    /// Adds positions to the open transaction.
    ///
    /// # Errors
    /// Where the producer was replaced.
    pub fn add_positions(
        &mut self,
        ticket: Ticket,
        life: u64,
        commits: Vec<Commit>,
    ) -> Result<(), Fenced> {
        self.open(ticket, life)?.commits.extend(commits);
        Ok(())
    }

    /// Ends the open transaction without effect.
    ///
    /// # Errors
    /// Where the producer was replaced.
    pub fn abort(&mut self, ticket: Ticket) -> Result<(), Fenced> {
        *self.producer(ticket)? = None;
        Ok(())
    }

    /// Whether no open transaction holds a position of the partition: who takes it over waits until
    /// then.
    pub fn is_stable(&mut self, partition: u32) -> bool {
        let mut stable = true;
        for (_, open) in self.producers.values_mut() {
            if open
                .as_ref()
                .is_some_and(|open| open.begun.elapsed() > TIME_OUT)
            {
                *open = None;
            }
            let commits = open.iter().flat_map(|open| &open.commits);
            stable &= !commits
                .into_iter()
                .any(|c| c.partition.partition == partition);
        }
        stable
    }
}

impl World {
    /// Ends the open transaction of a producer: all of it appears. Without an open one it ended
    /// before.
    ///
    /// # Errors
    /// Where the producer was replaced.
    pub fn end_transaction(&mut self, ticket: Ticket) -> Result<(), Fenced> {
        let Some(open) = self.transactions.producer(ticket)?.take() else {
            return Ok(());
        };
        self.trace.note(About::All, || {
            let Ticket { id, epoch } = ticket;
            let records: usize = open.records.iter().map(|records| records.len()).sum();
            format!("transaction of {id}, epoch {epoch}, takes effect: {records} records")
        });
        for records in &open.records {
            self.append(records, records.len(), open.life);
        }
        for commit in &open.commits {
            self.commit(commit, open.life);
        }
        Ok(())
    }
}
