//! The composition root: it alone sees every layer.
//!
//! ```text
//! configuration ─▶ broker ─▶ topics ─▶ plugins (compiled, tried) ─▶ consumers ─▶ until a signal
//!   ▲                 └─▶ admin (metrics, health, topics) ───────────────────┘   or idle ─▶ drain
//!   └── reload: file changed, SIGHUP, POST /-/reload ◀── all the while
//!
//! control plane: this runtime (admin, compile, watch)     data plane: a runtime of its own (consumers)
//! ```

mod deploy;
mod deploy_book;
mod fetched;
mod health;
mod idle;
pub mod quiet;
mod reload;
mod topics;
mod watch;
mod wish;

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use self::deploy::{Running, Surroundings};
use self::deploy_book::DeployBook;
use self::health::RuntimeHealth;
use self::reload::{Current, Reloader, Request};
use crate::admin::{self, Certificate, NotDone, State, Wish};
use crate::broker::embedded::EmbeddedBroker;
use crate::broker::kafka::KafkaBroker;
use crate::broker::remote::store_id;
use crate::broker::{Broker, BrokerError};
use crate::clock;
use crate::config::{self, Config};
use crate::consumer::trial_room::TrialRoom;
use crate::metrics::{Metrics, Outcome, Probe};
use crate::plugin::Host;

/// How often the progress of a run is shown.
const PROGRESS: Duration = Duration::from_millis(200);

/// How to run.
#[derive(Clone, Debug, Default)]
pub struct RunOptions {
    /// End when everything is processed. The value is how long one who waits (a stopped consumer, a
    /// halted partition) is given.
    pub until_idle: Option<Duration>,
    /// Fail when an event was dead-lettered.
    pub fail_on_dead_letter: bool,
    /// Deploy a plugin whose file changed.
    pub watch_plugins: bool,
    /// Where to put the state of the run a few times a second, for whoever shows it.
    pub progress: Option<tokio::sync::watch::Sender<RunProgress>>,
}

/// The state of a run, all consumers together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RunProgress {
    pub consumed: u64,
    pub settled: u64,
    pub produced: u64,
    pub dead_letters: u64,
    /// Events that wait in the topics.
    pub lag: u64,
}

/// What a run did.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RunSummary {
    pub duration: Duration,
    /// In the order of the configuration.
    pub consumers: Vec<ConsumerSummary>,
    /// Why the run counts as failed; `None` where it did what it was asked to.
    pub failure: Option<String>,
    /// Whether it ended by SIGINT.
    pub interrupted: bool,
}

/// What one consumer did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ConsumerSummary {
    pub name: String,
    pub consumed: u64,
    /// Events by outcome: `ok`, `filtered`, `dropped`, `dead_lettered`, `abandoned`.
    pub settled: Vec<(String, u64)>,
    /// Derived events by output.
    pub produced: Vec<(String, u64)>,
}

/// Why the runtime did not start, where the exit code depends on it.
#[derive(Debug, thiserror::Error)]
pub enum StartFailure {
    /// The configuration or a plugin is at fault.
    #[error("{0}")]
    Configuration(String),
    /// The machine is: a port, a file, memory.
    #[error("{0}")]
    Host(String),
}

/// Why a run ended.
enum Ended {
    Signal {
        interrupted: bool,
    },
    Idle,
    /// `--until-idle` waited in vain.
    Stuck(String),
    Failed(anyhow::Error),
}

/// Opens the broker of a configuration; may block on a disk. `instance` is the identity for static
/// membership of groups.
///
/// # Errors
/// The store cannot be opened, or a property of the client is refused.
pub fn open_broker(
    config: &Config,
    instance: Option<&str>,
) -> Result<Arc<dyn Broker>, BrokerError> {
    Ok(match &config.broker {
        config::Broker::Embedded(embedded) => EmbeddedBroker::open(embedded, &config.topics)?,
        config::Broker::Kafka(kafka) => KafkaBroker::connect(kafka, instance)?,
    })
}

