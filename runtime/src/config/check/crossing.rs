//! Checks of consumers against each other, and of one's topics against its own.
//!
//! ```text
//! drafts ─▶ names, groups, instances, memory, partitions
//!       └─▶ who writes what whom reads ─▶ own circle (error), circle of several (warning)
//! ```

use std::collections::BTreeMap;
use std::sync::Arc;

use super::super::checks::Checks;
use super::super::problem::{Place, Problem};
use super::super::resolved::{Consumer, Runtime, TopicPattern, TopicSettings};
use super::super::units::show_size;
use super::consumer::Draft;

/// Checks everything that one consumer alone cannot know.
pub fn crossing(
    checks: &Checks<'_>,
    drafts: &[Draft],
    runtime: &Runtime,
    topics: &BTreeMap<Arc<str>, TopicSettings>,
) {
    duplicates(checks, drafts);
    previous_names(checks, drafts);
    resources(checks, drafts, runtime);
    partitions(checks, drafts, topics);
    for draft in drafts {
        own_circle(checks, draft);
    }
    circles(checks, drafts);
}

fn duplicates(checks: &Checks<'_>, drafts: &[Draft]) {
    let mut names: BTreeMap<&str, &Place> = BTreeMap::new();
    let mut groups: BTreeMap<&str, (&Place, &str)> = BTreeMap::new();
    for draft in drafts {
        let (name, group) = (&*draft.consumer.name, &*draft.consumer.group);
        if name.is_empty() {
            continue;
        }
        if let Some(first) = names.get(name) {
            checks.report(
                Problem::error("duplicate", format!("two consumers are named `{name}`"))
                    .at(&draft.name)
                    .label("taken already")
                    .cause(format!(
                        "the first is at {}",
                        checks.sources.describe(first)
                    ))
                    .hint("give each a name of its own"),
            );
            continue;
        }
        names.insert(name, &draft.name);
        if let Some((first, other)) = groups.get(group) {
            checks.report(
                Problem::error("duplicate", format!("the group `{group}` is used twice"))
                    .at(&draft.group)
                    .label(format!("consumer `{other}` has it already"))
                    .cause(format!(
                        "two consumers of one group take events away from each other; the first is at {}",
                        checks.sources.describe(first)
                    ))
                    .hint("give each a group of its own, or leave `group` out"),
            );
            continue;
        }
        groups.insert(group, (&draft.group, name));
    }
}

/// What a name before left goes to one consumer, and to none beside it that goes by that name still.
fn previous_names(checks: &Checks<'_>, drafts: &[Draft]) {
    let mut claimed: BTreeMap<&str, &Place> = BTreeMap::new();
    for draft in drafts {
        let consumer = &draft.consumer;
        for (name, place) in consumer.previous_names.iter().zip(&draft.previous_names) {
            let report = |what: String, label: String, cause: String, hint: &str| {
                checks.report(
                    Problem::error("previous-names", what)
                        .at(place)
                        .label(label)
                        .cause(cause)
                        .hint(hint),
                );
            };
            let left = Consumer::default_group(name);
            let named = drafts.iter().find(|other| other.consumer.name == *name);
            let grouped = drafts.iter().find(|other| {
                other.consumer.group == left && consumer.previous_groups().any(|one| one == left)
            });
            if *name == consumer.name {
                report(
                    format!("`{name}` is the name of this consumer, and not one before"),
                    "the same name".to_owned(),
                    "there is nothing to carry over".to_owned(),
                    "name the one that it had before, or leave it out",
                );
            } else if let Some(other) = named {
                report(
                    format!("`{name}` is the name of another consumer"),
                    "this name is in use".to_owned(),
                    format!(
                        "that one is at {}, and goes on where it stopped itself",
                        checks.sources.describe(&other.name)
                    ),
                    "take the old consumer out where this one is to go on in its place, or leave the name out",
                );
            } else if let Some(other) = grouped {
                report(
                    format!("the group of `{name}` is used by another consumer"),
                    format!("`{left}`"),
                    format!(
                        "consumer `{}` at {} goes on where that group stopped",
                        other.consumer.name,
                        checks.sources.describe(&other.group)
                    ),
                    "leave the name out, or give the other consumer a group of its own",
                );
            } else if let Some(first) = claimed.get(&**name) {
                report(
                    format!("`{name}` was the name of one consumer"),
                    "claimed already".to_owned(),
                    format!(
                        "it is claimed at {} as well",
                        checks.sources.describe(first)
                    ),
                    "name it once, where the consumer goes on that had it",
                );
            } else {
                claimed.insert(name, place);
            }
        }
    }
}

/// Counts what was asked for by name alone: a default gives way where there is no room.
fn resources(checks: &Checks<'_>, drafts: &[Draft], runtime: &Runtime) {
    let mut instances: u64 = 0;
    let mut memory: u64 = 0;
    let mut last = None;
    for draft in drafts {
        if let (true, Some(place)) = (draft.consumer.enabled, &draft.concurrency) {
            let concurrency = u64::from(draft.consumer.concurrency);
            instances += concurrency;
            memory = memory.saturating_add(concurrency * draft.consumer.limits.memory);
            last = Some(place);
        }
    }
    let Some(last) = last else {
        return;
    };
    if instances > u64::from(runtime.max_instances) {
        checks.report(
            Problem::warning("instances", "not all instances can run at once")
                .at(last)
                .label(format!("the consumers ask for {instances} together"))
                .cause(format!(
                    "`runtime.max_instances` is {}",
                    runtime.max_instances
                ))
                .hint("raise it, or lower `concurrency`"),
        );
    }
    if memory > runtime.plugin_memory {
        checks.report(
            Problem::warning("memory", "not all instances can grow to their limit")
                .at(last)
                .label(format!(
                    "`concurrency` times `limits.memory` is {} over all consumers",
                    show_size(memory)
                ))
                .cause(format!(
                    "`runtime.plugin_memory` is {}",
                    show_size(runtime.plugin_memory)
                ))
                .hint("raise it, or lower `concurrency` or `limits.memory`"),
        );
    }
}

