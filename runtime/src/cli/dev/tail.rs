//! Prints what a runtime writes: derived events and dead letters, as they come.

use std::collections::{BTreeMap, BTreeSet};
use std::io::IsTerminal as _;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;

use crate::broker::{BrokerError, ReadLimits, Topics};
use crate::cli::format::Format;
use crate::cli::{Context, OutputFormat, connect, terminal};
use crate::config::{Broker, Config};
use crate::consumer::letter::Letter;
use crate::event::{EventView, TopicPartition};
use crate::json_event;

/// How often it looks for new events.
const LOOK: Duration = Duration::from_millis(200);
/// What one look takes from a partition at most.
const LIMITS: ReadLimits = ReadLimits {
    events: 1_000,
    bytes: 1 << 20,
};

/// Prints what comes from now on to the outputs and dead-letter topics of the consumers; ends with an
/// error alone. `looked` is told once it is known what was there before.
///
/// # Errors
/// Stdout is closed, or the cluster cannot be connected to.
pub async fn run(config: &Config, context: &Context, looked: &Notify) -> anyhow::Result<()> {
    let topics = topics(config).await?;
    let wanted = outputs(config);
    let mut next = BTreeMap::new();
    let mut printer = Printer {
        // The format is a constant.
        format: "%t/%p@%o  %k  %v".parse()?,
        json: context.output == OutputFormat::Json,
        visible: std::io::stdout().is_terminal(),
        rendered: Vec::new(),
    };
    let mut first = true;
    loop {
        // A runtime that is just being drained or busy answers at the next look.
        if let Ok(()) = look(&*topics, &wanted, &mut next, first, &mut printer).await {
            if first {
                looked.notify_one();
            }
            first = false;
        }
        if !printer.rendered.is_empty() {
            let rendered = std::mem::take(&mut printer.rendered);
            terminal::write(&mut tokio::io::stdout(), &rendered).await?;
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// The topics of the runtime that is about to start, or of the cluster.
async fn topics(config: &Config) -> anyhow::Result<Arc<dyn Topics>> {
    if let Broker::Kafka(_) = config.broker {
        return Ok(connect::connect(config).await?.topics);
    }
    loop {
        if let Some(remote) = connect::running(config).await? {
            return Ok(Arc::new(remote));
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// The topics that the consumers write to.
pub fn outputs(config: &Config) -> BTreeSet<Arc<str>> {
    let consumers = config.consumers.iter().filter(|consumer| consumer.enabled);
    consumers
        .flat_map(|consumer| {
            let outputs = consumer
                .outputs
                .iter()
                .filter_map(|output| output.topic.clone());
            let dead_letters = consumer.dead_letter.iter().map(|one| one.topic.clone());
            outputs.chain(dead_letters)
        })
        .collect()
}

/// Reads what is new. At the first look everything is old; a topic that appears later is new.
async fn look(
    topics: &dyn Topics,
    wanted: &BTreeSet<Arc<str>>,
    next: &mut BTreeMap<TopicPartition, u64>,
    first: bool,
    printer: &mut Printer,
) -> Result<(), BrokerError> {
    for info in topics.list().await? {
        if !wanted.contains(&info.name) {
            continue;
        }
        for (number, bounds) in (0..).zip(&info.partitions) {
            let partition = TopicPartition::new(info.name.clone(), number);
            let begin = if first { bounds.end } else { bounds.start };
            let from = *next.entry(partition.clone()).or_insert(begin);
            if from >= bounds.end {
                continue;
            }
            let chunk = topics.read(&partition, from, LIMITS).await?;
            chunk.block.iter().for_each(|event| printer.add(&event));
            next.insert(partition, chunk.next);
        }
    }
    Ok(())
}

struct Printer {
    format: Format,
    json: bool,
    visible: bool,
    rendered: Vec<u8>,
}

impl Printer {
    fn add(&mut self, event: &EventView<'_>) {
        match self.json {
            true => json_event::render(event, &mut self.rendered),
            false => {
                self.format.render(event, self.visible, &mut self.rendered);
                if let Some(letter) = Letter::read(event) {
                    let why = [&letter.reason, &letter.code, &letter.error];
                    let why: Vec<_> = why.into_iter().filter(|text| !text.is_empty()).collect();
                    let why: Vec<_> = why
                        .iter()
                        .map(|text| text.escape_debug().to_string())
                        .collect();
                    self.rendered.extend_from_slice(b"  (");
                    self.rendered.extend_from_slice(why.join(": ").as_bytes());
                    self.rendered.push(b')');
                }
            }
        }
        self.rendered.push(b'\n');
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broker::memory::Memory;
    use crate::records::{NewRecord, Records};

    /// Yesterday's events would look as if the build had made them.
    #[tokio::test]
    async fn what_was_there_before_is_not_shown() {
        let topics = Memory::with_topic("out", 1);
        let write = async |topic: &str, value: &[u8]| {
            let mut records = Records::new();
            records.push(
                &topic.into(),
                NewRecord {
                    value: Some(value),
                    ..NewRecord::default()
                },
            );
            topics.produce(records).await.expect("written");
        };
        let wanted = BTreeSet::from(["out".into()]);
        let mut next = BTreeMap::new();
        let mut printer = Printer {
            format: "%t/%p@%o %v".parse().expect("a format"),
            json: false,
            visible: false,
            rendered: Vec::new(),
        };
        write("out", b"old").await;
        let looked = look(&topics, &wanted, &mut next, true, &mut printer).await;
        assert!(looked.is_ok() && printer.rendered.is_empty());
        write("out", b"new").await;
        for _ in 0..2 {
            let looked = look(&topics, &wanted, &mut next, false, &mut printer).await;
            assert!(looked.is_ok());
        }
        assert_eq!(String::from_utf8_lossy(&printer.rendered), "out/0@1 new\n");
    }
}
