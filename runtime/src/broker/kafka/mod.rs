//! The adapter for Apache Kafka, over librdkafka.
//!
//! ```text
//! KafkaBroker ─ subscribe ─▶ PollThread (member of the group) ──▶ Outbox ──▶ KafkaSource
//!      │                       ▲ commands: hold, release, commit ── KafkaControl, KafkaSink
//!      │                     Producer (a thread) ◀── publish ────── KafkaSink
//!      └─ topics ──────────▶ KafkaTopics: admin, reader and producer of its own
//! ```
//! A request to produce with a key is refused: a key that is not in one transaction with its events
//! would not hold over a crash.
//!
//! No call that can block runs on an async worker; librdkafka is named nowhere else.

mod bell;
mod client;
mod commit;
mod errors;
mod first_start;
mod group;
mod health;
mod member;
mod open_transaction;
mod partitions;
mod poll_thread;
mod positions;
mod predecessors;
mod producer;
mod publication;
mod raw;
mod reader;
mod rebalance;
mod renewal;
mod source;
mod topics;
mod transaction_positions;
mod transactions;
mod transactor;
mod valves;
mod watch;

use std::sync::Arc;

use futures::FutureExt;
use futures::future::BoxFuture;
use rdkafka::error::KafkaError;

use super::outbox::Outbox;
use super::wake::Wake;
use super::{Broker, BrokerError, Session, Subscription, Topics};
use crate::config;
use crate::decide::admission::Load;
use client::{Listener, Reach, Settings};
use errors::broker_error;
use health::Health;
use member::{Member, MemberContext};
use poll_thread::{PollThread, Succession};
use predecessors::Predecessors;
use producer::{Order, Producer};
use source::{Ends, KafkaControl, KafkaSink, KafkaSource, Mailbox};
use topics::KafkaTopics;
use transactor::Transactor;

/// A Kafka cluster.
pub struct KafkaBroker {
    settings: Settings,
    reach: Arc<Reach>,
    topics: Arc<KafkaTopics>,
    health: Health,
}

impl KafkaBroker {
    /// Prepares the clients. The cluster need not be in reach: connecting goes on for as long as
    /// it takes. `instance` makes memberships static.
    ///
    /// # Errors
    /// `Refused` where librdkafka does not take a property.
    pub fn connect(
        kafka: &config::Kafka,
        instance: Option<&str>,
    ) -> Result<Arc<Self>, BrokerError> {
        let settings = Settings::new(kafka, instance);
        let reach = Arc::new(Reach::default());
        let listener = Listener {
            reach: reach.clone(),
            owner: "broker".into(),
            lost_connections: Arc::default(),
        };
        // Each kind of client has checks of its own; better now than with the first event.
        for config in [settings.producer(), settings.reader()] {
            config
                .create_native_config()
                .map_err(|error| broker_error("the Kafka client", &error))?;
        }
        let topics = Arc::new(KafkaTopics::new(settings.clone(), listener.clone())?);
        let health = Health::start(&settings, listener, reach.clone())?;
        Ok(Arc::new(Self {
            settings,
            reach,
            topics,
            health,
        }))
    }
}

impl Broker for KafkaBroker {
    fn subscribe(&self, subscription: Subscription) -> Result<Session, BrokerError> {
        let subscription = Arc::new(subscription);
        let listener = Listener {
            reach: self.reach.clone(),
            owner: subscription.consumer.clone(),
            lost_connections: Arc::default(),
        };
        let (settings, joining) = (self.settings.clone(), subscription.clone());
        let owner = listener.clone();
        let make_member = move |partitions| {
            let member: Member = settings
                .member(&joining, partitions)
                .create_with_context(MemberContext::new(owner.clone()))
                .map_err(|error: KafkaError| broker_error("the Kafka consumer", &error))?;
            Ok(Arc::new(member))
        };
        let member = make_member(0)?;
        let wake = Arc::new(Wake::default());
        let ahead = Load {
            events: subscription.fetch_events,
            bytes: subscription.fetch_bytes,
        };
        let wakes = wake.clone();
        let outbox = Arc::new(Outbox::new(ahead, move || wakes.notify()));
        let mailbox = Arc::new(Mailbox::new(wake.clone()));
        let ends = Arc::new(Ends::new(member.clone()));
        let transactor = subscription.transactional.then(|| {
            let config = self.settings.transactional(&subscription.group);
            Transactor::start(
                &subscription.consumer,
                config,
                listener.clone(),
                ends.clone(),
            )
        });
        let transactor = transactor.transpose().map_err(no_thread)?;
        let predecessors = Predecessors::new(
            self.settings.clone(),
            listener.clone(),
            subscription.previous_groups.clone(),
            subscription.transactional,
        );
        let producer = Producer::start(
            &subscription.consumer,
            self.settings.producer(),
            listener,
            Order::Stream,
        )
        .map_err(no_thread)?;
        let thread = PollThread::new(
            Succession {
                member,
                make_member: Box::new(make_member),
                predecessors,
            },
            subscription.clone(),
            outbox.clone(),
            mailbox.clone(),
            ends.clone(),
            wake,
        )
        .ok_or_else(|| BrokerError::Refused("the Kafka consumer has no queue".to_owned()))?;
        std::thread::Builder::new()
            .name(format!("kafka-in-{}", subscription.consumer))
            .spawn(move || thread.run())
            .map_err(no_thread)?;
        Ok(Session {
            source: Box::new(KafkaSource {
                outbox: outbox.clone(),
                mailbox: mailbox.clone(),
                ends: ends.clone(),
            }),
            control: Arc::new(KafkaControl {
                outbox,
                mailbox: mailbox.clone(),
                ends: ends.clone(),
            }),
            sink: Arc::new(KafkaSink {
                producer,
                transactor,
                ends,
                mailbox,
            }),
        })
    }

    fn topics(&self) -> Arc<dyn Topics> {
        self.topics.clone()
    }

    fn up(&self) -> bool {
        self.reach.up()
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        self.health.stop();
        self.topics.close().boxed()
    }
}

fn no_thread(error: std::io::Error) -> BrokerError {
    BrokerError::Refused(format!("no thread can be started: {error}"))
}
