//! What a plugin says: `log` entries and lines on stdout and stderr, on their way to the log.
//!
//! ```text
//! log.write ─┐                 ┌▶ tracing, target `plugin`, with consumer and position
//! stdout ────┼▶ Journal ─ budget
//! stderr ────┘      │          └▶ log_entries_dropped_total
//!                   └ last words: the last error of the call, told with a trap
//! ```

use std::collections::HashMap;
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;
use tracing::Level;

use super::hooks::PluginHooks;

/// Bytes of an entry that are kept.
pub(super) const MAX_ENTRY: usize = 8 << 10;
/// Entries a second that a consumer may write.
const MAX_RATE: u32 = 1_000;
/// Bytes of the last words that end up in a dead letter's error.
const MAX_LAST_WORDS: usize = 1 << 10;
/// The target of all entries of plugins.
const TARGET: &str = "plugin";

/// The budgets of all consumers, by name: instances and generations of a consumer share one.
pub(super) type LogBudgets = HashMap<Arc<str>, Weak<LogBudget>>;

/// The budget of this consumer, made if it is new. Those no longer in use are swept.
pub(super) fn budget_of(budgets: &mut LogBudgets, consumer: &Arc<str>) -> Arc<LogBudget> {
    budgets.retain(|_, budget| budget.strong_count() > 0);
    if let Some(budget) = budgets.get(consumer).and_then(Weak::upgrade) {
        return budget;
    }
    let budget = Arc::new(LogBudget::default());
    budgets.insert(Arc::clone(consumer), Arc::downgrade(&budget));
    budget
}

/// How many entries a consumer has written in the current second.
#[derive(Debug, Default)]
pub(super) struct LogBudget {
    window: Mutex<Option<(Instant, u32)>>,
}

impl LogBudget {
    fn take(&self, now: Instant) -> bool {
        let mut window = self.window.lock();
        match window.as_mut() {
            Some((start, count)) if now.duration_since(*start) < Duration::from_secs(1) => {
                *count = count.saturating_add(1);
                *count <= MAX_RATE
            }
            _ => {
                *window = Some((now, 1));
                true
            }
        }
    }
}

/// The voice of one instance.
pub(super) struct Journal {
    consumer: Arc<str>,
    budget: Arc<LogBudget>,
    hooks: PluginHooks,
    call: Mutex<Call>,
}

#[derive(Default)]
struct Call {
    topic: String,
    partition: Option<u32>,
    error: Option<String>,
    panic: Option<String>,
    panicking: bool,
}

impl Journal {
    pub(super) fn new(consumer: Arc<str>, budget: Arc<LogBudget>, hooks: PluginHooks) -> Arc<Self> {
        Arc::new(Self {
            consumer,
            budget,
            hooks,
            call: Mutex::default(),
        })
    }

    /// A call begins for a batch of this partition; what was said before explains nothing of it.
    pub(super) fn begin(&self, topic: &str, partition: u32) {
        let mut call = self.call.lock();
        if call.topic != topic {
            call.topic.clear();
            call.topic.push_str(topic);
        }
        call.partition = Some(partition);
        call.error = None;
        call.panic = None;
        call.panicking = false;
    }

    /// The last error that the plugin logged in this call; where there is none, the message of a
    /// panic that it printed to stderr.
    pub(super) fn last_words(&self) -> Option<String> {
        let call = self.call.lock();
        call.error.clone().or_else(|| call.panic.clone())
    }

    /// Whether entries of this level are kept.
    pub(super) fn enabled(level: Level) -> bool {
        match level {
            Level::ERROR => tracing::enabled!(target: TARGET, Level::ERROR),
            Level::WARN => tracing::enabled!(target: TARGET, Level::WARN),
            Level::INFO => tracing::enabled!(target: TARGET, Level::INFO),
            Level::DEBUG => tracing::enabled!(target: TARGET, Level::DEBUG),
            Level::TRACE => tracing::enabled!(target: TARGET, Level::TRACE),
        }
    }

    /// An entry of the interface `log`, at this offset of the batch's partition.
    pub(super) fn entry(&self, level: Level, offset: Option<u64>, message: &str, fields: &str) {
        if level == Level::ERROR {
            self.call.lock().error = Some(cut(message, MAX_LAST_WORDS).to_owned());
        }
        self.emit(level, offset, message, fields);
    }

    /// A line on stdout or stderr.
    pub(super) fn line(&self, level: Level, line: &str) {
        if level == Level::WARN {
            self.call.lock().hear(line);
        }
        self.emit(level, None, line, "");
    }

