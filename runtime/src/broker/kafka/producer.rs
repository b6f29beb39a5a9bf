//! A producer: publications in, acknowledgements out, in order.
//!
//! ```text
//! publish ─▶ inbox ─▶ thread: produce ─▶ librdkafka ─▶ broker
//!    ▲                  │  ▲                │
//!    └── answer ────────┘  └── deliveries ──┘
//! ```
//! Where a delivery fails, the client is ended with all that it still holds, and every publication
//! made after the failed one fails too, so that the caller can write them again in order.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use parking_lot::Mutex;
use rdkafka::ClientConfig;
use rdkafka::error::RDKafkaErrorCode;
use tokio::sync::oneshot;

use super::client::{Listener, WAVES_LINGER_MS};
use super::errors::{Fault, fault};
use super::publication::{Gate, Key, Outcome, Publication};
use super::raw::Writer;
use crate::broker::wake::Wake;
use crate::broker::{Place, PublishError};
use crate::records::Records;

/// How long the thread sleeps at most, and how long a client without work waits for room.
const TICK: Duration = Duration::from_millis(250);

/// Whether publications depend on one another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Order {
    /// They are one stream: none is done before those made earlier, and a failure stops them all.
    Stream,
    /// They come from callers that know nothing of one another.
    Independent,
}

/// A producer with a thread of its own.
pub(super) struct Producer {
    shared: Arc<Shared>,
}

struct Shared {
    inbox: Mutex<Inbox>,
    gate: Arc<Gate>,
    wake: Arc<Wake>,
    order: Order,
}

#[derive(Default)]
struct Inbox {
    jobs: VecDeque<Publication>,
    closed: bool,
}

impl Producer {
    /// Starts the thread; the client itself is made with the first publication.
    ///
    /// # Errors
    /// Where the system has no thread to give.
    pub(super) fn start(
        name: &str,
        config: ClientConfig,
        listener: Listener,
        order: Order,
    ) -> std::io::Result<Self> {
        let shared = Arc::new(Shared {
            inbox: Mutex::default(),
            gate: Arc::default(),
            wake: Arc::default(),
            order,
        });
        let thread = ProducerThread {
            shared: shared.clone(),
            in_waves: config.get("linger.ms") == Some(WAVES_LINGER_MS),
            config,
            listener,
            writer: None,
            under_way: VecDeque::new(),
            first: 0,
        };
        std::thread::Builder::new()
            .name(format!("kafka-out-{name}"))
            .spawn(move || thread.run())?;
        Ok(Self { shared })
    }

    /// Writes records; see [`crate::broker::Sink::publish`].
    pub(super) fn publish(
        &self,
        records: Arc<Records>,
    ) -> BoxFuture<'static, Result<(), PublishError>> {
        let answer = self.send(records, false);
        async move { answer.await.map(|_| ()) }.boxed()
    }

    /// Writes records and tells where they were written.
    pub(super) fn produce(
        &self,
        records: Arc<Records>,
    ) -> BoxFuture<'static, Result<Vec<Place>, PublishError>> {
        self.send(records, true).boxed()
    }

    fn send(
        &self,
        records: Arc<Records>,
        wants_places: bool,
    ) -> impl Future<Output = Result<Vec<Place>, PublishError>> + Send + use<> {
        let (reply, answer) = oneshot::channel::<Outcome>();
        let mut publication = Publication::new(records, reply, wants_places);
        let mut inbox = self.shared.inbox.lock();
        if inbox.closed {
            publication.fail(PublishError::Passing("the producer is closed".into()), None);
        } else if !self.shared.gate.is_open() {
            publication.fail(after_failure(), None);
        } else {
            inbox.jobs.push_back(publication);
        }
        drop(inbox);
        self.shared.wake.notify();
        async move {
            match answer.await {
                Ok(Ok(places)) => Ok(places),
                Ok(Err(failure)) => Err(failure.error.clone()),
                Err(_) => Err(PublishError::Passing("the producer was closed".into())),
            }
        }
    }
}

