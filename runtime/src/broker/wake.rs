//! What a thread of an adapter sleeps on: whatever it has to act upon wakes it.

use std::time::Duration;

use parking_lot::{Condvar, Mutex};

/// A flag that stays raised until the sleeper has seen it, so that no wake-up is ever lost.
#[derive(Default)]
pub struct Wake {
    raised: Mutex<bool>,
    condition: Condvar,
}

impl Wake {
    /// Wakes the sleeper, or keeps it from falling asleep next time. Never blocks for long.
    pub fn notify(&self) {
        let mut raised = self.raised.lock();
        if !*raised {
            *raised = true;
            self.condition.notify_one();
        }
    }

    /// Sleeps until woken, at most for `timeout`.
    pub fn wait(&self, timeout: Duration) {
        let mut raised = self.raised.lock();
        if !*raised {
            self.condition.wait_for(&mut raised, timeout);
        }
        *raised = false;
    }
}
