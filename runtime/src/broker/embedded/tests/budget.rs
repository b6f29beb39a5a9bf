//! The fetch budget: what a session has ready at most, with events and partitions of any number.

use super::*;
use crate::broker::embedded::fetcher::Fetcher;
use crate::broker::embedded::session::SessionShared;
use crate::decide::admission::Load;

/// Reads a topic by rounds of a fetcher that is driven by hand, taking all that is ready after each
/// time that no more is. Returns the most that was ready then, and how many events came.
async fn most_ready(broker: &EmbeddedBroker, subscription: Subscription) -> (Load, usize) {
    let shared = broker.shared.clone();
    let read = tokio::task::spawn_blocking(move || {
        let session = Arc::new(SessionShared::new(&subscription));
        let store = shared.store().unwrap();
        let mut fetcher = Fetcher::new(shared, session.clone(), subscription);
        fetcher.assign(&store).unwrap();
        let (mut most, mut came) = (Load::default(), 0);
        loop {
            while fetcher.round(&store) {}
            let mut ready = Load::default();
            while let Some(event) = session.outbox.take() {
                if let SourceEvent::Block(block) = event {
                    ready.add(Load {
                        events: block.len(),
                        bytes: block.bytes(),
                    });
                }
            }
            if ready == Load::default() {
                return (most, came);
            }
            most = most.larger(ready);
            came += ready.events;
        }
    });
    read.await.unwrap()
}

/// One event of each partition, however large, would fill the memory.
#[tokio::test]
async fn large_events_of_many_partitions_stay_within_the_fetch_budget() {
    const EVENT: usize = 10_000_000;
    for count in [1, 500] {
        let folder = tempfile::tempdir().unwrap();
        let broker = open_with(folder.path(), "t", partitions(count));
        let value = "x".repeat(EVENT);
        for number in 0..8 {
            produce(&broker, "t", number * 60 % count, &[&value]).await;
        }
        let (most, came) = most_ready(&broker, named("t")).await;
        assert_eq!(came, 8);
        // What is there when an event passes the bound, and that event.
        let bound = named("t").fetch_bytes + EVENT + 1_000;
        assert!(most.bytes <= bound, "{} bytes were ready", most.bytes);
    }
}

/// One event of each of more partitions than the budget has events would be too many.
#[tokio::test]
async fn small_events_of_many_partitions_stay_within_the_fetch_budget() {
    for count in [1, 500] {
        let folder = tempfile::tempdir().unwrap();
        let broker = open_with(folder.path(), "t", partitions(count));
        let mut all = Records::new();
        for number in 0..2_000 {
            let record = NewRecord {
                value: Some(b"x"),
                partition: Some(number % count),
                ..NewRecord::default()
            };
            all.push(&"t".into(), record);
        }
        broker.topics().produce(all).await.unwrap();
        let subscription = Subscription {
            fetch_events: 100,
            ..named("t")
        };
        let (most, came) = most_ready(&broker, subscription).await;
        assert_eq!(came, 2_000);
        assert!(most.events <= 100, "{} events were ready", most.events);
    }
}
