//! The programs that are compared, each a process of its own so that its processor time is its own.

use std::path::{Path, PathBuf};

use anyhow::Result;
use clap::ValueEnum;
use millstream_test_support::guard::{Guarded, Plan};

use crate::millstream::Kind;
use crate::workload::Workload;
use crate::{bound, embedded, millstream, peers};

/// A program that does the work.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Contender {
    /// The bare librdkafka loop.
    Bound,
    /// The same, with headers on each record as the runtime's have them.
    BoundHeaders,
    /// The release build of the runtime (or what `MILLSTREAM_BIN` names), with the workload as a plugin.
    Millstream,
    /// The same without a circuit breaker: what a closed one costs.
    NoBreaker,
    /// The same with 50,000 events in flight.
    Wide,
    /// The same with `delivery = "exactly-once"`.
    ExactlyOnce,
    /// The same with a plugin that asks for fields by name; q22 alone.
    Fields,
    /// Millstream on its embedded broker, which is part of its process.
    Embedded,
    /// The same with `durability = "os"`.
    EmbeddedOs,
    /// Kafka Streams, at least once.
    KafkaStreams,
    /// Kafka Streams, exactly once.
    KafkaStreamsExactlyOnce,
    /// Redpanda Connect with a mapping.
    Connect,
    /// The same with its `wasm` processor; q22 alone.
    ConnectWasm,
    /// Python with confluent-kafka.
    Python,
}

/// What an embedded broker promises of what it acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// It is on the disk.
    Sync,
    /// The kernel has it.
    Os,
}

impl Durability {
    /// As the configuration has it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Sync => "sync",
            Self::Os => "os",
        }
    }
}

/// What a contender works on.
#[derive(Clone, Debug)]
pub struct Job<'a> {
    pub workload: Workload,
    pub bootstrap: &'a str,
    /// The groups of its consumers; each reads all events.
    pub groups: Vec<String>,
    pub input: &'a str,
    pub output: &'a str,
    pub partitions: u32,
    /// How many events the input holds; more than come where it is to go on.
    pub events: u64,
    pub seed: u64,
    /// Configuration, caches and logs; kept from run to run.
    pub folder: &'a Path,
}

impl Job<'_> {
    /// How many events all consumers together are done with at the end.
    pub fn handled(&self) -> u64 {
        self.events * self.groups.len() as u64
    }
}

/// A contender at work.
pub struct Started {
    pub process: Guarded,
    /// `host:port` of a Millstream's HTTP interface.
    pub admin: Option<String>,
}

/// How to start a contender.
pub struct Launch {
    pub program: PathBuf,
    pub arguments: Vec<String>,
    pub environment: Vec<(String, String)>,
    pub admin: Option<String>,
}

impl Contender {
    /// Its name in results.
    pub fn name(self) -> &'static str {
        match self {
            Self::Bound => "bound",
            Self::BoundHeaders => "bound-headers",
            Self::Millstream => "millstream",
            Self::NoBreaker => "no-breaker",
            Self::Wide => "wide",
            Self::ExactlyOnce => "exactly-once",
            Self::Fields => "fields",
            Self::Embedded => "embedded",
            Self::EmbeddedOs => "embedded-os",
            Self::KafkaStreams => "kafka-streams",
            Self::KafkaStreamsExactlyOnce => "kafka-streams-exactly-once",
            Self::Connect => "connect",
            Self::ConnectWasm => "connect-wasm",
            Self::Python => "python",
        }
    }

    /// Whether it is Millstream, in any form.
    pub fn is_millstream(self) -> bool {
        matches!(
            self,
            Self::Millstream
                | Self::NoBreaker
                | Self::Wide
                | Self::ExactlyOnce
                | Self::Fields
                | Self::Embedded
                | Self::EmbeddedOs
        )
    }

    /// What its embedded broker promises; `None` where it works on Kafka.
    pub fn durability(self) -> Option<Durability> {
        match self {
            Self::Embedded => Some(Durability::Sync),
            Self::EmbeddedOs => Some(Durability::Os),
            _ => None,
        }
    }

    /// Whether others wrote it, and its tools may be missing here.
    pub fn is_peer(self) -> bool {
        !matches!(self, Self::Bound | Self::BoundHeaders) && !self.is_millstream()
    }

    /// Whether it is written for a workload.
    pub fn does(self, workload: Workload) -> bool {
        match (self, workload) {
            (Self::Fields | Self::ConnectWasm, workload) => workload == Workload::Q22,
            (contender, Workload::FanOut) => !contender.is_peer(),
            (contender, Workload::Enrich) => contender != Self::Connect,
            _ => true,
        }
    }

    /// Installs it, or fails with what to do where it cannot run.
    ///
    /// # Errors
    /// What it needs was not built, or its tools are missing.
    pub fn prepare(self, workloads: &[Workload]) -> Result<()> {
        match self {
            Self::Bound | Self::BoundHeaders => Ok(()),
            _ if self.is_millstream() => millstream::check(workloads, self.kind()),
            _ => peers::install(self),
        }
    }

    /// What it is made of, for the results.
    pub fn version(self) -> String {
        match self {
            Self::Bound | Self::BoundHeaders => bound::version(),
            _ if self.is_millstream() => millstream::version(),
            _ => peers::version(self),
        }
    }

    /// Puts in place what it is started with.
    ///
    /// # Errors
    /// Its configuration cannot be written, or its broker cannot be filled.
    pub fn launch(self, job: &Job<'_>) -> Result<Launch> {
        match self {
            Self::Bound | Self::BoundHeaders => bound::launch(job, self == Self::BoundHeaders),
            _ => match self.durability() {
                Some(durability) => embedded::launch(job, durability),
                None if self.is_millstream() => millstream::launch(job, self.kind()),
                None => Ok(peers::launch(self, job)),
            },
        }
    }

    /// Starts it to work until it is ended; the bound ends by itself after as many events.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn start(self, job: &Job<'_>, launch: Launch) -> Result<Started> {
        let log = self.log(job.folder);
        let environment = launch.environment.into_iter();
        let process = Guarded::start(&Plan {
            program: launch.program.as_os_str(),
            arguments: launch.arguments.iter().map(Into::into).collect(),
            environment: environment
                .map(|(name, value)| (name, value.into()))
                .collect(),
            folder: job.folder,
            stdout: Some(&log),
            stderr: Some(&log),
            remove: None,
        })?;
        Ok(Started {
            process,
            admin: launch.admin,
        })
    }

    /// What a Millstream sets beyond names: what a user gets is what is measured.
    fn kind(self) -> Kind<'static> {
        let (component, settings) = match self {
            Self::NoBreaker => (None, "circuit_breaker = false"),
            Self::Wide => (None, "in_flight = { max_events = 50000 }"),
            Self::ExactlyOnce => (None, "delivery = \"exactly-once\""),
            Self::Fields => (Some("millstream_bench_q22_fields"), ""),
            _ => (None, ""),
        };
        Kind {
            component,
            settings,
        }
    }

    /// Where its words go.
    pub fn log(self, folder: &Path) -> PathBuf {
        folder.join(format!("{}.log", self.name()))
    }
}
