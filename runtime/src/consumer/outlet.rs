//! Where units go, by what the consumer promises.

use std::sync::Arc;

use super::transactions::Transactions;
use super::unit::Unit;
use super::writer::{Mended, Writer, Written};
use crate::broker::Sink;
use crate::config::{Consumer, Delivery};
use crate::event::TopicPartition;

/// Units on their way to the broker.
pub enum Outlet {
    /// At least once: acknowledged, then settled; written again until they are. At most once: settled
    /// before, and written once.
    Stepwise(Writer),
    /// Exactly once.
    Atomic(Box<Transactions>),
}

impl Outlet {
    /// As the consumer's delivery asks for.
    pub fn new(sink: Arc<dyn Sink>, settings: &Consumer) -> Self {
        match settings.delivery {
            Delivery::AtLeastOnce => Self::Stepwise(Writer::new(sink)),
            Delivery::AtMostOnce => Self::Stepwise(Writer::once(sink)),
            Delivery::ExactlyOnce => Self::Atomic(Box::new(Transactions::new(
                sink,
                settings.commit,
                settings.in_flight,
            ))),
        }
    }

    /// Writes a unit after those before it.
    pub fn write(&mut self, unit: Unit) {
        match self {
            Self::Stepwise(writer) => writer.write(unit),
            Self::Atomic(transactions) => transactions.write(unit),
        }
    }

    /// Bytes of the records that are not known to be written.
    pub fn queued_bytes(&self) -> usize {
        match self {
            Self::Stepwise(writer) => writer.queued_bytes(),
            Self::Atomic(transactions) => transactions.queued_bytes(),
        }
    }

    /// Whether units of these partitions are not written yet.
    pub fn is_writing(&self, of: impl Fn(&TopicPartition) -> bool) -> bool {
        match self {
            Self::Stepwise(writer) => writer.is_writing(of),
            Self::Atomic(transactions) => transactions.is_writing(of),
        }
    }

    /// What happens next to the units; waits for ever where there is none. Dropping the future
    /// loses nothing.
    pub async fn next(&mut self) -> Written {
        match self {
            Self::Stepwise(writer) => writer.next().await,
            Self::Atomic(transactions) => transactions.next().await,
        }
    }

    /// Changes the unit that the broker refused; see [`Writer::mend`].
    pub fn mend(&mut self, mend: impl FnOnce(&mut Unit) -> Mended) -> Vec<Unit> {
        match self {
            Self::Stepwise(writer) => writer.mend(mend),
            Self::Atomic(transactions) => transactions.mend(mend),
        }
    }

    /// The transactions of an exactly-once consumer.
    pub fn transactions(&mut self) -> Option<&mut Transactions> {
        match self {
            Self::Stepwise(_) => None,
            Self::Atomic(transactions) => Some(transactions),
        }
    }
}