/// Runs until stopped, or until everything is processed.
///
/// # Errors
/// What keeps the runtime from starting, or ended it.
pub async fn run(config: Config, options: RunOptions) -> anyhow::Result<RunSummary> {
    let begun = Instant::now();
    let mut signals = Signals::listen()?;
    let mut hang_up = signal(SignalKind::hangup()).context("cannot listen for SIGHUP")?;
    let metrics = Arc::new(Metrics::new());
    let hooks = deploy::hooks(&metrics);
    let host = Host::new(&config.runtime, hooks)?;
    let listeners = Listeners::bind(&config.admin).await?;
    let broker = open(&config).await?;
    let (requests, mut asked) = reload::requests();
    let stuck_after = config.admin.stuck_after;
    let health = Arc::new(RuntimeHealth::new(
        broker.clone(),
        stuck_after,
        requests.clone(),
    ));
    let data_plane = tokio::runtime::Builder::new_multi_thread()
        .thread_name("millstream-data")
        .enable_all()
        .build()
        .context("cannot start the threads of the data plane")?;
    let surroundings = Surroundings {
        broker: broker.clone(),
        host,
        metrics: metrics.clone(),
        health,
        data_plane: data_plane.handle().clone(),
    };
    let state = admin_state(&config, &surroundings);
    let health = surroundings.health.clone();
    let stop_admin = CancellationToken::new();
    let serving = listeners.serve(state, &config, &stop_admin);

    let shutdown_timeout = config.runtime.shutdown_timeout;
    let current = Arc::new(Current::new(config));
    let first = current.get();
    let started = tokio::select! {
        started = start(&first, &surroundings) => started.map(Ok),
        interrupted = signals.next() => Ok(Err(interrupted)),
    };
    let result = match started {
        Ok(Ok(Started {
            mut running,
            book,
            cut_short,
        })) => {
            if cut_short {
                // Nobody has asked for anything yet: there is room.
                let _ = requests.try_send(Request::reload("a probation was cut short"));
            }
            metrics.reloaded(true, clock::now_ms());
            let admin = current.get().admin.listen;
            tracing::info!(consumers = running.len(), %admin, "running");
            let _watch = watch(&current, &requests, &options);
            let reloader = Reloader::new(current.clone(), surroundings, book);
            let ended = wait(
                Waits {
                    current: &current,
                    options: &options,
                    reloader: &reloader,
                    surroundings: reloader.surroundings(),
                },
                &mut running,
                &mut signals,
                &mut hang_up,
                &mut asked,
            )
            .await;
            health.drain();
            let left = drain(shutdown_timeout, running, &mut signals).await;
            Ok((ended, left))
        }
        Ok(Err(interrupted)) => Ok((Ended::Signal { interrupted }, Ok(()))),
        Err(error) => Err(error),
    };
    close(&broker, &data_plane_closed(data_plane), shutdown_timeout).await;
    stop_admin.cancel();
    // The server finishes the requests that run, bounded by itself.
    let _ = serving.await;
    let (ended, left) = result?;
    left?;
    summarize(&current.get(), &options, &metrics, ended, begun.elapsed())
}

/// Consumers that have just begun.
struct Started {
    running: Running,
    book: DeployBook,
    /// Whether one of them runs what was trusted before, and is to try its own version again.
    cut_short: bool,
}

/// Everything between an open broker and consumers at work.
async fn start(config: &Config, surroundings: &Surroundings) -> anyhow::Result<Started> {
    let config = &fetched::fetched(config.clone()).await?;
    let (named, wrong) = reload::digests(config).await?;
    if !wrong.is_empty() {
        return Err(StartFailure::Configuration(wrong.join("\n")).into());
    }
    let mut book = open_book(config).await?;
    let mut loaded = Vec::new();
    for version in named {
        let version = book.follow(version);
        let before = book.before_unproven(&version);
        let Surroundings { host, metrics, .. } = surroundings;
        let first = before.as_ref().unwrap_or(&version);
        let ready = deploy::load(host, &first.settings, 1, metrics).await?;
        deploy::keep(&book, ready.version()).await;
        loaded.push((ready, before.is_some()));
    }
    topics::prepare(config, None, &surroundings.broker).await?;
    let mut running = Running::new(surroundings.clone(), trial_room(config).await?);
    let mut cut_short = false;
    for (loaded, gives_way) in loaded {
        let version = loaded.version();
        let name = version.settings.name.clone();
        let overrides = book.of(&name);
        running.start(loaded, overrides.paused)?;
        if gives_way {
            tracing::warn!(
                consumer = %name,
                "its probation was cut short: the version before runs first, and then it is tried again"
            );
            cut_short = true;
        } else {
            overrides.runs(deploy_book::build(&version));
        }
    }
    deploy::show_overrides(&book, config, surroundings);
    surroundings.health.started();
    Ok(Started {
        running,
        book,
        cut_short,
    })
}

