//! The command line's way in, over a real listener.

use super::*;
use crate::broker::ReadLimits;
use crate::broker::remote::Remote;
use crate::decide::offsets::Progress;
use crate::event::TopicPartition;
use crate::records::{NewRecord, Records};

/// The command line against a real listener: every call arrives and comes back whole.
#[tokio::test]
async fn the_remote_topics_behave_like_the_ones_behind_them() {
    let bench = bench(Some("hunter2"));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await;
    let listener = listener.expect("a port");
    let address = listener.local_addr().expect("an address").to_string();
    let stop = CancellationToken::new();
    let admin = admin(Some("hunter2"));
    let (state, stopped) = (bench.state.clone(), stop.clone());
    let server = tokio::spawn(async move { serve(listener, None, state, &admin, stopped).await });

    let stranger = Remote::new(&address, None);
    assert!(matches!(
        stranger.list().await,
        Err(BrokerError::Refused(_))
    ));

    let remote = Remote::new(&address, Some(Secret::new("hunter2")));
    assert_eq!(
        remote.runtime().await.map(|r| r.store).ok().as_deref(),
        Some("store")
    );
    let settings = TopicSettings {
        partitions: Some(2),
        ..TopicSettings::default()
    };
    assert_eq!(remote.create("made", &settings).await.ok(), Some(true));
    assert_eq!(remote.create("made", &settings).await.ok(), Some(false));

    let mut records = Records::new();
    for (topic, partition) in [("made", Some(1)), ("orders", None), ("made", Some(1))] {
        records.push(
            &topic.into(),
            NewRecord {
                key: Some(&[0xff]),
                value: (topic == "made").then_some(&b"v"[..]),
                partition,
                timestamp_ms: Some(1234),
                tag: 0,
            },
        );
        records.push_header(b"h", None);
    }
    let places = remote.produce(records).await.expect("written");
    let places: Vec<String> = places
        .iter()
        .map(|place| format!("{}@{}", place.partition, place.offset))
        .collect();
    assert_eq!(places, ["made/1@0", "orders/1@0", "made/1@1"]);
    assert_eq!(remote.list().await.ok(), bench.topics.list().await.ok());

    let partition = TopicPartition::new("made", 1);
    let limits = ReadLimits {
        events: 1,
        bytes: 1 << 20,
    };
    let chunk = remote.read(&partition, 1, limits).await.expect("read");
    assert_eq!((chunk.block.len(), chunk.next, chunk.end), (1, 2, 2));
    let event = chunk.block.event(0);
    assert_eq!((event.offset(), event.timestamp_ms()), (1, 1234));
    assert_eq!(
        (event.key(), event.value()),
        (Some(&[0xff][..]), Some(&b"v"[..]))
    );
    assert_eq!(event.headers().next(), Some((&b"h"[..], None)));
    assert_eq!(remote.offset_at(&partition, 1234).await.ok(), Some(0));
    assert_eq!(remote.offset_at(&partition, 1235).await.ok(), Some(2));

    let position = Progress {
        next: 1,
        above: vec![5..7, 9..10],
        watch: None,
    };
    bench
        .topics
        .set_positions(vec![(partition.clone(), position)]);
    let positions = remote.positions("millstream.enrich").await.ok();
    assert_eq!(
        positions,
        bench.topics.positions("millstream.enrich").await.ok()
    );

    let unknown = TopicPartition::new("made", 9);
    let error = remote.read(&unknown, 0, limits).await.err();
    assert!(matches!(error, Some(BrokerError::UnknownTopic(name)) if name == "made/9"));
    assert_eq!(remote.delete("made").await.ok(), Some(true));
    assert_eq!(remote.delete("made").await.ok(), Some(false));
    let report: Result<Vec<ConsumerReport>, _> = remote.get("/api/v1/consumers".into()).await;
    assert_eq!(
        report.map(|all| all[0].name.clone()).ok().as_deref(),
        Some("enrich")
    );

    stop.cancel();
    server.await.expect("the server ends");
    assert!(matches!(
        remote.list().await,
        Err(BrokerError::Unreachable(_))
    ));
}
