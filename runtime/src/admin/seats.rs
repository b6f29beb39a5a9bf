//! Places for connections: so many at once, and none for ever.
//!
//! ```text
//! accepted ─▶ take ─┬─ one is free ─────────────────────────────▶ Seat
//!                   └─ none: who has waited longest goes ─ free ─▶ Seat
//! ```
//! A stranger can open connections and send half a head on each, or never read an answer. They must
//! not keep those out who have something to say. So where no place is free, the connection goes that
//! has had no request in work for longest: it waits for a head, a handshake or a reader. One whose
//! request is in work stays; how long that takes is bounded elsewhere.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// How often one more is asked to go while somebody waits.
const LOOK: Duration = Duration::from_millis(100);

/// All places of a listener.
#[derive(Debug)]
pub struct Seats {
    room: Arc<Semaphore>,
    taken: Mutex<Taken>,
}

#[derive(Debug, Default)]
struct Taken {
    next: u64,
    by: BTreeMap<u64, Guest>,
}

#[derive(Debug)]
struct Guest {
    /// Since when it has had no request in work; `None` while it has one.
    idle_since: Option<Instant>,
    leave: CancellationToken,
}

/// A connection's place, given back when it is dropped.
#[derive(Debug)]
pub struct Seat {
    seats: Arc<Seats>,
    number: u64,
    leave: CancellationToken,
    _room: OwnedSemaphorePermit,
}

/// A request in work: the place is kept until this is dropped.
#[derive(Debug)]
pub struct InWork(Arc<Seat>);

impl Seats {
    /// So many places, all free.
    pub fn new(places: usize) -> Arc<Self> {
        Arc::new(Self {
            room: Arc::new(Semaphore::new(places)),
            taken: Mutex::default(),
        })
    }

    /// A place; waits where all others have requests in work. `None` only after the room was
    /// closed, which nobody does.
    pub async fn take(self: &Arc<Self>) -> Option<Arc<Seat>> {
        let room = loop {
            if self.room.available_permits() == 0 {
                self.send_off();
            }
            // Where all had requests in work there was nobody to ask: there may be one now.
            match tokio::time::timeout(LOOK, self.room.clone().acquire_owned()).await {
                Ok(room) => break room.ok()?,
                Err(_) => continue,
            }
        };
        let leave = CancellationToken::new();
        let mut taken = self.taken.lock();
        let number = taken.next;
        taken.next += 1;
        let guest = Guest {
            idle_since: Some(Instant::now()),
            leave: leave.clone(),
        };
        taken.by.insert(number, guest);
        Some(Arc::new(Seat {
            seats: self.clone(),
            number,
            leave,
            _room: room,
        }))
    }

    /// Asks the one to go that has been idle for longest, and was not asked yet.
    fn send_off(&self) {
        let taken = self.taken.lock();
        let idle = taken
            .by
            .values()
            .filter(|guest| !guest.leave.is_cancelled());
        let longest = idle
            .filter_map(|guest| Some((guest.idle_since?, guest)))
            .min_by_key(|(since, _)| *since);
        if let Some((_, guest)) = longest {
            guest.leave.cancel();
        }
    }

    fn note(&self, number: u64, idle_since: Option<Instant>) {
        if let Some(guest) = self.taken.lock().by.get_mut(&number) {
            guest.idle_since = idle_since;
        }
    }
}

impl Seat {
    /// Ends when the place is needed for another.
    pub async fn needed(&self) {
        self.leave.cancelled().await;
    }

    /// A request is in work from now on.
    pub fn busy(self: &Arc<Self>) -> InWork {
        self.seats.note(self.number, None);
        InWork(self.clone())
    }
}

impl Drop for InWork {
    fn drop(&mut self) {
        self.0.seats.note(self.0.number, Some(Instant::now()));
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.seats.taken.lock().by.remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Half a head on each of all connections must not keep a good one out.
    #[tokio::test(start_paused = true)]
    async fn who_has_waited_longest_makes_room() {
        let seats = Seats::new(3);
        let mut guests = Vec::new();
        for _ in 0..3 {
            guests.push(seats.take().await.expect("a place"));
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        // The first one has a request in work, so the second one has waited longest.
        let in_work = guests[0].busy();
        let other = seats.clone();
        let newcomer = tokio::spawn(async move { other.take().await });
        guests[1].needed().await;
        assert!(!guests[0].leave.is_cancelled() && !guests[2].leave.is_cancelled());
        assert!(!newcomer.is_finished(), "the place is not free yet");
        guests.remove(1);
        assert!(newcomer.await.expect("no panic").is_some());
        drop(in_work);
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_in_work_keeps_its_place() {
        let seats = Seats::new(1);
        let guest = seats.take().await.expect("a place");
        let in_work = guest.busy();
        let patience = Duration::from_secs(1);
        assert!(tokio::time::timeout(patience, seats.take()).await.is_err());
        assert!(!guest.leave.is_cancelled());
        drop(in_work);
        assert!(tokio::time::timeout(patience, seats.take()).await.is_err());
        assert!(guest.leave.is_cancelled(), "now it may go");
        drop(guest);
        assert!(seats.take().await.is_some());
        assert!(
            seats.taken.lock().by.is_empty(),
            "dropped places are forgotten"
        );
    }
}