async fn open_book(config: &Config) -> anyhow::Result<DeployBook> {
    let config = config.clone();
    let opening = tokio::task::spawn_blocking(move || DeployBook::open(&config));
    opening
        .await
        .context("reading what was deployed by hand panicked")?
}

/// Watches the files for as long as it is held. A runtime that is to end when it is idle deploys
/// nothing by itself, and one that cannot watch still hears SIGHUP and HTTP.
fn watch(
    current: &Arc<Current>,
    requests: &mpsc::Sender<Request>,
    options: &RunOptions,
) -> Option<watch::Watch> {
    if options.until_idle.is_some() {
        return None;
    }
    match watch::start(current.clone(), requests.clone(), options.watch_plugins) {
        Ok(watch) => Some(watch),
        Err(error) => {
            tracing::warn!("changed files deploy nothing: {error:#}; send SIGHUP instead");
            None
        }
    }
}

/// Noted beside the embedded store: who opens it next finds the note. Partitions of a Kafka may be
/// taken up by a runtime elsewhere.
async fn trial_room(config: &Config) -> anyhow::Result<Arc<TrialRoom>> {
    let config::Broker::Embedded(embedded) = &config.broker else {
        return Ok(TrialRoom::unnoted());
    };
    let path = embedded.data_dir.join("trial");
    let opening = tokio::task::spawn_blocking(move || TrialRoom::noted(&path));
    opening.await.context("noting the start panicked")
}

async fn open(config: &Config) -> anyhow::Result<Arc<dyn Broker>> {
    let config = config.clone();
    let opening = tokio::task::spawn_blocking(move || {
        open_broker(&config, config.runtime.instance.as_deref())
    });
    Ok(opening.await.context("opening the broker panicked")??)
}

fn admin_state(config: &Config, surroundings: &Surroundings) -> Arc<State> {
    let Surroundings { broker, health, .. } = surroundings;
    let (metrics, host) = (surroundings.metrics.clone(), surroundings.host.clone());
    let up = broker.clone();
    let executors = [
        tokio::runtime::Handle::current(),
        surroundings.data_plane.clone(),
    ];
    let scrape = move || {
        let alive = |executor: &tokio::runtime::Handle| executor.metrics().num_alive_tasks();
        let probe = Probe {
            broker_up: up.up(),
            store: up.store_size(),
            tasks: executors.each_ref().map(alive),
        };
        metrics.render(probe, host.hooks().custom_metrics.gather())
    };
    let state = State::new(
        Arc::new(scrape),
        broker.topics(),
        health.clone(),
        config.topics.clone(),
        store_id(&config.broker),
    );
    Arc::new(state.with_operator(health.clone()))
}

/// The sockets of the control plane, bound before anything else starts.
struct Listeners {
    admin: TcpListener,
    certificate: Option<Arc<Certificate>>,
    metrics: Option<TcpListener>,
}

impl Listeners {
    async fn bind(admin: &config::Admin) -> anyhow::Result<Self> {
        let bind = async |address: std::net::SocketAddr, key: &str| {
            TcpListener::bind(address).await.map_err(|error| {
                StartFailure::Host(format!(
                    "cannot listen on {address} ({key}): {error}; stop what holds the port, or name another one"
                ))
            })
        };
        let certificate = match admin.tls.clone() {
            None => None,
            Some(tls) => {
                let reading = tokio::task::spawn_blocking(move || Certificate::read(&tls));
                let read = reading.await.context("reading the certificate panicked")?;
                let unfit = |unfit| StartFailure::Configuration(format!("[admin] tls: {unfit}"));
                Some(read.map_err(unfit)?)
            }
        };
        Ok(Self {
            certificate,
            admin: bind(admin.listen, "[admin] listen").await?,
            metrics: match admin.metrics_listen {
                Some(address) => Some(bind(address, "[metrics] listen").await?),
                None => None,
            },
        })
    }

