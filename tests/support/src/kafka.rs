//! A real Kafka for tests: one KRaft node on free ports, in a folder of its own.

use std::ffi::OsString;
use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tempfile::TempDir;

use crate::guard::{Guarded, Plan};
use crate::kafka_libs;
use crate::kafka_tools::KafkaTools;
use crate::ports::free_port;
use crate::wait::{Deadline, eventually, step};
use crate::workspace;

/// Where [`shared`] finds a broker that was started for the whole run, as `host:port`.
pub const SHARED: &str = "MILLSTREAM_TEST_KAFKA";

/// How long a node may take to answer; a busy machine needs many times the usual four seconds.
const START: Duration = Duration::from_secs(120);

/// How a node is set up.
#[derive(Clone, Debug)]
pub struct Options {
    /// The heap of the virtual machine, in MiB.
    pub heap: u32,
    /// Start quickly, at the price of slower steady work: right for tests, wrong for measuring.
    pub quick: bool,
    /// Lines added to `server.properties`.
    pub properties: Vec<String>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            heap: 512,
            quick: true,
            properties: Vec::new(),
        }
    }
}

/// Where a node stands: alone, or among others.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    pub(crate) id: usize,
    /// Of the broker's own listener, which leads straight to it.
    pub(crate) port: u16,
    /// The controllers of all nodes by id, this one's too.
    pub(crate) controllers: Vec<(usize, u16)>,
    /// A second listener: its port, and the one that clients which came through it are told.
    pub(crate) behind: Option<(u16, u16)>,
}

impl Place {
    fn alone() -> Result<Self> {
        Ok(Self {
            id: 1,
            port: free_port()?,
            controllers: vec![(1, free_port()?)],
            behind: None,
        })
    }
}

/// A running node. Dropping it ends it and removes its data.
#[derive(Debug)]
pub struct KafkaNode {
    options: Options,
    libs: PathBuf,
    process: Option<Guarded>,
    tools: KafkaTools,
    port: u16,
    folder: TempDir,
}

impl KafkaNode {
    /// Fetches Kafka where it is missing, starts a fresh node and waits until it answers.
    ///
    /// # Errors
    /// Java or Maven is missing, or the node does not answer in time; its log is in the text.
    pub fn start() -> Result<Self> {
        Self::start_with(Options::default())
    }

    /// The same with a set-up of one's own.
    ///
    /// # Errors
    /// As [`KafkaNode::start`].
    pub fn start_with(options: Options) -> Result<Self> {
        let libs = kafka_libs::fetch()?;
        with_free_ports(|| Self::start_at(&options, &libs, &Place::alone()?))
    }

    /// A node at a place, once it answers: among others, once most of them do.
    pub(crate) fn start_at(options: &Options, libs: &Path, place: &Place) -> Result<Self> {
        let folder = tempfile::Builder::new()
            .prefix("millstream-kafka-")
            .tempdir()
            .context("cannot make a folder for Kafka")?;
        let properties = server_properties(options, folder.path(), place);
        fs::write(folder.path().join("server.properties"), properties)
            .context("cannot write Kafka's configuration")?;
        let mut node = Self {
            options: options.clone(),
            libs: libs.to_path_buf(),
            process: None,
            tools: KafkaTools::new(format!("127.0.0.1:{}", place.port), libs.to_path_buf()),
            port: place.port,
            folder,
        };
        node.format()?;
        node.launch()?;
        Ok(node)
    }

    /// `host:port` for clients.
    pub fn bootstrap(&self) -> &str {
        self.tools.bootstrap()
    }

    /// The process id; `None` while the node is down.
    pub fn id(&self) -> Option<u32> {
        self.process.as_ref().map(Guarded::id)
    }

    /// Whether it runs; frozen counts.
    pub fn running(&mut self) -> bool {
        self.process.as_mut().is_some_and(Guarded::running)
    }

    /// Topics and Kafka's own reader, on this node.
    pub fn tools(&self) -> &KafkaTools {
        &self.tools
    }

    /// SIGKILL, as a crash of the broker; its data stays.
    ///
    /// # Errors
    /// The process is stuck in the kernel.
    pub fn kill9(&mut self) -> Result<()> {
        match self.process.take() {
            Some(mut process) => process.kill9(),
            None => Ok(()),
        }
    }

    /// SIGSTOP: it holds its connections and answers nothing, as a machine that hangs.
    ///
    /// # Errors
    /// The signal could not be sent.
    pub fn freeze(&mut self) -> Result<()> {
        self.process.as_mut().map_or(Ok(()), Guarded::freeze)
    }

    /// SIGCONT after [`KafkaNode::freeze`].
    ///
    /// # Errors
    /// The signal could not be sent.
    pub fn thaw(&mut self) -> Result<()> {
        self.process.as_mut().map_or(Ok(()), Guarded::thaw)
    }

