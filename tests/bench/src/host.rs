//! Where it ran: figures are nothing without it.

use std::fs;

use serde::Serialize;

use crate::install;

/// The machine and what is installed on it.
#[derive(Debug, Serialize)]
pub struct Host {
    pub processor: String,
    pub processors: usize,
    pub memory_mib: u64,
    pub kernel: String,
    /// Of the broker.
    pub kafka: String,
    pub java: String,
}

impl Host {
    /// This one.
    pub fn here() -> Self {
        let memory = field("/proc/meminfo", "MemTotal");
        let kibibytes: u64 = memory
            .split_whitespace()
            .next()
            .and_then(|n| n.parse().ok())
            .unwrap_or(0);
        Self {
            processor: field("/proc/cpuinfo", "model name"),
            processors: std::thread::available_parallelism().map_or(0, usize::from),
            memory_mib: kibibytes / 1024,
            kernel: fs::read_to_string("/proc/sys/kernel/osrelease")
                .unwrap_or_default()
                .trim()
                .to_owned(),
            kafka: kafka(),
            java: install::java(),
        }
    }
}

/// The version of the broker that the tests' own pom names.
fn kafka() -> String {
    let pom = millstream_test_support::workspace::root().join("tests/support/kafka/pom.xml");
    let text = fs::read_to_string(pom).unwrap_or_default();
    let version = text
        .split_once("<kafka.version>")
        .and_then(|(_, rest)| rest.split_once('<'));
    version.map_or_else(String::new, |(version, _)| version.to_owned())
}

fn field(file: &str, name: &str) -> String {
    let text = fs::read_to_string(file).unwrap_or_default();
    let line = text.lines().find(|line| line.starts_with(name));
    let value = line.and_then(|line| line.split_once(':'));
    value.map_or(String::new(), |(_, value)| value.trim().to_owned())
}