    fn serve(
        self,
        state: Arc<State>,
        config: &Config,
        stop: &CancellationToken,
    ) -> tokio::task::JoinHandle<()> {
        let (admin, stop) = (config.admin.clone(), stop.clone());
        tokio::spawn(async move {
            let metrics = async {
                if let Some(listener) = self.metrics {
                    admin::serve_metrics(listener, state.clone(), stop.clone()).await;
                }
            };
            tokio::join!(
                admin::serve(
                    self.admin,
                    self.certificate,
                    state.clone(),
                    &admin,
                    stop.clone()
                ),
                metrics
            );
        })
    }
}

/// SIGTERM and SIGINT.
struct Signals {
    terminate: tokio::signal::unix::Signal,
    interrupt: tokio::signal::unix::Signal,
}

impl Signals {
    fn listen() -> anyhow::Result<Self> {
        let listen = |kind| signal(kind).context("cannot listen for signals");
        Ok(Self {
            terminate: listen(SignalKind::terminate())?,
            interrupt: listen(SignalKind::interrupt())?,
        })
    }

    /// Waits for one; true for SIGINT.
    async fn next(&mut self) -> bool {
        tokio::select! {
            _ = self.terminate.recv() => false,
            _ = self.interrupt.recv() => true,
        }
    }
}

/// What a runtime at work needs beside its consumers.
struct Waits<'a> {
    current: &'a Current,
    options: &'a RunOptions,
    reloader: &'a Reloader,
    surroundings: &'a Surroundings,
}

/// Works, and deploys what is new, until a signal comes, a consumer fails, or everything is processed.
async fn wait(
    waits: Waits<'_>,
    running: &mut Running,
    signals: &mut Signals,
    hang_up: &mut tokio::signal::unix::Signal,
    asked: &mut mpsc::Receiver<Request>,
) -> Ended {
    let Waits {
        current,
        options,
        reloader,
        surroundings:
            Surroundings {
                broker,
                metrics,
                health,
                ..
            },
    } = waits;
    let idle = async {
        match options.until_idle {
            Some(patience) => idle::wait(current, broker, health, patience).await,
            None => std::future::pending().await,
        }
    };
    let progress = async {
        let mut ticks = tokio::time::interval(PROGRESS);
        while let Some(sender) = &options.progress {
            ticks.tick().await;
            // Nobody may be looking any more.
            let _ = sender.send(progress(&current.get(), metrics, health));
        }
        std::future::pending::<()>().await;
    };
    tokio::pin!(idle, progress);
    loop {
        let request = tokio::select! {
            interrupted = signals.next() => return Ended::Signal { interrupted },
            error = broker.broken() => return Ended::Failed(error.into()),
            happened = running.next() => match happened {
                Ok(judged) => {
                    reloader.judged(&judged, running).await;
                    continue;
                }
                Err(error) => return Ended::Failed(error),
            },
            result = &mut idle => return match result {
                Ok(()) => Ended::Idle,
                Err(reason) => Ended::Stuck(reason),
            },
            () = &mut progress => return Ended::Idle,
            _ = hang_up.recv() => Request::reload("SIGHUP"),
            Some(request) = asked.recv() => request,
        };
        if let Wish::Pause(consumer) | Wish::Resume(consumer) = &request.wish {
            let (consumer, paused) = (consumer.clone(), matches!(request.wish, Wish::Pause(_)));
            reloader.pause(request, &consumer, paused, running).await;
            continue;
        }
        // A server may take minutes to send a plugin.
        let reading = reloader.read();
        tokio::pin!(reading);
        let read = loop {
            tokio::select! {
                read = &mut reading => break read,
                interrupted = signals.next() => return Ended::Signal { interrupted },
                error = broker.broken() => return Ended::Failed(error.into()),
                happened = running.next() => match happened {
                    Ok(judged) => reloader.judged(&judged, running).await,
                    Err(error) => return Ended::Failed(error),
                },
            }
        };
        let prepared = match read {
            Err(error) => Err(NotDone::Refused(format!("{error:#}"))),
            Ok(config) => tokio::select! {
                prepared = reloader.prepare(config, &request.wish, running) => prepared,
                interrupted = signals.next() => return Ended::Signal { interrupted },
            },
        };
        if let Err(error) = reloader.deploy(request, prepared, running).await {
            return Ended::Failed(error);
        }
    }
}