    /// Ends the node in order and waits for it; its data stays.
    ///
    /// # Errors
    /// It does not end within a minute.
    pub fn stop(&mut self) -> Result<()> {
        match self.process.take() {
            Some(mut process) => {
                process.terminate()?;
                process.wait(Duration::from_secs(60)).map(drop)
            }
            None => Ok(()),
        }
    }

    /// Starts the node again on the same ports and data, killing it first where it still runs.
    ///
    /// # Errors
    /// It does not answer in time.
    pub fn restart(&mut self) -> Result<()> {
        self.kill9()?;
        self.launch()
    }

    fn java(&self, main: &str, arguments: &[&str]) -> Vec<OsString> {
        let mut all: Vec<OsString> = vec![format!("-Xmx{}m", self.options.heap).into()];
        if self.options.quick {
            all.extend(["-XX:TieredStopAtLevel=1".into(), "-XX:+UseSerialGC".into()]);
        }
        all.push("-cp".into());
        all.push(self.libs.join("*").into_os_string());
        all.push(main.into());
        all.extend(arguments.iter().map(OsString::from));
        all
    }

    fn spawn(&self, main: &str, arguments: &[&str]) -> Result<Guarded> {
        let log = self.log();
        Guarded::start(&Plan {
            program: "java".as_ref(),
            arguments: self.java(main, arguments),
            environment: Vec::new(),
            folder: self.folder.path(),
            stdout: Some(&log),
            stderr: Some(&log),
            remove: Some(self.folder.path()),
        })
    }

    /// The file that the node writes its log to.
    pub fn log(&self) -> PathBuf {
        self.folder.path().join("kafka.log")
    }

    fn log_text(&self) -> String {
        let text = fs::read(self.log()).unwrap_or_default();
        let tail = &text[text.len().saturating_sub(8192)..];
        String::from_utf8_lossy(tail).into_owned()
    }

    fn format(&self) -> Result<()> {
        let mut format = self.spawn(
            "kafka.tools.StorageTool",
            &["format", "-t", CLUSTER, "-c", "server.properties"],
        )?;
        let status = format.wait(START)?;
        if !status.success() {
            bail!(
                "Kafka's storage could not be formatted:\n{}",
                self.log_text()
            );
        }
        Ok(())
    }

    fn launch(&mut self) -> Result<()> {
        let mut process = self.spawn("kafka.Kafka", &["server.properties"])?;
        let deadline = Deadline::after(START);
        while !answers(self.port) {
            if let Some(status) = process.poll()? {
                bail!("Kafka ended with {status}:\n{}", self.log_text());
            }
            if deadline.passed() {
                bail!(
                    "Kafka did not answer within {START:?}:\n{}",
                    self.log_text()
                );
            }
            step();
        }
        self.process = Some(process);
        Ok(())
    }
}

impl Drop for KafkaNode {
    fn drop(&mut self) {
        // Before the folder goes: a broker whose data vanishes fills the log with errors.
        drop(self.process.take());
    }
}

/// Any 22 characters of base64 do; the data of a node is never mixed with another's.
const CLUSTER: &str = "bWlsbHN0cmVhbS10ZXN0cw";

fn server_properties(options: &Options, folder: &Path, place: &Place) -> String {
    let voters: Vec<String> = (place.controllers.iter())
        .map(|(id, port)| format!("{id}@127.0.0.1:{port}"))
        .collect();
    let own = place.controllers.iter().find(|(id, _)| *id == place.id);
    let controller = own.map_or(0, |(_, port)| *port);
    let mut listeners = format!("BROKER://127.0.0.1:{}", place.port);
    let mut advertised = listeners.clone();
    if let Some((port, told)) = place.behind {
        listeners += &format!(",BEHIND://127.0.0.1:{port}");
        advertised += &format!(",BEHIND://127.0.0.1:{told}");
    }
    let mut lines = vec![
        "process.roles=broker,controller".to_owned(),
        format!("node.id={}", place.id),
        format!("controller.quorum.voters={}", voters.join(",")),
        format!("listeners={listeners},CONTROLLER://127.0.0.1:{controller}"),
        format!("advertised.listeners={advertised}"),
        "listener.security.protocol.map=BROKER:PLAINTEXT,BEHIND:PLAINTEXT,CONTROLLER:PLAINTEXT"
            .to_owned(),
        "inter.broker.listener.name=BROKER".to_owned(),
        "controller.listener.names=CONTROLLER".to_owned(),
        format!("log.dirs={}", folder.join("data").display()),
        // A topic that the runtime does not create itself must be missing, as in production.
        "auto.create.topics.enable=false".to_owned(),
        "group.initial.rebalance.delay.ms=0".to_owned(),
        "offsets.topic.num.partitions=4".to_owned(),
        "offsets.topic.replication.factor=1".to_owned(),
        "transaction.state.log.num.partitions=4".to_owned(),
        "transaction.state.log.replication.factor=1".to_owned(),
        "transaction.state.log.min.isr=1".to_owned(),
        "share.coordinator.state.topic.num.partitions=1".to_owned(),
        "share.coordinator.state.topic.replication.factor=1".to_owned(),
        "share.coordinator.state.topic.min.isr=1".to_owned(),
        "log.cleaner.dedupe.buffer.size=16777216".to_owned(),
    ];
    lines.extend(options.properties.iter().cloned());
    lines.join("\n") + "\n"
}

