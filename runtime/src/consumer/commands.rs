//! What the control plane asks of a consumer at work.
//!
//! ```text
//! Commander ─ Command ─▶ Runner's loop ─▶ reply
//! ```

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use super::generation::Generation;
use super::probation::Ended;
use super::runner::Runner;
use super::shadow::Told;
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
    Swap(
        Arc<Generation>,
        Option<Box<dyn Instance>>,
        oneshot::Sender<Ended>,
    ),
    Pause,
    Resume,
    Shadow(Arc<Generation>, u64, Instant, oneshot::Sender<Told>),
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

    /// Makes calls with another generation from the next one on; see [`super::swap`]. What comes
    /// back tells how it proved itself; nothing where the consumer ends before.
    ///
    /// # Errors
    /// The consumer is shutting down.
    pub async fn swap(
        &self,
        generation: Arc<Generation>,
        first_instance: Option<Box<dyn Instance>>,
    ) -> Result<oneshot::Receiver<Ended>, String> {
        let (tell, told) = oneshot::channel();
        self.ask(Asked::Swap(generation, first_instance, tell))
            .await?;
        Ok(told)
    }

    /// Begins no call until [`Self::resume`]; see [`super::pause`].
    ///
    /// # Errors
    /// The consumer is shutting down.
    pub async fn pause(&self) -> Result<(), String> {
        self.ask(Asked::Pause).await
    }

    /// Goes on after [`Self::pause`].
    ///
    /// # Errors
    /// The consumer is shutting down.
    pub async fn resume(&self) -> Result<(), String> {
        self.ask(Asked::Resume).await
    }

    /// Lets a generation handle this many live events beside the one that works, or as many as come
    /// `within` this time, see [`super::shadow`]. What comes back is the report; dropping it ends
    /// the run.
    ///
    /// # Errors
    /// The consumer is shutting down.
    pub async fn shadow(
        &self,
        generation: Arc<Generation>,
        events: u64,
        within: Duration,
    ) -> Result<oneshot::Receiver<Told>, String> {
        let (tell, told) = oneshot::channel();
        let until = Instant::now() + within;
        self.ask(Asked::Shadow(generation, events, until, tell))
            .await?;
        Ok(told)
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
            Asked::Pause => {
                self.pause();
                Ok(())
            }
            Asked::Resume => {
                self.resume();
                Ok(())
            }
            Asked::Shadow(generation, events, until, tell) => {
                self.begin_shadow(generation, events, until, tell);
                Ok(())
            }
            Asked::Swap(generation, first_instance, tell) => {
                self.swap(generation, first_instance, tell);
                Ok(())
            }
        };
        // Whoever asked may have gone; it is done all the same.
        let _ = command.reply.send(result);
    }
}