/// Ends the consumers in order; a second signal or the time-out ends them at once.
async fn drain(
    shutdown_timeout: Duration,
    running: Running,
    signals: &mut Signals,
) -> anyhow::Result<()> {
    let deadline = Instant::now() + shutdown_timeout;
    tracing::info!("draining");
    tokio::select! {
        result = running.drain(deadline) => result,
        _ = signals.next() => {
            tracing::warn!("a second signal: what is in flight is abandoned and comes again");
            Ok(())
        }
    }
}

fn data_plane_closed(data_plane: tokio::runtime::Runtime) {
    // Calls that outlive the drain are cut off: waiting for them could take for ever.
    data_plane.shutdown_background();
}

async fn close(broker: &Arc<dyn Broker>, (): &(), patience: Duration) {
    if tokio::time::timeout(patience, broker.close())
        .await
        .is_err()
    {
        tracing::warn!("the broker's client did not close in time; it is left behind");
    }
}

fn progress(config: &Config, metrics: &Metrics, health: &RuntimeHealth) -> RunProgress {
    let mut progress = RunProgress::default();
    for consumer in config.consumers.iter().filter(|consumer| consumer.enabled) {
        let ledger = metrics.ledger(&consumer.name);
        let ledger = ledger.lock();
        progress.consumed += ledger
            .consumed
            .values()
            .map(|volume| volume.events)
            .sum::<u64>();
        progress.settled += OUTCOMES
            .iter()
            .map(|(outcome, _)| ledger.settled_as(*outcome))
            .sum::<u64>();
        progress.produced += ledger
            .produced
            .values()
            .map(|volume| volume.events)
            .sum::<u64>();
        progress.dead_letters += ledger.dead_letters();
    }
    progress.lag = health.lag();
    progress
}

const OUTCOMES: [(Outcome, &str); 5] = [
    (Outcome::Ok, "ok"),
    (Outcome::Filtered, "filtered"),
    (Outcome::Dropped, "dropped"),
    (Outcome::DeadLettered, "dead_lettered"),
    (Outcome::Abandoned, "abandoned"),
];

fn summarize(
    config: &Config,
    options: &RunOptions,
    metrics: &Metrics,
    ended: Ended,
    duration: Duration,
) -> anyhow::Result<RunSummary> {
    let mut summary = RunSummary {
        duration,
        ..RunSummary::default()
    };
    let mut dead_letters = 0;
    for consumer in config.consumers.iter().filter(|consumer| consumer.enabled) {
        let ledger = metrics.ledger(&consumer.name);
        let ledger = ledger.lock();
        dead_letters += ledger.dead_letters();
        let settled = OUTCOMES
            .iter()
            .map(|(outcome, name)| ((*name).to_owned(), ledger.settled_as(*outcome)));
        let produced = ledger
            .produced
            .iter()
            .map(|(name, volume)| (name.to_string(), volume.events));
        summary.consumers.push(ConsumerSummary {
            name: consumer.name.to_string(),
            consumed: ledger.consumed.values().map(|volume| volume.events).sum(),
            settled: settled.collect(),
            produced: produced.collect(),
        });
    }
    match ended {
        Ended::Failed(error) => return Err(error),
        Ended::Stuck(reason) => summary.failure = Some(reason),
        Ended::Signal { interrupted } => summary.interrupted = interrupted,
        Ended::Idle => {}
    }
    if options.fail_on_dead_letter && dead_letters > 0 && summary.failure.is_none() {
        summary.failure = Some(format!("{dead_letters} events went to the dead letters"));
    }
    Ok(summary)
}