impl Drop for Producer {
    fn drop(&mut self) {
        self.shared.inbox.lock().closed = true;
        self.shared.wake.notify();
    }
}

fn after_failure() -> PublishError {
    PublishError::Passing("a publication made before has failed".into())
}

struct ProducerThread {
    shared: Arc<Shared>,
    config: ClientConfig,
    listener: Listener,
    in_waves: bool,
    writer: Option<Writer>,
    /// In the order in which they were made.
    under_way: VecDeque<Publication>,
    /// The number of the first of them; numbers go round.
    first: u32,
}

impl ProducerThread {
    fn run(mut self) {
        loop {
            let closed = self.take_jobs();
            self.take_deliveries();
            self.send();
            self.complete();
            if let Some(writer) = &mut self.writer {
                writer.send_wave();
            }
            if closed {
                // Callers that still wait hear of it when their publication is dropped.
                return;
            }
            self.shared.wake.wait(TICK);
        }
    }

    fn take_jobs(&mut self) -> bool {
        let mut inbox = self.shared.inbox.lock();
        self.under_way.append(&mut inbox.jobs);
        inbox.closed
    }

    /// Hands librdkafka what it has room for.
    fn send(&mut self) {
        if self.under_way.iter().all(Publication::sent) {
            return;
        }
        if self.writer.is_none() {
            match Writer::new(
                &self.config,
                self.listener.clone(),
                self.shared.wake.clone(),
                self.in_waves,
            ) {
                Ok(writer) => self.writer = Some(writer),
                Err(error) => {
                    let text = format!("the Kafka producer cannot be made: {error}");
                    self.end(0, PublishError::Passing(text));
                    return;
                }
            }
        }
        let Some(writer) = &mut self.writer else {
            return;
        };
        let mut refused = None;
        'all: for (position, publication) in self.under_way.iter_mut().enumerate() {
            while publication.may_send() && !publication.answered() {
                let index = publication.next;
                let number = self.first.wrapping_add(position as u32);
                let record = publication.records.get(index);
                match writer.produce(&record, id(number, index)) {
                    Ok(()) => publication.next += 1,
                    // Deliveries make room, and wake this thread.
                    Err(RDKafkaErrorCode::QueueFull) => break 'all,
                    Err(code) => {
                        refused = Some((position, index, code));
                        break 'all;
                    }
                }
            }
            if publication.one_by_one && !publication.complete() {
                break;
            }
        }
        if let Some((position, index, code)) = refused {
            self.refuse(position, index, code);
        }
    }

    /// Takes what became of records.
    fn take_deliveries(&mut self) {
        let Some(writer) = &mut self.writer else {
            return;
        };
        let (first, under_way) = (self.first, &mut self.under_way);
        let mut failed: Option<(usize, usize, RDKafkaErrorCode)> = None;
        writer.deliveries(|delivery| {
            let (number, index) = parts(delivery.id);
            let position = number.wrapping_sub(first) as usize;
            let Some(publication) = under_way.get_mut(position) else {
                return;
            };
            if publication.answered() {
                return;
            }
            match delivery.error {
                None => publication.acknowledge(index, delivery.partition, delivery.offset),
                Some(code) => {
                    let earlier = failed.is_none_or(|(at, of, _)| (position, index) < (at, of));
                    if earlier {
                        failed = Some((position, index, code));
                    }
                }
            }
        });
        let fatal = writer.fatal_error();
        if let Some((position, index, code)) = failed {
            self.fail(position, index, code);
        } else if let Some(code) = fatal {
            let unfinished = self
                .under_way
                .iter()
                .position(|publication| !publication.complete());
            self.end(
                unfinished.unwrap_or(0),
                PublishError::Passing(code.to_string()),
            );
        }
    }

    /// librdkafka refused a record before anything was sent.
    fn refuse(&mut self, position: usize, index: usize, code: RDKafkaErrorCode) {
        let Some(publication) = self.under_way.get(position) else {
            return;
        };
        let error = publication.error_of(index, code);
        if fault(code) == Fault::Passing {
            self.end(position, error);
            return;
        }
        // The client is well: what was made before goes on, and so does what is independent.
        match self.shared.order {
            Order::Stream => self.fail_from(position, error),
            Order::Independent => {
                if let Some(publication) = self.under_way.get_mut(position) {
                    publication.next = publication.records.len();
                    publication.fail(error, None);
                }
            }
        }
    }

    /// The broker did not take a record.
    fn fail(&mut self, position: usize, index: usize, code: RDKafkaErrorCode) {
        let Some(publication) = self.under_way.get_mut(position) else {
            return;
        };
        if publication.answered() {
            return;
        }
        let suspect =
            fault(code) == Fault::Event && !publication.one_by_one && publication.records.len() > 1;
        if suspect {
            // A broker refuses a batch for one of its records: they are written again one at a
            // time, to find it.
            publication.isolate();
            self.discard_writer();
            if self.shared.order == Order::Stream {
                let key = self.close_gate();
                self.fail_all(position + 1, after_failure(), Some(key));
            }
            return;
        }
        let error = publication.error_of(index, code);
        if self.shared.order == Order::Independent && fault(code) != Fault::Passing {
            publication.fail(error, None);
            publication.next = publication.records.len();
        } else {
            self.end(position, error);
        }
    }

    /// Ends the client, and fails the publication at `position` and all after it; those before
    /// are written again.
    fn end(&mut self, position: usize, error: PublishError) {
        match self.shared.order {
            Order::Stream => self.fail_from(position, error),
            Order::Independent => self.fail_all(0, error, None),
        }
        self.discard_writer();
    }

    fn fail_from(&mut self, position: usize, error: PublishError) {
        let key = self.close_gate();
        if let Some(publication) = self.under_way.get_mut(position) {
            publication.fail(error, Some(key));
            publication.next = publication.records.len();
        }
        self.fail_all(position + 1, after_failure(), None);
    }

    /// Takes nothing more until the caller has heard of a failure. What was waiting is taken
    /// first, to fail with the rest.
    fn close_gate(&mut self) -> Key {
        let mut inbox = self.shared.inbox.lock();
        self.under_way.append(&mut inbox.jobs);
        self.shared.gate.close()
    }

    /// Fails all from `position` on; the first of them brings the key to its caller.
    fn fail_all(&mut self, position: usize, error: PublishError, mut key: Option<Key>) {
        for publication in self.under_way.iter_mut().skip(position) {
            if !publication.answered() {
                publication.fail(error.clone(), key.take());
            }
            publication.next = publication.records.len();
        }
    }

    /// Answers what is done: a stream in its order, so that nothing is reported as written that
    /// comes before something written again.
    fn complete(&mut self) {
        while let Some(publication) = self.under_way.front_mut() {
            if !publication.answered() {
                if !publication.complete() {
                    break;
                }
                publication.succeed();
            }
            self.under_way.pop_front();
            self.first = self.first.wrapping_add(1);
        }
        if self.shared.order == Order::Independent {
            for publication in &mut self.under_way {
                if !publication.answered() && publication.complete() {
                    publication.succeed();
                }
            }
        }
    }

    /// Throws the client away with what it holds. That can take long, or for ever, so it is left
    /// to a thread of its own.
    ///
    /// What is not answered yet is written again by the next client.
    fn discard_writer(&mut self) {
        for publication in &mut self.under_way {
            if !publication.answered() {
                publication.restart();
            }
        }
        if let Some(writer) = self.writer.take() {
            writer.discard();
        }
    }
}

/// A record's number: its publication's in the upper half, its index in the lower.
fn id(publication: u32, index: usize) -> usize {
    ((publication as usize) << 32) | (index & 0xffff_ffff)
}

fn parts(id: usize) -> (u32, usize) {
    ((id >> 32) as u32, id & 0xffff_ffff)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A number that loses a digit would acknowledge another publication's record.
    #[test]
    fn a_records_number_survives_the_way_through_librdkafka() {
        for (publication, index) in [(0, 0), (7, 300), (u32::MAX, u32::MAX as usize)] {
            assert_eq!(parts(id(publication, index)), (publication, index));
        }
    }
}
