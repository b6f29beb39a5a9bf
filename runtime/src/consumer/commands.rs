//! What the control plane asks of a consumer at work.
//!
//! ```text
//! Commander ─ Command ─▶ Runner's loop ─▶ reply
//! ```

use std::sync::Arc;

use tokio::sync::{mpsc, oneshot};

use super::generation::Generation;
use super::runner::Runner;
use crate::event::TopicPartition;
use crate::plugin::Instance;

/// Commands that may wait; more come only from a script that went wild.
const WAITING: usize = 16;

/// A command and where its answer goes.
pub(super) struct Command {
    what: Asked,
    reply: oneshot::Sender<Result<(), String>>,
}

enum Asked {
    Skip(TopicPartition, u64),
    Swap(Arc<Generation>, Option<Box<dyn Instance>>),
}

/// Reaches a consumer at work from outside its task.
#[derive(Clone, Debug)]
pub struct Commander(mpsc::Sender<Command>);

/// A commander, and where its consumer hears it.
pub(super) fn channel() -> (Commander, mpsc::Receiver<Command>) {
    let (sender, receiver) = mpsc::channel(WAITING);
    (Commander(sender), receiver)
}

impl Commander {
    /// Moves a partition past the event at `offset`; see [`super::skip`].
    ///
    /// # Errors
    /// Why not: the partition does not stand at this event, is not this consumer's, or the position
    /// could not be committed in time.
    pub async fn skip(&self, partition: TopicPartition, offset: u64) -> Result<(), String> {
        self.ask(Asked::Skip(partition, offset)).await
    }

    /// Makes calls with another generation from the next one on; see [`super::swap`].
    ///
    /// # Errors
    /// The consumer is shutting down.
    pub async fn swap(
        &self,
        generation: Arc<Generation>,
        first_instance: Option<Box<dyn Instance>>,
    ) -> Result<(), String> {
        self.ask(Asked::Swap(generation, first_instance)).await
    }

    async fn ask(&self, what: Asked) -> Result<(), String> {
        let (reply, answer) = oneshot::channel();
        let ended = |_| "the consumer is shutting down; nothing was done".to_owned();
        self.0
            .try_send(Command { what, reply })
            .map_err(|error| match error {
                mpsc::error::TrySendError::Full(_) => {
                    "too many commands wait; try again".to_owned()
                }
                mpsc::error::TrySendError::Closed(_) => ended(()),
            })?;
        answer.await.unwrap_or_else(|_| Err(ended(())))
    }
}

impl Runner {
    /// Does what is asked, and tells how it went.
    pub(super) async fn on_command(&mut self, command: Command) {
        let result = match command.what {
            Asked::Skip(partition, offset) => self.skip(&partition, offset).await,
            Asked::Swap(generation, first_instance) => {
                self.swap(generation, first_instance);
                Ok(())
            }
        };
        // Whoever asked may have gone; it is done all the same.
        let _ = command.reply.send(result);
    }
}