    fn emit(&self, level: Level, offset: Option<u64>, message: &str, fields: &str) {
        let message_kept = cut(message, MAX_ENTRY);
        let fields_kept = cut(fields, MAX_ENTRY - message_kept.len());
        let whole = message_kept.len() == message.len() && fields_kept.len() == fields.len();
        let kept = self.budget.take(Instant::now());
        if !kept || !whole {
            (self.hooks.log_entries_dropped)(&self.consumer, 1);
        }
        if !kept {
            return;
        }
        let call = self.call.lock();
        let topic = call.partition.map(|_| call.topic.as_str());
        let partition = call.partition;
        let consumer = &*self.consumer;
        let fields = (!fields_kept.is_empty()).then_some(fields_kept);
        macro_rules! emit {
            ($level:expr) => {
                tracing::event!(target: TARGET, $level, consumer, topic, partition, offset, fields, "{message_kept}")
            };
        }
        match level {
            Level::ERROR => emit!(Level::ERROR),
            Level::WARN => emit!(Level::WARN),
            Level::INFO => emit!(Level::INFO),
            Level::DEBUG => emit!(Level::DEBUG),
            Level::TRACE => emit!(Level::TRACE),
        }
    }
}

impl Call {
    /// Rust prints a panic as "thread … panicked at FILE:LINE:", with the message on the next line.
    fn hear(&mut self, line: &str) {
        if self.panicking {
            self.panicking = false;
            let place = self.panic.take().unwrap_or_default();
            let words = format!("{} ({place})", line.trim());
            self.panic = Some(cut(&words, MAX_LAST_WORDS).to_owned());
        } else if let Some((_, place)) = line.split_once("panicked at ") {
            let place = place.trim_end_matches(':');
            self.panic = Some(cut(place, MAX_LAST_WORDS / 4).to_owned());
            self.panicking = true;
        }
    }
}

/// At most `limit` bytes of `text`, cut between characters.
pub(super) fn cut(text: &str, limit: usize) -> &str {
    if text.len() <= limit {
        return text;
    }
    let end = (0..=limit)
        .rev()
        .find(|end| text.is_char_boundary(*end))
        .unwrap_or(0);
    &text[..end]
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU64, Ordering};

    fn journal() -> (Arc<Journal>, Arc<AtomicU64>) {
        let dropped = Arc::new(AtomicU64::new(0));
        let counter = Arc::clone(&dropped);
        let hooks = PluginHooks {
            log_entries_dropped: Arc::new(move |_, more| {
                counter.fetch_add(more, Ordering::Relaxed);
            }),
            ..PluginHooks::default()
        };
        let journal = Journal::new("c".into(), Arc::default(), hooks);
        (journal, dropped)
    }

    /// A plugin that logs in a loop would fill the disk of the host.
    #[tokio::test(start_paused = true)]
    async fn past_the_rate_entries_are_counted_and_dropped() {
        let (journal, dropped) = journal();
        for _ in 0..1_003 {
            journal.entry(Level::INFO, None, "m", "");
        }
        assert_eq!(dropped.load(Ordering::Relaxed), 3);
        tokio::time::advance(Duration::from_secs(1)).await;
        journal.entry(Level::INFO, None, "m", "");
        assert_eq!(dropped.load(Ordering::Relaxed), 3);
    }

    /// A cut in the middle of a character would panic the host.
    #[tokio::test]
    async fn long_entries_are_cut_between_characters() {
        let (journal, dropped) = journal();
        journal.entry(Level::INFO, None, &"é".repeat(MAX_ENTRY), "");
        assert_eq!(dropped.load(Ordering::Relaxed), 1);
        assert_eq!(cut("aé", 2), "a");
        assert_eq!(cut("", 0), "");
    }

    /// Dead letters must say what the panic said, with and without the SDK's hook.
    #[tokio::test]
    async fn last_words_are_those_of_this_call() {
        let (journal, _) = journal();
        journal.entry(Level::ERROR, None, "from an earlier call", "");
        journal.begin("t", 0);
        assert_eq!(journal.last_words(), None);
        journal.line(
            Level::WARN,
            "thread '<unnamed>' panicked at src/lib.rs:5:9:",
        );
        journal.line(Level::WARN, "boom");
        journal.line(Level::WARN, "note: run with RUST_BACKTRACE=1");
        assert_eq!(journal.last_words().unwrap(), "boom (src/lib.rs:5:9)");
        journal.entry(Level::ERROR, None, "logged", "");
        assert_eq!(journal.last_words().unwrap(), "logged");
    }
}
