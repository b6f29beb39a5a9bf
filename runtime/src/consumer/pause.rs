//! An operator lets a consumer stand, and go on.
//!
//! ```text
//! pause ─▶ no call begins, valves close; calls under way end, and what follows is written
//! resume ─▶ as before
//! ```
//! Its membership is kept, or its partitions would travel to a runtime where it is not paused. What
//! waits in its lanes waits on.

use tokio::time::Instant;

use super::runner::Runner;
use crate::mutation::{self, Mutation};

impl Runner {
    /// Begins with no call before [`Self::resume`], where it is paused already.
    pub fn standing(mut self, paused: bool) -> Self {
        self.paused = paused;
        self
    }

    /// Begins no call until [`Self::resume`].
    pub(super) fn pause(&mut self) {
        if self.paused {
            return;
        }
        let now = Instant::now();
        // Until now the valves were closed for another reason.
        self.open_valves(now);
        self.paused = true;
        self.close_all_valves(now);
        tracing::info!(consumer = %self.settings().name, "paused");
        self.show(now);
    }

    /// Goes on after [`Self::pause`].
    pub(super) fn resume(&mut self) {
        if !self.paused {
            return;
        }
        let now = Instant::now();
        // The time that they stood is the operator's.
        self.open_valves(now);
        self.paused = mutation::is(Mutation::ResumeForgotten);
        tracing::info!(consumer = %self.settings().name, "resumed");
        self.go_on(now);
        self.show(now);
    }
}
