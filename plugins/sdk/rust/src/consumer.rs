//! What a plugin is: the one trait to implement.

use serde::de::DeserializeOwned;

use crate::{Event, Events, Outbox, Result, Setup};

/// A consumer of events: what a plugin implements and names in [`export!`](crate::export).
///
/// ```
/// use millstream_plugin::prelude::*;
///
/// #[derive(Deserialize)]
/// struct Settings {
///     at_least: f64,
/// }
///
/// #[derive(Deserialize)]
/// struct Reading {
///     celsius: f64,
/// }
///
/// struct Hot {
///     settings: Settings,
///     hot: Output,
/// }
///
/// impl Consumer for Hot {
///     type Settings = Settings;
///
///     fn init(settings: Settings, setup: &Setup) -> Result<Self> {
///         Ok(Self { settings, hot: setup.output("hot")? })
///     }
///
///     fn handle(&mut self, event: Event<'_>, out: &mut Outbox) -> Result {
///         let reading: Reading = event.json()?;
///         if reading.celsius >= self.settings.at_least {
///             out.to(self.hot).forward()?;
///         }
///         Ok(()) // no output and no error: dropped
///     }
/// }
///
/// export!(Hot);
///
/// # fn main() {
/// let hot = Harness::new::<Hot>().config(r#"{ "at_least": 30 }"#).outputs(["hot"]);
/// let run = hot.run([TestEvent::text(r#"{"celsius": 31.5}"#), TestEvent::text(r#"{"celsius": 7}"#)]);
/// assert_eq!(run.answer(0).outputs().len(), 1);
/// assert!(run.answer(1).is_dropped());
/// # }
/// ```
pub trait Consumer: Sized + 'static {
    /// The consumer's `config`; `()` where it has none. `#[serde(deny_unknown_fields)]` on it turns
    /// a misspelt key into a refused deploy.
    type Settings: DeserializeOwned;

    /// Makes an instance; it must be repeatable, for instances come and go.
    ///
    /// # Errors
    /// An error refuses the deploy as misconfigured; one whose remedy is retry or unavailable makes
    /// the runtime try again later.
    fn init(settings: Self::Settings, setup: &Setup) -> Result<Self>;

    /// Called before the events of a batch, for work that is cheaper in bulk.
    ///
    /// # Errors
    /// An error counts as if `handle` had returned it for each of these events.
    fn prepare(&mut self, events: Events<'_>) -> Result {
        let _ = events;
        Ok(())
    }

    /// One event. What it writes to `out` takes effect together with the event's position.
    ///
    /// # Errors
    /// An error carries its remedy; what the event wrote to `out` before is taken back. Any
    /// standard error becomes a rejection with the code `error`.
    fn handle(&mut self, event: Event<'_>, out: &mut Outbox) -> Result;
}
