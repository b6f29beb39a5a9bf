//! The plugin instances of a consumer: idle ones, and how many are at work.

use crate::plugin::Instance;

/// An instance whose memory grew to this share of its limit is replaced: linear memory never
/// shrinks, and the next growth would end it in the middle of a batch.
const RECYCLE_AT: f64 = 0.9;

/// See the module.
pub struct Instances {
    idle: Vec<Box<dyn Instance>>,
    at_work: usize,
    /// Linear memory of those at work, as it was when they began.
    memory_at_work: u64,
    most: usize,
    memory_limit: u64,
}

/// What a call begins with.
pub struct Borrowed {
    /// `None` where an instance must be started.
    pub instance: Option<Box<dyn Instance>>,
    /// Its linear memory, in bytes.
    pub memory: u64,
}

impl Instances {
    /// None yet; at most `most` at work at once, each with at most `memory_limit` bytes.
    pub fn new(most: usize, memory_limit: u64) -> Self {
        Self {
            idle: Vec::new(),
            at_work: 0,
            memory_at_work: 0,
            most,
            memory_limit,
        }
    }

    /// Whether another call may begin beside `planned` ones.
    pub fn has_room(&self, planned: usize) -> bool {
        self.at_work + planned < self.most
    }

    /// How many instances there are.
    pub fn count(&self) -> usize {
        self.idle.len() + self.at_work
    }

    /// Linear memory of all instances, in bytes; of one at work, what it had when it began.
    pub fn memory(&self) -> u64 {
        let idle = self.idle.iter().map(|instance| instance.memory_bytes());
        idle.sum::<u64>() + self.memory_at_work
    }

    /// A call begins: with the instance that was used last, whose memory is warmest, or with none
    /// where one must be started.
    pub fn borrow(&mut self) -> Borrowed {
        self.at_work += 1;
        let instance = self.idle.pop();
        let memory = instance
            .as_ref()
            .map_or(0, |instance| instance.memory_bytes());
        self.memory_at_work += memory;
        Borrowed { instance, memory }
    }

    /// A call ended that began with `memory` bytes; its instance comes back unless it died.
    pub fn give_back(&mut self, instance: Option<Box<dyn Instance>>, memory: u64) {
        self.at_work = self.at_work.saturating_sub(1);
        self.memory_at_work = self.memory_at_work.saturating_sub(memory);
        let limit = (self.memory_limit as f64 * RECYCLE_AT) as u64;
        self.idle
            .extend(instance.filter(|instance| instance.memory_bytes() < limit));
    }

    /// Adds an instance that was started outside of a call.
    pub fn add(&mut self, instance: Box<dyn Instance>) {
        self.idle.push(instance);
    }

    /// Ends the idle instances, and keeps to other limits from now on. Those at work are the
    /// caller's to keep back when they return.
    pub fn renew(&mut self, most: usize, memory_limit: u64) {
        self.idle.clear();
        self.most = most;
        self.memory_limit = memory_limit;
    }

    /// Ends the idle instances.
    pub fn clear(&mut self) {
        self.idle.clear();
    }
}
