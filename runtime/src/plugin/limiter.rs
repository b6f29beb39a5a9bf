//! How much memory a plugin may ask for: one instance, and all instances together.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use wasmtime::ResourceLimiter;

/// Bytes of linear memory that all instances of the process share.
#[derive(Debug)]
pub(super) struct MemoryBudget {
    limit: u64,
    used: AtomicU64,
}

impl MemoryBudget {
    pub(super) fn new(limit: u64) -> Arc<Self> {
        Arc::new(Self {
            limit,
            used: AtomicU64::new(0),
        })
    }

    fn take(&self, bytes: u64) -> bool {
        self.used
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |used| {
                used.checked_add(bytes).filter(|sum| *sum <= self.limit)
            })
            .is_ok()
    }

    fn give_back(&self, bytes: u64) {
        self.used.fetch_sub(bytes, Ordering::Relaxed);
    }
}

/// Why a growth was denied. Kept until asked for: the guest answers a denied growth with a trap of
/// its own that says nothing of memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Denied {
    /// Past `limits.memory` of the consumer.
    Instance { wanted: u64, limit: u64 },
    /// Past `[runtime] plugin_memory`.
    Process { wanted: u64, limit: u64 },
    /// The operating system or the pool had no more.
    Host { wanted: u64 },
}

/// Guards the memory of one instance, and returns what it took when the instance ends.
#[derive(Debug)]
pub(super) struct Limiter {
    limit: u64,
    used: u64,
    budget: Arc<MemoryBudget>,
    denied: Option<Denied>,
    growing: u64,
}

/// Core tables, memories and modules that one component may have. Python's has about a dozen
/// modules that share a memory; most have three.
pub(super) const MAX_TABLES: usize = 16;
pub(super) const MAX_MEMORIES: usize = 4;
pub(super) const MAX_CORE_INSTANCES: usize = 128;

impl Limiter {
    pub(super) fn new(limit: u64, budget: Arc<MemoryBudget>) -> Self {
        Self {
            limit,
            used: 0,
            budget,
            denied: None,
            growing: 0,
        }
    }

    /// Bytes of all its linear memories and tables, which never shrink.
    pub(super) fn used(&self) -> u64 {
        self.used
    }

    /// The last denied growth since [`Self::forget`].
    pub(super) fn denied(&self) -> Option<Denied> {
        self.denied
    }

    /// A new call begins: what was denied before explains nothing of it.
    pub(super) fn forget(&mut self) {
        self.denied = None;
    }
}

impl ResourceLimiter for Limiter {
    fn memory_growing(
        &mut self,
        current: usize,
        desired: usize,
        _maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        self.growing = 0;
        let more = (desired as u64).saturating_sub(current as u64);
        let wanted = self.used.saturating_add(more);
        if wanted > self.limit {
            self.denied = Some(Denied::Instance {
                wanted,
                limit: self.limit,
            });
            return Ok(false);
        }
        if !self.budget.take(more) {
            self.denied = Some(Denied::Process {
                wanted,
                limit: self.budget.limit,
            });
            return Ok(false);
        }
        self.used = wanted;
        self.growing = more;
        Ok(true)
    }

    fn memory_grow_failed(&mut self, _error: wasmtime::Error) -> wasmtime::Result<()> {
        // It is also told of growths that were refused above, which took nothing.
        if self.growing > 0 {
            self.denied = Some(Denied::Host { wanted: self.used });
            self.used -= self.growing;
            self.budget.give_back(self.growing);
        }
        self.growing = 0;
        Ok(())
    }

    /// A table lies in the host's memory and counts like the guest's own.
    fn table_growing(
        &mut self,
        current: usize,
        desired: usize,
        maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        self.growing = 0;
        if desired > super::engine::TABLE_ELEMENTS {
            return Ok(false);
        }
        let bytes = |elements: usize| elements.saturating_mul(size_of::<usize>());
        self.memory_growing(bytes(current), bytes(desired), maximum)
    }

    fn table_grow_failed(&mut self, error: wasmtime::Error) -> wasmtime::Result<()> {
        self.memory_grow_failed(error)
    }

    fn instances(&self) -> usize {
        MAX_CORE_INSTANCES
    }

    fn tables(&self) -> usize {
        MAX_TABLES
    }

    fn memories(&self) -> usize {
        MAX_MEMORIES
    }
}

impl Drop for Limiter {
    fn drop(&mut self) {
        self.budget.give_back(self.used);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An instance that ends without returning its share would starve all others in time.
    #[test]
    fn an_ended_instance_returns_its_share() {
        let budget = MemoryBudget::new(100);
        let mut first = Limiter::new(80, Arc::clone(&budget));
        assert!(first.memory_growing(0, 70, None).unwrap());
        let mut second = Limiter::new(80, Arc::clone(&budget));
        assert!(!second.memory_growing(0, 40, None).unwrap());
        assert_eq!(
            second.denied(),
            Some(Denied::Process {
                wanted: 40,
                limit: 100
            })
        );
        drop(first);
        assert!(second.memory_growing(0, 40, None).unwrap());
    }

    /// Growth is counted over all memories of the instance: two memories are no way around the limit.
    #[test]
    fn memories_of_an_instance_add_up() {
        let mut limiter = Limiter::new(80, MemoryBudget::new(1000));
        assert!(limiter.memory_growing(0, 50, None).unwrap());
        assert!(!limiter.memory_growing(0, 50, None).unwrap());
        assert!(limiter.memory_growing(50, 80, None).unwrap());
        assert_eq!(limiter.used(), 80);
    }

    /// Tables are the host's memory: an instance with many of them must not have more than its limit.
    #[test]
    fn tables_count_as_memory() {
        let mut limiter = Limiter::new(8_000, MemoryBudget::new(100_000));
        assert!(limiter.memory_growing(0, 4_000, None).unwrap());
        assert!(limiter.table_growing(0, 500, None).unwrap());
        assert_eq!(limiter.used(), 8_000);
        assert!(!limiter.table_growing(500, 501, None).unwrap());
        assert!(matches!(limiter.denied(), Some(Denied::Instance { .. })));
        let mut large = Limiter::new(u64::MAX, MemoryBudget::new(u64::MAX));
        assert!(!large.table_growing(0, 65_537, None).unwrap());
        large
            .table_grow_failed(wasmtime::Error::msg("refused above"))
            .unwrap();
        assert_eq!(large.used(), 0);
    }

    /// What the operating system refused was counted already and must be given back.
    #[test]
    fn a_growth_that_fails_later_is_not_counted() {
        let budget = MemoryBudget::new(100);
        let mut limiter = Limiter::new(100, Arc::clone(&budget));
        assert!(limiter.memory_growing(0, 60, None).unwrap());
        limiter
            .memory_grow_failed(wasmtime::Error::msg("no memory"))
            .unwrap();
        assert_eq!(limiter.used(), 0);
        assert!(limiter.memory_growing(0, 100, None).unwrap());
    }
}