/// Starts something on free ports, again where another took one between the look for it and its use.
pub(crate) fn with_free_ports<T>(mut start: impl FnMut() -> Result<T>) -> Result<T> {
    let mut attempts = 0;
    loop {
        attempts += 1;
        match start() {
            Err(error) if attempts < 5 && format!("{error:#}").contains("already in use") => {}
            done => return done,
        }
    }
}

/// Whether the broker answers the first request of any client (`ApiVersions`, version 0).
fn answers(port: u16) -> bool {
    const REQUEST: [u8; 14] = [0, 0, 0, 10, 0, 18, 0, 0, 0, 0, 0, 7, 0xff, 0xff];
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    let ask = || -> std::io::Result<[u8; 10]> {
        let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(1))?;
        stream.set_read_timeout(Some(Duration::from_secs(2)))?;
        stream.write_all(&REQUEST)?;
        let mut answer = [0; 10];
        stream.read_exact(&mut answer)?;
        Ok(answer)
    };
    // The same correlation id, and error code 0.
    ask().is_ok_and(|answer| answer[4..] == [0, 0, 0, 7, 0, 0])
}

/// The broker of the whole run: the one that [`SHARED`] names, else one that this process starts at
/// the first call and that ends with the process.
///
/// `None` where Kafka cannot be had (no Java 17, no Maven): the caller returns, and its test was
/// left out, loudly.
///
/// # Panics
/// Where Kafka cannot be had and `CI=true`: leaving tests out would pass for success.
pub fn shared() -> Option<&'static KafkaTools> {
    static FOUND: OnceLock<Option<(KafkaTools, Option<KafkaNode>)>> = OnceLock::new();
    let found = FOUND.get_or_init(|| or_left_out(find_shared()));
    found.as_ref().map(|(tools, _)| tools)
}

/// A node of one's own for a test that kills it; as [`shared`] where Kafka cannot be had.
///
/// # Panics
/// As [`shared`].
pub fn own() -> Option<KafkaNode> {
    or_left_out(KafkaNode::start())
}

fn find_shared() -> Result<(KafkaTools, Option<KafkaNode>)> {
    if let Ok(bootstrap) = std::env::var(SHARED) {
        let tools = KafkaTools::new(bootstrap, kafka_libs::fetch()?);
        return Ok((tools, None));
    }
    let node = KafkaNode::start()?;
    Ok((node.tools.clone(), Some(node)))
}

#[expect(
    clippy::panic,
    reason = "a test that cannot run fails, where CI says so"
)]
pub(crate) fn or_left_out<T>(found: Result<T>) -> Option<T> {
    match found {
        Ok(found) => Some(found),
        Err(error) if workspace::in_ci() => {
            panic!("tests against Kafka cannot run, and CI=true: {error:#}")
        }
        Err(error) => {
            eprintln!("\n*** LEFT OUT: tests against Kafka cannot run: {error:#}\n");
            None
        }
    }
}

/// Waits until a broker that was restarted takes requests.
///
/// # Errors
/// It does not within `within`.
pub fn wait_for(bootstrap: &str, within: Duration) -> Result<()> {
    let port = bootstrap
        .rsplit(':')
        .next()
        .and_then(|port| port.parse().ok())
        .with_context(|| format!("no port in {bootstrap}"))?;
    eventually("Kafka answers", within, || answers(port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_without_a_broker_does_not_answer() {
        assert!(!answers(free_port().unwrap()));
    }

    #[test]
    fn events_outlive_a_crash_of_the_broker() {
        let Some(mut node) = own() else { return };
        node.tools().create_topic("kept", 2).unwrap();
        node.tools()
            .produce("kept", &[(Some("k"), "one"), (None, "two")])
            .unwrap();
        node.kill9().unwrap();
        assert!(!answers(node.port));
        node.restart().unwrap();
        let records = node.tools().read("kept").unwrap();
        let mut values: Vec<_> = records.iter().map(|r| r.value_text()).collect();
        values.sort();
        assert_eq!(values, ["one", "two"]);
    }

    #[test]
    fn dropping_a_node_leaves_neither_process_nor_data() {
        let Some(node) = own() else { return };
        let (port, folder) = (node.port, node.folder.path().to_path_buf());
        drop(node);
        assert!(!answers(port));
        assert!(!folder.exists());
    }
}
