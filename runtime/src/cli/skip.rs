//! `millstream skip CONSUMER TOPIC/PARTITION@OFFSET`: moves a partition past one event.
//!
//! ```text
//! a runtime answers ──▶ it tells the consumer, which goes on at once
//! none does ──────────▶ the group's position is moved, ranges settled above it kept
//! ```

use std::process::ExitCode;

use super::place::EventPlace;
use super::{Context, connect};
use crate::broker::{Commit, Topics};
use crate::config::{Config, Consumer};
use crate::decide::offsets::Progress;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// The consumer, by its name in the configuration
    consumer: String,

    /// The event that the partition halted at or the circuit breaker keeps, such as orders/3@1042
    #[arg(value_name = "TOPIC/PARTITION@OFFSET")]
    place: EventPlace,
}

/// Skips the event.
///
/// # Errors
/// The partition is not halted at it and the breaker does not keep it, or it is settled already; the group has members elsewhere; or
/// the broker fails.
pub async fn run(args: Args, context: &Context) -> anyhow::Result<ExitCode> {
    let config = connect::load(context)?;
    let consumer = super::consumer(&config, &args.consumer)?;
    let EventPlace { partition, offset } = &args.place;
    if let Some(remote) = connect::running(&config).await? {
        remote.skip(&consumer.name, partition, *offset).await?;
    } else {
        let connection = connect::connect(&config).await?;
        let result = commit(&*connection.topics, &config, consumer, &args.place).await;
        connection.close().await;
        result?;
    }
    eprintln!("{} skipped; {} goes on after it", args.place, consumer.name);
    Ok(ExitCode::SUCCESS)
}

async fn commit(
    topics: &dyn Topics,
    config: &Config,
    consumer: &Consumer,
    place: &EventPlace,
) -> anyhow::Result<()> {
    let EventPlace { partition, offset } = place;
    let (group, offset) = (&consumer.group, *offset);
    let known = topics.list().await?;
    let topic = known.iter().find(|info| info.name == partition.topic);
    let bounds = topic.and_then(|info| info.partitions.get(partition.partition as usize));
    let Some(bounds) = bounds.filter(|_| consumer.reads(&partition.topic)) else {
        anyhow::bail!(
            "consumer {} of {} reads no partition {partition}",
            consumer.name,
            config.file.display()
        );
    };
    if !(bounds.start..bounds.end).contains(&offset) {
        anyhow::bail!(
            "there is no event {place}: the partition holds {} up to {}",
            bounds.start,
            bounds.end
        );
    }
    let positions = topics.positions(group).await?;
    let progress = positions.iter().find(|(known, _)| known == partition);
    let Some((_, progress)) = progress else {
        anyhow::bail!("group {group} has no position in {partition}: it never halted there");
    };
    let Some(progress) = past(progress, offset) else {
        anyhow::bail!(
            "{place} is settled already; group {group} stands at {}",
            progress.next
        );
    };
    let commit = Commit {
        partition: partition.clone(),
        progress,
    };
    topics.set_positions(group, vec![commit]).await?;
    Ok(())
}

/// The position with this one offset settled too; `None` where it is already.
fn past(progress: &Progress, offset: u64) -> Option<Progress> {
    if progress.covers(offset) {
        return None;
    }
    let mut ranges = progress.above.clone();
    ranges.push(offset..offset + 1);
    ranges.sort_by_key(|range| range.start);
    let mut moved = Progress::at(progress.next);
    for range in ranges {
        match moved.above.last_mut() {
            _ if range.start == moved.next => moved.next = range.end,
            Some(last) if last.end == range.start => last.end = range.end,
            _ => moved.above.push(range),
        }
    }
    Some(moved)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Exactly that one offset becomes settled, in the form that positions have.
        #[test]
        fn one_offset_more_is_settled_and_no_other(
            next in 0..5_u64,
            settled in proptest::collection::btree_set(6..20_u64, 0..8),
            offset in 0..22_u64,
        ) {
            let mut progress = Progress::at(next);
            for at in settled {
                match progress.above.last_mut() {
                    Some(last) if last.end == at => last.end = at + 1,
                    _ => progress.above.push(at..at + 1),
                }
            }
            let Some(moved) = past(&progress, offset) else {
                prop_assert!(progress.covers(offset));
                return Ok(());
            };
            for at in 0..30 {
                prop_assert_eq!(moved.covers(at), progress.covers(at) || at == offset, "{}", at);
            }
            let mut end = moved.next;
            for range in &moved.above {
                prop_assert!(range.start > end && range.end > range.start, "{:?}", moved);
                end = range.end;
            }
        }
    }
}
