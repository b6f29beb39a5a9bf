//! Which of many queues woke a thread.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::broker::wake::Wake;

/// The bell of one queue: says which of many queues woke the sleeper.
pub(super) struct Bell {
    rung: AtomicBool,
    wake: Arc<Wake>,
}

impl Bell {
    /// A silent bell that wakes this sleeper.
    pub(super) fn new(wake: Arc<Wake>) -> Self {
        Self {
            rung: AtomicBool::new(false),
            wake,
        }
    }

    /// Something came: wakes the sleeper.
    pub(super) fn ring(&self) {
        self.rung.store(true, Ordering::Release);
        self.wake.notify();
    }

    /// Something was left behind; nobody sleeps now.
    pub(super) fn keep(&self) {
        self.rung.store(true, Ordering::Release);
    }

    /// Whether it rang since the last answer. To be asked before the queue is emptied: what comes
    /// meanwhile rings again.
    pub(super) fn answer(&self) -> bool {
        self.rung.load(Ordering::Relaxed) && self.rung.swap(false, Ordering::AcqRel)
    }
}
