//! What people use today, as contenders: how each is installed and started.

use std::path::PathBuf;
use std::thread;

use anyhow::Result;

use crate::contender::{Contender, Job, Launch};
use crate::install::{installed, java, once, pinned, says, sources, tool};
use crate::workload::{Step, Workload};

const KAFKA_STREAMS: &str = "kafka-streams";
const CONNECT: &str = "redpanda-connect";
const CONNECT_MODULE: &str = "redpanda-connect-module";
const PYTHON: &str = "python";

/// What the `wasm` processor of Redpanda Connect takes: a module that asks for no component model.
const MODULE_TARGET: &str = "wasm32-unknown-unknown";

/// Installs a contender where it is not yet.
///
/// # Errors
/// A tool that it needs is missing, or fails.
pub fn install(contender: Contender) -> Result<()> {
    match contender {
        Contender::Python => once(PYTHON, |from, to| {
            let venv = to.join("venv");
            let make = ["-m", "venv", "--clear", &venv.to_string_lossy()].map(str::to_owned);
            tool("a virtual environment of Python", from, "python3", make)?;
            let fetch = ["install", "--quiet", "-r", "requirements.txt"];
            tool(
                "fetching confluent-kafka",
                from,
                venv.join("bin/pip"),
                fetch,
            )
        }),
        Contender::Connect => connect(),
        Contender::ConnectWasm => connect().and_then(|()| connect_module()),
        _ => once(KAFKA_STREAMS, |from, to| {
            let output = format!("-Doutput={}", to.display());
            let libs = format!("-DoutputDirectory={}", to.join("libs").display());
            let build = ["-q", "-B", &output, &libs, "-DincludeScope=runtime"];
            let goals = ["compile", "dependency:copy-dependencies"];
            let arguments = build.iter().chain(&goals);
            tool(
                "building the Kafka Streams application",
                from,
                "mvn",
                arguments,
            )
        }),
    }
}

fn connect() -> Result<()> {
    once(CONNECT, |from, to| {
        let binary = to.join("connect").to_string_lossy().into_owned();
        let build = ["build", "-trimpath", "-ldflags=-s -w", "-o", &binary, "."];
        tool("building Redpanda Connect", from, "go", build)
    })
}

fn connect_module() -> Result<()> {
    once(CONNECT_MODULE, |from, to| {
        let add = ["target", "add", MODULE_TARGET];
        tool("a target for Rust", from, "rustup", add)?;
        let folder = to.to_string_lossy();
        let build = [
            "build",
            "--quiet",
            "--locked",
            "--release",
            "--target",
            MODULE_TARGET,
            "--target-dir",
            &folder,
        ];
        tool("building the module", from, "cargo", build)
    })
}

/// What a contender is made of.
pub fn version(contender: Contender) -> String {
    match contender {
        Contender::Python => format!(
            "confluent-kafka {}, orjson {}, {}",
            pinned(PYTHON, "requirements.txt", "confluent-kafka=="),
            pinned(PYTHON, "requirements.txt", "orjson=="),
            says(installed(PYTHON).join("venv/bin/python"), "--version"),
        ),
        Contender::Connect | Contender::ConnectWasm => format!(
            "Redpanda Connect {}, wazero {}, {}",
            pinned(CONNECT, "go.mod", "redpanda-data/connect/v4 v"),
            pinned(CONNECT, "go.mod", "=> github.com/tetratelabs/wazero v"),
            says("go", "version"),
        ),
        _ => format!(
            "Kafka Streams {}, Java {}",
            pinned(KAFKA_STREAMS, "pom.xml", "<kafka.version>"),
            java(),
        ),
    }
}

/// How a contender is started; all go on until they are ended.
pub fn launch(contender: Contender, job: &Job<'_>) -> Launch {
    let names = [
        ("bootstrap", job.bootstrap),
        ("group", job.groups.first().map_or("", String::as_str)),
        ("input", job.input),
        ("output", job.output),
        ("workload", job.workload.name()),
    ];
    let (program, arguments, environment) = match contender {
        Contender::Python => {
            let script = sources(PYTHON).join("main.py");
            let mut arguments = vec![script.to_string_lossy().into_owned()];
            for (name, value) in names {
                arguments.extend([format!("--{name}"), value.to_owned()]);
            }
            (
                installed(PYTHON).join("venv/bin/python"),
                arguments,
                Vec::new(),
            )
        }
        Contender::Connect | Contender::ConnectWasm => {
            let file = match contender {
                Contender::ConnectWasm => "q22-wasm.yaml",
                _ => configuration(job.workload),
            };
            let file = sources(CONNECT).join(file);
            let module = installed(CONNECT_MODULE)
                .join(MODULE_TARGET)
                .join("release/millstream_bench_connect_module.wasm");
            let module = module.to_string_lossy().into_owned();
            let names = names.into_iter().chain([("module", module.as_str())]);
            let variable =
                |(name, value): (&str, &str)| (name.to_ascii_uppercase(), value.to_owned());
            let environment = names.map(variable).collect();
            let arguments = vec!["run".to_owned(), file.to_string_lossy().into_owned()];
            (installed(CONNECT).join("connect"), arguments, environment)
        }
        _ => {
            let folder = installed(KAFKA_STREAMS);
            let (classes, libs) = (folder.join("classes"), folder.join("libs"));
            let state = job.folder.join("kafka-streams-state");
            let guarantee = match contender {
                Contender::KafkaStreamsExactlyOnce => "exactly_once_v2",
                _ => "at_least_once",
            };
            let threads = thread::available_parallelism().map_or(1, usize::from);
            let mut arguments = vec![
                "-Xmx512m".to_owned(),
                "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn".to_owned(),
                "-cp".to_owned(),
                format!("{}:{}/*", classes.display(), libs.display()),
                "millstream.bench.Main".to_owned(),
                format!("guarantee={guarantee}"),
                format!("threads={threads}"),
                format!("state={}", state.display()),
            ];
            arguments.extend(names.map(|(name, value)| format!("{name}={value}")));
            (PathBuf::from("java"), arguments, Vec::new())
        }
    };
    Launch {
        program,
        arguments,
        environment,
        admin: None,
    }
}

/// The file of Connect's configuration.
fn configuration(workload: Workload) -> &'static str {
    match workload.step() {
        // There is none for order lines.
        Step::Pass | Step::Enrich => "q0.yaml",
        Step::Split => "q22.yaml",
        Step::ByHeader => "filter-header.yaml",
        Step::ByValue => "filter-plugin.yaml",
    }
}