/// A topic has one number of partitions, whoever makes it first.
fn partitions(checks: &Checks<'_>, drafts: &[Draft], topics: &BTreeMap<Arc<str>, TopicSettings>) {
    let mut known: BTreeMap<&str, (u32, String)> = topics
        .iter()
        .filter_map(|(name, settings)| {
            Some((&**name, (settings.partitions?, format!("[topics.{name}]"))))
        })
        .collect();
    for draft in drafts {
        for (output, place) in draft.consumer.outputs.iter().zip(&draft.outputs) {
            let (Some(topic), Some(wanted)) = (&output.topic, output.partitions) else {
                continue;
            };
            match known.get(&**topic) {
                Some((other, said)) if *other != wanted => checks.report(
                    Problem::error(
                        "partitions",
                        format!("the topic `{topic}` is to have {wanted} partitions and {other}"),
                    )
                    .at(place)
                    .label(format!("{wanted} here"))
                    .cause(format!("{said} says {other}"))
                    .hint("say it once, in `[topics.NAME]`"),
                ),
                Some(_) => {}
                None => {
                    let said = format!("consumer `{}`", draft.consumer.name);
                    known.insert(topic, (wanted, said));
                }
            }
        }
    }
}

/// A consumer that reads by name what it writes would feed itself. Patterns leave a consumer's own
/// topics out.
fn own_circle(checks: &Checks<'_>, draft: &Draft) {
    let reads = |topic: &str| {
        draft
            .consumer
            .topics
            .iter()
            .any(|own| matches!(own, TopicPattern::Name(name) if **name == *topic))
    };
    for (output, place) in draft.consumer.outputs.iter().zip(&draft.outputs) {
        if let Some(topic) = output.topic.as_deref().filter(|topic| reads(topic)) {
            checks.report(
                Problem::error(
                    "cycle",
                    format!("a consumer writes to `{topic}`, which it reads"),
                )
                .at(place)
                .label("among its own `topics`")
                .cause("each derived event would be processed again, until `limits.hops` ends it")
                .hint("write to another topic"),
            );
        }
    }
    if let Some(dead_letter) = &draft.consumer.dead_letter
        && reads(&dead_letter.topic)
    {
        checks.report(
            Problem::error("cycle", "a consumer reads its own dead letters")
                .at(&draft.dead_letter)
                .label("among its own `topics`")
                .cause("an event that fails for good would fail for ever")
                .hint("write dead letters to another topic"),
        );
    }
}

/// Topics that a consumer writes to.
fn written(consumer: &Consumer) -> impl Iterator<Item = &str> {
    let outputs = consumer.outputs.iter().filter_map(|o| o.topic.as_deref());
    outputs.chain(consumer.dead_letter.iter().map(|dead| &*dead.topic))
}

fn link<'c>(from: &'c Consumer, to: &Consumer) -> Option<&'c str> {
    written(from).find(|topic| to.topics.iter().any(|reads| reads.matches(topic)))
}

/// Warns of each circle of several consumers once.
fn circles(checks: &Checks<'_>, drafts: &[Draft]) {
    let drafts: Vec<&Draft> = drafts
        .iter()
        .filter(|draft| draft.consumer.enabled && !draft.consumer.name.is_empty())
        .collect();
    let next: Vec<Vec<(usize, &str)>> = drafts
        .iter()
        .enumerate()
        .map(|(from, draft)| {
            (0..drafts.len())
                .filter(|to| *to != from)
                .filter_map(|to| Some((to, link(&draft.consumer, &drafts[to].consumer)?)))
                .collect()
        })
        .collect();
    let mut reported = vec![false; drafts.len()];
    for start in 0..drafts.len() {
        if reported[start] {
            continue;
        }
        let Some(path) = shortest_circle(&next, start) else {
            continue;
        };
        let mut route = String::new();
        for (consumer, topic) in &path {
            reported[*consumer] = true;
            route.push_str(&format!("{} → {topic} → ", drafts[*consumer].consumer.name));
        }
        route.push_str(&drafts[start].consumer.name);
        checks.report(
            Problem::warning("cycle", "events can go round in a circle")
                .at(&drafts[start].name)
                .label("part of the circle")
                .cause(route)
                .hint(
                    "mind that some plugin of the circle must end it; `limits.hops` does at last",
                ),
        );
    }
}

/// The consumers of the shortest way from `start` back to it, each with the topic that it writes.
fn shortest_circle<'t>(
    next: &[Vec<(usize, &'t str)>],
    start: usize,
) -> Option<Vec<(usize, &'t str)>> {
    let mut came_from: Vec<Option<(usize, &'t str)>> = vec![None; next.len()];
    let mut queue = std::collections::VecDeque::from([start]);
    while let Some(at) = queue.pop_front() {
        for (to, topic) in &next[at] {
            if came_from[*to].is_none() {
                came_from[*to] = Some((at, topic));
                queue.push_back(*to);
            }
        }
    }
    let mut path = Vec::new();
    let mut at = start;
    loop {
        let (from, topic) = came_from[at]?;
        path.push((from, topic));
        at = from;
        if at == start {
            path.reverse();
            return Some(path);
        }
    }
}
