//! A process that is killed at any moment: what it was answered is there, and no half of anything.
//!
//! The test runs its own program again, as a child that produces until it is killed.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};

use super::*;
use crate::broker::Commit;
use crate::decide::offsets::Progress;

/// The folder that a child is to produce into; without it the child's test does nothing.
const FOLDER: &str = "MILLSTREAM_TEST_CRASH_FOLDER";
const ROUND: &str = "MILLSTREAM_TEST_CRASH_ROUND";
const ROUNDS: usize = 6;
const PRODUCERS: usize = 3;
/// Events of one call, spread over two topics and their partitions.
const EVENTS: usize = 40;

/// Produces and says "PRODUCER CALL" for each call that was answered, until it is killed.
#[tokio::test]
async fn child() {
    let (Ok(folder), Ok(round)) = (std::env::var(FOLDER), std::env::var(ROUND)) else {
        return;
    };
    let config = Embedded {
        durability: Durability::Sync,
        ..config(Path::new(&folder))
    };
    let broker = EmbeddedBroker::open(&config, &BTreeMap::new()).unwrap();
    let session = broker.subscribe(named("one")).unwrap();
    let sink = session.sink.clone();
    let producers = (0..PRODUCERS).map(|producer| {
        let (broker, sink, round) = (broker.clone(), sink.clone(), round.clone());
        async move {
            for call in 0.. {
                let name = format!("{round}-{producer}-{call}");
                let places = broker.topics().produce(call_records(&name)).await.unwrap();
                let place = &places[0];
                let commit = Commit {
                    partition: place.partition.clone(),
                    progress: Progress::at(place.offset),
                };
                sink.commit(vec![commit]).await.unwrap();
                // One write a line, so that a kill never leaves half an acknowledgement.
                let line = format!("acknowledged {name}\n");
                std::io::stdout().write_all(line.as_bytes()).unwrap();
                std::io::stdout().flush().unwrap();
            }
        }
    });
    futures::future::join_all(producers).await;
}

fn call_records(name: &str) -> Records {
    let topics: [Arc<str>; 2] = ["one".into(), "two".into()];
    let mut records = Records::new();
    for n in 0..EVENTS {
        let key = format!("{name}-{n}");
        let value = format!("{name} {n} {}", "x".repeat(3_000));
        let record = NewRecord {
            key: Some(key.as_bytes()),
            value: Some(value.as_bytes()),
            ..NewRecord::default()
        };
        records.push(&topics[n % 2], record);
    }
    records
}

/// Runs a child, kills it after some acknowledgements, and answers those that it gave.
fn produce_until_killed(folder: &Path, round: usize, acknowledgements: usize) -> Vec<String> {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "--nocapture", "--test-threads=1"])
        .arg("broker::embedded::tests::crash::child")
        .env(FOLDER, folder)
        .env(ROUND, round.to_string())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut acknowledged = Vec::new();
    for line in lines {
        let line = line.unwrap();
        // The test program's own words may stand before the first one.
        if let Some((_, name)) = line.split_once("acknowledged ") {
            acknowledged.push(name.to_owned());
        }
        // SIGKILL; what was said before it is read to the end.
        if acknowledged.len() == acknowledgements {
            child.kill().unwrap();
        }
    }
    child.wait().unwrap();
    assert!(
        acknowledged.len() >= acknowledgements,
        "the child died early"
    );
    acknowledged
}

#[tokio::test]
async fn what_was_acknowledged_survives_a_kill_and_nothing_is_torn() {
    let folder = tempfile::tempdir().unwrap();
    let mut acknowledged = Vec::new();
    for round in 0..ROUNDS {
        let (path, count) = (folder.path().to_owned(), fastrand::usize(1..60));
        let said = tokio::task::spawn_blocking(move || produce_until_killed(&path, round, count));
        acknowledged.extend(said.await.unwrap());
        let broker = open(folder.path());
        let mut counts: HashMap<String, usize> = HashMap::new();
        for topic in broker.topics().list().await.unwrap() {
            for partition in 0..topic.partitions.len() as u32 {
                let (start, values, end) = read_all(&broker, &topic.name, partition).await;
                assert_eq!((start, values.len() as u64), (0, end));
                check_order(&values);
                for value in values {
                    let name = value.split(' ').next().unwrap_or_default();
                    *counts.entry(name.to_owned()).or_default() += 1;
                }
            }
        }
        for name in &acknowledged {
            assert_eq!(counts.get(name), Some(&EVENTS), "{name} was acknowledged");
        }
        for (name, count) in &counts {
            assert_eq!(*count, EVENTS, "{name} is whole");
        }
        for (place, progress) in broker.topics().positions("g").await.unwrap() {
            let chunk = broker
                .topics()
                .read(&place, progress.next, ALL)
                .await
                .unwrap();
            assert!(progress.next <= chunk.end, "{place}");
        }
        broker.close().await;
    }
}

/// Within a partition the calls of one producer stand in their order, and so do a call's events.
fn check_order(values: &[String]) {
    let mut last: HashMap<&str, (u64, u64)> = HashMap::new();
    for value in values {
        let mut words = value.split(' ');
        let (name, n) = (words.next().unwrap(), words.next().unwrap());
        let (producer, call) = name.rsplit_once('-').unwrap();
        let at = (call.parse().unwrap(), n.parse().unwrap());
        if let Some(before) = last.insert(producer, at) {
            assert!(before < at, "{producer}: {before:?} before {at:?}");
        }
    }
}
